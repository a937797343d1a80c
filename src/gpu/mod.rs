//! The host's driver and GPUs → [`Injection`]: what of them a container gets.
//!
//! In: a [`DriverRoot`], what is asked for, facts about the image. Out: plain data, each part with its reason, that
//! `explain` prints and `launch` executes. Nothing here changes anything, but for [`repair`], which has the host make its
//! own missing nodes. Rules and their sources: each module names them.
//!
//! ```text
//! root ─inventory─▶ GPUs ─facts(nvml)─▶ GPUs and MIG instances ─choose(select)─▶ chosen ─devices─▶ nodes ┐
//! root ─files(version, classify)──────────────────────────────────────────────▶ libraries, programs ────┼─▶ Injection
//! image facts ─compat, require, ldcache───────────────────────────────────────▶ verdicts, ld.so.cache ──┘
//! ```

pub mod choose;
pub mod classify;
pub mod compat;
pub mod devices;
pub mod elf;
mod facts;
pub mod files;
pub mod image;
pub mod inventory;
pub mod ldcache;
pub mod loader;
pub mod mig;
pub mod nvml;
pub(crate) mod proc;
pub mod rdma;
pub mod repair;
pub mod require;
pub mod root;
pub mod select;
pub mod wsl;

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Error, Result};
use classify::{Capabilities, Capability};
use devices::Device;
use facts::Facts;
use files::{DriverFiles, Library};
use image::Contents;
use inventory::{Gpu, Inventory};
use nvml::Answers;
use require::Offer;
use root::DriverRoot;
use select::{Asked, Gpus};

