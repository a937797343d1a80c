//! What is no image, or a hostile one: one sentence with the cause and the place, a hint where there is something to do,
//! exit status 125, and nothing that a later pull of the same digests would trust.

use std::path::Path;
use std::process::Command;

use gpurun::image::Digest;
use serde_json::json;

use crate::support::image::{
    Entry, Image, Layer, Packing, device, dir, fifo, file, hardlink, oci, opaque, pull, rootfs, symlink, tar, verb,
};
use crate::support::listing::list;
use crate::support::server::Server;
use crate::support::{Case, Finish, Finished, program, text};

/// One sentence, and perhaps hints.
#[track_caller]
fn refused(finished: &Finished, words: &[&str]) {
    finished.refused(words);
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert!(lines[1..].iter().all(|line| line.starts_with("hint: ")), "{finished:?}");
}

/// Nothing is in the store but what is good of itself: layers that are whole.
#[track_caller]
fn nothing_is_left(case: &Case) {
    let store = case.path("home/.local/share/gpurun");
    for kind in ["names", "images", "rootfs"] {
        let left = std::fs::read_dir(store.join(kind)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{kind}");
    }
    let inside = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    for making in inside(&store.join("making")).flat_map(|boot| inside(&boot)).filter(|path| path.is_dir()) {
        assert!(making.join("index").exists(), "{} is half-made", making.display());
    }
}

/// Damages an image's layout, sees the refusal, mends it, and sees that the pull is as if nothing had been.
#[track_caller]
fn damaged(image: &Image, damage: impl Fn(&Path, &Image), words: &[&str]) {
    let case = Case::new();
    let path = image.layout(&case, "layout");
    damage(&path, image);
    let reference = oci(&path);
    let finished = verb(&case, &["pull", "-q", &reference]).finish();
    refused(&finished, &[&[reference.as_str()], words].concat());
    nothing_is_left(&case);
    refused(&verb(&case, &["-q", &reference, "true"]).finish(), words);
    image.layout(&case, "layout");
    pull(&case, &reference);
    let other = Case::new();
    let untouched = oci(&image.layout(&other, "layout"));
    pull(&other, &untouched);
    assert!(list(&rootfs(&case, &reference)) == list(&rootfs(&other, &untouched)));
}

fn two_layers() -> Image {
    let noise: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Image::empty().layer([file("a", "a"), file("noise", noise)]).layer([file("b", "b")])
}

fn name(layer: &Layer) -> String {
    Digest::of(&layer.blob).to_string()
}

#[test]
fn images_that_are_not_there() {
    let case = Case::new();
    let server = Server::start(&[]);
    for (image, words) in [
        (server.name("no/such"), &["no/such", "has no"][..]),
        ("oci:/no/such/dir".into(), &["/no/such/dir", "No such file"]),
        ("oci-archive:/no/such.tar".into(), &["/no/such.tar", "No such file"]),
        ("docker-archive:/no/such.tar".into(), &["/no/such.tar", "No such file"]),
        (format!("oci:{}", text(&case.path("home"))), &["home", "No such file"]),
        ("./missing".into(), &["missing"]),
        ("builtin:nothing".into(), &["builtin:nothing", "hint: there is `builtin:hello`"]),
        ("Upper Case".into(), &["Upper Case"]),
    ] {
        for command in [&["pull", "-q", &image][..], &["-q", &image, "true"]] {
            refused(&verb(&case, command).finish(), words);
        }
    }
    let layout = format!("{}:no-such-tag", oci(&two_layers().layout(&case, "layout")));
    refused(&verb(&case, &["pull", "-q", &layout]).finish(), &["no-such-tag"]);
    nothing_is_left(&case);
}

#[test]
fn blobs_that_are_missing_cut_longer_or_changed() {
    for (packing, _) in [(Packing::Gzip, 0), (Packing::Plain, 1), (Packing::Zstd, 2)] {
        let entries = [file("a", vec![7; 300_000]), file("b", "b")];
        let image = Image::empty().layer([file("z", "")]).packed(packing, entries);
        let layer = |image: &Image| image.layers[1].clone();
        let said = name(&layer(&image));
        let missing = |root: &Path, image: &Image| std::fs::remove_file(root.join(layer(image).path())).unwrap();
        damaged(&image, missing, &[&said, "No such file"]);
        let rewrite = |root: &Path, image: &Image, change: &dyn Fn(&mut Vec<u8>)| {
            let mut blob = layer(image).blob;
            change(&mut blob);
            std::fs::write(root.join(layer(image).path()), blob).unwrap();
        };
        damaged(&image, |r, i| rewrite(r, i, &|b| b.truncate(b.len() / 2)), &[&said, "bytes instead of"]);
        damaged(&image, |r, i| rewrite(r, i, &Vec::clear), &[&said, "has 0 bytes instead of"]);
        damaged(&image, |r, i| rewrite(r, i, &|b| b.extend(*b"more")), &[&said, "bytes instead of"]);
        for at in [0, 3, 30, 101] {
            let flip = |b: &mut Vec<u8>| {
                let at = at * (b.len() - 1) / 101;
                b[at] ^= 0x55;
            };
            damaged(&image, |r, i| rewrite(r, i, &flip), &[&said, "its digest is sha256:"]);
        }
    }
}

#[test]
fn documents_that_are_missing_or_changed() {
    let image = two_layers();
    let document = |which: usize| {
        move |root: &Path, image: &Image| {
            let digest = image.digest();
            let manifest = root.join("blobs").join(digest.replace(':', "/"));
            let text: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
            let config = root.join("blobs").join(text["config"]["digest"].as_str().unwrap().replace(':', "/"));
            let path = [manifest, config][which / 2].clone();
            match which % 2 {
                0 => std::fs::remove_file(path).unwrap(),
                _ => std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace(':', " :")).unwrap(),
            }
        }
    };
    damaged(&image, document(0), &[&image.digest()["sha256:".len()..], "No such file"]);
    damaged(&image, document(1), &[&image.digest()]);
    damaged(&image, document(2), &["No such file"]);
    damaged(&image, document(3), &["config"]);
    damaged(&image, |root, _| std::fs::write(root.join("index.json"), "{").unwrap(), &["index.json"]);
    damaged(
        &image,
        |root, _| std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap(),
        &["9"],
    );
}

