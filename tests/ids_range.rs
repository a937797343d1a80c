//! `--ids range`: owners and users that are real, for a caller with subordinate ids. `tests/run` runs these as one.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};

use crate::support::image::{Image, file, oci, verb};
use crate::support::process::{Running, count, eventually};
use crate::support::pty::Pty;
use crate::support::{Case, Finish, Finished, can, program, text};
use crate::{escapes, tight};

const ROOT: &[&str] = &["--root", "--ids", "range"];

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID and SETFCAP, as /proc shows them.
const OF_ROOT: &str = "00000000800000fb";

/// A test's surroundings with some accounts; `None` where the caller has no subordinate ids.
fn case() -> Option<Case> {
    if !can(first("uid").is_some() && first("gid").is_some(), "subordinate ids: usermod --add-subuids, --add-subgids") {
        return None;
    }
    let case = Case::new();
    case.image.mode("/tmp", 0o1777);
    case.image.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:500:501::/srv/app:/bin/sh\n");
    case.image.file("/etc/group", "root:x:0:\napps:x:501:\nstaff:x:50:app\nvideo:x:44:you,app\n");
    Some(case)
}

/// The caller's first subordinate id.
fn first(kind: &str) -> Option<u32> {
    let name = Command::new("id").arg("-un").finish().ok().trim().to_owned();
    let ranges = std::fs::read_to_string(format!("/etc/sub{kind}")).unwrap_or_default();
    let of_caller = |line: &str| line.strip_prefix(&format!("{name}:"))?.split(':').next()?.parse().ok();
    ranges.lines().find_map(of_caller)
}

/// A directory on the host in which everybody may write, and the option that binds it at /d.
fn shared(case: &Case) -> String {
    let dir = case.path("shared");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o1777)).unwrap();
    format!("-v{}:/d", text(&dir))
}

/// A run that has started and stays until the test ends.
fn running(case: &Case, options: &[&str]) -> Running {
    let mut running = case.gpurun(options, &["sh", "-c", "echo up; sleep 1000; :"]).start();
    running.until("up");
    running
}

fn exec(case: &Case, run: &Running, options: &[&str], script: &str) -> Finished {
    let mut command = case.bare();
    command.arg("exec").args(options).args([&run.pid().to_string(), "sh", "-c", script]).finish()
}

#[test]
fn root_changes_owners_and_becomes_others() {
    let Some(case) = case() else { return };
    let script = "set -e; stat -c '%u %g' /etc/passwd; touch /x /y; chown 5:7 /x; stat -c '%u %g' /x; chown 65536 /y; chmod 0 /x; cat /x
        su app -c 'id -u; id -g; id -G; touch /tmp/z; echo >/x' || echo refused; stat -c '%u %g' /tmp/z; chown 65537 /y || echo none";
    let finished = case.sh(ROOT, script);
    assert_eq!(finished.stdout, "0 0\n5 7\n500\n501\n501 44 50\nrefused\n500 501\nnone\n", "{finished:?}");
    let before = case.image.digest();
    case.sh(ROOT, "chown -R 5:5 /bin").ok();
    assert_eq!(case.image.digest(), before);
}

#[test]
fn packages_are_installed_with_their_owners() {
    let Some(case) = case() else { return };
    tight::installs(&case, ROOT, "33 33 755"); // chown(2) takes the set-user-ID bit
}

#[test]
fn the_caller_is_itself_outside_and_others_are_its_subordinate_ids() {
    let Some(case) = case() else { return };
    let (bind, file) = (shared(&case), case.path("shared/file"));
    let (uid, gid, uids, gids) = (geteuid().as_raw(), getegid().as_raw(), first("uid").unwrap(), first("gid").unwrap());
    for (options, inside, outside) in [
        (&["--root"][..], "0 0", (uid, gid)),
        (&[], &*format!("{uid} {gid}"), (uid, gid)),
        (&["-u", "app"], "500 501", (uids + 500, gids + 501)),
        (&["-u", "0"], "0 0", (uids, gids)),
        (&["-u", "5:6"], "5 6", (uids + 5, gids + 6)),
        (&["-u", &format!("{uid}:{gid}")], &format!("{uid} {gid}"), (uid, gid)),
    ] {
        let options = [options, &["--ids", "range", &bind]].concat();
        let finished =
            case.sh(&options, "echo $(id -u) $(id -g); touch /d/file; echo x >/tmp/x; stat -c '%u %g' /d/file");
        assert_eq!(finished.ok(), format!("{inside}\n{inside}\n"), "{options:?}");
        let meta = std::fs::metadata(&file).unwrap();
        assert_eq!((meta.uid(), meta.gid()), outside, "{options:?}");
        case.sh(&["--root", "--ids", "range", &bind], "rm /d/file").ok();
    }
}

