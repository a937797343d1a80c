//! What finds, names and describes GPUs and their driver.

use std::fs;

use super::{targets, text};
use crate::gpu::classify::Capabilities;
use crate::gpu::elf::Elf;
use crate::gpu::inventory::{Gpu, Inventory, Version};
use crate::gpu::ldcache::{Cache, Entry, FLAGS_X86_64, merge};
use crate::gpu::require::{self, Offer};
use crate::gpu::root::DriverRoot;
use crate::gpu::select;

targets! {
    /// What is merged is read again as it was written, with ours found first.
    fn ld_so_cache(bytes) {
        if let Some(cache) = Cache::parse(bytes) {
            let merged = merge(&cache, &[Entry::new(FLAGS_X86_64, "libcuda.so.1", "/ours")]);
            assert_eq!(Cache::parse(&merged.bytes()).as_ref(), Some(&merged));
            let ours = merged.entries.iter().find(|e| e.soname == b"libcuda.so.1" && e.flags == FLAGS_X86_64);
            assert_eq!(ours.unwrap().path, b"/ours");
        }
    }

    /// Notes, dynamic section and versions of a library.
    fn elf(bytes) {
        let path = tempfile::NamedTempFile::new().unwrap();
        fs::write(&path, bytes).unwrap();
        if let Some(elf) = Elf::read(path.as_file()) {
            assert!(elf.soname().is_none_or(|name| !name.is_empty() && !name.contains(['/', '\0'])));
            let _ = (elf.needs_glibc(), elf.is_glibc(), elf.compat_note());
        }
    }

    /// `--gpus`, the variables that stand for it, and `--gpu-caps`.
    fn gpus(bytes) {
        let text = text(bytes);
        let _ = Capabilities::parse(&text, "--gpu-caps");
        let options = [select::parse(&text)];
        let variables = ["NVIDIA_VISIBLE_DEVICES", "SLURM_STEP_GPUS"].map(|v| select::asked(None, |n| (n == v).then_some(&text)));
        for asked in options.into_iter().chain(variables).flatten() {
            assert!(!matches!(asked.gpus, select::Gpus::Count(0)), "no GPUs are asked for as none");
        }
    }

    /// `NVIDIA_REQUIRE_CUDA`: every requirement holds, does not hold, or is refused.
    fn require(bytes) {
        let text = text(bytes);
        let offer = Offer::of(&Version::parse("550.163.01").unwrap(), None);
        let env = [format!("NVIDIA_REQUIRE_CUDA={text}"), format!("CUDA_VERSION={text}")];
        let gpus = [Gpu::default()];
        let _ = require::check(&env, &offer, &gpus);
        let _ = require::check(&env[1..], &offer, &gpus);
    }

    /// A CDI spec, JSON or YAML: what is taken is written and read again as it was.
    fn cdi_spec(bytes) {
        if let Ok(spec) = crate::cdi::spec::parse(bytes) {
            let json = serde_json::to_vec(&spec).unwrap();
            assert_eq!(crate::cdi::spec::parse(&json).unwrap(), spec);
        }
    }

    /// `/proc/driver/nvidia`: the version file, and after a line of dashes a GPU's.
    fn proc_driver(bytes) {
        let root = tempfile::tempdir().unwrap();
        let gpu = root.path().join("proc/driver/nvidia/gpus/0000:01:00.0");
        fs::create_dir_all(&gpu).unwrap();
        fs::write(root.path().join("devices.txt"), "/dev/nvidia0 195:0").unwrap();
        let text = text(bytes);
        let (version, information) = text.split_once("---\n").unwrap_or((&text, ""));
        fs::write(root.path().join("proc/driver/nvidia/version"), version).unwrap();
        fs::write(gpu.join("information"), information).unwrap();
        if let Some(inventory) = Inventory::probe(&DriverRoot::folder(root.path()).unwrap()) {
            assert!(inventory.gpus.iter().all(|gpu| gpu.uuid.as_ref().is_none_or(|uuid| !uuid.contains('?'))));
        }
    }
}
