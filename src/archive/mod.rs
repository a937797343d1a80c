//! `oci:`, `oci-archive:` and `docker-archive:` → manifest, config and layer streams.

use std::path::Path;

use crate::error::{Error, Result};

/// What a tar of an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An OCI layout.
    Oci,
    /// The output of `docker save`.
    Docker,
}

/// Tells by its content what kind of image a file is.
pub fn sniff(path: &Path) -> Result<Kind> {
    Err(Error::new(format!("`{}` is not an image", path.display())))
}
