//! A server on the loopback that answers as the test says, writes down what it was asked, and a small image to serve.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use gpurun::error::Result;
use gpurun::image::{Digest, Image, Platform};
use gpurun::reference::{ImageRef, RegistryRef};
use gpurun::registry::{Options, Registry};
use gpurun::source::Source;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    headers: HashMap<String, String>,
    pub(crate) body: String,
    /// How many requests for this path came before.
    pub(crate) earlier: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte asked for.
    pub(crate) fn from(&self) -> usize {
        let range = self.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-'));
        range.map_or(0, |from| from.parse().unwrap())
    }
}

/// What the server answers.
#[derive(Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    cut: Option<usize>,
    /// Whether the body's length is announced.
    length: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, length: true }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Its end is the connection's.
    pub(crate) fn without_length(self) -> Self {
        Self { length: false, ..self }
    }

    pub(crate) fn cut(self, after: usize) -> Self {
        Self { cut: Some(after), ..self }
    }

    /// The part that was asked for.
    pub(crate) fn part(request: &Request, whole: &[u8]) -> Self {
        let from = request.from();
        let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
        Self::new(206, &whole[from..]).with("Content-Range", range)
    }

    pub(crate) fn send(&self, stream: &mut impl Write) {
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

/// A server whose every answer the test decides.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request by `handler`, each in its own thread, until the tests end.
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(move |mut stream, log| {
            if let Some(request) = receive(&stream, log) {
                handler(&request).send(&mut stream);
            }
        })
    }

    /// The same behind TLS, with this certificate and its key.
    pub(crate) fn start_tls(
        [certificate, key]: &[PathBuf; 2],
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap();
        let config = Arc::new(config);
        Self::serve(move |stream, log| {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            if let Some(request) = receive(&mut stream, log) {
                handler(&request).send(&mut stream);
                stream.conn.send_close_notify();
                let _ = stream.flush(); // whoever had enough has hung up
            }
        })
    }

    fn serve(serve: impl Fn(TcpStream, &Mutex<Vec<Request>>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), log: Arc::default() };
        let (log, serve) = (server.log.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, log, serve) = (stream.unwrap(), log.clone(), serve.clone());
                std::thread::spawn(move || serve(stream, &log));
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn registry(&self, suffix: &str) -> Registry {
        Registry::new(&self.name(suffix), &Options::default()).unwrap()
    }

    /// `host:port`
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn name(&self, suffix: &str) -> RegistryRef {
        match ImageRef::parse(&format!("127.0.0.1:{}/r{suffix}", self.port)).unwrap() {
            ImageRef::Registry(name) => name,
            other => panic!("{other}"),
        }
    }

    /// Requests for paths that begin like this.
    pub(crate) fn seen(&self, path: &str) -> Vec<Request> {
        self.log.lock().unwrap().iter().filter(|r| r.path.starts_with(path)).cloned().collect()
    }

    pub(crate) fn pull(&self) -> Result<(Image, Vec<u8>)> {
        let registry = self.registry("");
        let image = image(&registry)?;
        let layer = read_layer(&registry, &image)?;
        Ok((image, layer))
    }

    pub(crate) fn error(&self) -> String {
        self.pull().map(|_| ()).map_err(|e| format!("{e:#}")).unwrap_err()
    }
}

/// Reads a request, and writes it down.
pub(crate) fn receive(stream: impl Read, log: &Mutex<Vec<Request>>) -> Option<Request> {
    let mut stream = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|n| *n > 0).map(|_| line.trim_end().to_owned())
    };
    let first = line()?;
    let (method, path) = first.split_once(' ').map(|(method, rest)| (method.to_owned(), rest.split(' ').next()))?;
    let headers = std::iter::from_fn(|| line().filter(|l| !l.is_empty()));
    let headers = headers.filter_map(|l| l.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())));
    let headers: HashMap<_, _> = headers.collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    let (path, body) = (path?.to_owned(), String::from_utf8(body).unwrap());
    let mut log = log.lock().unwrap();
    let earlier = log.iter().filter(|r| r.path == path).count();
    let request = Request { method, path, headers, body, earlier };
    log.push(request.clone());
    Some(request)
}

pub(crate) fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

pub(crate) fn image(registry: &Registry) -> Result<Image> {
    registry.image(&platform())
}

pub(crate) fn read_layer(registry: &Registry, image: &Image) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = registry.blob(&image.layers[0])?.read_to_end(&mut bytes);
    read.map_err(|e| gpurun::error::Error::new("read the layer").because(e))?;
    Ok(bytes)
}

/// A small image: its manifest, its config, and a layer of arbitrary bytes.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) layer: Vec<u8>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn blob_path(bytes: &[u8]) -> String {
        format!("/v2/r/blobs/{}", Digest::of(bytes))
    }

    pub(crate) fn layer_path(&self) -> String {
        Self::blob_path(&self.layer)
    }

    pub(crate) fn is_layer(&self, request: &Request) -> bool {
        request.path == self.layer_path()
    }

    /// What a registry without faults answers.
    pub(crate) fn reply(&self, request: &Request) -> Reply {
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
    pub(crate) fn serve_layer(&self, layer: impl Fn(&Self, &Request) -> Reply + Send + Sync + 'static) -> Server {
        let fixture = self.clone();
        Server::start(move |r| if fixture.is_layer(r) { layer(&fixture, r) } else { fixture.reply(r) })
    }

    /// A registry whose manifest is answered by `manifest`.
    pub(crate) fn serve_manifest(&self, manifest: impl Fn(&Self, &Request) -> Reply + Send + Sync + 'static) -> Server {
        let fixture = self.clone();
        let is_manifest = |r: &Request| r.path.starts_with("/v2/r/manifests/");
        Server::start(move |r| if is_manifest(r) { manifest(&fixture, r) } else { fixture.reply(r) })
    }
}
