//! A name in a registry → the image and its layers' bytes, over the OCI distribution protocol.
//!
//! In: a [`RegistryRef`]. Out: documents verified against their digests, and blob streams that survive broken
//! connections; nothing is stored here. Any number of threads may read blobs at once. The protocol is
//! distribution-spec 1.1, and distribution's `docs/content/spec/auth/token.md` for the tokens.
//!
//! ```text
//! Registry → Session: retry ( auth ( http: redirects ( ureq ) ) )      Blob: reads a Session's body, reopens it
//! ```

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use crate::error::{Context, Error, Result};
use crate::image::{Digest, Image, Layer, Platform};
use crate::manifest::{self, Descriptor, Documents};
use crate::reference::RegistryRef;
use crate::source::Source;

use blob::Blob;
use credentials::Credential;
use session::{Document, Session};

mod auth;
mod blob;
pub mod credentials;
mod http;
mod origin;
mod retry;
mod session;
mod settings;
mod status;

pub use settings::Settings;

/// Is told what takes a while, as lines for the user: that a registry asks to wait, that a connection broke.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// How to talk to a registry.
#[derive(Clone)]
pub struct Options {
    /// Plain HTTP even where the registry is not on this machine.
    pub plain_http: bool,
    /// What the caller's and the machine's files say.
    pub settings: Settings,
    /// Who hears of waits.
    pub notice: Notice,
}

impl Default for Options {
    fn default() -> Self {
        Self { plain_http: false, settings: Settings::default(), notice: Arc::new(|_| ()) }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("plain_http", &self.plain_http).finish_non_exhaustive()
    }
}

/// Shows a credential to a registry. `false` if it lets everyone in, and so did not look at it.
pub fn verify(registry: &str, credential: &Credential, options: &Options) -> Result<bool> {
    Session::to_verify(registry, credential, options).enter()
}

/// One image in a registry, and the connections to it.
#[derive(Debug)]
pub struct Registry(Arc<Session>);

impl Registry {
    /// Prepares to ask for an image; nothing is sent yet.
    pub fn new(reference: &RegistryRef, options: &Options) -> Self {
        Self(Arc::new(Session::new(reference, options)))
    }

    /// The manifest or index that the name stands for, and its digest.
    fn top(&self) -> Result<(Document, Digest)> {
        let name = self.0.name();
        let document = self.0.manifest(&name.manifest())?;
        let digest = Digest::of(&document.bytes);
        // A digest of an algorithm that we do not know cannot be compared, and a registry need not send one.
        let said = document.digest.as_deref().and_then(|d| d.parse::<Digest>().ok());
        match name.digest.or(said) {
            Some(want) if want != digest => {
                Err(Error::new(format!("the manifest of `{name}` is corrupt: it hashes to {digest} instead of {want}")))
            }
            _ => Ok((document, digest)),
        }
    }
}

impl Source for Registry {
    fn image(&self, platform: &Platform) -> Result<Image> {
        let (document, digest) = self.top()?;
        let start = manifest::parse(&document.bytes, document.media_type.as_deref())?;
        manifest::resolve(start, digest, platform, self)
    }

    fn blob(&self, layer: &Layer) -> Result<Box<dyn Read + Send>> {
        let digest = layer.digest.context(|| "a layer without a digest cannot be asked of a registry")?;
        let size = layer.size.context(|| format!("the size of {digest} is not known"))?;
        Ok(Box::new(Blob::open(Arc::clone(&self.0), digest, size)?))
    }
}

impl Documents for Registry {
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Ok(self.0.manifest(&descriptor.digest)?.bytes)
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Ok(self.0.document(&format!("blobs/{}", descriptor.digest), None)?.bytes)
    }
}
