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
    let mut warning = None;
    for (name, text) in &wanted(env) {
        for gpu in gpus {
            let met = alternatives(text, offer, gpu);
            match met.map_err(|e| Error::new(format!("read the image's {name}")).because(e))? {
                Some(true) => {}
                Some(false) => return Err(unmet(name, text, offer, gpu)),
                None => warning = Some(unchecked(name, text, offer, gpu)),
            }
        }
    }
    Ok(warning)
}

/// What an image requires, and the variables that say it; nothing if one says that they do not count.
fn wanted(env: &[String]) -> Vec<(&str, String)> {
    let vars: Vec<_> = env.iter().filter_map(|entry| entry.split_once('=')).collect();
    let var = |name: &str| vars.iter().rev().find(|(n, _)| *n == name).map(|(_, value)| *value);
    if var("NVIDIA_DISABLE_REQUIRE").is_some_and(|v| !matches!(v, "" | "0" | "false" | "False" | "f")) {
        return Vec::new();
    }
    let named =
        |(name, _): &&(&str, &str)| name.starts_with("NVIDIA_REQUIRE_") && !name.starts_with("NVIDIA_REQUIRE_JETPACK");
    let mut wanted: Vec<_> = vars.iter().filter(named).map(|(n, v)| (*n, (*v).to_owned())).collect();
    if let (None, Some(version)) = (var("NVIDIA_REQUIRE_CUDA"), var("CUDA_VERSION").and_then(legacy)) {
        wanted.push(("CUDA_VERSION", version));
    }
    wanted
}

/// What an image of before `NVIDIA_REQUIRE_CUDA` wants (image/cuda_image.go:101 of nvidia-container-toolkit).
fn legacy(version: &str) -> Option<String> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    Some(format!("cuda>={}.{}", parts.next()?.ok()?, parts.next()?.ok()?))
}

/// What of the properties that a requirement names is not known.
fn unchecked(name: &str, text: &str, offer: &Offer, gpu: &Gpu) -> String {
    let all = [
        ("cuda", offer.cuda.is_none(), "the CUDA version of the driver"),
        ("brand", gpu.brand.is_none(), "the brand of the GPU"),
        ("arch", gpu.compute.is_none(), "the compute capability of the GPU"),
    ];
    let unknown = all.iter().filter(|(property, unknown, _)| *unknown && text.contains(property));
    let unknown = unknown.map(|(_, _, what)| *what).collect::<Vec<_>>().join(", ");
    format!("whether the image's `{name}={text}` holds was not checked: not known: {unknown}")
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
    let all = text.split_whitespace().map(|text| clause(text, offer, gpu)).collect::<Result<Vec<_>>>()?;
    Ok(match all.is_empty() || all.contains(&Some(true)) {
        true => Some(true),
        false => (!all.contains(&None)).then_some(false),
    })
}

/// Whether all terms of an alternative hold.
fn clause(text: &str, offer: &Offer, gpu: &Gpu) -> Result<Option<bool>> {
    let terms = text.split(',').filter(|text| !text.is_empty());
    let all = terms.map(|text| term(text, offer, gpu)).collect::<Result<Vec<_>>>()?;
    Ok(match all.contains(&Some(false)) {
        true => Some(false),
        false => (!all.contains(&None)).then_some(true),
    })
}

/// `property op value`
fn term(text: &str, offer: &Offer, gpu: &Gpu) -> Result<Option<bool>> {
    let bad = || Error::new(format!("`{text}` is no requirement"));
    let (property, op, value) = divide(text).ok_or_else(bad)?;
    let holds = operator(op).ok_or_else(bad)?;
    let numbers = |has: Option<Vec<u32>>| {
        let wanted: Option<Vec<_>> = value.split('.').map(|number| number.parse().ok()).collect();
        let wanted = wanted.ok_or_else(bad)?;
        Ok(has.map(|has| holds(compare(&has, &wanted))))
    };
    match property {
        "driver" => numbers(Some(offer.driver.numbers())),
        "cuda" => numbers(offer.cuda.map(|(major, minor)| vec![major, minor])),
        "arch" => numbers(gpu.compute.as_ref().map(Version::numbers)),
        "brand" if matches!(op, "=" | "!=") && !value.is_empty() => {
            Ok(gpu.brand.as_ref().map(|brand| brand.eq_ignore_ascii_case(value) == (op == "=")))
        }
        _ => Err(bad()),
    }
}

fn divide(text: &str) -> Option<(&str, &str, &str)> {
    const OPERATORS: [char; 4] = ['<', '>', '=', '!'];
    let (property, rest) = text.split_at(text.find(OPERATORS)?);
    let value = rest.trim_start_matches(OPERATORS);
    Some((property, &rest[..rest.len() - value.len()], value))
}

fn operator(op: &str) -> Option<fn(Ordering) -> bool> {
    Some(match op {
        "=" => Ordering::is_eq,
        "!=" => Ordering::is_ne,
        "<" => Ordering::is_lt,
        "<=" => Ordering::is_le,
        ">" => Ordering::is_gt,
        ">=" => Ordering::is_ge,
        _ => return None,
    })
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
