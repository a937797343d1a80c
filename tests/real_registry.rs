//! Debian's own registry on the loopback, and images that Debian's own tools make and push: what is pulled is the tree
//! that they were made of.

use std::path::{Path, PathBuf};
use std::process::Command;

use gpurun::image::{Digest, Platform};
use serde_json::{Value, json};

use crate::support::distribution::{free_port, is_here, serve};
use crate::support::image::{pull, rootfs, sh, verb};
use crate::support::listing::{Listing, list};
use crate::support::process::Running;
use crate::support::{Case, Finish, can, text};

/// A registry, and a layout in which images are made.
struct Fixture {
    case: Case,
    port: u16,
    _registry: Running,
}

impl Fixture {
    fn start() -> Option<Self> {
        if !is_here(&["umoci"]) {
            return None;
        }
        let (case, port) = (Case::new(), free_port());
        let registry = serve(&case, port, None, None);
        let fixture = Self { case, port, _registry: registry };
        fixture.tool(&["umoci", "init", "--layout", "layout"]);
        Some(fixture)
    }

    /// Runs a tool where the layout is.
    #[track_caller]
    fn tool(&self, command: &[&str]) -> String {
        let mut tool = Command::new(command[0]);
        self.case.surround(&mut tool);
        tool.current_dir(self.case.path("")).env("XDG_RUNTIME_DIR", self.case.path("tmp"));
        let finished = tool.args(&command[1..]).finish();
        assert_eq!(finished.status, 0, "{command:?}: {finished:?}");
        finished.stdout
    }

    /// Makes an image of a tree: the first layer is it, the second what `change` does to it. Gives the tree at the end.
    fn build(&self, tag: &str, tree: &Path, change: &str) -> PathBuf {
        let (image, bundle) = (format!("layout:{tag}"), format!("bundle-{tag}"));
        let root = format!("{bundle}/rootfs");
        self.tool(&["umoci", "new", "--image", &image]);
        self.tool(&["umoci", "unpack", "--rootless", "--image", &image, &bundle]);
        // What changed within the second is the same to umoci: so every step has a time of its own.
        self.case.file("start", "");
        let dated = |script: &str, time: &str| {
            self.tool(&["sh", "-c", &format!("{script} && find {root} -newer start -exec touch -h -d @{time} {{}} +")]);
        };
        dated(&format!("cp -a {}/. {root}", text(tree)), "1600000000");
        self.tool(&["umoci", "repack", "--refresh-bundle", "--image", &image, &bundle]);
        dated(&format!("(cd {root} && {change})"), "1700000000");
        self.tool(&["umoci", "repack", "--refresh-bundle", "--image", &image, &bundle]);
        self.case.path(&root)
    }

    /// Pushes an image of the layout as gzip, and the same as zstd under another name; gives both names.
    fn push(&self, tag: &str) -> [String; 2] {
        let names = ["gzip", "zstd"].map(|kind| format!("127.0.0.1:{}/{kind}/{tag}:1", self.port));
        let copy = ["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false"];
        let (from, plain) = (format!("oci:layout:{tag}"), format!("dir:plain-{tag}"));
        let to = names.each_ref().map(|name| format!("docker://{name}"));
        self.tool(&[&copy[..], &["--dest-decompress", &from, &plain]].concat());
        let zstd = ["--format", "oci", "--dest-compress-format", "zstd", &plain, &to[1]];
        // With a home of its own: else skopeo remembers the layers as it pushed them before, and uses those.
        let home = format!("HOME={}", text(&self.case.path("tmp")));
        self.tool(&[&["env", &home], &copy[..], &zstd].concat());
        self.tool(&[&copy[..], &[&from, &to[0]]].concat());
        names
    }

    fn manifest(&self, name: &str) -> String {
        self.tool(&["skopeo", "inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")])
    }
}

/// The tree without what a tar of umoci's does not hold: parts of seconds, which are rounded, and when the root was made.
fn comparable(mut tree: Listing) -> Listing {
    tree.remove(&b""[..]);
    for node in tree.values_mut() {
        node.mtime = (node.mtime.0 + i64::from(node.mtime.1 >= 500_000_000), 0);
    }
    tree
}

