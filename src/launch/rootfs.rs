//! Assembles the root file system: overlay, system mounts, the user's mounts, supplied files.
//!
//! In: a [`Plan`]. Out: the finished root, which [`enter`] makes this process's own. Runs in the launched process, inside its own
//! user and mount namespace, where all of it ends with the last process. Everything of the host is opened before
//! anything covers it; every target is found by the in-root resolver and mounted on by descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, umask};
use nix::unistd::{chdir, fchdir, mkdir, pivot_root, symlinkat};
use oci_spec::runtime::Capability;

use super::inject::{self, Sources};
use super::upper::Upper;
use super::{kept, status, underlay, user};
use crate::error::{Context, Error, Result};
use crate::inroot::{self, Root};
use crate::plan::mounts::{Mount, What};
use crate::plan::{File, Plan, Process};
use crate::sys::{self, MountAttr};

/// The directory that the private tmpfs covers: one that every Linux has. What is below it on the host was opened before.
pub(crate) const SCRATCH: &str = "/tmp";

/// What `--fakeroot`, and root with ids of others, is for does not work on a tmpfs before Linux 6.6.
const NO_PACKAGES: &str = "packages cannot be installed here, nor directories of the image removed: this kernel's tmpfs has \
                           no extended attributes of users (Linux 6.6 has); `--overlay DIR` on a disk keeps all writes";

/// gpurun's own directory of devices, which nothing of the image is in.
pub(super) const DEV: &str = "/dev";

/// Builds the rootfs of the plan in a new mount namespace, which the caller has made.
pub(crate) fn build(plan: &Plan, status: &status::Writer) -> Result<Root> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context(|| "make all mounts private")?;
    let before = umask(Mode::empty()); // modes are to be what is asked for
    let root = assemble(plan, status)?;
    status.ended("binds");
    umask(before);
    chdir("/").context(|| "chdir `/`")?; // the image's tree may be covered by now
    Ok(root)
}

/// Makes the finished root this process's, and lets go of the host's.
pub(crate) fn enter(root: &Root, read_only: bool) -> Result<()> {
    if read_only {
        sys::mount_setattr(root.as_fd(), MountAttr::RDONLY, false)?;
    }
    fchdir(root.as_fd()).context(|| "chdir to the new root")?;
    // Both at one place: the old root lies on the new one until it is taken away (pivot_root(2)).
    pivot_root(".", ".").context(|| "pivot_root to the new root")?;
    umount2(".", MntFlags::MNT_DETACH).context(|| "detach the host's mounts")?;
    chdir("/").context(|| "chdir `/`")
}

fn assemble(plan: &Plan, status: &status::Writer) -> Result<Root> {
    let lower = open_lower(&plan.rootfs.lower)?;
    let sources = plan.mounts.iter().map(source).collect::<Result<Vec<_>>>()?;
    let injected = Sources::open(&plan.injection)?;
    let kept = plan.rootfs.kept.as_deref().map(|dir| sys::open_tree(AT_FDCWD, dir, false)).transpose()?;
    let scratch = tmpfs(None, 0o700)?;
    attach(&scratch, &open_dir(Path::new(SCRATCH))?)?;
    let (root, left) = root(plan, &lower, &scratch, kept.as_ref(), status)?;
    for link in plan.devices.links.iter().filter(|link| !link.path.starts_with(DEV)) {
        root.put_link(&link.path, &link.to)?;
    }
    for file in left {
        root.write(Path::new(file.path), &file.content)?;
    }
    status.ended("rootfs");
    inject::files(&root, &plan.injection, &injected)?;
    let mut dev = None;
    for (mount, source) in plan.mounts.iter().zip(sources) {
        let tree = mount_on(&root, dev.as_ref(), mount, source)
            .context(|| format!("mount `{}` ({})", mount.target.display(), mount.why))?;
        if dev.is_none() && mount.target == Path::new(DEV) {
            dev = Some(device_links(plan, tree)?);
        }
    }
    links(plan, dev.as_ref())?;
    let users = plan.mounts.iter().any(|mount| mount.follow && mount.target.starts_with(DEV));
    inject::machine(&root, dev.as_ref().filter(|_| !users), &plan.injection, &injected)?;
    for directory in &plan.directories {
        user::make_dir(&root, &directory.path, &plan.user)?;
    }
    Ok(root)
}

