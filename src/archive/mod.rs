//! `oci:`, `oci-archive:` and `docker-archive:` → manifest, config and layer streams.
//!
//! In: a directory or a tar. Out: the same as from a registry. A tar is indexed once, by seeking over its contents, and
//! then read in place: nothing is unpacked, and a link in it leads nowhere but to another of its entries.

use std::fmt;
use std::io::Read;
use std::path::Path;

use crate::error::{Context, Error, Result};

pub use docker::DockerArchive;
pub use layout::Layout;

mod docker;
mod files;
mod layout;
mod legacy;
mod names;
mod tar;

/// What a tar of an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An OCI layout.
    Oci,
    /// The output of `docker save`.
    Docker,
}

/// Tells by its content what kind of image a file is. What newer Dockers save is both, and then taken for theirs.
pub fn sniff(path: &Path) -> Result<Kind> {
    let tar = tar::Tar::open(path)?;
    match [tar.has(docker::MANIFEST), tar.has(layout::MARKER), legacy::is_in(&tar)] {
        [true, ..] | [_, false, true] => Ok(Kind::Docker),
        [_, true, _] => Ok(Kind::Oci),
        [false, false, false] => Err(Error::new(format!(
            "`{}` is not an image: there is neither `{}` nor `{}` in it",
            path.display(),
            layout::MARKER,
            docker::MANIFEST
        ))),
    }
}

/// Files by name, in a directory or in a tar.
trait Files: Send + Sync + fmt::Debug {
    /// A regular file, from its start.
    fn open(&self, name: &str) -> Result<Opened>;
}

/// A file to read, and its length.
struct Opened {
    reader: Box<dyn Read + Send>,
    size: u64,
}

/// A whole file, if it is no longer than a document may be.
fn read_document(files: &dyn Files, name: &str) -> Result<Vec<u8>> {
    let limit = crate::manifest::MAX_DOCUMENT;
    let mut bytes = Vec::new();
    files.open(name)?.reader.take(limit + 1).read_to_end(&mut bytes).context(|| format!("read `{name}`"))?;
    match bytes.len() as u64 > limit {
        true => Err(Error::new(format!("`{name}` is larger than the {limit} bytes that are read"))),
        false => Ok(bytes),
    }
}
