//! A name in a registry → the image and its layers' bytes, over the OCI distribution protocol.
//!
//! In: a [`RegistryRef`]. Out: documents verified against their digests, and blob streams that survive broken
//! connections; nothing is stored here. Any number of threads may read blobs at once. The protocol is
//! distribution-spec 1.1, and distribution's `docs/content/spec/auth/token.md` for the tokens.
//!
//! ```text
//! name, settings → places (mirrors) → a Session each: retry ( auth ( http: redirects, proxies ( ureq, certs ) ) )
//! Blob: reads a Session's body, reopens it
//! ```

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Context, Error, Result};
use crate::image::{Digest, Image, Layer, Platform};
use crate::manifest::{self, Descriptor, Documents};
use crate::reference::RegistryRef;
use crate::source::{Far, Source};

use credentials::Credential;
use mirrors::Place;
use session::{Document, Session};

mod auth;
mod blob;
mod certs;
mod challenge;
pub mod credentials;
#[cfg(test)]
#[path = "../../tests/fuzz/registry.rs"]
mod fuzz;
mod http;
mod mirrors;
mod origin;
mod proxy;
mod ranges;
mod retry;
mod session;
mod settings;
mod status;
mod token;

pub use mirrors::RegistriesConf;
pub(crate) use mirrors::check_own;
pub use proxy::Proxies;
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
    let name = RegistryRef { registry: registry.into(), repository: String::new(), tag: None, digest: None };
    let insecure = mirrors::is_insecure(registry, &options.settings.registries.read()?);
    Session::to_verify(&Place { name, insecure }, credential, options)?.enter()
}

/// One image in a registry and its mirrors, and the connections to them.
pub struct Registry {
    places: Vec<Arc<Session>>,
    /// The first of them that had the image.
    at: AtomicUsize,
    notice: Notice,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Registry {
    /// Prepares to ask for an image; nothing is sent yet.
    pub fn new(reference: &RegistryRef, options: &Options) -> Result<Self> {
        let places = mirrors::places(reference, &options.settings.registries.read()?)?;
        let places = places.iter().map(|place| Session::new(place, options).map(Arc::new)).collect::<Result<_>>()?;
        Ok(Self { places, at: AtomicUsize::new(0), notice: options.notice.clone() })
    }

    /// What the first place that has it gives, and which that is; none of those that were of no help before is asked.
    fn first<T>(&self, ask: impl Fn(&Arc<Session>) -> Result<T>) -> Result<(usize, T)> {
        let mut at = self.at.load(Ordering::Relaxed);
        loop {
            match ask(&self.places[at]) {
                Ok(had) => return Ok((at, had)),
                Err(error) if at + 1 == self.places.len() => return Err(error),
                Err(error) => (self.notice)(&format!("{error:#}; asking {}", self.places[at + 1].name().registry)),
            }
            at += 1;
        }
    }
}

/// The manifest or index that a name stands for, and its digest.
fn top(session: &Session) -> Result<(Document, Digest)> {
    let name = session.name();
    let document = session.named(&name.manifest())?;
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

impl Source for Registry {
    fn image(&self, platform: &Platform) -> Result<Image> {
        let (at, image) = self.first(|session| {
            let (document, digest) = top(session)?;
            let start = manifest::parse(&document.bytes, document.media_type.as_deref())?;
            manifest::resolve(start, digest, platform, &**session)
        })?;
        self.at.store(at, Ordering::Relaxed);
        Ok(image)
    }

    fn blob(&self, layer: &Layer) -> Result<Box<dyn Read + Send>> {
        self.rest(layer, 0)
    }

    fn far(&self) -> Option<&dyn Far> {
        Some(self)
    }
}

impl Far for Registry {
    fn rest(&self, layer: &Layer, from: u64) -> Result<Box<dyn Read + Send>> {
        let digest = layer.digest.context(|| "a layer without a digest cannot be asked of a registry")?;
        let size = layer.size.context(|| format!("the size of {digest} is not known"))?;
        let (_, blob) = self.first(|session| ranges::open(session, digest, size, from))?;
        Ok(blob)
    }
}

impl Documents for Session {
    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Ok(self.named(&descriptor.digest)?.bytes)
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Ok(self.document(&format!("blobs/{}", descriptor.digest), None)?.bytes)
    }
}
