//! Entries → files in a layer's stage: a flat directory in which each file is called by a number.
//!
//! In: an entry and its data. Out: the number. Names of the image appear in no path here; where a file goes is decided
//! when all layers are known. Every attribute of a file is set here, since it stays the same file ever after.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::sys::uio::pwrite;
use nix::unistd::{ftruncate, mkfifoat, symlinkat};

use super::change::{is_settable, shown};
use super::tar::{Entry, Input, Reader, Time};
use crate::error::{Context, Error, Result};
use crate::sys;

/// The longest target of a symbolic link (PATH_MAX, with its NUL).
const MAX_TARGET: usize = 4095;

/// A layer's stage.
pub(super) struct Stage {
    dir: OwnedFd,
    umask: u32,
    next: u64,
    /// Attributes that the file system could not take.
    pub(super) lost_xattrs: u64,
}

impl Stage {
    /// The stage in an empty directory. `umask` is the process's, so that only what it took away is given back.
    pub(super) fn open(path: &Path, umask: u32) -> Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(path, flags, Mode::empty()).context(|| format!("open `{}`", path.display()))?;
        Ok(Self { dir, umask, next: 0, lost_xattrs: 0 })
    }

    /// Stages a regular file; gives its number, and how many bytes of data it has.
    pub(super) fn file(&mut self, entry: &Entry, tar: &mut Reader<impl Input>) -> Result<(u64, u64)> {
        let what = || format!("unpack the file `{}`", shown(&entry.path));
        let (number, name) = self.name();
        // Writable until its attributes are set, which needs that permission.
        let early = if entry.xattrs.is_empty() { entry.mode } else { entry.mode | 0o200 } & 0o777;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.dir, name.as_str(), flags, Mode::from_bits_truncate(early)).context(what)?;
        let written = copy(tar, &fd, entry.size).context(what)?;
        self.lost_xattrs += set_xattrs(&fd, &entry.xattrs).context(what)?;
        if early & !self.umask != entry.mode {
            fchmod(&fd, Mode::from_bits_truncate(entry.mode)).context(|| "fchmod").context(what)?;
        }
        futimens(&fd, &TimeSpec::UTIME_OMIT, &time(entry.mtime)).context(|| "futimens").context(what)?;
        Ok((number, written))
    }

    /// Stages a symbolic link.
    pub(super) fn symlink(&mut self, entry: &Entry) -> Result<u64> {
        let what = || format!("unpack the symbolic link `{}`", shown(&entry.path));
        if entry.link.is_empty() || entry.link.len() > MAX_TARGET {
            return Err(Error::new(format!("its target has {} bytes", entry.link.len()))).context(what);
        }
        let (number, name) = self.name();
        symlinkat(entry.link.as_slice(), &self.dir, name.as_str()).context(|| "symlinkat").context(what)?;
        self.set_time(&name, entry.mtime).context(what)?;
        Ok(number)
    }

    /// Stages a FIFO.
    pub(super) fn fifo(&mut self, entry: &Entry) -> Result<u64> {
        let what = || format!("unpack the FIFO `{}`", shown(&entry.path));
        let (number, name) = self.name();
        let mode = Mode::from_bits_truncate(entry.mode);
        mkfifoat(&self.dir, name.as_str(), mode).context(|| "mkfifoat").context(what)?;
        let follow = nix::sys::stat::FchmodatFlags::FollowSymlink; // it is none: we made it
        nix::sys::stat::fchmodat(&self.dir, name.as_str(), mode, follow).context(|| "fchmodat").context(what)?;
        self.set_time(&name, entry.mtime).context(what)?;
        Ok(number)
    }

    fn set_time(&self, name: &str, mtime: Time) -> Result<()> {
        let flag = UtimensatFlags::NoFollowSymlink;
        utimensat(&self.dir, name, &TimeSpec::UTIME_OMIT, &time(mtime), flag).context(|| "utimensat")
    }

    fn name(&mut self) -> (u64, String) {
        let number = self.next;
        self.next += 1;
        (number, number.to_string())
    }
}

/// Writes the data, and makes the file as long as it is to be: holes are not written.
fn copy(tar: &mut Reader<impl Input>, fd: &OwnedFd, size: u64) -> Result<u64> {
    let (mut written, mut end) = (0, 0);
    tar.data(|offset, mut piece| {
        let mut at = offset;
        while !piece.is_empty() {
            let n = pwrite(fd, piece, at.cast_signed()).context(|| "write")?;
            (piece, at) = (&piece[n..], at + n as u64);
            written += n as u64;
        }
        end = at;
        Ok(())
    })?;
    if end < size {
        ftruncate(fd, size.cast_signed()).context(|| format!("make it {size} bytes long"))?;
    }
    Ok(written)
}

/// Sets what can be set without privileges; gives the number of those that the file system has no room or no way for.
pub(crate) fn set_xattrs(fd: impl AsFd, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<u64> {
    let mut lost = 0;
    for (name, value) in xattrs.iter().filter(|(name, _)| is_settable(name)) {
        let name = CString::new(name.as_slice()).context(|| "an attribute's name has a NUL byte")?;
        match sys::set_xattr(fd.as_fd(), &name, value) {
            Ok(()) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSPC | Errno::E2BIG | Errno::ERANGE) => lost += 1,
            Err(e) => return Err(e).context(|| format!("fsetxattr {}", name.to_string_lossy())),
        }
    }
    Ok(lost)
}

/// A time as the kernel takes it.
pub(crate) fn time(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, time.nanos.into())
}
