//! Plan → exit status: the only place where namespaces, mounts and processes are made.
//!
//! ```text
//! supervisor (the caller's namespaces but for user and PID)      launched process (all new namespaces)
//!   block signals, unshare user and PID, write id maps
//!   fork ───────────────────────────────────────────────────────▶ init: unshare mount, rootfs, libcontainer's init
//!   wait for the report ◀── status pipe: an error, or closed ──── pid1: fork ──▶ workload: exec
//!   forward signals, relay the terminal ── sigqueue, lifeline ──▶       reap, forward
//!   the workload's status ◀───────────────────── exit ───────────       end with the workload
//! ```
//!
//! Single-threaded throughout. Nothing stays: mounts, the scratch tmpfs and all processes end with PID 1, which ends with
//! the supervisor.

pub mod fds;
mod init;
mod inject;
mod libcontainer;
pub mod limits;
mod namespaces;
mod pid1;
mod rootfs;
mod signals;
mod status;
mod supervise;
mod tty;
mod workload;

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::error::{Context, Result};
use crate::plan::Plan;
use crate::sys::{self, Fork};
use fds::Inherited;
use workload::{Surroundings, Workload};

/// What PID 1 writes to the lifeline when the workload was stopped.
const STOPPED: u8 = b'S';

/// Runs the plan and ends this process as the workload ended, with 128+N if signal N ended it. It comes back only with
/// the reason why nothing ran: what is left of a start is not worth tidying up when the caller waits for the end.
pub fn launch(plan: &Plan, inherited: Inherited) -> Result<Infallible> {
    let mask = signals::block()?;
    let (reader, writer) = status::channel()?;
    let (lifeline, childs_lifeline) = stream_pair()?;
    let console = plan.process.terminal.then(stream_pair).transpose()?;
    let window = plan.process.terminal.then(|| sys::window_size(sys::stdio(0)).ok()).flatten();
    let around =
        Surroundings { status: writer, lifeline: childs_lifeline, mask, window, highest_inherited: inherited.highest };
    let workload = Workload::new(&plan.process, around)?;
    namespaces::enter(plan).map_err(namespaces::explain_blocked)?;
    match sys::fork()? {
        Fork::Child => {
            // The lifeline hangs up only when the supervisor's end is the last.
            drop(lifeline);
            init::run(plan, workload, console.map(|(_, childs)| childs).as_ref())
        }
        Fork::Parent(child) => {
            drop(workload);
            let console = console.map(|(ours, _)| ours);
            let status = supervise::run(child, reader, &lifeline, console)?;
            sys::exit_now(status.into())
        }
    }
}

fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).context(|| "socketpair")
}
