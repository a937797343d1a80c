//! Facts about the host and the caller, probed once: no policy here.
//!
//! In: /proc, the environment, the standard streams. Out: [`Host`], a value that plan decides by. Runs in the launcher
//! before any namespace is made. No NSS: a directory service must not be asked at every start.

pub mod subordinate;

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::statvfs::{FsFlags, statvfs};

use subordinate::Subordinate;

/// What containers' runtimes mask, by the lists of runc, LXC, systemd-nspawn and libnvidia-container. One of them exists on
/// every kernel.
const MASKED: &[&str] = &[
    "/proc/driver",
    "/proc/driver/nvidia",
    "/proc/driver/nvidia/params",
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/cpuinfo",
    "/proc/kallsyms",
];

/// The steps that have a name (slurm.h, `SLURM_BATCH_SCRIPT` and the like).
const SLURM_STEPS: &[(&str, &str)] =
    &[("4294967291", "batch"), ("4294967292", "extern"), ("4294967290", "interactive")];

/// The caller and the machine, as plan needs to know them.
#[derive(Clone, Debug)]
pub struct Host {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// All groups of the caller.
    pub groups: Vec<u32>,
    /// Login name: from /etc/passwd, else `$USER`, else the number.
    pub user: OsString,
    /// Home directory, if known.
    pub home: Option<PathBuf>,
    /// Current directory; `None` if it was deleted or cannot be read.
    pub cwd: Option<PathBuf>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Whether stdin and stdout both are terminals.
    pub terminal: bool,
    /// Whether there is a /dev/shm.
    pub has_shm: bool,
    /// Whether there is an /etc/resolv.conf.
    pub has_resolv_conf: bool,
    /// Whether there is an /etc/hosts.
    pub has_hosts: bool,
    /// How many bytes the caller may lock in memory; `None` if there is no limit.
    pub lockable: Option<u64>,
    /// Whether no PID namespace may be made (`user.max_pid_namespaces`).
    pub no_pid_namespaces: bool,
    /// The kernel's major and minor version.
    pub kernel: (u32, u32),
    /// Whether something covers a part of /proc: then the kernel refuses new ones (`mount_too_revealing`).
    pub proc_masked: bool,
    /// Ids that the caller may map beside its own; `None` if nobody wanted to know.
    pub subordinate: Option<Subordinate>,
}

impl Host {
    /// Looks at this process and the machine.
    pub fn probe() -> Self {
        let uid = nix::unistd::geteuid().as_raw();
        let passwd = std::fs::read("/etc/passwd").unwrap_or_default(); // LDAP-only and empty hosts have none
        let entry = passwd_entry(&passwd, uid);
        let env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let user = entry.as_ref().map(|e| e.0.clone()).or_else(|| env("USER")).or_else(|| env("LOGNAME"));
        Self {
            uid,
            gid: nix::unistd::getegid().as_raw(),
            groups: nix::unistd::getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect(),
            user: user.unwrap_or_else(|| uid.to_string().into()),
            home: env("HOME").map(PathBuf::from).or_else(|| entry.map(|e| e.1)).filter(|h| h.is_absolute()),
            cwd: std::env::current_dir().ok(),
            env: std::env::vars_os().collect(),
            terminal: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
            has_shm: Path::new("/dev/shm").is_dir(),
            has_resolv_conf: Path::new("/etc/resolv.conf").is_file(),
            has_hosts: Path::new("/etc/hosts").is_file(),
            lockable: lockable(),
            no_pid_namespaces: no_pid_namespaces(),
            kernel: kernel(),
            proc_masked: proc_masked(),
            subordinate: None,
        }
    }

    /// A caller with nothing to speak of, for tests.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            uid: 1000,
            gid: 1001,
            groups: vec![1001],
            user: "me".into(),
            home: Some("/home/me".into()),
            cwd: Some("/work".into()),
            env: Vec::new(),
            terminal: false,
            has_shm: true,
            has_resolv_conf: true,
            has_hosts: true,
            lockable: None,
            no_pid_namespaces: false,
            kernel: (6, 1),
            proc_masked: false,
            subordinate: None,
        }
    }

    /// The Slurm step the caller is in, as `squeue --steps` shows it.
    pub fn slurm_step(&self) -> Option<String> {
        let text = |name: &str| self.var(name)?.to_str();
        let (job, step) = (text("SLURM_JOB_ID")?, text("SLURM_STEP_ID").unwrap_or("batch"));
        let name = SLURM_STEPS.iter().find(|(number, _)| *number == step).map_or(step, |(_, name)| name);
        Some(format!("{job}.{name}"))
    }

    /// What makes a PID namespace with a /proc of its own impossible here.
    pub fn no_proc_of_its_own(&self) -> Option<&'static str> {
        match (self.no_pid_namespaces, self.proc_masked) {
            (true, _) => Some("`user.max_pid_namespaces` is 0 here"),
            (_, true) => Some("/proc is masked here"),
            _ => None,
        }
    }

    /// The value of an environment variable.
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_os_str())
    }
}

fn lockable() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// Whether a container runtime around us has mounted something over what it hides, or made a part read-only.
fn proc_masked() -> bool {
    let device = |path: &str| nix::sys::stat::stat(path).ok().map(|stat| stat.st_dev);
    let own = device("/proc");
    let covered = MASKED.iter().filter_map(|path| device(path)).any(|d| Some(d) != own);
    let read_only = |path| statvfs(path).is_ok_and(|s| s.flags().contains(FsFlags::ST_RDONLY));
    covered || read_only("/proc/sys")
}

fn no_pid_namespaces() -> bool {
    std::fs::read_to_string("/proc/sys/user/max_pid_namespaces").is_ok_and(|max| max.trim() == "0")
}

/// What uname(2) says; 0.0 if it says nothing that is a version.
fn kernel() -> (u32, u32) {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    version(&release.unwrap_or_default()).unwrap_or_default()
}

/// `6.1.0-13-amd64` is version 6.1.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Name and home of `uid` in a passwd file.
fn passwd_entry(passwd: &[u8], uid: u32) -> Option<(OsString, PathBuf)> {
    passwd.split(|&b| b == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&b| b == b':').collect();
        let matches = fields.len() >= 6 && std::str::from_utf8(fields[2]).ok()?.parse() == Ok(uid);
        matches.then(|| (OsString::from_vec(fields[0].to_vec()), PathBuf::from(OsStr::from_bytes(fields[5]))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slurm_step_has_a_name_or_a_number() {
        for (job, step, want) in [
            (None, None, None),
            (Some("7"), None, Some("7.batch")),
            (Some("7"), Some("0"), Some("7.0")),
            (Some("7"), Some("4294967290"), Some("7.interactive")),
        ] {
            let pair = |name: &str, value: Option<&str>| value.map(|v| (name.into(), v.into()));
            let env = [pair("SLURM_JOB_ID", job), pair("SLURM_STEP_ID", step)].into_iter().flatten().collect();
            assert_eq!(Host { env, ..Host::example() }.slurm_step().as_deref(), want);
        }
    }

    #[test]
    fn kernels_have_versions() {
        for (release, want) in [("6.18.44-fc", Some((6, 18))), ("5.14.0-427.el9", Some((5, 14))), ("x", None)] {
            assert_eq!(version(release), want, "{release}");
        }
    }

    #[test]
    fn the_callers_line_is_found_by_its_number() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken:1\nme:x:1000:1000:,,,:/home/me:/bin/bash\n";
        assert_eq!(passwd_entry(passwd, 1000), Some(("me".into(), "/home/me".into())));
        assert_eq!(passwd_entry(passwd, 7), None);
    }
}
