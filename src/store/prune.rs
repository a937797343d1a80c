//! What is removed when the store is to be smaller: decided by values, done name by name.
//!
//! In: the images with their names, and limits. Out: the names that go, those that were not used for the longest time
//! first. An image that a run uses stays, whatever the limits say.

use std::collections::{HashMap, HashSet};

use super::{ImageRecord, NameRecord, Removal, Store};
use crate::error::Result;
use crate::image::Digest;

/// What may stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Seconds since a name was used.
    pub unused: Option<u64>,
    /// Bytes of all files in the store.
    pub size: Option<u64>,
}

impl Store {
    /// Removes what is over the limits, and whatever nothing refers to. Gives the names that are gone.
    pub fn prune(&self, limits: Limits, now: u64) -> Result<Vec<NameRecord>> {
        let (names, images) = (self.names()?, self.images()?);
        let mut gone = Vec::new();
        for name in doomed(&names, &images, limits, now) {
            if self.remove(name)? == Removal::Done {
                gone.push(name.clone());
            }
        }
        self.sweep()?;
        self.forget_nvml()?;
        Ok(gone)
    }
}

/// The names that go.
fn doomed<'n>(names: &'n [NameRecord], images: &[ImageRecord], limits: Limits, now: u64) -> Vec<&'n NameRecord> {
    let mut oldest: Vec<_> = names.iter().collect();
    oldest.sort_by_key(|name| name.used);
    let mut gone = 0;
    while let Some(name) = oldest.get(gone) {
        let unused = limits.unused.is_some_and(|most| now.saturating_sub(name.used) > most);
        let too_large = limits.size.is_some_and(|most| size(&oldest[gone..], images) > most);
        if !unused && !too_large {
            break;
        }
        gone += 1;
    }
    oldest.truncate(gone);
    oldest
}

/// Bytes of all files of the images that have these names.
fn size(names: &[&NameRecord], images: &[ImageRecord]) -> u64 {
    let named: HashSet<_> = names.iter().map(|name| name.digest).collect();
    let layers: HashMap<_, _> =
        images.iter().filter(|i| named.contains(&i.digest)).flat_map(ImageRecord::sizes).collect();
    layers.values().sum()
}

/// Bytes of an image's files that another one of `images` has as well.
pub fn shared(image: &ImageRecord, images: &[ImageRecord]) -> u64 {
    let others: HashSet<Digest> =
        images.iter().filter(|other| other.digest != image.digest).flat_map(ImageRecord::diff_ids).collect();
    image.sizes().into_iter().filter(|(layer, _)| others.contains(layer)).map(|(_, bytes)| bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LayerRecord;
    use serde_json::value::RawValue;

    /// An image called `name`, last used at `used`, with layers of these names and sizes.
    fn image(name: &str, used: u64, layers: &[(&str, u64)]) -> (NameRecord, ImageRecord) {
        let digest = Digest::of(name.as_bytes());
        let layer = |(name, unpacked): &(&str, u64)| LayerRecord {
            digest: None,
            size: None,
            diff_id: Digest::of(name.as_bytes()),
            unpacked: *unpacked,
        };
        let record = ImageRecord {
            digest,
            config_digest: digest,
            chain_id: digest,
            layers: layers.iter().map(layer).collect(),
            config: RawValue::from_string("{}".into()).unwrap(),
        };
        (NameRecord { reference: name.into(), platform: "x/y".into(), digest, pulled: 0, used }, record)
    }

    #[test]
    fn the_least_recently_used_go_first_and_shared_layers_count_once() {
        let all = [
            image("new", 90, &[("base", 100), ("n", 10)]),
            image("old", 10, &[("base", 100), ("o", 20)]),
            image("middle", 50, &[("m", 40)]),
        ];
        let (names, images): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let gone = |unused, size| -> Vec<String> {
            doomed(&names, &images, Limits { unused, size }, 100).into_iter().map(|n| n.reference.clone()).collect()
        };
        assert_eq!(gone(None, None), [""; 0]);
        assert_eq!(gone(Some(45), None), ["old", "middle"]);
        assert_eq!(gone(None, Some(170)), [""; 0]);
        assert_eq!(gone(None, Some(169)), ["old"]);
        assert_eq!(gone(None, Some(149)), ["old", "middle"]);
        assert_eq!(gone(None, Some(0)), ["old", "middle", "new"]);
        assert_eq!(images.iter().map(|i| shared(i, &images)).collect::<Vec<_>>(), [100, 100, 0]);
    }
}
