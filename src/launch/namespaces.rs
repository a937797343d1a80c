//! The user and PID namespaces, the id maps, and why they could not be made. Runs in the supervisor, single-threaded.

use std::fs;

use super::libcontainer;
use crate::error::{Context, Error, Result};
use crate::plan::user::Ids;
use crate::plan::{NamespaceKind, Plan};

/// Makes the namespaces that are made before the fork: the user's, and the one that the child is PID 1 of. Where a
/// security module lets everybody make the first but not use it, the second is refused.
pub(super) fn enter(plan: &Plan) -> Result<()> {
    libcontainer::unshare(NamespaceKind::User)?;
    write_maps(&plan.user)?;
    match plan.namespaces.iter().any(|n| n.kind == NamespaceKind::Pid) {
        true => libcontainer::unshare(NamespaceKind::Pid),
        false => Ok(()),
    }
}

/// Maps the one id inside to the caller's outside (user_namespaces(7): an unprivileged process must give up setgroups
/// before it may write a gid map).
fn write_maps(ids: &Ids) -> Result<()> {
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), &text).context(|| format!("write `{text}` to `/proc/self/{file}`"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{} {} 1", ids.uid, ids.host_uid))?;
    write("gid_map", format!("{} {} 1", ids.gid, ids.host_gid))
}

/// An error of unshare(CLONE_NEWUSER) with the switch that blocks it, as far as the host shows it.
pub(crate) fn explain_blocked(error: Error) -> Error {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let switch = |name: &str| read(&format!("/proc/sys/{name}"));
    if switch("user/max_user_namespaces").as_deref() == Some("0") {
        return error.hint("user namespaces are switched off: `sysctl user.max_user_namespaces=15000`, as root");
    }
    if switch("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return error.hint("user namespaces are switched off: `sysctl kernel.unprivileged_userns_clone=1`, as root");
    }
    if switch("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return error.hint(
            "AppArmor restricts user namespaces: a profile for gpurun with `userns,` in it, or \
             `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, as root",
        );
    }
    match error.errno() {
        Some(libc::ENOSPC) => error.hint("too many user namespaces: raise `user.max_user_namespaces`, or nest less"),
        Some(libc::EPERM) => {
            error.hint("something around gpurun forbids user namespaces: a container's seccomp profile, or a chroot")
        }
        _ => error,
    }
}
