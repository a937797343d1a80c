//! The upper layer of the overlay, and what is made in it before it is one: through the overlay, each costs ten times as much.
//!
//! In: a [`Plan`], the image's tree, where the writes go. Out: the layer, and the files that are left to write. Runs in the launched
//! process. The image's directories are walked by descriptor, and no link in them is followed.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fstat, fstatat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;

use super::rootfs::{SCRATCH, attach, open_dir};
use super::{kept, user};
use crate::error::{Context, Result};
use crate::inroot::Root;
use crate::plan::{File, Plan};
use crate::sys;

/// Where the directory of `--overlay` is bound in the scratch tmpfs.
const KEPT: &str = "/tmp/kept";

/// Where the writes go.
pub(super) struct Upper {
    /// The directory that `upper` and `work` are in.
    pub(super) at: &'static str,
    layer: OwnedFd,
    /// Whether nobody has written there yet.
    is_new: bool,
}

impl Upper {
    /// Makes the overlay's directories in the scratch tmpfs, or where they are kept.
    pub(super) fn open(lower: &OwnedFd, scratch: &OwnedFd, kept: Option<&OwnedFd>) -> Result<Self> {
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
        let is_new = make(dir, "upper", mode)?;
        make(dir, "work", Mode::S_IRWXU)?;
        open(dir, "work")?;
        Ok(Self { at, layer: open(dir, "upper")?, is_new })
    }

    /// Makes what it can, and gives the files that are left to write. In what an earlier run has left, links and FIFOs may be in
    /// the way: there all goes through the overlay.
    pub(super) fn prepare<'p>(&self, plan: &'p Plan, lower: &OwnedFd) -> Result<Vec<&'p File>> {
        if !self.is_new {
            return Ok(plan.files.iter().collect());
        }
        if Some(fstat(lower).context(|| "fstat the image's root")?.st_uid) != plan.user.callers_uid() {
            take_over(plan, lower, &self.layer)?;
        }
        prepare(plan, lower, &self.layer)
    }

    /// Whether overlayfs can mark there what is gone.
    pub(super) fn can_mark(&self) -> Result<bool> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let layer = openat(&self.layer, ".", flags, Mode::empty()).context(|| "open `upper` of the overlay")?;
        Ok(kept::can_mark(layer.as_fd()))
    }
}

/// A directory of the overlay; false if it was there.
fn make(dir: &OwnedFd, name: &str, mode: Mode) -> Result<bool> {
    match mkdirat(dir, name, mode) {
        Err(Errno::EEXIST) => Ok(false),
        done => done.map(|()| true).context(|| format!("mkdir `{name}` for the overlay")),
    }
}

fn open(dir: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty()).context(|| format!("open `{name}` of the overlay"))
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

/// Makes what it can in the upper layer. Gives the files that are left to write.
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
