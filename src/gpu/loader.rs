//! How an image's loader finds the driver's libraries.
//!
//! In: facts about the image, the libraries' entries. Out: [`Loading`]. glibc's loader reads `/etc/ld.so.cache`, so the image's
//! gets ours before its own entries; musl's has a path instead; that of Nix and Guix reads neither, and only there
//! `LD_LIBRARY_PATH` is set, since it also reaches programs that must not see the driver. Pure.

use std::ffi::OsString;

use super::ldcache::{self, Entry};
use super::{Generated, Inputs, compat};
use crate::gpu::image::Contents;

/// What makes the loader find the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loading {
    /// Files that are bound over those of the image.
    pub generated: Vec<Generated>,
    /// A variable, if no file does.
    pub env: Option<(&'static str, OsString)>,
    /// Why.
    pub decision: Option<String>,
    /// What the user may not expect.
    pub warnings: Vec<String>,
}

/// Decides for libraries that lie in `directory`, and, if `compat`, for the image's own libcuda before them.
pub fn decide(inputs: &Inputs, directory: &str, entries: Vec<Entry>, compat: bool) -> Loading {
    let image = inputs.image;
    let glibc = glibc(cache(image, entries, compat), "the loader finds the driver without LD_LIBRARY_PATH");
    let only_musl = image.musl.is_some() && image.glibc.is_none();
    let needs_glibc = only_musl.then(|| "the image has musl and no glibc, which NVIDIA's libraries need".to_owned());
    let set = |store| format!("LD_LIBRARY_PATH: set, since loaders in {store} read no /etc/ld.so.cache");
    Loading {
        generated: [glibc].into_iter().chain(image.musl.as_ref().map(|path| musl(path, directory))).collect(),
        env: image.store.map(|_| ("LD_LIBRARY_PATH", search_path(inputs.image_env, directory))),
        decision: image.store.map(set),
        warnings: image.broken_cache.map(str::to_owned).into_iter().chain(needs_glibc).collect(),
    }
}

/// The list of libraries that glibc's loader reads.
pub(crate) fn glibc(content: Vec<u8>, why: &'static str) -> Generated {
    Generated { name: "ld.so.cache", over: "/etc/ld.so.cache".into(), content, why }
}

/// The list of directories that musl's loader reads: the image's own, then another.
pub(crate) fn musl(path: &str, directory: &str) -> Generated {
    Generated {
        name: "ld-musl.path",
        over: format!("/etc/ld-musl-{}.path", std::env::consts::ARCH),
        content: format!("{path}:{directory}\n").into(),
        why: "musl's loader has no cache",
    }
}

/// Ours, then the image's own.
fn search_path(image_env: &[String], directory: &str) -> OsString {
    let own = image_env.iter().rev().find_map(|entry| entry.strip_prefix("LD_LIBRARY_PATH="));
    own.filter(|path| !path.is_empty()).map_or_else(|| directory.into(), |own| format!("{directory}:{own}").into())
}

/// The loader that a library of this machine is for.
pub(crate) fn flags(wide: bool) -> u32 {
    match (wide, std::env::consts::ARCH) {
        (false, _) => ldcache::FLAGS_I386,
        (true, "aarch64") => ldcache::FLAGS_AARCH64,
        (true, _) => ldcache::FLAGS_X86_64,
    }
}

/// The image's cache with ours before it, and with its own forward-compatible driver before that or not at all: a
/// compat directory in an image's ld.so.conf is the usual cause of CUDA errors 803 and 804.
pub(crate) fn cache(image: &Contents, ours: Vec<Entry>, compat: bool) -> Vec<u8> {
    let in_compat = |path: &[u8]| path.starts_with(b"/usr/local/cuda") && path.windows(8).any(|w| w == b"/compat/");
    let mut images = image.cache.clone();
    images.entries.retain(|entry| !in_compat(&entry.path));
    let sonames = image.compat.iter().filter(|_| compat).flat_map(|c| &c.sonames);
    let first = sonames.map(|name| Entry::new(flags(true), name, &format!("{}/{name}", compat::DIRECTORY)));
    ldcache::merge(&images, &first.chain(ours).collect::<Vec<_>>()).bytes()
}
