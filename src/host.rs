//! Facts about the host and the caller, probed once: no policy here.
//!
//! In: /proc, the environment, the standard streams. Out: [`Host`], a value that plan decides by. Runs in the launcher
//! before any namespace is made. No NSS: a directory service must not be asked at every start.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::statvfs::{FsFlags, statvfs};

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

/// The caller and the machine, as plan needs to know them.
#[derive(Clone, Debug)]
pub struct Host {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
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
    /// Whether something covers a part of /proc: then the kernel refuses new ones (`mount_too_revealing`).
    pub proc_masked: bool,
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
            user: user.unwrap_or_else(|| uid.to_string().into()),
            home: env("HOME").map(PathBuf::from).or_else(|| entry.map(|e| e.1)).filter(|h| h.is_absolute()),
            cwd: std::env::current_dir().ok(),
            env: std::env::vars_os().collect(),
            terminal: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
            has_shm: Path::new("/dev/shm").is_dir(),
            has_resolv_conf: Path::new("/etc/resolv.conf").is_file(),
            has_hosts: Path::new("/etc/hosts").is_file(),
            lockable: lockable(),
            proc_masked: proc_masked(),
        }
    }

    /// A caller with nothing to speak of, for tests.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            uid: 1000,
            gid: 1001,
            user: "me".into(),
            home: Some("/home/me".into()),
            cwd: Some("/work".into()),
            env: Vec::new(),
            terminal: false,
            has_shm: true,
            has_resolv_conf: true,
            has_hosts: true,
            lockable: None,
            proc_masked: false,
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
    fn the_callers_line_is_found_by_its_number() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken:1\nme:x:1000:1000:,,,:/home/me:/bin/bash\n";
        assert_eq!(passwd_entry(passwd, 1000), Some(("me".into(), "/home/me".into())));
        assert_eq!(passwd_entry(passwd, 7), None);
    }
}
