//! Which GPUs: what is asked for, out of what the caller can open.
//!
//! In: the text of `--gpus`, else what the host's environment says, and the [`Inventory`]. Out: [`Asked`], then the chosen
//! GPUs, or a refusal that names each that is missing and why. Pure. The image's environment has no part in it: CUDA
//! images bake `NVIDIA_VISIBLE_DEVICES=all` in.

use super::classify::Capabilities;
use super::inventory::{Gpu, Inventory, address};
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

/// A way to name a GPU.
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
fn visible_devices(list: &str) -> Result<Gpus> {
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
            .hint("write all, none, auto, a count, device=0,1 or device=GPU-…; `gpurun gpus` lists what is there")
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

fn id(text: &str) -> Result<Id> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("mig-") || is_pair(text) {
        return Err(Error::new(format!("`{text}` names a MIG instance, which gpurun cannot give a container yet"))
            .hint("name the whole GPU"));
    }
    if let Ok(index) = text.parse() {
        return Ok(Id::Index(index));
    }
    if lower.starts_with("gpu-") && lower[4..].bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Ok(Id::Uuid(lower));
    }
    match address(text) {
        Some(_) => Ok(Id::Pci(lower)),
        None => Err(Error::new(format!("`{text}` is no index, UUID or PCI address"))),
    }
}

/// `GPU:INSTANCE`
fn is_pair(text: &str) -> bool {
    text.split_once(':').is_some_and(|(gpu, mig)| gpu.parse::<u32>().is_ok() && mig.parse::<u32>().is_ok())
}

/// The GPUs that are chosen, in the order of their indices.
pub fn choose(gpus: &Gpus, inventory: &Inventory) -> Result<Vec<Gpu>> {
    let usable: Vec<_> = inventory.gpus.iter().filter(|gpu| gpu.unusable.is_none()).collect();
    let mut chosen: Vec<Gpu> = match gpus {
        Gpus::None => Vec::new(),
        Gpus::Auto | Gpus::All => usable.into_iter().cloned().collect(),
        Gpus::Count(wanted) if *wanted > usable.len() => {
            let what = format!("{wanted} GPUs are wanted, and {} can be opened", usable.len());
            return Err(with_reasons(Error::new(what), inventory));
        }
        Gpus::Count(wanted) => usable.into_iter().take(*wanted).cloned().collect(),
        Gpus::Devices(ids) => ids.iter().map(|id| openable(find(id, inventory)?)).collect::<Result<_>>()?,
        Gpus::Allotted(ids) => {
            let named = ids.iter().map(|id| find(id, inventory)).collect::<Result<Vec<_>>>()?;
            named.into_iter().filter(|gpu| gpu.unusable.is_none()).cloned().collect()
        }
    };
    if chosen.is_empty() && !matches!(gpus, Gpus::None) {
        return Err(with_reasons(Error::new("there is no GPU that can be opened"), inventory));
    }
    chosen.sort_by_key(|gpu| gpu.index);
    chosen.dedup();
    Ok(chosen)
}

fn openable(gpu: &Gpu) -> Result<Gpu> {
    match &gpu.unusable {
        None => Ok(gpu.clone()),
        Some(why) => Err(Error::new(format!("GPU {} ({}) cannot be used: {why}", gpu.index, gpu.pci))),
    }
}

fn with_reasons(error: Error, inventory: &Inventory) -> Error {
    let reasons =
        inventory.gpus.iter().filter_map(|gpu| Some(format!("GPU {}: {}", gpu.index, gpu.unusable.as_ref()?)));
    match inventory.gpus.is_empty() {
        true => error.hint("the driver is loaded and drives no GPU"),
        false => reasons.fold(error, Error::hint),
    }
}

fn find<'a>(id: &Id, inventory: &'a Inventory) -> Result<&'a Gpu> {
    let same = |gpu: &&Gpu| match id {
        Id::Index(index) => gpu.index == *index,
        Id::Minor(minor) => gpu.minor == *minor,
        Id::Uuid(start) => gpu.uuid.as_ref().is_some_and(|uuid| uuid.to_ascii_lowercase().starts_with(start)),
        Id::Pci(text) => address(&gpu.pci) == address(text),
    };
    let shown = match id {
        Id::Index(number) | Id::Minor(number) => number.to_string(),
        Id::Uuid(text) | Id::Pci(text) => text.clone(),
    };
    match inventory.gpus.iter().filter(same).collect::<Vec<_>>()[..] {
        [one] => Ok(one),
        [] => {
            let names = inventory
                .gpus
                .iter()
                .map(|g| g.uuid.as_ref().map_or(g.index.to_string(), |u| format!("{} ({u})", g.index)));
            let names: Vec<_> = names.collect();
            Err(Error::new(format!("there is no GPU `{shown}`")).hint(format!("there are: {}", names.join(", "))))
        }
        _ => Err(Error::new(format!("`{shown}` is the start of several UUIDs"))),
    }
}

