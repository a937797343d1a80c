//! Plan → exit status: the only place where namespaces, mounts and processes are made.
//!
//! ```text
//! supervisor (the caller's namespaces but for user and PID)      launched process (all new namespaces)
//!   block signals, unshare user and PID, write id maps (of ranges: a child does, which stays outside)
//!   fork ───────────────────────────────────────────────────────▶ init: unshare mount, rootfs, libcontainer's init
//!   wait for the report ◀── status pipe: an error, or closed ──── pid1: fork ──▶ workload: exec
//!   forward signals, relay the terminal ── sigqueue, lifeline ──▶       reap, forward
//!   the workload's status ◀───────────────────── exit ───────────       end with the workload
//! ```
//!
//! Single-threaded throughout. Nothing stays: mounts, the scratch tmpfs and all processes end with PID 1, which ends with
//! the supervisor.

mod fds;
mod init;
mod inject;
pub mod join;
mod kept;
pub mod label;
mod libcontainer;
pub mod limits;
mod mapper;
mod namespaces;
mod pid1;
pub(crate) mod refused;
mod rootfs;
mod signals;
mod status;
mod supervise;
mod tty;
mod underlay;
mod upper;
mod user;
mod workload;

use std::convert::Infallible;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;

use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, pipe2};

use crate::error::{Context, Result};
use crate::output;
use crate::plan::{Plan, Process};
use crate::seccomp::Filter;
use crate::sys::{self, Fork};
use crate::timings::Timings;
use label::Label;
use workload::{Surroundings, Workload};

/// What gpurun's caller has handed down to the workload.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    /// The highest descriptor that is open, above the standard streams.
    highest: Option<RawFd>,
    /// The signals that gpurun does not ignore, or ignores itself, and the caller ignores.
    ignored: SigSet,
}

impl Inherited {
    /// Gives it back to this process, which becomes another.
    pub fn give_back(&self) -> Result<()> {
        signals::give_back(&self.ignored).context(|| "restore the signals")
    }
}

/// Looks at it, before anything of gpurun's own is open.
pub fn inherited() -> Result<Inherited> {
    Ok(Inherited { ignored: signals::take_over()?, highest: fds::inherit()? })
}

/// Runs the plan and ends this process as the workload ended, with 128+N if signal N ended it. It comes back only with
/// the reason why nothing ran: what is left of a start is not worth tidying up when the caller waits for the end.
pub fn launch(plan: &Plan, inherited: Inherited, quiet: bool, timings: Timings) -> Result<Infallible> {
    let locked = plan.rootfs.kept.as_deref().map(kept::open).transpose()?;
    let mut start = Start { quiet, ..Start::prepare(&plan.process, plan.seccomp.as_ref(), inherited, timings)? };
    start.workload.locked = locked.map(|file| Rc::new(file.into()));
    start.timings.measure("namespaces", || namespaces::enter(plan)).map_err(refused::namespaces)?;
    start.fork(|workload, console| init::become_init(plan, workload, console), |child| show_label(plan, child, quiet))
}

/// A run that has no label can be waited for and killed as any other.
fn show_label(plan: &Plan, child: Pid, quiet: bool) -> Option<OwnedFd> {
    let untold = |e| output::notice(quiet, &format!("`gpurun ps` and `gpurun exec` will not find this run: {e:#}"));
    Label::of(plan, child).show().map_err(untold).ok()
}

/// What the two ends of a launch have in common before they part.
struct Start {
    workload: Workload,
    reader: status::Reader,
    lifeline: OwnedFd,
    /// The supervisor's end, and the launched process's.
    console: Option<(OwnedFd, OwnedFd)>,
    /// Whether notices are kept from the user.
    quiet: bool,
    timings: Timings,
}

impl Start {
    fn prepare(process: &Process, filter: Option<&Filter>, inherited: Inherited, timings: Timings) -> Result<Self> {
        let mask = signals::block()?;
        let (reader, writer) = status::channel(timings.laps())?;
        let (lifeline, childs_lifeline) = pipe2(OFlag::O_CLOEXEC).context(|| "pipe2")?;
        let console = process.terminal.then(stream_pair).transpose()?;
        let window = process.terminal.then(|| sys::window_size(sys::stdio(0)).ok()).flatten();
        let around = Surroundings { status: writer, lifeline: childs_lifeline, mask, window, inherited };
        Ok(Self { workload: Workload::new(process, filter, around)?, reader, lifeline, console, quiet: false, timings })
    }

    /// The one end becomes what `launched` makes of it, or tells why not; the other stays with it until it ends, and
    /// holds what `beside` gives.
    fn fork<T>(
        self,
        launched: impl FnOnce(Workload, Option<&OwnedFd>) -> Result<Infallible>,
        beside: impl FnOnce(Pid) -> T,
    ) -> Result<Infallible> {
        let (ours, childs) = self.console.unzip();
        match sys::fork().map_err(refused::processes)? {
            Fork::Child => {
                // The lifeline breaks only when the supervisor's end is the last.
                drop(self.lifeline);
                let status = self.workload.status.clone();
                let Err(error) = launched(self.workload, childs.as_ref());
                status.report(&error);
                sys::exit_now(error.exit_status().into())
            }
            Fork::Parent(child) => {
                drop((self.workload, childs));
                let _held = beside(child);
                // Now, while nobody waits for us: what is mapped at our end is unmapped page by page, and then the caller waits.
                sys::release_program();
                let started = self.reader.wait(self.quiet, &self.timings);
                if started.is_ok() {
                    self.timings.rest("exec");
                    self.timings.table().iter().for_each(|table| output::table(table));
                }
                let status = supervise::run(child, started, &self.lifeline, ours)?;
                sys::exit_now(status.into())
            }
        }
    }
}

fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).context(|| "socketpair")
}