/// An image that lies, and what is said of it; the same layers without the lie are then an image as any.
#[track_caller]
fn lies(image: &Image, words: &[&str]) {
    let case = Case::new();
    let reference = oci(&image.layout(&case, "lies"));
    refused(&verb(&case, &["pull", "-q", &reference]).finish(), words);
    refused(&verb(&case, &["-q", &reference, "true"]).finish(), words);
    nothing_is_left(&case);
    let honest = Image { layers: image.layers.clone(), ..Image::empty() };
    let reference = oci(&honest.layout(&case, "honest"));
    pull(&case, &reference);
    assert!(!list(&rootfs(&case, &reference)).is_empty());
}

#[test]
fn digests_diff_ids_and_sizes_that_lie() {
    let other = Digest::of(b"other").to_string();
    let image = two_layers();
    let (first, second) = (name(&image.layers[0]), name(&image.layers[1]));
    let diff_ids = image.layers.iter().map(|l| Digest::of(&l.tar).to_string()).collect::<Vec<_>>();
    let lie = other.clone();
    lies(
        &image.clone().edit_config(move |c| c["rootfs"]["diff_ids"][1] = json!(lie)),
        &[&second, "does not unpack to", &other],
    );
    let swapped = diff_ids.iter().rev().cloned().collect::<Vec<_>>();
    lies(&image.clone().edit_config(move |c| c["rootfs"]["diff_ids"] = json!(swapped)), &["does not unpack to"]);
    let one = diff_ids[..1].to_vec();
    lies(&image.clone().edit_config(move |c| c["rootfs"]["diff_ids"] = json!(one)), &["1 diff ids", "2 layers"]);
    lies(&image.clone().edit_config(|c| c["rootfs"]["type"] = json!("squashfs")), &["squashfs"]);
    lies(&image.clone().edit_manifest(|m| m["layers"][0]["size"] = json!(10)), &[&first, "bytes instead of 10"]);
    lies(
        &image.clone().edit_manifest(|m| m["layers"][0]["size"] = json!(10_000_000)),
        &[&first, "bytes instead of 10000000"],
    );
    lies(&image.clone().edit_manifest(|m| m["layers"][0]["size"] = json!(-1)), &["is negative"]);
    lies(&image.clone().edit_manifest(|m| m["config"]["size"] = json!(3)), &["config"]);
    lies(&image.clone().edit_descriptor(|d| d["size"] = json!(3)), &["manifest"]);
    lies(&image.clone().edit_manifest(|m| m["layers"][0]["digest"] = json!("md5:00")), &["md5:00"]);
    lies(&image.edit_manifest(|m| m["layers"][0]["digest"] = json!("sha256:../../../../../etc/passwd")), &["sha256"]);
}

