//! Where images come from: what a registry, a layout and an archive have in common.
//!
//! In: a reference. Out: an [`Image`] whose manifest and config are verified, and its layers' bytes as they are
//! transferred, which [`crate::layer`] verifies while it unpacks them. Runs before the launch; may use threads.

use std::io::Read;

use crate::error::Result;
use crate::image::{Image, Layer, Platform};

/// One image in a registry, a layout or an archive.
pub trait Source: Sync {
    /// The image for this platform.
    fn image(&self, platform: &Platform) -> Result<Image>;

    /// The blob of one of its layers, from the start. Neither its size nor its digest has been looked at.
    fn blob(&self, layer: &Layer) -> Result<Box<dyn Read + Send>>;
}
