//! `gpurun gpus` and `gpurun cdi`: what the machine has, what the caller may use of it, and what of the driver would go into a container.

use std::path::PathBuf;

use serde::Serialize;

use crate::cdi;
use crate::cli::{CdiVerb, DriverArgs, GpusArgs};
use crate::error::{Error, Result};
use crate::gpu::classify::Capabilities;
use crate::gpu::files::DriverFiles;
use crate::gpu::inventory::{Gpu, Inventory};
use crate::gpu::root::DriverRoot;
use crate::output;

/// Everything about the driver and its GPUs.
#[derive(Serialize)]
struct Facts {
    driver: String,
    gpus: Vec<Gpu>,
    capabilities: String,
    files: Vec<PathBuf>,
    /// What is missing of the driver.
    incomplete: Option<String>,
}

/// Prints it.
pub(super) fn gpus(args: &GpusArgs) -> Result<u8> {
    let facts = look(&DriverRoot::host(args.driver.driver_root.as_deref())?, &capabilities(&args.driver)?)?;
    if args.json {
        output::json(&facts)?;
    } else {
        output::facts(&text(&facts))?;
    }
    Ok(0)
}

/// Prints a CDI spec.
pub(super) fn cdi(verb: &CdiVerb) -> Result<u8> {
    let CdiVerb::Generate(args) = verb;
    output::json(&cdi::generate::generate(&DriverRoot::host(args.driver_root.as_deref())?, &capabilities(args)?)?)?;
    Ok(0)
}

fn capabilities(args: &DriverArgs) -> Result<Capabilities> {
    let asked = args.gpu_caps.as_deref().map(|list| Capabilities::parse(list, "--gpu-caps")).transpose()?;
    Ok(asked.unwrap_or_else(Capabilities::usual))
}

fn look(root: &DriverRoot, wanted: &Capabilities) -> Result<Facts> {
    let inventory = Inventory::probe(root)
        .ok_or_else(|| Error::new("there is no NVIDIA driver: `/proc/driver/nvidia/version` is not there"))?;
    let (files, incomplete) = match DriverFiles::find(root, &inventory.version, wanted) {
        Ok(files) => (files, None),
        Err(e) => (DriverFiles::default(), Some(format!("{e:#}"))),
    };
    let libraries = files.libraries.into_iter().map(|library| library.real);
    Ok(Facts {
        driver: inventory.version.to_string(),
        gpus: inventory.gpus,
        capabilities: wanted.names(),
        files: libraries.chain(files.programs.into_iter().chain(files.data).map(|placed| placed.real)).collect(),
        incomplete,
    })
}

fn text(facts: &Facts) -> String {
    let mut lines = vec![format!("driver {}", facts.driver)];
    lines.extend(facts.gpus.iter().map(|gpu| {
        let (uuid, state) = (gpu.uuid.as_deref().unwrap_or("-"), gpu.unusable.as_deref().unwrap_or("usable"));
        format!("{} {uuid} {} {} {}: {state}", gpu.index, gpu.pci, gpu.node(), gpu.model)
    }));
    lines.extend(facts.incomplete.as_ref().map(|why| format!("nothing can be injected: {why}")));
    lines.push(format!("files for {}:", facts.capabilities));
    lines.extend(facts.files.iter().map(|path| format!("  {}", path.display())));
    lines.join("\n") + "\n"
}
