//! A manifest or index → the image for one platform, through nested indexes.
//!
//! In: what a source's name stands for, and [`Documents`] to fetch the rest from. Out: the [`Image`], every document
//! on the way to it verified.

use super::{ACCEPT, CONFIGS, Config, DOCKER_LIST, Descriptor, Document, Documents, Manifest, OCI_INDEX, parse, shown};
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Image, Layer, Platform};

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 8;
/// How many documents one image may take to find: nesting alone bounds the depth, not the work.
const MAX_DOCUMENTS: usize = 64;

/// Follows a document to the image for this platform.
pub fn resolve(start: Document, digest: Digest, platform: &Platform, documents: &dyn Documents) -> Result<Image> {
    let mut search = Search { documents, platform: platform.normalised(), there: Vec::new(), fetched: 0 };
    let (digest, manifest) = search.find(start, digest, 0)?.ok_or_else(|| search.nothing())?;
    let bytes = documents.config(manifest.config.checked_document()?)?;
    manifest.config.verify(&bytes).context(|| "verify the image's config")?;
    image(digest, &manifest, bytes, platform)
}

/// The search for one platform's manifest, through nested indexes.
struct Search<'a> {
    documents: &'a dyn Documents,
    platform: Platform,
    /// The platforms seen on the way, for the message.
    there: Vec<String>,
    fetched: usize,
}

impl Search<'_> {
    fn find(&mut self, document: Document, digest: Digest, depth: usize) -> Result<Option<(Digest, Manifest)>> {
        let entries = match document {
            Document::Manifest(manifest) => return Ok(Some((digest, manifest))),
            Document::Index(entries) => entries,
        };
        if depth == MAX_DEPTH {
            return Err(Error::new(format!("the image's indexes are nested deeper than {MAX_DEPTH}")));
        }
        let runnable: Vec<_> = entries.iter().filter(|e| is_runnable(e)).collect();
        self.there.extend(runnable.iter().filter_map(|e| Some(shown(&e.platform.as_ref()?.to_string()))));
        for entry in candidates(&runnable, &self.platform) {
            let (document, digest) = self.fetch(entry)?;
            if let Some(found) = self.find(document, digest, depth + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn fetch(&mut self, entry: &Descriptor) -> Result<(Document, Digest)> {
        self.fetched += 1;
        if self.fetched > MAX_DOCUMENTS {
            return Err(Error::new(format!("the image is spread over more than {MAX_DOCUMENTS} manifests")));
        }
        let bytes = self.documents.manifest(entry.checked_document()?)?;
        entry.verify(&bytes).context(|| "verify a manifest")?;
        let document = parse(&bytes, Some(&entry.media_type)).context(|| format!("read {}", entry.digest))?;
        Ok((document, entry.digest()?))
    }

    fn nothing(&self) -> Error {
        let error = Error::new(format!("the image does not exist for {}", self.platform));
        match self.there.first() {
            None => error.because(Error::new("no entry of its index is an image that names its platform")),
            Some(first) => error
                .because(Error::new(format!("there is {}", self.there.join(", "))))
                .hint(format!("choose one with --platform, as in `--platform {first}`")),
        }
    }
}

/// Whether an index entry can lead to an image: unknown media types are no error, attestations (buildkit,
/// docs/attestations/attestation-storage.md) and other artifacts are none of ours.
fn is_runnable(entry: &Descriptor) -> bool {
    let known = entry.media_type.is_empty() || ACCEPT.contains(&entry.media_type.as_str());
    let artifact = entry.artifact_type.as_deref().is_some_and(|t| !CONFIGS.contains(&t));
    let attests = entry.annotation("vnd.docker.reference.type").is_some();
    let unknown = entry.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown");
    known && !artifact && !attests && !unknown
}

/// The entries to follow, in order: the one for this platform; else those that do not say what they are for, which
/// are nested indexes, or the only manifest there is.
fn candidates<'a>(runnable: &[&'a Descriptor], platform: &Platform) -> Vec<&'a Descriptor> {
    let of = |e: &&&Descriptor, exact: bool| {
        e.platform.as_ref().map(Platform::normalised).is_some_and(|there| match exact {
            true => there == *platform,
            false => platform.variant.is_none() && Platform { variant: None, ..there } == *platform,
        })
    };
    if let Some(entry) = [true, false].into_iter().find_map(|exact| runnable.iter().find(|e| of(e, exact))) {
        return vec![entry];
    }
    let is_index = |e: &Descriptor| matches!(e.media_type.as_str(), OCI_INDEX | DOCKER_LIST);
    let only = runnable.len() == 1;
    runnable.iter().copied().filter(|e| e.platform.is_none() && (only || is_index(e))).collect()
}

