//! The ways to name a GPU, or a MIG instance of one.
//!
//! In: a word of `--gpus` or of a variable. Out: an [`Id`], which `find.rs` looks up in the inventory. Pure.

use std::fmt;

use super::inventory::address;
use super::mig::Place;
use crate::error::{Error, Result};

/// A way to name a GPU, or one of its MIG instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// As `nvidia-smi` counts.
    Index(u32),
    /// As the node is numbered.
    Minor(u32),
    /// `GPU-…`, or the start of it, in lower case.
    Uuid(String),
    /// PCI address.
    Pci(String),
    /// `0:1`: a GPU's index, and its MIG instance's.
    Part(u32, u32),
    /// `MIG-…`, or the start of it, in lower case.
    PartUuid(String),
    /// `MIG-GPU-…/GI/CI`, as drivers before 470 named an instance: its GPU's UUID in lower case, and its ids.
    PartPlace(String, Place),
}

impl Id {
    /// Whether it names a MIG instance.
    pub fn is_mig(&self) -> bool {
        matches!(self, Self::Part(..) | Self::PartUuid(_) | Self::PartPlace(..))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(number) | Self::Minor(number) => write!(f, "{number}"),
            Self::Uuid(text) | Self::Pci(text) | Self::PartUuid(text) => f.write_str(text),
            Self::Part(gpu, part) => write!(f, "{gpu}:{part}"),
            Self::PartPlace(gpu, place) => write!(f, "mig-{gpu}/{}/{}", place.gi, place.ci),
        }
    }
}

/// One GPU or MIG instance, by any of its names.
pub fn id(text: &str) -> Result<Id> {
    let lower = text.to_ascii_lowercase();
    if let Some(part) = part(text, &lower) {
        return Ok(part);
    }
    if let Ok(index) = text.parse() {
        return Ok(Id::Index(index));
    }
    if lower.starts_with("gpu-") && is_uuid(&lower[4..]) {
        return Ok(Id::Uuid(lower));
    }
    match address(text) {
        Some(_) => Ok(Id::Pci(lower)),
        None => Err(Error::new(format!("`{text}` is no index, UUID, PCI address or MIG instance"))),
    }
}

/// A MIG instance's names: `0:1`, `MIG-UUID`, `MIG-GPU-UUID/GI/CI`.
fn part(text: &str, lower: &str) -> Option<Id> {
    if let Some((gpu, part)) = text.split_once(':') {
        return Some(Id::Part(gpu.parse().ok()?, part.parse().ok()?));
    }
    let name = lower.strip_prefix("mig-")?;
    match name.split('/').collect::<Vec<_>>()[..] {
        [uuid] if is_uuid(uuid) => Some(Id::PartUuid(lower.to_owned())),
        [gpu, gi, ci] if gpu.strip_prefix("gpu-").is_some_and(is_uuid) => {
            Some(Id::PartPlace(gpu.to_owned(), Place { gi: gi.parse().ok()?, ci: ci.parse().ok()? }))
        }
        _ => None,
    }
}

/// The digits of a UUID, or of its start.
fn is_uuid(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_and_a_mig_instance_have_several_names() {
        for (text, want) in [
            ("7", Some(Id::Index(7))),
            ("GPU-5C0A", Some(Id::Uuid("gpu-5c0a".into()))),
            ("0000:0F:00.0", Some(Id::Pci("0000:0f:00.0".into()))),
            ("0:1", Some(Id::Part(0, 1))),
            ("MIG-5C0A-", Some(Id::PartUuid("mig-5c0a-".into()))),
            ("MIG-GPU-5C0A/7/0", Some(Id::PartPlace("gpu-5c0a".into(), Place { gi: 7, ci: 0 }))),
            ("MIG-GPU-5C0A/7", None),
            ("MIG-GPU-5C0A/7/0/0", None),
            ("MIG-5C0A/7/0", None),
            ("MIG", None),
            ("x", None),
        ] {
            assert_eq!(id(text).ok(), want, "{text}");
        }
    }
}
