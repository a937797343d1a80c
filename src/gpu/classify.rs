//! Which capability a driver library belongs to.
//!
//! In: file names. Out: [`Capability`]s. The classes are libnvidia-container's (nvc_info.c: `utility_libs[]` to
//! `ngx_libs[]`); names it does not know go with compute, so that what a new driver needs is there.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::{Error, Result};

/// What a workload may want of the driver (`NVIDIA_DRIVER_CAPABILITIES`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Capability {
    Compute,
    Utility,
    Video,
    Graphics,
    Display,
    Ngx,
    Compat32,
}

use Capability::{Compat32, Compute, Display, Graphics, Ngx, Utility, Video};

/// All of them, with the names that NVIDIA gave them.
const NAMES: &[(&str, Capability)] = &[
    ("compute", Compute),
    ("utility", Utility),
    ("video", Video),
    ("graphics", Graphics),
    ("display", Display),
    ("ngx", Ngx),
    ("compat32", Compat32),
];

/// Libraries by what follows `lib` and precedes `.so`; some are for more than one.
const LIBRARIES: &[(&str, Capability)] = &[
    ("nvidia-ml", Utility),
    ("nvidia-cfg", Utility),
    ("nvidia-nscq", Utility),
    ("nvidia-sandboxutils", Utility),
    ("nvidia-gpucomp", Compute), // the compiler of libnvidia-ptxjitcompiler and, since 535, of libnvidia-glcore
    ("nvidia-gpucomp", Graphics),
    ("nvidia-allocator", Compute),
    ("nvidia-allocator", Graphics), // GBM's back end
    ("vdpau_nvidia", Video),
    ("nvidia-encode", Video),
    ("nvcuvid", Video),
    ("nvidia-opticalflow", Video),
    ("nvidia-eglcore", Graphics),
    ("nvidia-glcore", Graphics),
    ("nvidia-tls", Graphics),
    ("nvidia-glsi", Graphics),
    ("nvidia-fbc", Graphics),
    ("nvidia-ifr", Graphics),
    ("nvidia-rtcore", Graphics),
    ("nvoptix", Graphics),
    ("GLX_nvidia", Graphics),
    ("EGL_nvidia", Graphics),
    ("GLESv2_nvidia", Graphics),
    ("GLESv1_CM_nvidia", Graphics),
    ("nvidia-glvkspirv", Graphics),
    ("nvidia-cbl", Graphics),
    ("nvidia-vulkan-producer", Graphics),
    ("nvidia-egl-gbm", Graphics),
    ("nvidia-egl-wayland", Graphics),
    ("nvidia-egl-wayland2", Graphics),
    ("nvidia-egl-xcb", Graphics),
    ("nvidia-egl-xlib", Graphics),
    ("nvidia-api", Graphics),
    ("nvidia-ngx", Ngx),
];

/// Never as libraries: they are the desktop's, and need its libraries, or the X server's, which has a place for them.
const NEVER: &[&str] = &[
    "glxserver_nvidia",
    "nvidia-gtk2",
    "nvidia-gtk3",
    "nvidia-wayland-client",
    "EGL_installertest",
    "nvidia-wfb",
    "wfb",
];

/// Vendor-neutral front ends: built against the host's glibc, and every image that needs them has its own
/// (apptainer#598 and its kin). They carry no driver version, but a vendored root may name them so.
const NEUTRAL: &[&str] = &["GL", "GLX", "EGL", "GLESv1_CM", "GLESv2", "OpenGL", "GLdispatch", "OpenCL"];

/// Libraries of the driver that carry versions of their own (graphics.go:150-180, driver-nvml.go:191 of
/// nvidia-container-toolkit).
const OWN_VERSION: &[&str] = &[
    "nvidia-nvvm70",
    "nvidia-egl-gbm",
    "nvidia-egl-wayland",
    "nvidia-egl-wayland2",
    "nvidia-egl-xcb",
    "nvidia-egl-xlib",
    "nvidia-api",
];

/// A set of capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Capabilities(BTreeSet<Capability>);

