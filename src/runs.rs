//! The caller's runs, found under /proc alone.
//!
//! In: /proc. Out: [`Run`] values, and the one that a user means. A run is a labelled supervisor of the caller's in a
//! mount namespace that is not a container's: the caller's own, or another that the caller's user namespace owns, such as
//! pam_namespace and Slurm's job_container make for a session or a job. No workload can get into one of those (setns(2)),
//! so none can pass for a supervisor: whatever it does to its own descriptors, name, arguments and environment, what is
//! believed was written by gpurun on the host. Docker's containers and those of a setuid Apptainer have such a mount namespace
//! too, but PIDs or a root of their own: one with the host's PIDs to which `/` was given as well is as good as the host.

use std::cmp::Reverse;
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Pid, SysconfVar, geteuid, sysconf};

use crate::error::{Context, Error, Result};
use crate::launch::label::{self, Label};
use crate::sys;

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it says of itself.
    pub label: Label,
    /// The process that was started as gpurun.
    pub supervisor: Pid,
    /// The workload, once it has been started.
    pub workload: Option<Pid>,
    /// For how many seconds it has been running.
    pub age: u64,
}

/// All of them, the newest first.
pub fn all() -> Result<Vec<Run>> {
    let processes = Processes::list()?;
    let mut all: Vec<_> = processes.0.iter().filter_map(|p| processes.run(p)).collect();
    all.sort_by_key(|run| (run.age, Reverse(run.supervisor)));
    Ok(all)
}

/// The one that is meant by a name, the PID of any of its processes, or a Slurm step.
pub fn find(target: &str) -> Result<Run> {
    let (all, processes) = (all()?, Processes::list()?);
    let ancestors: Vec<_> = target.parse().map(|pid| processes.ancestors(pid)).unwrap_or_default();
    let meanings: [&dyn Fn(&Run) -> bool; 3] = [
        &|run| run.label.name.as_deref() == Some(target),
        &|run| [run.supervisor.as_raw(), run.label.init].iter().any(|pid| ancestors.contains(pid)),
        &|run| run.label.step.as_deref() == Some(target),
    ];
    let found = meanings.iter().map(|means| all.iter().filter(|run| means(run)).collect::<Vec<_>>());
    match found.into_iter().find(|runs| !runs.is_empty()).as_deref() {
        Some([one]) => Ok((*one).clone()),
        Some(several) => {
            let pids: Vec<_> = several.iter().map(|run| run.supervisor.to_string()).collect();
            Err(Error::new(format!("`{target}` means {} runs", several.len()))
                .hint(format!("choose one by its PID: {}", pids.join(", "))))
        }
        None => Err(Error::new(format!("there is no run `{target}` of yours on this machine"))
            .hint("`gpurun ps` lists them: by `--name`, PID, or Slurm step as JOB.STEP")),
    }
}

/// One process of the machine.
struct Process {
    pid: i32,
    parent: i32,
    /// In clock ticks since the machine was started.
    started: u64,
}

struct Processes(Vec<Process>);

impl Processes {
    fn list() -> Result<Self> {
        let entries = std::fs::read_dir("/proc").context(|| "list `/proc`")?.flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(Self(pids.filter_map(Process::look).collect()))
    }

    /// The run that this process is the supervisor of, if it is one.
    fn run(&self, process: &Process) -> Option<Run> {
        let label = process.is_candidate().then(|| label::read(&process.dir()))??;
        // PID 1 itself is hidden where /proc has hidepid=2. Orphans that it has adopted were started later.
        let workload = self.0.iter().filter(|p| p.parent == label.init);
        let workload = workload.min_by_key(|p| (p.started, p.pid)).map(|p| Pid::from_raw(p.pid));
        Some(Run { label, supervisor: Pid::from_raw(process.pid), workload, age: age(process.started)? })
    }

    /// A process and its ancestors.
    fn ancestors(&self, pid: i32) -> Vec<i32> {
        let parent = |pid: &i32| self.0.iter().find(|p| p.pid == *pid).map(|p| p.parent);
        std::iter::successors(Some(pid), parent).take(self.0.len()).collect()
    }
}

impl Process {
    /// `None` if it has ended (proc_pid_stat(5); a process may have any name).
    fn look(pid: i32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self { pid, parent: fields.get(1)?.parse().ok()?, started: fields.get(19)?.parse().ok()? })
    }

    fn dir(&self) -> PathBuf {
        format!("/proc/{}", self.pid).into()
    }

    /// Whether a label of this process would be believed.
    fn is_candidate(&self) -> bool {
        let namespace = |process: &Path, kind| std::fs::read_link(process.join("ns").join(kind)).ok();
        let own = |kind| namespace(Path::new("/proc/self"), kind);
        let shares = |kind| namespace(&self.dir(), kind).is_some_and(|its| own(kind) == Some(its));
        std::fs::metadata(self.dir()).is_ok_and(|meta| meta.uid() == geteuid().as_raw())
            && !shares("user")
            && (shares("mnt") || shares("pid") && self.has_our_root() && self.is_beside())
    }

    fn has_our_root(&self) -> bool {
        let root = |process: &Path| identity(std::fs::metadata(process.join("root")));
        root(&self.dir()).is_some_and(|its| root(Path::new("/proc/self")) == Some(its))
    }

    /// Whether the caller's user namespace owns the mount namespace.
    fn is_beside(&self) -> bool {
        let owner = File::open(self.dir().join("ns/mnt")).ok().and_then(|mounts| sys::owner(mounts.as_fd()).ok());
        let owner = owner.and_then(|owner| identity(File::from(owner).metadata()));
        owner.is_some() && owner == identity(std::fs::metadata("/proc/self/ns/user"))
    }
}

/// What tells a file from all others.
fn identity(file: std::io::Result<Metadata>) -> Option<(u64, u64)> {
    file.ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Seconds since a process was started.
fn age(started: u64) -> Option<u64> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: u64 = uptime.split('.').next()?.parse().ok()?;
    let ticks = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some(uptime.saturating_sub(started / u64::try_from(ticks).ok()?))
}
