//! Wherever an ordinary user may be: each condition made for real.

use std::process::Command;

use crate::support::{Case, Finish, Finished, can, program};

/// Runs gpurun as `"$G" … "$I"` in a shell script with this test's surroundings.
fn shell(case: &Case, script: &str) -> Finished {
    let mut command = Command::new("bash");
    case.surround(command.args(["-c", script]));
    command.env("G", program()).env("I", case.reference()).finish()
}

#[test]
fn no_home_and_no_directories_of_the_session() {
    let case = Case::new();
    for script in [
        "unset HOME; exec \"$G\" \"$I\" echo ran",
        "HOME= exec \"$G\" \"$I\" echo ran",
        "HOME=/no/such/home exec \"$G\" \"$I\" echo ran",
        "HOME=relative exec \"$G\" \"$I\" echo ran",
        "XDG_RUNTIME_DIR=/none XDG_DATA_HOME=/none TMPDIR=/none exec \"$G\" \"$I\" echo ran",
        "exec env -i \"$G\" \"$I\" echo ran",
    ] {
        assert_eq!(shell(&case, script).ok(), "ran\n", "{script}");
    }
}

#[test]
fn no_place_to_write() {
    let case = Case::new();
    // What is below /tmp is covered, so the program is found by a descriptor.
    let script = "exec 9<\"$G\"; mount --bind \"$T\" /mnt; for d in /tmp /var/tmp /dev/shm /run; do mount -t tmpfs -o ro,size=4k none $d; done; \
                  cd / && exec /proc/self/fd/9 dir:/mnt sh -c 'echo ran; touch /tmp/x /x && echo written'";
    let mut command = Command::new("unshare");
    case.surround(command.args(["-Urm", "sh", "-c", script]));
    command.env("G", program()).env("T", case.image.path());
    assert_eq!(command.finish().ok(), "ran\nwritten\n");
}

#[test]
fn an_id_without_a_name() {
    let case = Case::new();
    let script = "mount --bind /dev/null /etc/passwd && exec unshare -U --map-user=54321 --map-group=54321 \
                  \"$G\" \"$I\" sh -c 'id -un; echo ran'";
    let mut command = Command::new("unshare");
    case.surround(command.args(["-Urm", "sh", "-c", script]));
    let finished = command.env("G", program()).env("I", case.reference()).env_remove("USER").finish();
    assert_eq!(finished.ok(), "54321\nran\n");
}

/// Whoever looks a name up through the C library waits for ever here: the settings of its directory services are a FIFO.
#[test]
fn no_directory_service_is_asked() {
    let case = Case::new();
    for options in ["", "--root", "-u 5:6", "--home"] {
        let script = format!(
            "mkfifo nss && mount --bind nss /etc/nsswitch.conf && mount --bind /dev/null /etc/passwd || exit 99; \
             timeout 0.2 id -un; test $? = 124 || exit 98; \"$G\" {options} \"$I\" echo ran && \"$G\" ps >/dev/null"
        );
        let mut command = Command::new("unshare");
        case.surround(command.args(["-Urm", "sh", "-c", &script]));
        let finished = command.env("G", program()).env("I", case.reference()).env_remove("USER").finish();
        assert_eq!(finished.ok(), "ran\n", "{options}");
        std::fs::remove_file(case.path("work/nss")).unwrap();
    }
}

/// As root in a user namespace finds the home of somebody else, and everybody one on a file server that is closed to them.
#[test]
fn a_home_that_cannot_be_read() {
    let case = Case::new();
    let script = "chmod 0 ~; \"$G\" \"$I\" sh -c 'cd ~ && echo ran'; \"$G\" --root --home \"$I\" sh -c \"echo ran; ls $HOME\"; chmod 700 ~";
    let finished = shell(&case, script);
    assert_eq!((finished.status, &*finished.stdout), (0, "ran\nran\n"), "{finished:?}");
    assert!(finished.stderr.contains("Permission denied"), "{finished:?}");
}

#[test]
fn inside_bubblewrap() {
    let case = Case::new();
    if !can(std::path::Path::new("/usr/bin/bwrap").exists(), "bubblewrap") {
        return;
    }
    for options in ["", "--unshare-pid --proc /proc", "--unshare-all --proc /proc"] {
        let script = format!("exec bwrap --dev-bind / / {options} \"$G\" \"$I\" sh -c 'echo ran; exit 5'");
        let finished = shell(&case, &script);
        assert_eq!((finished.status, &*finished.stdout), (5, "ran\n"), "{options}: {finished:?}");
    }
}

#[test]
fn nothing_reads_the_cgroups() {
    let case = Case::new();
    for hide in ["mount -t tmpfs none /sys/fs/cgroup", "mount -t tmpfs -o mode=000 none /sys/fs"] {
        let script = format!("{hide} && exec \"$G\" \"$I\" sh -c 'echo ran; cat /proc/self/cgroup >&2'");
        let mut command = Command::new("unshare");
        case.surround(command.args(["-Urm", "sh", "-c", &script]));
        let finished = command.env("G", program()).env("I", case.reference()).finish();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        assert_eq!((finished.status, &*finished.stdout, finished.stderr), (0, "ran\n", own), "{hide}");
    }
}
