//! Where distributions put the driver's user-space files, and in which of their packages the indispensable ones are. Tables.

use super::classify::Capability;

/// Where libraries are, in addition to what `ld.so.cache` says, 64-bit ones and 32-bit ones alike: the file tells.
/// Debian's alternatives split one driver over the first two of each architecture.
pub(super) const LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/x86_64-linux-gnu/nvidia",
    "/usr/lib/x86_64-linux-gnu/vdpau",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu/vdpau",
    "/usr/lib64",
    "/usr/lib64/nvidia",
    "/usr/lib64/vdpau",
    "/run/opengl-driver/lib",            // NixOS
    "/usr/local/nvidia/lib64",           // GKE's and others' containers
    "/home/kubernetes/bin/nvidia/lib64", // GKE's nodes
    "/opt/nvidia/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu", // the GPU operator's driver container, Ubuntu's and
    "/run/nvidia/driver/usr/lib/aarch64-linux-gnu",
    "/run/nvidia/driver/usr/lib64", // RHEL's
    "/lib64",                       // a driver root that has nothing but the driver
    "/usr/lib",
    "/lib",
];

/// Where 32-bit libraries are.
pub(super) const LIBRARIES_32: &[&str] = &[
    "/usr/lib/i386-linux-gnu",
    "/usr/lib/i386-linux-gnu/nvidia/current",
    "/usr/lib/i386-linux-gnu/vdpau",
    "/usr/lib32",
    "/usr/lib32/nvidia",
    "/run/opengl-driver-32/lib",
    "/usr/lib",
];

/// Where programs are.
pub(super) const PROGRAMS: &[&str] = &[
    "/usr/bin",
    "/bin",
    "/usr/local/nvidia/bin",
    "/home/kubernetes/bin/nvidia/bin",
    "/run/current-system/sw/bin",
    "/opt/nvidia/bin",
    "/run/nvidia/driver/usr/bin",
];

/// Programs that NVIDIA builds, against an old glibc. `nvidia-persistenced` and `nvidia-modprobe` are the distribution's,
/// and could do nothing in a container.
pub(super) const PROGRAM_NAMES: &[(&str, Capability)] = &[
    ("nvidia-smi", Capability::Utility),
    ("nvidia-debugdump", Capability::Utility),
    ("nvidia-cuda-mps-control", Capability::Compute),
    ("nvidia-cuda-mps-server", Capability::Compute),
];

/// Files that loaders look for at fixed places: name, where it goes, for what (graphics.go:82-148 of
/// nvidia-container-toolkit; OpenCL's is needed for compute).
pub(super) const DATA: &[(&str, &str, Capability)] = &[
    ("OpenCL/vendors/nvidia.icd", "/etc", Capability::Compute),
    ("vulkan/icd.d/nvidia_icd.json", "/etc", Capability::Graphics),
    ("vulkan/icd.d/nvidia_icd.x86_64.json", "/etc", Capability::Graphics),
    ("vulkan/icd.d/nvidia_icd.aarch64.json", "/etc", Capability::Graphics),
    ("vulkan/icd.d/nvidia_layers.json", "/etc", Capability::Graphics),
    ("vulkan/implicit_layer.d/nvidia_layers.json", "/etc", Capability::Graphics),
    ("glvnd/egl_vendor.d/10_nvidia.json", "/usr/share", Capability::Graphics),
    ("egl/egl_external_platform.d/15_nvidia_gbm.json", "/usr/share", Capability::Graphics),
    ("egl/egl_external_platform.d/10_nvidia_wayland.json", "/usr/share", Capability::Graphics),
    ("egl/egl_external_platform.d/09_nvidia_wayland2.json", "/usr/share", Capability::Graphics),
    ("egl/egl_external_platform.d/20_nvidia_xcb.json", "/usr/share", Capability::Graphics),
    ("egl/egl_external_platform.d/20_nvidia_xlib.json", "/usr/share", Capability::Graphics),
    ("nvidia/nvoptix.bin", "/usr/share", Capability::Graphics),
    ("X11/xorg.conf.d/10-nvidia.conf", "/usr/share", Capability::Display),
    ("X11/xorg.conf.d/nvidia-drm-outputclass.conf", "/usr/share", Capability::Display),
];

/// Where those files are on a host.
pub(super) const DATA_ROOTS: &[&str] =
    &["/etc", "/usr/local/share", "/usr/share", "/usr/local/nvidia", "/run/opengl-driver/share"];

/// Where X server modules are: each distribution's server is told to look there, so they keep their place.
pub(super) const XORG: &[&str] = &[
    "/usr/lib/nvidia", // Debian
    "/usr/lib/x86_64-linux-gnu/nvidia/xorg",
    "/usr/lib/aarch64-linux-gnu/nvidia/xorg",
    "/usr/lib64/nvidia/xorg",
    "/usr/lib64/xorg/modules/drivers",
    "/usr/lib64/xorg/modules/extensions",
    "/usr/lib64/xorg/modules/updates/drivers",
    "/usr/lib64/xorg/modules/updates/extensions",
    "/usr/lib/xorg/modules/drivers",
    "/usr/lib/xorg/modules/extensions",
];

/// The libraries that no workload can do without, and what has them.
pub(super) const NEEDED: &[(&str, Capability, &str)] = &[
    (
        "libcuda",
        Capability::Compute,
        "libcuda1 (Debian), libnvidia-compute-BRANCH (Ubuntu), nvidia-driver-cuda-libs (RHEL)",
    ),
    (
        "libnvidia-ptxjitcompiler",
        Capability::Compute,
        "libnvidia-ptxjitcompiler1 (Debian), libnvidia-compute-BRANCH (Ubuntu), nvidia-driver-cuda-libs (RHEL)",
    ),
    (
        "libnvidia-ml",
        Capability::Utility,
        "libnvidia-ml1 (Debian), libnvidia-compute-BRANCH (Ubuntu), nvidia-driver-NVML (RHEL)",
    ),
];
