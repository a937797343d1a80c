//! `/proc/driver/nvidia` as the workload sees it.
//!
//! In: the machine and the chosen GPUs. Out: paths below that directory and their content, copied from the machine's.

use super::inventory::Gpu;
use super::mig;
use super::root::DriverRoot;

/// `/proc/driver/nvidia` with the chosen GPUs and MIG instances alone, and without the permission to make nodes
/// (CVE-2021-1056). Nothing where the machine has none.
pub(crate) fn masked(root: &DriverRoot, chosen: &[Gpu]) -> Vec<(String, String)> {
    let read = |path: &str| root.text(&format!("/proc/driver/nvidia/{path}"));
    let Some(version) = read("version") else { return Vec::new() };
    let params = read("params").unwrap_or_else(|| "ModifyDeviceFiles: 1\n".into());
    let params = params.lines().map(|line| match line.starts_with("ModifyDeviceFiles:") {
        true => "ModifyDeviceFiles: 0\n".to_owned(),
        false => format!("{line}\n"),
    });
    let mut all = vec![("params".to_owned(), params.collect()), ("version".to_owned(), version)];
    all.extend(read("registry").map(|text| ("registry".to_owned(), text)));
    // All GPUs have the same files.
    let names = chosen.first().map(|gpu| root.names(&format!("/proc/driver/nvidia/gpus/{}", gpu.pci)));
    for (gpu, name) in chosen.iter().flat_map(|gpu| names.iter().flatten().map(move |name| (gpu, name))) {
        let path = format!("gpus/{}/{name}", gpu.pci);
        all.extend(read(&path).map(|text| (path, text)));
    }
    all.extend(chosen.iter().flat_map(|gpu| capabilities(root, gpu)));
    all
}

/// The capabilities of a GPU's chosen instances, without the permission to make their nodes.
fn capabilities(root: &DriverRoot, gpu: &Gpu) -> Vec<(String, String)> {
    let mut paths: Vec<_> = gpu.instances.iter().flat_map(|instance| instance.place.access(gpu.minor)).collect();
    paths.sort();
    paths.dedup();
    let text = |path: &String| {
        let text = root.text(&format!("{}/{path}", mig::CAPABILITIES))?;
        Some((format!("capabilities/{path}"), text.replace("DeviceFileModify: 1", "DeviceFileModify: 0")))
    };
    paths.iter().filter_map(text).collect()
}