/// Whether it has what root needs for that, or pretends to.
fn installs_packages(process: &Process) -> bool {
    process.capabilities.contains(&Capability::DacOverride)
}

/// The overlay, or what the plan has in its place. Gives the files that are left to write as well.
fn root<'p>(
    plan: &'p Plan,
    lower: &OwnedFd,
    scratch: &OwnedFd,
    kept: Option<&OwnedFd>,
    status: &status::Writer,
) -> Result<(Root, Vec<&'p File>)> {
    let above = Upper::open(lower, scratch, kept)?;
    let left = above.prepare(plan, lower)?;
    let refused = match overlay(lower, above.at) {
        Ok(root) => {
            if installs_packages(&plan.process) && kept.is_none() && !above.can_mark()? {
                status.notice(NO_PACKAGES.into());
            }
            return Ok((root, left));
        }
        Err(e) if plan.rootfs.otherwise.is_none() => return Err(e.hint(kept::INSTEAD)),
        Err(e) if is_shortage(&e) => return Err(e),
        Err(e) => e,
    };
    let root = underlay::build(plan, lower, &open_dir(&Path::new(SCRATCH).join("root"))?)
        .map_err(|e| e.hint(format!("it was tried because the kernel refused an overlay: {refused:#}")))?;
    status.notice(format!("the image is read-only here, but for /tmp and the like: {refused:#}"));
    Ok((root, plan.files.iter().collect()))
}

/// What may be there again the next time is no reason to run with less.
fn is_shortage(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC))
}

pub(super) fn open_dir(path: &Path) -> Result<OwnedFd> {
    openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .context(|| format!("open the directory `{}`", path.display()))
}

fn open_lower(path: &Path) -> Result<OwnedFd> {
    open_dir(path).map_err(|e| e.hint("the image's tree is not there: `gpurun pull --pull always` fetches it again"))
}

/// What a bind shows, detached.
struct Source {
    tree: OwnedFd,
    directory: bool,
}

/// A copy of a bind's source; nothing for what is made new.
fn source(mount: &Mount) -> Result<Option<Source>> {
    let What::Bind { source } = &mount.what else { return Ok(None) };
    let what = || format!("bind `{}`", source.display());
    let tree = sys::open_tree(AT_FDCWD, source, true)?;
    let directory = inroot::is_dir(tree.as_fd()).context(what)?;
    let attr = MountAttr::NOSUID.with(MountAttr::RDONLY, mount.read_only);
    let attr = attr.with(MountAttr::NODEV, mount.nodev).with(MountAttr::NOEXEC, mount.noexec);
    sys::mount_setattr(tree.as_fd(), attr, true).context(what)?;
    Ok(Some(Source { tree, directory }))
}

pub(super) fn attach(tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
    sys::move_mount(tree.as_fd(), target.as_fd())
}

/// The image's tree below, the directory `upper` in `at` above.
fn overlay(lower: &OwnedFd, at: &str) -> Result<Root> {
    // A relative lower needs no escaping: its path may hold the separators that overlayfs splits at.
    fchdir(lower).context(|| "chdir to the image's tree")?;
    let upper = CString::new(format!("{at}/upper")).expect("no NUL in it");
    let work = CString::new(format!("{at}/work")).expect("no NUL in it");
    let options: &[(&CStr, Option<&CStr>)] =
        &[(c"lowerdir", Some(c".")), (c"upperdir", Some(&upper)), (c"workdir", Some(&work)), (c"userxattr", None)];
    let tree = sys::fsmount(c"overlay", options, MountAttr::NOSUID.with(MountAttr::NODEV, true))?;
    // Overlayfs makes it with no rights at all, and `rm -r` could not look into it.
    let own = format!("{at}/work/work");
    fchmodat(AT_FDCWD, own.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)
        .context(|| format!("chmod `{own}`"))?;
    attach(&tree, &open_dir(&Path::new(SCRATCH).join("root"))?)?;
    Ok(Root::from_fd(tree))
}

