//! What of the host's driver a container gets, as plain data.
//!
//! In: what this module's siblings decide. Out: [`Injection`], which `plan` takes whole, `explain` prints and `launch`
//! executes. Pure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::PRIVATE;
use super::devices::Device;
use super::inventory::Gpu;
use super::loader::Loading;
use super::rdma::Rdma;

/// What of the host's driver a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Injection {
    /// Version of the driver; `None` if nothing is injected.
    pub driver: Option<String>,
    /// How it is known.
    pub driver_why: &'static str,
    /// The chosen GPUs.
    pub gpus: Vec<Gpu>,
    /// Why these.
    pub why: &'static str,
    /// What is wanted of the driver.
    pub capabilities: String,
    /// Nodes of the host, at their own paths.
    pub devices: Vec<Device>,
    /// Files of the host, read-only.
    pub binds: Vec<Bind>,
    /// Links in gpurun's own directory and in /dev.
    pub links: Vec<Link>,
    /// Files that gpurun writes into its own directory and binds over others.
    pub generated: Vec<Generated>,
    /// `/proc/driver/nvidia` as the container sees it: paths below it and their content.
    pub proc: Vec<(String, String)>,
    /// Variables.
    #[serde(skip)]
    pub env: Vec<(&'static str, OsString)>,
    /// Decisions that have no other place.
    pub decisions: Vec<String>,
    /// What the user may not expect.
    pub warnings: Vec<String>,
}

/// A file, socket or directory of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bind {
    /// Absolute path on the host, links resolved.
    #[serde(serialize_with = "crate::plan::lossy")]
    pub source: PathBuf,
    /// Path inside.
    #[serde(serialize_with = "crate::plan::lossy")]
    pub target: PathBuf,
    /// Whether it is there to be talked to: then it is writable and holds nothing to execute.
    pub socket: bool,
    /// Why.
    pub why: &'static str,
}

impl Bind {
    /// What is only read.
    pub(super) fn read(source: &Path, target: PathBuf, why: &'static str) -> Self {
        Self { source: source.into(), target, socket: false, why }
    }
}

/// A link in a directory that gpurun has filled itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Path inside.
    pub path: String,
    /// Where it leads.
    pub to: String,
}

/// A file that gpurun makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generated {
    /// Its name in gpurun's own directory.
    pub name: &'static str,
    /// What it is bound over.
    pub over: String,
    /// Its content.
    #[serde(skip)]
    pub content: Vec<u8>,
    /// Why.
    pub why: &'static str,
}

impl Injection {
    /// Nothing.
    pub fn none(why: &'static str) -> Self {
        Self { why, ..Self::default() }
    }

    /// Whether there is anything for gpurun's own directory.
    pub fn has_files(&self) -> bool {
        !self.binds.is_empty() || !self.generated.is_empty()
    }

    /// With the fabric.
    pub fn join(&mut self, rdma: Rdma) {
        self.devices.extend(rdma.devices);
        self.warnings.extend(rdma.warnings);
    }

    /// With what makes the image's loader find the driver.
    pub(super) fn take(&mut self, loading: Loading) {
        self.generated.extend(loading.generated);
        self.env.extend(loading.env);
        self.decisions.extend(loading.decision);
        self.warnings.extend(loading.warnings);
    }

    /// All paths outside /dev and /proc at which something is put.
    pub fn targets(&self) -> impl Iterator<Item = PathBuf> {
        let private = self.has_files().then(|| PathBuf::from(PRIVATE)).into_iter();
        let binds = self.binds.iter().map(|b| b.target.clone()).filter(|t| !t.starts_with(PRIVATE));
        private.chain(binds).chain(self.generated.iter().map(|g| PathBuf::from(&g.over)))
    }
}
