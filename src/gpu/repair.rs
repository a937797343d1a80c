//! Has the host make device nodes that are missing: the one thing that must happen before any namespace is made.
//!
//! In: the machine's root. Out: nothing; what is still missing is said by whoever needs it. Runs in the
//! launcher, as the caller. NVIDIA's setuid `nvidia-modprobe` does it where it is installed; inside a user namespace or
//! under no_new_privs it could not. It gets no environment and nothing of the image (CVE-2025-23266). With `-u` it takes `-c`
//! for minor numbers of nvidia-uvm (nvidia-modprobe.c), so those nodes are made by a second call.

use std::process::{Command, Stdio};

use super::inventory::Inventory;
use super::root::DriverRoot;

const HELPER: &str = "/usr/bin/nvidia-modprobe";

/// Makes the nodes that are missing.
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
}
