//! Assembles the root file system: overlay, system mounts, the user's mounts, supplied files.
//!
//! In: a [`Plan`]. Out: the finished root, which [`enter`] makes this process's own. Runs in the launched process, inside its own
//! user and mount namespace, where all of it ends with the last process. Everything of the host is opened before
//! anything covers it; every target is found by the in-root resolver and mounted on by descriptor.

use std::ffi::{CStr, CString, OsStr};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, mkdirat, umask, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{chdir, fchdir, pivot_root, symlinkat};
use oci_spec::runtime::Capability;

use super::inject::{self, Sources};
use super::{kept, status, underlay, user};
use crate::error::{Context, Error, Result};
use crate::inroot::{self, Root};
use crate::plan::mounts::{Mount, What};
use crate::plan::{File, Plan, Process};
use crate::sys::{self, MountAttr};

/// The directory that the private tmpfs covers: one that every Linux has. What is below it on the host was opened before.
pub(crate) const SCRATCH: &str = "/tmp";

/// Where the directory of `--overlay` is bound in it.
const KEPT: &str = "/tmp/kept";

/// What `--fakeroot` is for does not work on a tmpfs before Linux 6.6.
const NO_PACKAGES: &str = "packages cannot be installed here, nor directories of the image removed: this kernel's tmpfs has \
                           no extended attributes of users (Linux 6.6 has); `--overlay DIR` on a disk keeps all writes";

/// gpurun's own directory of devices, which nothing of the image is in.
const DEV: &str = "/dev";

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
    sys::mount_setattr(root.as_fd(), MountAttr::default().with(MountAttr::RDONLY, read_only), false)?;
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
        root.make_dir(&directory.path)?;
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
    let above = upper(lower, scratch, kept)?;
    // In what an earlier run has left, links and FIFOs may be in the way: there all goes through the overlay.
    let mut left: Vec<_> = plan.files.iter().collect();
    if above.is_new {
        if Some(fstat(lower).context(|| "fstat the image's root")?.st_uid) != plan.user.callers_uid() {
            take_over(plan, lower, &above.upper)?;
        }
        left = prepare(plan, lower, &above.upper)?;
    }
    let refused = match overlay(lower, above.at) {
        Ok(root) => {
            if installs_packages(&plan.process) && kept.is_none() && !kept::can_mark(upper_of(scratch)?.as_fd()) {
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

/// The upper layer, opened as a file whose attributes can be asked for.
fn upper_of(scratch: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(scratch, "upper", flags, Mode::empty()).context(|| "open `upper` of the overlay")
}

/// What may be there again the next time is no reason to run with less.
fn is_shortage(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC))
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
    let attr = attr.with(MountAttr::NODEV, mount.nodev).with(MountAttr::NOEXEC, mount.noexec);
    sys::mount_setattr(tree.as_fd(), attr, true).context(|| format!("bind `{}`", source.display()))?;
    Ok(Some(tree))
}

pub(super) fn attach(tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
    sys::move_mount(tree.as_fd(), target.as_fd())
}

/// Where the writes go.
struct Above {
    /// The directory that `upper` and `work` are in.
    at: &'static str,
    upper: OwnedFd,
    /// Whether nobody has written there yet.
    is_new: bool,
}

/// The directories of the overlay: in the scratch tmpfs, or where they are kept.
fn upper(lower: &OwnedFd, scratch: &OwnedFd, kept: Option<&OwnedFd>) -> Result<Above> {
    mkdirat(scratch, "root", Mode::S_IRWXU).context(|| format!("mkdir `{SCRATCH}/root`"))?;
    let (dir, at) = match kept {
        Some(kept) => {
            mkdirat(scratch, "kept", Mode::S_IRWXU).context(|| format!("mkdir `{KEPT}`"))?;
            attach(kept, &open_dir(Path::new(KEPT))?)?;
            (kept, KEPT)
        }
        None => (scratch, SCRATCH),
    };
    // The merged root shows the upper's mode, so it must be the image's.
    let mode = Mode::from_bits_truncate(fstat(lower).context(|| "fstat the image's root")?.st_mode);
    let make = |name: &str, mode| match mkdirat(dir, name, mode) {
        Err(Errno::EEXIST) => Ok(false),
        done => done.map(|()| true).context(|| format!("mkdir `{name}` for the overlay")),
    };
    let is_new = make("upper", mode)?;
    make("work", Mode::S_IRWXU)?;
    let open = |name: &str| {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(dir, name, flags, Mode::empty()).context(|| format!("open `{name}` of the overlay"))
    };
    open("work")?;
    Ok(Above { at, upper: open("upper")?, is_new })
}

/// In a tree of somebody else's nothing can be made, not even in the overlay: its directories' owner has no id inside.
/// So those in which we make something are ours in the upper layer, with the same mode, and so are the files we supply.
fn take_over(plan: &Plan, lower: &OwnedFd, upper: &OwnedFd) -> Result<()> {
    let targets =
        plan.mounts.iter().map(|m| m.target.as_path()).chain(plan.directories.iter().map(|d| d.path.as_path()));
    let injected: Vec<_> = plan.injection.targets().collect();
    let links = plan.devices.links.iter().map(|link| link.path.as_path());
    let targets = targets.chain(injected.iter().map(PathBuf::as_path)).chain(links);
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

/// Makes what it can in the upper layer before it is one: through the overlay, each costs ten times as much. Gives the
/// files that are left to write.
fn prepare<'p>(plan: &'p Plan, lower: &OwnedFd, upper: &OwnedFd) -> Result<Vec<&'p File>> {
    let mut left = Vec::new();
    for file in &plan.files {
        if !supply(file, lower, upper).context(|| format!("write `{}` in the upper layer", file.path))? {
            left.push(file);
        }
    }
    for directory in &plan.directories {
        if let Some(levels) = levels(&directory.path, lower)
            && levels.iter().any(|(_, below)| below.is_none())
        {
            let what = || format!("mkdir `{}` in the upper layer", directory.path.display());
            let made = make_above(&levels, upper).context(what)?;
            user::give(made.as_fd(), &plan.user).context(what)?;
        }
    }
    Ok(left)
}

