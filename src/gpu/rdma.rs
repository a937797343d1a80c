//! InfiniBand and RoCE: the nodes through which a workload reaches the fabric (`--rdma`).
//!
//! In: a [`DriverRoot`], how much memory the caller may lock. Out: [`Rdma`], or why there is none. What belongs to which
//! adapter stays as sysfs says, which is the host's. Nodes for management (umad, issm) are for real root only
//! (enroot, 99-mellanox.sh:43-95).

use super::devices::{self, Device};
use super::root::{DriverRoot, why_not};
use crate::error::{Error, Result};

const DIRECTORY: &str = "/dev/infiniband";

/// What of the fabric a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdma {
    /// Nodes of the host.
    pub devices: Vec<Device>,
    /// What is missing.
    pub warnings: Vec<String>,
}

/// Decides the nodes. `lockable` is the caller's `RLIMIT_MEMLOCK` in bytes; `None` if there is no limit.
pub fn decide(root: &DriverRoot, lockable: Option<u64>) -> Result<Rdma> {
    let (usable, refused) = adapters(root);
    if usable.is_empty() {
        return Err(none(&refused));
    }
    let manager = devices::optional(root, &format!("{DIRECTORY}/rdma_cm"), "connections over the fabric");
    let no_manager = manager.is_none().then(|| {
        format!(
            "`{DIRECTORY}/rdma_cm` cannot be used: connections by librdmacm fail until the host has rdma_ucm loaded"
        )
    });
    let locked = lockable.map(|bytes| {
        format!("only {bytes} bytes can be locked in memory, and RDMA locks what it transfers: `ulimit -l unlimited`")
    });
    let devices = usable.into_iter().chain(manager).collect();
    Ok(Rdma { devices, warnings: refused.into_iter().chain(no_manager).chain(locked).collect() })
}

/// The adapters' nodes that the caller can open, and why not the others.
fn adapters(root: &DriverRoot) -> (Vec<Device>, Vec<String>) {
    let (mut usable, mut refused) = (Vec::new(), Vec::new());
    for name in root.names(DIRECTORY).iter().filter(|name| name.starts_with("uverbs")) {
        let path = format!("{DIRECTORY}/{name}");
        match root.node(&path).map(|node| node.error) {
            Some(None) => usable.push(Device { path, why: "--rdma" }),
            Some(Some(errno)) => refused.push(format!("`{path}` cannot be opened: {}", why_not(errno))),
            None => {}
        }
    }
    (usable, refused)
}

fn none(refused: &[String]) -> Error {
    let error = Error::new("--rdma: there is no InfiniBand or RoCE adapter that can be used");
    if refused.is_empty() {
        return error
            .hint(format!("there is no `{DIRECTORY}/uverbs*`: the kernel makes them when ib_uverbs is loaded"));
    }
    refused.iter().fold(error, |error, why| error.hint(why.clone()))
}
