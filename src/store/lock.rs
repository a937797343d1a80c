//! flock(2), or what there is in its place, held by a value. The kernel lets go of it however its holder ends.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::local_lock;
use crate::error::{Context, Result};

/// A lock that is held.
#[derive(Debug)]
pub struct Lock {
    held: Held,
}

#[derive(Debug)]
enum Held {
    Flock(Flock<File>),
    /// What is locked, and the lock, on a file system that has none.
    Local(File, #[allow(dead_code)] File), // held, not looked at
}

impl Lock {
    /// Shares a file or directory; none if it is not there, or was removed before it was locked.
    pub fn shared(path: &Path) -> Result<Option<Self>> {
        there(File::open(path), path)?.map_or(Ok(None), |file| take(file, FlockArg::LockShared, path))
    }

    /// Shares a lock file, which is made if need be; none if it was removed meanwhile.
    pub(super) fn shared_file(path: &Path) -> Result<Option<Self>> {
        take(lock_file(path)?, FlockArg::LockShared, path)
    }

    /// Waits for a lock file to be nobody else's. One that was removed meanwhile guards nothing any more.
    pub(super) fn exclusive_file(path: &Path) -> Result<Self> {
        loop {
            if let Some(lock) = take(lock_file(path)?, FlockArg::LockExclusive, path)? {
                return Ok(lock);
            }
        }
    }

    /// Locks a file or directory if it is there and nobody has it locked.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        there(for_writing(path), path)?.map_or(Ok(None), |file| take(file, FlockArg::LockExclusiveNonblock, path))
    }

    /// Whether other machines do not see it.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.held, Held::Local(..))
    }

    /// Whether what is locked is still at its path.
    fn is_at(&self, path: &Path) -> Result<bool> {
        let file = match &self.held {
            Held::Flock(file) => file,
            Held::Local(file, _) => file,
        };
        let what = || format!("stat `{}`", path.display());
        let identity = |meta: Metadata| (meta.dev(), meta.ino());
        match std::fs::metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            there => Ok(identity(there.context(what)?) == identity(file.metadata().context(what)?)),
        }
    }
}

/// For writing, unless it is a directory: NFS gives exclusive locks on nothing else (flock(2), "NFS details").
fn for_writing(path: &Path) -> io::Result<File> {
    match File::options().read(true).write(true).open(path) {
        Err(e) if e.kind() == ErrorKind::IsADirectory => File::open(path),
        file => file,
    }
}

fn there(file: io::Result<File>, path: &Path) -> Result<Option<File>> {
    match file {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        file => file.map(Some).context(|| format!("open `{}`", path.display())),
    }
}

fn lock_file(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).context(|| format!("open `{}`", path.display()))
}

/// None if somebody else has it, and `how` is not to wait, or if it is not at its path any more.
fn take(file: File, how: FlockArg, path: &Path) -> Result<Option<Lock>> {
    let what = || format!("flock `{}`", path.display());
    let held = match Flock::lock(file, how) {
        Ok(lock) => Some(Held::Flock(lock)),
        Err((_, Errno::EWOULDBLOCK)) => None,
        Err((file, e)) if local_lock::is_needed(e) => {
            local_lock::lock(&file, how).context(what)?.map(|lock| Held::Local(file, lock))
        }
        Err((_, e)) => return Err(e).context(what),
    };
    match held.map(|held| Lock { held }) {
        Some(lock) if lock.is_at(path)? => Ok(Some(lock)),
        _ => Ok(None),
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
        let shared = Lock::shared(&path).unwrap().unwrap();
        let another = Lock::shared(&path).unwrap().unwrap();
        drop(shared);
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(another);
    }

    #[test]
    fn files_are_open_for_writing_and_directories_can_be_locked_too() {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "").unwrap();
        let flags = fcntl(for_writing(&path).unwrap(), FcntlArg::F_GETFL).unwrap();
        assert_eq!(OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE, OFlag::O_RDWR);
        assert!(Lock::try_exclusive(dir.path()).unwrap().is_some());
    }

    #[test]
    fn what_is_not_there_cannot_be_shared() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Lock::shared(&dir.path().join("gone")).unwrap().is_none());
    }
}
