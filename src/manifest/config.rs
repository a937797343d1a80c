//! An image's config → what the image unpacks to, and what it runs.
//!
//! In: the config's bytes, which the caller has verified, and the platform asked for. Out: the config, or why it is not
//! one that can run here.

use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

use super::shown;
use crate::error::{Context, Error, Hint, Result};
use crate::image::{Digest, Image, Layer, Platform};

/// An image's config, checked as far as it can be by itself.
#[derive(Clone, Debug)]
pub struct Config {
    digest: Digest,
    json: String,
    parsed: ImageConfiguration,
    /// The digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

impl Config {
    /// Parses a config.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let digest = Digest::of(&bytes);
        let json = String::from_utf8(bytes).context(|| "read the image's config as UTF-8")?;
        let parsed = parse_config(&json).context(|| "parse the image's config")?;
        let kind = parsed.rootfs().typ();
        if kind != "layers" {
            return Err(Error::new(format!("the image's rootfs is of type `{}`, not `layers`", shown(kind))));
        }
        let diff_ids = parsed.rootfs().diff_ids().iter().map(|d| d.parse()).collect::<Result<_>>();
        Ok(Self { digest, json, diff_ids: diff_ids.context(|| "read the config's diff ids")?, parsed })
    }

    /// Refuses the wrong machine's image, which an index may name as the right one's.
    pub fn check_platform(&self, asked: &Platform) -> Result<()> {
        let (os, architecture) = (self.parsed.os().to_string(), self.parsed.architecture().to_string());
        let built = Platform { os, architecture, variant: self.parsed.variant().clone() }.normalised();
        let wanted = asked.normalised();
        let agree = |there: &str, wanted: &str| there.is_empty() || there == wanted;
        let variants = wanted.variant.is_none() || built.variant.is_none() || wanted.variant == built.variant;
        match agree(&built.os, &wanted.os) && agree(&built.architecture, &wanted.architecture) && variants {
            true => Ok(()),
            false => {
                Err(Error::new(format!("the image was built for {}, not for {wanted}", shown(&built.to_string()))))
                    .hint(|| {
                        format!("if that is what you want, say so with `--platform {}`", shown(&built.to_string()))
                    })
            }
        }
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Pairs each diff id, lowest first, with the layer that unpacks to it.
    pub fn layers<T>(&self, blobs: &[T], layer: impl Fn(&T, Digest) -> Result<Layer>) -> Result<Vec<Layer>> {
        let (diffs, blobs_there) = (self.diff_ids.len(), blobs.len());
        if diffs != blobs_there {
            return Err(Error::new(format!(
                "the config lists {diffs} diff ids, and the manifest {blobs_there} layers"
            )));
        }
        blobs.iter().zip(&self.diff_ids).map(|(blob, diff_id)| layer(blob, *diff_id)).collect()
    }

    /// The image with this config; without a manifest its digest is the config's.
    pub fn into_image(self, manifest: Option<Digest>, layers: Vec<Layer>) -> Image {
        let digest = manifest.unwrap_or(self.digest);
        Image { digest, config_digest: self.digest, config_json: self.json, config: self.parsed, layers }
    }
}

/// A config that [`Config::parse`] has passed before.
pub fn read_config(json: &str) -> Result<ImageConfiguration> {
    // Most are complete, and a warm run need not look for more.
    serde_json::from_str(json).or_else(|_| parse_config(json))
}

/// Fills in what Go's encoder leaves out or writes as null and oci-spec insists on: an image without layers has null
/// diff ids, and Docker takes an image that does not say its platform for the host's.
fn parse_config(json: &str) -> Result<ImageConfiguration> {
    let mut value: Value = serde_json::from_str(json).context(|| "parse it as JSON")?;
    let config = value.as_object_mut().context(|| "it is not an object")?;
    for key in ["os", "architecture"] {
        config.entry(key).or_insert_with(|| json!(""));
    }
    if let Some(rootfs) = config.get_mut("rootfs").and_then(Value::as_object_mut) {
        let diff_ids = rootfs.entry("diff_ids").or_insert(Value::Null);
        if diff_ids.is_null() {
            *diff_ids = json!([]);
        }
    }
    serde_json::from_value(value).context(|| "it is not an image's")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: &Value) -> Result<Config> {
        let config = Config::parse(config.to_string().into_bytes())?;
        config.check_platform(&Platform::host()).map(|()| config)
    }

    #[test]
    fn what_writers_leave_out_is_filled_in() {
        for config in [
            json!({"rootfs": {"type": "layers", "diff_ids": null}}),
            json!({"rootfs": {"type": "layers"}, "history": null, "config": null}),
            json!({"rootfs": {"type": "layers"}, "os": "linux", "config": {"Env": null, "ExposedPorts": null}}),
        ] {
            assert!(parse(&config).unwrap().diff_ids.is_empty(), "{config}");
            assert!(read_config(&config.to_string()).is_ok(), "{config}, whenever it is read");
        }
    }

    #[test]
    fn the_config_is_kept_byte_for_byte() {
        let text = "{ \"rootfs\" : {\"type\":\"layers\"},  \"x\": 1 }\n";
        let image = Config::parse(text.into()).unwrap().into_image(None, Vec::new());
        assert_eq!((image.config_json.as_str(), image.digest), (text, Digest::of(text.as_bytes())));
    }

    #[test]
    fn what_cannot_be_unpacked_or_run_is_refused() {
        let rootfs = json!({"type": "layers"});
        for (config, want) in [
            (json!({"rootfs": {"type": "squashfs"}}), "of type `squashfs`"),
            (json!({"rootfs": {"type": "layers", "diff_ids": ["sha512:00"]}}), "diff ids"),
            (json!({"rootfs": rootfs, "os": "windows"}), "built for windows/"),
            (json!({"rootfs": rootfs, "os": "linux", "architecture": "sparc"}), "built for linux/sparc"),
            (json!({}), "parse the image's config"),
            (json!([]), "not an object"),
            ((0..125).fold(json!({"rootfs": rootfs}), |inner, _| json!([inner])), "not an object"),
            ((0..126).fold(json!({"rootfs": rootfs}), |inner, _| json!([inner])), "recursion limit exceeded"),
        ] {
            let error = format!("{:#}", parse(&config).unwrap_err());
            assert!(error.contains(want), "{config}: {error}");
        }
    }
}
