//! The driver and the GPUs that the kernel has, out of /proc: nothing of the driver is loaded for it. What
//! /proc does not say [`super::nvml::learn`] adds.
//!
//! In: a [`DriverRoot`]. Out: [`Inventory`]. `/proc/driver/nvidia/version` is the truth about the loaded module; the
//! files in `gpus/*/information` are those of kernel-open/nvidia/nv-procfs.c.

pub use gpurun_driver::Version;
use serde::Serialize;

use super::mig::{self, Instance};
use super::root::{DriverRoot, why_not};

const PROC: &str = "/proc/driver/nvidia";

/// The loaded module and its GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Version of the loaded kernel module.
    pub version: Version,
    /// In the order of their PCI addresses, which is NVML's.
    pub gpus: Vec<Gpu>,
    /// The CUDA version that the driver offers, if NVML said so.
    pub cuda: Option<(u32, u32)>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its number, as `nvidia-smi` counts.
    pub index: u32,
    /// The number of its node, which is another.
    pub minor: u32,
    /// `GPU-…`; unknown until the driver has used the GPU once.
    pub uuid: Option<String>,
    /// PCI address, as `0000:65:00.0`.
    pub pci: String,
    /// Name of the product.
    pub model: String,
    /// Why the caller cannot use it.
    pub unusable: Option<String>,
    /// The line of products, as `NVIDIA_REQUIRE_*` names it; NVML says.
    pub brand: Option<String>,
    /// Compute capability; NVML says.
    pub compute: Option<Version>,
    /// Whether MIG is on. /proc shows it by the GPU's instances.
    pub mig: bool,
    /// Its MIG instances, or those that are chosen; NVML says.
    pub instances: Vec<Instance>,
}

impl Gpu {
    /// Its node.
    pub fn node(&self) -> String {
        format!("/dev/nvidia{}", self.minor)
    }

    /// What NVML says of its kind, for a person.
    pub fn kind(&self) -> Option<String> {
        let brand = self.brand.as_ref().map(|brand| format!("brand {brand}"));
        let compute = self.compute.as_ref().map(|compute| format!("compute capability {compute}"));
        let mig = self.mig.then(|| "MIG on".to_owned());
        let known: Vec<_> = brand.into_iter().chain(compute).chain(mig).collect();
        (!known.is_empty()).then(|| known.join(", "))
    }
}

impl Inventory {
    /// Looks at the machine; `None` if no driver is loaded.
    pub fn probe(root: &DriverRoot) -> Option<Self> {
        let version = parse_version(&root.text(&format!("{PROC}/version"))?)?;
        let read = |pci: &String| parse_gpu(pci, &root.text(&format!("{PROC}/gpus/{pci}/information"))?);
        let gpus = root.names(&format!("{PROC}/gpus")).iter().filter_map(read).collect();
        let mut inventory = Self { version, gpus: numbered(root, gpus), cuda: None };
        if root.has(mig::CAPABILITIES) {
            inventory.gpus.iter_mut().for_each(|gpu| gpu.mig = mig::divided(root, gpu.minor));
        }
        Some(inventory)
    }
}

/// The GPUs in their order, each with whether it can be used.
pub(super) fn numbered(root: &DriverRoot, mut gpus: Vec<Gpu>) -> Vec<Gpu> {
    gpus.sort_by_key(|gpu| address(&gpu.pci));
    for (index, gpu) in (0..).zip(&mut gpus) {
        gpu.index = index;
        gpu.unusable = unusable(root, gpu);
    }
    gpus
}

fn unusable(root: &DriverRoot, gpu: &Gpu) -> Option<String> {
    match root.node(&gpu.node()) {
        None => Some(format!("`{}` is not there: `nvidia-modprobe -c {}` makes it", gpu.node(), gpu.minor)),
        Some(node) => node.error.map(|errno| format!("`{}`: {}", gpu.node(), why_not(errno))),
    }
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue …`, or with `Open Kernel Module for x86_64`.
fn parse_version(text: &str) -> Option<Version> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    line.split_whitespace().find_map(Version::parse)
}

/// `Name: value` lines. A GPU that an administrator excluded has no node.
fn parse_gpu(pci: &str, text: &str) -> Option<Gpu> {
    let field = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).find(|value| !value.is_empty())
    };
    if field("GPU Excluded") == Some("Yes") {
        return None;
    }
    let known = |uuid: &&str| !uuid.contains('?'); // nv-procfs.c prints question marks until the first use
    Some(Gpu {
        minor: field("Device Minor")?.parse().ok()?,
        uuid: field("GPU UUID").filter(known).map(str::to_owned),
        pci: field("Bus Location").unwrap_or(pci).to_ascii_lowercase(),
        model: field("Model").unwrap_or("unknown").to_owned(),
        ..Gpu::default()
    })
}

/// `domain:bus:device.function` by its numbers; NVML writes eight digits of domain, /proc four.
pub fn address(text: &str) -> Option<(u32, u32, u32, u32)> {
    let hex = |text: &str| u32::from_str_radix(text, 16).ok();
    let (rest, function) = text.split_once('.').unwrap_or((text, "0"));
    match rest.split(':').collect::<Vec<_>>()[..] {
        [domain, bus, device] => Some((hex(domain)?, hex(bus)?, hex(device)?, hex(function)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The texts are those of 550.163.01 and of the open modules of 535 (nv-procfs.c).
    #[test]
    fn both_flavours_say_their_version() {
        for (text, want) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 12:41:17 UTC 2025\nGCC version:  x\n",
                "550.163.01",
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.54.03  Release Build  (u@h)  Tue\n",
                "535.54.03",
            ),
            ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06  Release Build\n", "580.65.06"),
        ] {
            assert_eq!(parse_version(text).unwrap().as_str(), want);
        }
        assert_eq!(parse_version("NVRM version: ?\n"), None);
    }

    #[test]
    fn a_gpu_is_read_from_its_information() {
        let text = "Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ:   \t\t 250\nGPU UUID: \t GPU-5c0a1b2c-0000-1111-2222-333344445555\n\
                    Bus Type: \t PCIe\nBus Location: \t 0000:07:00.0\nDevice Minor: \t 3\nGPU Excluded:\t No\n";
        let gpu = parse_gpu("0000:07:00.0", text).unwrap();
        assert_eq!((gpu.minor, gpu.pci.as_str(), gpu.model.as_str()), (3, "0000:07:00.0", "NVIDIA A100-SXM4-80GB"));
        assert!(gpu.uuid.unwrap().starts_with("GPU-5c0a1b2c"));
        let unknown = "Model: x\nGPU UUID: GPU-????????-????-????-????-????????????\nDevice Minor: 0\n";
        assert_eq!(parse_gpu("0000:01:00.0", unknown).unwrap().uuid, None);
        assert_eq!(parse_gpu("x", "Device Minor: 0\nGPU Excluded: Yes\n"), None);
        assert_eq!(parse_gpu("x", "Model: y\n"), None);
    }

    #[test]
    fn addresses_are_numbers() {
        assert_eq!(address("0000:65:00.0"), address("00000000:65:00"));
        assert_eq!(address("65:00.0"), None);
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in ".{0,200}") {
            let _ = (parse_version(&text), parse_gpu("x", &text), address(&text), Version::parse(&text));
        }
    }
}
