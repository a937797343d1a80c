//! `gpurun prune`, and what `images` says of sizes.

use std::fs::File;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::image::{Image, dir, file, oci, pull, sh, verb};
use crate::support::{Case, Finish};

/// Three images of a shared base and a megabyte each, last used 30, 20 and 10 days ago.
fn three() -> (Case, Vec<String>) {
    let case = Case::new();
    let base = Image::busybox().layer([dir("base/"), file("base/x", vec![1; 500_000])]);
    let image = |n: u8| oci(&base.clone().layer([file("own", vec![n; 1_000_000])]).layout(&case, &format!("image{n}")));
    let references: Vec<_> = (0..3).map(image).collect();
    for reference in &references {
        pull(&case, reference);
    }
    for (n, reference) in references.iter().enumerate() {
        used(&case, reference, Duration::from_hours(24 * (30 - 10 * n as u64)));
    }
    (case, references)
}

/// Makes an image one that was last used so long ago.
fn used(case: &Case, reference: &str, ago: Duration) {
    let names = std::fs::read_dir(case.path("home/.local/share/gpurun/names")).expect("list names");
    let path = names
        .map(|e| e.expect("list names").path())
        .find(|p| std::fs::read_to_string(p).expect("read a name").contains(&format!("\"{reference}\"")));
    let file = File::options().write(true).open(path.expect("it has a name")).expect("open a name");
    file.set_modified(SystemTime::now() - ago).expect("set its time");
}

fn images(case: &Case) -> Vec<Value> {
    serde_json::from_str(verb(case, &["images", "--json"]).finish().ok()).expect("JSON")
}

fn left(case: &Case) -> Vec<String> {
    images(case).iter().map(|i| i["reference"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn what_is_shared_is_told_apart_from_what_is_an_images_own() {
    let (case, _) = three();
    for image in images(&case) {
        let (size, shared) = (image["size"].as_u64().expect("a number"), image["shared"].as_u64().expect("a number"));
        assert_eq!(size - shared, 1_000_000, "{image}");
        assert!(shared > 500_000, "{image}");
    }
    let listed = verb(&case, &["images"]).finish();
    let mut lines = listed.ok().lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().expect("a heading")[3..], ["OWN", "SHARED"]);
    let sizes: Vec<_> = lines.map(|line| line[3..].join(" ")).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|line| line.starts_with("1.0 MB ")), "{sizes:?}");
}

#[test]
fn what_was_not_used_for_long_goes() {
    let (case, references) = three();
    verb(&case, &["prune"]).finish().ok();
    assert_eq!(left(&case).len(), 3);
    let pruned = verb(&case, &["prune", "--unused", "15d", "--json"]).finish();
    assert_eq!(left(&case), [references[2].clone()], "{pruned:?}");
    assert_eq!(sh(&case, &[], &references[2], "stat -c %s /base/x /own").ok(), "500000\n1000000\n");
}

#[test]
fn the_least_recently_used_go_until_the_rest_is_small_enough() {
    let (case, references) = three();
    sh(&case, &["--pull", "missing"], &references[0], "true").ok(); // which makes it the one that was used last
    let most = images(&case)[0]["size"].as_u64().expect("a number") + 1_000_000;
    verb(&case, &["prune", "-q", "--max-size", &most.to_string()]).finish().ok();
    assert_eq!(left(&case), [references[0].clone(), references[2].clone()]);
    verb(&case, &["prune", "-q", "--max-size", "1"]).finish().ok();
    assert_eq!(left(&case), [""; 0]);
    let store = case.path("home/.local/share/gpurun");
    for kind in ["layers", "rootfs", "images", "names"] {
        assert_eq!(std::fs::read_dir(store.join(kind)).expect("list").count(), 0, "{kind}");
    }
}

#[test]
fn an_image_in_use_stays() {
    let (case, references) = three();
    let mut running = verb(&case, &["run", &references[0], "sh", "-c", "echo up; read x"]);
    let mut running = running.stdin(std::process::Stdio::piped()).start();
    running.until("up");
    verb(&case, &["prune", "-q", "--max-size", "1"]).finish().ok();
    assert_eq!(left(&case), [references[0].clone()]);
    drop(running.child.stdin.take());
    running.finish().ends(1);
}

#[test]
fn malformed_limits_are_refused() {
    let case = Case::new();
    verb(&case, &["prune", "--unused", "long"]).finish().refused(&["`long` is not a duration"]);
    verb(&case, &["prune", "--max-size", "0"]).finish().refused(&["`0` is not a size"]);
}

#[test]
fn where_there_is_no_store_there_is_nothing_to_prune() {
    let case = Case::new();
    verb(&case, &["prune"]).finish().ok();
    assert!(!case.path("home/.local").exists(), "and none is made");
}