#[test]
fn the_images_user_is_the_caller() {
    let Some(case) = case() else { return };
    let accounts = [file("etc/passwd", "root:x:0:0::/root:/bin/sh\nbuilder:x:1234:55::/home/builder:/bin/sh\n")];
    let image = Image::busybox().layer(accounts).config(json!({"User": "builder"}));
    let reference = oci(&image.layout(&case, "layout"));
    let bind = shared(&case);
    let argv =
        ["--ids", "range", "-q", &bind, &reference, "sh", "-c", "id -u; id -g; touch /d/file; stat -c %u /bin/sh"];
    assert_eq!(verb(&case, &argv).finish().ok(), "1234\n55\n1234\n");
    assert_eq!(std::fs::metadata(case.path("shared/file")).unwrap().uid(), geteuid().as_raw());
}

#[test]
fn groups_and_directories_are_the_callers_or_another_users_own() {
    let Some(case) = case() else { return };
    let callers = Command::new("id").arg("-G").finish().ok().split_whitespace().count();
    let groups = |options: &[&str]| {
        let shown = case.sh(&[options, &["--ids", "range"]].concat(), "id -G").ok().to_owned();
        let mut groups: Vec<u32> = shown.split_whitespace().map(|id| id.parse().unwrap()).collect();
        groups.sort_unstable();
        groups
    };
    assert_eq!((groups(&[]).len(), groups(&["--root"]).len()), (callers, callers));
    assert_eq!(groups(&["-u", "app"]), [44, 50, 501]);
    assert_eq!(groups(&["-u", "app:staff"]), [50]);
    assert_eq!(groups(&["-u", "7:8"]), [8]);
    // What was made for the user is its own, with all that is in the image being the caller's.
    let home = case.sh(&["--ids", "range", "-u", "app", "-w", "/made/here"], "touch ~/x x; stat -c '%u %g' ~ . / /etc");
    let (uid, gid) = (geteuid(), getegid());
    assert_eq!(home.ok(), format!("500 501\n500 501\n{uid} {gid}\n{uid} {gid}\n"));
    // Neither in the overlay of an earlier run nor behind a link is it made before there is an overlay.
    let kept = case.path("kept");
    let kept = ["--ids", "range", "--overlay", text(&kept), "-u", "app"];
    case.sh(&kept, "true").ok();
    case.image.link("/linked", "/etc");
    for (place, overlay) in [("/later/here", &kept[..]), ("/linked/here", &["--ids", "range", "-u", "app"])] {
        assert_eq!(
            case.sh(&[overlay, &["-w", place]].concat(), "touch x; stat -c '%u %g' .").ok(),
            "500 501\n",
            "{place}"
        );
    }
}

#[test]
fn only_root_has_capabilities_and_only_those_over_its_ids() {
    let Some(case) = case() else { return };
    let script = "grep -E '^(Cap|NoNew)' /proc/self/status | cut -f2 | tr '\n' ' '";
    let (none, roots) = ("0000000000000000", OF_ROOT);
    for (options, has, bounds) in
        [(&["--root"][..], roots, roots), (&["-u", "0"], roots, roots), (&[], none, none), (&["-u", "app"], none, none)]
    {
        let shown = case.sh(&[options, &["--ids", "range"]].concat(), script);
        assert_eq!(shown.ok(), format!("{none} {has} {has} {bounds} {none} 1 "), "{options:?}");
    }
    let script = "mount -t tmpfs x /tmp || umount /proc || umount /sys || chroot / true || mknod /x b 8 0 || hostname x || echo none";
    assert_eq!(case.sh(ROOT, script).stdout, "none\n");
}

