//! A registry on the loopback that serves images out of memory, slowly if need be, counts what it is asked, and stops.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    asked: Mutex<Vec<String>>,
    stopped: AtomicBool,
    rest: AtomicU64,
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

    /// The paths that were asked for and have this in them.
    pub(crate) fn asked(&self, part: &str) -> usize {
        self.shared.asked.lock().expect("lock").iter().filter(|path| path.contains(part)).count()
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
        let mut from = 0;
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            let range = line.to_ascii_lowercase();
            let range = range.strip_prefix("range: bytes=").and_then(|r| r.strip_suffix('-')?.parse().ok());
            from = range.unwrap_or(from);
        }
        self.asked.lock().expect("lock").push(path.clone());
        let body = self.body(&path);
        let (status, total) = (if from > 0 { "206 Partial Content" } else { "200 OK" }, body.as_ref().map(Vec::len));
        let Some(body) = body else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        };
        let (last, total) = (body.len().saturating_sub(1), total.unwrap_or_default());
        let range = if from > 0 { format!("Content-Range: bytes {from}-{last}/{total}\r\n") } else { String::new() };
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{range}\r\n", total - from);
        stream.write_all(head.as_bytes())?;
        for piece in body[from..].chunks(PIECE) {
            stream.write_all(piece)?;
            std::thread::sleep(Duration::from_millis(self.rest.load(Ordering::SeqCst)));
        }
        stream.shutdown(Shutdown::Write)
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
