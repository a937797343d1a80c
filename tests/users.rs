//! Who the workload is.

use nix::unistd::{getegid, geteuid};

use crate::support::{Case, Finish};

#[test]
fn ids_are_the_callers_or_those_asked_for() {
    let case = Case::new();
    case.image.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:500:501::/srv/app:/bin/sh\n");
    case.image.file("/etc/group", "root:x:0:\napps:x:501:\nstaff:x:50:\n");
    let own = format!("{} {}", geteuid(), getegid());
    for (options, ids, home) in [
        (&[][..], &*own, None),
        (&["--root"], "0 0", Some("/root")),
        (&["-u", "77"], "77 0", Some("/")),
        (&["-u", "77:88"], "77 88", Some("/")),
        (&["-u", "app"], "500 501", Some("/srv/app")),
        (&["-u", "app:staff"], "500 50", Some("/srv/app")),
        (&["-u", "0"], "0 0", Some("/root")),
    ] {
        let finished = case.sh(options, "echo $(id -u) $(id -g); echo $HOME; touch /tmp/x && stat -c '%u %g' /tmp/x");
        let lines: Vec<_> = finished.ok().lines().collect();
        assert_eq!((lines[0], lines[2]), (ids, ids), "{options:?}");
        assert!(home.is_none_or(|home| lines[1] == home), "{options:?}: {lines:?}");
    }
}

#[test]
fn unknown_users_are_refused() {
    let case = Case::new();
    case.image.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    for user in ["nobody", "root:nogroup", "4294967295", "2147483648", "-1", "a:b:c"] {
        case.sh(&["--user", user], ":").refused(&[user.split(':').next_back().unwrap()]);
    }
    case.sh(&["--user", "1", "--root"], ":").ends(125);
}

#[test]
fn the_caller_has_an_entry_whatever_the_image_has() {
    let case = Case::new();
    let script = "id -un; id -gn; awk -F: -v u=$(id -u) '$3 == u {print $6}' /etc/passwd";
    let want = |name: &str| format!("{name}\n{name}\n{}\n", crate::support::text(&case.path("home")));
    let name = crate::support::Finish::finish(std::process::Command::new("id").arg("-un")).ok().trim().to_owned();
    for (passwd, group) in [(None, None), (Some("root:x:0:0:root:/root:/bin/sh\n"), Some("root:x:0:\n"))] {
        for (path, content) in [("/etc/passwd", passwd), ("/etc/group", group)] {
            if let Some(content) = content {
                case.image.file(path, content);
            }
        }
        if !geteuid().is_root() {
            assert_eq!(case.sh(&[], script).ok(), want(&name));
        }
        assert_eq!(case.sh(&["--root"], "id -un; id -gn").ok(), "root\nroot\n");
    }
}

#[test]
fn account_files_that_are_none_do_not_hang_or_lead_outside() {
    let secret = "root:x:0:0:secret:/root:/bin/sh\n";
    let case = Case::new();
    let outside = case.file("secret", secret);
    let passwd = case.image.at("/etc/passwd");
    let clear = || {
        let _ = std::fs::remove_file(&passwd).or_else(|_| std::fs::remove_dir(&passwd));
    };
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
    case.sh(&[], ":").refused(&["/etc/passwd", "regular file"]);
    clear();
    std::fs::create_dir(&passwd).unwrap();
    case.sh(&[], ":").refused(&["/etc/passwd", "regular file"]);
    clear();
    std::fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
    case.sh(&[], ":").refused(&["/etc/passwd", "larger"]);
    clear();
    case.image.link("/etc/passwd", "/etc/passwd");
    case.sh(&[], ":").refused(&["/etc/passwd", "symbolic links"]);
    clear();
    case.image.link("/etc/passwd", "/proc/self/environ");
    assert_eq!(case.sh(&[], "echo x").stdout, "x\n");
    clear();
    std::os::unix::fs::symlink(&outside, &passwd).unwrap();
    assert_eq!(case.sh(&[], "grep -c secret /etc/passwd").stdout, "0\n");
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), secret);
    clear();
    case.image.link("/etc/passwd", "../../../../../../../../../../etc/passwd");
    case.sh(&[], ":").refused(&["/etc/passwd", "symbolic links"]);
}

#[test]
fn names_with_separators_forge_nothing() {
    let case = Case::new();
    let finished = case
        .gpurun(&[], &["sh", "-c", "grep -c evil /etc/passwd; wc -l </etc/passwd"])
        .env("HOME", "/x:/bin/sh\nevil:x:0:0::/")
        .finish();
    assert!(!finished.stdout.starts_with('1'), "{finished:?}");
}

#[test]
fn the_callers_groups_keep_working() {
    let case = Case::new();
    let host = Finish::finish(std::process::Command::new("id").arg("-G")).ok().split_whitespace().count();
    assert_eq!(case.sh(&[], "id -G").ok().split_whitespace().count(), host);
}

#[test]
fn ranges_of_ids_are_refused_where_there_are_none() {
    let case = Case::new();
    let name = Finish::finish(std::process::Command::new("id").arg("-un")).ok().trim().to_owned();
    let ranges = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    // Where there are some, `ids_range` has more to say.
    if !ranges.lines().any(|line| line.starts_with(&format!("{name}:"))) {
        for options in [&["--ids", "range"][..], &["--ids", "range", "--root"], &["--ids", "range", "-u", "7"]] {
            let told = format!("`/etc/subuid` has none for `{name}`");
            case.sh(options, "echo ran").refused(&[&told, "usermod --add-subuids", "--fakeroot"]);
        }
        let finished = case.gpurun(&[], &["echo", "ran"]).env("GPURUN_IDS", "range").finish();
        finished.refused(&["/etc/subuid"]);
    }
    for ids in ["auto", "single"] {
        assert_eq!(case.sh(&["--ids", ids], "cat /proc/self/uid_map").ok().lines().count(), 1);
    }
    case.sh(&["--ids", "range", "--fakeroot"], "echo ran").refused(&["`--fakeroot`", "`--root --ids range`"]);
    case.sh(&["--ids", "some"], "echo ran").ends(125);
}
