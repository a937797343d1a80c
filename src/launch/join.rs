//! A command in the container of a run that is there already: `exec`.
//!
//! ```text
//! supervisor                                    launched process
//!   join user, open what the workload has, join PID
//!   fork ─────────────────────────────────────▶ join the rest, its root and directory, a terminal
//!   as for a run                                pid1: fork ──▶ the command
//! ```
//!
//! What runs inside may be hostile. It decides what its namespaces, root, directory and environment are, and nothing
//! of it is executed outside: they are opened by the kernel's own links under /proc, before all but the user namespace is
//! joined; a name for `-u` is found by the in-root resolver. Neither process of gpurun's can be looked into from inside
//! (CVE-2016-9962).

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use nix::unistd::{Pid, chroot, fchdir, setsid};

use super::workload::Workload;
use super::{Inherited, Start, pid1, user};
use crate::error::{Context, Error, Result};
use crate::inroot::Root;
use crate::plan::Process;
use crate::runs::Run;
use crate::seccomp::Filter;
use crate::sys;
use crate::timings::Timings;

/// The largest environment that is taken over: what the kernel lets a process have (execve(2)).
const MAX_ENVIRONMENT: u64 = 6 << 20;

/// The file system of pseudo terminals (linux/magic.h).
const DEVPTS: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x1cd1);

/// Each kind of namespace, by its name under /proc. The user's is not the workload's but the supervisor's: a workload may
/// have made itself another, without rights over those it was started in.
const KINDS: &[(&str, CloneFlags)] = &[
    ("pid", CloneFlags::CLONE_NEWPID),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("net", CloneFlags::CLONE_NEWNET),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
];

/// A workload, opened: all that is needed to run a command beside it.
pub struct Target {
    supervisor: OwnedFd,
    workload: OwnedFd,
    /// Those of the workload that are not the caller's.
    namespaces: CloneFlags,
    root: OwnedFd,
    cwd: OwnedFd,
    /// Who the command is.
    pub user: User,
    /// What its system calls are decided by.
    filter: Option<Filter>,
    /// Its environment.
    pub env: Vec<(OsString, OsString)>,
}

/// Ids inside.
#[derive(Clone, Debug)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; `None` for the caller's.
    pub groups: Option<Vec<u32>>,
}

impl Target {
    /// Opens the workload of a run, from within its user namespace: if it is another user's, the caller has the right to
    /// look at it only there.
    pub fn open(run: &Run) -> Result<Self> {
        let workload = run.workload.ok_or_else(|| Error::new("its workload is not running yet"))?;
        let (supervisor, process) = (sys::pidfd_open(run.supervisor)?, sys::pidfd_open(workload)?);
        prctl::set_dumpable(false).context(|| "prctl PR_SET_DUMPABLE")?;
        setns(&supervisor, CloneFlags::CLONE_NEWUSER).context(|| "setns CLONE_NEWUSER")?;
        let dir = |name: &str| {
            let path = format!("/proc/{workload}/{name}");
            open(Path::new(&path), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
                .context(|| format!("open `{path}`"))
        };
        let (root, cwd) = (dir("root")?, dir("cwd")?);
        let target = Self {
            namespaces: others(workload)?,
            root,
            cwd,
            user: User { uid: run.label.uid, gid: run.label.gid, groups: run.label.groups.clone() },
            filter: run.label.seccomp.clone().map(Filter::compiled).transpose()?,
            env: environment(workload)?,
            supervisor,
            workload: process,
        };
        // As long as they are alive their numbers were nobody else's.
        for (process, pid) in [(&target.supervisor, run.supervisor), (&target.workload, workload)] {
            sys::pidfd_signal(process.as_fd(), 0).context(|| format!("look at process {pid}"))?;
        }
        Ok(target)
    }

    /// The workload's root, to look something up in: what runs there may have changed it.
    pub fn root(&self) -> Result<Root> {
        Ok(Root::from_fd(self.root.try_clone().context(|| "dup")?))
    }

    /// Joins these of the workload's namespaces, all at once.
    fn join(&self, kinds: CloneFlags) -> Result<()> {
        match self.namespaces & kinds {
            none if none.is_empty() => Ok(()),
            wanted => setns(&self.workload, wanted).context(|| format!("setns {wanted:?}")),
        }
    }
}

fn others(pid: Pid) -> Result<CloneFlags> {
    let mut others = CloneFlags::empty();
    for (name, flag) in KINDS {
        let link = |process: &str| {
            let path = format!("/proc/{process}/ns/{name}");
            std::fs::read_link(&path).context(|| format!("readlink `{path}`"))
        };
        others.set(*flag, link(&pid.to_string())? != link("self")?);
    }
    Ok(others)
}

fn environment(pid: Pid) -> Result<Vec<(OsString, OsString)>> {
    let what = || format!("read the environment of process {pid}");
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{pid}/environ")).context(what)?;
    file.take(MAX_ENVIRONMENT).read_to_end(&mut text).context(what)?;
    let pair = |entry: &[u8]| {
        let at = entry.iter().position(|&b| b == b'=').filter(|at| *at > 0)?;
        let owned = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        Some((owned(&entry[..at]), owned(&entry[at + 1..])))
    };
    Ok(text.split(|&b| b == 0).filter_map(pair).collect())
}

/// Runs a process in the container and ends as it ended, as [`super::launch`] does.
pub fn join(target: &Target, process: &Process, inherited: Inherited) -> Result<Infallible> {
    let start = Start::prepare(process, target.filter.as_ref(), inherited, Timings::new(false))?;
    target.join(CloneFlags::CLONE_NEWPID)?;
    start.fork(|workload, console| become_tenant(target, &workload, console), |_| ())
}

fn become_tenant(target: &Target, workload: &Workload, console: Option<&OwnedFd>) -> Result<Infallible> {
    target.join(!CloneFlags::CLONE_NEWPID)?;
    fchdir(&target.root).and_then(|()| chroot(".")).context(|| "chroot to the workload's root")?;
    fchdir(&target.cwd).context(|| "enter the workload's directory")?;
    setsid().context(|| "setsid")?;
    if let Some(console) = console {
        terminal(console).context(|| "make a terminal in the container")?;
    }
    user::join_groups(target.user.groups.as_deref())?;
    user::become_user(target.user.uid, target.user.gid)?;
    prctl::set_no_new_privs().context(|| "prctl PR_SET_NO_NEW_PRIVS")?;
    workload.prepare()?;
    pid1::run(workload)
}

/// A terminal of the container's own devpts becomes this session's, and its master is sent to the supervisor. The mount
/// cannot be moved from inside, but what else may be at its place is no terminal (CVE-2025-52565).
fn terminal(console: &OwnedFd) -> Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let master = openat2(AT_FDCWD, "/dev/pts/ptmx", how).context(|| "open `/dev/pts/ptmx`")?;
    if fstatfs(&master).context(|| "fstatfs `/dev/pts/ptmx`")?.filesystem_type() != DEVPTS {
        return Err(Error::new("`/dev/pts` is not what gpurun has mounted there"));
    }
    sys::unlock_terminal(master.as_fd())?;
    let peer = sys::peer(master.as_fd())?;
    sys::send_fd(console.as_fd(), master.as_fd())?;
    sys::become_controlling(peer.as_fd())?;
    nix::unistd::dup2_stdin(&peer).context(|| "dup2")?;
    nix::unistd::dup2_stdout(&peer).context(|| "dup2")?;
    nix::unistd::dup2_stderr(&peer).context(|| "dup2")
}
