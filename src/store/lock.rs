//! flock(2), held by a value. The kernel lets go of it however its holder ends.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Context, Error, Result};

/// A lock that is held.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] Flock<File>); // held, not looked at

impl Lock {
    /// Shares a file or directory that must be there, and still be there once it is locked.
    pub fn shared(path: &Path) -> Result<Self> {
        let file = File::open(path).context(|| format!("open `{}`", path.display()))?;
        let lock = take(file, FlockArg::LockShared, path)?;
        match is_at(&lock, path) {
            true => Ok(Self(lock)),
            false => Err(Error::new(format!("`{}` was removed", path.display()))),
        }
    }

    /// Shares a lock file, which is made if need be; none if it was removed meanwhile.
    pub(super) fn shared_file(path: &Path) -> Result<Option<Self>> {
        let lock = take(lock_file(path)?, FlockArg::LockShared, path)?;
        Ok(is_at(&lock, path).then_some(Self(lock)))
    }

    /// Waits for a lock file to be nobody else's. One that was removed meanwhile guards nothing any more.
    pub(super) fn exclusive_file(path: &Path) -> Result<Self> {
        loop {
            let lock = take(lock_file(path)?, FlockArg::LockExclusive, path)?;
            if is_at(&lock, path) {
                return Ok(Self(lock));
            }
        }
    }

    /// Locks a file or directory if nobody has it locked.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        let what = || format!("flock `{}`", path.display());
        let file = match File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.context(|| format!("open `{}`", path.display()))?,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(is_at(&lock, path).then_some(Self(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, e)) => Err(e).context(what),
        }
    }
}

fn lock_file(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).context(|| format!("open `{}`", path.display()))
}

fn take(file: File, how: FlockArg, path: &Path) -> Result<Flock<File>> {
    Flock::lock(file, how).map_err(|(_, e)| e).context(|| format!("flock `{}`", path.display()))
}

fn is_at(lock: &Flock<File>, path: &Path) -> bool {
    match (lock.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_lock_excludes_and_ends_with_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::exclusive_file(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
        let shared = Lock::shared(&path).unwrap();
        let another = Lock::shared(&path).unwrap();
        drop(shared);
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(another);
    }

    #[test]
    fn what_is_not_there_cannot_be_shared() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Lock::shared(&dir.path().join("gone")).is_err());
    }
}
