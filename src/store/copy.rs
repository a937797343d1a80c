//! A copy of a staged file, where one more name for it cannot be had: a file system without hard links, or a file that has as
//! many names as one may have. Where the file system can, the copy shares the blocks.
//!
//! In: the file by its directory and name. Out: a file of the same type, content, holes, mode, time and attributes.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, copy_file_range, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, lseek, mkfifoat, symlinkat};

use crate::error::{Context, Error, Result};
use crate::sys;

/// Whether linkat(2) says that there can be no link.
pub(super) fn is_needed(refused: Errno) -> bool {
    matches!(refused, Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK)
}

/// Copies a regular file, a symbolic link or a FIFO; gives the bytes that it has on the disk.
pub(super) fn copy(from: BorrowedFd, old: &[u8], to: BorrowedFd, new: &[u8]) -> Result<u64> {
    let stat = fstatat(from, old, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(std::io::Error::from).context(|| "fstatat")?;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => copy_file(from, old, to, new, &stat)?,
        SFlag::S_IFLNK => {
            let target = readlinkat(from, old).context(|| "readlinkat")?;
            symlinkat(target.as_os_str(), to, new).context(|| "symlinkat")?;
        }
        SFlag::S_IFIFO => {
            mkfifoat(to, new, mode).context(|| "mkfifoat")?;
            fchmodat(to, new, mode, FchmodatFlags::FollowSymlink).context(|| "fchmodat")?; // whatever the umask
        }
        _ => return Err(Error::new("a staged file is of no type that is staged")),
    }
    let time = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(to, new, &TimeSpec::UTIME_OMIT, &time, UtimensatFlags::NoFollowSymlink).context(|| "utimensat")?;
    Ok(stat.st_blocks.cast_unsigned() * 512) // stat(2): whatever the file system's blocks are
}

fn copy_file(from: BorrowedFd, old: &[u8], to: BorrowedFd, new: &[u8], stat: &FileStat) -> Result<()> {
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let source = open_closed(from, old, mode)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let copy = File::from(openat(to, new, flags, mode | Mode::S_IWUSR).context(|| "openat")?);
    copy.set_len(stat.st_size.cast_unsigned()).context(|| "ftruncate")?;
    copy_data(&source, &copy)?;
    for name in sys::xattr_names(source.as_fd()).context(|| "flistxattr")? {
        let value = sys::xattr(source.as_fd(), &name).context(|| "fgetxattr")?;
        sys::set_xattr(copy.as_fd(), &name, &value).context(|| "fsetxattr")?;
    }
    fchmod(&copy, mode).context(|| "fchmod")
}

/// Opens a file of ours for reading, even if its mode forbids that.
fn open_closed(from: BorrowedFd, name: &[u8], mode: Mode) -> Result<File> {
    let open = || openat(from, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
    let chmod = |mode| fchmodat(from, name, mode, FchmodatFlags::FollowSymlink).context(|| "fchmodat");
    match open() {
        Err(Errno::EACCES) => {
            chmod(mode | Mode::S_IRUSR)?;
            let opened = open();
            chmod(mode)?;
            opened.context(|| "openat").map(File::from)
        }
        opened => opened.context(|| "openat").map(File::from),
    }
}

/// What is not a hole.
fn copy_data(source: &File, copy: &File) -> Result<()> {
    let mut end = 0;
    loop {
        let start = match lseek(source, end, Whence::SeekData) {
            Err(Errno::ENXIO) => return Ok(()),
            start => start.context(|| "lseek")?,
        };
        end = lseek(source, start, Whence::SeekHole).context(|| "lseek")?;
        let (mut at, mut there) = (start, start);
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX);
            match copy_file_range(source, Some(&mut at), copy, Some(&mut there), length) {
                Ok(0) => return Err(Error::new("a staged file has become shorter")),
                Ok(_) => {}
                Err(Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EXDEV | Errno::EINVAL) => {
                    copy_bytes(source, copy, at, end)?;
                    at = end;
                }
                Err(e) => return Err(e).context(|| "copy_file_range"),
            }
        }
    }
}

fn copy_bytes(mut source: &File, mut copy: &File, start: i64, end: i64) -> Result<()> {
    let seek = SeekFrom::Start(start.cast_unsigned());
    source.seek(seek).and_then(|_| copy.seek(seek)).context(|| "lseek")?;
    let mut part = std::io::Read::take(&mut source, (end - start).cast_unsigned());
    std::io::copy(&mut part, &mut copy).map(drop).context(|| "write")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

    fn copied(dir: &std::path::Path, name: &str) {
        let open = File::open(dir).unwrap();
        copy(open.as_fd(), name.as_bytes(), open.as_fd(), b"copy").unwrap();
    }

    #[test]
    fn a_copy_has_content_holes_mode_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("file"), dir.path().join("copy"));
        let file = File::create(&path).unwrap();
        for at in [0, 1 << 20] {
            file.write_all_at(b"data", at).unwrap();
        }
        file.set_len(2 << 20).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(5, 7)).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o4040)).unwrap();
        copied(dir.path(), "file");
        let (old, new) = (std::fs::metadata(&path).unwrap(), std::fs::metadata(&copy).unwrap());
        let facts = |m: &std::fs::Metadata| (m.mode(), m.mtime(), m.mtime_nsec(), m.len(), m.nlink());
        assert_eq!(facts(&old), facts(&new));
        assert!(new.blocks() < 1024, "{} blocks", new.blocks());
        for path in [&path, &copy] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&copy).unwrap());
    }

    #[test]
    fn links_are_copied_as_links() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        copied(dir.path(), "link");
        assert_eq!(std::fs::read_link(dir.path().join("copy")).unwrap(), OsStr::from_bytes(b"nowhere"));
    }
}
