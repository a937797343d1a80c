//! What only NVML knows of the GPUs: MIG instances, brands, compute capabilities, the CUDA version; everything, where the
//! machine has no `/proc/driver/nvidia`.
//!
//! In: the machine. Out: [`Answers`]. The driver's program ([`crate::embedded`]) asks, which [`child`] starts and gives up on: NVML
//! attaches every GPU, which takes seconds where nothing keeps them attached, starts threads, and may hang or crash. What it
//! said is worth keeping as long as [`state`] gives the same text. [`learn`] adds it to the inventory.

pub mod child;
pub mod learn;

use std::path::PathBuf;

pub use gpurun_driver::{Answer, Answers, Part};

use super::files;
use super::inventory::Version;
use super::mig;
use super::root::DriverRoot;

/// The library that is asked: the loaded driver's, or where its version is not known, the one a program would get.
pub fn library(root: &DriverRoot, version: Option<&Version>) -> Option<PathBuf> {
    files::library(root, &format!("libnvidia-ml.so.{}", version.map_or("1", Version::as_str)))
}

/// All that NVML's answers depend on: the boot, the driver, the GPUs, their MIG instances, and which nodes of both the
/// caller can open, since NVML is silent about the others. `None` where the boot is not known. Of the GPUs the addresses
/// count, not the texts: their UUIDs become known with the first use.
pub fn state(root: &DriverRoot, version: Option<&Version>) -> Option<String> {
    let boot = root.text("/proc/sys/kernel/random/boot_id")?;
    let driver = match version {
        Some(version) => version.to_string(),
        None => library(root, None)?.display().to_string(),
    };
    let addresses = root.names("/proc/driver/nvidia/gpus").join(" ");
    let nodes = nodes(root, "/dev", "nvidia");
    let capabilities = match root.has(mig::CAPABILITIES) {
        true => nodes_of_instances(root),
        false => String::new(),
    };
    Some(format!("{}\n{driver}\n{addresses}\n{nodes}\n{capabilities}", boot.trim()))
}

fn nodes(root: &DriverRoot, dir: &str, prefix: &str) -> String {
    let numbered = |name: &String| name.strip_prefix(prefix).is_some_and(|n| n.parse::<u32>().is_ok());
    let names = root.names(dir).into_iter().filter(numbered);
    let shown: Vec<_> = names.map(|name| format!("{name}:{}", openness(root, &format!("{dir}/{name}")))).collect();
    shown.join(" ")
}

fn nodes_of_instances(root: &DriverRoot) -> String {
    let minors = root.names(mig::CAPABILITIES).into_iter().filter_map(|name| name.strip_prefix("gpu")?.parse().ok());
    let places = minors.flat_map(|minor: u32| mig::instances(root, minor).into_iter().map(move |place| (minor, place)));
    let shown: Vec<_> = places.map(|(minor, place)| format!("{minor}/{}/{}", place.gi, place.ci)).collect();
    match shown.is_empty() {
        true => String::new(),
        false => format!("{} {}", shown.join(" "), nodes(root, mig::NODES, "nvidia-cap")),
    }
}

/// The error number of opening a node.
fn openness(root: &DriverRoot, path: &str) -> i32 {
    root.node(path).map_or(libc::ENOENT, |node| node.error.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_until_something_they_depend_on_changes() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let now = |version: &str| state(&DriverRoot::folder(dir.path()).unwrap(), Version::parse(version).as_ref());
        write("devices.txt", "/dev/nvidia0 195:0\n");
        assert_eq!(now("550.1"), None, "the boot is not known");
        let mut seen = Vec::new();
        for (path, text) in [
            ("proc/sys/kernel/random/boot_id", "one\n"),
            ("proc/sys/kernel/random/boot_id", "two\n"),
            ("dev/nvidia0", ""),
            ("devices.txt", "/dev/nvidia0 195:0 EPERM\n"),
            ("proc/driver/nvidia/gpus/0000:01:00.0/information", ""),
            ("proc/driver/nvidia/capabilities/gpu0/mig/gi1/ci0/access", ""),
            ("dev/nvidia-caps/nvidia-cap21", ""),
        ] {
            write(path, text);
            seen.push(now("550.1").unwrap());
            assert_eq!(seen.last(), now("550.1").as_ref());
        }
        seen.push(now("550.2").unwrap());
        let different: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(different.len(), seen.len(), "{seen:#?}");
        write("proc/driver/nvidia/gpus/0000:01:00.0/information", "GPU UUID: GPU-1\n");
        assert_eq!(seen.last(), now("550.2").as_ref(), "a UUID that became known is no other GPU");
    }
}
