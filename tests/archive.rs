//! Layouts and archives, as all kinds of writers make them, and as nobody should.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use gpurun::archive::{Kind, sniff};
use gpurun::error::Result;
use gpurun::image::{Digest, Image, Platform};
use gpurun::reference::ImageRef;
use gpurun::registry::Options;
use gpurun::source;
use serde_json::{Value, json};
use tempfile::TempDir;

/// An entry of a tar: its name, and a file's bytes or a link's target.
enum Entry {
    File(&'static str, Vec<u8>),
    Named(String, Vec<u8>),
    Symlink(&'static str, &'static str),
    HardLink(&'static str, &'static str),
    Dir(&'static str),
}

fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let (name, kind, link, data): (&str, _, _, &[u8]) = match entry {
            Entry::File(name, data) => (name, b'0', "", data),
            Entry::Named(name, data) => (name, b'0', "", data),
            Entry::HardLink(name, to) => (name, b'1', to, b""),
            Entry::Symlink(name, to) => (name, b'2', to, b""),
            Entry::Dir(name) => (name, b'5', "", b""),
        };
        out.extend(header(name, kind, link, data.len()));
        out.extend(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// POSIX.1-2017 pax, "ustar Interchange Format".
fn header(name: &str, kind: u8, link: &str, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(157, link);
    put(257, "ustar\x0000");
    block[156] = kind;
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Layers and what is made of them.
struct Fixture {
    dir: TempDir,
    layers: [Vec<u8>; 2],
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        Self::of(&[0, 1])
    }

    /// An image of these of the two layers.
    fn of(order: &[usize]) -> Self {
        let layers = [b"lower".repeat(1000), b"upper".repeat(2000)];
        let diff_ids: Vec<_> = order.iter().map(|i| Digest::of(&layers[*i])).collect();
        let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
        let config = json!({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).to_string().into_bytes();
        let of =
            |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
        let blobs: Vec<_> = order.iter().map(|i| of("application/vnd.oci.image.layer.v1.tar", &layers[*i])).collect();
        let config_of = of("application/vnd.docker.container.image.v1+json", &config);
        let manifest = json!({"schemaVersion": 2, "config": config_of, "layers": blobs}).to_string().into_bytes();
        Self { dir: TempDir::new().unwrap(), layers, config, manifest }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn descriptor(&self, annotations: &Value) -> Value {
        let (digest, size) = (Digest::of(&self.manifest), self.manifest.len());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        json!({"mediaType": kind, "digest": digest, "size": size, "annotations": annotations})
    }

    /// The files of a layout, with these annotations on its manifest.
    fn layout(&self, annotations: &[Value]) -> Vec<(String, Vec<u8>)> {
        let entries: Vec<_> = annotations.iter().map(|a| self.descriptor(a)).collect();
        let index = json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes();
        let blobs = [&self.config, &self.manifest, &self.layers[0], &self.layers[1]];
        let blob = |b: &Vec<u8>| (format!("blobs/sha256/{}", Digest::of(b).hex()), b.clone());
        let fixed = [("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()), ("index.json", index)];
        fixed.map(|(name, bytes)| (name.to_owned(), bytes)).into_iter().chain(blobs.map(blob)).collect()
    }

    fn layout_dir(&self, annotations: &[Value]) -> PathBuf {
        for (name, bytes) in self.layout(annotations) {
            self.write(&format!("layout/{name}"), &bytes);
        }
        self.path("layout")
    }

    fn config_name(&self) -> String {
        format!("{}.json", Digest::of(&self.config).hex())
    }

    /// A docker-archive of these entries, and a manifest.json that names these layers.
    fn docker(&self, tags: &Value, layers: &[&str], mut entries: Vec<Entry>) -> PathBuf {
        let manifest = json!([{"Config": self.config_name(), "RepoTags": tags, "Layers": layers}]);
        entries.push(Entry::Named(self.config_name(), self.config.clone()));
        entries.push(Entry::File("manifest.json", manifest.to_string().into_bytes()));
        self.write("docker.tar", &tar(&entries))
    }
}

fn ref_name(name: &str) -> Value {
    json!({"org.opencontainers.image.ref.name": name})
}

fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn pull(reference: &str) -> Result<(Image, Vec<Vec<u8>>)> {
    let source = source::open(&ImageRef::parse(reference)?, &Options::default())?;
    let image = source.image(&platform())?;
    let mut layers = Vec::new();
    for layer in &image.layers {
        let mut bytes = Vec::new();
        let read = source.blob(layer)?.read_to_end(&mut bytes);
        read.map_err(|e| gpurun::error::Error::new("read").because(e))?;
        layers.push(bytes);
    }
    Ok((image, layers))
}

fn error(reference: &str) -> String {
    pull(reference).map(|_| ()).map_err(|e| format!("{e:#}; {}", e.hints().join("; "))).unwrap_err()
}

fn oci(path: &Path) -> String {
    format!("oci:{}", path.display())
}

fn oci_archive(path: &Path) -> String {
    format!("oci-archive:{}", path.display())
}

fn docker_archive(path: &Path) -> String {
    format!("docker-archive:{}", path.display())
}

#[test]
fn a_layout_is_read_from_a_directory_and_from_a_tar() {
    let fixture = Fixture::new();
    let dir = fixture.layout_dir(&[ref_name("latest")]);
    let entries = fixture.layout(&[ref_name("latest")]);
    let entries: Vec<_> = entries.into_iter().map(|(name, b)| Entry::Named(format!("./{name}"), b)).collect();
    let archive = fixture.write("oci.tar", &tar(&entries));
    assert_eq!(sniff(&archive).unwrap(), Kind::Oci);
    for reference in [oci(&dir), format!("{}:latest", oci(&dir)), oci_archive(&archive)] {
        let (image, layers) = pull(&reference).unwrap();
        assert_eq!(image.digest, Digest::of(&fixture.manifest));
        assert_eq!(image.config_json.as_bytes(), fixture.config);
        assert_eq!(layers, fixture.layers, "{reference}");
    }
}

#[test]
fn a_tag_is_found_however_its_writer_spelled_it() {
    let containerd = json!({
        "io.containerd.image.name": "docker.io/library/busybox:1",
        "org.opencontainers.image.ref.name": "1",
    });
    for (annotations, tag) in
        [(ref_name("1"), "1"), (ref_name("docker.io/library/busybox:1"), "1"), (containerd.clone(), "1")]
    {
        let fixture = Fixture::new();
        let dir = fixture.layout_dir(&[annotations, ref_name("other")]);
        assert!(pull(&format!("{}:{tag}", oci(&dir))).is_ok(), "{tag}");
        let text = error(&oci(&dir));
        assert!(text.contains("several images") && text.contains("`other`"), "{text}");
        let text = error(&format!("{}:nope", oci(&dir)));
        assert!(text.contains("no image called `nope`") && text.contains("`other`"), "{text}");
    }
}

#[test]
fn what_is_no_layout_is_told() {
    let fixture = Fixture::new();
    let dir = fixture.layout_dir(&[ref_name("x")]);
    fixture.write("layout/oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#);
    assert!(error(&oci(&dir)).contains("version `2.0.0`"));
    fs::remove_file(dir.join("oci-layout")).unwrap();
    let text = error(&oci(&dir));
    assert!(text.contains("No such file") && text.contains("dir:PATH"), "{text}");
    fixture.write("layout/oci-layout", &vec![b' '; (8 << 20) + 1]);
    assert!(error(&oci(&dir)).contains("larger than"));
}

#[test]
fn blobs_of_a_layout_are_regular_files_of_the_right_size() {
    let fixture = Fixture::new();
    let dir = fixture.layout_dir(&[ref_name("x")]);
    let layer = dir.join("blobs/sha256").join(Digest::of(&fixture.layers[1]).hex());
    fs::write(&layer, b"short").unwrap();
    assert!(error(&oci(&dir)).contains("has 5 bytes instead of 10000"));
    fs::remove_file(&layer).unwrap();
    nix::unistd::mkfifo(&layer, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(error(&oci(&dir)).contains("not a regular file"), "and does not wait for a writer");
    fs::remove_file(&layer).unwrap();
    assert!(error(&oci(&dir)).contains("No such file"));
}

#[test]
fn documents_of_a_layout_are_verified() {
    for document in [|f: &Fixture| f.manifest.clone(), |f: &Fixture| f.config.clone()] {
        let fixture = Fixture::new();
        let dir = fixture.layout_dir(&[ref_name("x")]);
        let mut bytes = document(&fixture);
        let name = format!("layout/blobs/sha256/{}", Digest::of(&bytes).hex());
        *bytes.last_mut().unwrap() = b' ';
        fixture.write(&name, &bytes);
        assert!(error(&oci(&dir)).contains("is corrupt"));
    }
}

#[test]
fn docker_archives_of_old_dockers_are_read() {
    let fixture = Fixture::of(&[0, 1, 0]);
    let archive = fixture.docker(
        &json!(["busybox:1"]),
        &["a/layer.tar", "b/layer.tar", "c/layer.tar"],
        vec![
            Entry::Dir("a/"),
            Entry::File("./a/layer.tar", fixture.layers[0].clone()),
            Entry::File("b/layer.tar", fixture.layers[1].clone()),
            Entry::Symlink("c/layer.tar", "../a/layer.tar"),
        ],
    );
    assert_eq!(sniff(&archive).unwrap(), Kind::Docker);
    for name in ["", ":busybox:1", ":docker.io/library/busybox:1", ":1"] {
        let (image, layers) = pull(&format!("{}{name}", docker_archive(&archive))).unwrap();
        let [a, b] = &fixture.layers;
        assert_eq!(layers, [a.clone(), b.clone(), a.clone()]);
        assert_eq!(image.digest, Digest::of(&fixture.config), "there is no manifest");
        assert!(image.layers.iter().all(|l| l.digest.is_none()));
        assert_eq!(image.layers[1].size, Some(10_000));
    }
    assert!(error(&format!("{}:busybox:2", docker_archive(&archive))).contains("there is `busybox:1`"));
}

const LOWER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const UPPER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

const UPPER_LAYER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb/layer.tar";

/// What of a layer Docker 1.9 saved, with this said of it.
fn legacy_layer(id: &str, said: &Value, layer: &[u8]) -> [Entry; 3] {
    let named = |name: &str, bytes: &[u8]| Entry::Named(format!("{id}/{name}"), bytes.to_vec());
    [named("VERSION", b"1.0"), named("json", said.to_string().as_bytes()), named("layer.tar", layer)]
}

/// The same of both layers of an image.
fn by_id(fixture: &Fixture, lower: &Value, upper: &Value) -> Vec<Entry> {
    let mut entries = vec![Entry::Dir("./")];
    entries.extend(legacy_layer(UPPER, upper, &fixture.layers[1]));
    entries.extend(legacy_layer(LOWER, lower, &fixture.layers[0]));
    entries
}

/// What Docker 1.9 saved of an image of two layers, and then these entries.
fn legacy(fixture: &Fixture, more: Vec<Entry>) -> PathBuf {
    let config = json!({"Cmd": ["sh"], "Env": ["X=1"], "Entrypoint": null, "Volumes": null, "Image": LOWER});
    let (time, own) = ("2015-11-03T10:00:00.123456789Z", json!({"Cmd": ["/bin/sh", "-c", "#(nop)"]}));
    let lower = json!({"id": LOWER, "created": time, "architecture": "amd64", "os": "linux", "Size": 5000});
    let upper = json!({"id": UPPER, "parent": LOWER, "created": time, "container_config": own, "config": config,
                       "docker_version": "1.9.1", "architecture": "amd64", "os": "linux", "Size": 10_000});
    let repositories = json!({"busybox": {"1": UPPER, "latest": UPPER}});
    let mut entries = by_id(fixture, &lower, &upper);
    entries.push(Entry::File("repositories", repositories.to_string().into_bytes()));
    entries.extend(more);
    fixture.write("legacy.tar", &tar(&entries))
}

#[test]
fn docker_archives_without_a_manifest_are_read() {
    let fixture = Fixture::new();
    let archive = legacy(&fixture, Vec::new());
    assert_eq!(sniff(&archive).unwrap(), Kind::Docker);
    for name in ["", ":busybox:1", ":docker.io/library/busybox", ":latest"] {
        let (image, layers) = pull(&format!("{}{name}", docker_archive(&archive))).unwrap();
        assert_eq!(layers, fixture.layers);
        let diff_ids: Vec<_> = image.layers.iter().map(|l| l.diff_id).collect();
        assert_eq!(diff_ids, fixture.layers.each_ref().map(|l| Digest::of(l)));
        let config: Value = serde_json::from_str(&image.config_json).unwrap();
        assert_eq!((&config["config"]["Cmd"], &config["config"]["Env"]), (&json!(["sh"]), &json!(["X=1"])));
        assert!(config.get("container_config").is_none() && config.get("parent").is_none(), "{config}");
        assert_eq!(image.digest, Digest::of(image.config_json.as_bytes()), "it is the same whenever it is read");
    }
    assert!(error(&format!("{}:busybox:2", docker_archive(&archive))).contains("there is `busybox:1`"));
}

#[test]
fn an_image_that_an_old_docker_saved_by_its_id_has_no_name() {
    let fixture = Fixture::new();
    let write = |parent: &Value| {
        let said =
            |id: &str, parent: &Value| json!({"id": id, "parent": parent, "architecture": "amd64", "os": "linux"});
        fixture.write("by-id.tar", &tar(&by_id(&fixture, &said(LOWER, &Value::Null), &said(UPPER, parent))))
    };
    let archive = write(&json!(LOWER));
    assert_eq!(sniff(&archive).unwrap(), Kind::Docker);
    assert_eq!(pull(&docker_archive(&archive)).unwrap().1, fixture.layers);
    assert!(error(&format!("{}:x", docker_archive(&archive))).contains("there is no image called `x`"));
    let two = docker_archive(&write(&Value::Null));
    assert!(error(&two).contains("there are several images without a name in it"));
    let none = write(&json!(UPPER));
    assert_eq!(pull(&docker_archive(&none)).unwrap().1, fixture.layers[..1], "its parent is itself");
}

#[test]
fn the_first_layer_of_an_archive_without_a_manifest_may_be_the_only_one() {
    let fixture = Fixture::of(&[0]);
    let named = json!({"lower": {"latest": LOWER}, "busybox": {"1": UPPER}}).to_string().into_bytes();
    let archive = docker_archive(&legacy(&fixture, vec![Entry::File("repositories", named)]));
    assert_eq!(pull(&format!("{archive}:lower")).unwrap().1, fixture.layers[..1]);
    assert!(error(&archive).contains("several images in it; name one of `lower:latest`, `busybox:1`"));
}

#[test]
fn broken_archives_without_a_manifest_are_refused() {
    let fixture = Fixture::new();
    let said = |id: &str, said: &str| vec![Entry::Named(format!("{id}/json"), said.as_bytes().to_vec())];
    let parent = |parent: &Value| said(LOWER, &json!({"parent": parent}).to_string());
    let repositories = |said: &str| vec![Entry::File("repositories", said.as_bytes().to_vec())];
    let many = |(n, id): (usize, String)| said(&id, &json!({"parent": format!("{:064}", n + 2)}).to_string());
    let chain = (0..1000).map(|n| format!("{:064}", n + 1)).enumerate().flat_map(many).collect::<Vec<_>>();
    for (more, want) in [
        (parent(&json!(UPPER)), "bbbb is below itself"),
        (parent(&json!(LOWER)), "aaaa is below itself"),
        (parent(&json!("c".repeat(64))), "there is no `cccc"),
        (parent(&json!("../x")), "`../x` is not a layer's id"),
        (parent(&json!(5)), "read the id of a layer's parent"),
        ([chain, parent(&json!(format!("{:064}", 1)))].into_iter().flatten().collect(), "more than 1000 layers"),
        (said(UPPER, "[]"), "parse `bbbb"),
        (said(UPPER, &nested(100_000)), "recursion limit exceeded"),
        (said(UPPER, &" ".repeat((8 << 20) + 1)), "larger than the 8388608 bytes"),
        (said(UPPER, "{\"config\": 5}"), "parse the image's config"),
        (vec![Entry::HardLink(UPPER_LAYER, "../secret")], "is not a file"),
        (repositories("{}"), "there is no image in it"),
        (repositories("{\"a\": {\"b\": 5}}"), "parse `repositories`"),
        (repositories("{\"a\": {\"b\": \"\"}}"), "`` is not a layer's id"),
        (repositories(&nested(100_000)), "parse `repositories`"),
    ] {
        let text = error(&docker_archive(&legacy(&fixture, more)));
        assert!(text.contains(want), "{want}: {text}");
    }
}

/// An object that is so deep.
fn nested(depth: usize) -> String {
    format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth))
}

/// However deep they are, they end no thread by its stack.
#[test]
fn documents_that_are_nested_without_end_are_refused() {
    let fixture = Fixture { config: nested(1_000_000).into_bytes(), ..Fixture::of(&[0]) };
    let archive = fixture.docker(&Value::Null, &["l"], vec![Entry::File("l", fixture.layers[0].clone())]);
    assert!(error(&docker_archive(&archive)).contains("recursion limit exceeded"));
    let manifest = format!("[{}]", nested(1_000_000)).into_bytes();
    let archive = fixture.write("x.tar", &tar(&[Entry::File("manifest.json", manifest)]));
    assert!(error(&docker_archive(&archive)).contains("missing field `Config`"));
    let layout = fixture.layout_dir(&[json!({})]);
    fixture.write("layout/index.json", nested(1_000_000).as_bytes());
    assert!(error(&oci(&layout)).contains("no schemaVersion"));
}

#[test]
fn docker_archives_of_new_dockers_are_read_as_both() {
    let fixture = Fixture::new();
    let mut entries = fixture.layout(&[ref_name("1")]);
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let layers: Vec<_> = fixture.layers.iter().map(|l| blob(l)).collect();
    let manifest = json!([{"Config": blob(&fixture.config), "RepoTags": ["busybox:1"], "Layers": layers}]);
    entries.push(("manifest.json".into(), manifest.to_string().into_bytes()));
    let entries: Vec<_> = entries.into_iter().map(|(name, bytes)| Entry::Named(name, bytes)).collect();
    let archive = fixture.write("both.tar", &tar(&entries));
    assert_eq!(sniff(&archive).unwrap(), Kind::Docker);
    assert_eq!(pull(&docker_archive(&archive)).unwrap().1, fixture.layers);
    assert_eq!(pull(&oci_archive(&archive)).unwrap().1, fixture.layers);
}

#[test]
fn links_stay_in_the_archive_and_end() {
    let fixture = Fixture::of(&[0]);
    let secret = fixture.write("secret", &fixture.layers[0]);
    assert!(secret.exists());
    for (link, want) in [
        (Entry::HardLink("l", "real"), None),
        (Entry::Symlink("l", "./x/../real"), None),
        (Entry::Symlink("l", "../secret"), Some("is not a file")),
        (Entry::Symlink("l", "/etc/passwd"), Some("is not a file")),
        (Entry::HardLink("l", "../secret"), Some("is not a file")),
        (Entry::Symlink("l", "l"), Some("more than 8 links")),
        (Entry::Symlink("l", "nowhere"), Some("there is no `nowhere`")),
        (Entry::Dir("l"), Some("is not a file")),
    ] {
        let entries = vec![Entry::File("real", fixture.layers[0].clone()), link];
        let reference = docker_archive(&fixture.docker(&Value::Null, &["l"], entries));
        match want {
            None => assert_eq!(pull(&reference).unwrap().1[0], fixture.layers[0]),
            Some(want) => assert!(error(&reference).contains(want), "{}", error(&reference)),
        }
    }
}

#[test]
fn the_last_entry_of_a_name_wins() {
    let fixture = Fixture::of(&[0]);
    let first = Entry::File("l", b"first".to_vec());
    let archive = fixture.docker(&Value::Null, &["l"], vec![first, Entry::File("./l", fixture.layers[0].clone())]);
    assert_eq!(pull(&docker_archive(&archive)).unwrap().1[0], fixture.layers[0]);
}

#[test]
fn broken_docker_archives_are_refused() {
    let fixture = Fixture::of(&[0]);
    let layer = || Entry::File("l", fixture.layers[0].clone());
    let reference = docker_archive(&fixture.docker(&Value::Null, &["l", "l"], vec![layer()]));
    assert!(error(&reference).contains("1 diff ids, and the manifest 2 layers"));
    let reference = docker_archive(&fixture.docker(&Value::Null, &["m"], vec![layer()]));
    assert!(error(&reference).contains("there is no `m`"));

    let wrong = Fixture { config: [&fixture.config[..], b" "].concat(), ..Fixture::of(&[0]) };
    let (name, manifest) = (fixture.config_name(), json!([{"Config": fixture.config_name(), "Layers": ["l"]}]));
    let manifest = Entry::File("manifest.json", manifest.to_string().into_bytes());
    let path = fixture.write("x.tar", &tar(&[layer(), Entry::Named(name, wrong.config), manifest]));
    assert!(error(&docker_archive(&path)).contains("is corrupt"));

    let two = json!([{"Config": "c", "RepoTags": null}, {"Config": "c", "RepoTags": null}]);
    let path = fixture.write("y.tar", &tar(&[Entry::File("manifest.json", two.to_string().into_bytes())]));
    assert!(error(&docker_archive(&path)).contains("several images without a name"));
}

#[test]
fn a_cut_archive_is_an_error() {
    let fixture = Fixture::of(&[0]);
    let config = Entry::Named(fixture.config_name(), fixture.config.clone());
    let manifest = json!([{"Config": fixture.config_name(), "Layers": ["l"]}]).to_string().into_bytes();
    let whole = tar(&[config, Entry::File("manifest.json", manifest), Entry::File("l", fixture.layers[0].clone())]);
    let path = fixture.write("cut.tar", &whole[..whole.len() - 3000]);
    let text = error(&docker_archive(&path));
    assert!(text.contains("ends") || text.contains("end of file"), "{text}");
}

#[test]
fn what_is_no_image_is_told_by_its_content() {
    let fixture = Fixture::new();
    for (bytes, want) in [
        (&b"\x1f\x8b\x08rest"[..], "gunzip"),
        (b"\x28\xb5\x2f\xfdrest", "zstd -d"),
        (b"hsqsrest", "squashfs"),
        (&[&[b'#'; 32][..], b"SIF_MAGIC\0\0\0\0\0\0\0"].concat(), "Apptainer"),
        (&tar(&[Entry::File("x", Vec::new())]), "neither `oci-layout` nor `manifest.json`"),
        (b"", "neither"),
    ] {
        let error = sniff(&fixture.write("file", bytes)).unwrap_err();
        let text = format!("{error:#}; {}", error.hints().join("; "));
        assert!(text.contains(want), "{text}");
    }
    assert!(format!("{:#}", sniff(&fixture.path("nope")).unwrap_err()).contains("No such file"));
    nix::unistd::mkfifo(&fixture.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(format!("{:#}", sniff(&fixture.path("fifo")).unwrap_err()).contains("not a regular file"));
}

#[test]
fn the_wrong_machines_archive_is_refused() {
    let fixture = Fixture::of(&[0]);
    let archive = fixture.docker(&Value::Null, &["l"], vec![Entry::File("l", fixture.layers[0].clone())]);
    let source = source::open(&ImageRef::parse(&docker_archive(&archive)).unwrap(), &Options::default()).unwrap();
    let error = source.image(&"linux/arm64".parse().unwrap()).unwrap_err();
    assert!(format!("{error:#}").contains("built for linux/amd64, not for linux/arm64"));
    assert!(error.hints()[0].contains("--platform linux/amd64"));
}
