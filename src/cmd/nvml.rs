//! Asks NVML for the verbs that need its answers: the store's memory first, then the driver's program in a process of its own.

use std::path::Path;

use crate::error::{Context, Result};
use crate::gpu::inventory::{Inventory, Version};
use crate::gpu::nvml::{self, Answers, child};
use crate::gpu::repair;
use crate::gpu::root::DriverRoot;
use crate::host::Host;
use crate::image::Digest;
use crate::store::Store;

/// How a run asks.
pub(super) struct Nvml<'a> {
    /// `--store`
    pub(super) store: Option<&'a Path>,
    /// Whether missing nodes of MIG instances are made first: NVML is silent about instances that do not open.
    pub(super) repair: bool,
}

impl Nvml<'_> {
    /// What NVML says of the machine, as the store remembers it if it does. A store that cannot be written does without.
    pub(super) fn ask(&self, root: &DriverRoot, host: &Host, known: Option<&Inventory>) -> Result<Answers> {
        if let Some(inventory) = known.filter(|_| self.repair) {
            repair::capabilities(root, inventory);
        }
        let version = known.map(|inventory| &inventory.version);
        let store = Store::locate(self.store, host).ok();
        let Some((store, state)) = store.zip(nvml::state(root, version)) else { return ask_afresh(root, version) };
        let state = Digest::of(state.as_bytes());
        if let Some(answers) = store.nvml(&state) {
            return Ok(answers);
        }
        let answers = ask_afresh(root, version)?;
        let _ = store.keep_nvml(&state, &answers);
        Ok(answers)
    }
}

/// What NVML says of the machine now.
pub(super) fn ask_afresh(root: &DriverRoot, version: Option<&Version>) -> Result<Answers> {
    let library = nvml::library(root, version).context(|| "ask NVML: its library `libnvidia-ml` is nowhere")?;
    child::ask(&library, child::LIMIT)
}
