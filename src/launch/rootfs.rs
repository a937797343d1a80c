//! Assembles the root file system: overlay, system mounts, the user's mounts, supplied files.
//!
//! In: a [`Plan`]. Out: the finished root, which [`enter`] makes this process's own. Runs in the launched process, inside its own
//! user and mount namespace, where all of it ends with the last process. Everything of the host is opened before
//! anything covers it; every target is found by the in-root resolver and mounted on by descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat, mkdirat, umask};
use nix::unistd::{chdir, fchdir, pivot_root};

use super::inject::{self, Sources};
use crate::error::{Context, Error, Result};
use crate::inroot::{self, Root};
use crate::plan::Plan;
use crate::plan::mounts::{Mount, What};
use crate::sys::{self, MountAttr};

/// The directory that the private tmpfs covers: one that every Linux has. What is below it on the host was opened before.
pub(crate) const SCRATCH: &str = "/tmp";

/// Builds the rootfs of the plan in a new mount namespace, which the caller has made.
pub(crate) fn build(plan: &Plan) -> Result<Root> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context(|| "make all mounts private")?;
    let before = umask(Mode::empty()); // modes are to be what is asked for
    let root = assemble(plan)?;
    umask(before);
    chdir("/").context(|| "chdir `/`")?; // the image's tree may be covered by now
    Ok(root)
}

/// Makes the finished root this process's, and lets go of the host's.
pub(crate) fn enter(root: &Root, read_only: bool) -> Result<()> {
    sys::mount_setattr(root.as_fd(), MountAttr::default().with(MountAttr::RDONLY, read_only), false)?;
    fchdir(root.as_fd()).context(|| "chdir to the new root")?;
    // Both at one place: the old root lies on the new one until it is taken away (pivot_root(2)).
    pivot_root(".", ".").context(|| "pivot_root to the new root")?;
    umount2(".", MntFlags::MNT_DETACH).context(|| "detach the host's mounts")?;
    chdir("/").context(|| "chdir `/`")
}

fn assemble(plan: &Plan) -> Result<Root> {
    let lower = open_lower(&plan.rootfs.lower)?;
    let sources = plan.mounts.iter().map(source).collect::<Result<Vec<_>>>()?;
    let injected = Sources::open(&plan.injection)?;
    let scratch = tmpfs(None, 0o700)?;
    attach(&scratch, &open_dir(Path::new(SCRATCH))?)?;
    let upper = upper(&lower, &scratch)?;
    if fstat(&lower).context(|| "fstat the image's root")?.st_uid != plan.user.uid {
        take_over(plan, &lower, &upper)?;
    }
    let root = overlay(&lower)?;
    for file in &plan.files {
        root.write(Path::new(file.path), &file.content)?;
    }
    inject::files(&root, &plan.injection, &injected)?;
    for (mount, source) in plan.mounts.iter().zip(&sources) {
        mount_on(&root, mount, source.as_ref())
            .context(|| format!("mount `{}` ({})", mount.target.display(), mount.why))?;
    }
    inject::machine(&root, &plan.injection, &injected)?;
    for directory in &plan.directories {
        root.make_dir(&directory.path)?;
    }
    for link in &plan.links {
        root.make_link(Path::new(link.path), Path::new(link.to))?;
    }
    Ok(root)
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .context(|| format!("open the directory `{}`", path.display()))
}

fn open_lower(path: &Path) -> Result<OwnedFd> {
    open_dir(path).map_err(|e| e.hint("the image's tree is not there: `gpurun pull --pull always` fetches it again"))
}

/// A detached copy of a bind's source; nothing for what is made new.
fn source(mount: &Mount) -> Result<Option<OwnedFd>> {
    let What::Bind { source } = &mount.what else { return Ok(None) };
    let tree = sys::open_tree(AT_FDCWD, source, true)?;
    let attr = MountAttr::NOSUID.with(MountAttr::RDONLY, mount.read_only);
    sys::mount_setattr(tree.as_fd(), attr, true).context(|| format!("bind `{}`", source.display()))?;
    Ok(Some(tree))
}

pub(super) fn attach(tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
    sys::move_mount(tree.as_fd(), target.as_fd())
}

/// The directories of the overlay in the scratch tmpfs. Gives the one that takes the writes.
fn upper(lower: &OwnedFd, scratch: &OwnedFd) -> Result<OwnedFd> {
    // The merged root shows the upper's mode, so it must be the image's.
    let mode = Mode::from_bits_truncate(fstat(lower).context(|| "fstat the image's root")?.st_mode);
    for (name, mode) in [("upper", mode), ("work", Mode::S_IRWXU), ("root", Mode::S_IRWXU)] {
        mkdirat(scratch, name, mode).context(|| format!("mkdir `{SCRATCH}/{name}`"))?;
    }
    open_dir(&Path::new(SCRATCH).join("upper"))
}

