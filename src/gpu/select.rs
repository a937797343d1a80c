//! Which GPUs are asked for.
//!
//! In: the text of `--gpus`, else what the host's environment says. Out: [`Asked`], by which [`super::choose`] chooses. Pure.
//! The image's environment has no part in it: CUDA images bake `NVIDIA_VISIBLE_DEVICES=all` in.

use super::classify::Capabilities;
use super::id::{Id, id};
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
    let slurm = [("SLURM_STEP_GPUS", "$SLURM_STEP_GPUS"), ("SLURM_JOB_GPUS", "$SLURM_JOB_GPUS")];
    if let Some((list, why)) = slurm.into_iter().find_map(|(name, why)| Some((var(name)?, why))) {
        return Ok(Asked { gpus: of_slurm(list), capabilities: None, why });
    }
    let (gpus, why) = match var("NVIDIA_VISIBLE_DEVICES") {
        None => (Gpus::None, "--gpus was not given"),
        Some(list) => (visible_devices(list)?, "the host's $NVIDIA_VISIBLE_DEVICES"),
    };
    Ok(Asked { gpus, capabilities: None, why })
}

/// Slurm counts as nodes are numbered. A list that is no such one says at least that there are GPUs.
fn of_slurm(list: &str) -> Gpus {
    let ids = list.split(',').map(|id| Some(Id::Minor(id.trim().parse().ok()?))).collect::<Option<_>>();
    ids.map_or(Gpus::Auto, Gpus::Allotted)
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

/// Docker's grammar (docker/cli, opts/gpus.go), and `none` and `auto`.
pub fn parse(text: &str) -> Result<Asked> {
    let asked = |gpus, capabilities| Asked { gpus, capabilities, why: "--gpus" };
    match text {
        "none" => Ok(asked(Gpus::None, None)),
        "auto" => Ok(asked(Gpus::Auto, None)),
        _ => {
            let spec = Spec::read(text)?;
            Ok(asked(spec.gpus()?, spec.capabilities()?))
        }
    }
}

/// CSV of `key=value`, or a bare count or `all`.
#[derive(Default)]
struct Spec<'a> {
    text: &'a str,
    count: Option<Gpus>,
    devices: Option<Vec<String>>,
    capabilities: Option<Vec<String>>,
    /// The key whose list the field before belongs to.
    list: &'static str,
}

impl<'a> Spec<'a> {
    fn read(text: &'a str) -> Result<Self> {
        let mut spec = Self { text, ..Self::default() };
        for field in fields(text.as_bytes()) {
            let field = String::from_utf8_lossy(&field).into_owned();
            match field.split_once('=') {
                Some((key, value)) => spec.set(key, value)?,
                None => spec.go_on(field)?,
            }
        }
        Ok(spec)
    }

    /// A bare word after `device=` or `capabilities=` goes on with that list: Docker wants it quoted, but it can mean
    /// nothing else.
    fn go_on(&mut self, word: String) -> Result<()> {
        let list = match self.list {
            "device" if id(&word).is_ok() => &mut self.devices,
            "capabilities" if Capabilities::is_name(&word) || is_gpu_word(&word) => &mut self.capabilities,
            _ => return self.set("count", &word),
        };
        list.get_or_insert_default().push(word);
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let words = || value.split(',').map(|word| word.trim().to_owned()).collect();
        let repeated = match key {
            "count" => self.count.replace(self.parse_count(value)?).is_some(),
            "device" => self.devices.replace(words()).is_some(),
            "capabilities" => self.capabilities.replace(words()).is_some(),
            "driver" if matches!(value, "" | "nvidia") => false,
            "driver" => return Err(self.bad(&format!("there is no driver `{value}`, only nvidia"))),
            "options" if value.is_empty() => false,
            "options" => return Err(self.bad("no options are known to be passed on")),
            _ => return Err(self.bad(&format!("the key `{key}` is not known"))),
        };
        if repeated {
            return Err(self.bad(&format!("`{key}` is given twice")));
        }
        self.list = ["device", "capabilities"].into_iter().find(|k| *k == key).unwrap_or_default();
        Ok(())
    }

    fn parse_count(&self, text: &str) -> Result<Gpus> {
        match (text, text.parse()) {
            ("all" | "-1", _) => Ok(Gpus::All),
            (_, Ok(0)) => Ok(Gpus::None),
            (_, Ok(count)) => Ok(Gpus::Count(count)),
            (_, Err(_)) => Err(self.bad(&format!("`{text}` is no count"))),
        }
    }

    fn gpus(&self) -> Result<Gpus> {
        match (&self.count, self.devices.as_deref()) {
            (Some(_), Some(_)) => Err(self.bad("it names both a count and devices")),
            (None, None) => Ok(Gpus::Count(1)),
            (Some(count), None) => Ok(count.clone()),
            (None, Some([name])) if name == "all" => Ok(Gpus::All),
            (None, Some([name])) if name == "none" => Ok(Gpus::None),
            (None, Some(names)) => {
                let ids = names.iter().map(|name| id(name)).collect::<Result<_>>();
                Ok(Gpus::Devices(ids.map_err(|e| self.bad("it does not name devices").because(e))?))
            }
        }
    }

    fn capabilities(&self) -> Result<Option<Capabilities>> {
        let words = self.capabilities.iter().flatten().map(String::as_str);
        let named: Vec<_> = words.filter(|word| !is_gpu_word(word)).collect();
        (!named.is_empty()).then(|| Capabilities::parse(&named.join(","), "--gpus")).transpose()
    }

    fn bad(&self, why: &str) -> Error {
        Error::new(format!("`--gpus {}`: {why}", self.text))
            .hint("write all, none, auto, a count, device=0,1, device=GPU-… or device=MIG-…; `gpurun gpus` lists what is there")
    }
}

/// What Docker itself selects a driver by.
fn is_gpu_word(word: &str) -> bool {
    matches!(word, "gpu" | "nvidia" | "")
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
