//! A tar stream → its entries, one after the other, in bounded memory.
//!
//! In: bytes. Out: [`Entry`] values, and each file's data as borrowed pieces with the offset they belong at. Reads what
//! image builders write: ustar, PAX (global too), GNU long names, base-256 numbers, and GNU's and PAX's sparse files
//! (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"). Everything is hostile: every
//! length is capped, and what ends early is an error. Runs in the unpacking threads, and wherever an archive is read.

mod header;
mod input;
mod pax;
mod reader;
#[cfg(test)]
mod sample;
mod sparse;

pub use input::Input;
pub use reader::Reader;

type Block = [u8; 512];

const BLOCK: u64 = size_of::<Block>() as u64;

/// The longest PAX header or GNU long name that is read, and the most that global headers may say together.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// A point in time, as tar gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Time {
    /// Seconds since 1970; may be negative.
    pub seconds: i64,
    /// Nanoseconds after that.
    pub nanos: u32,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name, as it is spelled.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a link, as it is spelled.
    pub link: Vec<u8>,
    /// Length of the file in bytes, holes included.
    pub size: u64,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes, in the order of their names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
