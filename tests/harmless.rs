//! What the workload cannot do, whoever it is inside.

use crate::support::{Case, Finish, program, text};

const WHO: &[&[&str]] = &[&[], &["--root"], &["-u", "5"]];

#[test]
fn there_are_no_capabilities_and_no_way_to_new_ones() {
    let case = Case::new();
    for who in WHO {
        let finished = case.sh(who, "grep -E '^(Cap|NoNew)' /proc/self/status");
        let lines: Vec<_> = finished.ok().lines().collect();
        assert_eq!(lines.len(), 6);
        let none = |line: &&str| line.ends_with("0000000000000000") || *line == "NoNewPrivs:\t1";
        assert!(lines.iter().all(none), "{who:?}: {lines:?}");
    }
}

#[test]
fn mounts_cannot_be_changed() {
    let case = Case::new();
    for who in WHO {
        let script = "mount -t tmpfs x /tmp; umount /proc; umount /dev/shm; umount /sys; mount -o remount,rw /sys; mount --bind / /tmp; chroot / true; \
                      mount -t proc x /proc; mknod /x b 8 0; hostname x; kill -9 1; echo still";
        let finished = case.sh(who, script);
        assert_eq!(finished.stdout, "still\n", "{who:?}");
        assert!(finished.stderr.lines().count() >= 10, "{who:?}: {finished:?}");
    }
}

#[test]
fn no_descriptor_is_gpuruns() {
    let case = Case::new();
    let script = "for fd in /proc/$$/fd/*; do echo ${fd##*/}; done";
    let mut without = std::process::Command::new("/bin/busybox");
    let without = without.args(["sh", "-c", script]).finish();
    for who in WHO {
        assert_eq!(case.sh(who, script).ok(), without.ok(), "{who:?}");
    }
}

#[test]
fn gpurun_itself_is_out_of_reach() {
    let case = Case::new();
    for who in WHO {
        let script = "for l in /proc/[0-9]*/exe; do readlink $l; done; cat /proc/1/exe /proc/1/mem /proc/1/maps /proc/1/auxv; echo x >/proc/1/mem; \
                      ls /proc/1/fd /proc/1/root /proc/1/cwd /proc/1/map_files; exec 2>&1; ls -l /proc/1/ns";
        let finished = case.sh(who, script);
        assert!(!finished.stdout.contains("gpurun"), "{finished:?}");
        assert!(!finished.stdout.contains("ELF"), "{finished:?}");
    }
    assert!(std::fs::metadata(program()).unwrap().len() > 1000);
}

#[test]
fn a_killed_init_is_not_within_the_workloads_power() {
    let case = Case::new();
    let finished = case.sh(&["--root"], "kill -9 1; kill -9 -1; echo here");
    // It may kill everything of its own, itself excepted, but not PID 1.
    assert!(finished.stdout == "here\n", "{finished:?}");
}

#[test]
fn another_namespace_gives_nothing_back() {
    let case = Case::new();
    let script = "unshare -U -r -m sh -c 'mount -o remount,rw,bind /sys && touch /sys/x && echo escaped; umount -l /proc && echo uncovered; \
                  mount -t proc x /proc && ls /proc/1/root && echo seen; cat /proc/1/environ && echo read'; :";
    for who in WHO {
        let finished = case.gpurun(who, &["sh", "-c", script]).env("AWS_SECRET", "s3cret").finish();
        for word in ["escaped", "uncovered", "s3cret"] {
            assert!(!finished.stdout.contains(word), "{who:?}: {finished:?}");
        }
    }
}

#[test]
fn nothing_of_the_host_is_seen_that_was_not_asked_for() {
    let case = Case::new();
    let secret = case.file("secret", "x");
    let script = format!("cat {0} /proc/self/root{0} /proc/1/root{0} ../../../../../..{0}; ls /tmp /", text(&secret));
    let finished = case.sh(&[], &script);
    assert!(!finished.stdout.contains('x') || !finished.stdout.contains("secret"), "{finished:?}");
    assert_eq!(
        finished.stdout.lines().filter(|l| ["upper", "work", "root", "start"].contains(l)).count(),
        0,
        "{finished:?}"
    );
}
