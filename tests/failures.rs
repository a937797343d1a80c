//! A start in which one step fails: it is said, with the call and its error, and nothing stays.

use crate::support::filter::fail_nth;
use crate::support::process::{count, eventually};
use crate::support::{Case, Finish};

/// What a launch is made of. The test makes each call of them fail in turn.
const STEPS: &[&str] = &[
    "unshare",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "mount",
    "umount2",
    "pivot_root",
    "fsopen",
    "fsconfig",
    "fsmount",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "openat2",
    "mkdirat",
    "symlinkat",
    "chdir",
    "fchdir",
    "socketpair",
    "socket",
    "bind",
    "listen",
    "accept",
    "accept4",
    "connect",
    "pipe2",
    "setsid",
    "setpgid",
    "capset",
    "prctl",
    "close_range",
    "utimensat",
    "setrlimit",
    "sethostname",
];

/// An error that nothing here expects.
const ERROR: (i32, &str) = (libc::EXDEV, "EXDEV");

fn leftovers(case: &Case) -> Vec<std::path::PathBuf> {
    let entries = ["tmp", "work", "home"].iter().flat_map(|dir| std::fs::read_dir(case.path(dir)).expect("list"));
    entries.map(|entry| entry.expect("list").path()).collect()
}

#[test]
fn a_start_that_fails_at_any_step_says_so_and_leaves_nothing() {
    let case = Case::new();
    let image = case.image.digest();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    let mounted = mounts();
    let word = format!("86404.{}", std::process::id());
    let script = format!("echo ran; : {word}");
    let options = ["--hostname", "x", "--tmpfs", "/t", "--ulimit", "core=0"];
    let (mut failed, mut tolerated) = (Vec::new(), Vec::new());
    for nth in 0.. {
        let mut command = case.gpurun(&options, &["sh", "-c", &script]);
        let answers = fail_nth(&mut command, STEPS, nth, ERROR.0);
        let finished = command.env("TMPDIR", case.path("tmp")).finish();
        drop(command);
        let Some(call) = answers.join().expect("the thread ends") else {
            assert_eq!(finished.ok(), "ran\n", "nothing failed");
            break;
        };
        if finished.status == 0 {
            assert_eq!(finished.stdout, "ran\n", "{nth} {call}: {finished:?}");
            tolerated.push(call.name());
        } else {
            assert!([125, 126].contains(&finished.status), "{nth} {call}: {finished:?}");
            assert!(finished.stderr.starts_with("error: "), "{nth} {call}: {finished:?}");
            assert!(
                finished.stderr.contains(ERROR.1) || finished.stderr.contains("cross-device"),
                "{nth} {call}: {finished:?}"
            );
            assert_eq!(finished.stdout, "", "{nth} {call}: {finished:?}");
            failed.push(call.name());
        }
        eventually("every process is gone", || count(&word) == 0);
        assert_eq!(leftovers(&case), [""; 0].map(std::path::PathBuf::from), "{nth} {call}");
    }
    assert_eq!((mounts(), case.image.digest()), (mounted, image));
    for step in [
        "unshare",
        "fsopen",
        "fsmount",
        "move_mount",
        "open_tree",
        "mount_setattr",
        "pivot_root",
        "umount2",
        "prctl",
        "capset",
        "socketpair",
        "execve",
    ] {
        assert!(failed.contains(&step), "{step} in {failed:?}, tolerated {tolerated:?}");
    }
}
