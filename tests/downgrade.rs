//! A registry on HTTPS that would have us go on without: it is refused, and nobody without TLS is asked for anything.

use std::path::Path;

use gpurun::registry::credentials::Keyring;
use gpurun::registry::{Options, Registry, Settings};
use serde_json::{Value, json};

use crate::support::authority::Authority;
use crate::support::http::{Fixture, Reply, Request, Server, image, read_layer};
use crate::support::{Case, can};

/// `me:open sesame`
const AUTH: &str = "bWU6b3BlbiBzZXNhbWU=";

/// A registry whose certificate is of an authority that the case trusts.
struct Secure {
    case: Case,
    server: Server,
}

impl Secure {
    fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Option<Self> {
        if !can(Path::new("/usr/bin/openssl").exists(), "openssl") {
            return None;
        }
        let case = Case::new();
        let authority = Authority::new(&case);
        let server = Server::start_tls(&authority.issue("server", "serverAuth"), handler);
        let dir = case.path("certs.d").join(server.host());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(authority.certificate(), dir.join("ca.crt")).unwrap();
        Some(Self { case, server })
    }

    /// The layer, asked for by somebody who has this credential.
    fn pull(&self, credential: &Value) -> Result<Vec<u8>, String> {
        let auths = json!({"auths": {self.server.host(): credential}}).to_string();
        let keyring = Keyring { files: vec![self.case.file("auth.json", &auths)], ..Keyring::default() };
        let settings = Settings { keyring, certs: vec![self.case.path("certs.d")], ..Settings::default() };
        let registry = Registry::new(&self.server.name(""), &Options { settings, ..Options::default() }).unwrap();
        let pulled = image(&registry).and_then(|image| read_layer(&registry, &image));
        pulled.map_err(|e| format!("{e:#}"))
    }
}

/// What the fixture answers to who has the password.
fn guarded(fixture: &Fixture, request: &Request) -> Reply {
    let wanted = format!("Basic {AUTH}");
    match request.path == "/v2/" || request.header("authorization") == Some(&wanted) {
        true => fixture.reply(request),
        false => Reply::new(401, "").with("WWW-Authenticate", r#"Basic realm="x""#),
    }
}

#[test]
fn a_redirect_from_https_to_plain_http_is_not_followed() {
    let fixture = Fixture::new();
    let paths = ["/v2/r/manifests/latest".into(), Fixture::blob_path(&fixture.config), fixture.layer_path()];
    for path in paths.into_iter().map(Some).chain([None]) {
        let plain = fixture.serve_layer(Fixture::reply);
        let (to, moved, served) = (plain.url(path.as_deref().unwrap_or_default()), path.clone(), fixture.clone());
        let secure = Secure::start(move |r| match guarded(&served, r) {
            _ if moved.as_ref() == Some(&r.path) => Reply::new(307, "").with("Location", to.clone()),
            reply => reply,
        });
        let Some(secure) = secure else { return };
        match (secure.pull(&json!({"auth": AUTH})), &path) {
            (pulled, None) => assert_eq!(pulled.unwrap(), fixture.layer, "without a redirect it comes"),
            (pulled, Some(_)) => {
                let error = pulled.unwrap_err();
                assert!(error.contains("leads from HTTPS to plain HTTP"), "{error}");
                assert_eq!(secure.server.seen(path.as_ref().unwrap()).len(), 1, "once is enough");
            }
        }
        assert_eq!(plain.seen("/").len(), 0);
    }
}

#[test]
fn a_token_server_on_plain_http_is_not_asked() {
    for credential in [json!({"auth": AUTH}), json!({"auth": AUTH, "identitytoken": "refresh-secret"}), json!({})] {
        let plain = Server::start(|_| Reply::new(200, r#"{"token":"t"}"#));
        let challenge = format!(r#"Bearer realm="{}",service="s""#, plain.url("/token"));
        let refuse = move |_: &Request| Reply::new(401, "").with("WWW-Authenticate", challenge.clone());
        let Some(secure) = Secure::start(refuse) else { return };
        let error = secure.pull(&credential).unwrap_err();
        assert!(error.contains("it is on plain HTTP, and the registry on HTTPS"), "{error}");
        assert_eq!(plain.seen("/").len(), 0);
    }
}

#[test]
fn a_token_server_that_leads_to_plain_http_is_not_followed() {
    let plain = Server::start(|_| Reply::new(200, r#"{"token":"t"}"#));
    let away = plain.url("/token");
    let secure = Secure::start(move |r| match (r.path.starts_with("/token"), r.header("host")) {
        (true, _) => Reply::new(307, "").with("Location", away.clone()),
        (false, host) => {
            let challenge = format!(r#"Bearer realm="https://{}/token",service="s""#, host.unwrap_or_default());
            Reply::new(401, "").with("WWW-Authenticate", challenge)
        }
    });
    let Some(secure) = secure else { return };
    let error = secure.pull(&json!({"auth": AUTH})).unwrap_err();
    assert!(error.contains("leads from HTTPS to plain HTTP"), "{error}");
    assert_eq!((plain.seen("/").len(), secure.server.seen("/token").len()), (0, 1));
}
