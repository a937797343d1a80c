//! Stores on file systems that can do less. Made real by a filter of system calls that answers as those file systems do.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::support::image::{
    Image, dir, fifo, file, hardlink, oci, pull, rootfs, sh, symlink, unpacked, verb, whiteout,
};
use crate::support::listing::list;
use crate::support::process::Finished;
use crate::support::{Case, Finish};

/// Does it in a thread of its own, where these system calls, and those of all programs that it starts, fail like this.
fn refusing(calls: &[i64], errno: i32, work: impl FnOnce() + Send) {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with filters");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("compile a filter");
    let filtered = move || {
        apply_filter(&program).expect("apply a filter");
        work();
    };
    std::thread::scope(|scope| scope.spawn(filtered).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
}

/// It succeeded, and said one thing about the store.
#[track_caller]
fn told(finished: &Finished, notice: &str) {
    let about_store: Vec<_> = finished.stderr.lines().filter(|line| line.contains("the store")).collect();
    assert!(finished.status == 0 && about_store.len() == 1 && about_store[0].contains(notice), "{finished:?}");
}

#[test]
fn without_flock_the_locks_are_this_machines() {
    let base = Image::busybox().layer([file("base", "b")]);
    let images: Vec<_> = (0..3).map(|n| base.clone().layer([file("n", n.to_string())])).collect();
    for errno in [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS] {
        let case = Case::new();
        let layouts = images.iter().enumerate().map(|(n, image)| oci(&image.layout(&case, &format!("layout{n}"))));
        let references: Vec<_> = layouts.collect();
        refusing(&[libc::SYS_flock], errno, || {
            let all: Vec<_> = (0..12).map(|n| verb(&case, &["pull", &references[n % 3]]).start()).collect();
            let all: Vec<_> = all.into_iter().map(|running| running.finish()).collect();
            assert!(all.iter().all(|finished| finished.status == 0), "{all:?}");
            assert!(all.iter().any(|finished| finished.stderr.contains("no locks")), "{all:?}");
            let mut running = verb(&case, &["-q", &references[0], "sh", "-c", "echo up; read x"]);
            let mut running = running.stdin(std::process::Stdio::piped()).start();
            running.until("up");
            verb(&case, &["rm", &references[0]]).finish().refused(&["is in use"]);
            drop(running.child.stdin.take());
            running.finish().ends(1);
            for (n, reference) in references.iter().enumerate() {
                assert_eq!(sh(&case, &[], reference, "cat /n /base").ok(), format!("{n}b"));
                verb(&case, &["rm", "-q", reference]).finish().ok();
            }
            told(&verb(&case, &["pull", &references[0]]).finish(), "no locks");
        });
    }
}

#[test]
fn without_hard_links_files_are_copied() {
    let below = Image::busybox().layer([
        dir("d/"),
        file("d/closed", "secret").mode(0),
        file("d/set-id", "x").mode(0o4711).mtime(-5, 7),
        file("d/marked", "x").xattr("user.mark", "m"),
        file("gone", "x"),
        symlink("link", "d/marked"),
        fifo("fifo").mode(0o622),
    ]);
    let one = below.clone().layer([file("one", "1")]);
    let two = below.layer([file("two", "2"), whiteout("gone")]);
    let (with_links, case) = (unpacked(&Case::new(), &two), Case::new());
    let (first, second) = (oci(&one.layout(&case, "one")), oci(&two.layout(&case, "two")));
    for errno in [libc::EPERM, libc::EOPNOTSUPP] {
        refusing(&[libc::SYS_linkat], errno, || {
            told(&verb(&case, &["pull", &first]).finish(), "are copies");
            told(&verb(&case, &["pull", &second]).finish(), "are copies");
            assert!(list(&rootfs(&case, &second)) == with_links);
            verb(&case, &["rm", "-q", &first]).finish().ok();
            verb(&case, &["pull", "-q", &first]).finish().ends(0);
            assert_eq!(sh(&case, &[], &first, "cat /gone /one").ok(), "x1");
            assert_eq!(std::fs::metadata(rootfs(&case, &first).join("one")).unwrap().nlink(), 1);
            verb(&case, &["rm", "-q", &first, &second]).finish().ok();
        });
    }
}

#[test]
fn names_of_one_file_become_files_where_there_are_no_links() {
    let case = Case::new();
    let reference = oci(&Image::empty().layer([file("a", "x"), hardlink("b", "a")]).layout(&case, "layout"));
    refusing(&[libc::SYS_linkat], libc::EPERM, || told(&verb(&case, &["pull", &reference]).finish(), "2 are copies"));
    let tree = rootfs(&case, &reference);
    assert_eq!(std::fs::read(tree.join("b")).unwrap(), b"x");
    verb(&case, &["rm", "-q", &reference]).finish().ok();
    pull(&case, &reference);
    assert_eq!(std::fs::metadata(rootfs(&case, &reference).join("b")).unwrap().nlink(), 2);
}

#[test]
fn copies_of_one_file_are_as_many_as_an_image_may_unpack_to() {
    let case = Case::new();
    let links = (0..20).map(|n| hardlink(n.to_string(), "file"));
    let entries: Vec<_> = [file("file", vec![1; 100_000])].into_iter().chain(links).collect();
    let reference = oci(&Image::empty().layer(entries).layout(&case, "layout"));
    let within = |most: &str| verb(&case, &["pull", "--max-unpacked", most, &reference]).finish();
    refusing(&[libc::SYS_linkat], libc::EPERM, || {
        let refused = within("1m");
        assert!(refused.ends(125).stderr.contains("copies have more than 1048576 bytes\nhint: `--max-"), "{refused:?}");
        let making = std::fs::read_dir(case.path("home/.local/share/gpurun/making")).unwrap().next().unwrap().unwrap();
        let left = std::fs::read_dir(making.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("rootfs-")), "it leaves nothing");
        told(&within("4m"), "21 are copies");
    });
}

