//! Locks for a file system that has none, as some NFS and Lustre mounts: bytes of one file on this machine, each of which
//! stands for a file or directory. Other machines do not see them; what they make has directories of its own.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FlockArg, fcntl};

use crate::error::{Context, Error, Result};

/// Whether flock(2) says that there are no locks.
pub(super) fn is_needed(refused: Errno) -> bool {
    matches!(refused, Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS)
}

/// Locks what `file` is open on; none if somebody else has it and `how` is not to wait. It lasts as long as the result.
pub(super) fn lock(file: &File, how: FlockArg) -> Result<Option<File>> {
    let (locks, path) = open()?;
    let shared = matches!(how, FlockArg::LockShared | FlockArg::LockSharedNonblock);
    let waits = matches!(how, FlockArg::LockShared | FlockArg::LockExclusive);
    let small = |constant| libc::c_short::try_from(constant).expect("a small constant");
    let range = libc::flock {
        l_type: small(if shared { libc::F_RDLCK } else { libc::F_WRLCK }),
        l_whence: small(libc::SEEK_SET),
        l_start: byte_of(file)?,
        l_len: 1,
        l_pid: 0,
    };
    let command = if waits { FcntlArg::F_OFD_SETLKW(&range) } else { FcntlArg::F_OFD_SETLK(&range) };
    match fcntl(&locks, command) {
        Ok(_) => Ok(Some(locks)),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(e) => Err(e).context(|| format!("fcntl F_OFD_SETLK `{}`", path.display())),
    }
}

/// The byte that stands for a file.
fn byte_of(file: &File) -> Result<i64> {
    let meta = file.metadata().context(|| "fstat what is to be locked")?;
    Ok(((meta.ino() ^ meta.dev().rotate_left(40)) & (u64::MAX >> 2)).cast_signed())
}

/// The caller's own file: in a directory that everybody may write, it could be somebody else's.
fn open() -> Result<(File, PathBuf)> {
    let shm = PathBuf::from("/dev/shm");
    let dir = if shm.is_dir() { shm } else { std::env::temp_dir() };
    let me = nix::unistd::geteuid();
    let path = dir.join(format!("gpurun-{me}.locks"));
    let what = || format!("open `{}`", path.display());
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(&path).context(what)?;
    let meta = file.metadata().context(what)?;
    match meta.is_file() && meta.uid() == me.as_raw() {
        true => Ok((file, path)),
        false => Err(Error::new("it is not this user's own file")).context(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_exclude_as_flock_does() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (File::create(dir.path().join("1")).unwrap(), File::create(dir.path().join("2")).unwrap());
        let held = lock(&one, FlockArg::LockShared).unwrap().unwrap();
        assert!(lock(&one, FlockArg::LockSharedNonblock).unwrap().is_some());
        assert!(lock(&one, FlockArg::LockExclusiveNonblock).unwrap().is_none());
        assert!(lock(&other, FlockArg::LockExclusiveNonblock).unwrap().is_some());
        drop(held);
        assert!(lock(&one, FlockArg::LockExclusiveNonblock).unwrap().is_some());
    }
}
