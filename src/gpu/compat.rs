//! Forward compatibility: whether a CUDA image's own, newer libcuda is used in place of the host's.
//!
//! In: what is in the image's `/usr/local/cuda/compat`, the driver, the GPUs. Out: a verdict with its reason. Pure. The rule
//! is that of nvidia-container-toolkit (cmd/nvidia-cdi-hook/cudacompat), and NVIDIA supports it on data-center GPUs only:
//! on others CUDA ends with error 804.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::inventory::{Gpu, Version};
use super::require::Offer;

/// Where CUDA images have it.
pub const DIRECTORY: &str = "/usr/local/cuda/compat";

/// `--cuda-compat`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Where it is needed and supported
    #[default]
    Auto,
    /// If the image has it
    On,
    /// Not at all
    Off,
}

/// The libcuda in an image's compatibility directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compat {
    /// The driver version it belongs to, by its file name.
    pub version: Version,
    /// Its note, if it has one.
    pub note: Option<Note>,
    /// SONAMEs of the libraries beside it.
    pub sonames: Vec<String>,
}

/// What the section `.note.cuda.fwd_compatibility` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Note {
    /// `12.4`
    #[serde(rename = "CUDA version")]
    cuda: String,
    /// Branches of drivers it works with.
    #[serde(rename = "Driver")]
    drivers: Vec<u32>,
}

impl Note {
    /// Reads the note's text.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Whether the image's libcuda is used, and why.
pub fn decide(mode: Mode, found: Option<&Compat>, offer: &Offer, gpus: &[Gpu]) -> (bool, String) {
    let Some(compat) = found else { return (false, "the image has none".into()) };
    match mode {
        Mode::Off => (false, "--cuda-compat off".into()),
        Mode::On => (true, "--cuda-compat on".into()),
        Mode::Auto => match refusal(compat, offer, gpus) {
            None => (true, format!("the image's {} is newer than the host's driver", compat.version)),
            Some(why) => (false, why),
        },
    }
}

/// The verdict as `explain` shows it.
pub fn decision(used: bool, why: &str) -> String {
    format!("CUDA forward compatibility: {} ({why})", if used { "on" } else { "off" })
}

fn refusal(compat: &Compat, offer: &Offer, gpus: &[Gpu]) -> Option<String> {
    let major = offer.driver.major();
    let newer = match &compat.note {
        Some(note) if !note.drivers.contains(&major) => {
            return Some(format!("the image's {} does not work with drivers of branch {major}", compat.version));
        }
        Some(note) => offer.cuda.zip(version(&note.cuda)).is_some_and(|(host, image)| image > host),
        None => major < compat.version.major(),
    };
    if !newer {
        return Some("the host's driver is as new".into());
    }
    let other = gpus.iter().find(|gpu| !data_center(gpu))?;
    Some(format!("{} is no data-center GPU, and CUDA would end with error 804", other.model))
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// By the name of the product, which refuses most without NVML, and by its brand, as far as that is known: since Ampere
/// NVML calls the brand of data-center GPUs by the name of NVIDIA alone.
fn data_center(gpu: &Gpu) -> bool {
    let named = !["GeForce", "Quadro", "TITAN", "RTX", "GTX", "NVS"].iter().any(|line| gpu.model.contains(line));
    named && gpu.brand.as_ref().is_none_or(|brand| matches!(brand.as_str(), "tesla" | "nvidia" | "unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(mode: Mode, note: Option<&str>, driver: &str, model: &str) -> bool {
        decided_for(mode, note, driver, model, None)
    }

    fn decided_for(mode: Mode, note: Option<&str>, driver: &str, model: &str, brand: Option<&str>) -> bool {
        let compat = Compat {
            version: Version::parse("560.35.05").unwrap(),
            note: note.map(|n| Note::parse(n).unwrap()),
            sonames: vec!["libcuda.so.1".into()],
        };
        let gpu = Gpu { model: model.into(), brand: brand.map(str::to_owned), ..Gpu::default() };
        decide(mode, Some(&compat), &Offer::of(&Version::parse(driver).unwrap(), None), &[gpu]).0
    }

    #[test]
    fn the_note_decides_then_the_branch() {
        let note = Some(r#"{"format":1,"CUDA version":"12.6","Driver":[470,535,550],"Device":[1]}"#);
        let a100 = "NVIDIA A100-SXM4-80GB";
        assert!(decided(Mode::Auto, note, "550.163.01", a100));
        assert!(!decided(Mode::Auto, note, "560.35.05", a100), "not in its list");
        assert!(!decided(Mode::Auto, note, "545.29.06", a100), "not in its list");
        assert!(decided(Mode::Auto, None, "550.163.01", a100));
        assert!(!decided(Mode::Auto, None, "570.1", a100));
        assert!(!decided(Mode::Auto, note, "550.163.01", "NVIDIA GeForce RTX 3090"));
        assert!(decided(Mode::On, note, "570.1", "NVIDIA GeForce RTX 3090"));
        assert!(!decided(Mode::Off, note, "550.163.01", a100));
        assert_eq!(Note::parse("{}"), None);
    }

    #[test]
    fn the_brand_says_what_the_name_does_not() {
        for (brand, want) in [
            (None, true),
            (Some("tesla"), true),
            (Some("nvidia"), true),
            (Some("geforce"), false),
            (Some("grid"), false),
        ] {
            assert_eq!(decided_for(Mode::Auto, None, "550.163.01", "NVIDIA X1000", brand), want, "{brand:?}");
        }
    }
}
