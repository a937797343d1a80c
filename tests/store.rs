//! The store while things go wrong: kills, many pulls at once, removal beside runs, damage. The next command works, and
//! what it shows is the image.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpurun::image::Digest;

use crate::support::image::{
    Entry, Image, Layer, Packing, dir, file, hardlink, oci, pull, rootfs, sh, symlink, verb, whiteout,
};
use crate::support::listing::{Listing, list};
use crate::support::process::{Running, eventually};
use crate::support::server::Server;
use crate::support::{Case, Finish, can, program, text};

fn store(case: &Case) -> PathBuf {
    case.path("home/.local/share/gpurun")
}

/// Everything of one kind in the store.
fn kept(case: &Case, kind: &str) -> Vec<PathBuf> {
    std::fs::read_dir(store(case).join(kind)).into_iter().flatten().map(|e| e.unwrap().path()).collect()
}

/// What is in the making, in any boot.
fn making(case: &Case) -> Vec<PathBuf> {
    kept(case, "making").iter().flat_map(|boot| std::fs::read_dir(boot).unwrap().map(|e| e.unwrap().path())).collect()
}

/// The tree as another store has it, where nothing went wrong.
fn expected(image: &Image) -> Listing {
    crate::support::image::unpacked(&Case::new(), image)
}

/// A layer of `count` files below `name`, with links and a closed directory.
fn files(name: &str, count: usize) -> Vec<Entry> {
    let mut entries = vec![dir(format!("{name}/")).mode(0o555), symlink(format!("{name}/link"), "0")];
    entries.extend((0..count).map(|n| file(format!("{name}/{n}"), format!("{name} {n}"))));
    entries.push(hardlink(format!("{name}/hard"), format!("{name}/0")));
    entries.push(dir(format!("{name}/closed/")).mode(0));
    entries.push(file(format!("{name}/closed/x"), "x"));
    entries
}

/// Moments that differ from run to run.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        use std::hash::{BuildHasher, Hasher};
        Self(std::hash::RandomState::new().build_hasher().finish() | 1)
    }

    fn below(&mut self, most: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_nanos(self.0 % u64::try_from(most.as_nanos()).expect("it is short").max(1))
    }
}

/// Starts it, and kills it after a while: whether it was still at work.
fn killed(case: &Case, arguments: &[&str], after: Duration) -> bool {
    use std::os::unix::process::ExitStatusExt;
    let mut running = verb(case, arguments).start();
    std::thread::sleep(after);
    running.child.kill().unwrap();
    running.child.wait().unwrap().signal().is_some()
}

