//! The environment, the directory and the machine that the workload finds.

use crate::support::{Case, Finish, text};

fn environment(case: &Case, options: &[&str], host: &[(&str, &str)]) -> Vec<String> {
    let finished = case.gpurun(options, &["env"]).envs(host.iter().copied()).finish();
    finished.ok().lines().map(str::to_owned).collect()
}

const HOST: &[(&str, &str)] = &[
    ("LD_PRELOAD_", "x"),
    ("LD_LIBRARY_PATH", "/host/lib"),
    ("PYTHONPATH", "/host/py"),
    ("CONDA_PREFIX", "/host/conda"),
    ("MODULEPATH", "/host/modules"),
    ("SLURM_JOB_ID", "42"),
    ("PMI_RANK", "3"),
    ("NCCL_DEBUG", "INFO"),
    ("OMP_NUM_THREADS", "4"),
    ("LC_ALL", "C.UTF-8"),
    ("no_proxy", "localhost"),
    ("AWS_SECRET", "s3cret"),
    ("AWS_REGION", "eu"),
];

#[test]
fn the_job_passes_and_the_hosts_software_does_not() {
    let case = Case::new();
    let home = format!("HOME={}", text(&case.path("home")));
    let mut env = environment(&case, &[], HOST);
    env.sort();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let want = [
        &home,
        "LC_ALL=C.UTF-8",
        "NCCL_DEBUG=INFO",
        "OMP_NUM_THREADS=4",
        path,
        "PMI_RANK=3",
        "SLURM_JOB_ID=42",
        "USER=tester",
        "no_proxy=localhost",
    ];
    assert_eq!(env, want);
}

#[test]
fn policies_choose() {
    let case = Case::new();
    let image = environment(&case, &["--env-policy", "image"], HOST);
    assert_eq!(image.len(), 2, "{image:?}");
    let host = environment(&case, &["--env-policy", "host"], HOST);
    assert!(host.contains(&"AWS_SECRET=s3cret".into()), "{host:?}");
    assert!(
        !host.iter().any(|e| e.starts_with("LD_")
            || e.starts_with("PYTHON")
            || e.contains("/usr/bin:/bin") && !e.contains("sbin")),
        "{host:?}"
    );
}

#[test]
fn options_add_and_win() {
    let case = Case::new();
    let file = case.file("env", "# comment\nA=file\nB=file # not a comment\nSLURM_JOB_ID=7\nAWS_REGION\n\nEMPTY=\n");
    let options = [
        "--env-file",
        text(&file),
        "-e",
        "A=option",
        "-e",
        "AWS_*",
        "-e",
        "MISSING",
        "-e",
        "X=a=b c",
        "-e",
        "PATH=/bin",
    ];
    let env = environment(&case, &options, HOST);
    for want in [
        "A=option",
        "B=file # not a comment",
        "SLURM_JOB_ID=7",
        "AWS_SECRET=s3cret",
        "AWS_REGION=eu",
        "X=a=b c",
        "PATH=/bin",
        "EMPTY=",
    ] {
        assert!(env.contains(&want.into()), "{want} in {env:?}");
    }
    assert!(!env.iter().any(|e| e.starts_with("MISSING")));
}