#[test]
fn nothing_comes_through() {
    let Some(_) = case() else { return };
    let granted = format!("GRANTED={OF_ROOT}");
    escapes::nothing_comes_through(&[
        &["--ids", "range"],
        &["--ids", "range", "-u", "5:6"],
        &["--ids", "range", "-e", &granted, "--root"],
        &["--ids", "range", "-e", &granted, "-u", "0"],
        &["--ids", "range", "-e", &granted, "--root", "--pid", "host"],
    ]);
}

#[test]
fn commands_beside_are_the_workload_or_any_user_that_there_is() {
    let Some(case) = case() else { return };
    let facts =
        "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g; id -G; echo $HOME; grep ^Cap /proc/self/status";
    for options in [&["--root"][..], &[], &["-u", "app"], &["-u", "0"]] {
        let options = [options, &["--ids", "range", "-w", "/tmp"]].concat();
        let run = running(&case, &options);
        assert_eq!(exec(&case, &run, &[], facts).ok(), case.sh(&options, facts).ok(), "{options:?}");
        for (user, who) in [("0", "0 0 0 /root"), ("app", "500 501 501 44 50 /srv/app"), ("5:6", "5 6 6 /")] {
            let shown = exec(&case, &run, &["-u", user], "echo $(id -u) $(id -g) $(id -G) $HOME; touch /tmp/$$");
            // Where it is the caller it keeps the caller's groups.
            let callers = options.contains(&"--root") && user == "0";
            assert!(
                shown.ok().trim() == who || callers && shown.ok().starts_with("0 0 "),
                "{options:?} {user}: {shown:?}"
            );
        }
        let owner = exec(
            &case,
            &run,
            &["-u", "0"],
            "touch /tmp/o; chown 5:6 /tmp/o; su app -c 'id -u'; stat -c '%u %g' /tmp/o",
        );
        assert_eq!(owner.ok(), "500\n5 6\n", "{options:?}");
        exec(&case, &run, &["-u", "nobody"], "echo ran").refused(&["unknown user `nobody`"]);
        exec(&case, &run, &["-u", "70000"], "echo ran").refused(&["user id 70000", "usermod"]);
    }
}

/// Whatever number and group the image gives a name: in a run and beside one.
#[test]
fn an_image_makes_nobody_the_caller() {
    let Some(case) = case() else { return };
    let (uid, gid) = (geteuid(), getegid());
    let passwd = format!(
        "root:x:0:0::/root:/bin/sh\nnobody:x:{uid}:5::/:/bin/sh\ngrouped:x:5:{gid}::/:/bin/sh\nmember:x:6:6::/:/bin/sh\n"
    );
    case.image.file("/etc/passwd", &passwd);
    case.image.file("/etc/group", format!("root:x:0:member\nmine:x:{gid}:member\nours:x:50:member\n"));
    let (run, root) = (running(&case, &["--ids", "range"]), running(&case, ROOT));
    for (user, words) in [("nobody", "would be you"), ("grouped", "would be yours")] {
        case.sh(&["--ids", "range", "-u", user], "echo ran").refused(&[words, "hint: "]);
        exec(&case, &run, &["-u", user], "echo ran").refused(&[words, "hint: "]);
    }
    assert_eq!(case.sh(&["--ids", "range", "-u", "member"], "id -G").ok(), "6 0 50\n");
    assert_eq!(exec(&case, &run, &["-u", "member"], "id -G").ok(), "6 0 50\n");
    // The caller's group is 0 in this one.
    assert_eq!(exec(&case, &root, &["-u", "member"], "id -G | grep -w 0 || echo none").ok(), "none\n");
    exec(&case, &root, &["-u", "7"], "echo ran").refused(&["would be yours, 0", "`-u 7:NUMBER`"]);
    assert_eq!(exec(&case, &root, &["-u", "root"], "id -u").ok(), "0\n");
}

