//! The output of `docker save` before Docker 1.10: layers that know their parents, and a file that names the topmost ones,
//! unless the image was saved by its id (moby 1.9, graph/export.go).
//!
//! In: the tar, and perhaps a name. Out: a config as later Dockers make it, and the layers' names in the tar. There is no
//! digest of anything in this format (moby, image/spec/v1.md): the diff ids are those of the layers as they are, so that
//! they tell layers apart and prove nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
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
const REPOSITORIES: &str = "repositories";

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
    let tops = if tar.has(REPOSITORIES) { named(&read_document(tar, REPOSITORIES)?)? } else { unnamed(tar)? };
    let top = match pick(&tops, name)?[..] {
        [top] => top,
        [] => return Err(Error::new("there is no image in it")),
        _ => return Err(Error::new("there are several images without a name in it")),
    };
    let (own, ids) = chain(tar, &top.id)?;
    let layers: Vec<_> = ids.iter().rev().map(|id| format!("{id}/layer.tar")).collect();
    let mut known = HashMap::new();
    let diff_ids = layers.iter().map(|layer| diff_id(tar, layer, &mut known)).collect::<Result<Vec<_>>>()?;
    Ok((Config::parse(config(own, &diff_ids).to_string().into_bytes())?, layers))
}

/// Whether it is such an archive.
pub(super) fn is_in(tar: &Tar) -> bool {
    tar.has(REPOSITORIES) || ids(tar).next().is_some()
}

/// The ids of all layers.
fn ids(tar: &Tar) -> impl Iterator<Item = &str> {
    tar.names().filter_map(|name| name.strip_suffix("/layer.tar")).filter(|id| is_id(id))
}

/// The topmost layers of an archive that names none: those that are nobody's parents.
fn unnamed(tar: &Tar) -> Result<Vec<Top>> {
    let ids: Vec<_> = ids(tar).take(MAX_LAYERS + 1).collect();
    if ids.len() > MAX_LAYERS {
        return Err(Error::new(format!("there are more than {MAX_LAYERS} layers in it, and no `{REPOSITORIES}`")));
    }
    let parents = ids.iter().map(|id| parent(&layer(tar, id)?)).collect::<Result<HashSet<_>>>()?;
    let tops = ids.into_iter().map(str::to_owned).filter(|id| !parents.contains(&Some(id.clone())));
    Ok(tops.map(|id| Top { id, names: Vec::new() }).collect())
}

fn named(repositories: &[u8]) -> Result<Vec<Top>> {
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
    if !is_id(id) {
        return Err(Error::new(format!("`{}` is not a layer's id", id.escape_debug())));
    }
    let name = format!("{id}/json");
    serde_json::from_slice(&read_document(tar, &name)?).context(|| format!("parse `{name}`"))
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The layer below; the lowest has none.
fn parent(layer: &Map<String, Value>) -> Result<Option<String>> {
    let parent: Option<String> = Option::deserialize(layer.get("parent").unwrap_or(&Value::Null))
        .context(|| "read the id of a layer's parent")?;
    Ok(parent.filter(|id| !id.is_empty()))
}

/// The digest of a layer. All may be links to one large file, which is hashed once: `known` has it by its place.
fn diff_id(tar: &Tar, layer: &str, known: &mut HashMap<(u64, u64), Digest>) -> Result<Digest> {
    let place = tar.place(layer)?;
    if let Some(digest) = known.get(&place) {
        return Ok(*digest);
    }
    let digest = hash(BufReader::new(tar.open(layer)?.reader)).context(|| format!("read `{layer}`"))?;
    known.insert(place, digest);
    Ok(digest)
}

fn config(mut top: Map<String, Value>, diff_ids: &[Digest]) -> Value {
    top.retain(|key, _| CONFIG_KEYS.contains(&key.as_str()));
    top.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
    top.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_many_names_lead_to_is_hashed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tar");
        let mut tar = ::tar::Builder::new(std::fs::File::create(&path).unwrap());
        let mut header = ::tar::Header::new_gnu();
        header.set_size(5);
        tar.append_data(&mut header, "a/layer.tar", &b"bytes"[..]).unwrap();
        header.set_entry_type(::tar::EntryType::Link);
        header.set_size(0);
        tar.append_link(&mut header, "b/layer.tar", "a/layer.tar").unwrap();
        tar.finish().unwrap();
        let (tar, mut known) = (Tar::open(&path).unwrap(), HashMap::new());
        assert_eq!(diff_id(&tar, "a/layer.tar", &mut known).unwrap(), Digest::of(b"bytes"));
        let remembered = Digest::of(b"as it was remembered");
        known = known.into_keys().map(|place| (place, remembered)).collect();
        assert_eq!(diff_id(&tar, "b/layer.tar", &mut known).unwrap(), remembered);
    }
}
