//! A spec of this machine's NVIDIA GPUs for other engines (`gpurun cdi generate`).
//!
//! In: the same facts as an injection. Out: a [`Spec`] with no hook in it, so that any engine can use it without a program of
//! ours or NVIDIA's. What hooks would do is in the mounts themselves: each library is mounted under the very name that
//! programs ask for, in the directories that the loaders of Debian's and of Red Hat's families search without a cache. What
//! cannot be had so: an image's own driver in its `ld.so.cache` comes first, other GPUs stay listed in /proc, and
//! forward compatibility is left to the image.

use std::path::Path;

use super::spec::{Device, DeviceNode, Edits, Mount, Spec};
use crate::error::{Context, Error, Result};
use crate::gpu::classify::Capabilities;
use crate::gpu::devices;
use crate::gpu::files::{DriverFiles, Library};
use crate::gpu::inventory::{Gpu, Inventory};
use crate::gpu::root::DriverRoot;

/// Names that begin with a digit need no newer one.
const VERSION: &str = "0.5.0";

/// The spec of all GPUs that the caller can open, by index and by UUID, and of all together.
pub fn generate(root: &DriverRoot, wanted: &Capabilities) -> Result<Spec> {
    let inventory = Inventory::probe(root).context(|| "there is no NVIDIA driver: nothing to generate from")?;
    let usable = usable(&inventory)?;
    let files = DriverFiles::find(root, &inventory.version, wanted)?;
    let common = devices::decide(root, &[], wanted)?;
    let one = |gpu: &Gpu| {
        let names = [Some(gpu.index.to_string()), gpu.uuid.clone()].into_iter().flatten();
        names.map(|name| device(root, name, std::slice::from_ref(gpu), wanted)).collect::<Vec<_>>()
    };
    let all = device(root, "all".into(), &usable, wanted);
    Ok(Spec {
        cdi_version: VERSION.into(),
        kind: "nvidia.com/gpu".into(),
        devices: usable.iter().flat_map(one).chain([all]).collect::<Result<_>>()?,
        container_edits: Edits {
            env: vec!["NVIDIA_VISIBLE_DEVICES=void".into()],
            device_nodes: common.iter().map(node).collect(),
            mounts: mounts(&files)?,
            ..Edits::default()
        },
        ..Spec::default()
    })
}

fn usable(inventory: &Inventory) -> Result<Vec<Gpu>> {
    let usable: Vec<_> = inventory.gpus.iter().filter(|gpu| gpu.unusable.is_none()).cloned().collect();
    match usable.is_empty() {
        true => Err(Error::new("there is no GPU that can be opened").hint("`gpurun gpus` says why")),
        false => Ok(usable),
    }
}

/// The nodes of these GPUs, without those that every container gets.
fn device(root: &DriverRoot, name: String, gpus: &[Gpu], wanted: &Capabilities) -> Result<Device> {
    let common = devices::decide(root, &[], wanted)?;
    let all = devices::decide(root, gpus, wanted)?;
    let device_nodes = all.iter().filter(|device| !common.contains(device)).map(node).collect();
    Ok(Device { name, container_edits: Edits { device_nodes, ..Edits::default() }, ..Device::default() })
}

fn node(device: &devices::Device) -> DeviceNode {
    DeviceNode { path: device.path.clone(), ..DeviceNode::default() }
}

fn mounts(files: &DriverFiles) -> Result<Vec<Mount>> {
    let libraries = files.libraries.iter().filter(|library| library.wide).flat_map(of_library);
    let placed = files.programs.iter().chain(&files.data).map(|placed| mount(&placed.real, &placed.target));
    libraries.chain(placed).collect()
}

/// A library under its SONAME, in each of the loaders' directories.
fn of_library(library: &Library) -> Vec<Result<Mount>> {
    let debians = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let bare = (library.soname == "libcuda.so.1").then_some("libcuda.so");
    let names = [Some(library.soname.as_str()), bare];
    let place = |directory: &str| {
        names.iter().flatten().map(|name| mount(&library.real, &Path::new(directory).join(name))).collect::<Vec<_>>()
    };
    [debians.as_str(), "/usr/lib64"].into_iter().flat_map(place).collect()
}

fn mount(real: &Path, target: &Path) -> Result<Mount> {
    let text = |path: &Path| {
        path.to_str().map(ToOwned::to_owned).context(|| format!("the path `{}` is not UTF-8", path.display()))
    };
    let options = ["ro", "nosuid", "nodev", "rbind", "rprivate"].map(ToOwned::to_owned).to_vec();
    Ok(Mount { host_path: text(real)?, container_path: text(target)?, options, ..Mount::default() })
}
