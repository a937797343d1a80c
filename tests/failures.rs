//! A start in which one step fails: it is said, with the call and its error, and nothing stays.

use nix::errno::Errno;

use crate::support::filter::fail_nth;
use crate::support::image::{Image, oci, pull};
use crate::support::listing::list;
use crate::support::process::{count, eventually};
use crate::support::{Case, Finish, Finished};

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

/// What a run finds out before, and what it writes.
const FACTS: &[&str] = &[
    "access",
    "faccessat",
    "faccessat2",
    "fcntl",
    "flock",
    "fstat",
    "fstatfs",
    "getcwd",
    "getdents64",
    "getgroups",
    "ioctl",
    "lseek",
    "memfd_create",
    "newfstatat",
    "open",
    "openat",
    "poll",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "stat",
    "statfs",
    "statx",
    "uname",
    "write",
];

/// All paths that a start could leave something at.
fn paths(case: &Case) -> Vec<Vec<u8>> {
    ["tmp", "work", "home"].iter().flat_map(|dir| list(&case.path(dir)).into_keys()).collect()
}

/// A start in which the call of that number failed.
struct Start {
    call: &'static str,
    finished: Finished,
}

impl Start {
    fn ran(&self) -> bool {
        self.finished.status == 0
    }

    /// Whether the ladder took over: the tree without an overlay.
    fn has_less(&self) -> bool {
        self.finished.stderr.contains("the image is read-only here")
    }
}

/// Lets each of these calls fail in turn with this error: either the run does without what it asked for, or it ends with
/// a sentence that has the error in it. Nothing stays.
fn each_fails(case: &Case, image: &str, steps: &[&'static str], errno: i32) -> Vec<Start> {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    let before = (mounts(), case.image.digest(), paths(case));
    let word = format!("86404.{}.{errno}", std::process::id());
    let script = format!("echo ran; : {word}");
    let options = ["--hostname", "x", "--tmpfs", "/t", "--ulimit", "core=0", image, "sh", "-c", &script];
    let mut starts = Vec::new();
    for nth in 0.. {
        let mut command = case.bare();
        command.args(options);
        let answers = fail_nth(&mut command, steps, nth, errno);
        let finished = command.env("TMPDIR", case.path("tmp")).finish();
        drop(command);
        let Some(call) = answers.join().expect("the thread ends") else {
            assert_eq!(finished.ok(), "ran\n", "nothing failed");
            break;
        };
        eventually("every process is gone", || count(&word) == 0);
        assert_eq!(paths(case), before.2, "{nth} {call}");
        let start = Start { call: call.name(), finished };
        check(&start, errno);
        starts.push(start);
    }
    assert_eq!((mounts(), case.image.digest()), (before.0, before.1));
    starts
}

/// The same for the case's own tree.
fn each_fails_of(steps: &[&'static str], errno: i32) -> Vec<Start> {
    let case = Case::new();
    each_fails(&case, &case.reference().to_string_lossy(), steps, errno)
}

fn check(Start { call, finished }: &Start, errno: i32) {
    if finished.status == 0 {
        assert_eq!(finished.stdout, "ran\n", "{call}: {finished:?}");
        return;
    }
    // By the number, after the C library's text, or by nix's text, which begins with the name.
    let (text, name) = (format!("(os error {errno})"), format!("{:?}", Errno::from_raw(errno)));
    assert!([125, 126].contains(&finished.status), "{call}: {finished:?}");
    assert!(finished.stderr.starts_with("error: "), "{call}: {finished:?}");
    assert!(finished.stderr.contains(&text) || finished.stderr.contains(&name), "{call} {name}: {finished:?}");
    // Whether the workload has started is what the report tells.
    let untold = finished.stderr.contains("read the launched process's report");
    assert!(finished.stdout.is_empty() || untold, "{call}: {finished:?}");
}

/// That each of these failed a start at least once.
#[track_caller]
fn assert_needed(starts: &[Start], calls: &[&str]) {
    let failed: Vec<_> = starts.iter().filter(|start| !start.ran()).map(|start| start.call).collect();
    for call in calls {
        assert!(failed.contains(call), "{call} in {failed:?}");
    }
}

const NEEDED: &[&str] = &[
    "unshare",
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
];

/// An error that nothing here expects.
#[test]
fn a_start_that_fails_at_any_step_says_so_and_leaves_nothing() {
    assert_needed(&each_fails_of(STEPS, libc::EXDEV), &[NEEDED, &["fsopen"]].concat());
}

#[test]
fn where_the_machine_is_short_of_something_nothing_is_left_out() {
    for errno in [libc::ENOMEM, libc::EMFILE, libc::ENOSPC] {
        let starts = each_fails_of(STEPS, errno);
        assert_needed(&starts, &[NEEDED, &["fsopen", "fsconfig"]].concat());
        assert!(!starts.iter().any(Start::has_less));
    }
}

#[test]
fn where_a_call_is_forbidden_only_the_overlay_is_done_without() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let starts = each_fails_of(STEPS, errno);
        assert_needed(&starts, NEEDED);
        let less = starts.iter().filter(|start| start.has_less());
        assert!(less.clone().any(|start| start.call == "fsconfig") && less.clone().all(Start::ran));
    }
}

#[test]
fn what_cannot_be_found_out_or_written_is_said_too() {
    assert_needed(&each_fails_of(FACTS, libc::EIO), &["openat", "read", "write", "fcntl"]);
}

#[test]
fn what_the_store_cannot_read_is_said_too() {
    let case = Case::new();
    let reference = oci(&Image::busybox().layout(&case, "layout"));
    pull(&case, &reference);
    assert_needed(&each_fails(&case, &reference, FACTS, libc::EIO), &["openat", "read", "flock"]);
}
