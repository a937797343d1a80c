//! `NVIDIA_REQUIRE_*`: what an image wants of the driver and the GPUs.
//!
//! In: the image's environment, what the host offers, the chosen GPUs. Out: nothing, or a refusal that names both. Pure. The
//! language is libnvidia-container's (cli/dsl.c): every variable must hold, for every GPU; in one, a space is or and a comma
//! is and.

use std::cmp::Ordering;

use super::inventory::{Gpu, Version};
use crate::error::{Error, Result};

/// What the host has.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The loaded driver.
    pub driver: Version,
    /// The CUDA version it offers; unknown for a driver that is newer than this program, unless NVML says.
    pub cuda: Option<(u32, u32)>,
}

/// The newest CUDA that each driver branch offers (CUDA release notes, table "CUDA Toolkit and Corresponding Driver
/// Versions"). It is fixed when a branch is released.
const CUDA_OF_BRANCH: &[(u32, (u32, u32))] = &[
    (418, (10, 1)),
    (440, (10, 2)),
    (450, (11, 0)),
    (455, (11, 1)),
    (460, (11, 2)),
    (465, (11, 3)),
    (470, (11, 4)),
    (495, (11, 5)),
    (510, (11, 6)),
    (515, (11, 7)),
    (520, (11, 8)),
    (525, (12, 0)),
    (530, (12, 1)),
    (535, (12, 2)),
    (545, (12, 3)),
    (550, (12, 4)),
    (555, (12, 5)),
    (560, (12, 6)),
    (565, (12, 7)),
    (570, (12, 8)),
    (575, (12, 9)),
    (580, (13, 0)),
    (590, (13, 1)),
];

impl Offer {
    /// What a driver offers, by NVML's word for CUDA, else by its branch.
    pub fn of(driver: &Version, cuda: Option<(u32, u32)>) -> Self {
        let branch = || CUDA_OF_BRANCH.iter().find(|(branch, _)| *branch == driver.major());
        Self { driver: driver.clone(), cuda: cuda.or_else(|| branch().map(|(_, cuda)| *cuda)) }
    }
}

/// Checks all requirements of an image, for each of the GPUs. What depends on something that is not known (a GPU's brand or
/// architecture) comes back as a warning.
pub fn check(env: &[String], offer: &Offer, gpus: &[Gpu]) -> Result<Option<String>> {
    let vars: Vec<_> = env.iter().filter_map(|entry| entry.split_once('=')).collect();
    let var = |name: &str| vars.iter().rev().find(|(n, _)| *n == name).map(|(_, value)| *value);
    if var("NVIDIA_DISABLE_REQUIRE").is_some_and(|v| !matches!(v, "" | "0" | "false" | "False" | "f")) {
        return Ok(None);
    }
    let named =
        |(name, _): &&(&str, &str)| name.starts_with("NVIDIA_REQUIRE_") && !name.starts_with("NVIDIA_REQUIRE_JETPACK");
    let mut wanted: Vec<(&str, String)> = vars.iter().filter(named).map(|(n, v)| (*n, (*v).to_owned())).collect();
    if let (None, Some(version)) = (var("NVIDIA_REQUIRE_CUDA"), var("CUDA_VERSION").and_then(legacy)) {
        wanted.push(("CUDA_VERSION", version));
    }
    let mut warning = None;
    for (name, text) in &wanted {
        for gpu in gpus {
            let met = alternatives(text, offer, gpu);
            match met.map_err(|e| Error::new(format!("read the image's {name}")).because(e))? {
                Some(true) => {}
                Some(false) => return Err(unmet(name, text, offer, gpu)),
                None => {
                    warning = Some(format!(
                        "whether the image's `{name}={text}` holds was not checked: {}",
                        unknown(text, offer, gpu)
                    ));
                }
            }
        }
    }
    Ok(warning)
}

/// What an image of before `NVIDIA_REQUIRE_CUDA` wants (image/cuda_image.go:101 of nvidia-container-toolkit).
fn legacy(version: &str) -> Option<String> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    Some(format!("cuda>={}.{}", parts.next()?.ok()?, parts.next()?.ok()?))
}

/// What of the properties that a requirement names is not known.
fn unknown(text: &str, offer: &Offer, gpu: &Gpu) -> String {
    let all = [
        ("cuda", offer.cuda.is_none(), "the CUDA version of the driver"),
        ("brand", gpu.brand.is_none(), "the brand of the GPU"),
        ("arch", gpu.compute.is_none(), "the compute capability of the GPU"),
    ];
    let named = all.iter().filter(|(property, unknown, _)| *unknown && text.contains(property));
    format!("not known: {}", named.map(|(_, _, what)| *what).collect::<Vec<_>>().join(", "))
}

