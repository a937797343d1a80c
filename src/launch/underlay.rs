//! The root where the kernel refuses an overlay: a tmpfs with the image's tree in it, read-only.
//!
//! In: the plan, the image's tree. Out: the root. Each entry of the image is bound at its place; a directory in which
//! something of ours is missing is made anew, and its entries are bound. The places where programs write are tmpfs of
//! their own. Runs in the launched process; the image is found by descriptor, one name at a time, and no link of it is
//! followed.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::symlinkat;

use super::rootfs::{DEV, attach, tmpfs};
use crate::error::{Context, Result};
use crate::inroot::{self, Root};
use crate::plan::Plan;
use crate::sys::{self, MountAttr};

/// What is there in the container without being in the image.
struct Ours {
    /// Paths from the root.
    path: PathBuf,
    /// Whether it takes the place of the image's own.
    replaces: bool,
}

/// Builds it, mounted on `place`.
pub(super) fn build(plan: &Plan, lower: &OwnedFd, place: &OwnedFd) -> Result<Root> {
    let mode = fstat(lower).context(|| "fstat the image's root")?.st_mode;
    let root = tmpfs(None, mode & 0o7777)?;
    attach(&root, place)?;
    lay(lower, &root, &ours(plan)).context(|| "bind the image's entries")?;
    for path in plan.rootfs.otherwise.iter().flatten().filter(|_| !plan.rootfs.read_only) {
        writable(lower, &root, path).context(|| format!("make `{path}` writable"))?;
    }
    Ok(Root::from_fd(root))
}

fn ours(plan: &Plan) -> Vec<Ours> {
    let one = |path: &Path, replaces| Ours { path: path.strip_prefix("/").unwrap_or(path).into(), replaces };
    let mounts = plan.mounts.iter().map(|m| one(&m.target, false));
    let directories = plan.directories.iter().map(|d| one(&d.path, false));
    let injected = plan.injection.targets().map(|path| one(&path, false));
    let files = plan.files.iter().map(|f| one(Path::new(f.path), true));
    let links = plan.devices.links.iter().filter(|link| !link.path.starts_with(DEV)).map(|l| one(&l.path, true));
    mounts.chain(directories).chain(injected).chain(files).chain(links).collect()
}

/// Puts the entries of one directory of the image into one of ours.
fn lay(below: &OwnedFd, above: &OwnedFd, ours: &[Ours]) -> Result<()> {
    let replaced = |name: &OsString| ours.iter().any(|o| o.replaces && o.path == Path::new(name));
    for name in entries(below)? {
        let stat = fstatat(below, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).context(|| "stat")?;
        let mode = Mode::from_bits_truncate(stat.st_mode);
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFLNK => {
                let to = readlinkat(below, name.as_os_str()).context(|| "readlink")?;
                symlinkat(to.as_os_str(), above, name.as_os_str()).context(|| "symlink")?;
            }
            SFlag::S_IFDIR => {
                mkdirat(above, name.as_os_str(), mode).context(|| "mkdir")?;
                let (below, above) = (named(below, &name)?, named(above, &name)?);
                match below_it(ours, &name) {
                    inside if inside.iter().any(|o| is_missing(&below, o)) => lay(&below, &above, &inside)?,
                    _ => bind(&below, &above)?,
                }
            }
            _ if replaced(&name) => {}
            _ => bind(&named(below, &name)?, &inroot::make_at(above.as_fd(), &name, false)?)?,
        }
    }
    Ok(())
}

fn entries(dir: &OwnedFd) -> Result<Vec<OsString>> {
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())).context(|| "list")?;
    entries.map(|entry| entry.map(|e| e.file_name()).context(|| "list")).collect()
}

fn named(dir: &OwnedFd, name: &OsString) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name.as_os_str(), flags, Mode::empty()).context(|| format!("open `{}`", name.display()))
}

/// What of ours is below a directory.
fn below_it(ours: &[Ours], name: &OsString) -> Vec<Ours> {
    let inside = ours.iter().filter_map(|o| Some((o.path.strip_prefix(name).ok()?, o.replaces)));
    let inside = inside.filter(|(path, _)| !path.as_os_str().is_empty());
    inside.map(|(path, replaces)| Ours { path: path.into(), replaces }).collect()
}

/// Whether the image has nothing there, or something to replace. Behind a link it is another place.
fn is_missing(dir: &OwnedFd, ours: &Ours) -> bool {
    let Ok(mut dir) = dir.try_clone() else { return false };
    for name in &ours.path {
        match openat(&dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(next) => dir = next,
            Err(errno) => return errno == Errno::ENOENT,
        }
    }
    ours.replaces
}

/// Shows what is below at a place above, where it cannot be written.
fn bind(below: &OwnedFd, above: &OwnedFd) -> Result<()> {
    let tree = sys::open_tree(below.as_fd(), Path::new(""), true)?;
    let attr = MountAttr::RDONLY.with(MountAttr::NOSUID, true).with(MountAttr::NODEV, true);
    sys::mount_setattr(tree.as_fd(), attr, true)?;
    attach(&tree, above)
}

/// A tmpfs on a directory that the image itself has.
fn writable(lower: &OwnedFd, root: &OwnedFd, path: &str) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let path = path.trim_start_matches('/');
    let Ok(below) = openat(lower, path, flags, Mode::empty()) else { return Ok(()) };
    let mode = fstat(&below).context(|| "fstat")?.st_mode & 0o7777;
    let target = Root::from_fd(root.try_clone().context(|| "dup")?).make_own_dir(Path::new(path))?;
    attach(&tmpfs(None, mode)?, &target)
}
