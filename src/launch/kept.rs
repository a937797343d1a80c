//! The directory of `--overlay`: made, checked and locked. Runs in the supervisor, before anything is started.
//!
//! `DIR/upper` holds what the workload has changed, `DIR/work` is overlayfs's own. What an earlier run left in them is as
//! hostile as an image: nothing in them is opened here.

use std::ffi::CStr;
use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statfs::fstatfs;

use crate::error::{Context, Error, Hint, Result};
use crate::sys;

/// File systems that other machines write as well: overlayfs needs what they do not have, or they lock up (linux/magic.h,
/// and the file systems' own sources).
const SHARED: &[(u32, &str)] = &[
    (0x6969, "NFS"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x00C3_6400, "Ceph"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x5346_414F, "AFS"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x794C_7630, "overlayfs"),
];

/// What works instead of a directory that does not.
pub(super) const INSTEAD: &str = "`--overlay` needs a directory on a local ext4, xfs or btrfs, or since Linux 6.6 on a \
                                  tmpfs: $TMPDIR or /scratch of the node, or /dev/shm";

/// What overlayfs marks a directory by that has taken the place of the image's; without it none can be removed or moved.
const MARK: &CStr = c"user.overlay.opaque";

/// Makes the directory if its parent is there, and keeps other runs from it as long as the file is open.
pub(super) fn open(dir: &Path) -> Result<File> {
    let what = || format!("use `{}` as the overlay", dir.display());
    if let Err(e) = std::fs::create_dir(dir)
        && e.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(e).context(|| "mkdir").context(what);
    }
    let file = File::open(dir).context(what)?;
    let kind = fstatfs(&file).context(what)?.filesystem_type().0;
    if let Some(name) = u32::try_from(kind).ok().and_then(shared) {
        return Err(Error::new(format!("{name} cannot hold it"))).context(what).hint(|| INSTEAD);
    }
    if !can_mark(file.as_fd()) {
        let error = Error::new("its file system has no extended attributes of users");
        return Err(error).context(what).hint(|| INSTEAD);
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::new("another run uses it")).context(what),
        Err(TryLockError::Error(e)) => return Err(e).context(|| "lock it").context(what).hint(|| INSTEAD),
    }
    let mut entries = std::fs::read_dir(dir).context(what)?;
    if entries.next().is_some() && !dir.join("upper").is_dir() {
        let error = Error::new("it holds something else: there is no `upper` in it");
        return Err(error).context(what).hint(|| "name a new or an empty directory");
    }
    Ok(file)
}

/// Whether the file system of an open directory has the attributes of users that overlayfs marks directories by.
pub(super) fn can_mark(dir: BorrowedFd) -> bool {
    sys::xattr(dir, MARK) != Err(Errno::EOPNOTSUPP)
}

fn shared(kind: u32) -> Option<&'static str> {
    SHARED.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::shared;

    #[test]
    fn what_other_machines_write_is_known() {
        assert_eq!([0x6969, 0x0BD0_0BD0, 0xEF53].map(shared), [Some("NFS"), Some("Lustre"), None]);
    }
}