impl Capabilities {
    /// What a container gets when nobody says.
    pub fn usual() -> Self {
        Self([Compute, Utility].into())
    }

    /// A comma list, or `all`. `why` names its origin.
    pub fn parse(list: &str, why: &str) -> Result<Self> {
        let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
        let sets = words.map(|word| match NAMES.iter().find(|(name, _)| *name == word) {
            Some((_, capability)) => Ok(vec![*capability]),
            None if word == "all" => Ok(NAMES.iter().map(|(_, c)| *c).collect()),
            None => Err(Error::new(format!("`{word}` is not a driver capability ({why})"))
                .hint("capabilities are compute, utility, video, graphics, display, ngx, compat32 and all")),
        });
        Ok(Self(sets.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()))
    }

    /// Whether the word is one of the capabilities.
    pub fn is_name(word: &str) -> bool {
        word == "all" || NAMES.iter().any(|(name, _)| *name == word)
    }

    /// Whether it is among them. As in libnvidia-container's options.h, video needs compute's libraries and display
    /// those of graphics.
    pub fn has(&self, capability: Capability) -> bool {
        let by = |other| self.0.contains(&other);
        match capability {
            Compute => by(Compute) || by(Video),
            Graphics => by(Graphics) || by(Display),
            other => by(other),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As `NVIDIA_DRIVER_CAPABILITIES` writes them.
    pub fn names(&self) -> String {
        let names = NAMES.iter().filter(|(_, c)| self.0.contains(c)).map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(",")
    }
}

/// What a library of this driver version is wanted for; `None` if it is not, if the file is no such library, or if it is
/// never to be injected.
pub fn library(file: &str, version: &str, wanted: &Capabilities) -> Option<Capability> {
    let (name, suffix) = file.strip_prefix("lib")?.split_once(".so.")?;
    let own = OWN_VERSION.contains(&name) && suffix.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !(suffix == version || own) || NEVER.contains(&name) || NEUTRAL.contains(&name) {
        return None;
    }
    let mut classes =
        LIBRARIES.iter().filter(|(known, _)| *known == name).map(|(_, capability)| *capability).peekable();
    let unknown = classes.peek().is_none().then_some(Compute);
    classes.chain(unknown).find(|capability| wanted.has(*capability))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_by_their_names() {
        for (file, want) in [
            ("libcuda.so.550.163.01", Some(Compute)),
            ("libnvidia-ml.so.550.163.01", Some(Utility)),
            ("libnvidia-novelty.so.550.163.01", Some(Compute)),
            ("libGLX_nvidia.so.550.163.01", Some(Graphics)),
            ("libnvidia-nvvm70.so.4", Some(Compute)),
            ("libnvidia-egl-gbm.so.1.1.1", Some(Graphics)),
            ("libcuda.so.535.1", None),
            ("libcuda.so.1", None),
            ("libGLX.so.550.163.01", None),
            ("libnvidia-gtk3.so.550.163.01", None),
            ("cuda.so.550.163.01", None),
        ] {
            let all = Capabilities::parse("all", "a test").unwrap();
            assert_eq!(library(file, "550.163.01", &all), want, "{file}");
        }
    }

    #[test]
    fn a_library_of_two_classes_comes_with_either() {
        for (caps, want) in [("compute", Some(Compute)), ("graphics", Some(Graphics)), ("utility", None)] {
            let caps = Capabilities::parse(caps, "a test").unwrap();
            assert_eq!(library("libnvidia-gpucomp.so.550.163.01", "550.163.01", &caps), want);
        }
    }

    #[test]
    fn lists_are_nvidias() {
        let caps = Capabilities::parse("video, utility", "a test").unwrap();
        assert!(caps.has(Compute) && caps.has(Utility) && !caps.has(Graphics));
        assert_eq!(caps.names(), "utility,video");
        assert!(Capabilities::parse("all", "a test").unwrap().has(Compat32));
        assert!(Capabilities::parse("compute,gpus", "a test").is_err());
        assert!(Capabilities::parse("", "a test").unwrap().is_empty());
    }
}
