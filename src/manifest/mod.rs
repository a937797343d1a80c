//! Manifests, indexes and configs → [`crate::image::Image`]: what an image's own documents say, and what is refused in them.
//!
//! In: bytes, the media type they came under, and a [`Documents`] that fetches what they point to. Out: the image for
//! one platform, every document in it verified by size and digest. All else here is pure. Shared by all sources; the
//! rules are image-spec's (manifest.md, image-index.md, config.md, descriptor.md) unless a line says otherwise.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Context, Error, Result};
use crate::image::{Digest, Platform};

pub use config::{Config, read_config};
pub use search::resolve;

mod config;
mod search;

/// The largest manifest, index or config that is read.
pub const MAX_DOCUMENT: u64 = 8 << 20;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What is asked of a registry: all that [`parse`] reads.
pub const ACCEPT: &[&str] = &[OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// Layers, apart from the compression, which the blob itself tells.
const LAYERS: &[&str] = &["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"];

/// Media types of configs that are an image's: the two proper ones, and what old registries made of them (moby,
/// distribution/registry.go, `ImageTypes`).
const CONFIGS: &[&str] = &[OCI_CONFIG, DOCKER_CONFIG, "", "application/octet-stream", "application/json", "text/html"];

/// A pointer to a document or a layer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it points to; empty where the writer left it out.
    #[serde(default)]
    pub media_type: String,
    /// As written: other algorithms than sha256 matter only once the descriptor is followed.
    pub digest: String,
    /// As written: a negative size is the writer's error, to be named as such.
    pub size: i64,
    /// What it was built for, in an index.
    pub platform: Option<Platform>,
    /// Free text; names and tags in a layout.
    pub annotations: Option<HashMap<String, String>>,
    /// Set on what is no image.
    pub artifact_type: Option<String>,
    /// Where else the content is; only foreign layers need it.
    pub urls: Option<Vec<String>>,
}

impl Descriptor {
    /// The digest, if it is one that can be verified.
    pub fn digest(&self) -> Result<Digest> {
        self.digest.parse()
    }

    /// The size, if it is one.
    pub fn size(&self) -> Result<u64> {
        u64::try_from(self.size).map_err(|_| Error::new(format!("the size of {} is negative", self.digest)))
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Refuses bytes that are not what this points to.
    pub fn verify(&self, bytes: &[u8]) -> Result<()> {
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        match (self.size()? == size, self.digest()? == digest) {
            (false, _) => Err(Error::new(format!("{} has {size} bytes instead of {}", self.digest, self.size))),
            (_, false) => Err(Error::new(format!("{} is corrupt: its bytes hash to {digest}", self.digest))),
            (true, true) => Ok(()),
        }
    }

    /// A descriptor that may be fetched whole.
    fn checked_document(&self) -> Result<&Self> {
        match self.size()? > MAX_DOCUMENT {
            true => Err(Error::new(format!("{} is larger than the {MAX_DOCUMENT} bytes that are read", self.digest))),
            false => self.digest().map(|_| self),
        }
    }
}

/// What a manifest turned out to be.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // there is one at a time
pub enum Document {
    /// A choice of manifests.
    Index(Vec<Descriptor>),
    /// One platform's image.
    Manifest(Manifest),
}

/// An image manifest that has passed every check that needs no other document.
#[derive(Clone, Debug)]
pub struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Fetches the documents an image is made of. What it returns is verified by the caller.
pub trait Documents {
    /// A manifest or an index.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>>;

    /// A config.
    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>>;
}

/// Every field of both kinds of document, and of schema 1, so that what claims to be two things at once is seen
/// (CVE-2021-41190).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<i64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<IgnoredAny>,
}

/// Reads a manifest or index that was delivered as `media_type`, if the way it was delivered says one.
pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Document> {
    let raw: Raw = serde_json::from_slice(bytes).context(|| "parse the manifest as JSON")?;
    let declared = raw.media_type.as_deref().or(media_type).unwrap_or("").to_owned();
    refuse_schemas(&raw, &declared)?;
    let is_manifest = raw.config.is_some() || raw.layers.is_some();
    let contradicts = |types: [&str; 2]| types.contains(&declared.as_str());
    match (raw.manifests, raw.config) {
        (Some(_), _) if is_manifest => Err(Error::new("the manifest is an index and an image at once")),
        (Some(_), _) if contradicts([OCI_MANIFEST, DOCKER_MANIFEST]) => Err(mismatch("an index", &declared)),
        (Some(entries), _) => Ok(Document::Index(entries)),
        (None, Some(_)) if contradicts([OCI_INDEX, DOCKER_LIST]) => Err(mismatch("an image", &declared)),
        (None, Some(config)) => {
            manifest(config, raw.layers.unwrap_or_default(), raw.artifact_type.as_deref()).map(Document::Manifest)
        }
        (None, None) => Err(Error::new("the manifest has neither a config nor a list of manifests")),
    }
}

fn refuse_schemas(raw: &Raw, declared: &str) -> Result<()> {
    if raw.schema_version == Some(1)
        || raw.fs_layers.is_some()
        || declared.contains(".docker.distribution.manifest.v1+")
    {
        return Err(Error::new("the manifest is of Docker's schema 1, which has no digests of the whole image")
            .hint("pull and push the image once with a current Docker, Podman or skopeo"));
    }
    if declared == "application/vnd.oci.artifact.manifest.v1+json" {
        return Err(artifact(raw.artifact_type.as_deref().unwrap_or(declared)));
    }
    match raw.schema_version {
        Some(2) => Ok(()),
        Some(other) => Err(Error::new(format!("the manifest has schemaVersion {other} instead of 2"))),
        None => Err(Error::new("the manifest has no schemaVersion")),
    }
}