#[test]
fn without_extended_attributes_their_number_is_told() {
    let case = Case::new();
    let marked = [dir("d/").xattr("user.a", "1"), file("f", "x").xattr("user.b", "2").xattr("user.c", "3")];
    let reference = oci(&Image::empty().layer(marked).layout(&case, "layout"));
    refusing(&[libc::SYS_fsetxattr, libc::SYS_setxattr], libc::EOPNOTSUPP, || {
        let finished = verb(&case, &["pull", &reference]).finish();
        assert!(finished.stderr.contains("cannot hold 2 extended attributes"), "{finished:?}");
        assert!(finished.stderr.contains("directories: the store cannot hold 1 "), "{finished:?}");
        assert_eq!(finished.status, 0);
    });
}

/// Another machine with the same store may be pulling: its boot is as good as guarded.
#[test]
fn without_flock_other_machines_are_left_alone() {
    let case = Case::new();
    let image = Image::empty().layer([file("a", "a")]);
    let (first, second) = (oci(&image.layout(&case, "one")), oci(&image.layer([file("b", "b")]).layout(&case, "two")));
    let store = case.path("home/.local/share/gpurun");
    let theirs = store.join("making/another-boot");
    std::fs::create_dir_all(theirs.join("layer-0")).unwrap();
    std::fs::write(theirs.join("guard"), "").unwrap();
    let staged = || {
        let layers = std::fs::read_dir(store.join("layers")).unwrap();
        layers.map(|layer| std::fs::read_dir(layer.unwrap().path().join("files")).unwrap().count()).sum::<usize>()
    };
    refusing(&[libc::SYS_flock], libc::ENOLCK, || {
        told(&verb(&case, &["pull", &first]).finish(), "no locks");
        assert!(theirs.join("layer-0").exists());
        assert_eq!(staged(), 1, "they may be building a rootfs of the layer");
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(8 * 24);
        std::fs::File::open(&theirs).unwrap().set_modified(long_ago).unwrap();
        told(&verb(&case, &["pull", &second]).finish(), "no locks");
        assert!(!theirs.exists());
        verb(&case, &["rm", "-q", &first, &second]).finish().ok();
    });
}

#[test]
fn a_layer_that_is_half_taken_away_is_not_taken_for_whole() {
    let case = Case::new();
    let image = Image::empty().layer([file("a", "a")]);
    let reference = oci(&image.clone().layout(&case, "layout"));
    let no_tree = oci(&image.layer([hardlink("b", "missing")]).layout(&case, "no-tree"));
    verb(&case, &["pull", "-q", &no_tree]).finish().refused(&["a hard link to `missing`"]);
    let making = std::fs::read_dir(case.path("home/.local/share/gpurun/making")).unwrap().next().unwrap().unwrap();
    let whole = || {
        let all = std::fs::read_dir(making.path()).unwrap().map(|entry| entry.unwrap().path().join("index"));
        all.filter(|index| index.exists()).count()
    };
    assert_eq!(whole(), 2);
    refusing(&[libc::SYS_fchmodat], libc::EIO, || verb(&case, &["prune"]).finish().refused(&["layer-", "EIO"]));
    assert_eq!(whole(), 1, "the one that it began with is not");
    pull(&case, &reference);
}
