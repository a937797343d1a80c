//! All requests about one image: where they go, as whom, and how often.
//!
//! In: paths below the image's repository. Out: documents, and bodies from any byte on.

use std::io::ErrorKind;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ureq::http::{Response, Uri, header};
use ureq::{Body, ResponseExt};

use super::auth::{Auth, Caller};
use super::certs::Trust;
use super::challenge::{Challenge, Demand};
use super::credentials::Credential;
use super::http::{Get, Http, read, refusal, text};
use super::mirrors::Place;
use super::origin::{api_host, is_loopback, same_origin};
use super::retry::{self, Again, Failure};
use super::status::Asker;
use super::{Notice, Options};
use crate::error::{Context, Result};
use crate::manifest::{ACCEPT, MAX_DOCUMENT};
use crate::reference::RegistryRef;

/// Connections beside one for each blob that is read: what registries bear with, and their pieces memory.
const SPARE: usize = 4;

/// The connections to one registry, for one image.
pub(super) struct Session {
    name: RegistryRef,
    http: Http,
    auth: Auth,
    pub(super) notice: Notice,
    plain_http: bool,
    insecure: bool,
    scheme: OnceLock<&'static str>,
    /// Whether it has ever answered: a registry that then refuses connections is being restarted.
    answered: AtomicBool,
    /// Connections that may still be opened beside one for each blob.
    pub(super) spare: AtomicUsize,
}

impl std::fmt::Debug for Session {
    /// Without what it is trusted with.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A manifest, an index or a config as it came.
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    /// `Content-Type` without its parameters.
    pub(super) media_type: Option<String>,
    /// `Docker-Content-Digest`, which not every registry sends.
    pub(super) digest: Option<String>,
}

impl Session {
    pub(super) fn new(place: &Place, options: &Options) -> Result<Self> {
        let image = format!("{}/{}", place.name.registry, place.name.repository);
        let caller = Caller::Known { keyring: options.settings.keyring.clone(), name: image };
        Self::with_caller(place, caller, options)
    }

    /// A session that asks for no image: is this who they say they are?
    pub(super) fn to_verify(place: &Place, credential: &Credential, options: &Options) -> Result<Self> {
        Self::with_caller(place, Caller::Given(credential.clone()), options)
    }

    fn with_caller(place: &Place, caller: Caller, options: &Options) -> Result<Self> {
        let trust = Trust::load(&options.settings.certs, &place.name.registry)?;
        Ok(Self {
            name: place.name.clone(),
            http: Http::new(&trust.config(place.insecure), &options.settings.proxies)?,
            auth: Auth::new(caller, options.plain_http || place.insecure),
            notice: options.notice.clone(),
            plain_http: options.plain_http,
            insecure: place.insecure,
            scheme: OnceLock::new(),
            answered: AtomicBool::new(false),
            spare: AtomicUsize::new(SPARE),
        })
    }

    pub(super) fn name(&self) -> &RegistryRef {
        &self.name
    }

    /// A manifest or index, by tag or digest.
    pub(super) fn named(&self, reference: &str) -> Result<Document> {
        self.document(&format!("manifests/{reference}"), Some(&ACCEPT.join(", ")))
    }

    /// A small document, whole.
    pub(super) fn document(&self, path: &str, accept: Option<&str>) -> Result<Document> {
        retry::run(&self.notice, || {
            let mut response = self.get(path, accept, 0, None)?;
            let bytes =
                read(&mut response, MAX_DOCUMENT).map_err(|f| f.within(format!("get {}", self.subject(path))))?;
            let header = |name| text(response.headers(), name).map(str::to_owned);
            let media_type = header(header::CONTENT_TYPE.as_str());
            let media_type = media_type.map(|t| t.split(';').next().unwrap_or_default().trim().to_owned());
            Ok(Document { bytes, media_type, digest: header("docker-content-digest") })
        })
    }

    /// One try to get what is at `path`, from one byte on and perhaps only until another: logs in if asked to, and again
    /// if the token has expired.
    pub(super) fn get(
        &self,
        path: &str,
        accept: Option<&str>,
        from: u64,
        until: Option<u64>,
    ) -> Result<Response<Body>, Failure> {
        self.ask(&Get { accept, from, until, ..Get::new(&self.url(path)?) }, &self.subject(path))
    }

    /// Passes the registry's front door, `/v2/` (distribution-spec, "Determining Support"). Whether it wanted to know
    /// who comes.
    pub(super) fn enter(&self) -> Result<bool> {
        retry::run(&self.notice, || {
            let door = self.front_door()?;
            self.ask(&Get::new(&door), &format!("`{}`", door.path()))?;
            Ok(self.auth.current().is_some())
        })
    }

