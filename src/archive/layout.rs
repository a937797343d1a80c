//! An OCI layout, in a directory or in a tar (image-spec, image-layout.md).
//!
//! In: a path and perhaps a tag. Out: the image, its documents verified. Whoever reads a blob verifies it.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::files::Dir;
use super::names::{Named, pick};
use super::tar::Tar;
use super::{Files, read_document};
use crate::error::{Context, Error, Hint, Result};
use crate::image::{Digest, Image, Layer, Platform};
use crate::manifest::{self, Descriptor, Document, Documents};
use crate::source::Source;

/// The file that makes a layout one.
pub(super) const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";

/// An OCI layout, and the image in it that is meant.
#[derive(Debug)]
pub struct Layout {
    files: Box<dyn Files>,
    /// The path, for messages.
    shown: String,
    /// The index's digest and the entries of the image that is meant: one for each platform.
    index: (Digest, Vec<Descriptor>),
}

impl Layout {
    /// A layout in a directory.
    pub fn open_dir(path: &Path, tag: Option<&str>) -> Result<Self> {
        Self::open(Box::new(Dir(path.into())), path, tag)
    }

    /// A layout in a tar.
    pub fn open_archive(path: &Path, tag: Option<&str>) -> Result<Self> {
        Self::open(Box::new(Tar::open(path)?), path, tag)
    }

    fn open(files: Box<dyn Files>, path: &Path, tag: Option<&str>) -> Result<Self> {
        let shown = format!("`{}`", path.display());
        let what = || format!("read the OCI layout {shown}");
        let marker = read_document(&*files, MARKER).context(what);
        check_version(&marker.hint(|| "a directory that is no layout is run as `dir:PATH`")?).context(what)?;
        let bytes = read_document(&*files, INDEX).context(what)?;
        let entries = entries(&bytes, tag).context(what)?;
        Ok(Self { files, shown, index: (Digest::of(&bytes), entries) })
    }
}

fn check_version(marker: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    let marker: Marker = serde_json::from_slice(marker).context(|| format!("parse `{MARKER}`"))?;
    match marker.image_layout_version.as_str() {
        "1.0.0" => Ok(()),
        other => Err(Error::new(format!("the layout has version `{}`, not 1.0.0", other.escape_debug()))),
    }
}

fn entries(index: &[u8], tag: Option<&str>) -> Result<Vec<Descriptor>> {
    let Document::Index(entries) = manifest::parse(index, None).context(|| format!("read `{INDEX}`"))? else {
        return Err(Error::new(format!("`{INDEX}` is not an index")));
    };
    Ok(pick(&entries, tag)?.into_iter().cloned().collect())
}

/// containerd's exports carry the full name beside the tag (containerd, core/images/annotations.go).
impl Named for Descriptor {
    fn names(&self) -> Vec<&str> {
        let full = self.annotation("io.containerd.image.name");
        full.or(self.annotation("org.opencontainers.image.ref.name")).into_iter().collect()
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Source for Layout {
    fn image(&self, platform: &Platform) -> Result<Image> {
        let (digest, entries) = &self.index;
        manifest::resolve(Document::Index(entries.clone()), *digest, platform, self)
    }

    fn blob(&self, layer: &Layer) -> Result<Box<dyn Read + Send>> {
        let digest = layer.digest.context(|| "a layer without a digest is in no layout")?;
        let opened = self.files.open(&blob_name(&digest))?;
        match layer.size {
            Some(size) if size != opened.size => {
                Err(Error::new(format!("{digest} in {} has {} bytes instead of {size}", self.shown, opened.size)))
            }
            _ => Ok(opened.reader),
        }
    }
}

impl Documents for Layout {
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        read_document(&*self.files, &blob_name(&descriptor.digest()?))
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.manifest(descriptor)
    }
}
