//! What layers make together, by image-spec's layer.md and through the real program; and how images are got and shown.

use std::collections::BTreeSet;

use gpurun::image::Digest;
use serde_json::Value;

use crate::support::image::{
    Entry, Image, Packing, device, dir, fifo, file, hardlink, layout, oci, opaque, pull, rootfs, sh, sparse, symlink,
    tar, unpacked, verb, whiteout,
};
use crate::support::listing::{Listing, Node, list};
use crate::support::process::Running;
use crate::support::pty::Pty;
use crate::support::server::Server;
use crate::support::{Case, Finish, text};

fn tree(layers: &[&[Entry]]) -> Listing {
    let image = layers.iter().fold(Image::empty(), Image::layer);
    unpacked(&Case::new(), &image)
}

fn paths(tree: &Listing) -> Vec<String> {
    tree.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

#[track_caller]
fn at<'t>(tree: &'t Listing, path: &str) -> &'t Node {
    tree.get(path.as_bytes()).unwrap_or_else(|| panic!("no {path} in {:?}", paths(tree)))
}

fn content(tree: &Listing, path: &str) -> String {
    String::from_utf8_lossy(&at(tree, path).content).into_owned()
}

fn names(of: &[&str]) -> BTreeSet<Vec<u8>> {
    of.iter().map(|name| name.as_bytes().to_vec()).collect()
}

#[test]
fn whiteouts_concern_the_layers_below_wherever_they_stand() {
    let below = [dir("d/"), file("d/old", "1"), file("d/kept", "2"), file("gone", "3"), file("e/f/g", "4")];
    for last in [false, true] {
        let mut above = vec![file("d/new", "5"), file("gone", "6"), dir("e/"), file("e/h", "7")];
        let marks = [whiteout("d/old"), whiteout("gone"), whiteout("e/f"), whiteout("never/there")];
        let place = if last { above.len() } else { 0 };
        above.splice(place..place, marks);
        let tree = tree(&[&below, &above]);
        assert_eq!(paths(&tree), ["", "d", "d/kept", "d/new", "e", "e/h", "gone"]);
        assert_eq!(content(&tree, "gone"), "6");
    }
    // containers/storage writes a mark for what is in a directory beside the mark for that.
    let marks = [whiteout("d"), whiteout("d/old"), whiteout("e"), whiteout("e/f/g")];
    assert_eq!(paths(&tree(&[&below, &marks])), ["", "gone"]);
}

#[test]
fn opaque_directories_are_emptied_of_what_is_below() {
    let below = [dir("d/").mode(0o700), file("d/a", ""), file("d/e/f", ""), file("x", "")];
    let tree_of = |above: &[Entry]| paths(&tree(&[&below, above]));
    assert_eq!(tree_of(&[file("d/b", ""), opaque("d")]), ["", "d", "d/b", "x"]);
    assert_eq!(tree_of(&[opaque("d"), dir("d/"), file("d/b", "")]), ["", "d", "d/b", "x"]);
    assert_eq!(tree_of(&[opaque(""), file("y", "")]), ["", "y"]);
    assert_eq!(tree_of(&[opaque("d/e"), whiteout("x")]), ["", "d", "d/a", "d/e"]);
    let implicit = tree(&[&below, &[file("d/b", ""), opaque("d")]]);
    assert_eq!(at(&implicit, "d").mode, 0o700, "it is the directory of below");
    let markers: &[Entry] = &[file(".wh..wh.plnk", ""), file("d/.wh..wh.aufs", "")];
    assert_eq!(tree_of(markers), ["", "d", "d/a", "d/e", "d/e/f", "x"]);
}

#[test]
fn parents_are_found_through_links_and_made_where_no_entry_names_them() {
    let below = [dir("usr/bin/"), symlink("bin", "usr/bin"), symlink("abs", "/usr"), symlink("up", "../../../usr")];
    let above = [file("bin/a", ""), file("abs/b", ""), file("up/c", ""), file("new/deep/d", "")];
    let tree = tree(&[&below, &above, &[whiteout("bin/a"), file("bin/e", "")]]);
    let want =
        ["", "abs", "bin", "new", "new/deep", "new/deep/d", "up", "usr", "usr/b", "usr/bin", "usr/bin/e", "usr/c"];
    assert_eq!(paths(&tree), want);
    assert_eq!((at(&tree, "new/deep").mode, at(&tree, "bin").kind), (0o755, 'l'));
}

