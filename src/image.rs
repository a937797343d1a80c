//! What an image is, once its manifest and config have been read: values only, nothing here touches the world.
//!
//! In: descriptors and the config as the registry or archive gave them. Out: [`Image`], from which the store makes a
//! rootfs. Terms are image-spec's: digest, layer, diff id, chain id.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// A sha256 digest, written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest from a finished hash.
    pub fn from_hash(hash: Sha256) -> Self {
        Self(hash.finalize().into())
    }

    /// The 64 hex digits alone: the name of a file in a layout or in the store.
    pub fn hex(&self) -> String {
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        self.0.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Only sha256 is accepted: the only algorithm that registries use.
    fn from_str(s: &str) -> Result<Self> {
        let bad = || Error::new(format!("`{s}` is not a sha256 digest"));
        let hex = s.strip_prefix("sha256:").ok_or_else(bad)?.as_bytes();
        if hex.len() != 64 || !hex.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        let nibble = |b: u8| if b <= b'9' { b - b'0' } else { b - b'a' + 10 };
        Ok(Self(std::array::from_fn(|i| nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]))))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What an image must have been built for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// As Go's GOOS: `linux`.
    #[serde(default)]
    pub os: String,
    /// As Go's GOARCH: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// `v7`, `v8`; `None` takes any.
    pub variant: Option<String>,
}

impl Platform {
    /// The machine gpurun runs on.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// One spelling for what means the same machine: `normalizeArch` in containerd's platforms/database.go.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let variant = self.variant.as_deref().unwrap_or("");
        let (architecture, variant) = match (self.architecture.to_ascii_lowercase().as_str(), variant) {
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64".into(), ""),
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64".into(), ""),
            ("i386" | "386", _) => ("386".into(), ""),
            ("armhf", _) | ("arm", "" | "7") => ("arm".into(), "v7"),
            ("armel", _) | ("arm", "6") => ("arm".into(), "v6"),
            (other, variant) => (other.to_owned(), variant),
        };
        let variant = (!variant.is_empty()).then(|| variant.to_owned());
        Self { os: self.os.to_ascii_lowercase(), architecture, variant }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `OS/ARCH[/VARIANT]`, or `ARCH` alone.
    fn from_str(s: &str) -> Result<Self> {
        let (os, architecture, variant) = match s.split('/').collect::<Vec<_>>()[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => ("", "", None),
        };
        if os.is_empty() || architecture.is_empty() {
            return Err(Error::new(format!("`{s}` is not a platform")).hint("write OS/ARCH, as in linux/amd64"));
        }
        Ok(Self { os: os.into(), architecture: architecture.into(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|v| write!(f, "/{v}"))
    }
}

/// One layer: the blob as it is transferred, and what it must unpack to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the blob as transferred; a docker-archive names none, and then the diff id alone is verified.
    pub digest: Option<Digest>,
    /// Size of the blob as transferred, in bytes.
    pub size: Option<u64>,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// A resolved image: one platform's manifest and its config, both verified.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the manifest; for a docker-archive, which has none, that of the config.
    pub digest: Digest,
    /// Digest of the config: what Docker calls the image id.
    pub config_digest: Digest,
    /// The config, byte for byte.
    pub config_json: String,
    /// The config, parsed.
    pub config: ImageConfiguration,
    /// Layers, lowest first.
    pub layers: Vec<Layer>,
}

impl Layer {
    /// What names it: the digest of the blob, else the diff id.
    pub fn name(&self) -> Digest {
        self.digest.unwrap_or(self.diff_id)
    }
}

impl Image {
    /// The chain id of the topmost layer: the name of the rootfs.
    pub fn chain_id(&self) -> Digest {
        chain_id(self.layers.iter().map(|l| l.diff_id))
    }
}

/// The chain id of these diff ids, lowest first (image-spec, config.md, "Layer `ChainID`"). An image without layers has
/// none there; here it is the digest of nothing.
pub fn chain_id(diff_ids: impl IntoIterator<Item = Digest>) -> Digest {
    let step = |below: Option<Digest>, diff: Digest| match below {
        None => Some(diff),
        Some(below) => Some(Digest::of(format!("{below} {diff}").as_bytes())),
    };
    diff_ids.into_iter().fold(None, step).unwrap_or_else(|| Digest::of(b""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip_and_refuse_the_rest() {
        let d = Digest::of(b"x");
        assert_eq!(d.to_string().parse::<Digest>().unwrap(), d);
        for bad in ["", "sha256:", "sha512:00", "sha256:00", &d.to_string().to_uppercase(), &format!("{d}0")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    /// image-spec, config.md: `ChainID(L0) = DiffID(L0)`, then the digest of both joined by a space.
    #[test]
    fn chain_ids_follow_the_spec() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(chain_id([a]), a);
        assert_eq!(chain_id([a, b]), Digest::of(format!("{a} {b}").as_bytes()));
    }
}
