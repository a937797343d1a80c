//! The workload's user, where it is not the caller's number as it is: groups, ids, the terminal's owner.
//!
//! In: the ids that the plan or the label names, all of which are mapped. Runs in the launched process, which keeps the
//! capabilities of its user namespace until the workload gives them up.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use caps::CapSet;
use nix::fcntl::AtFlags;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, fchown, fchownat, geteuid, setgroups, setresgid, setresuid};

use crate::error::{Context, Result};
use crate::inroot::Root;
use crate::plan::user::Ids;
use crate::sys;

/// Takes the place of the caller's supplementary groups, if there is something to take it: they are no concern of another
/// user's.
pub(super) fn join_groups(groups: Option<&[u32]>) -> Result<()> {
    let Some(groups) = groups else { return Ok(()) };
    let gids: Vec<_> = groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&gids).context(|| format!("setgroups {groups:?}"))
}

/// Becomes this user, who still may do what this process may: from root to another the kernel takes that away
/// (capabilities(7)).
pub(super) fn become_user(uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid).context(|| format!("setresgid {gid}"))?;
    if uid == geteuid() {
        return setresuid(uid, uid, uid).context(|| format!("setresuid {uid}"));
    }
    prctl::set_keepcaps(true).context(|| "prctl PR_SET_KEEPCAPS")?;
    setresuid(uid, uid, uid).context(|| format!("setresuid {uid}"))?;
    let permitted = caps::read(None, CapSet::Permitted).context(|| "capget")?;
    caps::set(None, CapSet::Effective, &permitted).context(|| "capset")?;
    // Where fs.suid_dumpable is 1, other ids have made it so that this user may look into us.
    prctl::set_dumpable(false).context(|| "prctl PR_SET_DUMPABLE")
}

/// Makes a directory where there is none, for the workload's user.
pub(super) fn make_dir(root: &Root, path: &Path, ids: &Ids) -> Result<()> {
    let is_new = ids.is_another() && root.resolve(path).is_err();
    let made = root.make_dir(path)?;
    if is_new { give(made.as_fd(), ids) } else { Ok(()) }
}

/// Gives a directory that was made for another user to that one.
pub(super) fn give(directory: BorrowedFd, ids: &Ids) -> Result<()> {
    if !ids.is_another() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    fchownat(directory, ".", Some(uid), Some(gid), AtFlags::empty()).context(|| format!("chown to {uid}:{gid}"))
}

/// Makes the terminal, which was made by the caller, this user's: tty(1) and ssh(1) open it by its name.
pub(super) fn own_terminal() -> Result<()> {
    fchown(sys::stdio(0), Some(geteuid()), None).context(|| "fchown the terminal")
}
