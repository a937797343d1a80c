//! The Container Device Interface: a spec of this machine's GPUs for other engines (`gpurun cdi generate`).
//!
//! In: the same facts as an injection. Out: a spec of CDI 0.5 in JSON, with no hook in it: what other tools make by running
//! programs in the container is here in the mounts themselves, each library under the name it is asked for by, in a
//! directory that CUDA images search anyway. Other engines' specs are not read yet: `--device` says so.

use serde::Serialize;

use super::classify::Capabilities;
use super::devices;
use super::files::{DriverFiles, Library, Placed};
use super::inventory::{Gpu, Inventory};
use super::root::DriverRoot;
use crate::error::{Context, Error, Result};

/// Where the libraries go: in `LD_LIBRARY_PATH` of NVIDIA's own images.
const LIBRARIES: &str = "/usr/local/nvidia/lib64";

/// A spec (cncf-tags/container-device-interface, SPEC.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    cdi_version: &'static str,
    kind: &'static str,
    devices: Vec<Device>,
    container_edits: Edits,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Edits {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    device_nodes: Vec<Node>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<Mount>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Node {
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    options: [&'static str; 5],
}

/// The spec of all GPUs that the caller can open, by index and by UUID, and of all together.
pub fn generate(root: &DriverRoot, wanted: &Capabilities) -> Result<Spec> {
    let inventory = Inventory::probe(root).context(|| "there is no NVIDIA driver: nothing to generate from")?;
    let usable: Vec<_> = inventory.gpus.iter().filter(|gpu| gpu.unusable.is_none()).cloned().collect();
    if usable.is_empty() {
        return Err(Error::new("there is no GPU that can be opened").hint("`gpurun gpus` says why"));
    }
    let files = DriverFiles::find(root, &inventory.version, wanted)?;
    let common = devices::decide(root, &[], wanted)?;
    let one = |gpu: &Gpu| {
        let names = [Some(gpu.index.to_string()), gpu.uuid.clone()].into_iter().flatten();
        names.map(|name| device(root, name, std::slice::from_ref(gpu), wanted)).collect::<Vec<_>>()
    };
    let all = device(root, "all".into(), &usable, wanted);
    Ok(Spec {
        cdi_version: "0.5.0",
        kind: "nvidia.com/gpu",
        devices: usable.iter().flat_map(one).chain([all]).collect::<Result<_>>()?,
        container_edits: Edits {
            env: vec!["NVIDIA_VISIBLE_DEVICES=void".into(), format!("LD_LIBRARY_PATH={LIBRARIES}")],
            device_nodes: common.into_iter().map(|device| Node { path: device.path }).collect(),
            mounts: mounts(&files)?,
        },
    })
}

/// The nodes of these GPUs, without those that every container gets.
fn device(root: &DriverRoot, name: String, gpus: &[Gpu], wanted: &Capabilities) -> Result<Device> {
    let common = devices::decide(root, &[], wanted)?;
    let own = devices::decide(root, gpus, wanted)?.into_iter().filter(|device| !common.contains(device));
    let device_nodes = own.map(|device| Node { path: device.path }).collect();
    Ok(Device { name, container_edits: Edits { device_nodes, ..Edits::default() } })
}

fn mounts(files: &DriverFiles) -> Result<Vec<Mount>> {
    let libraries = files.libraries.iter().filter(|library| library.wide).flat_map(|library| {
        let bare = (library.soname == "libcuda.so.1").then(|| "libcuda.so".to_owned());
        [Some(library.soname.clone()), bare].into_iter().flatten().map(|name| of_library(library, &name))
    });
    let placed = files
        .programs
        .iter()
        .chain(&files.data)
        .map(|placed: &Placed| mount(placed.real.to_str(), placed.target.to_str().unwrap_or_default().to_owned()));
    libraries.chain(placed).collect()
}

fn of_library(library: &Library, name: &str) -> Result<Mount> {
    mount(library.real.to_str(), format!("{LIBRARIES}/{name}"))
}

fn mount(real: Option<&str>, container_path: String) -> Result<Mount> {
    let host_path = real.context(|| format!("the path of what belongs at `{container_path}` is not UTF-8"))?.to_owned();
    Ok(Mount { host_path, container_path, options: ["ro", "nosuid", "nodev", "rbind", "rprivate"] })
}
