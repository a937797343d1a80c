//! Images from a compact description: layers of entries, compressed in any way, as a layout, an archive or a registry.
//! The tar is written here byte by byte, since no tar library writes what tests of one need; and every digest can lie.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use gpurun::image::{Digest, Platform};
use serde_json::{Value, json};

use super::listing::{Listing, list};
use super::{Case, Finish, Finished, text};

/// One entry of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    path: Vec<u8>,
    kind: u8,
    link: Vec<u8>,
    data: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

fn entry(path: impl AsRef<[u8]>, kind: u8) -> Entry {
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    let (path, owner) = (path.as_ref().to_vec(), (0, 0));
    Entry { path, kind, link: Vec::new(), data: Vec::new(), mode, owner, mtime: (1_000_000_000, 0), pax: Vec::new() }
}

pub(crate) fn file(path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Entry {
    Entry { data: data.as_ref().to_vec(), ..entry(path, b'0') }
}

pub(crate) fn dir(path: impl AsRef<[u8]>) -> Entry {
    entry(path, b'5')
}

pub(crate) fn symlink(path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Entry {
    Entry { link: to.as_ref().to_vec(), mode: 0o777, ..entry(path, b'2') }
}

pub(crate) fn hardlink(path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Entry {
    Entry { link: to.as_ref().to_vec(), ..entry(path, b'1') }
}

pub(crate) fn fifo(path: impl AsRef<[u8]>) -> Entry {
    entry(path, b'6')
}

/// `/dev/null`, under any name.
pub(crate) fn device(path: impl AsRef<[u8]>) -> Entry {
    entry(path, b'3')
}

/// Removes a path from the layers below.
pub(crate) fn whiteout(path: &str) -> Entry {
    let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
    let slash = if dir.is_empty() { "" } else { "/" };
    file(format!("{dir}{slash}.wh.{name}"), "")
}

/// Removes what the layers below have in a directory.
pub(crate) fn opaque(dir: &str) -> Entry {
    file(format!("{dir}/.wh..wh..opq").trim_start_matches('/'), "")
}

/// A sparse file in PAX format 1.0: pieces with their offsets, and its size.
pub(crate) fn sparse(path: &str, size: u64, pieces: &[(u64, &[u8])]) -> Entry {
    let mut data = format!("{}\n", pieces.len()).into_bytes();
    for (offset, bytes) in pieces {
        data.extend(format!("{offset}\n{}\n", bytes.len()).as_bytes());
    }
    data.resize(data.len().next_multiple_of(512), 0);
    data.extend(pieces.iter().flat_map(|(_, bytes)| *bytes));
    let sparse = file(format!("GNUSparseFile.0/{path}"), data).pax("GNU.sparse.major", "1");
    let sparse = sparse.pax("GNU.sparse.minor", "0").pax("GNU.sparse.name", path);
    sparse.pax("GNU.sparse.realsize", size.to_string())
}

impl Entry {
    /// One of any type.
    pub(crate) fn of_kind(kind: u8) -> Self {
        entry("entry", kind)
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: u32, gid: u32) -> Self {
        Self { owner: (uid, gid), ..self }
    }

    /// Seconds, and nanoseconds after that.
    pub(crate) fn mtime(self, seconds: i64, nanos: u32) -> Self {
        Self { mtime: (seconds, nanos), ..self }
    }

    pub(crate) fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(format!("SCHILY.xattr.{name}"), value)
    }

    fn write(&self, tar: &mut Vec<u8>) {
        let mut pax = self.pax.clone();
        if self.path.len() > 100 {
            pax.push((b"path".to_vec(), self.path.clone()));
        }
        if self.link.len() > 100 {
            pax.push((b"linkpath".to_vec(), self.link.clone()));
        }
        if !(0..1 << 33).contains(&self.mtime.0) || self.mtime.1 > 0 {
            pax.push((b"mtime".to_vec(), decimal(self.mtime).into_bytes()));
        }
        if !pax.is_empty() {
            let records: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            append(tar, &header(&entry("pax", b'x'), records.len()), &records);
        }
        append(tar, &header(self, self.data.len()), &self.data);
    }
}

/// A time as PAX writes it.
fn decimal((seconds, nanos): (i64, u32)) -> String {
    match seconds < 0 && nanos > 0 {
        true if seconds == -1 => format!("-0.{:09}", 1_000_000_000 - nanos),
        true => format!("{}.{:09}", seconds + 1, 1_000_000_000 - nanos),
        false => format!("{seconds}.{nanos:09}"),
    }
}

/// `LENGTH KEY=VALUE\n`, the length being that of the whole.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..20).map(|digits| rest + digits).find(|n| n.to_string().len() + rest == *n).expect("one fits");
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// POSIX.1-2017 pax, "ustar Interchange Format".
fn header(entry: &Entry, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &entry.path[..entry.path.len().min(100)]);
    put(100, format!("{:07o}\0{:07o}\0{:07o}\0", entry.mode, entry.owner.0, entry.owner.1).as_bytes());
    put(124, format!("{size:011o}\0{:011o}\0        ", entry.mtime.0.clamp(0, (1 << 33) - 1)).as_bytes());
    put(156, &[entry.kind]);
    put(157, &entry.link[..entry.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, b"0000001\x000000003\0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn append(tar: &mut Vec<u8>, header: &[u8], data: &[u8]) {
    tar.extend(header);
    tar.extend(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// The tar of these entries.
pub(crate) fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        entry.write(&mut out);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    /// gzip of many members.
    Members,
    Zstd,
    /// zstd of many frames, with skippable ones between them.
    Frames,
}

impl Packing {
    fn pack(self, tar: &[u8]) -> Vec<u8> {
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("compress");
            encoder.finish().expect("compress")
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("compress");
        match self {
            Self::Plain => tar.to_vec(),
            Self::Gzip => gzip(tar),
            Self::Members => tar.chunks(1000).flat_map(gzip).collect(),
            Self::Zstd => zstd(tar),
            Self::Frames => {
                let skippable = [0x5d, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
                tar.chunks(1000).flat_map(|piece| [&skippable[..], &zstd(piece)].concat()).collect()
            }
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip | Self::Members => "+gzip",
            Self::Zstd | Self::Frames => "+zstd",
        }
    }
}

/// One layer.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) tar: Vec<u8>,
    pub(crate) blob: Vec<u8>,
    packing: Packing,
}

impl Layer {
    pub(crate) fn of(packing: Packing, tar: Vec<u8>) -> Self {
        Self { blob: packing.pack(&tar), tar, packing }
    }

    /// Where a layout has it.
    pub(crate) fn path(&self) -> String {
        format!("blobs/sha256/{}", Digest::of(&self.blob).hex())
    }
}

pub(crate) type Edit = std::sync::Arc<dyn Fn(&mut Value) + Send + Sync>;

/// An image, before its documents are written.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) layers: Vec<Layer>,
    pub(crate) config: Value,
    pub(crate) platform: String,
    pub(crate) edits: [Vec<Edit>; 3],
}

/// Busybox in a layer.
fn base() -> &'static Layer {
    static BASE: OnceLock<Layer> = OnceLock::new();
    BASE.get_or_init(|| {
        let names = Command::new("/bin/busybox").arg("--list").output().expect("run busybox").stdout;
        let mut entries: Vec<_> = ["bin/", "etc/", "tmp/"].map(dir).into();
        entries.push(file("bin/busybox", std::fs::read("/bin/busybox").expect("read busybox")).mode(0o755));
        let names = String::from_utf8(names).expect("names are text");
        let others = names.lines().filter(|name| *name != "busybox");
        entries.extend(others.map(|name| symlink(format!("bin/{name}"), "busybox")));
        Layer::of(Packing::Zstd, tar(&entries))
    })
}

impl Image {
    /// No layer at all.
    pub(crate) fn empty() -> Self {
        Self {
            layers: Vec::new(),
            config: json!({}),
            platform: Platform::host().to_string(),
            edits: [const { Vec::new() }; 3],
        }
    }

    /// Busybox.
    pub(crate) fn busybox() -> Self {
        let mut image = Self::empty();
        image.layers.push(base().clone());
        image
    }

    /// One more layer, gzip.
    pub(crate) fn layer(self, entries: impl AsRef<[Entry]>) -> Self {
        self.packed(Packing::Gzip, entries)
    }

    /// One more layer.
    pub(crate) fn packed(self, packing: Packing, entries: impl AsRef<[Entry]>) -> Self {
        self.raw(packing, tar(entries.as_ref()))
    }

    /// One more layer of these bytes.
    pub(crate) fn raw(mut self, packing: Packing, tar: Vec<u8>) -> Self {
        self.layers.push(Layer::of(packing, tar));
        self
    }

    /// What the config says of the process.
    pub(crate) fn config(self, config: Value) -> Self {
        Self { config, ..self }
    }

    pub(crate) fn platform(self, platform: &str) -> Self {
        Self { platform: platform.into(), ..self }
    }

    /// Changes the whole config before it is hashed.
    pub(crate) fn edit_config(self, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.edit(0, edit)
    }

    /// Changes the manifest before it is hashed.
    pub(crate) fn edit_manifest(self, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.edit(1, edit)
    }

    /// Changes what an index says of the manifest.
    pub(crate) fn edit_descriptor(self, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.edit(2, edit)
    }

    fn edit(mut self, which: usize, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.edits[which].push(std::sync::Arc::new(edit));
        self
    }

    fn edited(&self, which: usize, mut value: Value) -> Value {
        self.edits[which].iter().for_each(|edit| edit(&mut value));
        value
    }

    /// The bytes of its config.
    pub(crate) fn config_json(&self) -> Vec<u8> {
        let platform: Platform = self.platform.parse().expect("a platform");
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| Digest::of(&layer.tar)).collect();
        let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
        let (os, architecture) = (platform.os, platform.architecture);
        let config = json!({"os": os, "architecture": architecture, "config": self.config, "rootfs": rootfs});
        self.edited(0, config).to_string().into_bytes()
    }

    /// The image's files as a layout has them, and what an index says of it.
    fn documents(&self) -> (BTreeMap<String, Vec<u8>>, Value) {
        let descriptor = |kind: &str, bytes: &[u8]| {
            let kind = format!("application/vnd.oci.image.{kind}");
            json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()})
        };
        let layer = |l: &Layer| descriptor(&format!("layer.v1.tar{}", l.packing.suffix()), &l.blob);
        let config = self.config_json();
        let layers: Vec<_> = self.layers.iter().map(layer).collect();
        let manifest = json!({"schemaVersion": 2, "config": descriptor("config.v1+json", &config), "layers": layers});
        let manifest = self.edited(1, manifest).to_string().into_bytes();
        let mut entry = descriptor("manifest.v1+json", &manifest);
        let platform: Platform = self.platform.parse().expect("a platform");
        entry["platform"] = json!({"os": platform.os, "architecture": platform.architecture});
        let blobs = [config, manifest].into_iter().chain(self.layers.iter().map(|l| l.blob.clone()));
        let named = blobs.map(|blob| (format!("blobs/sha256/{}", Digest::of(&blob).hex()), blob));
        (named.collect(), self.edited(2, entry))
    }

    /// The digest of its manifest.
    pub(crate) fn digest(&self) -> String {
        self.documents().1["digest"].as_str().expect("it has one").into()
    }

    /// A layout with this image alone.
    pub(crate) fn layout(&self, case: &Case, name: &str) -> PathBuf {
        layout(case, name, &[self])
    }

    /// What `docker save` writes: a tar, its layers plain.
    pub(crate) fn docker_archive(&self, case: &Case, name: &str) -> PathBuf {
        let config = self.config_json();
        let names: Vec<_> = self.layers.iter().map(|l| format!("{}/layer.tar", Digest::of(&l.tar).hex())).collect();
        let config_name = format!("{}.json", Digest::of(&config).hex());
        let manifest = json!([{"Config": config_name, "RepoTags": ["test:latest"], "Layers": names}]);
        let mut entries = vec![file(config_name, config), file("manifest.json", manifest.to_string())];
        entries.extend(names.iter().zip(&self.layers).map(|(name, layer)| file(name, &layer.tar)));
        let path = case.path(name);
        std::fs::write(&path, tar(&entries)).expect("write an archive");
        path
    }
}