fn mismatch(what: &str, declared: &str) -> Error {
    Error::new(format!("the manifest is {what}, but calls itself `{}`", shown(declared)))
}

fn artifact(kind: &str) -> Error {
    Error::new(format!("it is an artifact of type `{}`, not a container image", shown(kind)))
}

/// Text from a document, fit for a message: one line, no escape sequences, no page of it.
fn shown(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect()
}

fn manifest(config: Descriptor, layers: Vec<Descriptor>, artifact_type: Option<&str>) -> Result<Manifest> {
    if !CONFIGS.contains(&config.media_type.as_str()) {
        return Err(artifact(artifact_type.unwrap_or(&config.media_type)));
    }
    if let Some(kind) = artifact_type.filter(|kind| !CONFIGS.contains(kind)) {
        return Err(artifact(kind));
    }
    layers.iter().try_for_each(check_layer)?;
    Ok(Manifest { config, layers })
}

fn check_layer(layer: &Descriptor) -> Result<()> {
    let refuse = |why: &str| Err(Error::new(format!("the layer {} {why}", shown(&layer.digest))));
    layer.digest()?;
    layer.size()?;
    let kind = layer.media_type.as_str();
    if kind.contains("+encrypted") {
        return refuse("is encrypted, and gpurun holds no keys");
    }
    if kind.contains(".nondistributable.") || kind.contains(".foreign.") {
        return refuse(&format!("is a foreign one (`{}`), which registries do not hold", shown(kind)));
    }
    match LAYERS.iter().find_map(|l| kind.strip_prefix(l)) {
        Some("" | "+gzip" | ".gzip" | "+zstd" | ".zstd") => Ok(()),
        _ => refuse(&format!("has the unknown media type `{}`", shown(kind))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn error(document: &Value) -> String {
        format!("{:#}", parse(document.to_string().as_bytes(), None).unwrap_err())
    }

    fn layer(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(b"l"), "size": 1})
    }

    fn image_with(layer: &Value) -> Value {
        let config = json!({"mediaType": OCI_CONFIG, "digest": Digest::of(b"c"), "size": 1});
        json!({"schemaVersion": 2, "config": config, "layers": [layer]})
    }

    fn with(mut document: Value, key: &str, value: Value) -> Value {
        document[key] = value;
        document
    }

    #[test]
    fn layers_of_every_writer_are_read() {
        for kind in LAYERS {
            for suffix in ["", "+gzip", ".gzip", "+zstd", ".zstd"] {
                let document = image_with(&layer(&format!("{kind}{suffix}"))).to_string();
                assert!(matches!(parse(document.as_bytes(), None), Ok(Document::Manifest(_))), "{kind}{suffix}");
            }
        }
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let good = || image_with(&layer(LAYERS[0]));
        let oci = |rest: &str| image_with(&layer(&format!("application/vnd.oci.image.layer.{rest}")));
        for (document, want) in [
            (json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
            (json!({"schemaVersion": 2, "fsLayers": []}), "schema 1"),
            (with(good(), "schemaVersion", json!(3)), "schemaVersion 3"),
            (with(good(), "schemaVersion", Value::Null), "no schemaVersion"),
            (with(good(), "manifests", json!([])), "at once"),
            (with(good(), "mediaType", json!(OCI_INDEX)), "calls itself"),
            (json!({"schemaVersion": 2, "manifests": [], "mediaType": DOCKER_MANIFEST}), "calls itself"),
            (json!({"schemaVersion": 2}), "neither"),
            (with(good(), "artifactType", json!("application/x")), "artifact of type `application/x`"),
            (json!({"schemaVersion": 2, "config": layer("application/vnd.cncf.helm.config.v1+json")}), "helm"),
            (json!({"mediaType": "application/vnd.oci.artifact.manifest.v1+json"}), "artifact"),
            (oci("nondistributable.v1.tar+gzip"), "foreign"),
            (image_with(&layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")), "foreign"),
            (oci("v1.tar+gzip+encrypted"), "encrypted"),
            (oci("v1.tar+lzma"), "unknown media type"),
            (image_with(&layer("\u{1b}[2Jx")), r"`\u{1b}[2Jx`"),
            (image_with(&with(layer(LAYERS[0]), "size", json!(-1))), "negative"),
            (image_with(&with(layer(LAYERS[0]), "digest", json!("md5:x"))), "`md5:x` is not a sha256 digest"),
        ] {
            assert!(error(&document).contains(want), "{document}: {}", error(&document));
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let bomb = format!("{{\"layers\":{}", "[".repeat(100_000));
        assert!(parse(bomb.as_bytes(), None).is_err());
    }

    #[test]
    fn the_transports_media_type_counts_only_where_the_document_is_silent() {
        let index = json!({"schemaVersion": 2, "manifests": []});
        assert!(parse(index.to_string().as_bytes(), Some(OCI_MANIFEST)).is_err());
        let index = with(index, "mediaType", json!(OCI_INDEX));
        assert!(parse(index.to_string().as_bytes(), Some(OCI_MANIFEST)).is_ok());
    }

    #[test]
    fn bytes_must_be_those_of_the_descriptor() {
        let descriptor = Descriptor { digest: Digest::of(b"abc").to_string(), size: 3, ..Descriptor::default() };
        assert!(descriptor.verify(b"abc").is_ok());
        assert!(descriptor.verify(b"abd").unwrap_err().to_string().contains("corrupt"));
        assert!(descriptor.verify(b"ab").unwrap_err().to_string().contains("2 bytes instead of 3"));
    }
}
