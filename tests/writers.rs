//! Images as the field's tools write them: what GNU tar, buildx, `docker save`, eStargz and zstd:chunked make of a tree
//! is that tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::{Compression, GzBuilder};
use gpurun::image::Digest;
use serde_json::{Value, json};

use crate::support::image::{
    Entry, Image, Layer, Packing, dir, file, files, hardlink, oci, pull, rootfs, sh, symlink as link, tar, unpacked,
    verb, whiteout,
};
use crate::support::listing::{Listing, list};
use crate::support::{Case, Finish, text};

/// A tree that needs every extension there is: long names, long targets, a file of 40 pieces, times before 1970.
fn awkward(case: &Case) -> PathBuf {
    let root = case.path("tree");
    let long = root.join("d".repeat(90)).join("e".repeat(200));
    std::fs::create_dir_all(&long).unwrap();
    std::fs::write(long.join("f"), "deep").unwrap();
    std::fs::hard_link(long.join("f"), root.join("same")).unwrap();
    symlink("t/".repeat(150), root.join("far")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    for piece in 0..40_u64 {
        sparse.write_all_at(&[b'a'; 4096], piece << 16).unwrap();
    }
    sparse.set_len(10 << 20).unwrap();
    let dated = "find . -exec touch -h -d @1600000000 {} + && touch -d @-5 sparse && chmod 1755 . && chmod 4711 same";
    Command::new("sh").args(["-c", dated]).current_dir(&root).finish().ok();
    root
}

fn gnu_tar(root: &Path, options: &[&str]) -> Vec<u8> {
    let fixed = ["--sparse", "--hole-detection=raw", "--owner=big:3000000", "--group=big:3000000"];
    let output = Command::new("tar").args(fixed).args(options).args(["-cf", "-", "."]).current_dir(root).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn every_format_of_gnu_tar_is_the_same_tree() {
    let case = Case::new();
    let root = awkward(&case);
    let want = list(&root);
    for options in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0", "--pax-option=comment=a global header"],
    ] {
        let tar = gnu_tar(&root, options);
        assert!(tar.len() < 1 << 20, "{options:?}: its holes are not in it");
        assert!(unpacked(&Case::new(), &Image::empty().raw(Packing::Gzip, tar)) == want, "{options:?}");
    }
}

fn entries() -> [Entry; 4] {
    [dir("d/"), file("d/a", vec![7; 5000]), hardlink("b", "d/a"), file("c", "c")]
}

/// A tar's bytes, cut where each entry begins, as lazily read layers have them; the end of the tar is a piece of its own.
fn pieces(entries: &[Entry]) -> Vec<Vec<u8>> {
    let without_end = |entry: &Entry| {
        let tar = tar(std::slice::from_ref(entry));
        tar[..tar.len() - 1024].to_vec()
    };
    entries.iter().map(without_end).chain([vec![0; 1024]]).collect()
}

fn as_blob(pieces: &[Vec<u8>], blob: Vec<u8>, packing: Packing) -> Listing {
    let mut layer = Layer::of(packing, pieces.concat());
    layer.blob = blob;
    let mut image = Image::empty();
    image.layers.push(layer);
    unpacked(&Case::new(), &image)
}

fn member(bytes: &[u8], extra: &[u8]) -> Vec<u8> {
    let builder = if extra.is_empty() { GzBuilder::new() } else { GzBuilder::new().extra(extra) };
    let mut member = builder.write(Vec::new(), Compression::fast());
    member.write_all(bytes).unwrap();
    member.finish().unwrap()
}

/// stargz-snapshotter, docs/estargz.md: a member for each entry, one for the table of contents, and an empty one whose
/// extra field says where that is.
#[test]
fn estargz_is_read_as_a_plain_stream() {
    let table = file("stargz.index.json", r#"{"version":1,"entries":[]}"#);
    let entries = [&[file(".no.prefetch.landmark", "\x0f")][..], &entries(), &[table]].concat();
    let pieces = pieces(&entries);
    let mut blob: Vec<u8> = pieces.iter().flat_map(|piece| member(piece, b"")).collect();
    let footer = [&b"SG\x16\0"[..], format!("{:016x}STARGZ", blob.len()).as_bytes()].concat();
    blob.extend(member(b"", &footer));
    let want = unpacked(&Case::new(), &Image::empty().layer(&entries));
    assert!(as_blob(&pieces, blob, Packing::Gzip) == want);
}

/// RFC 8878 §3.1.2.
fn skippable(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    [&[0x50, 0x2a, 0x4d, 0x18][..], &length, bytes].concat()
}

/// containers/storage, pkg/chunked: a frame for each entry, then the manifest, the tar-split data and a footer in frames
/// that are skipped.
#[test]
fn zstd_chunked_is_read_as_a_plain_stream() {
    let pieces = pieces(&entries());
    let mut blob: Vec<u8> = pieces.iter().flat_map(|piece| zstd::encode_all(&piece[..], 3).unwrap()).collect();
    for hidden in [&zstd::encode_all(&b"{\"version\":1}"[..], 3).unwrap()[..], b"tar-split", b"\0\0\0\0GnUlInUx"] {
        blob.extend(skippable(hidden));
    }
    let want = unpacked(&Case::new(), &Image::empty().layer(entries()));
    assert!(as_blob(&pieces, blob, Packing::Zstd) == want);
}

/// Docker's media types in an OCI layout, as containerd exports them, an index that does not say the platform, and a history
/// that names more than the layers.
fn of_docker(image: Image) -> Image {
    let docker = "application/vnd.docker";
    let image = image.edit_manifest(move |manifest| {
        manifest["mediaType"] = json!(format!("{docker}.distribution.manifest.v2+json"));
        manifest["config"]["mediaType"] = json!(format!("{docker}.container.image.v1+json"));
        for layer in manifest["layers"].as_array_mut().unwrap() {
            layer["mediaType"] = json!(format!("{docker}.image.rootfs.diff.tar.gzip"));
        }
    });
    let image = image.edit_config(|config| {
        let without_layer = json!({"created_by": "ENV A=b", "empty_layer": true});
        config["history"] = json!([without_layer, {"created_by": "COPY"}, without_layer]);
    });
    image.edit_descriptor(move |entry| {
        entry["mediaType"] = json!(format!("{docker}.distribution.manifest.v2+json"));
        entry.as_object_mut().unwrap().remove("platform");
    })
}

/// What buildx adds to every index.
fn attestation(of: &Image) -> Image {
    let statement = Image::empty().raw(Packing::Plain, b"{\"_type\":\"https://in-toto.io/Statement/v0.1\"}".to_vec());
    let statement = statement.edit_manifest(|m| m["layers"][0]["mediaType"] = json!("application/vnd.in-toto+json"));
    let digest = of.digest();
    statement.edit_descriptor(move |entry| {
        entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        entry["annotations"] =
            json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest});
    })
}

