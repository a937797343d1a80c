//! Pulls that are cut, and go on where they were; and large layers that come in several pieces at once.

use std::path::PathBuf;
use std::sync::Arc;

use gpurun::host::Host;
use gpurun::image::Digest;
use gpurun::reference::ImageRef;
use gpurun::source;
use gpurun::store::Store;

use crate::support::image::{Image, Packing, file, oci, pull, rootfs, unpacked, verb};
use crate::support::listing::list;
use crate::support::process::eventually;
use crate::support::server::Server;
use crate::support::{Case, Finish, program, text};

/// Bytes that nothing makes smaller.
fn noise(bytes: u32) -> Vec<u8> {
    (0..bytes / 4).flat_map(|n| (n.wrapping_mul(2_654_435_761) ^ n.rotate_left(11)).to_le_bytes()).collect()
}

/// An image of one layer, and what its blob is called.
fn image(bytes: u32, packing: Packing) -> (Image, String) {
    let image = Image::empty().packed(packing, [file("noise", noise(bytes)), file("last", "x")]);
    let blob = Digest::of(&image.layers[0].blob).hex();
    (image, blob)
}

/// What the store has kept of blobs.
fn kept(case: &Case) -> Vec<(PathBuf, usize)> {
    let all = std::fs::read_dir(case.path("home/.local/share/gpurun/kept")).into_iter().flatten();
    let size = |path: PathBuf| std::fs::metadata(&path).map(|meta| (path, usize::try_from(meta.len()).unwrap()));
    all.filter_map(|entry| size(entry.unwrap().path()).ok()).collect()
}

/// Kills a pull when so much has come; gives what is kept.
fn cut(case: &Case, server: &Server, bytes: usize) -> usize {
    server.slow(20);
    let mut running = verb(case, &["pull", "-q", &server.name("r")]).start();
    eventually("enough has come", || kept(case).iter().any(|(_, size)| *size >= bytes));
    running.child.kill().unwrap();
    running.wait();
    server.slow(0);
    kept(case)[0].1
}

#[test]
fn a_pull_goes_on_at_the_byte_where_it_was_killed() {
    for packing in [Packing::Gzip, Packing::Zstd, Packing::Plain] {
        let (image, blob) = image(3_000_000, packing);
        let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
        let first = cut(&case, &server, 300_000);
        let second = cut(&case, &server, 1_000_000);
        pull(&case, &server.name("r"));
        assert_eq!(server.asked_from(&blob), [0, first, second], "{packing:?}");
        assert!(list(&rootfs(&case, &server.name("r"))) == unpacked(&Case::new(), &image));
        assert_eq!(kept(&case), []);
    }
}

/// However often it is killed, and whenever: nothing that was kept is asked for again.
#[test]
fn a_pull_that_is_killed_again_and_again_comes_to_its_end() {
    let (image, blob) = image(4_000_000, Packing::Gzip);
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
    server.slow(4);
    let mut from = vec![0];
    for round in 1..=12 {
        let mut running = verb(&case, &["pull", "-q", &server.name("r")]).start();
        let before = from.last().copied().unwrap_or_default();
        eventually("something more has come", || kept(&case).iter().any(|(_, size)| *size > before + 10_000 * round));
        running.child.kill().unwrap();
        running.wait();
        from.push(kept(&case)[0].1);
    }
    server.slow(0);
    pull(&case, &server.name("r"));
    assert_eq!(server.asked_from(&blob), from);
    assert!(list(&rootfs(&case, &server.name("r"))) == unpacked(&Case::new(), &image));
}

#[test]
fn another_boot_and_another_registry_go_on_as_well() {
    let (image, blob) = image(2_000_000, Packing::Gzip);
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
    let first = cut(&case, &server, 300_000);
    let making = case.path("home/.local/share/gpurun/making");
    let boot = std::fs::read_dir(&making).unwrap().next().unwrap().unwrap().path();
    std::fs::rename(&boot, making.join("another-boot")).unwrap();
    server.stop();
    let mirror = Server::start(&[("elsewhere", &[&image])]);
    pull(&case, &mirror.name("elsewhere"));
    assert_eq!(mirror.asked_from(&blob), [first]);
}

