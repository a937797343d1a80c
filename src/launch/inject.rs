//! Puts the driver's files and the GPUs' nodes into the root file system.
//!
//! In: an [`Injection`], which decides everything. Runs in the launched process, in its own mount namespace. The sources
//! are opened before anything covers them and are never an image's path; targets are found by the in-root resolver and
//! mounted on by descriptor (CVE-2024-0132, CVE-2025-23359). The driver's files go in before the user's mounts, so that
//! no placeholder is made in a directory of the host; nodes and /proc after /dev and /proc are there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::AT_FDCWD;

use super::rootfs::{attach, tmpfs};
use crate::error::{Context, Error, Result};
use crate::gpu::{Bind, Injection, PRIVATE};
use crate::inroot::{self, Root};
use crate::sys::{self, MountAttr};

/// Detached copies of everything of the host that goes in.
pub(super) struct Sources {
    devices: Vec<OwnedFd>,
    binds: Vec<OwnedFd>,
}

impl Sources {
    /// Opens all of them.
    pub(super) fn open(injection: &Injection) -> Result<Self> {
        let device = |path: &str| tree(Path::new(path), MountAttr::NOSUID.with(MountAttr::NOEXEC, true));
        let files = MountAttr::NOSUID.with(MountAttr::NODEV, true);
        let bind =
            |b: &Bind| tree(&b.source, files.with(MountAttr::NOEXEC, b.socket).with(MountAttr::RDONLY, !b.socket));
        Ok(Self {
            devices: injection.devices.iter().map(|d| device(&d.path)).collect::<Result<_>>()?,
            binds: injection.binds.iter().map(bind).collect::<Result<_>>()?,
        })
    }
}

/// A read-only bind of a device's node does not keep anybody from writing to the device, so nodes have no such flag.
fn tree(path: &Path, attr: MountAttr) -> Result<OwnedFd> {
    let tree = sys::open_tree(AT_FDCWD, path, false)?;
    sys::mount_setattr(tree.as_fd(), attr, false).context(|| format!("bind `{}`", path.display()))?;
    Ok(tree)
}

/// gpurun's own directory, the libraries in it, and what lies at fixed places.
pub(super) fn files(root: &Root, injection: &Injection, sources: &Sources) -> Result<()> {
    if injection.driver.is_none() {
        return Ok(());
    }
    let private = private(root, injection)?;
    for (bind, source) in injection.binds.iter().zip(&sources.binds) {
        let what = || format!("bind `{}` at `{}` ({})", bind.source.display(), bind.target.display(), bind.why);
        match bind.target.strip_prefix(PRIVATE) {
            Ok(inside) => attach(source, &private.resolve(inside)?),
            Err(_) => over(root, source, &bind.target),
        }
        .context(what)?;
    }
    for file in &injection.generated {
        let target = private.resolve(Path::new(file.name))?;
        let source = sys::open_tree(target.as_fd(), Path::new(""), false)?;
        over(root, &source, Path::new(&file.over)).context(|| format!("supply `{}` ({})", file.over, file.why))?;
    }
    Ok(())
}

/// A tmpfs with a place for each library, the links, the files that are written; read-only before anyone sees it.
fn private(root: &Root, injection: &Injection) -> Result<Root> {
    if root.is_symlink(Path::new(PRIVATE))? {
        return Err(Error::new(format!("the image has a symbolic link at `{PRIVATE}`")));
    }
    let target = root.make_dir(Path::new(PRIVATE))?;
    let tree = tmpfs(None, 0o755)?;
    let private = Root::from_fd(tree.try_clone().context(|| "dup")?);
    for inside in injection.binds.iter().filter_map(|b| b.target.strip_prefix(PRIVATE).ok()) {
        private.make_file(&Path::new("/").join(inside))?;
    }
    for link in &injection.links {
        private.make_link(Path::new(link.path.trim_start_matches(PRIVATE)), Path::new(&link.to))?;
    }
    for file in &injection.generated {
        private.write(Path::new(file.name), &file.content)?;
    }
    sys::mount_setattr(tree.as_fd(), MountAttr::default().with(MountAttr::RDONLY, true), false)?;
    attach(&tree, &target)?;
    Ok(private)
}

/// Mounts on a file or directory of the container, made if it is not there.
fn over(root: &Root, source: &OwnedFd, target: &Path) -> Result<()> {
    let directory = inroot::is_dir(source.as_fd())?;
    let place = if directory { root.make_dir(target)? } else { root.make_file(target)? };
    if inroot::is_dir(place.as_fd())? != directory {
        return Err(Error::new(format!("the image has a directory at `{}`", target.display())));
    }
    attach(source, &place)
}

/// The nodes, and the driver's part of /proc, which shows the chosen GPUs alone.
pub(super) fn machine(root: &Root, injection: &Injection, sources: &Sources) -> Result<()> {
    for (device, source) in injection.devices.iter().zip(&sources.devices) {
        over(root, source, Path::new(&device.path)).context(|| format!("bind `{}` ({})", device.path, device.why))?;
    }
    if injection.driver.is_some() { mask(root, injection) } else { Ok(()) }
}

/// A fresh procfs has no `nvidia` where the driver's files came from somewhere else, but always a `driver`.
fn mask(root: &Root, injection: &Injection) -> Result<()> {
    let (target, below) = match root.resolve(Path::new("/proc/driver/nvidia")) {
        Ok(target) => (target, "/"),
        Err(_) => (root.resolve(Path::new("/proc/driver"))?, "/nvidia"),
    };
    let tree = tmpfs(Some(1 << 20), 0o555)?;
    let shown = Root::from_fd(tree.try_clone().context(|| "dup")?);
    for (path, content) in &injection.proc {
        shown.write(&Path::new(below).join(path), content.as_bytes())?;
    }
    let attr = MountAttr::default().with(MountAttr::RDONLY, true).with(MountAttr::NOEXEC, true);
    sys::mount_setattr(tree.as_fd(), attr, false)?;
    attach(&tree, &target)
}
