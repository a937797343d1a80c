//! Where images come from: what a registry, a layout and an archive have in common.
//!
//! In: a reference. Out: an [`Image`] whose manifest and config are verified, and its layers' bytes as they are
//! transferred, which [`crate::layer`] verifies while it unpacks them. Runs before the launch; may use threads.

use std::io::Read;

use crate::archive::{DockerArchive, Layout};
use crate::builtin::Builtin;
use crate::error::{Error, Result};
use crate::image::{Image, Layer, Platform};
use crate::reference::ImageRef;
use crate::registry::{Options, Registry};

/// One image in a registry, a layout or an archive.
pub trait Source: Sync {
    /// The image for this platform.
    fn image(&self, platform: &Platform) -> Result<Image>;

    /// The blob of one of its layers, from the start. Neither its size nor its digest has been looked at.
    fn blob(&self, layer: &Layer) -> Result<Box<dyn Read + Send>>;

    /// The same source, if it is so far that what has come of a blob is worth keeping.
    fn far(&self) -> Option<&dyn Far> {
        None
    }
}

/// A source that goes on with a blob where it was cut.
pub trait Far: Sync {
    /// The blob of a layer from byte `from` on, where there is one.
    fn rest(&self, layer: &Layer, from: u64) -> Result<Box<dyn Read + Send>>;
}

/// Opens what a reference names. A registry is not asked anything yet; a layout or an archive is looked into.
pub fn open(reference: &ImageRef, options: &Options) -> Result<Box<dyn Source>> {
    match reference {
        ImageRef::Registry(name) => Ok(Box::new(Registry::new(name, options)?)),
        ImageRef::OciDir { path, tag } => Ok(Box::new(Layout::open_dir(path, tag.as_deref())?)),
        ImageRef::OciArchive { path, tag } => Ok(Box::new(Layout::open_archive(path, tag.as_deref())?)),
        ImageRef::DockerArchive { path, tag } => Ok(Box::new(DockerArchive::open(path, tag.as_deref())?)),
        ImageRef::Builtin(name) => Ok(Box::new(Builtin::new(name)?)),
        ImageRef::Dir(_) => Err(Error::new(format!("`{reference}` is a root file system, and has no layers"))),
    }
}
