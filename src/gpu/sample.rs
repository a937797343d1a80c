//! Inventories for the tests: what /proc and NVML would say of two machines.

use super::inventory::{Gpu, Inventory, Version};
use super::mig::{Instance, Place};

/// Twelve GPUs whose nodes are numbered from the other end; the last two belong to somebody else.
pub(super) fn inventory() -> Inventory {
    let gpu = |index: u32| Gpu {
        index,
        minor: 11 - index,
        uuid: Some(format!("GPU-{index:08x}-0000-0000-0000-00000000000{}", index % 10)),
        pci: format!("0000:{:02x}:00.0", index + 1),
        model: "NVIDIA A100".into(),
        unusable: (index > 9).then(|| "EPERM".into()),
        ..Gpu::default()
    };
    Inventory { version: Version::parse("550.1").unwrap(), gpus: (0..12).map(gpu).collect(), cuda: None }
}

/// The same with MIG on on GPUs 1, which has three instances, one of them another's, and 2, which has one.
pub(super) fn divided() -> Inventory {
    let mut inventory = inventory();
    let part = |gpu: u32, index: u32| Instance {
        index,
        uuid: format!("MIG-{gpu}{index}000000-0000-0000-0000-000000000000"),
        place: Place { gi: index + 7, ci: 0 },
        profile: "1g.5gb".into(),
        nodes: vec![],
        unusable: (index == 2).then(|| "EACCES".into()),
    };
    for (gpu, parts) in [(1, 3), (2, 1)] {
        inventory.gpus[gpu as usize].mig = true;
        inventory.gpus[gpu as usize].instances = (0..parts).map(|index| part(gpu, index)).collect();
    }
    inventory
}
