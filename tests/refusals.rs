//! What gpurun cannot honour it refuses before anything starts: by name, with the reason, and what works instead.

use crate::support::{Case, Finish};

#[test]
fn usage_errors_are_125_and_go_to_stderr() {
    let case = Case::new();
    for arguments in [&["--no-such-option"][..], &["--network", "bogus", "x"], &["-w"], &["explain"], &[]] {
        let finished = case.bare().args(arguments).finish();
        assert_eq!((finished.status, &*finished.stdout), (125, ""), "{arguments:?}: {finished:?}");
        assert_ne!(finished.stderr, "");
    }
    case.bare().arg("--help").finish().ends(0);
    assert!(case.bare().arg("--version").finish().ok().starts_with("gpurun "));
}

#[test]
fn options_of_docker_that_make_no_sense_are_refused_with_the_reason() {
    let case = Case::new();
    for (options, words) in [
        (&["--privileged"][..], ["--privileged", "ordinary user"]),
        (&["--cap-add", "SYS_ADMIN"], ["--cap-add", "capabilit"]),
        (&["-d"], ["--detach", "foreground"]),
        (&["--detach"], ["--detach", "foreground"]),
        (&["-p", "80:80"], ["--publish", "host's network"]),
        (&["--publish=80:80"], ["--publish", "host's network"]),
        (&["--memory", "1g"], ["--memory", "cgroup"]),
        (&["-m", "1g"], ["--memory", "cgroup"]),
        (&["--cpus", "2"], ["--cpus", "cgroup"]),
        (&["--restart", "always"], ["--restart", "once"]),
        (&["--init=false"], ["--init=false", "init"]),
        (&["--volumes-from", "x"], ["--volumes-from", "container"]),
        (&["--runtime", "nvidia"], ["--runtime", "--gpus"]),
        (&["--security-opt", "x"], ["--security-opt", "no_new_privs"]),
    ] {
        let finished = case.gpurun(options, &["echo", "ran"]).finish();
        finished.refused(&words);
    }
}

#[test]
fn gpus_are_not_needed_to_run() {
    let case = Case::new();
    let driver = ["/proc/driver/nvidia/version", "/dev/nvidiactl"].iter().any(|p| std::path::Path::new(p).exists());
    assert_eq!(case.sh(&["--gpus", "none"], "echo x").ok(), "x\n");
    let auto = case.sh(&["--gpus", "auto"], "echo x");
    if !driver {
        assert_eq!((auto.status, &*auto.stdout), (0, "x\n"));
        assert_eq!(auto.stderr, "gpurun: no NVIDIA driver here: running without GPUs\n");
        assert_eq!(case.sh(&["--gpus", "auto", "-q"], "echo x").ok(), "x\n");
    }
    for spec in ["all", "1", "device=0"].iter().filter(|_| !driver) {
        case.sh(&["--gpus", spec], "echo x").refused(&["there is no NVIDIA driver", "--gpus auto"]);
    }
    case.sh(&["--gpus", "bogus"], "echo x").refused(&["`--gpus bogus`", "is no count", "gpurun gpus"]);
}

#[test]
fn settings_come_from_the_environment_too() {
    let case = Case::new();
    let finished = case.gpurun(&[], &["id", "-u"]).env("GPURUN_ROOT", "true").finish();
    assert_eq!(finished.ok(), "0\n");
    case.gpurun(&[], &["id"]).env("GPURUN_NETWORK", "bogus").finish().ends(125);
}