#[test]
fn what_is_no_image_for_here() {
    let image = two_layers();
    let kind = |kind: &'static str| image.clone().edit_manifest(move |m| m["layers"][1]["mediaType"] = json!(kind));
    for media_type in ["application/vnd.in-toto+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"] {
        lies(&kind(media_type), &[media_type]);
    }
    lies(&kind("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), &[&name(&image.layers[1]), "foreign"]);
    lies(
        &image.clone().edit_manifest(|m| m["config"]["mediaType"] = json!("application/vnd.wasm.config.v0+json")),
        &["wasm"],
    );
    lies(&image.clone().edit_manifest(|m| m["schemaVersion"] = json!(1)), &["schema"]);
    lies(&image.clone().platform("windows/amd64"), &["windows"]);
    lies(&image.clone().platform("linux/s390x"), &["s390x", "--platform"]);
    let wrong_in_config = image.edit_config(|c| c["architecture"] = json!("s390x"));
    lies(&wrong_in_config, &["built for linux/s390x", "hint: "]);
}

/// A layer that is refused for what it says.
#[track_caller]
fn hostile(layers: &[&[Entry]], words: &[&str]) {
    let case = Case::new();
    let image = layers.iter().fold(Image::empty(), Image::layer);
    let reference = oci(&image.layout(&case, "layout"));
    refused(&verb(&case, &["pull", "-q", &reference]).finish(), words);
    nothing_is_left(&case);
}

#[test]
fn names_that_cannot_be() {
    hostile(&[&[file("a/.wh.", "")]], &["whiteout of nothing"]);
    hostile(&[&[file(".wh...", "")]], &["whiteout of nothing"]);
    hostile(&[&[file("..", "x")]], &["no name"]);
    hostile(&[&[symlink(".", "/")]], &["root"]);
    hostile(&[&[file("/", "not a directory"), file("", "x")]], &["root"]);
    hostile(&[&[file("n".repeat(256), "x")]], &["too long"]);
    hostile(&[&[file("d/".repeat(2100) + "x", "x")]], &["too long"]);
    hostile(&[&[symlink("l", "")]], &["`l`"]);
    hostile(&[&[symlink("l", "x".repeat(4096))]], &["`l`"]);
    hostile(&[&[file(b"a\0b", "x").pax("path", b"a\0b")]], &["a"]);
    hostile(&[&[symlink("a", "b"), symlink("b", "a"), file("a/x", "")]], &["more than 40 links"]);
}

#[test]
fn hard_links_to_what_is_not_in_the_image() {
    for target in ["/etc/passwd", "../../../../etc/passwd", "x", ".", "", "d", "d/../d"] {
        hostile(&[&[dir("d/"), hardlink("h", target)]], &["hard link to"]);
    }
    let out = Case::new();
    let secret = out.file("secret", "s");
    hostile(&[&[symlink("out", text(&out.path(""))), hardlink("h", format!("out/{}", "secret"))]], &["hard link to"]);
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(secret).unwrap()), 1);
}

