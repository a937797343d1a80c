//! The output of `docker save` before Docker 1.10: layers that know their parents, and a file that names the topmost ones.
//!
//! In: the tar, and perhaps a name. Out: a config as later Dockers make it, and the layers' names in the tar. There is no
//! digest of anything in this format (moby, image/spec/v1.md): the diff ids are those of the layers as they are, so that
//! they tell layers apart and prove nothing.

use std::collections::{BTreeMap, HashSet};
use std::io::BufReader;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::names::{Named, pick};
use super::tar::Tar;
use super::{Files, read_document};
use crate::error::{Context, Error, Result};
use crate::image::Digest;
use crate::layer::unpack::hash;
use crate::manifest::Config;

/// The file that names images.
pub(super) const REPOSITORIES: &str = "repositories";

/// The most layers of an image; Docker itself stacked 127 at most.
const MAX_LAYERS: usize = 1000;

/// What of the topmost layer's file an image's config says as well (moby, image/v1/imagev1.go).
const CONFIG_KEYS: [&str; 7] = ["architecture", "author", "comment", "config", "created", "docker_version", "os"];

/// One image, by its topmost layer.
struct Top {
    id: String,
    /// `NAME:TAG` each.
    names: Vec<String>,
}

impl Named for Top {
    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}

/// The config of the image that `name` means, or of the only one, and its layers, lowest first.
pub(super) fn read(tar: &Tar, name: Option<&str>) -> Result<(Config, Vec<String>)> {
    let tops = tops(&read_document(tar, REPOSITORIES)?)?;
    let [top] = pick(&tops, name)?[..] else { return Err(Error::new("there is no image in it")) };
    let (own, ids) = chain(tar, &top.id)?;
    let layers: Vec<_> = ids.iter().rev().map(|id| format!("{id}/layer.tar")).collect();
    let diff_ids = layers.iter().map(|layer| diff_id(tar, layer)).collect::<Result<Vec<_>>>()?;
    Ok((Config::parse(config(own, &diff_ids).to_string().into_bytes())?, layers))
}

fn tops(repositories: &[u8]) -> Result<Vec<Top>> {
    let named: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(repositories).context(|| format!("parse `{REPOSITORIES}`"))?;
    let mut tops: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, tags) in named {
        for (tag, id) in tags {
            tops.entry(id).or_default().push(format!("{name}:{tag}"));
        }
    }
    Ok(tops.into_iter().map(|(id, names)| Top { id, names }).collect())
}

/// What the topmost layer says, and its id with those of all below it.
fn chain(tar: &Tar, top: &str) -> Result<(Map<String, Value>, Vec<String>)> {
    let own = layer(tar, top)?;
    let (mut ids, mut seen, mut next) = (Vec::new(), HashSet::new(), Some(top.to_owned()));
    while let Some(id) = next {
        if !seen.insert(id.clone()) {
            return Err(Error::new(format!("the layer {id} is below itself")));
        }
        if ids.len() == MAX_LAYERS {
            return Err(Error::new(format!("the image has more than {MAX_LAYERS} layers")));
        }
        next = parent(&layer(tar, &id)?)?;
        ids.push(id);
    }
    Ok((own, ids))
}

/// What is said of one layer.
fn layer(tar: &Tar, id: &str) -> Result<Map<String, Value>> {
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::new(format!("`{}` is not a layer's id", id.escape_debug())));
    }
    let name = format!("{id}/json");
    serde_json::from_slice(&read_document(tar, &name)?).context(|| format!("parse `{name}`"))
}

/// The layer below; the lowest has none.
fn parent(layer: &Map<String, Value>) -> Result<Option<String>> {
    let parent: Option<String> = Option::deserialize(layer.get("parent").unwrap_or(&Value::Null))
        .context(|| "read the id of a layer's parent")?;
    Ok(parent.filter(|id| !id.is_empty()))
}

fn diff_id(tar: &Tar, layer: &str) -> Result<Digest> {
    hash(BufReader::new(tar.open(layer)?.reader)).context(|| format!("read `{layer}`"))
}

fn config(mut top: Map<String, Value>, diff_ids: &[Digest]) -> Value {
    top.retain(|key, _| CONFIG_KEYS.contains(&key.as_str()));
    top.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
    top.into()
}