#[test]
fn hard_links_reach_into_the_layers_below() {
    let below = [file("a", "one").mode(0o640), hardlink("b", "a"), symlink("s", "a"), fifo("p")];
    let above = [hardlink("d/c", "./b"), hardlink("t", "/s"), hardlink("q", "p"), whiteout("a"), file("b", "two")];
    let tree = tree(&[&below, &above]);
    assert_eq!(paths(&tree), ["", "b", "d", "d/c", "p", "q", "s", "t"]);
    assert_eq!((content(&tree, "d/c"), content(&tree, "b")), ("one".into(), "two".into()));
    assert_eq!(at(&tree, "d/c").mode, 0o640, "the file's, whatever the link's entry says");
    for (name, all) in [("d/c", &["d/c"][..]), ("b", &["b"]), ("t", &["s", "t"]), ("q", &["p", "q"])] {
        assert_eq!(at(&tree, name).names, names(all));
    }
}

#[test]
fn types_change() {
    let below: &[Entry] =
        &[dir("dir/"), file("dir/x", ""), file("file", ""), symlink("link", "dir"), fifo("fifo"), file("f/g", "")];
    let above: &[Entry] = &[file("dir", ""), dir("file/"), dir("link/"), symlink("fifo", "x"), file("link/y", "")];
    let changed = tree(&[below, above]);
    let kinds: Vec<_> =
        changed.iter().map(|(path, n)| format!("{}{}", n.kind, String::from_utf8_lossy(path))).collect();
    assert_eq!(kinds, ["d", "fdir", "df", "ff/g", "lfifo", "dfile", "dlink", "flink/y"]);
    let same_layer = tree(&[&[file("a", "1"), dir("a/"), file("a/b", "2"), symlink("a", "c"), file("a", "3")]]);
    assert_eq!((paths(&same_layer), content(&same_layer, "a")), (vec![String::new(), "a".into()], "3".into()));
}

#[test]
fn modes_are_the_images_closed_directories_too() {
    let entries = [
        dir("./").mode(0o711),
        dir("closed/").mode(0o000),
        dir("closed/inner/").mode(0o500),
        file("closed/inner/file", "x").mode(0o000),
        file("closed/suid", "x").mode(0o6755),
        dir("sticky/").mode(0o3777),
        file("world", "x").mode(0o666),
        fifo("fifo").mode(0o622),
        file("no-write", "x").mode(0o444).xattr("user.a", "b"),
    ];
    let tree = tree(&[&entries, &[file("closed/inner/later", "y"), file("sticky/x", "")]]);
    for (path, mode) in [
        ("", 0o711),
        ("closed", 0),
        ("closed/inner", 0o500),
        ("closed/inner/file", 0),
        ("closed/suid", 0o6755),
        ("sticky", 0o3777),
        ("world", 0o666),
        ("fifo", 0o622),
        ("no-write", 0o444),
        ("closed/inner/later", 0o644),
    ] {
        assert_eq!(format!("{:o}", at(&tree, path).mode), format!("{mode:o}"), "{path}");
    }
}

/// The umask of whoever pulls is not the image's business.
#[test]
fn modes_do_not_depend_on_the_callers_umask() {
    let case = Case::new();
    let image = Image::empty().layer([dir("a/").mode(0o777), file("a/b", "").mode(0o777), fifo("a/c").mode(0o666)]);
    let reference = oci(&image.layout(&case, "layout"));
    let program = crate::support::program();
    let mut command = std::process::Command::new("sh");
    case.surround(&mut command);
    command.args(["-c", "umask 077; exec \"$@\"", "sh", text(&program), "pull", "-q", &reference]).finish().ok();
    let tree = list(&rootfs(&case, &reference));
    let modes: Vec<_> = ["a", "a/b", "a/c"].map(|path| at(&tree, path).mode).into();
    assert_eq!(modes, [0o777, 0o777, 0o666]);
}