#[track_caller]
fn assert_same(got: Listing, want: Listing, what: &str) {
    let (got, want) = (comparable(got), comparable(want));
    let differ: Vec<_> = got.keys().chain(want.keys()).filter(|path| got.get(*path) != want.get(*path)).collect();
    let differ: Vec<_> = differ.iter().take(5).map(|p| format!("{:?} {:?}", got.get(*p), want.get(*p))).collect();
    assert!(differ.is_empty(), "{what}: {differ:#?}");
}

#[test]
fn busybox_by_tag_digest_and_platform() {
    let Some(fixture) = Fixture::start() else { return };
    let case = &fixture.case;
    let change = "rm bin/vi && ln -s busybox bin/mine && echo own >which && ln which etc/which";
    let tree = list(&fixture.build("busybox", case.image.path(), change));
    fixture.tool(&["umoci", "config", "--image", "layout:busybox", "--config.cmd", "cat", "--config.cmd", "/which"]);
    let [gzip, zstd] = fixture.push("busybox");
    for (name, suffix) in [(&gzip, "+gzip"), (&zstd, "+zstd")] {
        let manifest = fixture.manifest(name);
        let parsed: Value = serde_json::from_str(&manifest).unwrap();
        assert!(parsed["layers"][0]["mediaType"].as_str().unwrap().ends_with(suffix), "{manifest}");
        let case = &Case::new(); // the store has the tree of one, and would not read the other
        assert_eq!(verb(case, &["-q", name]).finish().ok(), "own\n");
        assert_same(list(&rootfs(case, name)), tree.clone(), name);
        let by_digest = format!("{}@{}", name.trim_end_matches(":1"), Digest::of(manifest.as_bytes()));
        assert_eq!(sh(case, &[], &by_digest, "cat /etc/which").ok(), "own\n");
    }
    for name in [&gzip, &zstd] {
        pull(case, name);
    }
    assert_eq!(rootfs(case, &gzip), rootfs(case, &zstd), "one tree, whatever it was packed in");

    index(&fixture);
    let both = format!("127.0.0.1:{}/both:1", fixture.port);
    let copy = ["skopeo", "copy", "-q", "--all", "--insecure-policy", "--dest-tls-verify=false"];
    fixture.tool(&[&copy[..], &["oci:layout:both", &format!("docker://{both}")]].concat());
    assert_eq!(verb(case, &["-q", &both]).finish().ok(), "own\n");
    let other = verb(case, &["inspect", "--json", "--platform", "linux/s390x", &both]).finish();
    other.refused(&["is not in the store"]);
    verb(case, &["pull", "-q", "--platform", "linux/s390x", &both]).finish().ok();
    verb(case, &["pull", "-q", "--platform", "linux/riscv64", &both]).finish().refused(&["linux/riscv64"]);
    verb(case, &["pull", "-q", &format!("127.0.0.1:{}/none:1", fixture.port)]).finish().refused(&["none", "has no"]);
}

/// Puts an index of two platforms into the layout: the busybox image, and the same for another machine.
fn index(fixture: &Fixture) {
    let layout = fixture.case.path("layout");
    let read = |digest: &str| std::fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let put = |value: &Value| {
        let bytes = value.to_string();
        std::fs::write(layout.join("blobs/sha256").join(Digest::of(bytes.as_bytes()).hex()), &bytes).unwrap();
        (Digest::of(bytes.as_bytes()).to_string(), bytes.len())
    };
    let mut top = parsed(&std::fs::read(layout.join("index.json")).unwrap());
    let mut own = top["manifests"][0].clone();
    let mut manifest = parsed(&read(own["digest"].as_str().unwrap()));
    let mut config = parsed(&read(manifest["config"]["digest"].as_str().unwrap()));
    config["architecture"] = json!("s390x");
    let (digest, size) = put(&config);
    (manifest["config"]["digest"], manifest["config"]["size"]) = (json!(digest), json!(size));
    let (digest, size) = put(&manifest);
    own["platform"] = json!({"os": "linux", "architecture": Platform::host().architecture});
    let platform = json!({"os": "linux", "architecture": "s390x"});
    let other = json!({"mediaType": own["mediaType"], "digest": digest, "size": size, "platform": platform});
    let kind = "application/vnd.oci.image.index.v1+json";
    let (digest, size) = put(&json!({"schemaVersion": 2, "mediaType": kind, "manifests": [other, own]}));
    let name = json!({"org.opencontainers.image.ref.name": "both"});
    let entry = json!({"mediaType": kind, "digest": digest, "size": size, "annotations": name});
    top["manifests"].as_array_mut().unwrap().push(entry);
    std::fs::write(layout.join("index.json"), top.to_string()).unwrap();
}