/// In a tree of somebody else's nothing can be made, not even in the overlay: its directories' owner has no id inside.
/// So those in which we make something are ours in the upper layer, with the same mode, and so are the files we supply.
fn take_over(plan: &Plan, lower: &OwnedFd, upper: &OwnedFd) -> Result<()> {
    let targets =
        plan.mounts.iter().map(|m| m.target.as_path()).chain(plan.directories.iter().map(|d| d.path.as_path()));
    let injected: Vec<_> = plan.injection.targets().collect();
    let targets = targets.chain(injected.iter().map(PathBuf::as_path));
    for target in targets.chain(plan.files.iter().map(|f| Path::new(f.path))) {
        own_parents(target, lower, upper).context(|| format!("make the parents of `{}` ours", target.display()))?;
    }
    let upper = Root::from_fd(upper.try_clone().context(|| "dup")?);
    plan.files.iter().try_for_each(|file| upper.write(Path::new(file.path), &[]))
}

/// Follows real directories only: behind a link it is the image's owner's again.
fn own_parents(target: &Path, lower: &OwnedFd, upper: &OwnedFd) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut walked = [lower, upper].map(OwnedFd::try_clone);
    for name in target.parent().into_iter().flat_map(Path::components).filter(|c| matches!(c, Component::Normal(_))) {
        let [Ok(below), Ok(above)] = &walked else { break };
        let Ok(below) = openat(below, name.as_os_str(), flags, Mode::empty()) else { break };
        let mode = Mode::from_bits_truncate(fstat(&below).context(|| "fstat")?.st_mode);
        match mkdirat(above, name.as_os_str(), mode) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e).context(|| "mkdir"),
        }
        let above = openat(above, name.as_os_str(), flags, Mode::empty()).context(|| "open")?;
        walked = [Ok(below), Ok(above)];
    }
    Ok(())
}

/// The image's tree below, a directory in the scratch tmpfs above.
fn overlay(lower: &OwnedFd) -> Result<Root> {
    // A relative lower needs no escaping: its path may hold the separators that overlayfs splits at.
    fchdir(lower).context(|| "chdir to the image's tree")?;
    let upper = CString::new(format!("{SCRATCH}/upper")).expect("no NUL in it");
    let work = CString::new(format!("{SCRATCH}/work")).expect("no NUL in it");
    let options: &[(&CStr, Option<&CStr>)] =
        &[(c"lowerdir", Some(c".")), (c"upperdir", Some(&upper)), (c"workdir", Some(&work)), (c"userxattr", None)];
    let tree = sys::fsmount(c"overlay", options, MountAttr::NOSUID.with(MountAttr::NODEV, true)).map_err(|e| {
        e.hint(
            "the image's file system cannot be an overlay's lower layer, or another is mounted in it: put the store on a \
             local disk",
        )
    })?;
    attach(&tree, &open_dir(&Path::new(SCRATCH).join("root"))?)?;
    Ok(Root::from_fd(tree))
}

/// Mounts one entry of the plan.
fn mount_on(root: &Root, mount: &Mount, source: Option<&OwnedFd>) -> Result<()> {
    let new = match &mount.what {
        What::Bind { .. } => None,
        What::Tmpfs { size, mode } => Some(tmpfs(*size, *mode)?),
        What::Devpts => Some(devpts()?),
        What::Proc => Some(proc()?),
    };
    refuse_link(root, mount)?;
    let tree = new.as_ref().or(source).context(|| "it has no source")?;
    let target = match inroot::is_dir(tree.as_fd())? {
        true => root.make_dir(&mount.target)?,
        false => root.make_file(&mount.target)?,
    };
    if inroot::is_dir(tree.as_fd())? != inroot::is_dir(target.as_fd())? {
        return Err(Error::new("the source is a file, and the target is a directory"));
    }
    attach(tree, &target)
}

/// An image with a link at `/dev` or `/proc` would have other places mounted over (CVE-2019-19921, CVE-2023-27561).
fn refuse_link(root: &Root, mount: &Mount) -> Result<()> {
    if mount.follow || !root.is_symlink(&mount.target)? {
        return Ok(());
    }
    Err(Error::new(format!("the image has a symbolic link at `{}`", mount.target.display())))
}

pub(super) fn tmpfs(size: Option<u64>, mode: u32) -> Result<OwnedFd> {
    let mode = number(format!("{mode:o}"));
    let size = size.map(|s| number(s.to_string()));
    let mut options: Vec<(&CStr, Option<&CStr>)> = vec![(c"mode", Some(&mode))];
    options.extend(size.as_ref().map(|size| (c"size", Some(size.as_c_str()))));
    sys::fsmount(c"tmpfs", &options, MountAttr::NOSUID.with(MountAttr::NODEV, true))
}

/// No `gid=5`: with one id mapped there is no group tty.
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