#[test]
fn times_have_nanoseconds_and_may_be_before_1970() {
    let late = (17_000_000_000_i64, 5);
    let entries = [
        dir("./").mtime(7, 0),
        dir("d/").mtime(-1, 500_000_000),
        file("d/nanos", "x").mtime(1_600_000_000, 123_456_789),
        file("d/before", "x").mtime(-86_400, 1),
        symlink("d/link", "x").mtime(12, 34),
        fifo("d/fifo").mtime(56, 78),
        file("d/late", "x").mtime(late.0, late.1),
    ];
    let tree = tree(&[&entries, &[file("e/f", "x").mtime(0, 0), file("d/more", "")]]);
    for (path, want) in [
        ("", (7, 0)),
        ("d", (-1, 500_000_000)),
        ("d/nanos", (1_600_000_000, 123_456_789)),
        ("d/before", (-86_400, 1)),
        ("d/link", (12, 34)),
        ("d/fifo", (56, 78)),
        ("e/f", (0, 0)),
        ("e", (0, 0)),
    ] {
        assert_eq!(at(&tree, path).mtime, want, "{path}");
    }
    assert!(at(&tree, "d/late").mtime.0 >= 15_032_385_535, "as far as the file system's times go");
}

#[test]
fn names_are_bytes_and_may_be_long() {
    let (name, deep) = ("n".repeat(255), format!("{}/", "d".repeat(200)).repeat(19));
    let entries = [
        file(b"caf\xe9/\xff\xfe", "latin"),
        file("new\nline \\ \"quoted\" 'x' \u{1f600}", "odd"),
        file(&name, "long"),
        file(format!("{deep}f"), "deep"),
        symlink("far", format!("{}x", "y/".repeat(2000))),
        file("trailing ", ""),
        file("-rf", ""),
    ];
    let tree = tree(&[&entries]);
    assert_eq!(tree.get(&b"caf\xe9/\xff\xfe"[..]).map(|n| n.content.as_slice()), Some(&b"latin"[..]));
    assert_eq!(content(&tree, "new\nline \\ \"quoted\" 'x' \u{1f600}"), "odd");
    assert_eq!((content(&tree, &name), content(&tree, &format!("{deep}f"))), ("long".into(), "deep".into()));
    assert_eq!((at(&tree, "far").content.len(), at(&tree, "-rf").kind, at(&tree, "trailing ").kind), (4001, 'f', 'f'));
}

#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::MetadataExt;
    let case = Case::new();
    let (size, far) = (100_u64 << 20, 50 << 20);
    let image =
        Image::empty().layer([sparse("s", size, &[(0, b"start"), (far, b"middle")]), sparse("e", 1 << 40, &[])]);
    let reference = oci(&image.layout(&case, "layout"));
    pull(&case, &reference);
    let root = rootfs(&case, &reference);
    let bytes = std::fs::read(root.join("s")).unwrap();
    assert_eq!((bytes.len() as u64, &bytes[..5], &bytes[50 << 20..][..6]), (size, &b"start"[..], &b"middle"[..]));
    assert_eq!(bytes.iter().filter(|b| **b != 0).count(), 11);
    let meta = |name: &str| std::fs::metadata(root.join(name)).unwrap();
    assert!(meta("s").blocks() < 1000);
    assert_eq!((meta("e").size(), meta("e").blocks()), (1 << 40, 0));
}

#[test]
fn attributes_that_an_ordinary_user_can_set_are_kept() {
    let entries = [
        dir("d/").xattr("user.dir", "of d"),
        file("f", "x")
            .xattr("user.a", b"\0\xff")
            .xattr("user.b", "")
            .xattr("user.", "no name")
            .xattr("security.capability", "x"),
        file("g", "x").xattr("user.overlay.opaque", "y").xattr("trusted.x", "y").xattr("system.posix_acl_access", "z"),
        file("closed", "x").mode(0o000).xattr("user.c", "d"),
    ];
    let tree = tree(&[&entries]);
    let xattrs = |path: &str| at(&tree, path).xattrs.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>();
    assert_eq!(xattrs("d"), [("user.dir".to_owned(), b"of d".to_vec())]);
    assert_eq!(xattrs("f"), [("user.a".to_owned(), b"\0\xff".to_vec()), ("user.b".to_owned(), Vec::new())]);
    assert_eq!(xattrs("g"), []);
    assert_eq!((xattrs("closed"), at(&tree, "closed").mode), (vec![("user.c".to_owned(), b"d".to_vec())], 0));
}

