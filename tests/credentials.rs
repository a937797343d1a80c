//! Who the caller is: files and helpers, what a registry and its token server get to see, and what a user gets to read.

use std::process::Command;
use std::sync::Arc;

use gpurun::registry::credentials::Keyring;
use gpurun::registry::{Options, Registry, Settings};
use serde_json::json;

use crate::support::http::{Fixture, Reply, Request, Server, image, read_layer};
use crate::support::{Case, Finish, Finished};

/// `me:open sesame`
const AUTH: &str = "bWU6b3BlbiBzZXNhbWU=";

/// What must not be seen in any message: the password, and the forms in which it is kept.
const SECRETS: &[&str] = &["sesame", AUTH, "bWU6", "refresh-secret"];

/// A file for this registry, with these entries in `auths`.
fn file(case: &Case, entries: &serde_json::Value) -> Settings {
    let path = case.file("auth.json", &json!({ "auths": entries }).to_string());
    Settings { keyring: Keyring { files: vec![path], ..Keyring::default() }, ..Settings::default() }
}

fn pull(server: &Server, settings: Settings) -> Result<Vec<u8>, String> {
    let registry = Registry::new(&server.name(""), &Options { settings, ..Options::default() }).unwrap();
    let pulled = image(&registry).and_then(|image| read_layer(&registry, &image));
    pulled.map_err(|e| {
        let all = format!("{e:#} {e:?} {:?} {registry:?}", e.hints());
        for secret in SECRETS {
            assert!(!all.contains(secret), "{all}");
        }
        format!("{e:#}\n{}", e.hints().join("\n"))
    })
}

/// A registry that wants this header for everything but its front door.
fn guarded(challenge: String, wanted: &'static str) -> Server {
    let fixture = Fixture::new();
    Server::start(move |r| match r.path == "/v2/" || r.header("authorization") == Some(wanted) {
        true => fixture.reply(r),
        false => Reply::new(401, "").with("WWW-Authenticate", challenge.clone()),
    })
}

#[test]
fn a_password_is_sent_to_who_asks_for_it() {
    let server = guarded(r#"Basic realm="x""#.into(), "Basic bWU6b3BlbiBzZXNhbWU=");
    let case = Case::new();
    let entry = json!({ server.host(): {"auth": AUTH} });
    assert_eq!(pull(&server, file(&case, &entry)).unwrap(), Fixture::new().layer);
    let sent: Vec<_> = server.seen("/v2/r/").iter().map(|r| r.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true, true, true], "not before it is asked for");
}

