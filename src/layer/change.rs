//! Tar entries → changes: what a layer does to the tree below it (image-spec, layer.md).
//!
//! In: an entry's name and kind. Out: a [`Change`] with its path in one form. Pure. An [`Index`] is all changes of a
//! layer, as the store keeps them.

use serde::{Deserialize, Serialize};

use super::tar::{Entry, Time};
use crate::error::{Context, Error, Hint, Result};

/// The longest name of a file (NAME_MAX).
pub const MAX_NAME: usize = 255;

/// The longest path (PATH_MAX, with its NUL).
pub const MAX_PATH: usize = 4095;

/// What a whiteout's name starts with (layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// What AUFS wrote for itself; only the opaque mark has a meaning in layers.
const AUFS: &[u8] = b".wh..wh.";

const OPAQUE: &[u8] = b".wh..wh..opq";

/// Everything one layer does, in its order.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The changes.
    pub changes: Vec<Change>,
    /// Bytes of all files, without holes.
    pub bytes: u64,
}

/// One thing a layer does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Names joined by `/`: no `/` at either end, no `.`; a `..` is left for the tree, which knows where it leads.
    pub path: Vec<u8>,
    /// What becomes of it.
    pub what: What,
}

impl Change {
    /// Bytes of its names and attributes.
    pub fn size(&self) -> usize {
        let named = match &self.what {
            What::Symlink { target, .. } | What::HardLink { target } => target.len(),
            What::Dir(attributes) => attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum(),
            _ => 0,
        };
        self.path.len() + named
    }
}

/// What a change does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Removes the path from the layers below.
    Whiteout,
    /// Removes all that the layers below have in this directory.
    Opaque,
    /// Makes a directory, or gives one new attributes.
    Dir(Attributes),
    /// Puts a staged file there: a regular one or a FIFO.
    File {
        /// Its name in the layer's stage.
        number: u64,
    },
    /// Puts a staged symbolic link there.
    Symlink {
        /// Its name in the layer's stage.
        number: u64,
        /// Where it points.
        target: Vec<u8>,
    },
    /// Gives a file of this layer, or of one below, one more name.
    HardLink {
        /// The file, as `path` is spelled.
        target: Vec<u8>,
    },
    /// A device node, which only root can make: nothing is there afterwards.
    Device,
}

/// What a directory has beside its name. A file's attributes are those of the staged file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry's name says.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    /// A path.
    Plain(Vec<u8>),
    /// A whiteout of this path.
    Whiteout(Vec<u8>),
    /// The opaque mark of this directory.
    Opaque(Vec<u8>),
    /// Something that is not part of the tree.
    Ignored,
}

impl Name {
    /// Reads an entry's name.
    pub fn parse(spelled: &[u8]) -> Result<Self> {
        let path = normal(spelled)?;
        let at = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        let dir = || path[..at.saturating_sub(1)].to_vec();
        let name = &path[at..];
        if name == OPAQUE {
            return Ok(Self::Opaque(dir()));
        }
        if name.starts_with(AUFS) {
            return Ok(Self::Ignored);
        }
        match name.strip_prefix(WHITEOUT) {
            None => Ok(Self::Plain(path)),
            Some(b"" | b"." | b"..") => Err(Error::new(format!("`{}` is a whiteout of nothing", shown(spelled)))),
            Some(hidden) => Ok(Self::Whiteout([&path[..at], hidden].concat())),
        }
    }
}

/// A path in the form that [`Change`] wants.
pub fn normal(spelled: &[u8]) -> Result<Vec<u8>> {
    let names = || spelled.split(|&b| b == b'/').filter(|name| !matches!(*name, b"" | b"."));
    if spelled.len() > MAX_PATH || names().any(|name| name.len() > MAX_NAME) {
        return Err(Error::new(format!("`{}` is too long a name", shown(&spelled[..spelled.len().min(MAX_NAME)]))));
    }
    Ok(names().collect::<Vec<_>>().join(&b'/'))
}

/// A path for an error message.
pub(super) fn shown(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}

impl Attributes {
    /// A directory's, from its entry.
    pub(super) fn of(entry: &Entry) -> Self {
        let xattrs = entry.xattrs.iter().filter(|(name, _)| is_settable(name)).cloned().collect();
        Self { mode: entry.mode, mtime: entry.mtime, xattrs }
    }

    /// A directory's that no entry names: as mkdir would make it, at no time in particular.
    pub fn implicit() -> Self {
        Self { mode: 0o755, mtime: Time::default(), xattrs: Vec::new() }
    }
}

/// Only `user.` attributes can be set without privileges, and overlayfs takes some of those for its own.
pub(super) fn is_settable(xattr: &[u8]) -> bool {
    xattr.len() > 5 && xattr.starts_with(b"user.") && !xattr.starts_with(b"user.overlay.") && !xattr.contains(&0)
}

impl Index {
    /// The form in which the store keeps it.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        postcard::to_stdvec(self).context(|| "serialize a layer's index")
    }

    /// Reads the index of the layer at `path`.
    pub fn read(path: &std::path::Path) -> Result<Self> {
        let what = || format!("read the index of the layer `{}`", path.display());
        let read = std::fs::read(path.join("index")).context(|| "read its file");
        let lost = || "`gpurun rm` the images that share the layer, and pull again";
        read.and_then(|bytes| Self::from_bytes(&bytes)).context(what).hint(lost)
    }

    /// Reads that form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        postcard::from_bytes(bytes).context(|| "parse a layer's index")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_mean() {
        let (plain, whiteout) = (|p: &str| Name::Plain(p.into()), |p: &str| Name::Whiteout(p.into()));
        for (spelled, want) in [
            ("./", plain("")),
            ("/a//b/./c/", plain("a/b/c")),
            ("../a/../b", plain("../a/../b")),
            ("a/.wh", plain("a/.wh")),
            ("a/.wh.b", whiteout("a/b")),
            (".wh.b", whiteout("b")),
            ("a/.wh.b/", whiteout("a/b")),
            (".wh..wh..opq", Name::Opaque(Vec::new())),
            ("a/b/.wh..wh..opq", Name::Opaque("a/b".into())),
            ("a/.wh..wh.plnk", Name::Ignored),
            (".wh..b", whiteout(".b")),
        ] {
            assert_eq!(Name::parse(spelled.as_bytes()).unwrap(), want, "{spelled}");
        }
    }

    #[test]
    fn whiteouts_of_nothing_and_long_names_are_refused() {
        for spelled in [".wh.", "a/.wh.", "a/.wh..", ".wh...", &"n".repeat(256), &"a/".repeat(2048)] {
            assert!(Name::parse(spelled.as_bytes()).is_err(), "{spelled}");
        }
        assert!(Name::parse("n".repeat(255).as_bytes()).is_ok());
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let change = |path: &str, what| Change { path: path.into(), what };
        let attributes = Attributes {
            mode: 0o2755,
            mtime: Time { seconds: -5, nanos: 7 },
            xattrs: vec![(b"user.x".into(), vec![0, 255])],
        };
        let changes = vec![
            change("a", What::Dir(attributes)),
            change("a/\u{e9}", What::File { number: 0 }),
            change("l", What::Symlink { number: 1, target: b"/x".into() }),
            change("h", What::HardLink { target: b"a/b".into() }),
            change("gone", What::Whiteout),
        ];
        let index = Index { changes, bytes: 1 << 40 };
        assert_eq!(Index::from_bytes(&index.to_bytes().unwrap()).unwrap(), index);
        assert!(Index::from_bytes(b"\xff\xff\xff").is_err());
    }
}