/// Writes a file in the place of the image's; false if the image has something else than files and directories there.
fn supply(file: &File, lower: &OwnedFd, upper: &OwnedFd) -> Result<bool> {
    let path = Path::new(file.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
    let Some(levels) = levels(parent, lower) else { return Ok(false) };
    let below = levels.last().map_or(Some(lower), |(_, below)| below.as_ref());
    let mode = match below.map(|dir| fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)) {
        None | Some(Err(Errno::ENOENT)) => Mode::from_bits_truncate(0o644),
        Some(Ok(stat)) if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits() => {
            Mode::from_bits_truncate(stat.st_mode)
        }
        Some(_) => return Ok(false),
    };
    let above = make_above(&levels, upper)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let target = openat(&above, name, flags, mode).context(|| "open")?;
    std::fs::File::from(target).write_all(&file.content).context(|| "write")?;
    if let Some(below) = below {
        keep_mtime(below, &above)?;
    }
    Ok(true)
}

/// The directory's time is the image's, as after a copy by the overlay.
fn keep_mtime(below: &OwnedFd, above: &OwnedFd) -> Result<()> {
    let stat = fstat(below).context(|| "fstat")?;
    let mtime = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(above, ".", &TimeSpec::UTIME_OMIT, &mtime, UtimensatFlags::FollowSymlink).context(|| "utimensat")
}

/// The names on the way to a directory, with the image's own directories as far as they go. `None` if something else is
/// on the way, or a directory has attributes that only the overlay would copy.
fn levels<'a>(path: &'a Path, lower: &OwnedFd) -> Option<Vec<(&'a OsStr, Option<OwnedFd>)>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut levels: Vec<(&OsStr, Option<OwnedFd>)> = Vec::new();
    for component in path.components().filter(|c| !matches!(c, Component::RootDir | Component::CurDir)) {
        let Component::Normal(name) = component else { return None };
        let below = match levels.last().map_or(Some(lower), |(_, below)| below.as_ref()) {
            None => None,
            Some(dir) => match openat(dir, name, flags, Mode::empty()) {
                Ok(below) if sys::has_xattrs(below.as_fd()) => return None,
                Ok(below) => Some(below),
                Err(Errno::ENOENT) => None,
                Err(_) => return None,
            },
        };
        levels.push((name, below));
    }
    Some(levels)
}

/// Makes these directories in the upper layer, with the image's modes where it has them. Gives the last.
fn make_above(levels: &[(&OsStr, Option<OwnedFd>)], upper: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut above = upper.try_clone().context(|| "dup")?;
    for (name, below) in levels {
        let mode = match below {
            Some(below) => fstat(below).context(|| "fstat")?.st_mode,
            None => 0o755,
        };
        match mkdirat(&above, *name, Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e).context(|| "mkdir"),
        }
        above = openat(&above, *name, flags, Mode::empty()).context(|| "open")?;
    }
    Ok(above)
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
fn mount_on(root: &Root, dev: Option<&OwnedFd>, mount: &Mount, source: Option<OwnedFd>) -> Result<OwnedFd> {
    let (tree, directory) = match &mount.what {
        What::Bind { .. } => {
            let source = source.context(|| "it has no source")?;
            let directory = inroot::is_dir(source.as_fd())?;
            (source, directory)
        }
        What::Tmpfs { size, mode } => (tmpfs(*size, *mode)?, true),
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
