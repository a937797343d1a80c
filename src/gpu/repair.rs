//! Has the host make device nodes that are missing: the one thing that must happen before any namespace is made.
//!
//! In: the machine's root. Out: nothing; what is still missing is said by whoever needs it. Runs in the
//! launcher, as the caller. NVIDIA's setuid `nvidia-modprobe` does it where it is installed; inside a user namespace or
//! under no_new_privs it could not. It gets no environment and nothing of the image (CVE-2025-23266). With `-u` it takes `-c`
//! for minor numbers of nvidia-uvm (nvidia-modprobe.c), so those nodes are made by a second call.

use std::process::{Command, Stdio};

use super::inventory::{Gpu, Inventory};
use super::mig::{self, Minors};
use super::root::DriverRoot;

const HELPER: &str = "/usr/bin/nvidia-modprobe";

/// Makes the nodes that are missing, those of MIG instances excepted.
pub fn repair(root: &DriverRoot) {
    if complete(root) {
        return;
    }
    if let Some(inventory) = Inventory::probe(root) {
        for arguments in calls(root, &inventory) {
            call(&arguments);
        }
    }
}

/// Makes the capability nodes that are missing of the MIG instances of all usable GPUs.
pub fn capabilities(root: &DriverRoot, inventory: &Inventory) {
    let arguments = missing_capabilities(root, inventory);
    if !arguments.is_empty() {
        call(&arguments);
    }
}

fn call(arguments: &[String]) {
    // What it has to say is said better by the one who then misses the node; it need not be there.
    let _ = Command::new(HELPER)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Whether there are as many nodes as GPUs: nothing needs to be read then.
fn complete(root: &DriverRoot) -> bool {
    let number = |name: &String| name.strip_prefix("nvidia").is_some_and(|n| n.parse::<u32>().is_ok());
    let names = root.names("/dev");
    let there = |name: &str| names.iter().any(|n| n == name);
    let gpus = root.names("/proc/driver/nvidia/gpus").len();
    there("nvidiactl") && there("nvidia-uvm") && names.iter().filter(|name| number(name)).count() >= gpus
}

/// nvidia-modprobe(1): `-c` makes the node of a minor number (255 is nvidiactl), `-u` those of nvidia-uvm.
fn calls(root: &DriverRoot, inventory: &Inventory) -> Vec<Vec<String>> {
    let missing = |path: &str| root.node(path).is_none();
    let minors = inventory.gpus.iter().map(|gpu| gpu.minor).filter(|minor| missing(&format!("/dev/nvidia{minor}")));
    let ctl = missing("/dev/nvidiactl").then_some(255);
    let numbered: Vec<_> = minors.chain(ctl).map(|minor| format!("-c{minor}")).collect();
    let uvm = if missing("/dev/nvidia-uvm") { vec!["-u".to_owned(), "-c0".to_owned()] } else { Vec::new() };
    [numbered, uvm].into_iter().filter(|arguments| !arguments.is_empty()).collect()
}

/// `-f` makes the node of a capability.
fn missing_capabilities(root: &DriverRoot, inventory: &Inventory) -> Vec<String> {
    let divided = inventory.gpus.iter().filter(|gpu| gpu.mig && gpu.unusable.is_none());
    let of_gpu = |gpu: &Gpu| {
        let places = mig::instances(root, gpu.minor).into_iter();
        places.flat_map(|place| place.access(gpu.minor)).collect::<Vec<_>>()
    };
    let mut accesses: Vec<_> = divided.flat_map(of_gpu).collect();
    accesses.sort();
    accesses.dedup(); // several instances can be in one GPU instance
    let missing = Minors::read(root).missing(root, accesses);
    missing.into_iter().flat_map(|access| ["-f".to_owned(), format!("{}/{access}", mig::CAPABILITIES)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let nvidia = dir.path().join("proc/driver/nvidia");
        for (pci, minor) in [("0000:01:00.0", 0), ("0000:02:00.0", 1)] {
            std::fs::create_dir_all(nvidia.join("gpus").join(pci)).unwrap();
            let text = format!("Device Minor: {minor}\nBus Location: {pci}\n");
            std::fs::write(nvidia.join("gpus").join(pci).join("information"), text).unwrap();
        }
        std::fs::write(nvidia.join("version"), "NVRM version: x 550.1\n").unwrap();
        let made = |devices: &str| {
            std::fs::write(dir.path().join("devices.txt"), devices).unwrap();
            let root = DriverRoot::folder(dir.path()).unwrap();
            let calls = calls(&root, &Inventory::probe(&root).unwrap());
            calls.iter().map(|arguments| arguments.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(made(""), ["-c0 -c1 -c255", "-u -c0"]);
        assert_eq!(made("/dev/nvidia0 195:0\n/dev/nvidiactl 195:255\n/dev/nvidia-uvm 510:0\n"), ["-c1"]);
        assert_eq!(made("/dev/nvidia0 195:0\n/dev/nvidia1 195:1 EPERM\n/dev/nvidiactl 195:255\n"), ["-u -c0"]);
    }

    #[test]
    fn only_missing_capabilities_of_usable_gpus_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join("proc/driver").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("nvidia/version", "NVRM version: x 550.1\n");
        let mut minors = Vec::new();
        for (minor, gi, ci, gi_cap, ci_cap) in
            [(0, 1, 0, 12, 13), (0, 1, 1, 12, 14), (0, 2, 0, 21, 22), (1, 1, 0, 156, 157)]
        {
            let pci = format!("0000:0{minor}:00.0");
            write(&format!("nvidia/gpus/{pci}/information"), &format!("Device Minor: {minor}\nBus Location: {pci}\n"));
            write(&format!("nvidia/capabilities/gpu{minor}/mig/gi{gi}/ci{ci}/access"), "");
            minors.push(format!("gpu{minor}/gi{gi}/access {gi_cap}\ngpu{minor}/gi{gi}/ci{ci}/access {ci_cap}\n"));
        }
        write("nvidia-caps/mig-minors", &minors.concat());
        write("../../dev/nvidia-caps/nvidia-cap21", "");
        let there = "/dev/nvidia0 195:0\n/dev/nvidia1 195:1 EPERM\n";
        std::fs::write(dir.path().join("devices.txt"), there).unwrap();
        let root = DriverRoot::folder(dir.path()).unwrap();
        let made = missing_capabilities(&root, &Inventory::probe(&root).unwrap());
        let want = ["gi1/access", "gi1/ci0/access", "gi1/ci1/access", "gi2/ci0/access"];
        let want = want.map(|name| format!("-f /proc/driver/nvidia/capabilities/gpu0/mig/{name}"));
        assert_eq!(made.join(" "), want.join(" "));
    }
}