#[test]
fn a_terminal_is_its_users() {
    let Some(case) = case() else { return };
    let script = "id -u; tty; echo opened >$(tty); stat -c %u $(tty)";
    let shown = |command: &Command| {
        let pty = &mut Pty::open();
        let mut child = pty.command(command).spawn().unwrap();
        pty.expect("opened\r\n500\r\n");
        assert!(child.wait().unwrap().success());
    };
    shown(case.gpurun(&["--ids", "range", "-u", "app"], &["sh", "-c", script]).env("TERM", "x"));
    let run = running(&case, ROOT);
    let mut command = case.bare();
    shown(command.args(["exec", "-u", "app", &run.pid().to_string(), "sh", "-c", script]));
}

#[test]
fn signals_and_the_end_reach_another_user() {
    let Some(case) = case() else { return };
    let word = format!("86406.{}", std::process::id());
    for options in [&["-u", "app"][..], &["--root"], &["-u", "app", "--pid", "host"], &["--root", "--pid", "host"]] {
        let options = [options, &["--ids", "range"]].concat();
        let script = format!("trap 'echo TERM; exit 3' TERM; echo up; while :; do sleep 0.05; done; : {word}");
        let mut run = case.gpurun(&options, &["sh", "-c", &script]).start();
        run.until("up").signal(Signal::SIGTERM).until("TERM");
        run.finish().ends(3);
        let mut run = case.gpurun(&options, &["sh", "-c", &script]).start();
        run.until("up").signal(Signal::SIGKILL);
        run.finish().ends(137);
        eventually("nothing is left", || count(&word) == 0);
    }
    // Whoever a process has become, without a PID namespace it ends with the workload as well.
    let script = format!("su app -s /bin/sh -c 'sleep 1000; : {word}' & echo up; sleep 0.2");
    case.sh(&["--root", "--ids", "range", "--pid", "host"], &script).ok();
    eventually("nothing is left", || count(&word) == 0);
}

#[test]
fn owners_stay_in_an_overlay() {
    let Some(case) = case() else { return };
    let kept = case.path("kept");
    let options = [ROOT, &["--overlay", text(&kept)]].concat();
    case.sh(&options, "mkdir /data; touch /data/f; chown 5:6 /data/f; chown 500:501 /etc/passwd").ok();
    assert_eq!(case.sh(&options, "stat -c '%u %g' /data/f /etc/passwd").ok(), "5 6\n500 501\n");
    let meta = std::fs::metadata(kept.join("upper/data/f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (first("uid").unwrap() + 4, first("gid").unwrap() + 5));
}

#[test]
fn what_the_mappers_refuse_is_told_and_nothing_stays() {
    let Some(case) = case() else { return };
    let word = format!("86407.{}", std::process::id());
    let mut command = Command::new("setpriv");
    command.arg("--no-new-privs").arg(program()).args(ROOT).arg(case.reference()).args(["echo", "ran", &word]);
    case.surround(&mut command);
    command.finish().refused(&["map the subordinate ids", "newuidmap` refused: ", "no_new_privs", "--ids single"]);
    eventually("nothing is left", || count(&word) == 0);
}

#[test]
fn the_plan_shows_what_is_mapped_and_why() {
    let Some(case) = case() else { return };
    let shown = |verb: &[&str], options: &[&str]| {
        let mut command = case.bare();
        command.args(verb).args(options).arg(case.reference()).arg("true").finish().ok().to_owned()
    };
    let (uid, gid) = (first("uid").unwrap(), first("gid").unwrap());
    let explained = shown(&["explain"], &["--ids", "range", "-u", "app"]);
    for line in [
        format!("user: 500:501 = {}:{} outside  (--user)", uid + 500, gid + 501),
        format!("  {0} = {0} outside  (--ids range, by /usr/bin/newuidmap)", geteuid()),
        "groups: [50, 44]".into(),
        "capabilities: none".into(),
    ] {
        assert!(explained.contains(&line), "{line} in {explained}");
    }
    let explained = shown(&["explain"], ROOT);
    for line in [&*format!("  1-65536 = {uid}-{} outside", uid + 65535), "groups: the caller's", "CAP_CHOWN"] {
        assert!(explained.contains(line), "{line} in {explained}");
    }
    let spec: Value = serde_json::from_str(&shown(&["spec"], &["--ids", "range", "-u", "app"])).unwrap();
    assert_eq!(spec["process"]["user"]["additionalGids"], json!([50, 44]));
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    assert_ne!(map, case.sh(ROOT, "cat /proc/self/uid_map").ok());
}
