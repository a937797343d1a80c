//! What an image's config says of the process: Docker's rules, through images that were pulled.

use serde_json::{Value, json};

use crate::support::image::{Image, file, oci, verb};
use crate::support::{Case, Finish, Finished};
use nix::sys::signal::Signal;

/// Runs `gpurun OPTIONS IMAGE ARGV` with an image of this config.
fn run(config: Value, options: &[&str], argv: &[&str]) -> Finished {
    let case = Case::new();
    let accounts = [
        file("etc/passwd", "root:x:0:0::/root:/bin/sh\nbuilder:x:1234:55::/home/builder:/bin/sh\n"),
        file("etc/group", "root:x:0:\nstaff:x:77:builder\n"),
    ];
    let reference = oci(&Image::busybox().layer(accounts).config(config).layout(&case, "layout"));
    verb(&case, &[options, &["-q", &reference], argv].concat()).finish()
}

#[test]
fn entrypoint_and_cmd_make_the_command() {
    let both = json!({"Entrypoint": ["echo", "entry"], "Cmd": ["cmd", "more"]});
    let cmd = json!({"Cmd": ["echo", "cmd"]});
    let entry = json!({"Entrypoint": ["echo", "entry"], "Cmd": null});
    for (config, options, argv, want) in [
        (&both, &[][..], &[][..], "entry cmd more\n"),
        (&both, &[], &["mine"], "entry mine\n"),
        (&both, &["--entrypoint", "echo"], &[], "\n"),
        (&both, &["--entrypoint", "echo"], &["mine"], "mine\n"),
        (&both, &["--entrypoint", ""], &["echo", "mine"], "mine\n"),
        (&cmd, &[], &[], "cmd\n"),
        (&cmd, &[], &["echo", "mine"], "mine\n"),
        (&entry, &[], &[], "entry\n"),
        (&entry, &[], &["-n", "mine"], "entry -n mine\n"),
    ] {
        assert_eq!(run(config.clone(), options, argv).ok(), want, "{config} {options:?} {argv:?}");
    }
    run(json!({}), &[], &[]).refused(&["no command", "hint: "]);
    run(both, &["--entrypoint", ""], &[]).refused(&["no command"]);
    run(json!({"Cmd": [""]}), &[], &[]).refused(&["no command"]);
}

#[test]
fn what_the_image_names_and_has_not_is_127_and_126() {
    run(json!({"Entrypoint": ["/no/such"]}), &[], &[]).failed(127, &["/no/such"]);
    run(json!({"Entrypoint": ["/etc/passwd"]}), &[], &[]).failed(126, &["/etc/passwd"]);
}

#[test]
fn env_is_the_images_below_the_callers_options() {
    let config = json!({"Env": ["PATH=/mine:/bin", "A=image", "B=b=c", "EMPTY=", "LANG=image"], "Cmd": ["env"]});
    let finished = run(config, &["-e", "A=option"], &[]);
    let lines: Vec<_> = finished.ok().lines().collect();
    for line in ["PATH=/mine:/bin", "A=option", "B=b=c", "EMPTY=", "LANG=image"] {
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }
    assert_eq!(lines.iter().filter(|line| line.starts_with("A=")).count(), 1);
}

#[test]
fn the_working_directory_is_made_and_leads_nowhere_else() {
    let pwd = |dir: &str, options: &[&str]| run(json!({"WorkingDir": dir, "Cmd": ["pwd"]}), options, &[]);
    assert_eq!(pwd("/srv/not/there", &[]).ok(), "/srv/not/there\n");
    assert_eq!(pwd("", &[]).ok(), "/\n");
    assert_eq!(pwd("/srv", &["-w", "/etc"]).ok(), "/etc\n");
    pwd("relative", &[]).refused(&["relative", "not an absolute path"]);
    pwd("/etc/passwd", &[]).refused(&["/etc/passwd"]);
    for hostile in ["/proc/self/fd/3", "/proc/self/fd/4/../..", "/dev/fd/5"] {
        let finished = pwd(hostile, &[]);
        assert!(finished.status == 125 || finished.stdout.starts_with('/'), "{hostile}: {finished:?}");
        assert!(!finished.stdout.contains("unreachable"), "{hostile}: {finished:?}");
    }
}

