//! The device nodes of the chosen GPUs, and those they need beside them.
//!
//! In: a [`DriverRoot`], the chosen GPUs, the capabilities. Out: a list of nodes, or which is missing and why. The catalogue
//! is that of NVIDIA's kernel modules and container tools (nv-chardev-numbers.h, uvm_common.h, graphics.go:331-470).

use serde::Serialize;

use super::Link;
use super::classify::{Capabilities, Capability};
use super::inventory::Gpu;
use super::root::{DriverRoot, why_not};
use crate::error::{Error, Result};

/// Nodes of GPUDirect Storage start with this.
pub(super) const STORAGE: &str = "/dev/nvidia-fs";

/// A node of the host that is bound at its own path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its path.
    pub path: String,
    /// Why.
    pub why: &'static str,
}

/// Decides the nodes.
pub fn decide(root: &DriverRoot, chosen: &[Gpu], wanted: &Capabilities) -> Result<Vec<Device>> {
    let mut all: Vec<_> = chosen.iter().map(|gpu| Device { path: gpu.node(), why: "a chosen GPU" }).collect();
    all.extend(capabilities(chosen));
    all.push(needed(root, "/dev/nvidiactl", "the driver's entrance", "-c 255")?);
    if wanted.has(Capability::Compute) {
        not_stale(root, "/dev/nvidia-uvm", "nvidia-uvm")?;
        all.push(needed(root, "/dev/nvidia-uvm", "CUDA's memory", "-c 0 -u")?);
        all.extend(optional(root, "/dev/nvidia-uvm-tools", "CUDA's profilers"));
        all.extend(optional(root, "/dev/gdrdrv", "GDRCopy"));
        all.extend(below(root, "/dev", "nvidia-fs", "GPUDirect Storage"));
        all.extend(below(root, "/dev/nvidia-caps-imex-channels", "channel", "NVLink between nodes"));
    }
    if wanted.has(Capability::Graphics) {
        all.extend(optional(root, "/dev/nvidia-modeset", "displays"));
    }
    if wanted.has(Capability::Graphics) || wanted.has(Capability::Video) {
        all.extend(chosen.iter().filter(|gpu| draws(gpu)).flat_map(|gpu| dri(root, gpu)));
    }
    Ok(all)
}

/// The nodes that give access to the chosen MIG instances; several can be in one GPU instance.
fn capabilities(chosen: &[Gpu]) -> Vec<Device> {
    let mut all: Vec<Device> = Vec::new();
    for node in chosen.iter().flat_map(|gpu| &gpu.instances).flat_map(|instance| &instance.nodes) {
        if !all.iter().any(|known| known.path == *node) {
            all.push(Device { path: node.clone(), why: "a chosen MIG instance" });
        }
    }
    all
}

/// Of MIG instances only those with graphics in their profile do (graphics.go:399 of nvidia-container-toolkit).
fn draws(gpu: &Gpu) -> bool {
    gpu.instances.is_empty() || gpu.instances.iter().any(|instance| instance.profile.contains("gfx"))
}

fn needed(root: &DriverRoot, path: &str, why: &'static str, options: &str) -> Result<Device> {
    match root.node(path) {
        None => Err(Error::new(format!("the device node `{path}` is not there"))
            .hint(format!("gpurun could not make it: have an administrator run `nvidia-modprobe {options}`"))),
        Some(node) => match node.error {
            None => Ok(Device { path: path.into(), why }),
            Some(errno) => Err(Error::new(format!("`{path}` cannot be opened: {}", why_not(errno)))),
        },
    }
}

/// A node that was made before its module was loaded anew may belong to another driver by now: its number is a dynamic
/// one. Where /proc/devices does not say which, what `open()` says must do.
fn not_stale(root: &DriverRoot, path: &str, driver: &str) -> Result<()> {
    let devices = root.text("/proc/devices").unwrap_or_default();
    let lines = devices.lines().filter_map(|line| line.trim().split_once(' '));
    let major = lines.filter(|(_, name)| *name == driver).find_map(|(number, _)| number.parse::<u64>().ok());
    match root.node(path).zip(major) {
        Some((node, major)) if node.number.0 != major => Err(Error::new(format!(
            "`{path}` is stale: its major number is {}, and that of {driver} is {major} (/proc/devices)",
            node.number.0
        ))
        .hint("have an administrator remove it and run `nvidia-modprobe -c 0 -u`")),
        _ => Ok(()),
    }
}

/// What the caller cannot open, the workload could not either.
pub(super) fn optional(root: &DriverRoot, path: &str, why: &'static str) -> Option<Device> {
    root.node(path).filter(|node| node.error.is_none()).map(|_| Device { path: path.into(), why })
}

fn below(root: &DriverRoot, dir: &str, start: &str, why: &'static str) -> Vec<Device> {
    let names = root.names(dir).into_iter().filter(|name| name.starts_with(start));
    names.filter_map(|name| optional(root, &format!("{dir}/{name}"), why)).collect()
}

/// The nodes of the kernel's graphics drivers for a GPU, which only sysfs tells.
fn dri(root: &DriverRoot, gpu: &Gpu) -> Vec<Device> {
    let nodes = drm(root, gpu).into_iter().map(|name| format!("/dev/dri/{name}"));
    nodes.filter_map(|path| optional(root, &path, "a chosen GPU's graphics")).collect()
}

fn drm(root: &DriverRoot, gpu: &Gpu) -> Vec<String> {
    let names = root.names(&format!("/sys/bus/pci/devices/{}/drm", gpu.pci));
    names.into_iter().filter(|name| name.starts_with("card") || name.starts_with("renderD")).collect()
}

/// The names by which programs find a GPU's graphics nodes by its PCI address, as udev makes them (graphics.go:331-398).
pub fn links(root: &DriverRoot, chosen: &[Gpu], devices: &[Device]) -> Vec<Link> {
    let there = |name: &String| devices.iter().any(|device| device.path == format!("/dev/dri/{name}"));
    let link = |pci: &str, name: &str| Link {
        path: format!("/dev/dri/by-path/pci-{pci}-{}", if name.starts_with("card") { "card" } else { "render" }),
        to: format!("../{name}"),
    };
    let names = chosen.iter().flat_map(|gpu| drm(root, gpu).into_iter().map(|name| (gpu.pci.as_str(), name)));
    names.filter(|(_, name)| there(name)).map(|(pci, name)| link(pci, &name)).collect()
}
