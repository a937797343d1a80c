//! The registry client against a server that misbehaves in every way there is a rule for.

use std::io::Read;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use gpurun::image::Digest;
use gpurun::registry::{Options, Registry};
use serde_json::json;

use crate::support::http::{Fixture, Reply, Request, Server, image, read_layer, receive};

/// A registry that wants `Bearer t<N>` from its own token server, where N is what `generation` says.
fn with_tokens(fixture: &Fixture, generation: impl Fn(&Request) -> usize + Send + Sync + 'static) -> (Server, Server) {
    let tokens = Server::start(|r| Reply::new(200, json!({"token": format!("t{}", r.earlier)}).to_string()));
    let challenge = format!(r#"Bearer realm="{}",service="s",scope="repository:r:pull""#, tokens.url("/token"));
    let fixture = fixture.clone();
    let registry = Server::start(move |r| {
        let wanted = format!("Bearer t{}", generation(r));
        match r.path == "/v2/" || r.header("authorization") == Some(&wanted) {
            true => fixture.reply(r),
            false => Reply::new(401, "").with("WWW-Authenticate", challenge.clone()),
        }
    });
    (registry, tokens)
}

#[test]
fn an_image_comes_whole() {
    let fixture = Fixture::new();
    let server = fixture.serve_layer(Fixture::reply);
    let (image, layer) = server.pull().unwrap();
    assert_eq!(image.digest, Digest::of(&fixture.manifest));
    assert_eq!(image.config_digest, Digest::of(&fixture.config));
    assert_eq!(image.config_json.as_bytes(), fixture.config);
    assert_eq!(layer, fixture.layer);
    let accept = server.seen("/v2/r/manifests/latest")[0].header("accept").unwrap().to_owned();
    for kind in ["oci.image.index", "oci.image.manifest", "docker.distribution.manifest.list", "manifest.v2+json"] {
        assert!(accept.contains(kind), "{accept}");
    }
}

#[test]
fn a_token_is_fetched_once_and_used_for_all() {
    let fixture = Fixture::new();
    let (registry, tokens) = with_tokens(&fixture, |_| 0);
    assert_eq!(registry.pull().unwrap().1, fixture.layer);
    let asked = tokens.seen("/token");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/token?service=s&scope=repository%3Ar%3Apull");
    assert_eq!(asked[0].header("authorization"), None);
}

#[test]
fn an_expired_token_is_fetched_again_by_one_thread_for_all() {
    let fixture = Fixture::new();
    let layer_path = fixture.layer_path();
    let (server, tokens) = with_tokens(&fixture, move |r| usize::from(r.path == layer_path));
    let registry = server.registry("");
    let image = image(&registry).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(read_layer(&registry, &image).unwrap(), fixture.layer));
        }
    });
    assert_eq!(tokens.seen("/token").len(), 2);
}

#[test]
fn a_token_that_does_not_help_is_not_asked_for_again_and_again() {
    let (registry, tokens) = with_tokens(&Fixture::new(), |_| 99);
    let error = registry.pull().unwrap_err();
    assert!(format!("{error:#}").contains("only after a login"), "{error:#}");
    assert!(error.hints()[0].contains("credentials"));
    assert_eq!((registry.seen("/v2/r/").len(), tokens.seen("/token").len()), (2, 1));
}

