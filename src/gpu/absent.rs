//! A machine without a driver: whether a run goes on without GPUs, or what the user can do.
//!
//! In: what is asked for, the machine, NVML's failure if it was asked. Out: an [`Injection`] of nothing, or the refusal.

use super::root::DriverRoot;
use super::select::Gpus;
use super::{Injection, Inputs};
use crate::error::{Error, Result};

/// `auto`, and what a batch system or the host's environment says, are no reason to fail on a machine without a driver.
pub(super) fn inject(inputs: &Inputs, silence: Option<Error>) -> Result<Injection> {
    if matches!(inputs.asked.gpus, Gpus::Auto | Gpus::Allotted(_)) {
        let why = silence.map_or_else(|| "no NVIDIA driver here".to_owned(), |error| format!("{error:#}"));
        let warnings = vec![format!("{why}: running without GPUs")];
        return Ok(Injection { warnings, ..Injection::none("no NVIDIA driver here") });
    }
    Err(silence.unwrap_or_else(|| no_driver(inputs.root)))
}

/// Some machines have their driver elsewhere.
fn no_driver(root: &DriverRoot) -> Error {
    if root.has("/dev/dxg") {
        return Error::new("there is no NVIDIA driver: `/usr/lib/wsl/lib/libcuda.so.1` is not there")
            .hint("WSL2 takes Windows' driver: install NVIDIA's there, and none in WSL2; then `wsl --shutdown`, once");
    }
    if root.has("/etc/nv_tegra_release") {
        return Error::new("the GPU of a Jetson cannot be given to a container")
            .hint("its driver is part of the board's own system, and gpurun knows that of PCI GPUs only")
            .hint("`--gpus none` runs without");
    }
    Error::new("there is no NVIDIA driver: `/proc/driver/nvidia/version` is not there or cannot be read")
        .hint("`modprobe nvidia`, as root, loads it where it is installed; `--gpus auto` runs without GPUs where there are none")
}
