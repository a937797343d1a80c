//! `--seccomp` and `--fakeroot`: what the kernel refuses, and what it only says it has done.

use std::path::Path;

use crate::support::filter::refuse;
use crate::support::{Case, Finish, can, text};

/// Has a name for each thing that it tries, with the exit status of the try.
const TRIES: &str = "try() { n=$1; shift; \"$@\" >/dev/null 2>&1; echo $n $?; }
    try userns unshare -U true; try trace sh -c 'kill -0 $$'; try fifo mkfifo /f; try pipe sh -c 'echo x | cat'";

#[test]
fn the_default_profile_is_dockers_and_none_is_the_default() {
    let case = Case::new();
    let mode = "grep Seccomp: /proc/self/status | cut -f2";
    assert_eq!(case.sh(&[], mode).ok(), "0\n");
    assert_eq!(case.sh(&["--seccomp", "none"], mode).ok(), "0\n");
    for who in [&[][..], &["--root"]] {
        let options = [who, &["--seccomp", "default"]].concat();
        assert_eq!(case.sh(&options, mode).ok(), "2\n");
        assert_eq!(case.sh(&options, TRIES).ok(), "userns 1\ntrace 0\nfifo 0\npipe 0\n");
        assert_eq!(case.sh(who, TRIES).ok(), "userns 0\ntrace 0\nfifo 0\npipe 0\n");
    }
    let finished = case.gpurun(&[], &["sh", "-c", mode]).env("GPURUN_SECCOMP", "default").finish();
    assert_eq!(finished.ok(), "2\n");
}

#[test]
fn profiles_of_ones_own() {
    let case = Case::new();
    let profile = |name: &str, rules: &str| {
        let text = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rules}]}}"#);
        text_of(&case, name, &text)
    };
    let no_links = r#"{"names": ["symlink", "symlinkat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}"#;
    let finished = case.sh(&["--seccomp", &profile("a", no_links)], "ln -s a /b; echo $?");
    assert_eq!((&*finished.stdout, finished.stderr.contains("No space left on device")), ("1\n", true), "{finished:?}");
    // A rule for what a process may do otherwise holds where it may: a fake root keeps CAP_DAC_OVERRIDE.
    let of_root = no_links.replace("\"errnoRet\"", r#""includes": {"caps": ["CAP_DAC_OVERRIDE"]}, "errnoRet""#);
    let of_root = profile("root", &of_root);
    for (who, status) in [("--root", "0\n"), ("--fakeroot", "1\n")] {
        let finished = case.sh(&[who, "--seccomp", &of_root], "ln -s a /b; echo $?");
        assert_eq!(finished.stdout, status, "{who} {finished:?}");
    }
    let deadly = r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}"#;
    case.gpurun(&["--seccomp", &profile("b", deadly)], &["mkdir", "/x"]).finish().ends(128 + libc::SIGSYS);
    let unstartable = r#"{"names": ["execve", "execveat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}"#;
    case.sh(&["--seccomp", &profile("c", unstartable)], ":").failed(126, &["execve `/bin/sh`", "EACCES"]);
}

fn text_of(case: &Case, name: &str, content: &str) -> String {
    text(&case.file(name, content)).to_owned()
}