#[test]
fn device_nodes_are_left_out_with_one_notice_a_layer() {
    let case = Case::new();
    let image = Image::empty().layer([file("dev/null", "x"), file("y", "")]).layer([
        device("dev/null"),
        device("dev/zero"),
        hardlink("dev/same", "dev/zero"),
        file("dev/x", ""),
    ]);
    let reference = oci(&image.layout(&case, "layout"));
    let finished = verb(&case, &["pull", &reference]).finish();
    let notices: Vec<_> = finished.stderr.lines().filter(|line| line.contains("device nodes")).collect();
    let layer = &Digest::of(&image.layers[1].blob).hex()[..12];
    assert_eq!(notices, [format!("gpurun: {layer}: left out 2 device nodes, which only root can make")]);
    assert_eq!(paths(&list(&rootfs(&case, &reference))), ["", "dev", "dev/x", "y"]);
}

#[test]
fn owners_are_the_callers_and_set_ids_are_kept() {
    use std::os::unix::fs::MetadataExt;
    let case = Case::new();
    let image = Image::empty().layer([
        file("big", "x").owner(2_000_000, 2_000_000).mode(0o4711),
        dir("d/").owner(101, 5).mode(0o2775),
        symlink("l", "d").owner(7, 7),
    ]);
    let reference = oci(&image.layout(&case, "layout"));
    pull(&case, &reference);
    let root = rootfs(&case, &reference);
    for (name, mode) in [("big", 0o104_711), ("d", 0o042_775), ("l", 0o120_777)] {
        let meta = std::fs::symlink_metadata(root.join(name)).unwrap();
        let caller = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        assert_eq!(((meta.uid(), meta.gid()), meta.mode()), (caller, mode), "{name}");
    }
}

#[test]
fn the_last_of_several_entries_counts() {
    let tree = tree(&[&[
        file("a", "first").mode(0o600),
        file("a", "last").mode(0o644),
        dir("d/").mode(0o700),
        file("d/x", ""),
        dir("./d").mode(0o755),
        hardlink("b", "a"),
        file("a", "after"),
    ]]);
    assert_eq!(paths(&tree), ["", "a", "b", "d", "d/x"]);
    assert_eq!((content(&tree, "a"), content(&tree, "b"), at(&tree, "d").mode), ("after".into(), "last".into(), 0o755));
}

#[test]
fn layers_may_repeat_and_be_empty() {
    let a = &[file("a", "a"), file("b", "b"), hardlink("c", "b")][..];
    let tree_of = |layers: &[&[Entry]]| tree(layers);
    assert_eq!(paths(&tree_of(&[a, &[whiteout("a"), whiteout("b")], a])), ["", "a", "b", "c"]);
    assert_eq!(at(&tree_of(&[a, a, a]), "c").names, names(&["b", "c"]));
    assert_eq!(paths(&tree_of(&[&[], a, &[], &[]])), ["", "a", "b", "c"]);
    assert_eq!(paths(&tree_of(&[])), [""]);
    let many = (0..300)
        .fold(Image::empty(), |image, n| image.layer([file(format!("f{n}"), ""), whiteout(&format!("f{}", n - 1))]));
    assert_eq!(paths(&unpacked(&Case::new(), &many)), ["", "f299"]);
}

