//! The plain parts of a plan: the image, the root file system, and what gpurun puts into it beside mounts.
//!
//! In: the request and the image's tree. Out: [`Rootfs`]; the rest is only described here. Pure.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::text::lossy;
use crate::request::Request;

/// Which image runs.
#[derive(Clone, Debug, Serialize)]
pub struct ImageFacts {
    /// Canonical reference.
    pub reference: String,
    /// Digest of its manifest; a `dir:` has none.
    pub digest: Option<String>,
}

/// The root file system: an image tree below, what takes the writes above.
#[derive(Clone, Debug, Serialize)]
pub struct Rootfs {
    /// The image's tree on the host, never written.
    #[serde(serialize_with = "lossy")]
    pub lower: PathBuf,
    /// Whether the workload may not write to it either.
    pub read_only: bool,
    /// The directory on the host whose `upper` keeps the writes; without one they go to a tmpfs.
    pub kept: Option<PathBuf>,
    /// Where the workload can write if the kernel refuses the overlay: then the tree is bound read-only, with a tmpfs at each
    /// of these that it has. `None` if nothing else will do.
    pub otherwise: Option<Vec<&'static str>>,
}

/// Where programs expect to be able to write.
const WRITABLE: &[&str] =
    &["/tmp", "/var/tmp", "/run", "/var/run", "/var/log", "/var/cache", "/var/lock", "/home", "/root", "/mnt", "/srv"];

impl Rootfs {
    /// An overlay that is to be kept cannot be done without.
    pub(super) fn decide(request: &Request, tree: &Path) -> Self {
        Self {
            lower: tree.into(),
            read_only: request.read_only,
            kept: request.overlay.clone(),
            otherwise: request.overlay.is_none().then(|| WRITABLE.to_vec()),
        }
    }
}

/// A directory that must be there.
#[derive(Clone, Debug, Serialize)]
pub struct Directory {
    /// Path inside.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Why.
    pub why: &'static str,
}

/// A symbolic link that every runtime makes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Link {
    /// Path inside.
    pub path: &'static str,
    /// Where it leads.
    pub to: &'static str,
}

/// A file supplied by gpurun.
#[derive(Clone, Debug, Serialize)]
pub struct File {
    /// Path inside.
    pub path: &'static str,
    /// Its content.
    #[serde(skip)]
    pub content: Vec<u8>,
    /// Why.
    pub why: &'static str,
}