#[test]
fn a_registry_that_wants_a_password_says_so() {
    let server =
        Fixture::new().serve_manifest(|_, _| Reply::new(401, "").with("WWW-Authenticate", r#"Basic realm="x""#));
    assert!(server.error().contains("only after a login"));
}

#[test]
fn another_origin_never_sees_the_token() {
    let fixture = Fixture::new();
    let elsewhere = fixture.serve_layer(Fixture::reply);
    let tokens = Server::start(|_| Reply::new(200, r#"{"access_token":"t"}"#));
    let challenge = format!(r#"Bearer realm="{}""#, tokens.url("/token"));
    let (away, layer) = (elsewhere.url(&fixture.layer_path()), fixture.layer_path());
    let registry = Server::start(move |r| match (r.header("authorization"), r.path.as_str()) {
        (_, "/v2/") => Reply::new(200, ""),
        (None, _) => Reply::new(401, "").with("WWW-Authenticate", challenge.clone()),
        (_, "/v2/r/manifests/latest") => Reply::new(307, "").with("Location", "/v2/r/manifests/here"),
        (_, "/v2/r/manifests/here") => Reply::new(200, fixture.manifest.clone()),
        (_, path) if path == layer => Reply::new(307, "").with("Location", away.clone()),
        _ => fixture.reply(r),
    });
    let layer = registry.pull().unwrap().1;
    assert_eq!(layer, Fixture::new().layer);
    let here = registry.seen("/v2/r/manifests/here");
    assert_eq!(here[0].header("authorization"), Some("Bearer t"), "the same origin does");
    let there = elsewhere.seen("/v2/r/blobs/");
    assert_eq!((there.len(), there[0].header("authorization")), (1, None));
}

#[test]
fn redirects_end() {
    let server = Fixture::new().serve_manifest(|_, r| Reply::new(302, "").with("Location", r.path.clone()));
    assert!(server.error().contains("redirects more than 10 times"));
}

#[test]
fn what_passes_is_waited_for_and_told() {
    let server = Fixture::new().serve_manifest(|fixture, r| match r.earlier {
        0 => Reply::new(429, "").with("Retry-After", "0"),
        1 => Reply::new(503, ""),
        2 => fixture.reply(r).cut(10),
        _ => fixture.reply(r),
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let notice = told.clone();
    let notice = Arc::new(move |line: &str| notice.lock().unwrap().push(line.to_owned()));
    let registry = Registry::new(&server.name(""), &Options { notice, ..Options::default() }).unwrap();
    image(&registry).unwrap();
    let told = told.lock().unwrap();
    for (line, want) in told.iter().zip(["429", "503", "Peer disconnected"]) {
        assert!(line.contains(want) && line.contains("trying again in"), "{line}");
    }
    assert_eq!(told.len(), 3);
}

/// As HTTP writes a date (RFC 9110, 5.6.7), so many seconds from now.
fn date(from_now: &str) -> String {
    let mut command = std::process::Command::new("date");
    command.args(["-u", "-d", from_now, "+%a, %d %b %Y %H:%M:%S GMT"]).env("LC_ALL", "C");
    String::from_utf8(command.output().unwrap().stdout).unwrap().trim_end().to_owned()
}

#[test]
fn retry_after_may_be_a_date() {
    let (before, soon) = (SystemTime::now(), date("2 seconds"));
    let server = Fixture::new().serve_manifest(move |fixture, r| match r.earlier {
        0 => Reply::new(429, "").with("Retry-After", soon.clone()),
        1 => Reply::new(503, "").with("Retry-After", date("1 hour ago")),
        _ => fixture.reply(r),
    });
    server.pull().unwrap();
    assert!(before.elapsed().unwrap() >= Duration::from_secs(1), "a date has no parts of seconds");
    let server = Fixture::new().serve_manifest(|_, _| Reply::new(429, "").with("Retry-After", date("1 hour")));
    let error = server.pull().unwrap_err();
    assert!(error.hints().iter().any(|h| h.contains("again in 35") || h.contains("again in 3600 s")), "{error:#}");
    assert_eq!(server.seen("/v2/r/manifests/").len(), 1);
}

#[test]
fn what_does_not_pass_ends_after_five_tries() {
    let server = Fixture::new().serve_manifest(|_, _| Reply::new(502, "").with("Retry-After", "0"));
    assert!(server.error().contains("failed to answer"));
    assert_eq!(server.seen("/v2/r/manifests/").len(), 5);
    let server = Fixture::new().serve_manifest(|_, _| Reply::new(429, "").with("Retry-After", "3600"));
    let error = server.pull().unwrap_err();
    assert!(format!("{error:#}").contains("no more requests for now"));
    assert!(error.hints().iter().any(|h| h.contains("3600 s")), "{:?}", error.hints());
    assert_eq!(server.seen("/v2/r/manifests/").len(), 1);
}

#[test]
fn refusals_are_told_apart_and_not_repeated() {
    for (status, want) in [(403, "forbids access"), (404, "has no"), (400, "it answered 400")] {
        let server = Fixture::new()
            .serve_manifest(move |_, _| Reply::new(status, r#"{"errors":[{"code":"X","message":"their words"}]}"#));
        let error = server.error();
        assert!(error.contains(want) && error.ends_with(": their words"), "{error}");
        assert_eq!(server.seen("/v2/r/manifests/").len(), 1);
    }
}

#[test]
fn a_broken_blob_goes_on_where_it_broke() {
    let fixture = Fixture::new();
    let server = fixture.serve_layer(|fixture, r| match r.earlier {
        0 => fixture.reply(r).cut(150_000),
        1 => Reply::new(503, ""),
        2 => fixture.reply(r).cut(1000),
        _ => fixture.reply(r),
    });
    assert_eq!(server.pull().unwrap().1, fixture.layer);
    let from: Vec<_> = server.seen(&fixture.layer_path()).iter().map(Request::from).collect();
    assert_eq!(from, [0, 150_000, 150_000, 151_000]);
}

#[test]
fn a_server_without_ranges_is_read_again_from_the_start() {
    let fixture = Fixture::new();
    let server = fixture.serve_layer(|fixture, r| match r.earlier {
        0 => fixture.reply(r).cut(150_000),
        1 => Reply::new(200, fixture.layer.clone()).cut(100_000),
        _ => Reply::new(200, fixture.layer.clone()),
    });
    assert_eq!(server.pull().unwrap().1, fixture.layer);
    assert_eq!(server.seen(&fixture.layer_path()).len(), 3);
}

#[test]
fn bytes_of_another_place_are_not_taken() {
    for range in ["bytes 100-399999/400000", "bytes 150000-399999/400001", "nonsense"] {
        let server = Fixture::new().serve_layer(move |fixture, r| match r.earlier {
            0 => fixture.reply(r).cut(150_000),
            _ => Reply::new(206, &fixture.layer[150_000..]).with("Content-Range", range),
        });
        let error = server.error();
        assert!(error.contains("was asked for the bytes from 150000") || error.contains("400001 bytes"), "{error}");
    }
}

#[test]
fn a_blob_that_is_too_short_is_an_error() {
    let announced = Fixture::new().serve_layer(|fixture, _| Reply::new(200, &fixture.layer[1..]));
    assert!(announced.error().contains("it has 399999 bytes instead of 400000"));
    let fixture = Fixture::new();
    let silent = fixture.serve_layer(|fixture, r| match r.earlier {
        0 => Reply::new(200, &fixture.layer[1..]).without_length(),
        _ => Reply::new(416, ""),
    });
    assert!(silent.error().contains("416 Range Not Satisfiable"));
    assert_eq!(silent.seen(&fixture.layer_path()).len(), 2);
}

#[test]
fn a_connection_that_never_lasts_is_given_up() {
    let fixture = Fixture::new();
    let server = fixture.serve_layer(|fixture, r| match r.from() {
        0 => fixture.reply(r).cut(5),
        _ => fixture.reply(r).cut(1),
    });
    let error = server.error();
    assert!(error.contains("at byte 9 of 400000: the connection ended") || error.contains("disconnected"), "{error}");
    assert_eq!(server.seen(&fixture.layer_path()).len(), 5);
}

#[test]
fn a_blob_ends_at_its_size() {
    let fixture = Fixture::new();
    let server = fixture.serve_layer(|fixture, _| {
        let body = [&fixture.layer[..], b"and more"].concat();
        Reply::new(200, body).without_length()
    });
    assert_eq!(server.pull().unwrap().1, fixture.layer);
}

#[test]
fn a_manifest_must_be_the_one_that_was_meant() {
    let fixture = Fixture::new();
    let other = Digest::of(b"other").to_string();
    let lying = other.clone();
    let server =
        fixture.serve_manifest(move |f, _| Reply::new(200, &f.manifest[..]).with("Docker-Content-Digest", &lying));
    assert!(server.error().contains("is corrupt"));
    let server = fixture.serve_manifest(|f, _| Reply::new(200, &f.manifest[..]));
    let error = image(&server.registry(&format!("@{other}"))).unwrap_err();
    assert!(error.to_string().contains("is corrupt"), "{error:#}");
    assert!(image(&server.registry(&format!(":x@{}", Digest::of(&fixture.manifest)))).is_ok());
    let server = fixture.serve_manifest(|f, _| {
        Reply::new(200, &f.manifest[..]).with("Docker-Content-Digest", format!("sha512:{:0128}", 0))
    });
    assert!(server.pull().is_ok(), "a digest that we cannot compare");
}

#[test]
fn a_config_must_be_the_manifests() {
    let fixture = Fixture::new();
    let path = Fixture::blob_path(&fixture.config);
    let mut corrupt = fixture.config.clone();
    *corrupt.last_mut().unwrap() = b' ';
    let server = Server::start(move |r| match r.path == path {
        true => Reply::new(200, corrupt.clone()),
        false => fixture.reply(r),
    });
    assert!(server.error().contains("verify the image's config"));
}

#[test]
fn what_no_manifest_is_is_refused() {
    let server = Fixture::new().serve_manifest(|_, _| Reply::new(200, vec![b' '; (8 << 20) + 1]));
    assert!(server.error().contains("larger than the 8388608 bytes"));
    assert_eq!(server.seen("/v2/r/manifests/").len(), 1);
    let server = Fixture::new().serve_manifest(|_, _| {
        Reply::new(200, r#"{"schemaVersion":1,"fsLayers":[]}"#)
            .with("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
    });
    assert!(server.error().contains("schema 1"));
}

#[test]
fn the_content_type_tells_what_a_manifest_is() {
    let oci = "application/vnd.oci.image.index.v1+json; charset=utf-8";
    let server = Fixture::new().serve_manifest(move |f, _| Reply::new(200, &f.manifest[..]).with("Content-Type", oci));
    assert!(server.error().contains("calls itself `application/vnd.oci.image.index.v1+json`"));
}

/// A registry on the loopback that speaks TLS answers 400 to plain HTTP, as Go and nginx do.
#[test]
fn tls_is_spoken_where_plain_http_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server { port: listener.local_addr().unwrap().port(), log: Arc::default() };
    let first_bytes = std::thread::spawn(move || {
        let bytes = listener.incoming().take(2).map(|stream| {
            let (mut stream, mut first) = (stream.unwrap(), [0]);
            stream.read_exact(&mut first).unwrap();
            Reply::new(400, "Client sent an HTTP request to an HTTPS server.").send(&mut stream);
            first[0]
        });
        bytes.collect::<Vec<_>>()
    });
    let error = server.pull().unwrap_err();
    assert!(error.hints().iter().any(|h| h.contains("SSL_CERT_FILE")), "{error:#}");
    assert_eq!(first_bytes.join().unwrap(), [b'G', 0x16], "a GET, then a TLS handshake");
}

#[test]
fn a_registry_that_is_restarted_is_waited_for() {
    let fixture = Fixture::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server { port: listener.local_addr().unwrap().port(), log: Arc::default() };
    let (port, log, served) = (server.port, server.log.clone(), fixture.clone());
    let serve = move |listener: TcpListener, requests: usize, cut: bool| {
        for stream in listener.incoming().take(requests) {
            let mut stream = stream.unwrap();
            let request = receive(&stream, &log).unwrap();
            let reply = served.reply(&request);
            let reply = if cut && served.is_layer(&request) { reply.cut(1000) } else { reply };
            reply.send(&mut stream);
        }
    };
    let registry = std::thread::spawn(move || {
        serve(listener, 4, true); // the protocol, the manifest, the config, and a part of the layer
        std::thread::sleep(std::time::Duration::from_millis(500));
        serve(TcpListener::bind(("127.0.0.1", port)).unwrap(), 1, false);
    });
    assert_eq!(server.pull().unwrap().1, fixture.layer);
    registry.join().unwrap();
    assert!(server.error().contains("Connection refused"), "but one that was never there is not");
}