fn unmet(name: &str, text: &str, offer: &Offer, gpu: &Gpu) -> Error {
    let cuda = offer.cuda.map_or_else(String::new, |(major, minor)| format!(", which offers CUDA {major}.{minor}"));
    let wanted = match text.split(&[' ', ','][..]).next().and_then(|first| first.strip_prefix("cuda>=")) {
        Some(version) => format!("CUDA {version} or newer ({name})"),
        None => format!("`{text}` ({name})"),
    };
    let brand = gpu.brand.as_ref().filter(|_| text.contains("brand")).map(|brand| format!("brand {brand}"));
    let arch = gpu.compute.as_ref().filter(|_| text.contains("arch")).map(|arch| format!("architecture {arch}"));
    let gpu = match brand.into_iter().chain(arch).collect::<Vec<_>>().join(" and ") {
        empty if empty.is_empty() => empty,
        facts => format!(", and GPU {} of {facts}", gpu.index),
    };
    Error::new(format!("the image wants {wanted}, and the host has driver {}{cuda}{gpu}", offer.driver))
        .hint("an image for an older CUDA, a newer driver, or `--no-require` to try it anyway")
}

/// Whether one of the alternatives holds; `None` if that depends on what is not known.
fn alternatives(text: &str, offer: &Offer, gpu: &Gpu) -> Result<Option<bool>> {
    let all = text.split_whitespace().map(|clause| {
        let terms =
            clause.split(',').filter(|t| !t.is_empty()).map(|t| term(t, offer, gpu)).collect::<Result<Vec<_>>>()?;
        Ok(if terms.contains(&Some(false)) {
            Some(false)
        } else if terms.contains(&None) {
            None
        } else {
            Some(true)
        })
    });
    let all = all.collect::<Result<Vec<_>>>()?;
    Ok(if all.is_empty() || all.contains(&Some(true)) {
        Some(true)
    } else if all.contains(&None) {
        None
    } else {
        Some(false)
    })
}

/// `property op value`
fn term(text: &str, offer: &Offer, gpu: &Gpu) -> Result<Option<bool>> {
    let bad = || Error::new(format!("`{text}` is no requirement"));
    let at = text.find(['<', '>', '=', '!']).ok_or_else(bad)?;
    let (property, rest) = text.split_at(at);
    let value = rest.trim_start_matches(['<', '>', '=', '!']);
    let op = &rest[..rest.len() - value.len()];
    let holds: fn(Ordering) -> bool = match op {
        "=" => Ordering::is_eq,
        "!=" => Ordering::is_ne,
        "<" => Ordering::is_lt,
        "<=" => Ordering::is_le,
        ">" => Ordering::is_gt,
        ">=" => Ordering::is_ge,
        _ => return Err(bad()),
    };
    let numbers = || value.split('.').map(str::parse).collect::<std::result::Result<Vec<u32>, _>>().map_err(|_| bad());
    match property {
        "driver" => Ok(Some(holds(compare(&offer.driver.numbers(), &numbers()?)))),
        "cuda" => {
            let wanted = numbers()?;
            Ok(offer.cuda.map(|(major, minor)| holds(compare(&[major, minor], &wanted))))
        }
        "arch" => {
            let wanted = numbers()?;
            Ok(gpu.compute.as_ref().map(|arch| holds(compare(&arch.numbers(), &wanted))))
        }
        "brand" if matches!(op, "=" | "!=") && !value.is_empty() => {
            Ok(gpu.brand.as_ref().map(|brand| brand.eq_ignore_ascii_case(value) == (op == "=")))
        }
        _ => Err(bad()),
    }
}

