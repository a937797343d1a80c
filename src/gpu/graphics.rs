//! What EGL, Vulkan and GBM need beside the driver's libraries.
//!
//! In: the driver's files, the chosen GPUs. Out: links, variables and files of gpurun's own. Pure.

use std::ffi::OsString;

use super::PRIVATE;
use super::files::DriverFiles;
use super::injection::{Generated, Link};
use super::inventory::Gpu;

/// Mesa's loader looks for a back end by this name (graphics.go:246 of nvidia-container-toolkit).
pub(super) fn gbm(files: &DriverFiles) -> Option<Link> {
    let there = files.libraries.iter().any(|library| library.soname == "libnvidia-allocator.so.1");
    there.then(|| Link {
        path: format!("{PRIVATE}/lib/gbm/nvidia-drm_gbm.so"),
        to: "../libnvidia-allocator.so.1".into(),
    })
}

/// Where Mesa's loader looks for that.
pub(super) fn env() -> (&'static str, OsString) {
    let paths = format!("{PRIVATE}/lib/gbm:/usr/lib/{}-linux-gnu/gbm:/usr/lib64/gbm", std::env::consts::ARCH);
    ("GBM_BACKENDS_PATH", paths.into())
}

/// A bitmask of the GPUs' minor numbers (update-application-profile.go:34 of nvidia-container-toolkit).
pub(crate) fn profile(chosen: &[Gpu]) -> Generated {
    let mask = chosen.iter().fold(0_u64, |mask, gpu| mask | 1_u64.checked_shl(gpu.minor).unwrap_or_default());
    let content = format!(
        "{{\"profiles\":[{{\"name\":\"_container_\",\"settings\":[\"EGLVisibleDGPUDevices\",0x{mask:x}]}}],\
         \"rules\":[{{\"pattern\":[],\"profile\":\"_container_\"}}]}}\n"
    );
    Generated {
        name: "profile.json",
        over: "/etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf".into(),
        content: content.into(),
        why: "EGL and Vulkan list the chosen GPUs only",
    }
}