/// The files of a layout in which each name is an index of an image and its attestation.
fn nested(images: &[(&str, &Image)]) -> BTreeMap<String, Vec<u8>> {
    let (mut all, mut names) = (BTreeMap::new(), Vec::new());
    for (name, image) in images {
        all.extend(files(&[&attestation(image), image]));
        let index = all["index.json"].clone();
        let tag = name.rsplit_once(':').map_or(*name, |(_, tag)| tag);
        names.push(json!({
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": Digest::of(&index), "size": index.len(),
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag},
        }));
        all.insert(format!("blobs/sha256/{}", Digest::of(&index).hex()), index);
    }
    let top = json!({"schemaVersion": 2, "manifests": names});
    all.insert("index.json".into(), top.to_string().into_bytes());
    all
}

/// Two images that share a layer, and what they make.
fn two() -> [Image; 2] {
    let below = Image::busybox().layer([file("which", "below"), file("gone", "")]);
    [below.clone(), below.layer([file("which", "above"), whiteout("gone")])]
}

/// In a store of its own: one that has the tree would not read it again.
#[track_caller]
fn says(reference: &str, which: &str) {
    assert_eq!(sh(&Case::new(), &[], reference, "cat /which").ok(), which, "{reference}");
}

#[test]
fn an_index_in_an_index_with_attestations_and_dockers_types_is_an_image() {
    let case = Case::new();
    let image = of_docker(Image::busybox().layer([file("which", "built")]));
    for (name, bytes) in nested(&[("docker.io/library/built:1", &image)]) {
        let path = case.path("layout").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for name in ["", ":1", ":built:1"] {
        says(&format!("{}{name}", oci(&case.path("layout"))), "built");
    }
}

/// A `manifest.json` that names the config and the layers of each image like this.
fn manifest(
    images: &[(&[&str], &Image)],
    config: impl Fn(&Image) -> String,
    layer: impl Fn(&Layer) -> String,
) -> Value {
    let item = |(tags, image): &(&[&str], &Image)| {
        let layers: Vec<_> = image.layers.iter().map(&layer).collect();
        json!({"Config": config(image), "RepoTags": tags, "Layers": layers})
    };
    images.iter().map(item).collect()
}

fn archive(case: &Case, name: &str, files: BTreeMap<String, Vec<u8>>) -> String {
    let entries: Vec<_> = files.into_iter().map(|(name, bytes)| file(name, bytes)).collect();
    let path = case.path(name);
    std::fs::write(&path, tar(&entries)).unwrap();
    text(&path).to_owned()
}

/// Docker 25 and later, with the containerd image store: a layout too, and the layers compressed as they were pulled.
#[test]
fn a_save_of_a_new_docker_holds_several_images_in_both_forms() {
    let case = Case::new();
    let [one, two] = two();
    let mut files = nested(&[("docker.io/library/x:one", &one), ("docker.io/library/x:two", &two)]);
    let config = |image: &Image| format!("blobs/sha256/{}", Digest::of(&image.config_json()).hex());
    let items = manifest(&[(&["x:one", "x:uno"], &one), (&["x:two"], &two)], config, Layer::path);
    files.insert("manifest.json".into(), items.to_string().into_bytes());
    let path = archive(&case, "new.tar", files);
    let names = [("x:one", "below"), ("x:uno", "below"), ("one", "below"), ("x:two", "above"), ("two", "above")];
    for (name, which) in names {
        says(&format!("docker-archive:{path}:{name}"), which);
    }
    for (name, which) in [("one", "below"), ("docker.io/library/x:two", "above"), ("x:two", "above")] {
        says(&format!("oci-archive:{path}:{name}"), which);
    }
    let references = ["docker-archive", "oci-archive"].map(|kind| format!("{kind}:{path}:x:two"));
    let [docker, oci] = references.map(|reference| {
        pull(&case, &reference);
        rootfs(&case, &reference)
    });
    assert_eq!(docker, oci, "one tree, whichever form it was read in");
    verb(&case, &["pull", "-q", &format!("docker-archive:{path}")]).finish().refused(&["several images", "x:two"]);
}

/// Docker before 25: a directory for each layer, with files of the format before that, and links to layers that repeat.
#[test]
fn a_save_of_an_old_docker_holds_several_images() {
    let case = Case::new();
    let [one, two] = two();
    let config = |image: &Image| format!("{}.json", Digest::of(&image.config_json()).hex());
    let place = |layer: &Layer| format!("{}/layer.tar", Digest::of(&layer.blob).hex());
    let items = manifest(&[(&["x:one", "y:1"], &one), (&["x:two"], &two)], config, place);
    let mut entries = vec![file("repositories", "{}"), file("manifest.json", items.to_string())];
    entries.extend([&one, &two].map(|image| file(config(image), image.config_json())));
    for layer in &two.layers {
        let id = Digest::of(&layer.blob).hex();
        entries.extend([dir(format!("{id}/")), file(format!("{id}/VERSION"), "1.0"), file(format!("{id}/json"), "{}")]);
        entries.push(file(format!("real/{id}"), &layer.tar));
        entries.push(link(format!("{id}/layer.tar"), format!("../real/{id}")));
    }
    std::fs::write(case.path("old.tar"), tar(&entries)).unwrap();
    let path = text(&case.path("old.tar")).to_owned();
    for (name, which) in [("x:one", "below"), ("y:1", "below"), ("x:two", "above")] {
        says(&format!("docker-archive:{path}:{name}"), which);
    }
}

/// Docker before 1.10: no manifest at all, and each layer says which one is below it.
#[test]
fn a_save_of_the_oldest_dockers_is_a_chain_of_layers() {
    let case = Case::new();
    let [_, image] = two();
    let id = |n: usize| format!("{n:064x}");
    let mut entries = Vec::new();
    for (n, layer) in image.layers.iter().enumerate() {
        let parent = n.checked_sub(1).map(id);
        let config = json!({"Env": [format!("LAYER={n}")], "Cmd": ["sh", "-c", "cat /which; echo $LAYER"]});
        let said = json!({"id": id(n), "parent": parent, "os": "linux", "config": config});
        entries.extend([dir(format!("{}/", id(n))), file(format!("{}/VERSION", id(n)), "1.0")]);
        entries.push(file(format!("{}/json", id(n)), said.to_string()));
        entries.push(file(format!("{}/layer.tar", id(n)), &layer.tar));
    }
    let repositories = json!({"x": {"one": id(1), "two": id(2)}});
    entries.push(file("repositories", repositories.to_string()));
    std::fs::write(case.path("oldest.tar"), tar(&entries)).unwrap();
    let path = text(&case.path("oldest.tar")).to_owned();
    for (name, said) in [("x:one", "below1\n"), ("one", "below1\n"), ("x:two", "above2\n")] {
        let by_kind = format!("docker-archive:{path}:{name}");
        assert_eq!(verb(&Case::new(), &["-q", &by_kind]).finish().ok(), said, "{name}");
    }
    verb(&case, &["pull", "-q", &path]).finish().refused(&["several images", "x:one", "x:two"]);
}
