//! The output of `docker save`, of old and new Dockers: a tar with a `manifest.json`, the configs and the layers.
//!
//! In: a path and perhaps a name. Out: the image. The format has no manifest and no digests of the blobs: the config
//! is verified where its name is its digest, and each layer by its diff id (moby, image/tarexport). What Dockers before
//! 1.10 wrote has no `manifest.json`, and is read by `legacy`.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::names::{Named, pick};
use super::tar::Tar;
use super::{Files, legacy, read_document};
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Image, Layer, Platform};
use crate::manifest::Config;
use crate::source::Source;

/// The file that lists the images.
pub(super) const MANIFEST: &str = "manifest.json";

/// An archive, and the image in it that is meant.
#[derive(Debug)]
pub struct DockerArchive {
    tar: Tar,
    /// The path, for messages.
    shown: String,
    config: Config,
    /// The layers' names in the tar, lowest first.
    layers: Vec<String>,
}

/// One image in `manifest.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Named for Item {
    fn names(&self) -> Vec<&str> {
        self.repo_tags.iter().flatten().map(String::as_str).collect()
    }
}

impl DockerArchive {
    /// Opens an archive and reads the config of the image that `name` means: one of its names, or the only image.
    pub fn open(path: &Path, name: Option<&str>) -> Result<Self> {
        let (tar, shown) = (Tar::open(path)?, format!("`{}`", path.display()));
        let is_legacy = !tar.has(MANIFEST) && legacy::is_in(&tar);
        let read = if is_legacy { legacy::read(&tar, name) } else { read(&tar, name) };
        let (config, layers) = read.context(|| format!("read the docker-archive {shown}"))?;
        Ok(Self { tar, shown, config, layers })
    }
}

fn read(tar: &Tar, name: Option<&str>) -> Result<(Config, Vec<String>)> {
    let item = item(&read_document(tar, MANIFEST)?, name)?;
    Ok((read_config(tar, &item.config)?, item.layers.unwrap_or_default()))
}

fn item(manifest: &[u8], name: Option<&str>) -> Result<Item> {
    let items: Vec<Item> = serde_json::from_slice(manifest).context(|| format!("parse `{MANIFEST}`"))?;
    match pick(&items, name)?[..] {
        [item] => Ok(item.clone()),
        [] => Err(Error::new("there is no image in it")),
        _ => Err(Error::new("there are several images without a name in it")),
    }
}

/// Docker names a config by its digest: `HEX.json`, now `blobs/sha256/HEX`; others write `sha256:HEX`, or any name.
fn read_config(tar: &Tar, name: &str) -> Result<Config> {
    let config = Config::parse(read_document(tar, name)?)?;
    let stem = name.rsplit_once('/').map_or(name, |(_, file)| file).trim_end_matches(".json");
    let named: Option<Digest> = format!("sha256:{}", stem.trim_start_matches("sha256:")).parse().ok();
    match named.filter(|named| *named != config.digest()) {
        Some(_) => Err(Error::new(format!("the config `{name}` is corrupt: it hashes to {}", config.digest()))),
        None => Ok(config),
    }
}

impl Source for DockerArchive {
    fn image(&self, platform: &Platform) -> Result<Image> {
        self.config.check_platform(platform)?;
        let layer = |name: &String, diff_id| {
            let size = Some(self.tar.open(name)?.size);
            Ok(Layer { digest: None, size, diff_id })
        };
        let layers = self.config.layers(&self.layers, layer)?;
        Ok(self.config.clone().into_image(None, layers))
    }

    fn blob(&self, layer: &Layer) -> Result<Box<dyn Read + Send>> {
        let place = self.config.diff_ids.iter().position(|d| *d == layer.diff_id);
        let name = place.and_then(|place| self.layers.get(place));
        let name = name.context(|| format!("there is no layer {} in {}", layer.diff_id, self.shown))?;
        Ok(self.tar.open(name)?.reader)
    }
}
