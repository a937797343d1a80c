//! Puts the driver's files and the GPUs' nodes into the root file system.
//!
//! In: an [`Injection`], which decides everything. Runs in the launched process, in its own mount namespace. The sources
//! are opened before anything covers them and are never an image's path; targets are found by the in-root resolver and
//! mounted on by descriptor (CVE-2024-0132, CVE-2025-23359). The driver's files go in before the user's mounts, so that
//! no placeholder is made in a directory of the host; nodes and /proc after /dev and /proc are there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use super::rootfs::{attach, tmpfs};
use crate::error::{Context, Error, Result};
use crate::gpu::{Bind, Injection, PRIVATE};
use crate::inroot::{self, Root};
use crate::sys::{self, MountAttr};

/// Where devices are, and links to them: a directory that gpurun has filled itself.
const DEV: &str = "/dev/";

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
        let bind = |b: &Bind| match b.target.starts_with(PRIVATE) {
            true => sys::open_tree(AT_FDCWD, &b.source, false), // all at once, later
            false => tree(&b.source, files.with(MountAttr::NOEXEC, b.socket).with(MountAttr::RDONLY, !b.socket)),
        };
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
    if !injection.has_files() {
        return Ok(());
    }
    let Private { own, places, generated } = private(root, injection)?;
    for ((bind, source), place) in injection.binds.iter().zip(&sources.binds).zip(&places) {
        let what = || format!("bind `{}` at `{}` ({})", bind.source.display(), bind.target.display(), bind.why);
        match place {
            Some(place) => attach(source, place),
            None => over(root, source, &bind.target, inroot::is_dir(source.as_fd())?),
        }
        .context(what)?;
    }
    let attr = MountAttr::NOSUID.with(MountAttr::NODEV, true).with(MountAttr::RDONLY, true);
    sys::mount_setattr(own.as_fd(), attr, true).context(|| format!("make `{PRIVATE}` read-only"))?;
    for (file, made) in injection.generated.iter().zip(&generated) {
        let source = sys::open_tree(made.as_fd(), Path::new(""), false)?;
        over(root, &source, Path::new(&file.over), false)
            .context(|| format!("supply `{}` ({})", file.over, file.why))?;
    }
    Ok(())
}

/// gpurun's own directory.
struct Private {
    /// Its mount.
    own: OwnedFd,
    /// For each bind that goes there, where.
    places: Vec<Option<OwnedFd>>,
    /// The files that were written.
    generated: Vec<OwnedFd>,
}

/// A tmpfs with the links, the files that are written, and a place for each library.
fn private(root: &Root, injection: &Injection) -> Result<Private> {
    if root.is_symlink(Path::new(PRIVATE))? {
        return Err(Error::new(format!("the image has a symbolic link at `{PRIVATE}`")));
    }
    let target = root.make_dir(Path::new(PRIVATE))?;
    let mut fresh = Fresh::new(None, 0o755)?;
    let inside = |b: &Bind| b.target.strip_prefix(PRIVATE).map(Path::to_owned).ok();
    let places = injection.binds.iter().map(|b| inside(b).map(|path| fresh.file(&path, b"")).transpose());
    let places = places.collect::<Result<_>>()?;
    for (path, to) in
        injection.links.iter().filter_map(|l| Some((Path::new(&l.path).strip_prefix(PRIVATE).ok()?, &l.to)))
    {
        fresh.link(path, to)?;
    }
    let generated = injection.generated.iter().map(|file| fresh.file(Path::new(file.name), &file.content));
    let generated = generated.collect::<Result<_>>()?;
    attach(&fresh.tree, &target)?;
    Ok(Private { own: fresh.tree, places, generated })
}

/// A tmpfs that only this process knows: what is made in it needs no resolver.
struct Fresh {
    tree: OwnedFd,
    directories: BTreeSet<PathBuf>,
}

impl Fresh {
    fn new(size: Option<u64>, mode: u32) -> Result<Self> {
        Ok(Self { tree: tmpfs(size, mode)?, directories: BTreeSet::new() })
    }