/// The files of a layout with these images, one for each platform.
pub(crate) fn files(images: &[&Image]) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut entries) = (BTreeMap::new(), Vec::new());
    for image in images {
        let (blobs, entry) = image.documents();
        files.extend(blobs);
        entries.push(entry);
    }
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
    files.insert("index.json".into(), index.to_string().into_bytes());
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files
}

/// A layout with these images.
pub(crate) fn layout(case: &Case, name: &str, images: &[&Image]) -> PathBuf {
    let path = case.path(name);
    write(&path, &files(images));
    path
}

fn write(path: &Path, files: &BTreeMap<String, Vec<u8>>) {
    std::fs::create_dir_all(path.join("blobs/sha256")).expect("make a directory");
    for (name, bytes) in files {
        std::fs::write(path.join(name), bytes).expect("write a file of a layout");
    }
}

/// `gpurun ARGUMENTS`, with the case's store.
pub(crate) fn verb(case: &Case, arguments: &[&str]) -> Command {
    let mut command = case.bare();
    command.args(arguments);
    command
}

/// The reference of a layout.
pub(crate) fn oci(path: &Path) -> String {
    format!("oci:{}", text(path))
}

/// Pulls what must be pulled without a remark.
#[track_caller]
pub(crate) fn pull(case: &Case, reference: &str) {
    verb(case, &["pull", "-q", reference]).finish().ok();
}

/// Where the store has an image's tree.
#[track_caller]
pub(crate) fn rootfs(case: &Case, reference: &str) -> PathBuf {
    let finished = verb(case, &["inspect", "--json", reference]).finish();
    let facts: Value = serde_json::from_str(finished.ok()).expect("it is JSON");
    facts["rootfs"].as_str().expect("it has one").into()
}

/// Pulls an image from a layout of its own, and gives its tree.
#[track_caller]
pub(crate) fn unpacked(case: &Case, image: &Image) -> Listing {
    let reference = oci(&image.layout(case, "layout"));
    pull(case, &reference);
    list(&rootfs(case, &reference))
}

/// Runs a script in an image.
pub(crate) fn sh(case: &Case, options: &[&str], reference: &str, script: &str) -> Finished {
    verb(case, &[options, &["-q", reference, "sh", "-c", script]].concat()).finish()
}
