//! What is known of the machine: /proc's word, and NVML's where /proc does not say what somebody needs to know.
//!
//! In: the machine, what is asked for, the image. Out: [`Facts`]. Whether NVML is needed is decided on values, by
//! [`reason`]; it is asked once at most, through [`super::Inputs::nvml`]. A plain selection of whole GPUs never needs it.

use super::choose::choose;
use super::id::Id;
use super::inventory::{Gpu, Inventory};
use super::require::{self, Offer};
use super::{Inputs, compat};
use crate::error::{Error, Result};

/// The machine, as far as this injection depends on it.
pub(super) struct Facts {
    /// The driver and the GPUs.
    pub(super) inventory: Inventory,
    /// Why NVML was asked, if it was and answered.
    pub(super) decision: Option<String>,
    /// Why NVML was asked, if it did not answer.
    pub(super) warning: Option<String>,
}

/// Looks at the machine. If nothing is known of a driver there is none, or NVML, which alone could tell, has failed.
pub(super) fn gather(inputs: &Inputs) -> Result<Facts, Option<Error>> {
    match Inventory::probe(inputs.root) {
        Some(inventory) => Ok(with_proc(inputs, inventory)),
        None => without_proc(inputs),
    }
}

fn with_proc(inputs: &Inputs, mut inventory: Inventory) -> Facts {
    let Some(why) = reason(inputs, &inventory) else { return Facts { inventory, decision: None, warning: None } };
    match (inputs.nvml)(Some(&inventory)) {
        Ok(answers) => {
            inventory.learn(inputs.root, &answers);
            Facts { inventory, decision: Some(format!("NVML: asked, since {why}")), warning: None }
        }
        Err(error) => {
            inventory.learn_nothing();
            let warning = Some(format!("NVML was needed, since {why}, and did not answer: {error:#}"));
            Facts { inventory, decision: None, warning }
        }
    }
}

/// A sandbox may have the nodes and not the files in /proc.
fn without_proc(inputs: &Inputs) -> Result<Facts, Option<Error>> {
    if inputs.root.node("/dev/nvidiactl").is_none() {
        return Err(None);
    }
    match (inputs.nvml)(None) {
        Ok(answers) => Ok(Facts {
            inventory: Inventory::of_answers(inputs.root, &answers),
            decision: Some("NVML: asked, since `/proc/driver/nvidia` is not there".into()),
            warning: None,
        }),
        Err(error) => {
            Err(Some(Error::new("the machine has no `/proc/driver/nvidia`, and NVML does not answer").because(error)))
        }
    }
}

/// Why NVML must be asked, if it must.
fn reason(inputs: &Inputs, inventory: &Inventory) -> Option<&'static str> {
    let asked = &inputs.asked.gpus;
    if asked.ids().iter().any(Id::is_mig) {
        return Some("a MIG instance is asked for");
    }
    let Ok(chosen) = choose(asked, inventory) else {
        let by_uuid = asked.ids().iter().any(|id| matches!(id, Id::Uuid(_)));
        let unknown = inventory.gpus.iter().any(|gpu| gpu.uuid.is_none());
        return (by_uuid && unknown).then_some("a UUID is asked for that /proc does not tell");
    };
    if chosen.iter().any(|gpu| gpu.mig) {
        return Some("MIG is on");
    }
    undecided(inputs, &Offer::of(&inventory.version, inventory.cuda), &chosen)
}

/// What of the image's wishes depends on more than /proc says.
fn undecided(inputs: &Inputs, offer: &Offer, chosen: &[Gpu]) -> Option<&'static str> {
    let (compat, _) = compat::decide(inputs.compat, inputs.image.compat.as_ref(), offer, chosen);
    if compat {
        return (inputs.compat == compat::Mode::Auto)
            .then_some("CUDA forward compatibility depends on the GPU's brand");
    }
    let unchecked = inputs.check && matches!(require::check(inputs.image_env, offer, chosen), Ok(Some(_)));
    unchecked.then_some("the image's requirements depend on more than /proc says")
}