    /// A file with this content, open for reading.
    fn file(&mut self, path: &Path, content: &[u8]) -> Result<OwnedFd> {
        let what = || format!("make `{}` for the driver", path.display());
        self.parents(path).context(what)?;
        let file = self.create(path, OFlag::O_RDONLY).context(what)?;
        if !content.is_empty() {
            // By another descriptor: a mount that has a writer cannot become read-only.
            let writer = openat(&self.tree, path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).context(what)?;
            File::from(writer).write_all(content).context(what)?;
        }
        Ok(file)
    }

    /// A file with this content, left alone.
    fn write(&mut self, path: &Path, content: &str) -> Result<()> {
        let what = || format!("make `{}` for the driver", path.display());
        self.parents(path).context(what)?;
        File::from(self.create(path, OFlag::O_WRONLY).context(what)?).write_all(content.as_bytes()).context(what)
    }

    fn create(&self, path: &Path, access: OFlag) -> nix::Result<OwnedFd> {
        let flags = access | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        openat(&self.tree, path, flags, Mode::from_bits_truncate(0o644))
    }

    fn link(&mut self, path: &Path, to: &str) -> Result<()> {
        let what = || format!("make the link `{}` for the driver", path.display());
        self.parents(path).context(what)?;
        symlinkat(to, &self.tree, path).context(what)
    }

    fn parents(&mut self, path: &Path) -> nix::Result<()> {
        let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
        if self.directories.contains(parent) {
            return Ok(());
        }
        self.parents(parent)?;
        mkdirat(&self.tree, parent, Mode::from_bits_truncate(0o755))?;
        self.directories.insert(parent.to_owned());
        Ok(())
    }

    /// Shows it, read-only from now on.
    fn attach(self, target: &OwnedFd) -> Result<()> {
        sys::mount_setattr(self.tree.as_fd(), MountAttr::default().with(MountAttr::RDONLY, true), false)?;
        attach(&self.tree, target)
    }
}

/// Mounts on a file or directory of the container, made if it is not there.
fn over(root: &Root, source: &OwnedFd, target: &Path, directory: bool) -> Result<()> {
    let place = if directory { root.make_dir(target)? } else { root.make_file(target)? };
    if inroot::is_dir(place.as_fd())? != directory {
        return Err(Error::new(format!("the image has a directory at `{}`", target.display())));
    }
    attach(source, &place)
}

/// The nodes with the links to them, and the driver's part of /proc, which shows the chosen GPUs alone.
/// `dev` is the container's /dev, if nothing of the user's is in it.
pub(super) fn machine(root: &Root, dev: Option<&OwnedFd>, injection: &Injection, sources: &Sources) -> Result<()> {
    for (device, source) in injection.devices.iter().zip(&sources.devices) {
        let name = device.path.strip_prefix(DEV).filter(|name| !name.contains('/'));
        let fresh = dev.zip(name).and_then(|(dev, name)| inroot::make_at(dev.as_fd(), OsStr::new(name), false).ok());
        match fresh {
            Some(place) => attach(source, &place),
            None => over(root, source, Path::new(&device.path), false),
        }
        .context(|| format!("bind `{}` ({})", device.path, device.why))?;
    }
    for link in injection.links.iter().filter(|link| link.path.starts_with(DEV)) {
        link_in_dev(root, Path::new(&link.path), &link.to).context(|| format!("make the link `{}`", link.path))?;
    }
    if injection.proc.is_empty() { Ok(()) } else { mask(root, injection) }
}

fn link_in_dev(root: &Root, path: &Path, to: &str) -> Result<()> {
    let (parent, name) = path.parent().zip(path.file_name()).context(|| "it has no name")?;
    symlinkat(to, &root.make_dir(parent)?, name).context(|| "symlinkat")
}

/// A fresh procfs has no `nvidia` where the driver's files came from somewhere else, but always a `driver`.
fn mask(root: &Root, injection: &Injection) -> Result<()> {
    let (target, below) = match root.resolve(Path::new("/proc/driver/nvidia")) {
        Ok(target) => (target, ""),
        Err(_) => (root.resolve(Path::new("/proc/driver"))?, "nvidia"),
    };
    let mut fresh = Fresh::new(Some(1 << 20), 0o555)?;
    for (path, content) in &injection.proc {
        fresh.write(&Path::new(below).join(path), content)?;
    }
    fresh.attach(&target)
}
