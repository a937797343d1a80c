//! The GPUs and MIG instances that are chosen: what is asked for, out of what the caller can use.
//!
//! In: [`Gpus`] and the [`Inventory`]. Out: the chosen GPUs, each whole or with the chosen ones of its MIG instances, and what
//! CUDA knows them by inside; or a refusal that names each that is missing and why. Pure.

use super::inventory::{Gpu, Inventory, address};
use super::mig::Instance;
use super::select::{self, Gpus, Id};
use crate::error::{Error, Result};

/// A GPU, or one MIG instance of it.
#[derive(Clone, Copy)]
struct Pick<'a> {
    gpu: &'a Gpu,
    part: Option<&'a Instance>,
}

impl Pick<'_> {
    fn unusable(&self) -> Option<&String> {
        self.gpu.unusable.as_ref().or_else(|| self.part?.unusable.as_ref())
    }
}

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

/// Why some GPUs cannot be used.
fn reasons(inventory: &Inventory, of: impl Fn(&Gpu) -> bool) -> impl Iterator<Item = String> {
    let gpus = inventory.gpus.iter().filter(move |gpu| of(gpu));
    gpus.filter_map(|gpu| Some(format!("GPU {}: {}", gpu.index, gpu.unusable.as_ref()?)))
}

fn find<'a>(id: &Id, inventory: &'a Inventory) -> Result<Pick<'a>> {
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

/// `CUDA_VISIBLE_DEVICES` inside: the chosen GPUs by their numbers there, or by UUID once MIG instances are among them,
/// which have no numbers. A host's value names some of what the caller can open, and narrows it, as it would outside.
pub fn cuda_visible(hosts: Option<&str>, chosen: &[Gpu], inventory: &Inventory) -> String {
    let usable: Vec<_> = inventory.gpus.iter().filter(|gpu| gpu.unusable.is_none()).collect();
    let inside = |word: &str| {
        let pick = match select::id(word.trim()).ok()? {
            Id::Index(index) => Pick { gpu: usable.get(index as usize).copied()?, part: None },
            other => find(&other, inventory).ok()?,
        };
        let place = chosen.iter().position(|c| c.index == pick.gpu.index)?;
        match pick.part {
            None => Some(visible(chosen, place)),
            Some(part) => chosen[place].instances.contains(part).then(|| vec![part.uuid.clone()]),
        }
    };
    let named: Vec<_> = hosts.unwrap_or_default().split(',').filter_map(inside).flatten().collect();
    match named.is_empty() {
        true => (0..chosen.len()).flat_map(|place| visible(chosen, place)).collect::<Vec<_>>().join(","),
        false => named.join(","),
    }
}

/// What CUDA knows a chosen GPU by.
fn visible(chosen: &[Gpu], place: usize) -> Vec<String> {
    let gpu = &chosen[place];
    let uuid = gpu.uuid.clone().filter(|_| chosen.iter().any(|gpu| !gpu.instances.is_empty()));
    match gpu.instances.is_empty() {
        true => vec![uuid.unwrap_or_else(|| place.to_string())],
        false => gpu.instances.iter().map(|part| part.uuid.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::inventory::Version;
    use crate::gpu::mig::Place;
    use crate::gpu::select::parse;
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
            ..Gpu::default()
        };
        Inventory { version: Version::parse("550.1").unwrap(), gpus: (0..12).map(gpu).collect(), cuda: None }
    }

    /// The same with MIG on on GPUs 1, which has three instances, one of them another's, and 2, which has one.
    fn divided() -> Inventory {
        let mut inventory = inventory();
        let part = |gpu: u32, index: u32| Instance {
            index,
            uuid: format!("MIG-{gpu}{index}000000-0000-0000-0000-000000000000"),
            place: Place { gi: index + 7, ci: 0 },
            profile: "1g.5gb".into(),
            nodes: vec![],
            unusable: (index == 2).then(|| "EACCES".into()),
        };
        for (gpu, parts) in [(1, 3), (2, 1)] {
            inventory.gpus[gpu as usize].mig = true;
            inventory.gpus[gpu as usize].instances = (0..parts).map(|index| part(gpu, index)).collect();
        }
        inventory
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
        let allotted = choose(&select::visible_devices("MIG-12000000,MIG-11000000").unwrap(), &inventory).unwrap();
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

    #[test]
    fn cuda_knows_instances_by_uuid() {
        let inventory = divided();
        let some = choose(&parse("device=0,1:1,2").unwrap().gpus, &inventory).unwrap();
        let (whole, one, other) = (
            "GPU-00000000-0000-0000-0000-000000000000",
            "MIG-11000000-0000-0000-0000-000000000000",
            "MIG-20000000-0000-0000-0000-000000000000",
        );
        assert_eq!(cuda_visible(None, &some, &inventory), format!("{whole},{one},{other}"));
        assert_eq!(cuda_visible(Some("MIG-20"), &some, &inventory), other);
        assert_eq!(cuda_visible(Some("2,MIG-11,MIG-10"), &some, &inventory), format!("{other},{one}"));
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "([a-zA-Z0-9=,:/\"-]|device=|capabilities=|GPU-|MIG-|é){0,12}") {
            if let Ok(asked) = parse(&text) {
                let _ = (choose(&asked.gpus, &divided()), cuda_visible(Some(&text), &divided().gpus, &divided()));
            }
        }
    }
}
