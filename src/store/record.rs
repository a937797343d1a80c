//! What the store knows of images and names: small JSON files, each written whole and renamed.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Context, Hint, Result};
use crate::image::{Digest, Image, Layer};

/// An image in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Digest of its manifest; for a docker-archive, of its config.
    pub digest: Digest,
    /// Digest of its config.
    pub config_digest: Digest,
    /// Name of its rootfs.
    pub chain_id: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<LayerRecord>,
    /// Its config, as it came.
    pub config: Box<RawValue>,
}

/// A layer of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of the blob as it was transferred, if its source said.
    pub digest: Option<Digest>,
    /// Bytes of the blob, if its source said.
    pub size: Option<u64>,
    /// Digest of its tar: the name of the layer in the store.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub unpacked: u64,
}

/// What a name means.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NameRecord {
    /// Canonical reference.
    pub reference: String,
    /// The platform it was asked for.
    pub platform: String,
    /// The image.
    pub digest: Digest,
    /// When it was pulled, in seconds since 1970.
    pub pulled: u64,
    /// When it was last used, to about an hour: the time of the record's file.
    #[serde(skip)]
    pub used: u64,
}

impl ImageRecord {
    /// The record of an image; `unpacked` gives the bytes of a layer's files.
    pub fn of(image: &Image, unpacked: impl Fn(&Digest) -> u64) -> Result<Self> {
        let layer = |l: &Layer| LayerRecord {
            digest: l.digest,
            size: l.size,
            diff_id: l.diff_id,
            unpacked: unpacked(&l.diff_id),
        };
        Ok(Self {
            digest: image.digest,
            config_digest: image.config_digest,
            chain_id: image.chain_id(),
            layers: image.layers.iter().map(layer).collect(),
            config: RawValue::from_string(image.config_json.clone()).context(|| "read the image's config")?,
        })
    }

    /// Bytes of the files of each of its layers; one that comes twice is there once.
    pub fn sizes(&self) -> HashMap<Digest, u64> {
        self.layers.iter().map(|layer| (layer.diff_id, layer.unpacked)).collect()
    }

    /// The names of its layers, lowest first.
    pub fn diff_ids(&self) -> impl Iterator<Item = Digest> {
        self.layers.iter().map(|layer| layer.diff_id)
    }

    /// Whether it has one of these layers.
    pub(super) fn shares(&self, layers: &HashSet<Digest>) -> bool {
        self.diff_ids().any(|layer| layers.contains(&layer))
    }

    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        sound(Self::load(path)?)
    }

    pub(super) fn load(path: &Path) -> Result<Loaded<Self>> {
        load(path)
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        write(path, self)
    }
}

impl NameRecord {
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        sound(Self::load(path)?)
    }

    pub(super) fn load(path: &Path) -> Result<Loaded<Self>> {
        let modified = std::fs::metadata(path).and_then(|meta| meta.modified());
        let used = |record: Self| Self { used: modified.map_or(record.pulled, since_1970), ..record };
        Ok(load(path)?.map(|sound| sound.map(used)))
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        write(path, self)
    }
}

/// Seconds since 1970.
pub fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A record; none if it is not there, an error if it is damaged. What cannot be read at all is an error of another kind: the
/// record may be sound.
pub(super) type Loaded<T> = Option<Result<T>>;

pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Result<Loaded<T>> {
    let what = || format!("read `{}`", path.display());
    match std::fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        text => {
            let text = text.context(what).hint(|| "--store DIR names another place for images")?;
            Ok(Some(serde_json::from_slice(&text).context(what)))
        }
    }
}

fn sound<T>(loaded: Loaded<T>) -> Result<Option<T>> {
    let what_to_do = || "the store is damaged: `gpurun prune` takes the record away, then pull the image again";
    loaded.transpose().hint(what_to_do)
}

/// Readers see the old record or the new one, and a power cut leaves one of them.
pub(super) fn write(path: &Path, record: &impl Serialize) -> Result<()> {
    let what = || format!("write `{}`", path.display());
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let text = serde_json::to_vec(record).context(what)?;
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary).context(what)?;
    file.write_all(&text).and_then(|()| file.sync_all()).context(what)?;
    std::fs::rename(&temporary, path).context(what)
}