/// Numbers that are not written count as zero.
fn compare(a: &[u32], b: &[u32]) -> Ordering {
    let number = |list: &[u32], i: usize| list.get(i).copied().unwrap_or_default();
    let unequal = (0..a.len().max(b.len())).map(|i| number(a, i).cmp(&number(b, i))).find(|o| o.is_ne());
    unequal.unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer(driver: &str) -> Offer {
        Offer::of(&Version::parse(driver).unwrap(), None)
    }

    /// `Some(true)`: runs; `None`: runs with a warning; `Some(false)`: refused.
    fn verdict(env: &[&str], driver: &str) -> Option<bool> {
        verdict_for(env, &offer(driver), &[Gpu::default()])
    }

    fn verdict_for(env: &[&str], offer: &Offer, gpus: &[Gpu]) -> Option<bool> {
        let env: Vec<_> = env.iter().map(ToString::to_string).collect();
        match check(&env, offer, gpus) {
            Ok(None) => Some(true),
            Ok(Some(_)) => None,
            Err(_) => Some(false),
        }
    }

    #[test]
    fn spaces_are_or_and_commas_and() {
        for (text, driver, want) in [
            ("cuda>=12.2", "535.54.03", Some(true)),
            ("cuda>=12.4", "535.54.03", Some(false)),
            ("cuda>=12.4 driver>=535,driver<536", "535.54.03", Some(true)),
            ("cuda>=12.4 brand=tesla,driver>=535,driver<536", "535.54.03", None),
            ("cuda>=12.4 brand=tesla,driver>=470,driver<471", "535.54.03", Some(false)),
            ("driver!=535.54.3", "535.54.03", Some(false)),
            ("driver=535", "535.54.03", Some(false)),
            ("driver<=550.163.01", "550.163.01", Some(true)),
            ("arch>=8.0", "550.163.01", None),
            ("", "550.163.01", Some(true)),
            ("cuda>=12.4", "999.1", None),
            ("colour=red", "550.163.01", Some(false)),
            ("brand<tesla", "550.163.01", Some(false)),
            ("cuda=>1", "550.163.01", Some(false)),
        ] {
            assert_eq!(verdict(&[&format!("NVIDIA_REQUIRE_CUDA={text}")], driver), want, "{text} on {driver}");
        }
    }

    #[test]
    fn every_variable_counts() {
        let all = ["NVIDIA_REQUIRE_CUDA=cuda>=11.0", "NVIDIA_REQUIRE_DRIVER=driver>=560", "NVIDIA_REQUIRE_JETPACK=x"];
        assert_eq!(verdict(&all, "550.163.01"), Some(false));
        assert_eq!(verdict(&all, "560.1"), Some(true));
        assert_eq!(verdict(&["CUDA_VERSION=12.9.1"], "550.163.01"), Some(false));
        assert_eq!(verdict(&["CUDA_VERSION=12.9.1", "NVIDIA_REQUIRE_CUDA="], "550.163.01"), Some(true));
        assert_eq!(verdict(&["NVIDIA_REQUIRE_X=driver>=560", "NVIDIA_DISABLE_REQUIRE=1"], "550.163.01"), Some(true));
    }

    #[test]
    fn the_refusal_names_both_sides() {
        let env = ["NVIDIA_REQUIRE_CUDA=cuda>=12.4 driver>=600".to_owned()];
        let error = check(&env, &offer("535.54.03"), &[Gpu::default()]).unwrap_err();
        let want = "the image wants CUDA 12.4 or newer (NVIDIA_REQUIRE_CUDA), and the host has driver 535.54.03, which offers CUDA 12.2";
        assert_eq!(error.to_string(), want);
        let gpu = gpu("geforce", "8.6");
        let env = ["NVIDIA_REQUIRE_CUDA=brand=tesla,arch>=9.0".to_owned()];
        let error = check(&env, &offer("550.1"), &[gpu]).unwrap_err();
        assert!(error.to_string().ends_with("and GPU 0 of brand geforce and architecture 8.6"), "{error}");
    }

    fn gpu(brand: &str, compute: &str) -> Gpu {
        Gpu { brand: Some(brand.into()), compute: Version::parse(compute), ..Gpu::default() }
    }

    #[test]
    fn what_nvml_says_decides() {
        let gpus = [gpu("tesla", "7.5"), gpu("nvidia", "8.0")];
        let newer = Offer::of(&Version::parse("999.1").unwrap(), Some((14, 2)));
        for (text, want) in [
            ("brand=Tesla", Some(false)),
            ("brand=tesla brand=nvidia", Some(true)),
            ("brand!=geforce,arch>=7.5", Some(true)),
            ("arch>=8", Some(false)),
            ("cuda>=14.2", Some(true)),
            ("cuda>=14.3 brand=tesla,driver>=1 arch=8.0,cuda<15", Some(true)),
        ] {
            assert_eq!(verdict_for(&[&format!("NVIDIA_REQUIRE_CUDA={text}")], &newer, &gpus), want, "{text}");
        }
        let half = [gpu("tesla", "7.5"), Gpu::default()];
        assert_eq!(verdict_for(&["NVIDIA_REQUIRE_CUDA=brand=tesla"], &newer, &half), None);
        let error = check(&["NVIDIA_REQUIRE_X=brand=a,arch=1".into()], &newer, &half[1..]).unwrap().unwrap();
        assert!(error.ends_with("not known: the brand of the GPU, the compute capability of the GPU"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "(cuda|driver|brand|arch|[<>=!., 0-9]|é){0,12}") {
            let _ = check(&[format!("NVIDIA_REQUIRE_CUDA={text}")], &offer("550.1"), &[Gpu::default()]);
        }
    }
}
