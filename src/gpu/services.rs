//! What of the host works beside the driver: its daemons' sockets, and what GPUDirect Storage reads.
//!
//! In: the machine, what is wanted. Out: [`Bind`]s of what is there.

use super::Inputs;
use super::classify::{Capabilities, Capability};
use super::devices::{self, Device};
use super::injection::Bind;
use super::root::DriverRoot;

/// Where the driver's daemons are talked to.
pub(super) fn sockets(inputs: &Inputs, wanted: &Capabilities) -> Vec<Bind> {
    let root = inputs.root;
    let mps = inputs.mps.filter(|path| path.starts_with('/')).unwrap_or("/tmp/nvidia-mps");
    let all = [
        ("/run/nvidia-persistenced/socket", Capability::Utility, "nvidia-persistenced"),
        ("/run/nvidia-fabricmanager/socket", Capability::Utility, "nvidia-fabricmanager"),
        (mps, Capability::Compute, "the multi-process service"),
    ];
    let there = all.into_iter().filter(|(path, capability, _)| wanted.has(*capability) && root.has(path));
    let bind = |(path, _, why)| Bind { source: root.system_path(path), target: path.into(), socket: true, why };
    there.map(bind).collect()
}

/// What GPUDirect Storage reads beside its nodes: its settings, and udev's answer to which disk a file is on
/// (nvidia-container-toolkit, mode `gds`).
pub(super) fn storage(root: &DriverRoot, devices: &[Device]) -> Vec<Bind> {
    let wanted = devices.iter().any(|device| device.path.starts_with(devices::STORAGE));
    let paths = ["/etc/cufile.json", "/run/udev"].into_iter().filter(|path| wanted && root.has(path));
    paths.map(|path| Bind::read(&root.system_path(path), path.into(), "GPUDirect Storage")).collect()
}
