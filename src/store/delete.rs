//! Removes a tree of the store, whatever modes its directories have, and however deep it is.
//!
//! A directory's directories are moved up before it goes, so that no path is longer than a name or two, and what is cut
//! in between is a tree that can be removed in the same way.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Context, Result};

/// Removes `path` and all below it; nothing to do if it is not there. Links are removed, not followed.
pub(super) fn tree(path: &Path) -> Result<()> {
    let what = || format!("remove `{}`", path.display());
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).context(what),
        Ok(meta) if !meta.is_dir() => return std::fs::remove_file(path).context(what),
        Ok(_) => {}
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    let parent = open(AT_FDCWD, parent).context(what)?;
    let top = open_dir(&parent, name).context(what)?;
    empty(&top).and_then(|()| unlinkat(&parent, name, UnlinkatFlags::RemoveDir)).context(what)
}

type Done<T> = std::result::Result<T, Errno>;

/// Removes everything in a directory.
fn empty(top: &OwnedFd) -> Done<()> {
    let (mut moved, mut dirs) = (0_u64, names(top)?);
    while let Some(name) = dirs.pop() {
        if !remove_file(top, &name)? {
            let dir = open_dir(top, name.as_c_str())?;
            for inner in names(&dir)? {
                if !remove_file(&dir, &inner)? {
                    dirs.push(move_up(&dir, &inner, top, &mut moved)?);
                }
            }
            unlinkat(top, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
        }
    }
    Ok(())
}

/// Gives a directory a name in `top` that is free there; an empty directory in its place is no loss.
fn move_up(dir: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> Done<std::ffi::CString> {
    // Its parent is noted in it, so it must be writable.
    fchmodat(dir, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
    loop {
        let new = std::ffi::CString::new(format!(".{moved}")).map_err(|_| Errno::EINVAL)?;
        *moved += 1;
        match renameat(dir, name, top, new.as_c_str()) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
            done => return done.map(|()| new),
        }
    }
}

/// Whether it was a file, and is gone.
fn remove_file(dir: &OwnedFd, name: &CStr) -> Done<bool> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        // A directory that an empty one was moved over has two entries in the list.
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR | Errno::EPERM) => {
            let stat = fstatat(dir, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let is_dir = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
            if is_dir { Ok(false) } else { Err(Errno::EPERM) }
        }
        Err(e) => Err(e),
    }
}

/// A directory that its owner may change from now on.
fn open_dir(parent: &OwnedFd, name: &(impl nix::NixPath + ?Sized)) -> Done<OwnedFd> {
    fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
    open(parent, name)
}

fn open(parent: impl AsFd, name: &(impl nix::NixPath + ?Sized)) -> Done<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn names(dir: &OwnedFd) -> Done<Vec<std::ffi::CString>> {
    let mut list = Dir::openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let names = list.iter().map(|entry| entry.map(|e| e.file_name().to_owned()));
    names.filter(|name| !name.as_ref().is_ok_and(|n| matches!(n.to_bytes(), b"." | b".."))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn closed_directories_go_and_link_targets_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("tree/closed/deep")).unwrap();
        std::fs::write(path("kept"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), path("tree/link")).unwrap();
        std::fs::set_permissions(path("tree/closed"), std::fs::Permissions::from_mode(0o0)).unwrap();
        tree(&path("tree")).unwrap();
        assert!(!path("tree").exists() && path("kept").exists());
        tree(&path("tree")).unwrap();
    }
    #[test]
    fn paths_may_be_longer_than_any_that_can_be_named() {
        let dir = tempfile::tempdir().unwrap();
        let (mut at, name) = (open(AT_FDCWD, dir.path()).unwrap(), "d".repeat(250));
        for name in std::iter::once("tree").chain(std::iter::repeat_n(name.as_str(), 40)) {
            nix::sys::stat::mkdirat(&at, name, Mode::S_IRWXU).unwrap();
            at = open(&at, name).unwrap();
            for other in [".0", ".1", "x"] {
                nix::sys::stat::mkdirat(&at, other, Mode::empty()).unwrap();
            }
            openat(&at, ".2", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::empty()).unwrap();
        }
        tree(&dir.path().join("tree")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
