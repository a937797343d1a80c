//! What CUDA knows the chosen GPUs by.
//!
//! In: the chosen GPUs, the [`Inventory`] they are of, the host's `CUDA_VISIBLE_DEVICES`. Out: the variable's value inside.
//! Pure.

use super::find::{Pick, find};
use super::id::{Id, id};
use super::inventory::{Gpu, Inventory};

/// `CUDA_VISIBLE_DEVICES` inside: the chosen GPUs by their numbers there, or by UUID once MIG instances are among them,
/// which have no numbers. A host's value names some of what the caller can open, and narrows it, as it would outside.
pub(crate) fn cuda_visible(hosts: Option<&str>, chosen: &[Gpu], inventory: &Inventory) -> String {
    let usable: Vec<_> = inventory.gpus.iter().filter(|gpu| gpu.unusable.is_none()).collect();
    let inside = |word: &str| {
        let pick = match id(word.trim()).ok()? {
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
    use super::super::choose::choose;
    use super::super::sample::{divided, inventory};
    use super::super::select::{Gpus, parse};
    use super::*;
    use proptest::prelude::*;

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
            let _ = cuda_visible(Some(&text), &divided().gpus, &divided());
        }
    }
}
