//! The two functions of NVML that nvml-wrapper has no safe form of.
//!
//! In: a MIG device. Out: its ids. Runs in the process that asks NVML.

use nvml_wrapper::Device;

/// The GPU instance and the compute instance that a MIG device is (nvml.h, since version 11.0).
pub fn instance_ids(device: &Device) -> Option<(u32, u32)> {
    let library = device.nvml().lib();
    let gpu_instance = library.nvmlDeviceGetGpuInstanceId.as_ref().ok()?;
    let compute_instance = library.nvmlDeviceGetComputeInstanceId.as_ref().ok()?;
    let (mut gi, mut ci) = (0, 0);
    // SAFETY: the handle is used while `device`, which it is of, lives; both functions write one number where they are
    // told to, and both places live until they return.
    let codes = unsafe { (gpu_instance(device.handle(), &raw mut gi), compute_instance(device.handle(), &raw mut ci)) };
    (codes == (0, 0)).then_some((gi, ci))
}