/// Two at a time, each with a store of its own.
#[test]
fn a_pull_or_a_removal_that_is_killed_at_any_moment_is_made_good_by_the_next() {
    let shared = files("shared", 60);
    let image =
        Image::empty().layer(&shared).layer(files("own", 60)).layer([whiteout("own/7"), file("shared/new", "")]);
    let other = Image::empty().layer(&shared).layer(files("other", 20));
    let server = Server::start(&[("one", &[&image]), ("two", &[&other])]);
    let cases = [Case::new(), Case::new()];
    let near = [oci(&image.layout(&cases[0], "one")), oci(&other.layout(&cases[0], "two"))];
    let (far, trees) = (["one", "two"].map(|name| server.name(name)), [expected(&image), expected(&other)]);
    let hits: usize = std::thread::scope(|scope| {
        let both =
            cases.iter().zip([&near, &far]).map(|(case, names)| scope.spawn(|| killed_and_mended(case, names, &trees)));
        both.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(hits >= 100, "{hits} of 300 kills found somebody at work");
}

/// Removes and pulls each in turn, kills the pull and every other removal, and sees that the next pull makes it good and
/// that the other image was never harmed. Gives how many kills found somebody at work.
fn killed_and_mended(case: &Case, names: &[String; 2], trees: &[Listing; 2]) -> usize {
    let [first, second] = names;
    let timed = |arguments: &[&str]| {
        let start = Instant::now();
        verb(case, arguments).finish().ok();
        start.elapsed()
    };
    pull(case, first);
    let [pulling, removing] = [timed(&["pull", "-q", second]), timed(&["rm", "-q", second])];
    pull(case, second);
    let (mut moments, mut hits) = (Moments::new(), 0);
    for round in 0..100 {
        let (name, after) = (&names[round % 2], [moments.below(removing), moments.below(pulling)]);
        match round % 4 {
            0 | 1 => hits += usize::from(killed(case, &["rm", "-q", name], after[0])),
            _ => drop(timed(&["rm", "-q", name])),
        }
        hits += usize::from(killed(case, &["pull", "-q", name], after[1]));
        pull(case, name);
        for (name, tree) in names.iter().zip(trees) {
            assert!(list(&rootfs(case, name)) == *tree, "round {round}: {name} after {after:?}");
        }
    }
    verb(case, &["rm", "-q", first, second]).finish().ok();
    for kind in ["names", "images", "rootfs", "layers", "kept"] {
        assert_eq!(kept(case, kind), [] as [PathBuf; 0], "{kind}");
    }
    pull(case, first);
    let left: Vec<_> = making(case).into_iter().filter(|path| !path.ends_with("guard")).collect();
    assert_eq!(left, [] as [PathBuf; 0]);
    hits
}

#[test]
fn a_record_that_a_killed_process_half_wrote_goes_with_the_next_removal() {
    let case = Case::new();
    let reference = oci(&Image::empty().layer([file("a", "")]).layout(&case, "one"));
    pull(&case, &reference);
    for kind in ["names", "images"] {
        std::fs::write(store(&case).join(kind).join("0123.4567.tmp"), "{").unwrap();
    }
    verb(&case, &["rm", "-q", &reference]).finish().ok();
    assert_eq!((kept(&case, "names"), kept(&case, "images")), (Vec::new(), Vec::new()));
}

/// All processes end well.
#[track_caller]
fn all_end_well(running: Vec<Running>) {
    for running in running {
        let finished = running.finish();
        assert_eq!((finished.status, finished.stderr.as_str()), (0, ""), "{finished:?}");
    }
}

#[test]
fn many_pulls_and_runs_at_once_make_everything_once() {
    let (case, base) = (Case::new(), Image::busybox());
    let one = base.clone().layer(files("a", 100)).layer(files("b", 50));
    let two = base.clone().layer(files("b", 50)).layer(files("c", 80)).layer(files("a", 100));
    let images = [("one", &one), ("two", &two), ("base", &base)];
    let server = Server::start(&[("one", &[&one]), ("two", &[&two]), ("base", &[&base])]);
    server.slow(2);
    let started = |n: usize| {
        let name = server.name(images[n % 3].0);
        match n % 4 {
            0 => verb(&case, &["-q", &name, "true"]).start(),
            _ => verb(&case, &["pull", "-q", &name]).start(),
        }
    };
    all_end_well((0..2).map(|n| started(n * 4)).collect());
    all_end_well((0..200).map(started).collect());
    for (name, image) in images {
        assert!(list(&rootfs(&case, &server.name(name))) == expected(image), "{name}");
        for layer in &image.layers {
            assert_eq!(server.asked(&Digest::of(&layer.blob).hex()), 1, "a layer of {name}");
        }
    }
    assert_eq!((kept(&case, "layers").len(), kept(&case, "rootfs").len()), (4, 3));
}

/// Both have eight layers, of which four are taken at a time, and one starts with those that the other ends with.
#[test]
fn two_pulls_never_wait_for_each_other() {
    let case = Case::new();
    let tars: Vec<_> =
        (0..8_u8).map(|n| crate::support::image::tar(&[file(format!("f{n}"), vec![n; 300_000])])).collect();
    let image = |plain: std::ops::Range<usize>| {
        let pack = |n| if plain.contains(&n) { Packing::Plain } else { Packing::Gzip };
        tars.iter().enumerate().fold(Image::empty(), |image, (n, tar)| image.raw(pack(n), tar.clone()))
    };
    let (low, high) = (image(0..4), image(4..8));
    let server = Server::start(&[("low", &[&low]), ("high", &[&high])]);
    server.slow(30);
    let pulls = ["low", "high", "low", "high"];
    all_end_well(pulls.map(|name| verb(&case, &["pull", "-q", &server.name(name)]).start()).into());
    assert_eq!(rootfs(&case, &server.name("low")), rootfs(&case, &server.name("high")));
    assert_eq!(list(&rootfs(&case, &server.name("low"))).len(), 9);
}

#[test]
fn what_runs_is_not_removed_and_what_is_shared_stays() {
    let case = Case::new();
    let below = Image::busybox().layer([file("data/x", "x"), hardlink("data/y", "data/x")]);
    let one = below.clone().layer([file("one", "1")]);
    let two = below.layer([file("two", "2"), whiteout("data/y")]);
    let (first, second) = (oci(&one.layout(&case, "one")), oci(&two.layout(&case, "two")));
    pull(&case, &first);
    let links = |reference: &str, path: &str| std::fs::metadata(rootfs(&case, reference).join(path)).unwrap().nlink();
    assert_eq!((links(&first, "data/x"), links(&first, "one"), links(&first, "bin/busybox")), (2, 1, 1));
    pull(&case, &second);
    let inode = |reference: &str| std::fs::metadata(rootfs(&case, reference).join("bin/busybox")).unwrap().ino();
    assert_eq!(inode(&first), inode(&second), "layers share their files");
    assert_eq!((links(&second, "two"), links(&second, "bin/busybox")), (1, 2));

    let script = "echo up; while [ ! -e /work/end ]; do sleep 0.05; done; cat /data/y /one";
    let work = format!("{}:/work", text(&case.path("work")));
    let mut running = verb(&case, &["-v", &work, "-q", &first, "sh", "-c", script]).start();
    running.until("up");
    verb(&case, &["rm", &first]).finish().refused(&["is in use", "hint: "]);
    verb(&case, &["rm", "-q", &second]).finish().ok();
    assert_eq!((links(&first, "data/x"), links(&first, "bin/busybox")), (2, 1), "as the image has it again");
    pull(&case, &second);
    std::fs::write(case.path("work/end"), "").unwrap();
    assert_eq!(running.finish().ok(), "x1");
    let tree = list(&rootfs(&case, &second));
    verb(&case, &["rm", "-q", &first]).finish().ok();
    assert!(list(&rootfs(&case, &second)) == tree);
    assert_eq!((links(&second, "data/x"), links(&second, "bin/busybox")), (1, 1));
    assert_eq!(sh(&case, &[], &second, "cat /data/x /two").ok(), "x2");
    pull(&case, &first);
    assert!(list(&rootfs(&case, &first)) == expected(&one), "and it is made anew out of what the other shows");
}

#[test]
fn images_are_removed_and_pulled_while_others_run() {
    let case = Case::new();
    let image = |n: usize| Image::busybox().layer(files("shared", 30)).layer([file("n", n.to_string())]);
    let images = [image(0), image(1), image(2)];
    let references: Vec<_> = (0..3).map(|n| oci(&images[n].layout(&case, &format!("layout{n}")))).collect();
    let start = |n: usize| match n % 6 {
        3 => verb(&case, &["rm", "-q", &references[n / 6 % 3]]).start(),
        4 => verb(&case, &["prune", "-q", "--max-size", "1"]).start(),
        5 => verb(&case, &["pull", "-q", &references[n / 6 % 3]]).start(),
        run => verb(&case, &["-q", &references[run], "sh", "-c", "cat /n /shared/29; ls /shared | wc -l"]).start(),
    };
    let all: Vec<_> = (0..60).map(|n| (n % 6, start(n))).collect();
    for (n, running) in all {
        let finished = running.finish();
        let removal = ["is in use", "is not in the store", "was removed just now", "was removed"];
        let refused = finished.status == 125 && removal.iter().any(|words| finished.stderr.contains(words));
        assert!(refused || finished.status == 0, "{finished:?}");
        assert!(n > 2 || refused || finished.stdout == format!("{n}shared 2933\n"), "{finished:?}");
        assert!(n < 4 || !refused, "who prunes or pulls is in nobody's way: {finished:?}");
    }
    for (n, reference) in references.iter().enumerate() {
        assert_eq!(sh(&case, &[], reference, "cat /n").ok(), n.to_string());
        assert!(list(&rootfs(&case, reference)) == expected(&images[n]));
    }
}

/// An image of which the first layer comes at once, and the second slowly, killed when it has come that far.
fn half_pulled(case: &Case) -> (Server, Image) {
    let noise: Vec<u8> = (0..500_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let image = Image::empty().layer(files("first", 20)).packed(Packing::Plain, [file("noise", noise)]);
    let server = Server::start(&[("r", &[&image])]);
    server.slow(50);
    let mut running = verb(case, &["pull", "-q", &server.name("r")]).start();
    eventually("the first layer is whole", || making(case).iter().any(|path| path.join("index").exists()));
    running.child.kill().unwrap();
    running.wait();
    server.slow(0);
    (server, image)
}

#[test]
fn a_store_that_vanishes_during_a_pull_is_told_and_made_anew() {
    let case = Case::new();
    let noise: Vec<u8> = (0..500_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let image = Image::empty().layer(files("first", 20)).packed(Packing::Plain, [file("noise", noise)]);
    let server = Server::start(&[("r", &[&image])]);
    server.slow(20);
    let running = verb(&case, &["pull", "-q", &server.name("r")]).start();
    eventually("the first layer is whole", || making(&case).iter().any(|path| path.join("index").exists()));
    std::fs::rename(store(&case), case.path("gone")).unwrap();
    running.finish().refused(&["No such file or directory"]);
    server.slow(0);
    pull(&case, &server.name("r"));
    assert!(list(&rootfs(&case, &server.name("r"))) == expected(&image));
}

/// In namespaces of its own a test makes the store's mount read-only.
#[test]
fn a_read_only_store_runs_what_it_has_and_refuses_the_rest() {
    let case = Case::new();
    let unshare = ["unshare", "--map-root-user", "--user", "--mount"];
    let works = std::process::Command::new(unshare[0]).args(&unshare[1..]).arg("true").status();
    if !can(works.is_ok_and(|status| status.success()), "unshare with user namespaces") {
        return;
    }
    let image = |n: usize| Image::busybox().layer([file("n", n.to_string())]);
    let references: Vec<_> = (0..2).map(|n| oci(&image(n).layout(&case, &format!("layout{n}")))).collect();
    pull(&case, &references[0]);
    let script = "mount --bind $1 $1 && mount -o remount,bind,ro $1 || exit 99
        \"$2\" -q $3 cat /n && \"$2\" images -q >/dev/null || exit 98
        \"$2\" pull -q $4; echo $? >&2; \"$2\" rm $3; echo $? >&2; \"$2\" prune; echo $? >&2";
    let mut command = std::process::Command::new(unshare[0]);
    case.surround(&mut command);
    let (store, program) = (store(&case), crate::support::program());
    let arguments = [text(&store), text(&program), &references[0], &references[1]];
    let finished = command.args(&unshare[1..]).args(["sh", "-c", script, "sh"]).args(arguments).finish();
    assert_eq!((finished.status, finished.stdout.as_str()), (0, "0"), "{finished:?}");
    let refusals = finished.stderr.lines().filter(|line| line.contains("Read-only file system")).count();
    let statuses: Vec<_> = finished.stderr.lines().filter(|line| line.parse::<u8>().is_ok()).collect();
    assert_eq!((refusals, &statuses[..]), (3, &["125"; 3][..]), "{finished:?}");
}

fn asked(server: &Server, layer: &Layer) -> usize {
    server.asked(&Digest::of(&layer.blob).hex())
}

#[test]
fn a_layer_that_is_whole_is_not_fetched_again() {
    let case = Case::new();
    let (server, image) = half_pulled(&case);
    pull(&case, &server.name("r"));
    assert_eq!((asked(&server, &image.layers[0]), asked(&server, &image.layers[1])), (1, 2));
    assert!(list(&rootfs(&case, &server.name("r"))) == expected(&image));
}

#[test]
fn layers_of_another_boot_are_not_trusted() {
    let case = Case::new();
    let (server, image) = half_pulled(&case);
    let boot = kept(&case, "making").remove(0);
    let other = boot.with_file_name("another-boot");
    std::fs::rename(&boot, &other).unwrap();
    pull(&case, &server.name("r"));
    assert_eq!((asked(&server, &image.layers[0]), other.exists()), (2, false));
    assert!(list(&rootfs(&case, &server.name("r"))) == expected(&image));
}

/// On a file system that several machines share.
#[test]
fn what_another_machine_is_making_is_let_be() {
    let case = Case::new();
    let (server, _) = half_pulled(&case);
    let boot = kept(&case, "making").remove(0);
    let other = boot.with_file_name("another-machine");
    std::fs::rename(&boot, &other).unwrap();
    let count = || std::fs::read_dir(&other).map_or(0, Iterator::count);
    let (before, lock) = (count(), std::fs::File::open(other.join("guard")).unwrap());
    lock.lock_shared().unwrap();
    pull(&case, &server.name("r"));
    assert_eq!((count(), before > 2), (before, true));
    drop(lock);
    pull(&case, &oci(&Image::empty().layer([file("x", "")]).layout(&case, "layout")));
    assert_eq!(count(), 0);
}

#[test]
fn damaged_records_say_what_to_do_and_doing_it_helps() {
    let case = Case::new();
    let reference = oci(&Image::busybox().layer([file("x", "x")]).layout(&case, "layout"));
    for kind in ["names", "images"] {
        for damage in ["", "{", "{}", "[1]"] {
            pull(&case, &reference);
            let record = kept(&case, kind).remove(0);
            std::fs::write(&record, damage).unwrap();
            for command in [&["-q", &reference, "true"][..], &["pull", "-q", &reference]] {
                let finished = verb(&case, command).finish();
                finished.refused(&[text(&record), "hint: the store is damaged: `gpurun prune` takes the record away"]);
            }
            let pruned = verb(&case, &["prune"]).finish();
            assert!(pruned.status == 0 && pruned.stderr.contains(text(&record)), "{pruned:?}");
            assert_eq!(sh(&case, &[], &reference, "cat /x").ok(), "x", "{kind} {damage}");
        }
    }
}

/// As a store of before names were files called as their image is has them.
#[test]
fn a_name_under_another_file_is_told_and_taken_away() {
    let case = Case::new();
    let reference = oci(&Image::busybox().layer([file("x", "x")]).layout(&case, "layout"));
    pull(&case, &reference);
    let record = kept(&case, "names").remove(0);
    let elsewhere = record.with_file_name("elsewhere.json");
    std::fs::rename(&record, &elsewhere).unwrap();
    let listed = verb(&case, &["images"]).finish();
    assert!(listed.stdout.lines().count() == 1 && listed.stderr.contains(text(&elsewhere)), "{listed:?}");
    verb(&case, &["rm", "-q", &reference]).finish().refused(&["is not in the store"]);
    pull(&case, &reference);
    verb(&case, &["prune"]).finish().ends(0);
    assert_eq!((elsewhere.exists(), record.exists()), (false, true));
    assert_eq!(sh(&case, &[], &reference, "cat /x").ok(), "x");
}

#[test]
fn damage_of_one_image_stops_no_other() {
    let below = Image::busybox().layer([file("x", "x")]);
    let image = |n: usize| below.clone().layer([file("n", n.to_string())]);
    for kind in ["names", "images"] {
        let case = Case::new();
        let references: Vec<_> = (0..4).map(|n| oci(&image(n).layout(&case, &format!("layout{n}")))).collect();
        pull(&case, &references[0]);
        let record = kept(&case, kind).remove(0);
        pull(&case, &references[1]);
        std::fs::write(&record, "{").unwrap();
        let pulled = verb(&case, &["pull", &references[2]]).finish();
        let told: Vec<_> = pulled.stderr.lines().filter(|line| line.contains(text(&record))).collect();
        assert!(pulled.status == 0 && told.len() == 1 && told[0].contains("`gpurun prune`"), "{pulled:?}");
        assert_eq!(sh(&case, &[], &references[1], "cat /x /n").ok(), "x1");
        let listed = verb(&case, &["images"]).finish();
        assert_eq!((listed.status, listed.stdout.lines().count()), (0, 3), "{listed:?}");
        assert!(listed.stderr.contains(text(&record)), "{listed:?}");
        verb(&case, &["rm", &references[1]]).finish().ends(0);
        assert!(!record.exists());
        assert_eq!(sh(&case, &[], &references[2], "cat /x /n").ok(), "x2");
        for n in [0, 3] {
            assert_eq!(sh(&case, &[], &references[n], "cat /x /n").ok(), format!("x{n}"));
        }
    }
}

/// Two images share a layer of which nothing is known any more.
#[test]
fn images_with_a_damaged_layer_can_be_removed() {
    let case = Case::new();
    let below = Image::busybox();
    let image = |n: usize| oci(&below.clone().layer([file("n", n.to_string())]).layout(&case, &format!("layout{n}")));
    let references = [image(0), image(1)];
    pull(&case, &references[0]);
    pull(&case, &references[1]);
    for layer in kept(&case, "layers") {
        std::fs::write(layer.join("index"), "nonsense").unwrap();
    }
    assert_eq!(sh(&case, &[], &references[0], "cat /n").ok(), "0");
    verb(&case, &["rm", "-q", &references[0], &references[1]]).finish().ok();
    assert_eq!(kept(&case, "layers"), [] as [PathBuf; 0]);
}

/// Somebody removed a part of the store by hand.
#[test]
fn what_is_lost_is_told_and_made_good() {
    let case = Case::new();
    let below = Image::busybox().layer([file("x", "x")]);
    let (one, two) = (below.clone().layer([file("y", "1")]), below.layer([file("y", "2")]));
    let (first, second) = (oci(&one.layout(&case, "one")), oci(&two.layout(&case, "two")));
    let remove = |path: &Path| {
        drop(list(path));
        std::fs::remove_dir_all(path).unwrap();
    };
    pull(&case, &first);
    remove(rootfs(&case, &first).parent().unwrap());
    let finished = verb(&case, &["-q", &first, "true"]).finish();
    assert!(finished.status == 125 && finished.stderr.contains("hint: "), "{finished:?}");
    verb(&case, &["rm", "-q", &first]).finish().ok();
    assert_eq!(sh(&case, &[], &first, "cat /x /y").ok(), "x1");

    for path in kept(&case, "rootfs") {
        remove(&path);
    }
    let finished = verb(&case, &["pull", "-q", &second]).finish();
    finished.refused(&["the store has lost it", "hint: `gpurun rm`"]);
    verb(&case, &["rm", "-q", &first]).finish().ok();
    assert_eq!(sh(&case, &[], &second, "cat /x /y").ok(), "x2");

    for path in kept(&case, "layers") {
        std::fs::write(path.join("index"), "nonsense").unwrap();
    }
    verb(&case, &["pull", "-q", &first]).finish().refused(&["read the index of the layer", "hint: `gpurun rm`"]);
    assert_eq!(sh(&case, &[], &second, "cat /x /y").ok(), "x2", "it needs none");
    verb(&case, &["rm", "-q", &second]).finish().ok();
    assert_eq!(sh(&case, &[], &first, "cat /x /y").ok(), "x1");
}

/// 1.5 MB of link targets, 200 times.
#[test]
fn a_layer_that_comes_hundreds_of_times_is_in_memory_once() {
    let case = Case::new();
    let target = format!("{}/", "d".repeat(250)).repeat(15);
    let links = (0..400).map(|n| symlink(n.to_string(), &target));
    let mut image = Image::empty().layer(links.collect::<Vec<_>>());
    image.layers = vec![image.layers[0].clone(); 200];
    let reference = oci(&image.layout(&case, "layout"));
    let within_200_mb = |arguments: &[&str]| {
        let mut command = std::process::Command::new("sh");
        case.surround(&mut command);
        command.env("RUST_MIN_STACK", "524288"); // stacks count as well, and there may be hundreds of cores
        command.args(["-c", "ulimit -d 200000; exec \"$@\"", "sh"]).arg(program()).args(arguments).finish().ok();
    };
    within_200_mb(&["pull", "-q", &reference]);
    let layer = kept(&case, "layers").remove(0);
    assert_eq!(std::fs::read_dir(layer.join("files")).unwrap().count(), 0, "the rootfs shows them all");
    let other = image.layer([file("other", "")]);
    let other = oci(&other.layout(&case, "other"));
    within_200_mb(&["pull", "-q", &other]);
    within_200_mb(&["rm", "-q", &reference]);
    within_200_mb(&["rm", "-q", &other]);
}

/// The path of a file in the image is as long as any may be, and in the store it is longer.
#[test]
fn files_that_no_path_leads_to_stay_with_their_layer() {
    let case = Case::new();
    let image = Image::empty().layer([file(format!("{}x", format!("{}/", "d".repeat(250)).repeat(16)), "deep")]);
    let other = oci(&image.clone().layer([file("other", "")]).layout(&case, "other"));
    let first = oci(&image.layout(&case, "first"));
    pull(&case, &first);
    pull(&case, &other);
    verb(&case, &["rm", "-q", &first]).finish().ok();
    verb(&case, &["rm", "-q", &other]).finish().ok();
    pull(&case, &first);
}
