//! The user and PID namespaces, and the id maps. Runs in the supervisor, single-threaded.

use std::fs;

use super::libcontainer;
use super::mapper::Mapper;
use crate::error::{Context, Result};
use crate::plan::idmap::Mapping;
use crate::plan::{NamespaceKind, Plan};

/// Makes the namespaces that are made before the fork: the user's, and the one that the child is PID 1 of. Where a
/// security module lets everybody make the first but not use it, the second is refused.
pub(super) fn enter(plan: &Plan) -> Result<()> {
    let mapper = Mapper::fork(&plan.user.map)?; // which has to stay outside
    libcontainer::unshare(NamespaceKind::User)?;
    match mapper {
        Some(mapper) => mapper.map()?,
        None => write_maps(&plan.user.map)?,
    }
    match plan.namespaces.iter().any(|n| n.kind == NamespaceKind::Pid) {
        true => libcontainer::unshare(NamespaceKind::Pid),
        false => Ok(()),
    }
}

/// Maps the one id inside to the caller's outside (user_namespaces(7): an unprivileged process must give up setgroups
/// before it may write a gid map).
fn write_maps(map: &Mapping) -> Result<()> {
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), &text).context(|| format!("write `{text}` to `/proc/self/{file}`"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", map.uids.lines())?;
    write("gid_map", map.gids.lines())
}
