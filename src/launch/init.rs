//! The launched process, from fork to PID 1: mount namespace, rootfs, the change of root, libcontainer's init.
//!
//! In: the plan, by copy of the supervisor's memory. Out: nothing; it ends as PID 1, or gives the reason why not. Single-threaded;
//! nothing here prints.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::workload::Workload;
use super::{libcontainer, refused, rootfs, user};
use crate::error::Result;
use crate::plan::{NamespaceKind, Plan};
use crate::sys;

/// Becomes the container's PID 1.
pub(super) fn become_init(plan: &Plan, workload: Workload, console: Option<&OwnedFd>) -> Result<Infallible> {
    start(plan, workload, console).map_err(refused::mounts)
}

fn start(plan: &Plan, workload: Workload, console: Option<&OwnedFd>) -> Result<Infallible> {
    workload.status.begin();
    libcontainer::unshare(NamespaceKind::Mount)?;
    if plan.namespaces.iter().any(|n| n.kind == NamespaceKind::Network) {
        libcontainer::unshare(NamespaceKind::Network)?;
        sys::bring_up_loopback()?; // while we have the right to
    }
    let root = rootfs::build(plan, &workload.status)?;
    let start = libcontainer::queue_start(Path::new(rootfs::SCRATCH))?;
    rootfs::enter(&root, plan.rootfs.read_only)?;
    user::join_groups(plan.user.groups.as_deref())?;
    libcontainer::init(plan, start, workload, console)
}
