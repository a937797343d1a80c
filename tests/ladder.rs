//! Kernels and surroundings that refuse something: a way round it, or a sentence that names the call and what to do.

use std::process::Command;

use crate::support::filter::refuse;
use crate::support::{Case, Finish, Finished, program};

/// `gpurun IMAGE sh -c SCRIPT` where one call fails.
fn under(case: &Case, call: &str, errno: i32, script: &str) -> Finished {
    let mut command = case.gpurun(&[], &["sh", "-c", script]);
    refuse(&mut command, call, None, errno);
    command.finish()
}

#[test]
fn calls_that_are_not_needed_may_be_refused() {
    let case = Case::new();
    for call in ["clone3", "statx", "io_uring_setup", "seccomp", "landlock_create_ruleset", "keyctl", "pidfd_open"] {
        for errno in [libc::ENOSYS, libc::EPERM] {
            assert_eq!(under(&case, call, errno, "echo ran").ok(), "ran\n", "{call}");
        }
    }
}

#[test]
fn a_run_that_cannot_be_labelled_says_so_and_runs() {
    let finished = under(&Case::new(), "memfd_create", libc::ENOSYS, "echo ran");
    assert_eq!((finished.status, &*finished.stdout), (0, "ran\n"), "{finished:?}");
    assert!(finished.stderr.contains("`gpurun ps` and `gpurun exec` will not find this run"), "{finished:?}");
}

#[test]
fn calls_that_are_needed_are_named_with_what_to_do() {
    let case = Case::new();
    for call in
        ["open_tree", "mount_setattr", "fsopen", "fsmount", "move_mount", "openat2", "mount", "pivot_root", "unshare"]
    {
        under(&case, call, libc::ENOSYS, "echo ran").refused(&[
            call,
            "Function not implemented",
            "hint: ",
            "Linux 5.12",
        ]);
    }
    for call in ["open_tree", "mount_setattr", "fsopen", "mount", "pivot_root", "unshare"] {
        under(&case, call, libc::EPERM, "echo ran").refused(&[
            call,
            "Operation not permitted",
            "hint: ",
            "seccomp profile",
        ]);
    }
}

/// In user and mount namespaces of the test's own, in which `script` is root and `$G $I` runs.
fn nested(case: &Case, script: &str) -> Command {
    let mut command = Command::new("unshare");
    case.surround(command.args(["-Urm", "sh", "-c", script]));
    command.env("G", program()).env("I", case.reference());
    command
}

#[test]
fn no_pid_namespace_is_needed() {
    let case = Case::new();
    let limit = "echo 0 >/proc/sys/user/max_pid_namespaces && exec";
    let finished = nested(&case, &format!("{limit} \"$G\" \"$I\" sh -c 'test $$ != 2 && echo ran'")).finish();
    assert_eq!((finished.status, &*finished.stdout), (0, "ran\n"), "{finished:?}");
    assert!(
        finished.stderr.starts_with("gpurun: `user.max_pid_namespaces` is 0 here: running without"),
        "{finished:?}"
    );
    let explained = nested(&case, &format!("{limit} \"$G\" explain \"$I\" true")).finish();
    assert!(explained.ok().contains("/proc = /proc  (no PID namespace may be made here"), "{explained:?}");
}

/// Whoever forbids it, the error of the call is the same: the switches tell.
#[test]
fn what_blocks_user_namespaces_is_recognised_by_its_switch() {
    let case = Case::new();
    let own = format!("profile gpurun \"{}\"", program().display());
    for (name, value, words) in [
        ("apparmor_restrict_unprivileged_userns", 1, &["apparmor_parser -r /etc/apparmor.d/gpurun", &*own][..]),
        ("unprivileged_userns_clone", 0, &["sysctl kernel.unprivileged_userns_clone=1"]),
        ("nothing", 0, &["seccomp profile"]),
    ] {
        let switch = format!(
            "mount -t tmpfs none /proc/sys/kernel && echo {value} >/proc/sys/kernel/{name} && exec \"$G\" \"$I\" true"
        );
        let mut command = nested(&case, &switch);
        refuse(&mut command, "unshare", Some(libc::CLONE_NEWUSER as u64), libc::EPERM);
        command.finish().refused(&[&["unshare a user namespace", "EPERM", "hint: "], words].concat());
    }
}

/// A process that AppArmor or SELinux confines is told by what: the file of its own label says it.
#[test]
fn what_confines_gpurun_is_named() {
    let case = Case::new();
    for (label, switch, words) in [
        ("docker-default (enforce)", 1, &["confined as `docker-default (enforce)`", "apparmor=unconfined"][..]),
        ("system_u:system_r:container_t:s0:c1,c2", 0, &["`system_u:system_r:container_t:s0:c1,c2`", "label=disable"]),
        ("unprivileged_userns (enforce)", 0, &["apparmor_parser -r /etc/apparmor.d/gpurun"]),
        ("unconfined", 0, &["seccomp=unconfined"]),
    ] {
        let set = format!(
            "mount -t tmpfs none /proc/sys/kernel && echo {switch} >/proc/sys/kernel/apparmor_restrict_unprivileged_userns \
             && echo '{label}' >label && mount --bind label /proc/$$/attr/current && exec \"$G\" \"$I\" true"
        );
        let mut command = nested(&case, &set);
        refuse(&mut command, "unshare", Some(libc::CLONE_NEWUSER as u64), libc::EPERM);
        command.finish().refused(&[&["unshare a user namespace", "EPERM", "hint: "], words].concat());
    }
}

#[test]
fn a_root_of_gpuruns_cannot_map_root_again_and_is_told() {
    let case = Case::new();
    let libs = ["/lib", "/lib64", "/usr/lib"].into_iter().filter(|p| std::path::Path::new(p).is_dir());
    let mut options: Vec<String> = libs.map(|lib| format!("-v{lib}:{lib}:ro")).collect();
    options.push(format!("-v{}:/inner", case.image.path().display()));
    options.push(format!("-v{}:/gpurun", program().display()));
    options.push("--root".into());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    case.sh(&options, "/gpurun dir:/inner true").refused(&["uid_map", "CAP_SETFCAP"]);
}

#[test]
fn a_machine_without_places_to_write() {
    let case = Case::new();
    let covered = "for d in /tmp /var/tmp /dev/shm /run; do test -d $d && mount -t tmpfs -o ro none $d; done";
    let image = "mount --rbind \"${I#dir:}\" /mnt && G2=/opt/g && mount -t tmpfs none /opt && cp \"$G\" $G2";
    let finished =
        nested(&case, &format!("{image} && {covered}; cd /; unset HOME; exec $G2 dir:/mnt sh -c 'echo ran'")).finish();
    assert_eq!((finished.status, &*finished.stdout), (0, "ran\n"), "{finished:?}");
}