/// `CUDA_VISIBLE_DEVICES` inside: the chosen GPUs by their numbers there. A host's value names some of what the caller
/// can open, and narrows it, as it would outside.
pub fn cuda_visible(hosts: Option<&str>, chosen: &[Gpu], inventory: &Inventory) -> String {
    let usable: Vec<_> = inventory.gpus.iter().filter(|gpu| gpu.unusable.is_none()).collect();
    let inside = |word: &str| {
        let gpu = match id(word.trim()).ok()? {
            Id::Index(index) => usable.get(index as usize).copied()?,
            other => find(&other, inventory).ok()?,
        };
        chosen.iter().position(|c| c == gpu)
    };
    let named: Vec<usize> = hosts.unwrap_or_default().split(',').filter_map(inside).collect();
    let numbers = if named.is_empty() { (0..chosen.len()).collect() } else { named };
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::inventory::Version;
    use proptest::prelude::*;

    /// Twelve GPUs whose nodes are numbered from the other end; the last two belong to somebody else.
    fn inventory() -> Inventory {
        let gpu = |index: u32| Gpu {
            index,
            minor: 11 - index,
            uuid: Some(format!("GPU-{index:08x}-0000-0000-0000-00000000000{}", index % 10)),
            pci: format!("0000:{:02x}:00.0", index + 1),
            model: "NVIDIA A100".into(),
            unusable: (index > 9).then(|| "EPERM".into()),
        };
        Inventory { version: Version::parse("550.1").unwrap(), gpus: (0..12).map(gpu).collect() }
    }

    fn chosen(text: &str) -> Option<Vec<u32>> {
        let gpus = parse(text).ok()?.gpus;
        Some(choose(&gpus, &inventory()).ok()?.iter().map(|gpu| gpu.index).collect())
    }

    #[test]
    fn dockers_grammar_and_a_little_more() {
        for (text, want) in [
            ("all", Some((0..10).collect())),
            ("-1", Some((0..10).collect())),
            ("2", Some(vec![0, 1])),
            ("count=3", Some(vec![0, 1, 2])),
            ("\"device=3,1\"", Some(vec![1, 3])),
            ("device=3,1", Some(vec![1, 3])),
            ("device=2,2", Some(vec![2])),
            ("device=all", Some((0..10).collect())),
            ("device=GPU-00000005", Some(vec![5])),
            ("device=gpu-00000005-0000", Some(vec![5])),
            ("device=0000:04:00.0", Some(vec![3])),
            ("device=00000000:04:00.0", Some(vec![3])),
            ("driver=nvidia,count=1,capabilities=utility", Some(vec![0])),
            ("capabilities=gpu", Some(vec![0])),
            ("none", Some(vec![])),
            ("0", Some(vec![])),
            ("count=00", Some(vec![])),
            ("device=10", None),
            ("device=12", None),
            ("11", None),
            ("device=GPU-0000000", None),
            ("device=0:1", None),
            ("device=MIG-1234", None),
            ("2,3", None),
            ("count=1,count=1", None),
            ("count=1,device=0", None),
            ("driver=amd", None),
            ("options=a", None),
            ("device=x", None),
            ("device=", None),
            ("x", None),
            ("", None),
            ("1.5", None),
        ] {
            assert_eq!(chosen(text), want, "{text}");
        }
        let caps = |text: &str| parse(text).unwrap().capabilities.map(|c| c.names());
        assert_eq!(caps("all,\"capabilities=utility,compute\"").as_deref(), Some("compute,utility"));
        assert_eq!(caps("all,capabilities=utility,video").as_deref(), Some("utility,video"));
        assert_eq!(caps("all,capabilities=gpu"), None);
        assert!(parse("all,capabilities=telepathy").is_err());
    }

    #[test]
    fn without_the_option_the_batch_system_decides_then_the_host() {
        let from = |vars: &[(&'static str, &'static str)]| {
            asked(None, |name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)).unwrap().gpus
        };
        assert_eq!(from(&[]), Gpus::None);
        let slurm = from(&[("SLURM_STEP_GPUS", "3,0"), ("NVIDIA_VISIBLE_DEVICES", "all")]);
        assert_eq!(slurm, Gpus::Allotted(vec![Id::Minor(3), Id::Minor(0)]));
        let indices: Vec<_> = choose(&slurm, &inventory()).unwrap().iter().map(|gpu| gpu.index).collect();
        assert_eq!(indices, [8], "minor 0 is not this job's");
        assert_eq!(from(&[("NVIDIA_VISIBLE_DEVICES", "all")]), Gpus::Auto);
        assert_eq!(from(&[("NVIDIA_VISIBLE_DEVICES", "0,void")]), Gpus::None);
        assert_eq!(from(&[("NVIDIA_VISIBLE_DEVICES", "1")]), Gpus::Allotted(vec![Id::Index(1)]));
        assert!(matches!(asked(Some("none"), |_| Some("1")).unwrap().gpus, Gpus::None));
    }

    #[test]
    fn what_is_missing_is_explained() {
        let error = choose(&Gpus::Count(11), &inventory()).unwrap_err();
        assert_eq!(format!("{error:#}"), "11 GPUs are wanted, and 10 can be opened");
        assert_eq!(error.hints(), ["GPU 10: EPERM", "GPU 11: EPERM"]);
        let error = choose(&Gpus::Devices(vec![Id::Index(11)]), &inventory()).unwrap_err();
        assert_eq!(error.to_string(), "GPU 11 (0000:0c:00.0) cannot be used: EPERM");
    }

    #[test]
    fn numbers_inside_are_in_the_order_of_numbers() {
        let inventory = inventory();
        let all = choose(&Gpus::All, &inventory).unwrap();
        assert_eq!(cuda_visible(None, &all, &inventory), "0,1,2,3,4,5,6,7,8,9");
        let some = choose(&Gpus::Devices(vec![Id::Index(9), Id::Index(2)]), &inventory).unwrap();
        assert_eq!(cuda_visible(None, &some, &inventory), "0,1");
        assert_eq!(cuda_visible(Some("9"), &some, &inventory), "1");
        assert_eq!(cuda_visible(Some("GPU-00000009,GPU-00000002"), &some, &inventory), "1,0");
        assert_eq!(cuda_visible(Some("5"), &some, &inventory), "0,1");
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "([a-zA-Z0-9=,:\"-]|device=|capabilities=|GPU-|é){0,12}") {
            if let Ok(asked) = parse(&text) {
                let _ = choose(&asked.gpus, &inventory());
            }
            let _ = visible_devices(&text);
        }
    }
}
