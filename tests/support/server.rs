//! A registry on the loopback that serves images out of memory, slowly if need be, counts what it is asked, and stops.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gpurun::image::Digest;

use super::image::{Image, files};

/// Bytes that are sent at a time, with a rest after each.
const PIECE: usize = 64 << 10;

/// The registry.
pub(crate) struct Server {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    asked: Mutex<Vec<Asked>>,
    stopped: AtomicBool,
    rest: AtomicU64,
    without_ranges: AtomicBool,
    /// How many must be sent at once before any of them goes on.
    gather: AtomicUsize,
    /// Blobs larger than a piece that are sent now, and the most there ever were.
    sending: AtomicUsize,
    most_at_once: AtomicUsize,
}

/// A request.
struct Asked {
    path: String,
    from: usize,
}

impl Server {
    /// One that has the images under `NAME:latest`: its index, if there are several platforms.
    pub(crate) fn start(images: &[(&str, &[&Image])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on the loopback");
        let server = Self { port: listener.local_addr().expect("its address").port(), shared: Arc::default() };
        for (name, images) in images {
            server.add(name, images);
        }
        let shared = Arc::clone(&server.shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || drop(shared.serve(&stream)));
            }
        });
        server
    }

    /// Makes `NAME:latest` these images.
    pub(crate) fn add(&self, name: &str, images: &[&Image]) {
        let mut all = self.shared.files.lock().expect("lock");
        let mut files = files(images);
        let index = files.remove("index.json").expect("a layout has one");
        all.insert(format!("blobs/sha256/{}", Digest::of(&index).hex()), index.clone());
        all.insert(format!("/v2/{name}/manifests/latest"), index);
        all.extend(files);
    }

    /// Rests so many milliseconds after each piece of a blob.
    pub(crate) fn slow(&self, millis: u64) {
        self.shared.rest.store(millis, Ordering::SeqCst);
    }

    /// The reference of an image.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// How many paths were asked for that have this in them.
    pub(crate) fn asked(&self, part: &str) -> usize {
        self.asked_from(part).len()
    }

    /// The first bytes that were asked for, of paths that have this in them.
    pub(crate) fn asked_from(&self, part: &str) -> Vec<usize> {
        let asked = self.shared.asked.lock().expect("lock");
        asked.iter().filter(|asked| asked.path.contains(part)).map(|asked| asked.from).collect()
    }

    /// Answers with whole blobs, whatever part is asked for.
    pub(crate) fn without_ranges(&self) {
        self.shared.without_ranges.store(true, Ordering::SeqCst);
    }

    /// Goes on with nothing larger than a piece until so many have been asked for at once.
    pub(crate) fn gather(&self, many: usize) {
        self.shared.gather.store(many, Ordering::SeqCst);
    }

    /// The most answers larger than a piece that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::SeqCst)
    }

    /// From now on nobody answers at its port.
    pub(crate) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // wakes it
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut range = None;
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            range = range.or(line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
        }
        let range = range.filter(|_| !self.without_ranges.load(Ordering::SeqCst));
        let (from, last) = range.as_deref().and_then(|range| range.split_once('-')).unwrap_or_default();
        let from = from.parse().unwrap_or(0);
        self.asked.lock().expect("lock").push(Asked { path: path.clone(), from });
        let Some(body) = self.body(&path) else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        };
        let until = last.parse::<usize>().map_or(body.len(), |last| body.len().min(last + 1));
        let part = format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{}", until.max(1) - 1, body.len());
        let status = if range.is_some() { &part } else { "200 OK" };
        let head = format!("{status}\r\nContent-Length: {}", until - from);
        stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let _sending = (body.len() > PIECE).then(|| Sending::new(self));
        if body.len() > PIECE {
            self.wait_for_others();
        }
        for piece in body[from..until].chunks(PIECE) {
            stream.write_all(piece)?;
            std::thread::sleep(Duration::from_millis(self.rest.load(Ordering::SeqCst)));
        }
        stream.shutdown(Shutdown::Write)
    }

    /// Whoever never comes is waited for no longer than a client would bear with.
    fn wait_for_others(&self) {
        let start = Instant::now();
        let all_are_here = || self.most_at_once.load(Ordering::SeqCst) >= self.gather.load(Ordering::SeqCst);
        while !all_are_here() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn body(&self, path: &str) -> Option<Vec<u8>> {
        let files = self.files.lock().expect("lock");
        let by_digest = || files.get(&format!("blobs/sha256/{}", path.split_once("sha256:")?.1)).cloned();
        match path {
            "/v2/" => Some(Vec::new()),
            path => files.get(path).cloned().or_else(by_digest),
        }
    }
}

/// An answer under way.
struct Sending<'a>(&'a Shared);

impl<'a> Sending<'a> {
    fn new(shared: &'a Shared) -> Self {
        let sending = shared.sending.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_at_once.fetch_max(sending, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::SeqCst);
    }
}
