//! Where images come from: what a registry, a layout and an archive have in common.
//!
//! In: a reference. Out: an [`Image`] whose manifest and config are verified, and its layers' bytes as they are
//! transferred, which [`crate::layer`] verifies while it unpacks them. Runs before the launch; may use threads.

use std::io::Read;

use crate::builtin::Builtin;
use crate::error::{Error, Result};
use crate::image::{Image, Layer, Platform};
use crate::reference::ImageRef;
use crate::registry::{self, Registry};

/// One image in a registry, a layout or an archive.
pub trait Source: Sync {
    /// The image for this platform.
    fn image(&self, platform: &Platform) -> Result<Image>;

    /// The blob of one of its layers, from the start. Neither its size nor its digest has been looked at.
    fn blob(&self, layer: &Layer) -> Result<Box<dyn Read + Send>>;
}

/// The source of an image. Registries are asked without TLS only on loopback, or if `plain_http`.
pub fn open(reference: &ImageRef, plain_http: bool) -> Result<Box<dyn Source>> {
    match reference {
        ImageRef::Builtin(name) => Ok(Box::new(Builtin::new(name)?)),
        ImageRef::Registry(name) => {
            Ok(Box::new(Registry::new(name, &registry::Options { plain_http, ..registry::Options::default() })))
        }
        _ => Err(Error::new("not yet")),
    }
}
