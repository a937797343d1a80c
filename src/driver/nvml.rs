//! The one file that loads NVML.
//!
//! In: the absolute path of `libnvidia-ml.so.1`. Out: [`Answers`], as JSON on standard output. NVML is left to the end of this
//! process. What fails for one GPU is left out for it.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use caps::CapSet;
use gpurun_driver::{Answer, Answers, Part, Said, Version};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nvml_wrapper::enum_wrappers::device::Brand;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};

use crate::{Context, Result};

/// More than any machine has: a library that counts further is not believed.
const MAX_GPUS: u32 = 256;
/// More than any GPU has (nv-caps.c: 15 GPU instances of 8 compute instances).
const MAX_INSTANCES: u32 = 120;

/// Answers to the process that started this one. What the library itself prints goes nowhere.
pub(crate) fn serve(library: &Path) -> Result<()> {
    let mut asker = File::from(std::io::stdout().as_fd().try_clone_to_owned().context(|| "dup stdout")?);
    let nowhere = File::options().write(true).open("/dev/null").context(|| "open `/dev/null`")?;
    nix::unistd::dup2_stdout(&nowhere).context(|| "dup2 stdout")?;
    harmless()?;
    let said: Said = ask(library);
    let said = serde_json::to_vec(&said).context(|| "render JSON")?;
    asker.write_all(&said).context(|| "write the answers")
}

/// Asked as root, NVML makes device nodes, and anybody's has the setuid nvidia-modprobe make them: to look must not do that.
fn harmless() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context(|| "prctl PR_SET_PDEATHSIG")?;
    prctl::set_no_new_privs().context(|| "prctl PR_SET_NO_NEW_PRIVS")?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).context(|| "drop capabilities")?;
    }
    Ok(())
}

fn ask(library: &Path) -> Result<Answers> {
    let nvml = Nvml::builder().lib_path(library.as_os_str()).init().context(|| "nvmlInit")?;
    let driver = nvml.sys_driver_version().context(|| "nvmlSystemGetDriverVersion")?;
    let count = nvml.device_count().context(|| "nvmlDeviceGetCount")?.min(MAX_GPUS);
    let answers = Answers {
        driver: Version::parse(&driver).ok_or_else(|| format!("`{driver}` is no version of a driver"))?,
        cuda: nvml.sys_cuda_driver_version().ok().and_then(cuda),
        gpus: (0..count).filter_map(|index| gpu(&nvml.device_by_index(index).ok()?).ok()).collect(),
    };
    std::mem::forget(nvml); // to shut it down would take time, and the process ends
    Ok(answers)
}

fn cuda(version: i32) -> Option<(u32, u32)> {
    let part = |number: i32| u32::try_from(number).ok();
    Some((part(cuda_driver_version_major(version)).filter(|m| *m > 0)?, part(cuda_driver_version_minor(version))?))
}

/// A GPU without a node number or an address cannot be told from others.
fn gpu(device: &Device) -> std::result::Result<Answer, NvmlError> {
    let compute = device.cuda_compute_capability().ok();
    let mig = device.mig_mode().is_ok_and(|mode| mode.current == 1);
    let parts = if mig { device.mig_device_count().unwrap_or_default().min(MAX_INSTANCES) } else { 0 };
    Ok(Answer {
        minor: device.minor_number()?,
        uuid: device.uuid().ok(),
        pci: address(&device.pci_info()?.bus_id),
        model: device.name().unwrap_or_else(|_| "unknown".into()),
        brand: device.brand().ok().map(|brand| name(brand).to_owned()),
        compute: compute.and_then(|c| Version::parse(&format!("{}.{}", c.major, c.minor))),
        mig,
        instances: (0..parts).filter_map(|index| part(index, &device.mig_device_by_index(index).ok()?)).collect(),
    })
}

fn part(index: u32, device: &Device) -> Option<Part> {
    let (gi, ci) = instance_ids(device)?;
    let name = device.name().unwrap_or_default();
    let profile = name.rsplit_once("MIG ").map_or(&*name, |(_, profile)| profile).to_owned();
    Some(Part { index, uuid: device.uuid().ok()?, gi, ci, profile })
}

/// The GPU instance and the compute instance that a MIG device is (nvml.h, since version 11.0): nvml-wrapper has no safe form
/// of these two functions.
fn instance_ids(device: &Device) -> Option<(u32, u32)> {
    let library = device.nvml().lib();
    let gpu_instance = library.nvmlDeviceGetGpuInstanceId.as_ref().ok()?;
    let compute_instance = library.nvmlDeviceGetComputeInstanceId.as_ref().ok()?;
    let (mut gi, mut ci) = (0, 0);
    // SAFETY: the handle is used while `device`, which it is of, lives; both functions write one number where they are
    // told to, and both places live until they return.
    let codes = unsafe { (gpu_instance(device.handle(), &raw mut gi), compute_instance(device.handle(), &raw mut ci)) };
    (codes == (0, 0)).then_some((gi, ci))
}

/// NVML writes a domain of eight digits, in capitals; /proc one of four where that is enough.
fn address(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    lower.strip_prefix("0000").filter(|rest| rest.find(':') == Some(4)).unwrap_or(&lower).to_owned()
}

/// The words of the images' `NVIDIA_REQUIRE_CUDA`.
fn name(brand: Brand) -> &'static str {
    match brand {
        Brand::Unknown => "unknown",
        Brand::Quadro => "quadro",
        Brand::Tesla => "tesla",
        Brand::NVS => "nvs",
        Brand::GRID => "grid",
        Brand::GeForce => "geforce",
        Brand::Titan => "titan",
        Brand::VApps => "vapps",
        Brand::VPC => "vpc",
        Brand::VCS => "vcs",
        Brand::VWS => "vws",
        Brand::CloudGaming | Brand::VGaming => "cloudgaming",
        Brand::QuadroRTX => "quadrortx",
        Brand::NvidiaRTX => "nvidiartx",
        Brand::Nvidia => "nvidia",
        Brand::GeForceRTX => "geforcertx",
        Brand::TitanRTX => "titanrtx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_proc() {
        assert_eq!(address("00000000:0F:00.0"), "0000:0f:00.0");
        assert_eq!(address("00010000:0F:00.0"), "00010000:0f:00.0");
        assert_eq!(address("0000:01:00.0"), "0000:01:00.0");
    }

    #[test]
    fn cuda_versions_are_numbers() {
        assert_eq!(cuda(12040), Some((12, 4)));
        assert_eq!(cuda(13000), Some((13, 0)));
        assert_eq!((cuda(0), cuda(-12040)), (None, None));
    }
}