#[test]
fn what_skopeo_writes_into_layouts_and_archives_is_the_same_image() {
    let Some(fixture) = Fixture::start() else { return };
    let case = &fixture.case;
    let change = "rm bin/vi && ln -s busybox bin/mine && echo own >which && ln which etc/which";
    let tree = list(&fixture.build("busybox", case.image.path(), change));
    let copy = |options: &[&str], from: &str, to: &str| {
        fixture.tool(&[&["skopeo", "copy", "-q", "--insecure-policy"], options, &[from, to]].concat());
    };
    copy(&["--format", "v2s2"], "oci:layout:busybox", "dir:of-docker");
    let compressed = |kind: &'static str| ["--dest-compress", "--dest-compress-format", kind];
    for (options, from, to) in [
        (&[][..], "oci:layout:busybox", "docker-archive:docker.tar:busybox:1"),
        (&["--additional-tag", "two:2"], "dir:of-docker", "docker-archive:tags.tar:one:1"),
        (&[], "oci:layout:busybox", "oci-archive:oci.tar:docker.io/library/busybox:1"),
        (&[], "dir:of-docker", "oci:of-docker-oci"),
        (&compressed("zstd"), "oci:layout:busybox", "oci:zstd:busybox:1"),
        (&compressed("zstd:chunked"), "oci:layout:busybox", "oci:chunked:busybox:1"),
    ] {
        copy(options, from, to);
        let (kind, path) = to.split_once(':').unwrap();
        let reference = format!("{kind}:{}", text(&case.path(path)));
        let case = &Case::new();
        pull(case, &reference);
        assert_same(list(&rootfs(case, &reference)), tree.clone(), to);
    }
    let blobs = std::fs::read_dir(case.path("chunked/blobs/sha256")).unwrap();
    let is_chunked = |blob: PathBuf| std::fs::read(blob).unwrap().ends_with(b"GnUlInUx");
    assert!(blobs.into_iter().any(|blob| is_chunked(blob.unwrap().path())), "skopeo knows this format");
    let two = format!("docker-archive:{}:two:2", text(&case.path("tags.tar")));
    assert_eq!(sh(case, &[], &two, "cat /etc/which").ok(), "own\n");
}

/// `tests/run` has fetched the packages of a small Debian.
#[test]
fn a_debian_of_its_own_packages() {
    let packages = std::env::var_os("GPURUN_TEST_DEBS").map(PathBuf::from);
    if !can(packages.is_some(), "Debian's packages in $GPURUN_TEST_DEBS") {
        return;
    }
    let Some(fixture) = Fixture::start() else { return };
    let case = &fixture.case;
    let tree = case.path("debian");
    for package in std::fs::read_dir(packages.unwrap()).unwrap() {
        fixture.tool(&["dpkg-deb", "-x", text(&package.unwrap().path()), text(&tree)]);
    }
    let change = "rm -r usr/share/doc/[a-l]* etc/skel && mkdir -p etc/skel srv/new && echo x >etc/skel/only && chmod 700 srv && \
                  ln usr/share/zoneinfo/UTC srv/new/hard && rm bin/sh && ln -s bash bin/sh";
    let want = list(&fixture.build("debian", &tree, change));
    assert!(want.len() > 1000, "{}", want.len());
    for name in fixture.push("debian") {
        let case = &Case::new();
        pull(case, &name);
        assert_same(list(&rootfs(case, &name)), want.clone(), &name);
        let script = "cat /etc/debian_version /etc/skel/only; ls /etc/skel | wc -l; stat -c %a /srv";
        let finished = verb(case, &["-q", &name, "bash", "-c", script]).finish();
        assert!(finished.ok().ends_with("x\n1\n700\n"), "{finished:?}");
    }
}
