//! Machines that refuse something, made for real: in namespaces that the tests make themselves.

use std::process::Command;

use crate::support::{Case, Finish, Finished, can, program, text};

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

/// The image's tree seen through two overlays, which is as many as the kernel stacks.
const STACKED: &str = "cd \"$W\" && mkdir u1 w1 u2 w2 m1 m2 && O=userxattr && \
    mount -t overlay -o lowerdir=\"$T\",upperdir=u1,workdir=w1,$O x m1 && \
    mount -t overlay -o lowerdir=m1,upperdir=u2,workdir=w2,$O x m2 || exit 99; ";

fn stacked(case: &Case, script: &str) -> Finished {
    let mut command = Command::new("unshare");
    case.surround(command.args(["-Urm", "sh", "-c", &format!("{STACKED}{script}")]));
    command.env("G", program()).env("T", case.image.path()).env("W", case.path("work")).finish()
}

#[test]
fn a_refused_overlay_is_a_read_only_tree_with_places_to_write() {
    let case = Case::new();
    for dir in ["/var/tmp", "/run", "/data/below", "/home"] {
        case.image.dir(dir);
    }
    case.image.mode("/tmp", 0o1777);
    case.image.file("/etc/file", "image's\n");
    case.image.file("/data/f", "data\n");
    case.image.link("/link", "data/f");
    std::fs::write(case.path("bound"), "bound\n").unwrap();
    let before = case.image.digest();
    let bound = format!("-v {0}:/data/new/place -v {0}:/new -v {0}:/data/f2", text(&case.path("bound")));
    let script = "cat /link /etc/file /data/new/place /new /data/f2; stat -c %a /tmp; \
                  for d in /tmp /var/tmp /run /home ~; do touch $d/x || echo \"$d is not writable\"; done; \
                  for f in /bin/sh /etc/file /data/f /data/below/x; do { echo x >>$f; } 2>/dev/null && echo \"$f is writable\"; done; \
                  tail -n 1 /etc/passwd | cut -d: -f3; ls /dev/null /proc/self/status >/dev/null && exit 7";
    for options in ["", "--root"] {
        let finished = stacked(&case, &format!("exec \"$G\" {options} {bound} dir:m2 sh -c '{script}'"));
        let uid = "0\n"; // unshare made the caller root
        assert_eq!(finished.stdout, format!("data\nimage's\nbound\nbound\nbound\n1777\n{uid}"), "{finished:?}");
        assert_eq!((finished.status, finished.stderr.lines().count()), (7, 1), "{finished:?}");
        assert!(finished.stderr.starts_with("gpurun: the image is read-only here, but for /tmp"), "{finished:?}");
        assert!(finished.stderr.contains("overlay"), "{finished:?}");
        Command::new("rm").arg("-rf").arg(case.path("work")).finish().ok();
        std::fs::create_dir(case.path("work")).unwrap();
    }
    let finished = stacked(&case, "exec \"$G\" -q --read-only dir:m2 sh -c 'touch /tmp/x /x'");
    assert_eq!(finished.stderr.matches("Read-only file system").count(), 2, "{finished:?}");
    assert_eq!(case.image.digest(), before);
}

/// In directories that have all else of ours: where nothing is, over a link, over a file.
#[test]
fn links_of_devices_are_made_where_an_overlay_is_refused() {
    let case = Case::new();
    case.image.file("/opt/a/other", "image's\n");
    case.image.dir("/opt/b");
    case.image.link("/opt/b/link", "gone");
    case.image.file("/opt/c/file", "image's\n");
    let links = "--link, ../../etc::/opt/a/new, --link, new::/opt/b/link, --link, new::/opt/c/file";
    let edits = format!(
        "{{hookName: createContainer, path: /usr/bin/nvidia-ctk, args: [nvidia-ctk, hook, create-symlinks, {links}]}}"
    );
    let device = format!("devices: [{{name: d, containerEdits: {{hooks: [{edits}]}}}}]");
    case.file("cdi/v.yaml", &format!("{{cdiVersion: 1.1.0, kind: v.com/c, {device}}}"));
    let run = format!("exec \"$G\" -q --cdi-spec-dir {} --device v.com/c=d dir:m2", text(&case.path("cdi")));
    let finished = stacked(
        &case,
        &format!("{run} sh -c 'cd /opt; for l in a/new b/link c/file; do readlink $l; done; cat a/other'"),
    );
    assert_eq!(finished.ok(), "../../etc\nnew\nnew\nimage's\n");
}

#[test]
fn explain_says_what_comes_in_place_of_a_refused_overlay() {
    let case = Case::new();
    let mut command = case.bare();
    let explained = command.arg("explain").arg(case.reference()).arg("true").finish();
    assert!(explained.ok().contains("\notherwise: /tmp /var/tmp /run "), "{explained:?}");
}