/// Mounts one entry of the plan. Gives the mount.
fn mount_on(root: &Root, dev: Option<&OwnedFd>, mount: &Mount, source: Option<Source>) -> Result<OwnedFd> {
    let (tree, directory) = match &mount.what {
        What::Bind { .. } => {
            let source = source.context(|| "it has no source")?;
            (source.tree, source.directory)
        }
        What::Tmpfs { size, mode } => (tmpfs(*size, *mode)?, true),
        What::Scratch { mode } => (scratch_dir(mount, *mode)?, true),
        What::Devpts => (devpts()?, true),
        What::Proc => (proc()?, true),
    };
    attach(&tree, &place(root, dev, mount, directory)?)?;
    Ok(tree)
}

/// Where to mount, made if it is not there.
fn place(root: &Root, dev: Option<&OwnedFd>, mount: &Mount, directory: bool) -> Result<OwnedFd> {
    let target = mount.target.as_path();
    if let (true, Some(dev), Some(name)) = (mount.fresh, dev, target.file_name()) {
        return inroot::make_at(dev.as_fd(), name, directory);
    }
    match directory {
        true if mount.follow => return root.make_dir(target),
        true => return root.make_own_dir(target),
        false => {}
    }
    let place = root.make_file(target)?;
    match inroot::is_dir(place.as_fd())? {
        true => Err(Error::new("the source is a file, and the target is a directory")),
        false => Ok(place),
    }
}

/// The links that devices have in /dev, made while nothing of the host is mounted there. Gives /dev back.
fn device_links(plan: &Plan, dev: OwnedFd) -> Result<OwnedFd> {
    let root = Root::from_fd(dev);
    for link in &plan.devices.links {
        if let Ok(below) = link.path.strip_prefix(DEV) {
            root.put_link(&Path::new("/").join(below), &link.to)?;
        }
    }
    Ok(root.into())
}

/// The links that programs expect in /dev.
fn links(plan: &Plan, dev: Option<&OwnedFd>) -> Result<()> {
    for link in &plan.links {
        let what = || format!("make the link `{}`", link.path);
        let (dev, name) = dev.zip(Path::new(link.path).file_name()).context(what)?;
        symlinkat(link.to, dev, name).context(what)?;
    }
    Ok(())
}

pub(super) fn tmpfs(size: Option<u64>, mode: u32) -> Result<OwnedFd> {
    let mode = number(format!("{mode:o}"));
    let size = size.map(|s| number(s.to_string()));
    let mut options: Vec<(&CStr, Option<&CStr>)> = vec![(c"mode", Some(&mode))];
    options.extend(size.as_ref().map(|size| (c"size", Some(size.as_c_str()))));
    sys::fsmount(c"tmpfs", &options, MountAttr::NOSUID.with(MountAttr::NODEV, true))
}

/// Named as its target is: `root`, `upper`, `work` and `kept` are others.
fn scratch_dir(mount: &Mount, mode: u32) -> Result<OwnedFd> {
    let path = Path::new(SCRATCH).join(mount.target.file_name().context(|| "it has no name")?);
    mkdir(&path, Mode::from_bits_truncate(mode)).context(|| format!("mkdir `{}`", path.display()))?;
    sys::open_tree(AT_FDCWD, &path, false)
}

/// No `gid=5`: one id mapped has no group tty, and with ranges the terminals are the workload's user's ([`user`]).
fn devpts() -> Result<OwnedFd> {
    let options = [(c"newinstance", None), (c"ptmxmode", Some(c"0666")), (c"mode", Some(c"0620"))];
    sys::fsmount(c"devpts", &options, MountAttr::NOSUID.with(MountAttr::NOEXEC, true))
}

/// Of the PID namespace that we are the first process of.
fn proc() -> Result<OwnedFd> {
    let attr = MountAttr::NOSUID.with(MountAttr::NODEV, true).with(MountAttr::NOEXEC, true);
    sys::fsmount(c"proc", &[], attr)
        .map_err(|e| e.hint("something covers a part of /proc around us: `--pid host` takes it as it is"))
}

fn number(digits: String) -> CString {
    CString::new(digits).expect("digits have no NUL")
}