#[test]
fn every_compression_gives_the_same_tree() {
    use Packing::{Frames, Gzip, Members, Plain, Zstd};
    let big: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let entries = [file("big", big), dir("d/"), file("d/x", "y")];
    let want = tree(&[&entries]);
    for packing in [Plain, Members, Zstd, Frames] {
        assert!(unpacked(&Case::new(), &Image::empty().packed(packing, &entries)) == want, "{packing:?}");
    }
    let all = [Plain, Gzip, Members, Zstd, Frames];
    let each = |image: Image, (n, packing): (usize, Packing)| image.packed(packing, [file(format!("f{n}"), "x")]);
    let mixed = all.into_iter().enumerate().fold(Image::empty(), each);
    assert_eq!(paths(&unpacked(&Case::new(), &mixed)), ["", "f0", "f1", "f2", "f3", "f4"]);
    let mislabelled = Image::empty().packed(Zstd, &entries).edit_manifest(|m| {
        m["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
    });
    assert!(unpacked(&Case::new(), &mislabelled) == want, "its first bytes tell");
}

#[test]
fn padding_after_the_tar_belongs_to_the_layer() {
    let mut padded = tar(&[file("a", "x")]);
    padded.resize(padded.len() + 10_240, 0);
    let mut followed = padded.clone();
    followed.extend(b"something else");
    let unended = tar(&[file("a", "x")])[..1024].to_vec();
    for bytes in [padded, followed, unended] {
        assert_eq!(paths(&unpacked(&Case::new(), &Image::empty().raw(Packing::Gzip, bytes))), ["", "a"]);
    }
}

#[test]
fn an_archive_of_docker_is_the_same_image() {
    let case = Case::new();
    let image = Image::busybox().layer([file("etc/motd", "hello"), whiteout("bin/vi")]);
    let archive = format!("docker-archive:{}", text(&image.docker_archive(&case, "image.tar")));
    assert_eq!(sh(&case, &[], &archive, "cat /etc/motd; ls /bin/vi 2>/dev/null").stdout, "hello");
    let layout = oci(&image.layout(&case, "layout"));
    pull(&case, &layout);
    assert_eq!(rootfs(&case, &layout), rootfs(&case, &archive), "and it has the same tree");
}

#[test]
fn the_hosts_platform_is_chosen_unless_another_is_asked_for() {
    let case = Case::new();
    let built = |name: &str| Image::busybox().layer([file("which", name)]);
    let (own, other) = (built("own"), built("other").platform("linux/s390x"));
    let attestation = Image::empty()
        .edit_descriptor(|d| d["platform"] = serde_json::json!({"os": "unknown", "architecture": "unknown"}));
    let reference = oci(&layout(&case, "layout", &[&other, &attestation, &own]));
    assert_eq!(sh(&case, &[], &reference, "cat /which").ok(), "own");
    assert_eq!(
        sh(&case, &["--platform", "linux/s390x"], &reference, "cat /which").ok(),
        "other",
        "its busybox is ours"
    );
    let listed = verb(&case, &["images"]).finish();
    assert_eq!(listed.ok().lines().count(), 3, "a name means one image for each platform: {listed:?}");
    verb(&case, &["pull", "--platform", "linux/riscv64", &reference]).finish().refused(&["linux/riscv64", &reference]);
}

#[test]
fn pull_missing_always_and_never() {
    let case = Case::new();
    let server = Server::start(&[("r", &[&Image::busybox().layer([file("v", "1")])])]);
    let name = server.name("r");
    let version = |options: &[&str]| sh(&case, options, &name, "cat /v");
    version(&["--pull", "never"]).refused(&[&name, "--pull never"]);
    assert_eq!(server.asked(""), 0);
    assert_eq!(version(&[]).ok(), "1");
    let before = server.asked("");
    server.add("r", &[&Image::busybox().layer([file("v", "2")])]);
    assert_eq!(
        (version(&[]).ok(), version(&["--pull", "missing"]).ok(), version(&["--pull", "never"]).ok()),
        ("1", "1", "1")
    );
    assert_eq!(server.asked(""), before, "a second run needs no network");
    assert_eq!(version(&["--pull", "always"]).ok(), "2");
    let blobs = server.asked("/blobs/");
    assert_eq!(version(&["--pull", "always"]).ok(), "2");
    assert!(server.asked("/blobs/") <= blobs + 2, "no layer again");
    server.stop();
    assert_eq!((version(&[]).ok(), version(&["--pull", "never"]).ok()), ("2", "2"));
    version(&["--pull", "always"]).refused(&[&name, "refused"]);
    assert_eq!(version(&[]).ok(), "2");
}

#[test]
fn a_run_that_pulled_is_like_any_other() {
    let case = Case::new();
    let reference = oci(&Image::busybox().layout(&case, "layout"));
    let script = "env | sort; echo $0 $1; for fd in /proc/$$/fd/*; do echo ${fd##*/}; done; cat";
    let run = || {
        let mut command = verb(&case, &["-q", "--env-policy", "host", &reference, "sh", "-c", script, "zero", "one"]);
        command.stdin(std::fs::File::open(case.file("in", "typed")).unwrap()).finish()
    };
    let (first, second) = (run(), run());
    assert_eq!(first.ok(), second.ok());
    assert!(!first.stdout.contains("GPURUN") && first.stdout.ends_with("typed"), "{first:?}");
}

#[test]
fn a_run_never_changes_the_stored_tree() {
    let case = Case::new();
    let entries = [
        file("data/f", "x").mode(0o666),
        hardlink("data/g", "data/f"),
        dir("closed/").mode(0),
        dir("open/").mode(0o1777),
    ];
    let reference = oci(&Image::busybox().layer(entries).layout(&case, "layout"));
    pull(&case, &reference);
    let root = rootfs(&case, &reference);
    let before = list(&root);
    let script = "echo y >/data/f; rm -rf /data /bin/vi; mkdir /new; chmod 700 /open; touch /open/x; rmdir /closed; ln /bin/busybox /b";
    for options in [&[][..], &["--root"], &["--read-only"], &["-u", "7"], &["--here"]] {
        sh(&case, options, &reference, script).stdout.clear();
        assert!(list(&root) == before, "{options:?}");
    }
}

#[test]
fn images_inspect_and_rm_tell_what_is_in_the_store() {
    let case = Case::new();
    let image = Image::busybox().layer([file("a", "x".repeat(500))]).config(serde_json::json!({"Cmd": ["sh"]}));
    let server = Server::start(&[("r", &[&image]), ("same", &[&image])]);
    let (name, same) = (server.name("r"), server.name("same"));
    assert_eq!(verb(&case, &["images"]).finish().ok().lines().count(), 1, "nothing but a heading");
    assert_eq!(verb(&case, &["images", "--json"]).finish().ok(), "[]\n");
    let pulled = verb(&case, &["pull", "--json", "-q", &name, &same]).finish();
    let facts: Value = serde_json::from_str(pulled.ok()).unwrap();
    let listed: Value = serde_json::from_str(verb(&case, &["images", "--json"]).finish().ok()).unwrap();
    let but_used = |images: &Value| {
        let mut images = images.as_array().unwrap().clone();
        for image in &mut images {
            image["used"].take(); // a file's time, a second later perhaps
        }
        images
    };
    assert_eq!(but_used(&listed), but_used(&facts));
    assert_eq!(facts[0]["digest"], image.digest());
    assert_eq!(facts[0]["size"], std::fs::metadata("/bin/busybox").unwrap().len() + 500);
    let canonical = facts[0]["reference"].as_str().unwrap();
    assert!(verb(&case, &["images"]).finish().ok().contains(canonical));
    let inspected: Value = serde_json::from_str(verb(&case, &["inspect", "--json", &name]).finish().ok()).unwrap();
    assert_eq!((&inspected["config"]["config"]["Cmd"][0], &inspected["digest"]), (&"sh".into(), &facts[0]["digest"]));
    assert_eq!(inspected["layers"].as_array().unwrap().len(), 2);
    let human = verb(&case, &["inspect", &name]).finish();
    assert!(human.ok().contains(inspected["rootfs"].as_str().unwrap()), "{human:?}");

    let digest = image.digest();
    verb(&case, &["rm", &digest["sha256:".len()..][..12]]).finish().refused(&["means 2 images"]);
    assert!(verb(&case, &["rm", &name]).finish().ends(0).stderr.contains(canonical));
    assert_eq!(sh(&case, &["--pull", "never"], &same, "cat /a").ok().len(), 500, "its other name keeps it");
    verb(&case, &["rm", &name]).finish().refused(&[&name, "is not in the store"]);
    verb(&case, &["rm", "-q", &digest["sha256:".len()..][..12]]).finish().ok();
    verb(&case, &["inspect", &same]).finish().refused(&[&same, "is not in the store"]);
    let store = case.path("home/.local/share/gpurun");
    for kind in ["names", "images", "rootfs", "layers"] {
        assert_eq!(std::fs::read_dir(store.join(kind)).unwrap().count(), 0, "{kind}");
    }
}

#[test]
fn a_pull_is_shown_by_a_line_a_layer_bars_on_a_terminal_or_nothing() {
    let case = Case::new();
    let image = Image::empty().layer([file("a", "x")]).layer([file("b", "y")]);
    let reference = oci(&image.layout(&case, "layout"));
    let store = |name: &str| case.path(name).to_str().unwrap().to_owned();
    let finished = verb(&case, &["pull", "--store", &store("one"), &reference]).finish();
    assert_eq!(finished.ends(0).stdout, format!("{reference} {}\n", image.digest()));
    let mut lines: Vec<_> = finished.stderr.lines().collect();
    lines.sort_unstable();
    let mut want: Vec<_> =
        image.layers.iter().map(|l| format!("gpurun: {}: ", &Digest::of(&l.blob).hex()[..12])).collect();
    want.sort_unstable();
    assert!(lines.len() == 2 && lines.iter().zip(&want).all(|(line, start)| line.starts_with(start)), "{lines:?}");
    assert!(lines[0].contains(" B in ") && lines[0].ends_with("/s"), "{lines:?}");
    let again = verb(&case, &["pull", "--store", &store("one"), &reference]).finish();
    assert_eq!(again.ok(), finished.stdout, "there is nothing to show");
    let quiet = verb(&case, &["pull", "-q", "--store", &store("two"), &reference]).finish();
    assert_eq!(quiet.ok(), "");

    let server = Server::start(&[("r", &[&Image::empty().packed(Packing::Plain, [file("a", vec![7; 1 << 20])])])]);
    server.slow(20);
    let mut pty = Pty::open();
    for (term, bar) in [("xterm", true), ("dumb", false)] {
        let mut pull = verb(&case, &["pull", "--store", &store(term), &server.name("r")]);
        let mut child = Running::of(pty.command(pull.env("TERM", term)).spawn().unwrap());
        let before = pty.expect("\r\n");
        assert_eq!((before.contains("\u{2588}"), before.contains("kB of")), (bar, bar), "{before:?}");
        assert!(before.trim_end().ends_with("B/s"), "the facts start a line of their own: {before:?}");
        pty.expect(&format!("{} sha256:", server.name("r:latest")));
        pty.expect("\r\n");
        assert!(child.wait().success());
    }
}

#[test]
fn explain_of_a_stored_image_starts_nothing() {
    let case = Case::new();
    let image =
        Image::busybox().config(serde_json::json!({"Entrypoint": ["touch"], "Cmd": ["/work/x"], "WorkingDir": "/srv"}));
    let server = Server::start(&[("r", &[&image])]);
    let name = server.name("r");
    pull(&case, &name);
    server.stop();
    let work = format!("{}:/work", text(&case.path("work")));
    let human = verb(&case, &["explain", "-v", &work, &name]).finish();
    for word in ["touch", "/srv", "the image's WorkingDir", &image.digest()] {
        assert!(human.ok().contains(word), "{word}: {human:?}");
    }
    let plan: Value =
        serde_json::from_str(verb(&case, &["explain", "--json", "-v", &work, &name]).finish().ok()).unwrap();
    assert_eq!(plan["process"]["argv"], serde_json::json!(["touch", "/work/x"]));
    verb(&case, &["spec", "-v", &work, &name]).finish().ok();
    verb(&case, &["run", "--dry-run", "-v", &work, &name]).finish().ok();
    assert!(!case.path("work/x").exists());
    verb(&case, &["run", "-v", &work, &name]).finish().ok();
    assert!(case.path("work/x").exists(), "but a run does");
}

#[test]
fn what_a_layer_may_unpack_to_can_be_limited() {
    let case = Case::new();
    let image = Image::empty().layer([file("zeroes", vec![0; 3 << 20])]);
    let reference = oci(&image.layout(&case, "layout"));
    let limited = |size: &str| verb(&case, &["pull", "-q", "--max-unpacked", size, &reference]).finish();
    limited("1m").refused(&["more than 1048576 bytes", "hint: `--max-unpacked"]);
    verb(&case, &["pull", &reference]).env("GPURUN_MAX_UNPACKED", "1m").finish().refused(&["more than"]);
    limited("what").refused(&["what"]);
    limited("4m").ok();
}
