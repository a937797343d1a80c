//! Which GPUs are asked for.
//!
//! In: the text of `--gpus`, else what the host's environment says. Out: [`Asked`], by which [`super::choose`] chooses. Pure.
//! The image's environment has no part in it: CUDA images bake `NVIDIA_VISIBLE_DEVICES=all` in.

use std::fmt;

use super::classify::Capabilities;
use super::inventory::address;
use super::mig::Place;
use crate::error::{Error, Result};
use crate::request::fields;

/// What is asked for, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The GPUs.
    pub gpus: Gpus,
    /// Capabilities named along with them.
    pub capabilities: Option<Capabilities>,
    /// The option or the variable.
    pub why: &'static str,
}

/// Which GPUs are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// None at all.
    None,
    /// All if there is a driver, else none.
    Auto,
    /// All that the caller can open.
    All,
    /// The first few of those.
    Count(usize),
    /// These.
    Devices(Vec<Id>),
    /// Those of these that the caller can open: a batch system's list.
    Allotted(Vec<Id>),
}

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

impl Gpus {
    /// Those that are named.
    pub fn ids(&self) -> &[Id] {
        match self {
            Self::Devices(ids) | Self::Allotted(ids) => ids,
            _ => &[],
        }
    }
}

/// Decides what is asked for: the option, else Slurm's GPUs of this step, else the host's own variable.
pub fn asked<'a>(option: Option<&str>, var: impl Fn(&str) -> Option<&'a str>) -> Result<Asked> {
    if let Some(text) = option {
        return parse(text);
    }
    for name in ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS"] {
        if let Some(list) = var(name) {
            let ids = list.split(',').map(|id| Some(Id::Minor(id.trim().parse().ok()?))).collect::<Option<_>>();
            let gpus = ids.map_or(Gpus::Auto, Gpus::Allotted);
            return Ok(Asked {
                gpus,
                capabilities: None,
                why: if name == "SLURM_STEP_GPUS" { "$SLURM_STEP_GPUS" } else { "$SLURM_JOB_GPUS" },
            });
        }
    }
    let (gpus, why) = match var("NVIDIA_VISIBLE_DEVICES") {
        None => (Gpus::None, "--gpus was not given"),
        Some(list) => (visible_devices(list)?, "the host's $NVIDIA_VISIBLE_DEVICES"),
    };
    Ok(Asked { gpus, capabilities: None, why })
}

/// nvidia-container-toolkit, image/devices.go:37: `void` anywhere means nothing.
pub(super) fn visible_devices(list: &str) -> Result<Gpus> {
    let words: Vec<_> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    match words[..] {
        [] => Ok(Gpus::None),
        _ if words.iter().any(|word| matches!(*word, "void" | "none")) => Ok(Gpus::None),
        ["all"] => Ok(Gpus::Auto),
        _ => Ok(Gpus::Allotted(words.iter().map(|word| id(word)).collect::<Result<_>>()?)),
    }
}