#[test]
fn the_entry_of_the_repository_wins() {
    let server = guarded(r#"Basic realm="x""#.into(), "Basic bWU6b3BlbiBzZXNhbWU=");
    let case = Case::new();
    let (host, repository) = (server.host(), format!("{}/r", server.host()));
    let entries = json!({ host: {"username": "other", "password": "x"}, repository: {"auth": AUTH} });
    assert!(pull(&server, file(&case, &entries)).is_ok());
}

/// A token server that gives `t` to who has this, and a registry that wants `t`.
fn with_tokens(accepts: impl Fn(&Request) -> bool + Send + Sync + 'static) -> (Server, Server) {
    let tokens = Server::start(move |r| match accepts(r) {
        true => Reply::new(200, r#"{"access_token":"t"}"#),
        false => Reply::new(401, r#"{"details":"incorrect username or password"}"#),
    });
    // By another name, as a token server usually has: it is another origin.
    let realm = format!("http://localhost:{}/token", tokens.port);
    let challenge = format!(r#"Bearer realm="{realm}",service="s",scope="repository:r:pull""#);
    (guarded(challenge, "Bearer t"), tokens)
}

#[test]
fn a_token_server_elsewhere_gets_the_registrys_password() {
    let (server, tokens) = with_tokens(|r| r.header("authorization") == Some("Basic bWU6b3BlbiBzZXNhbWU="));
    let case = Case::new();
    assert!(pull(&server, file(&case, &json!({ server.host(): {"auth": AUTH} }))).is_ok());
    let asked = tokens.seen("/token");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/token?account=me&service=s&scope=repository%3Ar%3Apull");
    assert!(server.seen("/").iter().all(|r| r.header("authorization").is_none_or(|a| a == "Bearer t")));
}

#[test]
fn an_identity_token_is_exchanged_in_a_body() {
    let (server, tokens) = with_tokens(|r| r.body.contains("grant_type=refresh_token"));
    let case = Case::new();
    let entry = json!({ server.host(): {"auth": AUTH, "identitytoken": "refresh-secret"} });
    assert!(pull(&server, file(&case, &entry)).is_ok());
    let asked = &tokens.seen("/token")[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str(), asked.header("authorization")), ("POST", "/token", None));
    assert!(asked.body.ends_with("service=s&scope=repository%3Ar%3Apull&refresh_token=refresh-secret"), "{asked:?}");
}

#[test]
fn no_secret_follows_a_redirect_elsewhere() {
    let elsewhere = Arc::new(Server::start(|_| Reply::new(200, r#"{"token":"t"}"#)));
    for entry in [json!({"auth": AUTH}), json!({"identitytoken": "refresh-secret"})] {
        let away = elsewhere.url("/away");
        let tokens = Server::start(move |_| Reply::new(307, "").with("Location", away.clone()));
        let server = guarded(format!(r#"Bearer realm="{}""#, tokens.url("/token")), "Bearer t");
        let _ = pull(&server, file(&Case::new(), &json!({ server.host(): entry })));
        assert_eq!(tokens.seen("/token").len(), 1);
    }
    let seen = elsewhere.seen("/");
    assert_eq!(seen.len(), 1, "a GET follows, a POST does not");
    assert!(seen.iter().all(|r| r.header("authorization").is_none() && r.body.is_empty()));
}

/// As CVE-2020-15157: who the registry sends us to for a blob says where the password is to go.
#[test]
fn a_challenge_from_elsewhere_is_not_answered() {
    let fixture = Fixture::new();
    for credential in [json!({"auth": AUTH}), json!({"auth": AUTH, "identitytoken": "refresh-secret"})] {
        let thief = Arc::new(Server::start(|_| Reply::new(200, r#"{"token":"t"}"#)));
        let challenge = format!(r#"Bearer realm="{}",service="s", Basic realm="x""#, thief.url("/token"));
        let elsewhere = Server::start(move |_| Reply::new(401, "").with("WWW-Authenticate", challenge.clone()));
        let (away, host) = (elsewhere.url("/away"), elsewhere.host());
        let server = fixture.serve_layer(move |_, _| Reply::new(307, "").with("Location", away.clone()));
        let error = pull(&server, file(&Case::new(), &json!({ server.host(): credential }))).unwrap_err();
        assert!(error.contains("401 Unauthorized"), "{error}");
        assert!(error.contains(&format!("{host}, to which {} redirects, did not give", server.host())), "{error}");
        assert_eq!((thief.seen("/").len(), elsewhere.seen("/").len()), (0, 1));
        assert!(server.seen("/").iter().all(|r| r.header("authorization").is_none()), "nobody there has asked");
    }
}

#[test]
fn a_refusal_says_which_credentials_were_refused() {
    let case = Case::new();
    let (server, _tokens) = with_tokens(|_| false);
    let error = pull(&server, file(&case, &json!({ server.host(): {"auth": AUTH} }))).unwrap_err();
    let who = format!("refuses the credentials of `me` from `{}`", case.path("auth.json").display());
    assert!(error.contains(&who) && error.contains("incorrect username or password"), "{error}");
    let server = guarded(r#"Basic realm="x""#.into(), "nothing will do");
    let error = pull(&server, file(&case, &json!({ server.host(): {"auth": AUTH} }))).unwrap_err();
    assert!(error.contains(&who) && error.contains("gpurun login"), "{error}");
    let error = pull(&server, file(&case, &json!({"other": {"auth": AUTH}}))).unwrap_err();
    assert!(error.contains("without credentials") && error.contains("none fit it in `"), "{error}");
}

#[test]
fn a_broken_file_matters_only_to_who_needs_it() {
    let case = Case::new();
    let broken = case.file("broken", r#"{"auths": {"#);
    let settings = Settings { keyring: Keyring { files: vec![broken], ..Keyring::default() }, ..Settings::default() };
    let fixture = Fixture::new();
    let open = Server::start(move |r| fixture.reply(r));
    assert!(pull(&open, settings.clone()).is_ok());
    let error = pull(&guarded(r#"Basic realm="x""#.into(), "x"), settings).unwrap_err();
    assert!(error.contains("broken`") && error.contains("not JSON"), "{error}");
}

/// A `docker-credential-test` that is this script, in a PATH of its own.
fn with_helper(case: &Case, server: &Server, script: &str) -> Finished {
    helper(case, script);
    case.file("home/.docker/config.json", &json!({"credHelpers": {server.host(): "test"}}).to_string());
    let paths = format!("{}:/usr/bin:/bin", case.path("bin").display());
    case.bare().env("PATH", paths).args(["pull", &format!("{}/r:none", server.host())]).finish()
}

/// Made by another process: a descriptor for writing that a fork of this one inherits would make it busy.
fn helper(case: &Case, script: &str) {
    let (from, to) = (case.file("script", &format!("#!/bin/sh\n{script}\n")), case.path("bin/docker-credential-test"));
    let made = Command::new("install").args(["-D", "-m", "755"]).args([from, to]).status().unwrap();
    assert!(made.success());
}

#[test]
fn a_helper_is_asked_for_its_registry() {
    let (case, server) = (Case::new(), guarded(r#"Basic realm="x""#.into(), "Basic bWU6b3BlbiBzZXNhbWU="));
    let script = r#"read server; echo "$1 $server" >>$HOME/asked; echo '{"Username":"me","Secret":"open sesame"}'"#;
    with_helper(&case, &server, script).failed(125, &["has no `", "404"]);
    assert_eq!(std::fs::read_to_string(case.path("home/asked")).unwrap(), format!("get {}\n", server.host()));
}

#[test]
fn a_helper_that_knows_nothing_is_no_error_but_one_that_fails_is() {
    let (case, server) = (Case::new(), guarded(r#"Basic realm="x""#.into(), "Basic x"));
    with_helper(&case, &server, "echo credentials not found in native keychain; exit 1")
        .failed(125, &["only after a login", "without credentials", ".docker/config.json"]);
    with_helper(&case, &server, "echo the keychain is locked; exit 1")
        .failed(125, &["ask docker-credential-test (`", "the keychain is locked"]);
    let refused = with_helper(&case, &server, r#"echo '{"Username":"me","Secret":"open sesame"}'"#);
    refused.failed(125, &["refuses the credentials of `me` from docker-credential-test (`"]);
    let broken = with_helper(&case, &server, r#"echo '{"Username":"me","Secret":"open sesame"'"#);
    broken.failed(125, &["read its answer: it is not JSON"]);
    for finished in [refused, broken] {
        assert!(!finished.stderr.contains("sesame"), "{finished:?}");
    }
}
