//! What is mounted where, in order: what every Linux program expects, then what the user asks for.
//!
//! In: the request and host facts. Out: a list of [`Mount`]. Pure.

use std::path::PathBuf;

use serde::Serialize;

use super::Link;
use crate::cli::{Network, Pid};
use crate::host::Host;
use crate::request::{Request, Wanted};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Path inside.
    #[serde(serialize_with = "super::lossy")]
    pub target: PathBuf,
    /// What is mounted.
    #[serde(flatten)]
    pub what: What,
    /// Whether nothing on it can be written, nor on what is mounted below it.
    pub read_only: bool,
    /// Whether a bind's device nodes cannot be opened.
    pub nodev: bool,
    /// Whether a bind's programs cannot be executed.
    pub noexec: bool,
    /// Whether the image may have a link in the target's place; system directories must be themselves.
    #[serde(skip)]
    pub follow: bool,
    /// Whether the target's name is made by gpurun, in a directory that it has made and filled itself.
    #[serde(skip)]
    pub fresh: bool,
    /// Why.
    pub why: &'static str,
}

/// What can be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum What {
    /// A path of the host, with all that is mounted below it.
    Bind {
        /// Absolute path on the host.
        #[serde(serialize_with = "super::lossy")]
        source: PathBuf,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Size in bytes; half of the memory if not given.
        size: Option<u64>,
        /// Permission bits.
        mode: u32,
    },
    /// An empty directory of the tmpfs that the launch works in, whose limit, half of the memory, it shares: a tmpfs of its
    /// own is twice as much work for the kernel.
    Scratch {
        /// Permission bits.
        mode: u32,
    },
    /// New pseudo terminals.
    Devpts,
    /// A new /proc of the new PID namespace.
    Proc,
}

/// The device nodes that every program may expect (runtime-spec, config-linux.md, "Default Devices").
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// The links that belong to them (runtime-linux.md, "Dev symbolic links"). They are in no spec: runtimes make them.
pub const LINKS: &[Link] = &[
    Link { path: "/dev/fd", to: "/proc/self/fd" },
    Link { path: "/dev/stdin", to: "/proc/self/fd/0" },
    Link { path: "/dev/stdout", to: "/proc/self/fd/1" },
    Link { path: "/dev/stderr", to: "/proc/self/fd/2" },
    Link { path: "/dev/ptmx", to: "pts/ptmx" },
];

impl Mount {
    /// A bind at a place that may be a link of the image's.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>, why: &'static str) -> Self {
        Self {
            target: target.into(),
            what: What::Bind { source: source.into() },
            read_only: false,
            nodev: false,
            noexec: false,
            follow: true,
            fresh: false,
            why,
        }
    }
}

/// Decides all mounts: the system's, then those that devices need, then the user's.
pub fn decide(request: &Request, host: &Host, devices: &[Mount]) -> Vec<Mount> {
    let in_dev = |mount| Mount { fresh: true, ..mount };
    let mut all = vec![dev(), in_dev(pts()), in_dev(shm(request, host)), proc(request, host), sys()];
    all.extend(DEVICES.iter().map(|path| in_dev(system(path, bind(path), false, "a standard device"))));
    all.extend(etc(request, host));
    all.extend(devices.iter().cloned());
    all.extend(request.mounts.iter().map(users));
    all
}

fn system(target: &str, what: What, read_only: bool, why: &'static str) -> Mount {
    Mount { what, read_only, follow: false, ..Mount::bind("", target, why) }
}

fn bind(source: &str) -> What {
    What::Bind { source: source.into() }
}

fn dev() -> Mount {
    system("/dev", What::Scratch { mode: 0o755 }, false, "only the devices meant for the workload")
}

fn pts() -> Mount {
    system("/dev/pts", What::Devpts, false, "terminals of its own")
}

fn shm(request: &Request, host: &Host) -> Mount {
    let tmpfs = |size| What::Tmpfs { size, mode: 0o1777 };
    match request.shm_size {
        Some(size) => system("/dev/shm", tmpfs(Some(size)), false, "--shm-size"),
        None if host.has_shm => system("/dev/shm", bind("/dev/shm"), false, "the host's: NCCL and MPI meet there"),
        None => system("/dev/shm", tmpfs(None), false, "the host has none"),
    }
}

fn proc(request: &Request, host: &Host) -> Mount {
    match request.pid {
        Pid::Private if host.no_pid_namespaces => {
            system("/proc", bind("/proc"), false, "no PID namespace may be made here: `user.max_pid_namespaces` is 0")
        }
        Pid::Private if host.proc_masked => {
            let why = "it is masked here, so the kernel refuses a new one: no PID namespace";
            system("/proc", bind("/proc"), false, why)
        }
        Pid::Private => system("/proc", What::Proc, false, "the new PID namespace's"),
        Pid::Host => system("/proc", bind("/proc"), false, "--pid host"),
    }
}

fn sys() -> Mount {
    system("/sys", bind("/sys"), true, "topology and devices, as MPI and NCCL read them")
}

fn etc(request: &Request, host: &Host) -> Vec<Mount> {
    let file = |path: &str, why| Mount { follow: true, ..system(path, bind(path), true, why) };
    let mut all = Vec::new();
    if host.has_resolv_conf && request.network == Network::Host {
        all.push(file("/etc/resolv.conf", "the host's name servers"));
    }
    if host.has_hosts && request.network == Network::Host {
        all.push(file("/etc/hosts", "the host's names"));
    }
    all
}

fn users(wanted: &Wanted) -> Mount {
    let (what, read_only, why) = match wanted {
        Wanted::Bind { source, read_only, why, .. } => (What::Bind { source: source.clone() }, *read_only, *why),
        Wanted::Tmpfs { size, mode, .. } => (What::Tmpfs { size: *size, mode: *mode }, false, "--tmpfs"),
    };
    Mount { what, read_only, ..Mount::bind("", wanted.target(), why) }
}
