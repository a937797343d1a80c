//! `gpurun gpus` and `gpurun cdi`: what the machine has, what the caller may use of it, and what of the driver would go into a container.

use std::path::PathBuf;

use serde::Serialize;

use super::nvml;
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
    /// The CUDA version it offers, as `12.4`.
    cuda: Option<String>,
    gpus: Vec<Gpu>,
    capabilities: String,
    files: Vec<PathBuf>,
    /// What is missing of the driver.
    incomplete: Option<String>,
    /// Why NVML did not answer: what it alone knows is left out then.
    nvml: Option<String>,
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
    let (inventory, silence) = inventory(root)?;
    let (files, incomplete) = match DriverFiles::find(root, &inventory.version, wanted) {
        Ok(files) => (files, None),
        Err(e) => (DriverFiles::default(), Some(format!("{e:#}"))),
    };
    let libraries = files.libraries.into_iter().map(|library| library.real);
    Ok(Facts {
        driver: inventory.version.to_string(),
        cuda: inventory.cuda.map(|(major, minor)| format!("{major}.{minor}")),
        gpus: inventory.gpus,
        capabilities: wanted.names(),
        files: libraries.chain(files.programs.into_iter().chain(files.data).map(|placed| placed.real)).collect(),
        incomplete,
        nvml: silence,
    })
}

/// All that /proc and NVML know, or why NVML knows nothing. It is asked now: whoever lists GPUs wants to see what there is.
fn inventory(root: &DriverRoot) -> Result<(Inventory, Option<String>)> {
    let known = Inventory::probe(root);
    if known.is_none() && root.node("/dev/nvidiactl").is_none() {
        return Err(Error::new("there is no NVIDIA driver: `/proc/driver/nvidia/version` is not there"));
    }
    let answers = nvml::ask_afresh(root, known.as_ref().map(|inventory| &inventory.version));
    match (known, answers) {
        (None, answers) => Ok((Inventory::of_answers(root, &answers?), None)),
        (Some(mut inventory), Ok(answers)) => {
            inventory.learn(root, &answers);
            Ok((inventory, None))
        }
        (Some(mut inventory), Err(error)) => {
            inventory.learn_nothing();
            Ok((inventory, Some(format!("{error:#}"))))
        }
    }
}

/// A line for the GPU, and one for each of its MIG instances.
fn gpu(gpu: &Gpu) -> Vec<String> {
    let (uuid, state) = (gpu.uuid.as_deref().unwrap_or("-"), gpu.unusable.as_deref().unwrap_or("usable"));
    let kind = gpu.kind().map_or_else(String::new, |kind| format!(" ({kind})"));
    let mut lines = vec![format!("{} {uuid} {} {} {}{kind}: {state}", gpu.index, gpu.pci, gpu.node(), gpu.model)];
    lines.extend(gpu.instances.iter().map(|part| {
        let state = part.unusable.as_deref().unwrap_or("usable");
        format!(
            "  {}:{} {} {} {} ({}): {state}",
            gpu.index,
            part.index,
            part.uuid,
            part.nodes.join(" "),
            part.profile,
            part.place
        )
    }));
    lines
}

fn text(facts: &Facts) -> String {
    let cuda = facts.cuda.as_ref().map_or_else(String::new, |version| format!(", CUDA {version}"));
    let mut lines = vec![format!("driver {}{cuda}", facts.driver)];
    lines.extend(facts.gpus.iter().flat_map(gpu));
    lines.extend(
        facts.nvml.as_ref().map(|why| format!("MIG instances, brands and compute capabilities are not known: {why}")),
    );
    lines.extend(facts.incomplete.as_ref().map(|why| format!("nothing can be injected: {why}")));
    lines.push(format!("files for {}:", facts.capabilities));
    lines.extend(facts.files.iter().map(|path| format!("  {}", path.display())));
    lines.join("\n") + "\n"
}
