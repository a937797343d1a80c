//! The GPUs and MIG instances that are chosen: what is asked for, out of what the caller can use.
//!
//! In: [`Gpus`] and the [`Inventory`]. Out: the chosen GPUs, each whole or with the chosen ones of its MIG instances; or a
//! refusal that names each that is missing and why. Pure.

use super::find::{Pick, find, reasons};
use super::inventory::{Gpu, Inventory};
use super::mig::Instance;
use super::select::Gpus;
use crate::error::{Error, Result};

/// The GPUs that are chosen, in the order of their indices. A GPU with MIG on is chosen as all of its instances, as NVIDIA's
/// toolkit does for `all`: as a whole nobody can use it.
pub fn choose(gpus: &Gpus, inventory: &Inventory) -> Result<Vec<Gpu>> {
    let usable: Vec<_> = inventory.gpus.iter().filter(|gpu| gpu.unusable.is_none()).collect();
    let first = |number| usable.iter().take(number).map(|gpu| Pick { gpu, part: None }).collect::<Vec<_>>();
    let picked = match gpus {
        Gpus::None => Vec::new(),
        Gpus::Auto | Gpus::All => first(usable.len()),
        Gpus::Count(wanted) if *wanted > usable.len() => {
            let what = format!("{wanted} GPUs are wanted, and {} can be opened", usable.len());
            return Err(with_reasons(Error::new(what), inventory));
        }
        Gpus::Count(wanted) => first(*wanted),
        Gpus::Devices(ids) => ids.iter().map(|id| openable(find(id, inventory)?)).collect::<Result<_>>()?,
        Gpus::Allotted(ids) => {
            let named = ids.iter().map(|id| find(id, inventory)).collect::<Result<Vec<_>>>()?;
            named.into_iter().filter(|pick| pick.unusable().is_none()).collect()
        }
    };
    if picked.is_empty() && !matches!(gpus, Gpus::None) {
        return Err(with_reasons(Error::new("there is no GPU that can be opened"), inventory));
    }
    Ok(inventory.gpus.iter().filter_map(|gpu| gathered(gpu, &picked)).collect())
}

/// What is picked of a GPU: itself, with those instances alone that are.
fn gathered(gpu: &Gpu, picked: &[Pick]) -> Option<Gpu> {
    let parts: Vec<_> = picked.iter().filter(|pick| pick.gpu.index == gpu.index).map(|pick| pick.part).collect();
    let all = parts.contains(&None);
    let chosen = |part: &&Instance| part.unusable.is_none() && (all || parts.contains(&Some(*part)));
    let instances = gpu.instances.iter().filter(chosen).cloned().collect();
    (!parts.is_empty()).then(|| Gpu { instances, ..gpu.clone() })
}

fn openable(pick: Pick) -> Result<Pick> {
    let name = || match pick.part {
        None => format!("GPU {} ({})", pick.gpu.index, pick.gpu.pci),
        Some(part) => format!("MIG instance {}:{} ({})", pick.gpu.index, part.index, part.uuid),
    };
    match pick.unusable() {
        None => Ok(pick),
        Some(why) => Err(Error::new(format!("{} cannot be used: {why}", name()))),
    }
}

fn with_reasons(error: Error, inventory: &Inventory) -> Error {
    match inventory.gpus.is_empty() {
        true => error.hint("the driver is loaded and drives no GPU"),
        false => reasons(inventory, |_| true).fold(error, Error::hint),
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::Id;
    use super::super::sample::{divided, inventory};
    use super::super::select::{parse, visible_devices};
    use super::*;
    use proptest::prelude::*;

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
    }

    #[test]
    fn mig_instances_are_chosen_by_number_by_uuid_and_by_place() {
        let inventory = divided();
        let chosen = |text: &str| {
            let chosen = choose(&parse(text).ok()?.gpus, &inventory).ok()?;
            let shown = |gpu: &Gpu| {
                let parts: Vec<_> = gpu.instances.iter().map(|part| format!(":{}", part.index)).collect();
                format!("{}{}", gpu.index, parts.concat())
            };
            Some(chosen.iter().map(shown).collect::<Vec<_>>().join(" "))
        };
        for (text, want) in [
            ("device=1:0", Some("1:0")),
            ("device=1:1,1:0,0", Some("0 1:0:1")),
            ("device=MIG-10", Some("1:0")),
            ("device=mig-10000000-0000-0000-0000-000000000000", Some("1:0")),
            ("device=MIG-1", None),
            ("device=MIG-GPU-00000001-0000-0000-0000-000000000001/8/0", Some("1:1")),
            ("device=MIG-GPU-00000001-0000-0000-0000-000000000001/8/1", None),
            ("device=1:2", None),
            ("device=1:3", None),
            ("device=0:0", None),
            ("device=12:0", None),
            ("device=1,2", Some("1:0:1 2:0")),
            ("device=1,1:0", Some("1:0:1")),
            ("2", Some("0 1:0:1")),
            ("all", Some("0 1:0:1 2:0 3 4 5 6 7 8 9")),
        ] {
            assert_eq!(chosen(text).as_deref(), want, "{text}");
        }
        let error = choose(&Gpus::Devices(vec![Id::Part(0, 1)]), &inventory).unwrap_err();
        assert_eq!(error.to_string(), "there is no MIG instance `0:1`: GPU 0 (NVIDIA A100) is not divided by MIG");
        assert!(error.hints()[0].contains("1:0 (MIG-10000000-"), "{:?}", error.hints());
        let error = choose(&Gpus::Devices(vec![Id::Part(1, 2)]), &inventory).unwrap_err();
        assert!(error.to_string().starts_with("MIG instance 1:2 (MIG-12000000-"), "{error}");
        let allotted = choose(&visible_devices("MIG-12000000,MIG-11000000").unwrap(), &inventory).unwrap();
        assert_eq!(allotted[0].instances.iter().map(|part| part.index).collect::<Vec<_>>(), [1], "2 is another's");
    }

    #[test]
    fn what_is_allotted_and_cannot_be_opened_is_left_out() {
        let slurm = Gpus::Allotted(vec![Id::Minor(3), Id::Minor(0)]);
        let indices: Vec<_> = choose(&slurm, &inventory()).unwrap().iter().map(|gpu| gpu.index).collect();
        assert_eq!(indices, [8], "minor 0 is not this job's");
    }

    #[test]
    fn what_is_missing_is_explained() {
        let error = choose(&Gpus::Count(11), &inventory()).unwrap_err();
        assert_eq!(format!("{error:#}"), "11 GPUs are wanted, and 10 can be opened");
        assert_eq!(error.hints(), ["GPU 10: EPERM", "GPU 11: EPERM"]);
        let error = choose(&Gpus::Devices(vec![Id::Index(11)]), &inventory()).unwrap_err();
        assert_eq!(error.to_string(), "GPU 11 (0000:0c:00.0) cannot be used: EPERM");
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "([a-zA-Z0-9=,:/\"-]|device=|capabilities=|GPU-|MIG-|é){0,12}") {
            if let Ok(asked) = parse(&text) {
                let _ = choose(&asked.gpus, &divided());
            }
        }
    }
}