    fn ask(&self, get: &Get, subject: &str) -> Result<Response<Body>, Failure> {
        let used = self.auth.current();
        let get = Get { authorization: used.as_deref(), ..*get };
        let mut response = self.send(&get)?;
        // Whoever a redirect leads to is told nothing, and does not say where the registry's password goes (CVE-2020-15157).
        if response.status().as_u16() == 401
            && same_origin(get.url, response.get_uri())
            && let Some(fresh) = self.auth.renew(used.as_deref(), &self.demand(&response, get.url), &self.http)?
        {
            response = self.send(&Get { authorization: Some(&fresh), ..get })?;
        }
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            _ => {
                let (host, asker) = self.answering(get.url, response.get_uri());
                Err(refusal(&mut response, &host, subject, &asker))
            }
        }
    }

    /// Who answered what was asked at `asked`, and as whom they were asked.
    fn answering(&self, asked: &Uri, answered: &Uri) -> (String, Asker) {
        let registry = &self.name.registry;
        match answered.authority() {
            Some(host) if !same_origin(asked, answered) => {
                (format!("{host}, to which {registry} redirects,"), Asker::Redirected)
            }
            _ => (registry.clone(), self.auth.asker()),
        }
    }

    fn send(&self, get: &Get) -> Result<Response<Body>, Failure> {
        let sent = self.http.get(get);
        match &sent {
            Ok(_) => self.answered.store(true, Ordering::Relaxed),
            Err(f) if f.error.is_io(ErrorKind::ConnectionRefused) && self.answered.load(Ordering::Relaxed) => {
                return sent.map_err(|f| Failure { again: Again::Soon, ..f });
            }
            Err(_) => {}
        }
        sent
    }

    fn demand(&self, response: &Response<Body>, registry: &Uri) -> Demand {
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE).into_iter();
        let challenges = headers.filter_map(|h| h.to_str().ok()).flat_map(Challenge::parse).collect();
        let repository = Some(self.name.repository.clone()).filter(|r| !r.is_empty());
        Demand { challenges, registry: registry.clone(), repository }
    }

    /// What a path stands for, in a message: the image itself, or one of its parts.
    fn subject(&self, path: &str) -> String {
        match path.strip_prefix("manifests/") {
            Some(reference) if reference == self.name.manifest() => format!("`{}`", self.name),
            _ => format!("`{path}` of `{}`", self.name),
        }
    }

    fn url(&self, path: &str) -> Result<Uri> {
        let url = format!("{}{}/{path}", self.front_door()?, self.name.repository);
        url.parse().context(|| format!("make a URL of `{url}`"))
    }

    fn front_door(&self) -> Result<Uri> {
        let url = format!("{}://{}/v2/", self.scheme(), api_host(&self.name.registry));
        url.parse().context(|| format!("make a URL of `{url}`"))
    }

    /// HTTPS, except where plain HTTP was asked for, or the registry is on this machine and answers it, or need not be
    /// protected and does not answer HTTPS. That is asked once, and costs one small request on the connection that is
    /// used afterwards; Docker asks those on this machine the other way round, and loads all certificates to do so.
    fn scheme(&self) -> &'static str {
        self.scheme.get_or_init(|| {
            let plain = match (self.plain_http, self.insecure) {
                (true, _) => true,
                (false, true) => !self.answers("https"),
                (false, false) => is_loopback(&self.name.registry) && self.answers("http"),
            };
            if plain { "http" } else { "https" }
        })
    }

    /// Servers that speak TLS answer 400 to plain HTTP, or hang up.
    fn answers(&self, scheme: &str) -> bool {
        let url = format!("{scheme}://{}/v2/", api_host(&self.name.registry)).parse::<Uri>();
        let answer = url.ok().and_then(|url| self.http.get(&Get::new(&url)).ok());
        answer.is_some_and(|answer| answer.status().as_u16() != 400)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::ImageRef;

    #[test]
    fn plain_http_is_for_this_machine_or_for_who_asks() {
        for (name, plain_http, want) in [
            ("busybox", false, "https://registry-1.docker.io/v2/library/busybox/x"),
            ("registry.invalid/a/b", false, "https://registry.invalid/v2/a/b/x"),
            ("registry.invalid:81/a/b", true, "http://registry.invalid:81/v2/a/b/x"),
        ] {
            let ImageRef::Registry(name) = ImageRef::parse(name).unwrap() else { panic!("{name}") };
            let place = Place { name, insecure: false };
            let session = Session::new(&place, &Options { plain_http, ..Options::default() }).unwrap();
            assert_eq!(session.url("x").unwrap(), want);
        }
    }
}
