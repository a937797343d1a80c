//! A [`Tree`](crate::layer::tree::Tree) → a rootfs on the disk, out of the files of its layers.
//!
//! In: the directories of the tree, and where the files are. Out: the tree at `root`. Directories are made first, then
//! filled with hard links, and get their modes and times last, those that are closed to their owner after all others and
//! deepest first. Every path leads through directories that were just made here, so none can be a link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, futimens, mkdirat};
use nix::sys::time::TimeSpec;

use super::parallel;
use super::sharing::LayerFiles;
use crate::error::{Context, Error, Hint, Result};
use crate::layer::stage::{set_xattrs, time};
use crate::layer::tree::Directory;

/// What the owner needs to go through a directory.
const OPEN: u32 = 0o500;

/// What the file system could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Degraded {
    /// Extended attributes of directories that it could not take.
    pub lost_xattrs: u64,
    /// Files that are copies, for they could have no more names.
    pub copies: u64,
}

/// Files that could have no more names, and the bytes of their copies.
struct Copies {
    files: AtomicU64,
    bytes: AtomicU64,
    max_bytes: u64,
}

impl Copies {
    fn add(&self, bytes: u64) -> Result<()> {
        self.files.fetch_add(1, Ordering::Relaxed);
        match self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.max_bytes {
            true => {
                let error = "the store can give files no second name, and their copies have more than";
                Err(Error::new(format!("{error} {} bytes", self.max_bytes)))
                    .hint(|| "`--max-unpacked SIZE` sets what is allowed")
            }
            false => Ok(()),
        }
    }
}

/// Makes the tree at `root`, which is made as well. `layers` has the files, lowest layer first. An image can name one file
/// millions of times: where each name is a copy, they may have `max_copied` bytes in all.
pub fn build(directories: &[Directory], layers: &[&LayerFiles], root: &Path, max_copied: u64) -> Result<Degraded> {
    std::fs::create_dir(root).context(|| format!("mkdir `{}`", root.display()))?;
    let root = open_dir(nix::fcntl::AT_FDCWD, root.as_os_str().as_encoded_bytes())?;
    for directory in directories.iter().filter(|d| !d.path.is_empty()) {
        mkdirat(&root, directory.path.as_slice(), Mode::S_IRWXU).context(|| shown("mkdir", &directory.path))?;
    }
    let lost = AtomicU64::new(0);
    let copies = Copies { files: AtomicU64::new(0), bytes: AtomicU64::new(0), max_bytes: max_copied };
    parallel::each(directories, |directory| fill(root.as_fd(), directory, layers, &copies))?;
    let finish = |directory: &&Directory| {
        lost.fetch_add(finish(root.as_fd(), directory)?, Ordering::Relaxed);
        Ok(())
    };
    let (open, closed): (Vec<_>, Vec<_>) = directories.iter().partition(|d| d.attributes.mode & OPEN == OPEN);
    parallel::each(&open, finish)?;
    closed.iter().rev().try_for_each(finish)?;
    Ok(Degraded { lost_xattrs: lost.into_inner(), copies: copies.files.into_inner() })
}

/// Links the files of one directory into it.
fn fill(root: BorrowedFd, directory: &Directory, layers: &[&LayerFiles], copies: &Copies) -> Result<()> {
    if directory.files.is_empty() {
        return Ok(());
    }
    let dir = open_dir(root, &directory.path)?;
    for (name, staged) in &directory.files {
        let copied = layers[staged.layer].link(staged.number, &dir, name).context(|| shown("fill", &directory.path))?;
        copied.map_or(Ok(()), |bytes| copies.add(bytes))?;
    }
    Ok(())
}

/// Gives a directory its attributes.
fn finish(root: BorrowedFd, directory: &Directory) -> Result<u64> {
    let what = || shown("set the attributes of", &directory.path);
    let dir = open_dir(root, &directory.path)?;
    let lost = set_xattrs(&dir, &directory.attributes.xattrs).context(what)?;
    fchmod(&dir, Mode::from_bits_truncate(directory.attributes.mode)).context(what)?;
    futimens(&dir, &TimeSpec::UTIME_OMIT, &time(directory.attributes.mtime)).context(what)?;
    Ok(lost)
}

fn open_dir(root: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let name = if path.is_empty() { b"." } else { path };
    openat(root, name, flags, Mode::empty()).context(|| shown("open", path))
}

fn shown(what: &str, path: &[u8]) -> String {
    format!("{what} `{}`", String::from_utf8_lossy(path))
}