/// Docker's grammar (docker/cli, opts/gpus.go): CSV of `key=value`, or a bare count or `all`. A bare word after `device=`
/// or `capabilities=` goes on with that list: Docker wants it quoted, but it can mean nothing else.
pub fn parse(text: &str) -> Result<Asked> {
    let bad = |why: String| {
        Error::new(format!("`--gpus {text}`: {why}"))
            .hint("write all, none, auto, a count, device=0,1, device=GPU-… or device=MIG-…; `gpurun gpus` lists what is there")
    };
    let mut asked = Asked { gpus: Gpus::Count(1), capabilities: None, why: "--gpus" };
    match text {
        "none" => return Ok(Asked { gpus: Gpus::None, ..asked }),
        "auto" => return Ok(Asked { gpus: Gpus::Auto, ..asked }),
        _ => {}
    }
    let (mut count, mut devices, mut capabilities) = (None, None, None::<Vec<String>>);
    let mut list = "";
    for field in fields(text.as_bytes()) {
        let field = String::from_utf8_lossy(&field).into_owned();
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, value),
            None if list == "device" && id(&field).is_ok() => {
                devices.get_or_insert_with(Vec::new).push(field);
                continue;
            }
            None if list == "capabilities" && (Capabilities::is_name(&field) || is_gpu_word(&field)) => {
                capabilities.get_or_insert_with(Vec::new).push(field);
                continue;
            }
            None => ("count", field.as_str()),
        };
        let words = || value.split(',').map(|word| word.trim().to_owned()).collect::<Vec<_>>();
        let repeated = match key {
            "count" => {
                count.replace(parse_count(value).ok_or_else(|| bad(format!("`{value}` is no count")))?).is_some()
            }
            "device" => devices.replace(words()).is_some(),
            "capabilities" => capabilities.replace(words()).is_some(),
            "driver" if matches!(value, "" | "nvidia") => false,
            "driver" => return Err(bad(format!("there is no driver `{value}`, only nvidia"))),
            "options" if value.is_empty() => false,
            "options" => return Err(bad("no options are known to be passed on".into())),
            _ => return Err(bad(format!("the key `{key}` is not known"))),
        };
        if repeated {
            return Err(bad(format!("`{key}` is given twice")));
        }
        list = ["device", "capabilities"].into_iter().find(|k| *k == key).unwrap_or_default();
    }
    asked.gpus = match (count, devices) {
        (Some(_), Some(_)) => return Err(bad("it names both a count and devices".into())),
        (None, None) => Gpus::Count(1),
        (Some(gpus), None) => gpus,
        (None, Some(names)) if names == ["all"] => Gpus::All,
        (None, Some(names)) if names == ["none"] => Gpus::None,
        (None, Some(names)) => {
            let ids = names.iter().map(|name| id(name)).collect::<Result<_>>();
            Gpus::Devices(ids.map_err(|e| bad("it does not name devices".into()).because(e))?)
        }
    };
    let named = capabilities.unwrap_or_default().into_iter().filter(|word| !is_gpu_word(word)).collect::<Vec<_>>();
    asked.capabilities = (!named.is_empty()).then(|| Capabilities::parse(&named.join(","), "--gpus")).transpose()?;
    Ok(asked)
}

/// What Docker itself selects a driver by.
fn is_gpu_word(word: &str) -> bool {
    matches!(word, "gpu" | "nvidia" | "")
}

fn parse_count(text: &str) -> Option<Gpus> {
    match text {
        "all" | "-1" => Some(Gpus::All),
        number => number.parse().ok().map(|count| if count == 0 { Gpus::None } else { Gpus::Count(count) }),
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
    use proptest::prelude::*;

    #[test]
    fn capabilities_come_with_the_gpus() {
        let caps = |text: &str| parse(text).unwrap().capabilities.map(|c| c.names());
        assert_eq!(caps("all,\"capabilities=utility,compute\"").as_deref(), Some("compute,utility"));
        assert_eq!(caps("all,capabilities=utility,video").as_deref(), Some("utility,video"));
        assert_eq!(caps("all,capabilities=gpu"), None);
        assert!(parse("all,capabilities=telepathy").is_err());
    }

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

    #[test]
    fn without_the_option_the_batch_system_decides_then_the_host() {
        let from = |vars: &[(&'static str, &'static str)]| {
            asked(None, |name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)).unwrap().gpus
        };
        assert_eq!(from(&[]), Gpus::None);
        let slurm = from(&[("SLURM_STEP_GPUS", "3,0"), ("NVIDIA_VISIBLE_DEVICES", "all")]);
        assert_eq!(slurm, Gpus::Allotted(vec![Id::Minor(3), Id::Minor(0)]));
        assert_eq!(from(&[("NVIDIA_VISIBLE_DEVICES", "all")]), Gpus::Auto);
        assert_eq!(from(&[("NVIDIA_VISIBLE_DEVICES", "0,void")]), Gpus::None);
        assert_eq!(from(&[("NVIDIA_VISIBLE_DEVICES", "1")]), Gpus::Allotted(vec![Id::Index(1)]));
        assert!(matches!(asked(Some("none"), |_| Some("1")).unwrap().gpus, Gpus::None));
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "([a-zA-Z0-9=,:/\"-]|device=|capabilities=|GPU-|MIG-|é){0,12}") {
            let _ = (parse(&text), visible_devices(&text), id(&text));
        }
    }
}
