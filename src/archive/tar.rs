//! A tar of an image: files by name, read in place.
//!
//! In: a tar. Out: its regular files, by normalised name. `docker save` used to write a layer that an image repeats as
//! a link to the first one; links are followed in the tar and nowhere else.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Files, Opened};
use crate::error::{Context, Error, Hint, Result};
use crate::layer::tar::{Entry, Kind, Reader};

/// The most entries a tar of an image may have; it has a few for each layer.
const MAX_ENTRIES: usize = 1 << 20;

/// The most bytes that their names may have.
const MAX_NAMES: usize = 64 << 20;
/// How many links may lead to a file.
const MAX_HOPS: usize = 8;

/// A tar and where its files are.
#[derive(Debug)]
pub(super) struct Tar {
    path: PathBuf,
    file: Arc<File>,
    entries: HashMap<String, Stored>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stored {
    File {
        offset: u64,
        size: u64,
    },
    Link(String),
    /// Neither a file nor a link to one, or a link that leads outside.
    Other,
}

impl Tar {
    /// Opens a tar and reads all its headers.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let what = || format!("open the archive `{}`", path.display());
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).context(what)?;
        if !file.metadata().context(what)?.is_file() {
            return Err(Error::new("it is not a regular file")).context(what);
        }
        refuse_others(&file, path).context(what)?;
        let entries = index(file.try_clone().context(what)?).context(what)?;
        Ok(Self { path: path.into(), file: Arc::new(file), entries })
    }

    /// Whether there is an entry of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The names of its entries, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where a file begins, and its length. All that links lead to one file have one place, and no two places overlap.
    pub(super) fn place(&self, name: &str) -> Result<(u64, u64)> {
        self.find(name).context(|| format!("open `{name}` in `{}`", self.path.display()))
    }

    fn find(&self, name: &str) -> Result<(u64, u64)> {
        let mut at = normalise(name).context(|| "its name leads outside")?;
        for _ in 0..=MAX_HOPS {
            match self.entries.get(&at) {
                Some(Stored::File { offset, size }) => return Ok((*offset, *size)),
                Some(Stored::Link(to)) => at.clone_from(to),
                Some(Stored::Other) => return Err(Error::new(format!("`{at}` is not a file in the archive"))),
                None => return Err(Error::new(format!("there is no `{at}` in it"))),
            }
        }
        Err(Error::new(format!("more than {MAX_HOPS} links lead to it")))
    }
}

impl Files for Tar {
    fn open(&self, name: &str) -> Result<Opened> {
        let (offset, size) = self.place(name)?;
        let end = offset.checked_add(size).context(|| format!("`{name}` is too large"))?;
        Ok(Opened { reader: Box::new(Slice { file: Arc::clone(&self.file), at: offset, end }), size })
    }
}

/// Files that are known for something else than a tar, by their first bytes.
fn refuse_others(file: &File, path: &Path) -> Result<()> {
    let mut start = [0; 48];
    let read = file.read_at(&mut start, 0).context(|| "read it")?;
    let decompress = |name: &str, with: &str| {
        let hint = format!("decompress it first: `{with} {}`", path.display());
        Err(Error::new(format!("it is compressed with {name}"))).hint(|| hint)
    };
    match &start[..read] {
        [0x1f, 0x8b, ..] => decompress("gzip", "gunzip -k"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => decompress("zstd", "zstd -d"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => decompress("xz", "xz -dk"),
        [b'B', b'Z', b'h', ..] => decompress("bzip2", "bunzip2 -k"),
        [b'h', b's', b'q', b's', ..] => Err(Error::new("it is a squashfs image, which cannot be run yet")),
        bytes if bytes.get(32..41) == Some(b"SIF_MAGIC") => {
            Err(Error::new("it is an Apptainer image, which cannot be run yet"))
        }
        _ => Ok(()),
    }
}

/// The last entry of a name wins, as when a tar is unpacked.
fn index(file: File) -> Result<HashMap<String, Stored>> {
    let (mut tar, mut entries) = (Reader::new(BufReader::new(file)), HashMap::new());
    let (mut read, mut names) = (0, 0);
    while let Some(entry) = tar.next()? {
        read += 1;
        names += entry.path.len() + entry.link.len();
        if read > MAX_ENTRIES || names > MAX_NAMES {
            return Err(Error::new(format!("it has more than {MAX_ENTRIES} entries, or {MAX_NAMES} bytes of names")));
        }
        if let Some(name) = std::str::from_utf8(&entry.path).ok().and_then(normalise) {
            let stored = stored(&name, &entry, tar.offset());
            entries.insert(name, stored);
        }
    }
    Ok(entries)
}

fn stored(name: &str, entry: &Entry, offset: u64) -> Stored {
    let link = || std::str::from_utf8(&entry.link).ok();
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let target = match entry.kind {
        Kind::File => return Stored::File { offset, size: entry.size },
        Kind::HardLink => link().and_then(normalise),
        Kind::Symlink => link().filter(|l| !l.starts_with('/')).and_then(|l| normalise(&format!("{folder}/{l}"))),
        _ => None,
    };
    target.map_or(Stored::Other, Stored::Link)
}

/// A name without `.`, `..` and needless slashes; `None` if it leads out of the archive.
fn normalise(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A part of a file. Has its own position, so that any number of them can be read at once.
struct Slice {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Slice {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        let read = self.file.read_at(&mut buf[..want], self.at)?;
        if read == 0 && want > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a file"));
        }
        self.at += read as u64;
        Ok(read)
    }
}