/// In this process, since the program waits half a minute: a pull that finds its last layer to be no good, and another boot.
#[test]
fn a_layer_that_was_made_safe_in_time_is_not_fetched_again_after_a_reboot() {
    let image = Image::empty().layer([file("small", "s")]).packed(Packing::Plain, [file("noise", noise(1_000_000))]);
    let lie = Digest::of(b"something else").to_string();
    let bad = image.clone().edit_config(move |config| config["rootfs"]["diff_ids"][1] = lie.clone().into());
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image]), ("bad", &[&bad])]));
    server.slow(20);
    let path = case.path("home/.local/share/gpurun");
    let options = gpurun::pull::Options {
        when: gpurun::cli::Pull::Always,
        platform: gpurun::image::Platform::host(),
        max_unpacked: 1 << 30,
        sync_every: std::time::Duration::from_millis(1),
        progress: Arc::new(gpurun::progress::Progress::new(true)),
        timings: Arc::new(gpurun::timings::Timings::new(false)),
    };
    let store = Store::locate(Some(&path), &Host::probe()).unwrap();
    let reference = ImageRef::parse(&server.name("bad")).unwrap();
    let open = || source::open(&reference, &gpurun::registry::Options::default());
    let error = gpurun::pull::obtain(&reference, &store, &options, open).err().expect("its last layer is no good");
    assert!(format!("{error:#}").contains("does not unpack to"), "{error:#}");

    let boot = std::fs::read_dir(path.join("making")).unwrap().next().unwrap().unwrap().path();
    std::fs::rename(&boot, path.join("making/another-boot")).unwrap();
    server.slow(0);
    pull(&case, &server.name("r"));
    let [small, large] = [0, 1].map(|n| server.asked(&Digest::of(&image.layers[n].blob).hex()));
    assert_eq!((small, large), (1, 2));
    assert!(list(&rootfs(&case, &server.name("r"))) == unpacked(&Case::new(), &image));
}

#[test]
fn a_registry_without_ranges_is_read_again_from_the_start() {
    let (image, _) = image(2_000_000, Packing::Gzip);
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
    cut(&case, &server, 300_000);
    server.without_ranges();
    pull(&case, &server.name("r"));
    assert!(list(&rootfs(&case, &server.name("r"))) == unpacked(&Case::new(), &image));
}

/// As a power cut leaves it.
#[test]
fn what_was_kept_and_is_damaged_is_fetched_again() {
    for damage in [0..100, 200_000..200_100] {
        let (image, blob) = image(2_000_000, Packing::Gzip);
        let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
        let first = cut(&case, &server, 300_000);
        let (path, _) = kept(&case).remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[damage].fill(0);
        std::fs::write(&path, bytes).unwrap();
        let finished = verb(&case, &["pull", &server.name("r")]).finish();
        assert!(finished.status == 0 && finished.stderr.contains("damaged"), "{finished:?}");
        assert_eq!(server.asked_from(&blob), [0, first, 0]);
        assert!(list(&rootfs(&case, &server.name("r"))) == unpacked(&Case::new(), &image));
        assert_eq!(kept(&case), []);
    }
}

#[test]
fn more_than_the_blob_is_nothing_of_it_and_all_of_it_is_enough() {
    let (image, blob) = image(1_000_000, Packing::Gzip);
    for (kept, asked) in [(image.layers[0].blob.clone(), vec![]), (vec![1; 2_000_000], vec![0])] {
        let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
        case.file(&format!("home/.local/share/gpurun/kept/{blob}"), "");
        std::fs::write(case.path(&format!("home/.local/share/gpurun/kept/{blob}")), kept).unwrap();
        pull(&case, &server.name("r"));
        assert_eq!(server.asked_from(&blob), asked);
    }
}

#[test]
fn nothing_is_kept_of_a_layer_that_is_no_good() {
    let lie = Digest::of(b"something else").to_string();
    let image = Image::empty()
        .layer([file("noise", noise(1_000_000))])
        .edit_config(move |config| config["rootfs"]["diff_ids"][0] = lie.clone().into());
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
    verb(&case, &["pull", "-q", &server.name("r")]).finish().refused(&["does not unpack to"]);
    assert_eq!(kept(&case), []);
    let (bomb, _) = self::image(1_000_000, Packing::Gzip);
    server.add("bomb", &[&bomb]);
    verb(&case, &["pull", "-q", "--max-unpacked", "500k", &server.name("bomb")]).finish().refused(&["unpacks to more"]);
    assert_eq!(kept(&case), []);
}

