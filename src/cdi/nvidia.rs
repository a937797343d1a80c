//! What devices of a spec need of the injection: one loader's cache for all libraries, and what NVIDIA's hooks do.
//!
//! In: [`Devices`], the injection of `--gpus`, facts about image and machine. Out: the injection, completed. Nothing
//! changes for devices that have no libraries and no hooks.

use std::ffi::OsString;

use super::Devices;
use crate::gpu::compat::{self, Mode};
use crate::gpu::image::Contents;
use crate::gpu::inventory::{Gpu, Inventory};
use crate::gpu::ldcache::{self, Cache, Entry};
use crate::gpu::require::Offer;
use crate::gpu::root::DriverRoot;
use crate::gpu::{Injection, PRIVATE, graphics, loader, proc, visible};

/// What decides.
pub struct Facts<'a> {
    /// The machine.
    pub root: &'a DriverRoot,
    /// The image.
    pub image: &'a Contents,
    /// `--cuda-compat`
    pub compat: Mode,
    /// The caller's `CUDA_VISIBLE_DEVICES`.
    pub cuda_visible: Option<&'a str>,
}

/// Completes an injection.
pub fn complete(devices: &Devices, mut injection: Injection, facts: &Facts) -> Injection {
    let nodes: Vec<_> = devices.mounts.iter().filter_map(|mount| mount.target.to_str()).collect();
    let nvidia = nodes.iter().any(|node| node.starts_with("/dev/nvidia"));
    let inventory = nvidia.then(|| Inventory::probe(facts.root)).flatten();
    let compat = injection.driver.is_none() && decide_compat(devices, inventory.as_ref(), facts, &mut injection);
    libraries(devices, facts.image, compat, &mut injection);
    if let Some(inventory) = inventory {
        let there =
            |gpu: &&Gpu| nodes.contains(&&*gpu.node()) || injection.gpus.iter().any(|chosen| chosen.index == gpu.index);
        let there: Vec<_> = inventory.gpus.iter().filter(there).cloned().collect();
        if !there.is_empty() {
            driver(devices, &inventory, &there, facts, &mut injection);
        }
    }
    injection
}

/// Where `--gpus` brings the driver, it has decided already.
fn decide_compat(devices: &Devices, inventory: Option<&Inventory>, facts: &Facts, injection: &mut Injection) -> bool {
    let version = devices.loader.driver.as_ref().or(inventory.map(|inventory| &inventory.version));
    let Some(version) = version.filter(|_| devices.loader.compat) else { return false };
    let gpus = inventory.map_or(&[][..], |inventory| &inventory.gpus);
    let (compat, why) = compat::decide(facts.compat, facts.image.compat.as_ref(), &Offer::of(version, None), gpus);
    injection.decisions.push(compat::decision(compat, &why));
    compat
}

/// The cache with the devices' libraries in it, after those of the driver that `--gpus` brings.
fn libraries(devices: &Devices, image: &Contents, compat: bool, injection: &mut Injection) {
    let mut entries = devices.loader.entries.clone();
    if entries.is_empty() && !compat {
        return;
    }
    let made = injection.generated.iter_mut().find(|file| file.over == "/etc/ld.so.cache");
    match made.and_then(|file| Some((Cache::parse(&file.content)?, file))) {
        None => {
            let cache = loader::cache(image, entries, compat);
            let why = "the loader finds the devices' libraries without LD_LIBRARY_PATH";
            injection.generated.push(loader::glibc(cache, why));
        }
        Some((cache, file)) => {
            let ours = |entry: &Entry| entry.path.starts_with(PRIVATE.as_bytes());
            let same = |a: &Entry, b: &Entry| (&a.soname, a.flags) == (&b.soname, b.flags);
            entries.retain(|entry| !cache.entries.iter().any(|known| same(known, entry) && ours(known)));
            file.content = ldcache::merge(&cache, &entries).bytes();
        }
    }
    musl(devices, image, injection);
}

/// musl's loader has no cache, but a list of directories.
fn musl(devices: &Devices, image: &Contents, injection: &mut Injection) {
    let Some(path) = &image.musl else { return };
    let folders = devices.loader.folders.join(":");
    match injection.generated.iter_mut().find(|file| file.name == "ld-musl.path") {
        Some(file) => file.content = [file.content.trim_ascii_end(), b":", folders.as_bytes(), b"\n"].concat(),
        None => injection.generated.push(loader::musl(path, &folders)),
    }
}

/// The GPUs are numbered anew inside, as `--gpus` has it, and the driver's own settings follow.
fn driver(devices: &Devices, inventory: &Inventory, there: &[Gpu], facts: &Facts, injection: &mut Injection) {
    let visible = visible::cuda_visible(facts.cuda_visible, there, inventory);
    let env: [(_, OsString); 2] =
        [("CUDA_DEVICE_ORDER", "PCI_BUS_ID".into()), ("CUDA_VISIBLE_DEVICES", visible.into())];
    injection.env.extend(env);
    if devices.loader.keep_nodes {
        injection.proc = proc::masked(facts.root, there);
        injection.proc.extend(capabilities(devices, facts.root, "capabilities"));
    }
    if devices.loader.profile {
        injection.generated.retain(|file| file.name != "profile.json");
        injection.generated.push(graphics::profile(there));
    }
}

/// The files by which a MIG instance is opened, if nodes of some are there.
fn capabilities(devices: &Devices, root: &DriverRoot, path: &str) -> Vec<(String, String)> {
    if !devices.mounts.iter().any(|mount| mount.target.starts_with("/dev/nvidia-caps")) {
        return Vec::new();
    }
    let below = |name: String| {
        let path = format!("{path}/{name}");
        match root.text(&format!("/proc/driver/nvidia/{path}")) {
            Some(text) => vec![(path, text)],
            None => capabilities(devices, root, &path),
        }
    };
    root.names(&format!("/proc/driver/nvidia/{path}")).into_iter().flat_map(below).collect()
}
