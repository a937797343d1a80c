//! WSL2: the GPUs of Windows behind one device, and the driver's files that Windows lends.
//!
//! In: the same facts as elsewhere. Out: an [`Injection`]. There is no kernel module of NVIDIA's, so no version and no nodes
//! for single GPUs: `/dev/dxg` is all of them, and nothing can be isolated. The files keep their places, since
//! the libraries load the rest of the driver from the store by the path that `libdxcore.so` tells them (driver-wsl.go of
//! nvidia-container-toolkit).

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::devices::Device;
use super::ldcache::Entry;
use super::root::{DriverRoot, why_not};
use super::select::Gpus;
use super::{Bind, Injection, Inputs, loader};
use crate::error::{Error, Result};
use crate::inroot;

const DEVICE: &str = "/dev/dxg";
/// The libraries that programs load.
const LIBRARIES: &str = "/usr/lib/wsl/lib";
/// Windows' driver store: a directory for each driver that it has.
const STORE: &str = "/usr/lib/wsl/drivers";

/// Whether this is a WSL2 that has NVIDIA's driver: a Linux driver would be asked first.
pub fn is_here(root: &DriverRoot) -> bool {
    let cuda = || root.real(&Path::new(LIBRARIES).join("libcuda.so.1"));
    root.node(DEVICE).is_some() && cuda().is_some() && !root.has("/proc/driver/nvidia/version")
}

/// Decides what is injected.
pub fn inject(inputs: &Inputs) -> Result<Injection> {
    all_or_none(&inputs.asked.gpus)?;
    let root = inputs.root;
    if let Some(errno) = root.node(DEVICE).and_then(|node| node.error) {
        return Err(Error::new(format!("`{DEVICE}` cannot be opened: {}", why_not(errno))));
    }
    let names = names(root, LIBRARIES);
    let mut made = Injection {
        driver: Some("WSL2".into()),
        driver_why: "Windows', which says no version here",
        why: inputs.asked.why,
        capabilities: "all".into(),
        devices: vec![Device { path: DEVICE.into(), why: "all GPUs: WSL2 has one device for them" }],
        binds: binds(root),
        env: vec![("NVIDIA_VISIBLE_DEVICES", "void".into())],
        decisions: vec![
            "WSL2: all GPUs, since they cannot be told apart".into(),
            "NVIDIA_REQUIRE_* and CUDA forward compatibility: not looked at, without a version".into(),
        ],
        ..Injection::default()
    };
    made.take(loader::decide(inputs, LIBRARIES, entries(names), false));
    Ok(made)
}

fn all_or_none(asked: &Gpus) -> Result<()> {
    match asked {
        Gpus::None | Gpus::Auto | Gpus::All => Ok(()),
        Gpus::Count(_) | Gpus::Devices(_) | Gpus::Allotted(_) => {
            Err(Error::new("single GPUs cannot be chosen on WSL2: it has one device for all of them")
                .hint("`--gpus all`"))
        }
    }
}

fn names(root: &DriverRoot, path: &str) -> Vec<String> {
    root.directory(Path::new(path)).map(|(dir, _)| inroot::list(dir.as_fd())).unwrap_or_default()
}

/// Both directories as they are, and nvidia-smi where programs are looked for.
fn binds(root: &DriverRoot) -> Vec<Bind> {
    let mut stores: Vec<_> = names(root, STORE).iter().map(|name| Path::new(STORE).join(name)).collect();
    stores.retain(|store| root.real(&store.join("libcuda.so.1.1")).is_some());
    stores.sort();
    let mut dirs = stores.iter().map(PathBuf::as_path).chain([Path::new(LIBRARIES)]);
    let smi = dirs.find_map(|dir| root.real(&dir.join("nvidia-smi")));
    let lib = root.real(Path::new(LIBRARIES)).map(|real| Bind::read(&real, LIBRARIES.into(), "the driver's libraries"));
    let stores = stores.iter().filter_map(|dir| Some(Bind::read(&root.real(dir)?, dir.clone(), "Windows' own driver")));
    let smi = smi.map(|real| Bind::read(&real, "/usr/bin/nvidia-smi".into(), "a program of the driver"));
    lib.into_iter().chain(stores).chain(smi).collect()
}

/// Every library under every name that it has there.
fn entries(mut names: Vec<String>) -> Vec<Entry> {
    names.retain(|name| name.starts_with("lib") && name.contains(".so"));
    names.sort();
    names.iter().map(|name| Entry::new(loader::flags(true), name, &format!("{LIBRARIES}/{name}"))).collect()
}