#[test]
fn what_was_dropped_is_nowhere_to_be_read() {
    let case = Case::new();
    let script = "cat /proc/1/environ /proc/*/environ 2>/dev/null | grep -c s3cret";
    for options in [&[][..], &["--root"]] {
        let finished = case.gpurun(options, &["sh", "-c", script]).envs(HOST.iter().copied()).finish();
        assert_eq!(finished.stdout, "0\n", "{finished:?}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_pass() {
    use std::os::unix::ffi::OsStrExt;
    let case = Case::new();
    let value = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let finished = case
        .gpurun(&["-e", "RAW"], &["sh", "-c", "printf %s \"$RAW\" | od -An -tx1; printf %s \"$SLURM_X\" | wc -c"])
        .env("RAW", value)
        .env("SLURM_X", value)
        .finish();
    assert_eq!(finished.ok(), " ff fe\n2\n");
}

#[test]
fn bad_variables_are_refused() {
    let case = Case::new();
    case.sh(&["-e", "=x"], ":").refused(&["`=x`", "variable"]);
    case.sh(&["-e", ""], ":").refused(&["variable"]);
    case.sh(&["--env-file", "/no/such"], ":").refused(&["/no/such", "No such file"]);
    case.sh(&["--env-file", "/"], ":").refused(&["`/`"]);
    case.sh(&["--env-policy", "some"], ":").ends(125);
}

#[test]
fn the_working_directory() {
    let case = Case::new();
    assert_eq!(case.sh(&["-w", "/etc"], "pwd").ok(), "/etc\n");
    assert_eq!(case.sh(&["-w", "/made/for/it"], "pwd; touch x").ok(), "/made/for/it\n");
    assert_eq!(case.sh(&["-w", "/made", "--read-only"], "pwd").ok(), "/made\n");
    case.sh(&["-w", "relative"], ":").refused(&["relative", "absolute"]);
    case.sh(&["-w", "/bin/sh"], ":").refused(&["/bin/sh", "Not a directory"]);
    for magic in ["/proc/self/fd/8", "/proc/1/cwd", "/proc/self/root"] {
        case.sh(&["-w", magic], ":").refused(&[magic]);
    }
}

#[test]
fn names_of_host_and_run() {
    let case = Case::new();
    assert_eq!(case.sh(&["--hostname", "inside-1.x"], "hostname").ok(), "inside-1.x\n");
    let own = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert_eq!(case.sh(&[], "hostname").ok().trim(), own);
    case.sh(&["--hostname", "a b"], ":").refused(&["a b"]);
    assert_eq!(case.sh(&["--name", "train"], "echo $GPURUN_NAME").ok(), "train\n");
}

#[test]
fn networks() {
    let case = Case::new();
    let devices = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '";
    assert_eq!(case.sh(&["--network", "none"], devices).ok(), "lo\n");
    let loopback = "ifconfig lo | grep -c -e UP.*LOOPBACK -e 127.0.0.1";
    assert_eq!(case.sh(&["--network", "none"], loopback).ok(), "2\n");
    let host = std::fs::read_to_string("/proc/net/dev").unwrap().lines().count() - 2;
    assert_eq!(case.sh(&["--network", "host"], devices).ok().lines().count(), host);
    case.sh(&["--network", "bridge"], ":").ends(125);
}

#[test]
fn processes_of_its_own_or_the_hosts() {
    let case = Case::new();
    let me = std::process::id();
    let script = format!("test -d /proc/{me} && echo seen || ls -d /proc/[0-9]* | wc -l");
    assert_eq!(case.sh(&["--pid", "host"], &script).ok(), "seen\n");
    let seen: usize = case.sh(&[], "ls -d /proc/[0-9]* | wc -l").ok().trim().parse().unwrap();
    assert!(seen <= 5, "{seen}");
}

#[test]
fn shared_memory() {
    let case = Case::new();
    let name = format!("gpurun-test-{}", std::process::id());
    case.sh(&[], &format!("echo x >/dev/shm/{name}")).ok();
    assert_eq!(std::fs::read_to_string(format!("/dev/shm/{name}")).unwrap(), "x\n");
    std::fs::remove_file(format!("/dev/shm/{name}")).unwrap();
    let own = case
        .sh(&["--shm-size", "64m"], "ls /dev/shm; df -k /dev/shm | tail -n 1 | awk '{print $2}'; stat -c %a /dev/shm");
    assert_eq!(own.ok(), "65536\n1777\n");
    case.sh(&["--shm-size", "lots"], ":").refused(&["lots", "size"]);
}

#[test]
fn limits() {
    let case = Case::new();
    let options = ["--ulimit", "nofile=64:128", "--ulimit", "core=0", "--ulimit", "stack=1048576"];
    assert_eq!(case.sh(&options, "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -s").ok(), "64\n128\n0\n1024\n");
    case.sh(&["--ulimit", "bogus=1"], ":").refused(&["bogus"]);
    case.sh(&["--ulimit", "nofile=5:4"], ":").refused(&["nofile=5:4"]);
    let shell = r#"ulimit -n 256; exec "$1" --ulimit nofile=512 "$2" true"#;
    let mut command = std::process::Command::new("bash");
    case.surround(command.args(["-c", shell, "x"]).arg(crate::support::program()).arg(case.reference()));
    command.finish().refused(&["setrlimit nofile", "hard limit"]);
}

#[test]
fn devices_are_usable() {
    let case = Case::new();
    let script = "echo x >/dev/null && head -c 4 /dev/zero | od -An -tx1 && head -c 2 /dev/urandom | wc -c && \
                  head -c 2 /dev/random | wc -c; echo x >/dev/full; echo $(ls /dev); for l in stdin fd ptmx; do readlink /dev/$l; done; \
                  exec 5<>/dev/ptmx && ls /dev/pts; test -c /dev/tty && echo tty";
    let finished = case.sh(&[], script);
    let want = " 00 00 00 00\n2\n2\nfd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n\
                /proc/self/fd/0\n/proc/self/fd\npts/ptmx\n0\nptmx\ntty\n";
    assert_eq!(finished.stdout.replace("fd full kcore ", "fd full "), want);
    assert!(finished.stderr.contains("No space left on device"), "{finished:?}");
}

#[test]
fn proc_is_new_and_sys_is_read_only() {
    let case = Case::new();
    assert_eq!(case.sh(&[], "stat -f -c %T /proc; mount | grep -c 'on /proc '").ok().lines().last(), Some("1"));
    let finished = case.sh(&["--root"], "test -d /sys/class && echo sys; touch /sys/x; echo 1 >/sys/kernel/mm/ksm/run");
    assert_eq!(finished.stdout, "sys\n");
    assert_eq!(finished.stderr.matches("Read-only file system").count(), 2, "{finished:?}");
}

#[test]
fn names_are_resolved_as_on_the_host() {
    let case = Case::new();
    for file in ["/etc/resolv.conf", "/etc/hosts"] {
        let Ok(host) = std::fs::read_to_string(file) else { continue };
        assert_eq!(case.gpurun(&[], &["cat", file]).finish().ok(), host);
    }
    case.image.link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    case.image.link("/etc/hosts", "/nowhere/hosts");
    for file in ["/etc/resolv.conf", "/etc/hosts"] {
        let Ok(host) = std::fs::read_to_string(file) else { continue };
        assert_eq!(case.gpurun(&[], &["cat", file]).finish().ok(), host, "a dangling link");
    }
}