/// The directory inside that is gpurun's own: what the image has of the driver is shadowed, never collided with.
pub const PRIVATE: &str = "/.gpurun";

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
    pub fn join(&mut self, rdma: rdma::Rdma) {
        self.devices.extend(rdma.devices);
        self.warnings.extend(rdma.warnings);
    }

    /// With what makes the image's loader find the driver.
    fn take(&mut self, loading: loader::Loading) {
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

/// Decides what is injected.
pub fn inject(inputs: &Inputs) -> Result<Injection> {
    let asked = inputs.asked;
    if asked.gpus == Gpus::None {
        return Ok(Injection::none(asked.why));
    }
    if wsl::is_here(inputs.root) {
        return wsl::inject(inputs);
    }
    let Facts { inventory, decision, warning } = match facts::gather(inputs) {
        Ok(facts) => facts,
        Err(silence) => return without_driver(inputs, silence),
    };
    let chosen = choose::choose(&asked.gpus, &inventory).map_err(|error| warning.iter().fold(error, Error::hint))?;
    let wanted = capabilities(inputs)?;
    let offer = Offer::of(&inventory.version, inventory.cuda);
    let (compat, why_compat) = compat::decide(inputs.compat, inputs.image.compat.as_ref(), &offer, &chosen);
    let unchecked = match inputs.check && !compat {
        true => require::check(inputs.image_env, &offer, &chosen)?,
        false => None,
    };
    let files = DriverFiles::find(inputs.root, &inventory.version, &wanted)?;
    let devices = devices::decide(inputs.root, &chosen, &wanted)?;
    let mut made = Injection {
        driver: Some(inventory.version.to_string()),
        driver_why: "the loaded module's",
        why: asked.why,
        capabilities: wanted.names(),
        devices,
        proc: proc::masked(inputs.root, &chosen),
        env: env(inputs, &chosen, &inventory, &wanted),
        decisions: decisions(decision, compat, &why_compat),
        warnings: warning.into_iter().chain(unchecked).chain(mig::warning(&chosen)).collect(),
        ..Injection::default()
    };
    let entries = libraries(&mut made, &files, inputs.image);
    made.links.extend(gbm(&files, &wanted));
    made.links.extend(devices::links(inputs.root, &chosen, &made.devices));
    made.take(loader::decide(inputs, &format!("{PRIVATE}/lib"), entries, compat));
    made.generated.extend(wanted.has(Capability::Graphics).then(|| profile(&chosen)));
    made.binds.extend(files.programs.iter().map(|p| bind(&p.real, p.target.clone(), "a program of the driver")));
    made.binds.extend(files.data.iter().map(|p| bind(&p.real, p.target.clone(), "where loaders look for the driver")));
    made.binds.extend(sockets(inputs, &wanted));
    made.binds.extend(storage(inputs.root, &made.devices));
    made.gpus = chosen;
    Ok(made)
}

fn decisions(nvml: Option<String>, compat: bool, why: &str) -> Vec<String> {
    let compat = format!("CUDA forward compatibility: {} ({why})", if compat { "on" } else { "off" });
    nvml.into_iter().chain([compat]).collect()
}

/// `auto`, and what a batch system or the host's environment says, are no reason to fail on a machine without a driver.
fn without_driver(inputs: &Inputs, silence: Option<Error>) -> Result<Injection> {
    let root = inputs.root;
    if matches!(inputs.asked.gpus, Gpus::Auto | Gpus::Allotted(_)) {
        let why = silence.map_or_else(|| "no NVIDIA driver here".to_owned(), |error| format!("{error:#}"));
        let warnings = vec![format!("{why}: running without GPUs")];
        return Ok(Injection { warnings, ..Injection::none("no NVIDIA driver here") });
    }
    if let Some(error) = silence {
        return Err(error);
    }
    if root.has("/dev/dxg") {
        return Err(Error::new("there is no NVIDIA driver: `/usr/lib/wsl/lib/libcuda.so.1` is not there").hint(
            "WSL2 takes Windows' driver: install NVIDIA's there, and none in WSL2; then `wsl --shutdown`, once",
        ));
    }
    if root.has("/etc/nv_tegra_release") {
        return Err(Error::new("the GPU of a Jetson cannot be given to a container")
            .hint("its driver is part of the board's own system, and gpurun knows that of PCI GPUs only")
            .hint("`--gpus none` runs without"));
    }
    Err(Error::new("there is no NVIDIA driver: `/proc/driver/nvidia/version` is not there or cannot be read")
        .hint("`modprobe nvidia`, as root, loads it where it is installed; `--gpus auto` runs without GPUs where there are none"))
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

fn bind(real: &std::path::Path, target: PathBuf, why: &'static str) -> Bind {
    Bind { source: real.into(), target, socket: false, why }
}

/// Binds and links for the libraries that the image can load. Gives the loader's entries.
fn libraries(made: &mut Injection, files: &DriverFiles, image: &Contents) -> Vec<ldcache::Entry> {
    let mut entries = Vec::new();
    for library in &files.libraries {
        if let Some(why) = unloadable(library, image) {
            made.warnings.push(why);
            continue;
        }
        let dir = format!("{PRIVATE}/{}", if library.wide { "lib" } else { "lib32" });
        made.binds.push(bind(&library.real, format!("{dir}/{}", library.name).into(), "a library of the driver"));
        for (name, to) in names(library) {
            if name != library.name {
                made.links.push(Link { path: format!("{dir}/{name}"), to });
            }
            entries.push(ldcache::Entry::new(loader::flags(library.wide), &name, &format!("{dir}/{name}")));
        }
    }
    entries
}

/// Mesa's loader looks for a back end by this name (graphics.go:246 of nvidia-container-toolkit).
fn gbm(files: &DriverFiles, wanted: &Capabilities) -> Option<Link> {
    let there = files.libraries.iter().any(|library| library.soname == "libnvidia-allocator.so.1");
    (there && wanted.has(Capability::Graphics)).then(|| Link {
        path: format!("{PRIVATE}/lib/gbm/nvidia-drm_gbm.so"),
        to: "../libnvidia-allocator.so.1".into(),
    })
}

/// A distribution's own build may need more than the image has; NVIDIA's files need glibc 2.14 at most.
fn unloadable(library: &Library, image: &Contents) -> Option<String> {
    let (needs, has) = library.glibc.zip(image.glibc)?;
    let name = &library.name;
    (needs > has).then(|| {
        format!("`{name}` is left out: it needs glibc {}.{}, and the image has {}.{}", needs.0, needs.1, has.0, has.1)
    })
}

/// The names a library is asked for by, and where each leads. For some the SONAME is the file's own name. Bare names are
/// those that libnvidia-container makes, since programs ask for them without a development package.
fn names(library: &Library) -> Vec<(String, String)> {
    let mut all = vec![(library.soname.clone(), library.name.clone())];
    let extra = match library.soname.as_str() {
        "libcuda.so.1" => Some("libcuda.so"),
        "libnvidia-opticalflow.so.1" => Some("libnvidia-opticalflow.so"),
        "libGLX_nvidia.so.0" => Some("libGLX_indirect.so.0"),
        _ => None,
    };
    all.extend(extra.map(|name| (name.to_owned(), library.soname.clone())));
    all
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

/// The GPUs are numbered anew inside, in the order of their PCI addresses; a toolkit inside injects nothing again.
fn env(inputs: &Inputs, chosen: &[Gpu], inventory: &Inventory, wanted: &Capabilities) -> Vec<(&'static str, OsString)> {
    let mut all: Vec<(&'static str, OsString)> = vec![
        ("NVIDIA_VISIBLE_DEVICES", "void".into()),
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID".into()),
        ("CUDA_VISIBLE_DEVICES", choose::cuda_visible(inputs.cuda_visible, chosen, inventory).into()),
    ];
    if wanted.has(Capability::Graphics) {
        let paths = format!("{PRIVATE}/lib/gbm:/usr/lib/{}-linux-gnu/gbm:/usr/lib64/gbm", std::env::consts::ARCH);
        all.push(("GBM_BACKENDS_PATH", paths.into()));
    }
    all
}

/// What GPUDirect Storage reads beside its nodes: its settings, and udev's answer to which disk a file is on
/// (nvidia-container-toolkit, mode `gds`).
fn storage(root: &DriverRoot, devices: &[Device]) -> Vec<Bind> {
    let wanted = devices.iter().any(|device| device.path.starts_with(devices::STORAGE));
    let paths = ["/etc/cufile.json", "/run/udev"].into_iter().filter(|path| wanted && root.has(path));
    paths.map(|path| bind(&root.system_path(path), path.into(), "GPUDirect Storage")).collect()
}

/// Where the driver's daemons are talked to.
fn sockets(inputs: &Inputs, wanted: &Capabilities) -> Vec<Bind> {
    let root = inputs.root;
    let mps = inputs.mps.filter(|path| path.starts_with('/')).unwrap_or("/tmp/nvidia-mps");
    let all = [
        ("/run/nvidia-persistenced/socket", Capability::Utility, "nvidia-persistenced"),
        ("/run/nvidia-fabricmanager/socket", Capability::Utility, "nvidia-fabricmanager"),
        (mps, Capability::Compute, "the multi-process service"),
    ];
    let there = all.into_iter().filter(|(path, capability, _)| wanted.has(*capability) && root.has(path));
    there
        .map(|(path, _, why)| Bind { source: root.system_path(path), target: path.into(), socket: true, why })
        .collect()
}
