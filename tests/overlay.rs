//! `--overlay`: what a workload writes is there for the next one.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::process::eventually;
use crate::support::{Case, Finish, Finished, program, text};

/// Runs a script with the overlay in the test's directory.
fn kept(case: &Case, script: &str) -> Finished {
    case.sh(&["--overlay", text(&case.path("kept"))], script)
}

fn removable(case: &Case) {
    Command::new("rm").args(["-rf", text(&case.path("kept"))]).finish().ok();
    assert!(!case.path("kept").exists());
}

#[test]
fn what_is_written_and_removed_stays() {
    let case = Case::new();
    case.image.file("/data/a", "a");
    case.image.file("/data/dir/b", "b");
    let before = case.image.digest();
    kept(
        &case,
        "echo x >/data/new; echo y >/data/a; rm -r /data/dir; mkdir /data/dir; chmod 700 /etc; ln -s a /data/l",
    )
    .ok();
    let script = "cat /data/new /data/a /data/l; ls -A /data/dir; stat -c %a /etc; echo z >>/data/new";
    assert_eq!(kept(&case, script).ok(), "x\ny\ny\n700\n");
    assert_eq!(kept(&case, "cat /data/new").ok(), "x\nz\n");
    assert_eq!(case.sh(&[], "ls /data; cat /data/a").ok(), "a\ndir\na");
    assert_eq!(case.image.digest(), before);
    let meta = std::fs::metadata(case.path("kept/upper/data/new")).unwrap();
    assert_eq!(meta.uid(), nix::unistd::geteuid().as_raw());
    removable(&case);
}

#[test]
fn it_is_relative_to_the_current_directory_and_may_have_any_name() {
    let case = Case::new();
    for name in ["a", "a,b:c\\d e", &"long".repeat(60)] {
        case.sh(&["--overlay", name], "echo x >/f").ok();
        assert_eq!(case.sh(&["--overlay", &format!("./{name}")], "cat /f").ok(), "x\n");
        assert!(case.path("work").join(name).join("upper/f").exists());
    }
}

#[test]
fn accounts_that_were_added_stay() {
    let case = Case::new();
    case.image.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    let dir = case.path("kept");
    let overlay = ["--overlay", text(&dir)];
    kept(&case, "echo app:x:77:77::/srv:/bin/sh >>/etc/passwd").ok();
    assert_eq!(kept(&case, "grep -c . /etc/passwd; tail -n 1 /etc/passwd").ok(), "3\napp:x:77:77::/srv:/bin/sh\n");
    assert_eq!(case.sh(&[&overlay[..], &["-u", "app"]].concat(), "id -u; echo $HOME").ok(), "77\n/srv\n");
}

#[test]
fn two_runs_at_once_are_refused() {
    let case = Case::new();
    let mut first = case.gpurun(&["--overlay", text(&case.path("kept"))], &["sh", "-c", "echo up; sleep 1000"]).start();
    first.until("up");
    kept(&case, "echo ran").refused(&["kept", "another run uses it"]);
    first.child.kill().unwrap();
    first.wait();
    eventually("PID 1, which holds the lock as well, has ended", || kept(&case, "echo ran").stdout == "ran\n");
    removable(&case);
}

#[test]
fn what_a_hostile_run_leaves_is_found_inside_only() {
    let case = Case::new();
    let outside = case.file("outside", "mine\n");
    let out = text(&outside);
    for (left, refused) in [
        ("rm -f /etc/passwd; mkfifo /etc/passwd".to_owned(), true),
        (format!("ln -sf {out} /etc/passwd; ln -sf {out} /etc/group; ln -sf {out} /etc/hosts"), false),
        ("rm -rf /etc; ln -s ../../../../../../.. /etc".to_owned(), false),
        ("rm -rf /etc; echo x >/etc".to_owned(), true),
        ("rm -rf /dev /proc /sys /tmp; ln -s / /tmp".to_owned(), false),
    ] {
        // Without the network nothing is mounted in /etc, so that it can be removed.
        case.sh(&["--network", "none", "--overlay", text(&case.path("kept"))], &format!("{left}; :"));
        let finished = kept(&case, "echo ran");
        assert_eq!(finished.status, if refused { 125 } else { 0 }, "{left}: {finished:?}");
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "mine\n", "{left}");
        removable(&case);
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_refused() {
    let case = Case::new();
    let refused = |dir: &str, words: &[&str]| case.sh(&["--overlay", dir], "echo ran").refused(words);
    refused(text(&case.path("none/kept")), &["none/kept", "mkdir", "No such file"]);
    refused(text(&case.file("file", "x")), &["file", "ot a directory"]);
    case.file("other/x", "x");
    refused(text(&case.path("other")), &["other", "something else"]);
    case.sh(&["--overlay", "x", "--read-only"], "echo ran").ends(125);
    assert!(!case.path("work/x").exists());
    case.bare().args(["explain", "--overlay", "x"]).arg(case.reference()).arg("true").finish().ok();
    assert!(!case.path("work/x").exists());
}

#[test]
fn a_file_system_that_cannot_hold_it_is_named_with_what_works_instead() {
    let case = Case::new();
    let script = "cd \"$D\" && mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w,userxattr x m && \
                  exec \"$G\" --overlay m/kept \"$I\" echo ran";
    let mut command = Command::new("unshare");
    case.surround(command.args(["-Urm", "sh", "-c", script]));
    command.env("G", program()).env("I", case.reference()).env("D", case.path("work"));
    command.finish().refused(&["m/kept", "overlayfs cannot hold it", "hint: ", "xfs", "/dev/shm"]);
}

/// As a tmpfs is before Linux 6.6.
#[test]
fn without_extended_attributes_nothing_can_be_removed_so_it_is_refused() {
    let case = Case::new();
    let script = "mount -t ramfs none \"$D\" && exec \"$G\" --overlay \"$D/kept\" \"$I\" echo ran";
    let mut command = Command::new("unshare");
    case.surround(command.args(["-Urm", "sh", "-c", script]));
    command.env("G", program()).env("I", case.reference()).env("D", case.path("work"));
    command.finish().refused(&["work/kept", "extended attributes", "hint: ", "ext4"]);
}
