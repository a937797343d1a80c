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

/// `docker run --help` of Docker 20.10 and 28, one after the other.
const DOCKERS: &str = "add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile
    cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach
    detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops
    disable-content-trust dns dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd
    health-interval health-retries health-start-interval health-start-period health-timeout help hostname init interactive
    io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver log-opt
    mac-address memory memory-reservation memory-swap memory-swappiness mount name network network-alias no-healthcheck
    oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only restart rm
    runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit use-api-socket user
    userns uts volume volume-driver volumes-from workdir";

#[test]
fn every_option_of_dockers_is_had_or_refused_with_what_works() {
    let case = Case::new();
    let help = case.bare().arg("--help").finish().ok().to_owned();
    let hidden = ["tty", "interactive", "rm", "init", "label"];
    for name in DOCKERS.split_whitespace() {
        let option = format!("--{name}");
        let had = |line: &str| line.split([' ', ',', '=']).any(|word| word == option);
        if help.lines().any(had) || hidden.contains(&name) {
            continue;
        }
        let finished = case.gpurun(&[&option, "x"], &["echo", "ran"]).finish();
        finished.refused(&[&format!("`{option}` cannot be had: ")]);
        let reason = finished.stderr.split("cannot be had: ").nth(1).expect("a reason");
        assert!(reason.split_whitespace().count() > 4, "{finished:?}");
    }
}

#[test]
fn what_has_to_be_text_is_named_where_it_is_none() {
    use std::os::unix::ffi::OsStrExt;
    let (case, odd) = (Case::new(), std::ffi::OsStr::from_bytes(b"./\xff"));
    case.bare().arg(odd).arg("true").finish().refused(&["an image", "is not UTF-8", "hint: ", "`cd` there"]);
    case.bare().arg("--name").arg(odd).arg("x").finish().refused(&["no path", "is not UTF-8"]);
    std::fs::create_dir(case.path("work").join(odd)).unwrap();
    let mut command = case.bare();
    command.current_dir(case.path("work").join(odd)).args(["--here", "../../image", "sh", "-c", "echo ran"]);
    assert_eq!(command.finish().ok(), "ran\n");
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
