//! The root file system: the image below, never written; what is written above, gone at the end.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Case, Finish, can, text};

/// An image with everything in it that a run might touch.
fn full() -> Case {
    let case = Case::new();
    case.image.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    case.image.file("/data/a/b", "b");
    case.image.file("/data/secret", "s");
    case.image.mode("/data/secret", 0o000);
    case.image.dir("/data/closed");
    case.image.mode("/data/closed", 0o555);
    case.image.link("/data/link", "a/b");
    std::fs::hard_link(case.image.at("/data/a/b"), case.image.at("/data/hard")).unwrap();
    case
}

#[test]
fn the_image_is_the_same_after_any_run() {
    let case = full();
    let hosts = case.file("hosts", "x");
    let bind = format!("{}:/new/bind/target,{}:/etc/hosts", text(&case.path("work")), text(&hosts));
    let before = case.image.digest();
    for options in [
        &[][..],
        &["--root"],
        &["--read-only"],
        &["--here", "--home"],
        &["-v", &bind, "--tmpfs", "/data/a", "-w", "/also/new"],
        &["-u", "5:6", "--hostname", "x", "--shm-size", "1m"],
        &["--pid", "host"],
    ] {
        case.sh(
            options,
            "rm -rf /data /bin/vi; echo x >/etc/passwd; echo >>/data/hard; mkdir /x; chmod 700 /etc; ln /bin/sh /y",
        )
        .stdout
        .clear();
        assert_eq!(case.image.digest(), before, "{options:?}");
    }
    case.gpurun(&[], &["nothing"]).finish().ends(127);
    let mut running = case.gpurun(&[], &["sh", "-c", "echo x >/data/x; echo up; sleep 1000"]).start();
    running.until("up").child.kill().unwrap();
    drop(running);
    assert_eq!(case.image.digest(), before);
    case.image.mode("/data/closed", 0o755);
}

#[test]
fn everything_can_be_written_and_nothing_stays() {
    let case = full();
    let script = "echo x >/data/a/b && cat /data/hard /data/a/b && rm -r /data && mkdir /data && echo y >/data/z && mv /etc/passwd /p && \
                  chmod 600 /bin/busybox && ls /data";
    assert_eq!(case.sh(&[], script).ok(), "bx\nz\n");
    assert_eq!(case.sh(&[], "ls /data").ok(), "a\nclosed\nhard\nlink\nsecret\n");
    case.image.mode("/data/closed", 0o755);
}

#[test]
fn read_only_is() {
    let case = Case::new();
    let script = "touch /x; mkdir /tmp/y; echo >>/etc/passwd; rm /bin/vi; mount -o remount,rw /; touch /z; touch /t/x && echo tmpfs";
    let finished = case.sh(&["--read-only", "--root", "--tmpfs", "/t"], script);
    assert_eq!(finished.stdout, "tmpfs\n");
    assert_eq!(finished.stderr.matches("Read-only file system").count(), 5, "{finished:?}");
}

#[test]
fn the_roots_own_mode_is_the_images() {
    let case = Case::new();
    for mode in [0o755, 0o700, 0o555, 0o1777] {
        std::fs::set_permissions(case.image.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(case.sh(&[], "stat -c %a /").ok(), format!("{mode:o}\n"));
    }
    std::fs::set_permissions(case.image.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn set_user_id_and_devices_of_the_image_have_no_effect() {
    let case = Case::new();
    case.image.executable("/suid", "#!/bin/sh\nid -u\n");
    case.image.mode("/suid", 0o6755);
    assert_eq!(
        case.sh(&[], "grep ' / ' /proc/mounts | grep -c nosuid,nodev; grep NoNewPrivs /proc/self/status").ok(),
        "1\nNoNewPrivs:\t1\n"
    );
}

#[test]
fn an_image_with_links_where_the_system_goes_is_refused() {
    for name in ["/dev", "/proc", "/sys"] {
        let case = Case::new();
        case.image.dir("/elsewhere");
        case.image.link(name, "/elsewhere");
        case.sh(&[], ":").refused(&["symbolic link", name]);
        case.sh(&[], ":").refused(&["symbolic link", name]);
    }
}

#[test]
fn images_that_are_none_are_refused() {
    let case = Case::new();
    let run = |image: &str| {
        let mut command = case.bare();
        command.args([image, "true"]).finish()
    };
    run("dir:/no/such/tree").refused(&["/no/such/tree", "No such file"]);
    run(&format!("dir:{}", text(&case.file("file", "")))).refused(&["file", "Not a directory"]);
    run("").refused(&[]);
    std::fs::create_dir(case.path("empty")).unwrap();
    run(&format!("dir:{}", text(&case.path("empty")))).failed(127, &["true"]);
}

#[test]
fn an_image_below_what_is_bound_is_no_problem() {
    let case = Case::new();
    let option = format!("{}:/all", text(&case.path("")));
    assert_eq!(case.sh(&["-v", &option], "ls /all/image/bin/busybox").ok(), "/all/image/bin/busybox\n");
}

#[test]
fn a_tree_of_somebody_elses_can_be_run_and_written_where_gpurun_makes_something() {
    let case = Case::new();
    if !can(!nix::unistd::geteuid().is_root(), "an ordinary user") {
        return;
    }
    let option = format!("{}:/share/new/place", text(&case.path("work")));
    let script = "export PATH=/none; b=/bin/busybox; $b ls -d /share/new/place; $b id -un; $b touch /etc/x && echo ours; $b touch /lib/x 2>&1";
    for options in [&[][..], &["--root"]] {
        let mut command = case.bare();
        command.args(options).args(["-v", &option, "dir:/usr", "/bin/busybox", "sh", "-c", script]);
        let finished = command.finish();
        let lines: Vec<_> = finished.stdout.lines().collect();
        assert_eq!((lines[0], lines[2], finished.status), ("/share/new/place", "ours", 1), "{finished:?}");
        assert!(options.is_empty() || lines[1] == "root", "{finished:?}");
    }
}
