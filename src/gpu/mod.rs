//! The host's driver and GPUs → [`Injection`]: what of them a container gets.
//!
//! In: a [`DriverRoot`], what is asked for, facts about the image. Out: plain data, each part with its reason, that
//! `explain` prints and `launch` executes. Runs before the launch and changes nothing, but for [`repair`], which has the
//! host make its own missing nodes. Rules and their sources: each module names them.
//!
//! ```text
//! root ─inventory─▶ GPUs ─facts(nvml)─▶ GPUs and MIG instances ─choose(select)─▶ chosen ─devices─▶ nodes ┐
//! root ─files(version, classify)──────────────────────────────────────────────▶ libraries, programs ────┼─▶ Injection
//! image facts ─compat, require, ldcache───────────────────────────────────────▶ verdicts, ld.so.cache ──┘
//! ```

mod absent;
pub mod choose;
pub mod classify;
pub mod compat;
pub mod devices;
pub mod elf;
mod facts;
pub mod files;
mod find;
pub(crate) mod graphics;
pub mod id;
pub mod image;
mod injection;
pub mod inventory;
pub mod ldcache;
mod libraries;
pub mod loader;
pub mod mig;
pub mod nvml;
mod places;
pub(crate) mod proc;
pub mod rdma;
pub mod repair;
pub mod require;
pub mod root;
#[cfg(test)]
mod sample;
pub mod select;
mod services;
pub(crate) mod visible;
pub mod wsl;

use std::ffi::OsString;

use crate::error::{Error, Result};
use classify::{Capabilities, Capability};
use facts::Facts;
use files::DriverFiles;
use image::Contents;
pub use injection::{Bind, Generated, Injection, Link};
use inventory::{Gpu, Inventory};
use nvml::Answers;
use require::Offer;
use root::DriverRoot;
use select::{Asked, Gpus};

/// The directory inside that is gpurun's own: what the image has of the driver is shadowed, never collided with.
pub const PRIVATE: &str = "/.gpurun";

/// What decides about an injection.
pub struct Inputs<'a> {
    /// The machine.
    pub root: &'a DriverRoot,
    /// What is asked for.
    pub asked: &'a Asked,
    /// `--gpu-caps`
    pub capabilities: Option<&'a Capabilities>,
    /// `--cuda-compat`
    pub compat: compat::Mode,
    /// Whether `NVIDIA_REQUIRE_*` count.
    pub check: bool,
    /// The image.
    pub image: &'a Contents,
    /// The image's environment, `K=V` each.
    pub image_env: &'a [String],
    /// Asks NVML, if need be, given what /proc says.
    pub nvml: &'a dyn Fn(Option<&Inventory>) -> Result<Answers>,
    /// The caller's `CUDA_VISIBLE_DEVICES`.
    pub cuda_visible: Option<&'a str>,
    /// The caller's `CUDA_MPS_PIPE_DIRECTORY`.
    pub mps: Option<&'a str>,
}

/// Decides what is injected.
pub fn inject(inputs: &Inputs) -> Result<Injection> {
    if inputs.asked.gpus == Gpus::None {
        return Ok(Injection::none(inputs.asked.why));
    }
    if wsl::is_here(inputs.root) {
        return wsl::inject(inputs);
    }
    match facts::gather(inputs) {
        Ok(facts) => chosen(inputs, facts),
        Err(silence) => absent::inject(inputs, silence),
    }
}

/// The chosen GPUs, and what they need of the loaded driver.
fn chosen(inputs: &Inputs, facts: Facts) -> Result<Injection> {
    let Facts { inventory, decision, warning } = facts;
    let root = inputs.root;
    let gpus = choose::choose(&inputs.asked.gpus, &inventory).map_err(|e| warning.iter().fold(e, Error::hint))?;
    let wanted = capabilities(inputs)?;
    let verdict = judge(inputs, &inventory, &gpus)?;
    let files = DriverFiles::find(root, &inventory.version, &wanted)?;
    let devices = devices::decide(root, &gpus, &wanted)?;
    let libraries = libraries::place(&files.libraries, inputs.image);
    let draws = wanted.has(Capability::Graphics);
    let binds = [libraries.binds, files.binds(), services::sockets(inputs, &wanted), services::storage(root, &devices)];
    let gbm = draws.then(|| graphics::gbm(&files)).flatten();
    let links = libraries.links.into_iter().chain(gbm).chain(devices::links(root, &gpus, &devices));
    let warnings = warning.into_iter().chain(verdict.warning).chain(mig::warning(&gpus)).chain(libraries.warnings);
    let mut made = Injection {
        driver: Some(inventory.version.to_string()),
        driver_why: "the loaded module's",
        why: inputs.asked.why,
        capabilities: wanted.names(),
        binds: binds.concat(),
        links: links.collect(),
        generated: Vec::new(),
        proc: proc::masked(root, &gpus),
        env: env(visible::cuda_visible(inputs.cuda_visible, &gpus, &inventory), draws),
        decisions: decision.into_iter().chain([verdict.decision]).collect(),
        warnings: warnings.collect(),
        devices,
        gpus,
    };
    made.take(loader::decide(inputs, &libraries::directory(true), libraries.entries, verdict.compat));
    made.generated.extend(draws.then(|| graphics::profile(&made.gpus)));
    Ok(made)
}

/// `--gpu-caps`, else those of `--gpus`, else the image's, else the usual.
fn capabilities(inputs: &Inputs) -> Result<Capabilities> {
    if let Some(asked) = inputs.capabilities.or(inputs.asked.capabilities.as_ref()) {
        return Ok(asked.clone());
    }
    let images = inputs.image_env.iter().rev().find_map(|entry| entry.strip_prefix("NVIDIA_DRIVER_CAPABILITIES="));
    let images = images.map(|list| Capabilities::parse(list, "the image's NVIDIA_DRIVER_CAPABILITIES")).transpose()?;
    Ok(images.filter(|list| !list.is_empty()).unwrap_or_else(Capabilities::usual))
}

/// How image and driver suit each other.
struct Verdict {
    /// Whether the image's own libcuda is used.
    compat: bool,
    decision: String,
    warning: Option<String>,
}

/// An image that brings its own libcuda requires nothing of the host's.
fn judge(inputs: &Inputs, inventory: &Inventory, gpus: &[Gpu]) -> Result<Verdict> {
    let offer = Offer::of(&inventory.version, inventory.cuda);
    let (compat, why) = compat::decide(inputs.compat, inputs.image.compat.as_ref(), &offer, gpus);
    let warning = match inputs.check && !compat {
        true => require::check(inputs.image_env, &offer, gpus)?,
        false => None,
    };
    Ok(Verdict { compat, decision: compat::decision(compat, &why), warning })
}

/// The GPUs are numbered anew inside, in the order of their PCI addresses; a toolkit inside injects nothing again.
fn env(cuda_visible: String, draws: bool) -> Vec<(&'static str, OsString)> {
    let all = [
        ("NVIDIA_VISIBLE_DEVICES", "void".into()),
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID".into()),
        ("CUDA_VISIBLE_DEVICES", cuda_visible.into()),
    ];
    all.into_iter().chain(draws.then(graphics::env)).collect()
}