fn image(digest: Digest, manifest: &Manifest, config: Vec<u8>, platform: &Platform) -> Result<Image> {
    let config = Config::parse(config)?;
    config.check_platform(platform)?;
    let layer =
        |blob: &Descriptor, diff_id| Ok(Layer { digest: Some(blob.digest()?), size: Some(blob.size()?), diff_id });
    let layers = config.layers(&manifest.layers, layer)?;
    Ok(config.into_image(Some(digest), layers))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::manifest::{DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST};

    /// Documents in memory, by digest.
    #[derive(Default)]
    struct Memory(HashMap<String, Vec<u8>>);

    impl Documents for Memory {
        fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
            self.0.get(&descriptor.digest).cloned().context(|| format!("open {}", descriptor.digest))
        }

        fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
            self.manifest(descriptor)
        }
    }

    impl Memory {
        fn add(&mut self, media_type: &str, document: &Value) -> Value {
            let bytes = document.to_string().into_bytes();
            let (digest, size) = (Digest::of(&bytes), bytes.len());
            self.0.insert(digest.to_string(), bytes);
            json!({"mediaType": media_type, "digest": digest, "size": size})
        }

        fn image(&mut self, platform: &str) -> Value {
            let p: Platform = platform.parse().unwrap();
            let rootfs = json!({"type": "layers", "diff_ids": [Digest::of(b"d")]});
            let config = json!({"os": p.os, "architecture": p.architecture, "variant": p.variant, "rootfs": rootfs});
            let config = self.add(OCI_CONFIG, &config);
            let layer = json!({"mediaType": super::super::LAYERS[0], "digest": Digest::of(b"l"), "size": 5});
            self.add(DOCKER_MANIFEST, &json!({"schemaVersion": 2, "config": config, "layers": [layer]}))
        }

        /// An index entry for an image of this platform; `?` hides it.
        fn entry(&mut self, platform: &str) -> Value {
            let mut entry = self.image(platform.trim_end_matches('?'));
            if !platform.ends_with('?') {
                let p: Platform = platform.parse().unwrap();
                entry["platform"] = json!({"os": p.os, "architecture": p.architecture, "variant": p.variant});
            }
            entry
        }

        fn index(&mut self, platforms: &[&str]) -> Value {
            let entries: Vec<_> = platforms.iter().map(|p| self.entry(p)).collect();
            self.add(OCI_INDEX, &json!({"schemaVersion": 2, "manifests": entries}))
        }

        fn resolve(&self, entries: &[Value], platform: &str) -> Result<Image> {
            let document = parse(json!({"schemaVersion": 2, "manifests": entries}).to_string().as_bytes(), None)?;
            resolve(document, Digest::of(b""), &platform.parse()?, self)
        }
    }

    fn built_for(image: &Image) -> String {
        let variant = image.config.variant().as_ref().map(|v| format!("/{v}")).unwrap_or_default();
        format!("{}/{}{variant}", image.config.os(), image.config.architecture())
    }

    #[test]
    fn the_platform_asked_for_is_chosen() {
        for (there, asked, want) in [
            (&["linux/arm64", "linux/amd64"][..], "amd64", "linux/amd64"),
            (&["linux/arm64/v8", "linux/amd64"], "arm64", "linux/arm64/v8"),
            (&["linux/arm64"], "linux/arm64/v8", "linux/arm64"),
            (&["linux/arm/v6", "linux/arm/v7"], "arm", "linux/arm/v7"),
            (&["linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", "linux/arm/v6"),
            (&["linux/amd64/v3", "linux/amd64"], "amd64", "linux/amd64"),
            (&["linux/amd64/v3"], "amd64", "linux/amd64/v3"),
            (&["windows/amd64", "linux/amd64"], "amd64", "linux/amd64"),
            (&["linux/amd64?"], "amd64", "linux/amd64"),
        ] {
            let mut memory = Memory::default();
            let entries: Vec<_> = there.iter().map(|p| memory.entry(p)).collect();
            assert_eq!(built_for(&memory.resolve(&entries, asked).unwrap()), want, "{there:?} for {asked}");
        }
    }

    #[test]
    fn a_platform_that_is_not_there_is_answered_with_those_that_are() {
        let mut memory = Memory::default();
        let entries = [memory.entry("linux/arm64"), memory.entry("linux/s390x")];
        let error = memory.resolve(&entries, "amd64").unwrap_err();
        let text = format!("{error:#}");
        assert_eq!(text, "the image does not exist for linux/amd64: there is linux/arm64, linux/s390x");
        assert!(error.hints()[0].contains("--platform linux/arm64"));
        let hidden = [memory.entry("linux/amd64?"), memory.entry("linux/arm64?")];
        assert!(memory.resolve(&hidden, "amd64").is_err(), "a guess between two");
    }

    #[test]
    fn what_is_no_image_in_an_index_is_passed_over() {
        let mut memory = Memory::default();
        let mut attestation = memory.entry("linux/amd64");
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        let (mut unknown, mut odd, mut artifact) = (attestation.clone(), attestation.clone(), attestation.clone());
        unknown["annotations"] = Value::Null;
        unknown["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        odd["mediaType"] = json!("application/vnd.example+json");
        artifact["artifactType"] = json!("application/vnd.example");
        let none = [attestation, unknown, odd, artifact];
        assert!(memory.resolve(&none, "amd64").is_err());
        let image = memory.entry("linux/amd64?");
        assert!(memory.resolve(&[&none[..], &[image]].concat(), "amd64").is_ok());
    }

    #[test]
    fn indexes_nest_but_not_without_end() {
        let mut memory = Memory::default();
        let nested = [memory.index(&["linux/arm64"]), memory.index(&["linux/amd64"])];
        assert_eq!(built_for(&memory.resolve(&nested, "amd64").unwrap()), "linux/amd64");
        let mut entry = memory.image("amd64");
        for depth in 1..=MAX_DEPTH {
            let found = memory.resolve(std::slice::from_ref(&entry), "amd64");
            assert!(found.is_ok(), "{depth}: {found:?}");
            entry = memory.add(OCI_INDEX, &json!({"schemaVersion": 2, "manifests": [entry]}));
        }
        let error = memory.resolve(&[entry], "amd64").unwrap_err();
        assert!(error.to_string().contains("deeper than 8"), "{error}");
    }

    #[test]
    fn an_index_cannot_ask_for_work_without_end() {
        let mut memory = Memory::default();
        let nested = vec![memory.index(&["linux/arm64"]); MAX_DOCUMENTS + 1];
        let error = memory.resolve(&nested, "amd64").unwrap_err();
        assert!(error.to_string().contains("more than 64"), "{error}");
    }

    #[test]
    fn every_document_is_verified_before_it_is_believed() {
        let mut memory = Memory::default();
        let entry = memory.entry("linux/amd64");
        for key in ["rootfs", "layers"] {
            let mut corrupt = Memory(memory.0.clone());
            let of_kind = |b: &[u8]| String::from_utf8_lossy(b).contains(&format!("\"{key}\":"));
            let bytes = corrupt.0.values_mut().find(|b| of_kind(b)).unwrap();
            *bytes.last_mut().unwrap() = b' ';
            assert!(
                format!("{:#}", corrupt.resolve(std::slice::from_ref(&entry), "amd64").unwrap_err())
                    .contains("corrupt")
            );
        }
        let mut large = entry;
        large["size"] = json!(crate::manifest::MAX_DOCUMENT + 1);
        assert!(memory.resolve(&[large], "amd64").unwrap_err().to_string().contains("larger"));
    }

    #[test]
    fn the_wrong_machines_image_is_refused() {
        let mut memory = Memory::default();
        let mut liar = memory.entry("linux/arm64");
        liar["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let error = memory.resolve(&[liar], "amd64").unwrap_err();
        assert_eq!(error.to_string(), "the image was built for linux/arm64, not for linux/amd64");
        assert!(error.hints()[0].contains("--platform linux/arm64"));
    }

    #[test]
    fn layers_and_diff_ids_must_pair_up() {
        let mut memory = Memory::default();
        let config = memory.add(OCI_CONFIG, &json!({"rootfs": {"type": "layers", "diff_ids": [Digest::of(b"d")]}}));
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
        let entry = memory.add(OCI_MANIFEST, &manifest);
        let error = memory.resolve(&[entry], "amd64").unwrap_err();
        assert_eq!(error.to_string(), "the config lists 1 diff ids, and the manifest 0 layers");
    }
}