#[test]
fn the_user_is_numeric_or_named_by_the_image() {
    let id = |user: &str| run(json!({"User": user, "Cmd": ["id"]}), &[], &[]);
    for user in ["nobody-here", "root:nobody-here", "builder:nobody-here", "4294967295", "-1", "99999999999"] {
        let name = user.rsplit(':').next().unwrap();
        let finished = id(user);
        finished.refused(&[name]);
        assert!(finished.stderr.contains("image"), "it says where the name is from: {finished:?}");
    }
    let asked = |user: &str| run(json!({"Cmd": ["sh", "-c", "id -u; id -g"]}), &["-u", user], &[]);
    assert_eq!(asked("builder").ok(), "1234\n55\n");
    assert_eq!(asked("builder:staff").ok(), "1234\n77\n");
    assert_eq!(asked("5:6").ok(), "5\n6\n");
    asked("nobody-here").refused(&["nobody-here"]);
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    for (user, want) in [
        ("builder", "1234\n55\n".to_owned()),
        ("1234:77", "1234\n77\n".into()),
        ("builder:staff", "1234\n77\n".into()),
        ("999999", "999999\n0\n".into()),
        ("", format!("{uid}\n{gid}\n")),
        ("root", format!("{uid}\n{gid}\n")),
        ("0:0", format!("{uid}\n{gid}\n")),
    ] {
        let config = json!({"User": user, "Cmd": ["sh", "-c", "id -u; id -g"]});
        assert_eq!(run(config, &[], &[]).ok(), want, "{user}");
    }
}

#[test]
fn the_stop_signal_is_what_sigterm_becomes() {
    for (config, options, want) in [
        (json!({"StopSignal": "SIGINT"}), &[][..], "INT\n"),
        (json!({"StopSignal": "10"}), &[], "USR1\n"),
        (json!({"StopSignal": "SIGINT"}), &["--stop-signal", "USR2"], "USR2\n"),
        (json!({}), &[], "TERM\n"),
    ] {
        let case = Case::new();
        let reference = oci(&Image::busybox().config(config).layout(&case, "layout"));
        let script =
            "for s in TERM INT USR1 USR2; do trap \"echo $s; exit\" $s; done; echo up; while :; do sleep 0.05; done";
        let mut running = verb(&case, &[options, &["-q", &reference, "sh", "-c", script]].concat()).start();
        running.until("up").signal(Signal::SIGTERM);
        assert_eq!(format!("{}\n", running.line()), want);
        running.finish().ends(0);
    }
    run(json!({"StopSignal": "SIGNONSENSE", "Cmd": ["true"]}), &[], &[]).refused(&["SIGNONSENSE", "StopSignal"]);
}

/// Fields that Docker writes and that change nothing here, and what only a hostile image has.
#[test]
fn the_rest_of_the_config_changes_nothing() {
    let config = json!({
        "Cmd": ["echo", "x"], "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}, "/etc": {}}, "Labels": {"a": "b"},
        "Healthcheck": {"Test": ["CMD", "false"]}, "OnBuild": ["RUN x"], "Shell": ["/bin/sh"], "ArgsEscaped": true,
        "Hostname": "h", "AttachStdin": false, "Image": "", "MacAddress": null, "Unheard": {"of": 1},
    });
    assert_eq!(run(config, &[], &[]).ok(), "x\n");
    run(json!({"Cmd": ["echo\u{0}x"]}), &[], &[]).refused(&[]);
    let env = run(json!({"Cmd": ["env"], "Env": ["LD_PRELOAD=/x", "=y", "novalue", "GPURUN_STORE=/x"]}), &[], &[]);
    assert_eq!(env.status, 0, "{env:?}");
}
