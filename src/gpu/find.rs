//! The GPU or MIG instance of a name.
//!
//! In: an [`Id`] and the [`Inventory`]. Out: a [`Pick`], or that there is none and what could be named. Pure.

use super::id::Id;
use super::inventory::{Gpu, Inventory, address};
use super::mig::Instance;
use crate::error::{Error, Result};

/// A GPU, or one MIG instance of it.
#[derive(Clone, Copy)]
pub(super) struct Pick<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) part: Option<&'a Instance>,
}

impl Pick<'_> {
    pub(super) fn unusable(&self) -> Option<&String> {
        self.gpu.unusable.as_ref().or_else(|| self.part?.unusable.as_ref())
    }
}

/// The one that is named.
pub(super) fn find<'a>(id: &Id, inventory: &'a Inventory) -> Result<Pick<'a>> {
    let of_gpu = |gpu: &'a Gpu| {
        let parts = gpu.instances.iter().map(move |part| Pick { gpu, part: Some(part) });
        std::iter::once(Pick { gpu, part: None }).chain(parts)
    };
    let same: Vec<_> = inventory.gpus.iter().flat_map(of_gpu).filter(|pick| is(*pick, id)).collect();
    match same[..] {
        [one] => Ok(one),
        [] => Err(nowhere(id, inventory)),
        _ => Err(Error::new(format!("`{id}` is the start of several UUIDs"))),
    }
}

fn is(pick: Pick, id: &Id) -> bool {
    let starts = |uuid: &str, start: &str| uuid.to_ascii_lowercase().starts_with(start);
    let of_gpu = |start: &str| pick.gpu.uuid.as_ref().is_some_and(|uuid| starts(uuid, start));
    match (id, pick.part) {
        (Id::Index(index), None) => pick.gpu.index == *index,
        (Id::Minor(minor), None) => pick.gpu.minor == *minor,
        (Id::Uuid(start), None) => of_gpu(start),
        (Id::Pci(text), None) => address(&pick.gpu.pci) == address(text),
        (Id::Part(gpu, index), Some(part)) => (pick.gpu.index, part.index) == (*gpu, *index),
        (Id::PartUuid(start), Some(part)) => starts(&part.uuid, start),
        (Id::PartPlace(start, place), Some(part)) => of_gpu(start) && part.place == *place,
        _ => false,
    }
}

fn nowhere(id: &Id, inventory: &Inventory) -> Error {
    let what = if id.is_mig() { "MIG instance" } else { "GPU" };
    let whole = match id {
        Id::Part(index, _) => inventory.gpus.iter().find(|gpu| gpu.index == *index && !gpu.mig),
        _ => None,
    };
    let whole =
        whole.map_or_else(String::new, |gpu| format!(": GPU {} ({}) is not divided by MIG", gpu.index, gpu.model));
    let error = Error::new(format!("there is no {what} `{id}`{whole}")).hint(names(inventory));
    reasons(inventory, |gpu| id.is_mig() && gpu.mig).fold(error, Error::hint)
}

/// What could be named.
fn names(inventory: &Inventory) -> String {
    let named = |number: String, uuid: Option<&String>| match uuid {
        Some(uuid) => format!("{number} ({uuid})"),
        None => number,
    };
    let of_gpu = |gpu: &Gpu| {
        let part = |part: &Instance| named(format!("{}:{}", gpu.index, part.index), Some(&part.uuid));
        let whole = named(gpu.index.to_string(), gpu.uuid.as_ref());
        std::iter::once(whole).chain(gpu.instances.iter().map(part)).collect::<Vec<_>>()
    };
    format!("there are: {}", inventory.gpus.iter().flat_map(of_gpu).collect::<Vec<_>>().join(", "))
}

/// Why some GPUs cannot be used.
pub(super) fn reasons(inventory: &Inventory, of: impl Fn(&Gpu) -> bool) -> impl Iterator<Item = String> {
    let gpus = inventory.gpus.iter().filter(move |gpu| of(gpu));
    gpus.filter_map(|gpu| Some(format!("GPU {}: {}", gpu.index, gpu.unusable.as_ref()?)))
}