#[test]
fn what_nobody_goes_on_with_goes() {
    let (image, _) = image(2_000_000, Packing::Gzip);
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
    cut(&case, &server, 300_000);
    verb(&case, &["prune"]).finish().ok();
    assert_eq!(kept(&case), []);

    cut(&case, &server, 300_000);
    let small = oci(&Image::empty().layer([file("x", "")]).layout(&case, "layout"));
    pull(&case, &small);
    let (path, _) = kept(&case).remove(0);
    let old = std::time::SystemTime::now() - std::time::Duration::from_hours(8 * 24);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    pull(&case, &small);
    assert_eq!(kept(&case).len(), 1, "a pull that finds all there looks at nothing");
    pull(&case, &oci(&Image::empty().layer([file("y", "")]).layout(&case, "other")));
    assert_eq!(kept(&case), []);
}

/// In namespaces of its own a test mounts a small file system where the store is.
#[test]
fn a_disk_with_no_room_for_the_blob_as_well_gets_the_files() {
    let case = Case::new();
    let script =
        "set -e; mount -t tmpfs -o size=4m x $1; \"$2\" pull -q --store $1 $3; ls $1/kept; cat $1/rootfs/*/root/last";
    let Some(mut command) = case.mounter(script) else { return };
    let (image, _) = image(3_000_000, Packing::Gzip);
    let server = Server::start(&[("r", &[&image])]);
    let store = case.path("store");
    std::fs::create_dir(&store).unwrap();
    let finished = command.args([text(&store), text(&program()), &server.name("r")]).finish();
    assert_eq!(finished.ok(), "x");
}

/// The registry sends none of them before four are asked for.
#[test]
fn several_layers_come_at_once() {
    let image = (0..6_u32).fold(Image::empty(), |image, n| {
        image.packed(Packing::Plain, [file(format!("noise{n}"), noise(100_000 + 4 * n))])
    });
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
    server.gather(4);
    pull(&case, &server.name("r"));
    assert!(server.most_at_once() >= 4);
    assert!(list(&rootfs(&case, &server.name("r"))) == unpacked(&Case::new(), &image));
}

#[test]
fn a_large_layer_comes_over_several_connections() {
    let (image, blob) = image(40 << 20, Packing::Plain);
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
    server.slow(5);
    pull(&case, &server.name("r"));
    let (mut asked, most) = (server.asked_from(&blob), server.most_at_once());
    assert!((3..=6).contains(&most), "{most} at once");
    asked.sort_unstable();
    assert_eq!(asked, (0..asked.len()).map(|n| n * (4 << 20)).collect::<Vec<_>>(), "each piece once");
    let tree = rootfs(&case, &server.name("r"));
    assert!(std::fs::read(tree.join("noise")).unwrap() == noise(40 << 20));
}

#[test]
fn a_large_layer_comes_in_one_piece_where_there_are_no_others() {
    let (image, blob) = image(40 << 20, Packing::Plain);
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
    server.without_ranges();
    pull(&case, &server.name("r"));
    assert_eq!((server.asked(&blob), server.most_at_once()), (1, 1));
    assert!(std::fs::read(rootfs(&case, &server.name("r")).join("noise")).unwrap() == noise(40 << 20));
}

#[test]
fn a_large_layer_that_is_cut_goes_on_in_pieces() {
    let (image, blob) = image(60 << 20, Packing::Plain);
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
    let first = cut(&case, &server, 9 << 20);
    let before = server.asked(&blob);
    pull(&case, &server.name("r"));
    let after = server.asked_from(&blob).split_off(before);
    assert_eq!(after.iter().min(), Some(&first), "{after:?}");
    assert!(std::fs::read(rootfs(&case, &server.name("r")).join("noise")).unwrap() == noise(60 << 20));
}

#[test]
fn where_the_time_went_is_told_to_who_asks() {
    let (image, _) = image(1_000_000, Packing::Gzip);
    let (case, server) = (Case::new(), Server::start(&[("r", &[&image])]));
    let finished = verb(&case, &["pull", "-q", "--timings", &server.name("r")]).finish();
    let phases: Vec<_> = finished.stderr.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut sorted = phases.clone();
    sorted.sort_unstable();
    let mut all = ["phase", "resolve", "fetch", "hash", "inflate", "write", "merge", "sync", "publish"];
    all.sort_unstable();
    assert_eq!(sorted, all, "{finished:?}");
    assert_eq!((phases[0], phases[1], finished.stdout.as_str()), ("phase", "resolve", ""));
}