/// Whatever is written through links and `..` lands in the image.
#[test]
fn nothing_is_written_outside() {
    let (case, victim) = (Case::new(), Case::new());
    let outside = text(&victim.path("work")).to_owned();
    let deep = format!("{}{}", "../".repeat(40), outside.trim_start_matches('/'));
    let layers: &[&[Entry]] = &[
        &[symlink("abs", &outside), symlink("rel", &deep), symlink("up", ".."), symlink("dot", "."), dir("real/")],
        &[
            file("abs/1", "x"),
            file("rel/2", "x"),
            file(format!("{deep}/3"), "x"),
            file("up/up/up/4", "x"),
            file("dot/../5", "x"),
            dir("abs/6/").mode(0o777),
            symlink("abs/7", "x"),
            fifo("rel/8"),
            device("rel/9"),
            file(format!("/{outside}/10"), "x"),
            opaque("abs/sub"),
            file("real/../../11", "x"),
        ],
        &[file("abs/.wh.kept", ""), file(format!("{deep}/.wh.kept"), ""), opaque("rel")],
    ];
    std::fs::write(victim.path("work/kept"), "x").unwrap();
    let image = layers.iter().fold(Image::empty(), Image::layer);
    let reference = oci(&image.layout(&case, "layout"));
    pull(&case, &reference);
    let left: Vec<_> = std::fs::read_dir(victim.path("work")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["kept"]);
    let tree = list(&rootfs(&case, &reference));
    assert!(tree.contains_key(&b"4"[..]) && tree.contains_key(&b"5"[..]) && tree.contains_key(&b"11"[..]));
    let store = list(&case.path("home"));
    assert!(store.keys().all(|path| path.starts_with(b".local") || path.is_empty()), "{:?}", store.keys());
}

#[test]
fn headers_without_end_cost_nothing() {
    let case = Case::new();
    let huge = |kind: u8, size: u64| {
        let mut header = tar(&[Entry::of_kind(kind)])[..512].to_vec();
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header.resize(4 << 20, b'a');
        header
    };
    for (kind, words) in
        [(b'x', "header extension"), (b'g', "header extension"), (b'L', "header extension"), (b'K', "header extension")]
    {
        for size in [1 << 30, (1 << 33) - 1] {
            let reference = oci(&Image::empty().raw(Packing::Gzip, huge(kind, size)).layout(&case, "layout"));
            let mut limited = Command::new("sh");
            case.surround(&mut limited);
            let script = "ulimit -v 700000; exec \"$@\"";
            let finished = limited.args(["-c", script, "sh", text(&program()), "pull", "-q", &reference]).finish();
            refused(&finished, &[words]);
        }
    }
    let pax_bomb = file("x", "").pax("comment", vec![b'c'; 2 << 20]);
    hostile(&[&[pax_bomb]], &["header extension", "more than 1048576"]);
    let reference = oci(&Image::empty().raw(Packing::Gzip, huge(b'0', (1 << 33) - 1)).layout(&case, "layout"));
    refused(&verb(&case, &["pull", "-q", &reference]).finish(), &["the tar ends"]);
}

/// Links to links, at the end of paths that nobody made.
#[test]
fn directories_without_end_are_not_made() {
    let link = |n: usize| {
        move |at: usize| {
            let down = format!("{n}.{at}d/").repeat(400);
            symlink(format!("{n}.{at}"), format!("{down}{}{n}.{}", "../".repeat(400), at + 1))
        }
    };
    let bomb: Vec<_> = (0..20).flat_map(|n| (0..39).map(link(n)).chain([file(format!("{n}.0/x"), "")])).collect();
    hostile(&[&bomb], &["more than 262144 directories that no entry names"]);
}

#[test]
fn a_bomb_stops_at_the_limit_and_leaves_nothing() {
    let case = Case::new();
    let bomb = Image::empty().layer([file("zeroes", vec![0; 64 << 20])]);
    assert!(bomb.layers[0].blob.len() < 1 << 20);
    let reference = oci(&bomb.layout(&case, "layout"));
    refused(
        &verb(&case, &["pull", "-q", "--max-unpacked", "1m", &reference]).finish(),
        &["more than 1048576 bytes", "hint"],
    );
    nothing_is_left(&case);
    pull(&case, &reference);
    assert_eq!(std::fs::metadata(rootfs(&case, &reference).join("zeroes")).unwrap().len(), 64 << 20);
}

