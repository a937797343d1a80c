//! MIG: the parts a GPU is divided into, and the capability nodes that give access to them.
//!
//! In: the texts of `/proc/driver/nvidia-caps/mig-minors` and the names below `/proc/driver/nvidia/capabilities`. Out: paths
//! and nodes; nothing of the driver is asked. A workload uses a MIG instance through the GPU's node, the node
//! of the GPU instance and that of the compute instance in it (nv-caps.c; NVIDIA's MIG User Guide, "Device Nodes and
//! Capabilities"). A GPU counts by its minor number there, not by its index.

use std::fmt;

use serde::Serialize;

use super::inventory::Gpu;
use super::root::{DriverRoot, why_not};

/// Where the kernel has a directory for every GPU, GPU instance and compute instance.
pub const CAPABILITIES: &str = "/proc/driver/nvidia/capabilities";

/// Where the capability nodes are.
pub const NODES: &str = "/dev/nvidia-caps";

/// The table of their numbers.
const MINORS: &str = "/proc/driver/nvidia-caps/mig-minors";

/// A MIG instance: a compute instance in a GPU instance, which CUDA treats as a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Its number among those of its GPU: the `1` of `0:1`.
    pub index: u32,
    /// `MIG-…`
    pub uuid: String,
    /// Its ids, as `nvidia-smi mig` counts.
    #[serde(flatten)]
    pub place: Place,
    /// What it has of the GPU, as `1g.10gb`.
    pub profile: String,
    /// The capability nodes.
    pub nodes: Vec<String>,
    /// Why the caller cannot use it.
    pub unusable: Option<String>,
}

/// Which part of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// GPU instance.
    pub gi: u32,
    /// Compute instance in it.
    pub ci: u32,
}

impl Place {
    /// The capabilities that it takes, as paths below [`CAPABILITIES`], for a GPU with this minor number.
    pub fn access(self, minor: u32) -> [String; 2] {
        let gi = format!("gpu{minor}/mig/gi{}", self.gi);
        [format!("{gi}/access"), format!("{gi}/ci{}/access", self.ci)]
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPU instance {}, compute instance {}", self.gi, self.ci)
    }
}

/// The numbers of the capability nodes.
pub struct Minors(String);

impl Minors {
    /// Reads the machine's.
    pub fn read(root: &DriverRoot) -> Self {
        Self(root.text(MINORS).unwrap_or_default())
    }

    /// The node of a capability, which a line `gpu0/gi1/ci0/access 22` has.
    fn node(&self, access: &str) -> Option<String> {
        let name = access.replace("/mig/", "/");
        let minor = self.0.lines().find_map(|line| line.strip_prefix(&*name)?.strip_prefix(' '))?;
        Some(format!("{NODES}/nvidia-cap{}", minor.trim().parse::<u32>().ok()?))
    }

    /// The nodes of an instance, or which is not known.
    fn nodes(&self, place: Place, minor: u32) -> Result<Vec<String>, String> {
        let node = |access: &String| self.node(access).ok_or(format!("`{MINORS}` does not list `{access}`"));
        place.access(minor).iter().map(node).collect()
    }

    /// The nodes of an instance of the GPU with this minor number, and why it cannot be used if it cannot.
    pub fn probe(&self, root: &DriverRoot, place: Place, minor: u32) -> (Vec<String>, Option<String>) {
        match self.nodes(place, minor) {
            Err(why) => (Vec::new(), Some(why)),
            Ok(nodes) => {
                let why =
                    place.access(minor).iter().zip(&nodes).find_map(|(access, node)| unusable(root, access, node));
                (nodes, why)
            }
        }
    }

    /// The capabilities below [`CAPABILITIES`] whose nodes are not there.
    pub fn missing(&self, root: &DriverRoot, mut accesses: Vec<String>) -> Vec<String> {
        let there = root.names(NODES);
        let missing = |node: String| !there.iter().any(|name| node == format!("{NODES}/{name}"));
        accesses.retain(|access| self.node(access).is_some_and(missing));
        accesses
    }
}

fn unusable(root: &DriverRoot, access: &str, node: &str) -> Option<String> {
    match root.node(node) {
        None => Some(format!("`{node}` is not there: `nvidia-modprobe -f {CAPABILITIES}/{access}` makes it")),
        Some(found) => found.error.map(|errno| format!("`{node}`: {}", why_not(errno))),
    }
}

/// Whether a GPU is divided. Without an instance MIG is as good as off: nobody can use the GPU for more than that.
pub fn divided(root: &DriverRoot, minor: u32) -> bool {
    let mig = format!("{CAPABILITIES}/gpu{minor}/mig");
    root.has_directories(&mig) && root.names(&mig).iter().any(|name| number(name, "gi").is_some())
}

/// Every instance that the kernel has of a GPU.
pub fn instances(root: &DriverRoot, minor: u32) -> Vec<Place> {
    let below = |path: String, prefix| root.names(&path).into_iter().filter_map(move |name| number(&name, prefix));
    let mig = format!("{CAPABILITIES}/gpu{minor}/mig");
    let of_gi = |gi| below(format!("{mig}/gi{gi}"), "ci").map(move |ci| Place { gi, ci });
    let mut all: Vec<_> = below(mig.clone(), "gi").flat_map(of_gi).collect();
    all.sort();
    all
}

fn number(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

/// What a user of several instances may not expect (MIG User Guide, "CUDA Device Enumeration").
pub fn warning(chosen: &[Gpu]) -> Option<String> {
    let parts: usize = chosen.iter().map(|gpu| gpu.instances.len()).sum();
    let all = parts + chosen.iter().filter(|gpu| gpu.instances.is_empty()).count();
    (parts > 0 && all > 1).then(|| {
        format!(
            "CUDA uses one MIG instance in a process, the first in CUDA_VISIBLE_DEVICES: {all} devices are given, {parts} of \
             them MIG instances"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_those_of_the_gpus_minor_number() {
        let text = "config 1\nmonitor 2\ngpu0/gi1/access 21\ngpu0/gi1/ci0/access 22\ngpu1/gi1/access 156\ngpu0/gi10/access x\n";
        let minors = Minors(text.into());
        let nodes = |gi, ci, minor| minors.nodes(Place { gi, ci }, minor);
        assert_eq!(nodes(1, 0, 0).unwrap(), ["/dev/nvidia-caps/nvidia-cap21", "/dev/nvidia-caps/nvidia-cap22"]);
        assert!(nodes(1, 0, 1).unwrap_err().contains("gpu1/mig/gi1/ci0/access"));
        assert!(nodes(10, 0, 0).is_err() && nodes(1, 0, 10).is_err());
    }

    #[test]
    fn several_instances_are_worth_a_word() {
        let instance = |index| Instance {
            index,
            uuid: String::new(),
            place: Place { gi: index, ci: 0 },
            profile: String::new(),
            nodes: Vec::new(),
            unusable: None,
        };
        let gpu = |parts| Gpu { instances: (0..parts).map(instance).collect(), ..Gpu::default() };
        assert_eq!(warning(&[gpu(0), gpu(0)]), None);
        assert_eq!(warning(&[gpu(1)]), None);
        assert!(warning(&[gpu(2)]).is_some() && warning(&[gpu(1), gpu(0)]).is_some());
    }
}
