//! Machines that refuse something, made for real: in namespaces that the tests make themselves.

use std::process::Command;

use crate::support::{Case, Finish, Finished, can, program};

/// Runs gpurun as `"$G" … "$I"` in a script inside user and mount namespaces, where the script is root.
fn nested(case: &Case, script: &str) -> Finished {
    let mut command = Command::new("unshare");
    case.surround(command.args(["-Urm", "sh", "-c", script]));
    command.env("G", program()).env("I", case.reference()).finish()
}

#[test]
fn blocked_user_namespaces_are_named_with_the_switch() {
    let case = Case::new();
    let finished = nested(&case, "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$G\" \"$I\" true");
    finished.refused(&["unshare a user namespace", "hint: ", "user.max_user_namespaces"]);
}

#[test]
fn gpurun_in_gpurun() {
    let case = Case::new();
    let libs = ["/lib", "/lib64", "/usr/lib"].into_iter().filter(|p| std::path::Path::new(p).is_dir());
    let binds: Vec<String> = libs.map(|lib| format!("-v{lib}:{lib}:ro")).collect();
    let (image, own) =
        (format!("-v{}:/inner", case.image.path().display()), format!("-v{}:/gpurun", program().display()));
    let options: Vec<&str> = binds.iter().map(String::as_str).chain([&*image, &*own]).collect();
    for who in ["", "--root"] {
        let script = format!("/gpurun {who} dir:/inner sh -c 'echo inside; exit 5'");
        let finished = case.sh(&options, &script);
        assert_eq!((finished.status, &*finished.stdout, &*finished.stderr), (5, "inside\n", ""), "{finished:?}");
    }
}

#[test]
fn a_masked_proc_is_bound_and_the_process_namespace_left_out() {
    let case = Case::new();
    let masks = [
        "mount --bind /dev/null /proc/keys",
        "mount -t tmpfs -o ro none /proc/acpi",
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys",
    ];
    for mask in masks {
        if !can(mask.contains("sys") || std::path::Path::new(mask.rsplit(' ').next().unwrap()).exists(), mask) {
            continue;
        }
        let script = format!(
            "{mask} || exit 99; exec \"$G\" \"$I\" sh -c 'echo $$; cat /proc/self/stat | cut -d\" \" -f1; exit 6'"
        );
        let finished = nested(&case, &script);
        finished.ends(6);
        let pids: Vec<u32> = finished.stdout.lines().map(|l| l.parse().unwrap()).collect();
        assert!(pids[0] > 2 && pids[1] >= pids[0], "{finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        assert!(finished.stderr.starts_with("gpurun: /proc is masked here"), "{finished:?}");
        let explained = nested(&case, &format!("{mask} || exit 99; exec \"$G\" explain \"$I\" true"));
        assert!(explained.stdout.contains("/proc = /proc  (it is masked here"), "{explained:?}");
        assert!(!explained.stdout.contains("\n  pid "), "{explained:?}");
    }
}