/// In namespaces of its own a test mounts a small file system where the store is.
#[test]
fn a_full_disk_is_told_and_a_larger_one_goes_on() {
    let case = Case::new();
    let noise: Vec<u8> = (0..400_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let many: Vec<_> = (0..300).map(|n| file(format!("d{n}/f"), "x")).collect();
    let small = Image::empty().layer([file("small", "x")]);
    let mut images = [Image::empty().layer([file("noise", noise)]), Image::empty().layer(&many), small.clone()];
    for (n, image) in images.iter_mut().enumerate() {
        image.layout(&case, &format!("layout{n}"));
    }
    let (store, layout) = (case.path("store"), |n: usize| oci(&case.path(&format!("layout{n}"))));
    std::fs::create_dir(&store).unwrap();
    let script = "set -e; mount -t tmpfs -o $3 x $1
        pull() { \"$2\" pull -q --store $1 $3; }
        if pull $1 $2 $4; then echo 'it fits' >&2; exit 9; fi
        pull $1 $2 $5; mount -t tmpfs -o remount,size=100m,nr_inodes=100000 x $1; pull $1 $2 $4; \"$2\" images --store $1 | wc -l >&2";
    for (options, image) in [("size=300k,nr_inodes=10000", 0), ("nr_inodes=100", 1)] {
        let Some(mut command) = case.mounter(script) else { return };
        let finished = command.args([text(&store), text(&program()), options, &layout(image), &layout(2)]).finish();
        let lines: Vec<_> = finished.ends(0).stderr.lines().collect();
        assert_eq!(lines.len(), 3, "{finished:?}");
        assert!(lines[0].starts_with("error: ") && lines[0].contains("No space left on device"), "{finished:?}");
        assert!(lines[1].starts_with("hint: the store's disk is full"), "{finished:?}");
        assert_eq!(lines[2], "3", "a heading and both images: {finished:?}");
    }
}

#[test]
fn stores_that_cannot_be_used() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new();
    let reference = oci(&Image::busybox().layout(&case, "layout"));
    let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let with = |store: &Path, verb_and: &[&str]| verb(&case, verb_and).env("GPURUN_STORE", store).finish();
    let a_file = case.file("file", "x");
    refused(&with(&a_file, &["pull", "-q", &reference]), &[text(&a_file), "Not a directory", "--store DIR"]);
    refused(
        &with(&a_file.join("below"), &["-q", &reference, "true"]),
        &[text(&a_file), "Not a directory", "--store DIR"],
    );
    refused(&with(&a_file, &["images"]), &[text(&a_file), "Not a directory"]);

    let store = case.path("read-only");
    with(&store, &["pull", "-q", &reference]).ok();
    let dirs = ["", "names", "images", "rootfs", "layers", "making"].map(|name| store.join(name));
    for dir in &dirs {
        mode(dir, 0o500);
    }
    mode(&store.join("lock"), 0o400);
    assert_eq!(with(&store, &["-q", &reference, "echo", "x"]).ok(), "x\n", "what is there runs");
    assert_eq!(with(&store, &["images"]).ok().lines().count(), 2);
    let other = oci(&two_layers().layout(&case, "other"));
    refused(&with(&store, &["pull", "-q", &other]), &[text(&store), "Permission denied", "--store DIR"]);
    refused(&with(&store, &["rm", "-q", &reference]), &[text(&store), "Permission denied"]);
    for dir in &dirs {
        mode(dir, 0o700);
    }

    mode(&store, 0o000);
    refused(&with(&store, &["images"]), &[text(&store), "Permission denied"]);
    refused(&with(&store, &["-q", &reference, "true"]), &[text(&store), "Permission denied", "hint: "]);
    mode(&store, 0o700);
    let records = std::fs::read_dir(store.join("names")).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    mode(&records[0], 0o000);
    refused(&with(&store, &["images"]), &[text(&records[0]), "Permission denied", "hint: "]);
}

#[test]
fn without_a_home_a_store_must_be_named() {
    let case = Case::new();
    let reference = oci(&Image::busybox().layout(&case, "layout"));
    let without = |options: &[&str]| {
        let mut command = verb(&case, &[options, &["-q", &reference, "echo", "x"]].concat());
        command.env_remove("HOME").env("XDG_DATA_HOME", "relative").finish()
    };
    let finished = without(&[]);
    if finished.status != 0 {
        refused(&finished, &["--store DIR"]);
    }
    assert_eq!(without(&["--store", text(&case.path("store"))]).ok(), "x\n");
    assert_eq!(without(&["--store", "relative/store"]).ok(), "x\n");
    assert!(case.path("work/relative/store/images").exists());
}
