//! registries.conf: which places are asked for an image, in which order, and what they get to see.

use std::sync::{Arc, Mutex};

use gpurun::reference::{ImageRef, RegistryRef};
use gpurun::registry::credentials::Keyring;
use gpurun::registry::{Options, RegistriesConf, Registry, Settings};
use serde_json::json;

use crate::support::http::{Fixture, Reply, Server, image, read_layer};
use crate::support::{Case, Finish};

/// `me:open sesame`
const AUTH: &str = "bWU6b3BlbiBzZXNhbWU=";

fn name(text: &str) -> RegistryRef {
    match ImageRef::parse(text).unwrap() {
        ImageRef::Registry(name) => name,
        other => panic!("{other}"),
    }
}

/// One that has the image, and one that has none.
fn servers() -> (Server, Server) {
    let fixture = Fixture::new();
    (Server::start(move |r| fixture.reply(r)), Server::start(|_| Reply::new(404, "")))
}

/// A registry that nobody has, and its mirrors.
fn mirrored(case: &Case, prefix: &str, mirrors: &[&Server]) -> Settings {
    let mirrors = mirrors.iter().map(|m| format!("[[registry.mirror]]\nlocation = '{}'\n", m.host()));
    let conf = format!("[[registry]]\nprefix = '{prefix}'\nlocation = '{prefix}'\n{}", mirrors.collect::<String>());
    let registries =
        RegistriesConf { choices: vec![(case.file("registries.conf", &conf), Vec::new())], own: Vec::new() };
    Settings { registries, ..Settings::default() }
}

/// The image by its name at `registry`, and what is told meanwhile.
fn pull(registry: &str, settings: Settings) -> (gpurun::error::Result<Vec<u8>>, Vec<String>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    let notice = Arc::new(move |line: &str| teller.lock().unwrap().push(line.to_owned()));
    let registry = Registry::new(&name(&format!("{registry}/r")), &Options { settings, notice, ..Options::default() });
    let registry = registry.unwrap();
    let layer = image(&registry).and_then(|image| read_layer(&registry, &image));
    drop(registry);
    (layer, Arc::into_inner(told).unwrap().into_inner().unwrap())
}

#[test]
fn the_first_mirror_that_has_it_is_asked_for_all() {
    let (case, (full, empty)) = (Case::new(), servers());
    let (layer, told) = pull("127.0.0.1:1", mirrored(&case, "127.0.0.1:1", &[&empty, &full]));
    assert_eq!(layer.unwrap(), Fixture::new().layer);
    assert_eq!(empty.seen("/v2/r/").len(), 1, "no layer is asked of one that has no manifest");
    assert_eq!(told.len(), 1);
    assert!(told[0].contains(&empty.host()) && told[0].ends_with(&format!("asking {}", full.host())), "{told:?}");
}

#[test]
fn the_registry_itself_is_the_last_to_be_asked() {
    let (case, (full, empty)) = (Case::new(), servers());
    assert!(pull(&full.host(), mirrored(&case, &full.host(), &[&empty])).0.is_ok());
    let error = pull("127.0.0.1:1", mirrored(&case, "127.0.0.1:1", &[&empty])).0.unwrap_err();
    assert!(format!("{error:#}").contains("127.0.0.1:1/v2/"), "{error:#}");
}

#[test]
fn a_layer_that_a_mirror_has_lost_is_had_elsewhere() {
    let (case, (full, _)) = (Case::new(), servers());
    let partial = Fixture::new().serve_layer(|_, _| Reply::new(404, ""));
    let (layer, told) = pull(&full.host(), mirrored(&case, &full.host(), &[&partial]));
    assert_eq!(layer.unwrap(), Fixture::new().layer);
    assert_eq!((full.seen("/v2/r/manifests/").len(), told.len()), (0, 1));
}

#[test]
fn a_mirror_gets_its_own_credentials_and_no_others() {
    let (case, (full, empty)) = (Case::new(), servers());
    let fixture = Fixture::new();
    let guarded = Server::start(move |r| match r.path == "/v2/" || r.header("authorization").is_some() {
        true => fixture.reply(r),
        false => Reply::new(401, "").with("WWW-Authenticate", r#"Basic realm="x""#),
    });
    let settings = |entry: &str, mirrors: &[&Server]| {
        let auths = json!({"auths": {entry: {"auth": AUTH}}}).to_string();
        let keyring = Keyring { files: vec![case.file("auth.json", &auths)], ..Keyring::default() };
        Settings { keyring, ..mirrored(&case, &full.host(), mirrors) }
    };
    assert!(pull(&full.host(), settings(&full.host(), &[&guarded, &empty])).0.is_ok());
    assert!(
        guarded.seen("/").iter().all(|r| r.header("authorization").is_none()),
        "the registry's are not the mirror's"
    );
    assert!(pull(&full.host(), settings(&guarded.host(), &[&guarded])).0.is_ok());
    assert!(guarded.seen("/v2/r/").iter().any(|r| r.header("authorization") == Some(&format!("Basic {AUTH}"))));
}

#[test]
fn docker_hubs_mirror_stands_in_for_bare_names() {
    let case = Case::new();
    let empty = Server::start(|_| Reply::new(404, ""));
    // The registry itself is moved as well, so that nothing leaves this machine.
    let conf = format!("[[registry]]\nprefix = 'docker.io'\nlocation = '{}/cache'\n", empty.host());
    case.file("home/.config/containers/registries.conf", &conf);
    let mut command = case.bare();
    command.args(["pull", "busybox"]).finish().refused(&["has no `", "/cache/library/busybox:latest`"]);
    assert_eq!(empty.seen("/v2/cache/library/busybox/manifests/latest").len(), 1);
}

#[test]
fn a_blocked_registry_is_not_asked() {
    let (case, (full, _)) = (Case::new(), servers());
    let conf = format!("[[registry]]\nlocation = '{}'\nblocked = true\n", full.host());
    let conf = case.file("home/.config/containers/registries.conf", &conf);
    let mut command = case.bare();
    let refused = command.args(["pull", &format!("{}/r", full.host())]).finish();
    refused.refused(&["is blocked", conf.to_str().unwrap()]);
    assert!(full.seen("/").is_empty());
    case.file("home/.config/containers/registries.conf", "[[registry]\n");
    command.finish().refused(&["registries.conf`", "line 1: "]);
}

#[test]
fn gpuruns_own_file_names_mirrors_over_the_others() {
    let (case, (full, empty)) = (Case::new(), servers());
    let conf = format!("[[registry]]\nlocation = '{}'\nblocked = true\n", empty.host());
    case.file("home/.config/containers/registries.conf", &conf);
    let own = format!("[registry.'{}']\nmirrors = ['{}']\n", empty.host(), full.host());
    case.file("home/.config/gpurun/config.toml", &own);
    let pulled = case.bare().args(["pull", &format!("{}/r", empty.host())]).finish();
    pulled.refused(&[]); // the layer is no tar: what counts is who was asked
    assert!(!full.seen("/v2/r/manifests/").is_empty() && empty.seen("/v2/r/manifests/").is_empty(), "{pulled:?}");
}