#[test]
fn profiles_that_are_none_are_refused_before_anything_starts() {
    let case = Case::new();
    let large = case.file("large", "");
    std::fs::File::options().write(true).open(&large).unwrap().set_len(2 << 20).unwrap();
    for (profile, words) in [
        ("/no/such/profile", &["/no/such/profile", "No such file"][..]),
        (text(&large), &["large", "larger"]),
        (&text_of(&case, "text", "x"), &["text", "line 1"]),
        (&text_of(&case, "odd", r#"{"defaultAction": "SCMP_ACT_ODD"}"#), &["SCMP_ACT_ODD"]),
        (&text_of(&case, "notify", r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#), &["SCMP_ACT_NOTIFY", "agent"]),
        ("", &["`--seccomp`"]),
    ] {
        case.sh(&["--seccomp", profile], "echo ran").refused(words);
    }
}

#[test]
fn the_filter_is_in_the_plan_and_in_the_spec() {
    let case = Case::new();
    let shown = |verb: &str, options: &[&str]| {
        let mut command = case.bare();
        command.arg(verb).args(options).arg(case.reference()).arg("true").finish().ok().to_owned()
    };
    let explained = shown("explain", &["--seccomp", "default"]);
    assert!(explained.contains("all other calls: refused  (--seccomp default)"), "{explained}");
    assert!(shown("explain", &[]).contains("(--seccomp none)"));
    let spec: serde_json::Value =
        serde_json::from_str(&shown("spec", &["--seccomp", "default", "--fakeroot"])).unwrap();
    let seccomp = &spec["linux"]["seccomp"];
    assert_eq!((&seccomp["defaultAction"], &seccomp["defaultErrnoRet"]), (&"SCMP_ACT_ERRNO".into(), &1.into()));
    assert_eq!(seccomp["syscalls"][0]["errnoRet"], 0);
    assert_eq!(spec["process"]["capabilities"]["bounding"], serde_json::json!(["CAP_DAC_OVERRIDE"]));
    let plain: serde_json::Value = serde_json::from_str(&shown("spec", &[])).unwrap();
    assert_eq!(plain["linux"]["seccomp"], serde_json::Value::Null);
}

#[test]
fn a_fake_root_changes_owners_and_ids_and_makes_nodes() {
    let case = Case::new();
    let script = "set -e; touch /x /y; chown 5:7 /x; chgrp 9 /y; chown -h 1 /bin/sh; mknod /n b 8 0; mknod /c c 1 3; mkfifo /f; test -p /f
        su -s /bin/sh nobody -c 'echo became'; stat -c '%u %g' /x; echo s >/s; chmod 0 /s; cat /s; id -u";
    case.image.file("/etc/passwd", "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
    case.image.file("/etc/group", "root:x:0:\nnobody:x:65534:\n");
    for seccomp in ["none", "default"] {
        assert_eq!(case.sh(&["--fakeroot", "--seccomp", seccomp], script).ok(), "became\n0 0\ns\n0\n");
    }
    for command in
        ["touch /x; chown 5:7 /x", "mknod /n b 8 0", "su -s /bin/sh nobody -c :", "echo >/s; chmod 0 /s; cat /s"]
    {
        assert_ne!(case.sh(&["--root"], command).status, 0, "{command}");
    }
    case.sh(&["--fakeroot", "-u", "5"], ":").ends(125);
}

/// As a tmpfs is before Linux 6.6: neither dpkg nor rpm could move a new directory to its place.
#[test]
fn where_no_package_can_be_installed_a_fake_root_is_told_what_works() {
    let case = Case::new();
    let under = |options: &[&str]| {
        let mut command = case.gpurun(options, &["echo", "ran"]);
        refuse(&mut command, "fgetxattr", None, libc::EOPNOTSUPP);
        command.finish()
    };
    let told = under(&["--fakeroot"]);
    assert_eq!((told.status, &*told.stdout), (0, "ran\n"), "{told:?}");
    assert!(told.stderr.starts_with("gpurun: packages cannot be installed here"), "{told:?}");
    assert!(told.stderr.contains("`--overlay DIR`") && told.stderr.lines().count() == 1, "{told:?}");
    assert_eq!(under(&["--root"]).ok(), "ran\n");
    case.sh(&["--fakeroot"], ":").ok();
}

#[test]
fn apt_is_told_to_stay_root_where_there_is_one() {
    let case = Case::new();
    let settings = "cat /etc/apt/apt.conf.d/*";
    case.sh(&["--fakeroot"], settings).ends(1);
    case.image.dir("/etc/apt/apt.conf.d");
    assert_eq!(case.sh(&["--fakeroot"], settings).ok(), "APT::Sandbox::User \"root\";\n");
    case.sh(&["--root"], settings).ends(1);
}

/// A package whose files belong to somebody, as dpkg reads it (deb(5)).
fn package() -> Vec<u8> {
    let tar = |entries: &[(&str, &str, u64, u32)]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content, owner, mode) in entries {
            let mut header = tar::Header::new_gnu();
            let kind = if path.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_uid(*owner);
            header.set_gid(*owner);
            header.set_mode(*mode);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let control = "Package: owned\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n";
    let postinst = "#!/bin/sh\nset -e\nchown 33:33 /srv/owned/file\n";
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", tar(&[("./control", control, 0, 0o644), ("./postinst", postinst, 0, 0o755)])),
        (
            "data.tar",
            tar(&[("./srv/", "", 0, 0o755), ("./srv/owned/", "", 33, 0o755), ("./srv/owned/file", "x\n", 33, 0o4755)]),
        ),
    ];
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in members {
        archive.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
        archive.extend(&content);
        archive.resize(archive.len().next_multiple_of(2), b'\n');
    }
    archive
}

#[test]
fn dpkg_installs_what_belongs_to_somebody_else() {
    let case = Case::new();
    installs(&case, &["--fakeroot"], "0 0 4755");
}

/// `gpurun OPTIONS … dpkg -i` succeeds, and with one id not, and the file then has this owner, group and mode.
pub(crate) fn installs(case: &Case, options: &[&str], owned: &str) {
    if !can(Path::new("/usr/bin/dpkg").exists() && Path::new("/lib").is_symlink(), "dpkg, and /lib in /usr") {
        return;
    }
    for dir in ["/var/lib/dpkg/info", "/var/lib/dpkg/updates", "/var/lib/dpkg/triggers"] {
        case.image.dir(dir);
    }
    for file in ["/var/lib/dpkg/status", "/var/lib/dpkg/available"] {
        case.image.file(file, "");
    }
    std::fs::remove_dir_all(case.image.at("/bin")).unwrap();
    for dir in ["bin", "sbin", "lib", "lib64"] {
        case.image.link(&format!("/{dir}"), &format!("usr/{dir}"));
    }
    case.image.file("/owned.deb", package());
    let install = |who: &[&str]| {
        let options = [who, &["-v", "/usr:/usr:ro", "-e", "DPKG_FORCE=not-root"]].concat();
        case.sh(&options, "dpkg -i /owned.deb >/log 2>&1; status=$?; cat /srv/owned/file; stat -c '%u %g %a' /srv/owned/file; dpkg-query -f '${Status}\n' -W; exit $status")
    };
    let finished = install(options);
    let want = format!("x\n{owned}\ninstall ok installed\n");
    assert_eq!((finished.status, &finished.stdout), (0, &want), "{finished:?}");
    assert_ne!(install(&["--root"]).status, 0);
}

const SPEC: &str = "Name: owned
Version: 1
Release: 1
Summary: x
License: x
BuildArch: noarch
%description
x
%install
mkdir -p %{buildroot}/srv/owned
for name in file set-id capable; do echo x >%{buildroot}/srv/owned/$name; done
ln -s file %{buildroot}/srv/owned/link
%post
chown 33:33 /srv/owned/file
%files
%dir %attr(0750,mail,mail) /srv/owned
%attr(0640,daemon,mail) /srv/owned/file
%attr(4755,daemon,daemon) /srv/owned/set-id
%attr(0755,root,root) %caps(cap_net_raw=ep) /srv/owned/capable
%attr(-,daemon,daemon) /srv/owned/link
";

/// As dnf does through the same library.
#[test]
fn rpm_installs_what_belongs_to_somebody_else() {
    let case = Case::new();
    if !can(Path::new("/usr/bin/rpmbuild").exists() && Path::new("/lib").is_symlink(), "rpm, and /lib in /usr") {
        return;
    }
    let mut build = std::process::Command::new("rpmbuild");
    case.surround(build.arg("-bb").arg(format!("-D_rpmdir {}", text(&case.path("image")))));
    let built = build.arg(case.file("owned.spec", SPEC)).finish();
    assert_eq!(built.status, 0, "{built:?}");
    std::fs::remove_dir_all(case.image.at("/bin")).unwrap();
    for dir in ["bin", "sbin", "lib", "lib64"] {
        case.image.link(&format!("/{dir}"), &format!("usr/{dir}"));
    }
    case.image.file("/etc/passwd", "root:x:0:0::/:/bin/sh\ndaemon:x:1:1::/:/bin/sh\nmail:x:8:8::/:/bin/sh\n");
    case.image.file("/etc/group", "root:x:0:\ndaemon:x:1:\nmail:x:8:\n");
    let install = |who: &str| {
        let script = "rpm -i --nodeps --dbpath /var/lib/rpm /noarch/owned-1-1.noarch.rpm >/log 2>&1; status=$?; \
                      stat -c '%a %u' /srv/owned /srv/owned/*; rpm -q --dbpath /var/lib/rpm owned; exit $status";
        case.sh(&[who, "-v", "/usr:/usr:ro"], script)
    };
    let fake = install("--fakeroot");
    let modes = "750 0\n755 0\n640 0\n777 0\n4755 0\n";
    assert_eq!((fake.status, &*fake.stdout), (0, &*format!("{modes}owned-1-1.noarch\n")), "{fake:?}");
    assert_ne!(install("--root").status, 0);
}
