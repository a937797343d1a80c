//! The Container Device Interface: devices of any vendor by their names, out of specs that the vendors' tools write.
//!
//! In: what `--device` names, the directories of specs, facts about the caller. Out: [`Devices`], plain data that the plan
//! holds; and the other way round, a spec of this machine's NVIDIA GPUs ([`generate`]). Runs in the launcher. Reading a
//! spec executes nothing: the hooks that are known are done by other means, the others refused.
//!
//! ```text
//! directories ─registry(name, spec, check)─▶ Edits ┬─nodes──▶ mounts
//!                                                  ├─edits──▶ mounts, environment
//!                                                  └─hooks──▶ links ─libraries─▶ entries of the loader's cache
//! Devices + Injection ─nvidia─▶ Injection, with one cache for all
//! ```

mod check;
mod edits;
pub mod generate;
mod hooks;
mod libraries;
pub mod name;
mod nodes;
mod nvidia;
mod registry;
pub mod spec;

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Context, Result};
use crate::gpu::inventory::Version;
use crate::gpu::ldcache::Entry;
use crate::plan::mounts::Mount;
use name::Name;
pub use nvidia::{Facts, complete};
use registry::Registry;
use spec::Edits;

/// One `--device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A device of a spec.
    Cdi(Name),
    /// A node of the host, or a directory of nodes.
    Node {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path inside.
        target: PathBuf,
    },
}

/// What the devices that were asked for bring into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Devices {
    /// Those of specs, and where each was found.
    pub named: Vec<Named>,
    /// Nodes, files and directories, in order.
    #[serde(skip)]
    pub mounts: Vec<Mount>,
    /// Links, made before anything of the host is mounted.
    pub links: Vec<Link>,
    /// Variables.
    #[serde(skip)]
    pub env: Vec<(OsString, OsString)>,
    /// Decisions that have no other place.
    pub decisions: Vec<String>,
    /// What the user may not expect.
    pub warnings: Vec<String>,
    /// What the loader must know.
    #[serde(skip)]
    loader: Loader,
}

/// A device of a spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its name.
    pub name: Name,
    /// The file it is in.
    #[serde(serialize_with = "crate::plan::lossy")]
    pub spec: PathBuf,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Path inside.
    #[serde(serialize_with = "crate::plan::lossy")]
    pub path: PathBuf,
    /// Where it leads.
    pub to: String,
    /// Why.
    pub why: &'static str,
}

/// What is asked of the loader, and of NVIDIA's driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Loader {
    /// Directories inside that it must find libraries in.
    folders: Vec<String>,
    /// The libraries in them that came with the devices.
    entries: Vec<Entry>,
    /// Whether the image's own newer libcuda is welcome.
    compat: bool,
    /// The driver's version, if the spec says it.
    driver: Option<Version>,
    /// Whether the driver must make no nodes.
    keep_nodes: bool,
    /// Whether EGL and Vulkan are told which GPUs are there.
    profile: bool,
}

/// Finds what is asked for. `directories` replace the usual ones; `groups` are the caller's.
pub fn bring(asked: &[Asked], directories: &[PathBuf], groups: &[u32]) -> Result<Devices> {
    let mut devices = Devices::default();
    let mut registry = None;
    for one in asked {
        match one {
            Asked::Node { source, target } => edits::add(&mut devices.mounts, nodes::plain(source, target)?)?,
            Asked::Cdi(name) => {
                devices.add(name, registry.get_or_insert_with(|| Registry::read(directories)), groups)?;
            }
        }
    }
    let broken = registry.iter().flat_map(|registry| &registry.broken);
    devices.decisions.extend(broken.map(|e| format!("a spec cannot be used: {e:#}")));
    devices.finish()?;
    Ok(devices)
}

impl Devices {
    /// Adds a device of a spec; what all devices of the spec share comes with the first.
    fn add(&mut self, name: &Name, registry: &Registry, groups: &[u32]) -> Result<()> {
        let (placed, device) = registry.find(name)?;
        let first = self.named.iter().all(|named| named.spec != placed.path);
        let shared = first.then_some(&placed.spec.container_edits);
        for edits in shared.into_iter().chain([&device.container_edits]) {
            self.apply(edits, groups).context(|| format!("`{name}` of `{}`", placed.path.display()))?;
        }
        self.named.push(Named { name: name.clone(), spec: placed.path.clone() });
        Ok(())
    }

    fn apply(&mut self, edits: &Edits, groups: &[u32]) -> Result<()> {
        edits::refuse(edits)?;
        self.env.extend(edits::env(&edits.env));
        self.warnings.extend(edits::missing_groups(&edits.additional_gids, groups));
        for node in &edits.device_nodes {
            let (mount, warnings) = nodes::named(node)?;
            edits::add(&mut self.mounts, vec![mount])?;
            self.warnings.extend(warnings);
        }
        let mounts = edits.mounts.iter().map(edits::mount).collect::<Result<_>>()?;
        edits::add(&mut self.mounts, mounts)?;
        for hook in &edits.hooks {
            self.hook(hooks::effect(hook)?)?;
        }
        Ok(())
    }

    fn hook(&mut self, effect: hooks::Effect) -> Result<()> {
        use hooks::Effect;
        match effect {
            Effect::Links(links) => self.links.extend(edits::links(links)?),
            Effect::Folders(folders) => self.loader.folders.extend(folders),
            Effect::Compat(version) => {
                self.loader.compat = true;
                self.loader.driver = version;
            }
            Effect::KeepNodes => self.loader.keep_nodes = true,
            Effect::Profile => self.loader.profile = true,
            Effect::Mode(mode, paths) => self.decisions.extend(edits::modes(&mode, &paths)),
        }
        Ok(())
    }

    /// What can be said only of all devices together.
    fn finish(&mut self) -> Result<()> {
        self.mounts.sort_by_key(|mount| mount.target.components().count()); // parents first
        edits::nested(&self.mounts)?;
        let found = libraries::find(&self.mounts, &self.links, &self.loader.folders);
        self.links.extend(found.links);
        self.loader.entries = found.entries;
        self.decisions.extend(edits::hidden(&mut self.links, &self.mounts));
        self.warnings.sort();
        self.warnings.dedup(); // devices of one vendor share nodes
        Ok(())
    }
}
