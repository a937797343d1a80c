//! The registry client against a server that misbehaves in every way there is a rule for.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use gpurun::error::Result;
use gpurun::image::{Digest, Image, Platform};
use gpurun::reference::{ImageRef, RegistryRef};
use gpurun::registry::{Options, Registry};
use gpurun::source::Source;
use serde_json::json;

/// A request as the server saw it.
#[derive(Clone, Debug)]
struct Request {
    /// With its query.
    path: String,
    headers: HashMap<String, String>,
    /// How many requests for this path came before.
    earlier: usize,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte asked for.
    fn from(&self) -> usize {
        let range = self.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-'));
        range.map_or(0, |from| from.parse().unwrap())
    }
}

#[derive(Clone)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    cut: Option<usize>,
    /// Whether the body's length is announced.
    length: bool,
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, length: true }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn cut(self, after: usize) -> Self {
        Self { cut: Some(after), ..self }
    }

    /// The part that was asked for.
    fn part(request: &Request, whole: &[u8]) -> Self {
        let from = request.from();
        let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
        Self::new(206, &whole[from..]).with("Content-Range", range)
    }

    fn send(&self, stream: &mut TcpStream) {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if self.length {
            let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
        }
        let end = self.cut.unwrap_or(self.body.len());
        // The client may have hung up: it has read enough.
        let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(&self.body[..end]));
    }
}

struct Server {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request by `handler`, each in its own thread, until the tests end.
    fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), log: Arc::default() };
        let (log, handler) = (server.log.clone(), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, log, handler) = (stream.unwrap(), log.clone(), handler.clone());
                std::thread::spawn(move || {
                    if let Some(request) = receive(&stream, &log) {
                        handler(&request).send(&mut stream);
                    }
                });
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn registry(&self, suffix: &str) -> Registry {
        Registry::new(&self.name(suffix), &Options::default())
    }

    fn name(&self, suffix: &str) -> RegistryRef {
        match ImageRef::parse(&format!("127.0.0.1:{}/r{suffix}", self.port)).unwrap() {
            ImageRef::Registry(name) => name,
            other => panic!("{other}"),
        }
    }

    /// Requests for paths that begin like this.
    fn seen(&self, path: &str) -> Vec<Request> {
        self.log.lock().unwrap().iter().filter(|r| r.path.starts_with(path)).cloned().collect()
    }

    fn pull(&self) -> Result<(Image, Vec<u8>)> {
        let registry = self.registry("");
        let image = image(&registry)?;
        let layer = read_layer(&registry, &image)?;
        Ok((image, layer))
    }

    fn error(&self) -> String {
        self.pull().map(|_| ()).map_err(|e| format!("{e:#}")).unwrap_err()
    }
}

fn receive(stream: &TcpStream, log: &Mutex<Vec<Request>>) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let headers = lines.map_while(|l| l.ok().filter(|l| !l.is_empty()));
    let headers = headers.filter_map(|l| l.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())));
    let headers = headers.collect();
    let mut log = log.lock().unwrap();
    let earlier = log.iter().filter(|r| r.path == path).count();
    let request = Request { path, headers, earlier };
    log.push(request.clone());
    Some(request)
}

fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn image(registry: &Registry) -> Result<Image> {
    registry.image(&platform())
}

fn read_layer(registry: &Registry, image: &Image) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = registry.blob(&image.layers[0])?.read_to_end(&mut bytes);
    read.map_err(|e| gpurun::error::Error::new("read the layer").because(e))?;
    Ok(bytes)
}

/// A small image: its manifest, its config, and a layer of arbitrary bytes.
#[derive(Clone)]
struct Fixture {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let layer: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let rootfs = json!({"type": "layers", "diff_ids": [Digest::of(b"diff")]});
        let config = json!({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).to_string().into_bytes();
        let descriptor = |kind: &str, bytes: &[u8]| {
            let kind = format!("application/vnd.oci.image.{kind}");
            json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()})
        };
        let layers = [descriptor("layer.v1.tar+gzip", &layer)];
        let manifest = json!({"schemaVersion": 2, "config": descriptor("config.v1+json", &config), "layers": layers});
        Self { manifest: manifest.to_string().into_bytes(), config, layer }
    }

    fn blob_path(bytes: &[u8]) -> String {
        format!("/v2/r/blobs/{}", Digest::of(bytes))
    }

    fn layer_path(&self) -> String {
        Self::blob_path(&self.layer)
    }

    fn is_layer(&self, request: &Request) -> bool {
        request.path == self.layer_path()
    }

    /// What a registry without faults answers.
    fn reply(&self, request: &Request) -> Reply {
        let by_digest = format!("/v2/r/manifests/{}", Digest::of(&self.manifest));
        match request.path.as_str() {
            "/v2/" => Reply::new(200, "{}"),
            "/v2/r/manifests/latest" => Reply::new(200, self.manifest.clone()),
            path if path == by_digest => Reply::new(200, self.manifest.clone()),
            path if path == Self::blob_path(&self.config) => Reply::new(200, self.config.clone()),
            path if path == self.layer_path() && request.from() > 0 => Reply::part(request, &self.layer),
            path if path == self.layer_path() => Reply::new(200, self.layer.clone()),
            _ => Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
        }
    }

    /// A registry whose layer is answered by `layer`.
    fn serve_layer(&self, layer: impl Fn(&Self, &Request) -> Reply + Send + Sync + 'static) -> Server {
        let fixture = self.clone();
        Server::start(move |r| if fixture.is_layer(r) { layer(&fixture, r) } else { fixture.reply(r) })
    }

    /// A registry whose manifest is answered by `manifest`.
    fn serve_manifest(&self, manifest: impl Fn(&Self, &Request) -> Reply + Send + Sync + 'static) -> Server {
        let fixture = self.clone();
        let is_manifest = |r: &Request| r.path.starts_with("/v2/r/manifests/");
        Server::start(move |r| if is_manifest(r) { manifest(&fixture, r) } else { fixture.reply(r) })
    }
}

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
    let registry = Registry::new(&server.name(""), &Options { notice, ..Options::default() });
    image(&registry).unwrap();
    let told = told.lock().unwrap();
    for (line, want) in told.iter().zip(["429", "503", "Peer disconnected"]) {
        assert!(line.contains(want) && line.contains("trying again in"), "{line}");
    }
    assert_eq!(told.len(), 3);
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
        0 => Reply { length: false, ..Reply::new(200, &fixture.layer[1..]) },
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
        Reply { length: false, ..Reply::new(200, body) }
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
