//! PID 1 of the container: reaps, forwards, and ends with the workload.
//!
//! In: the workload, and signals from the supervisor. Out: the workload's exit status as its own. It holds none of the
//! caller's streams open, and no memory of it can be read from inside. Without a PID namespace it is an ordinary
//! process that adopts the workload's orphans.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::workload::Workload;
use super::{STOPPED, signals};
use crate::error::{Context, Error, Result};
use crate::sys::{self, Fork};

/// Forks the workload and stays until it ends.
pub(super) fn run(workload: &Workload) -> Result<Infallible> {
    die_with_supervisor(workload)?;
    prctl::set_child_subreaper(true).context(|| "prctl PR_SET_CHILD_SUBREAPER")?;
    match sys::fork_again().context(|| "fork the workload")? {
        Fork::Child => become_workload(workload),
        Fork::Parent(child) => reap(child, workload),
    }
}

fn become_workload(workload: &Workload) -> Result<Infallible> {
    // Matters without a PID namespace, where nothing else ends the workload when gpurun is killed.
    let failure = die_with_supervisor(workload).err().unwrap_or_else(|| {
        let Err(error) = workload.exec();
        error
    });
    workload.status.report(&failure);
    sys::exit_now(failure.exit_status().into())
}

/// A parent outside the PID namespace cannot be named, so whether it is alive is asked of the lifeline.
fn die_with_supervisor(workload: &Workload) -> Result<()> {
    prctl::set_dumpable(false).context(|| "prctl PR_SET_DUMPABLE")?;
    prctl::set_pdeathsig(Signal::SIGKILL).context(|| "prctl PR_SET_PDEATHSIG")?;
    let mut fds = [PollFd::new(workload.lifeline.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).context(|| "poll the lifeline")?;
    match fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLHUP)) {
        true => Err(Error::new("the supervisor is gone")),
        false => Ok(()),
    }
}

fn reap(child: Pid, workload: &Workload) -> ! {
    let lifeline = workload.lifeline.as_raw_fd();
    let _ = sys::close_all_but(lifeline); // nothing is left to tell a failure to
    let set = signals::waited_for();
    loop {
        match sys::sigwait(&set) {
            Ok(signal) if signal.number == libc::SIGCHLD => wait_for_children(child, workload),
            Ok(signal) => forward(child, &signal),
            Err(Errno::EINTR) => {}
            Err(_) => sys::exit_now(125),
        }
    }
}

/// The workload may be gone already: then its end is the next signal.
fn forward(child: Pid, signal: &sys::Signal) {
    let target = if signal.value == signals::TO_GROUP { Pid::from_raw(-child.as_raw()) } else { child };
    if let Ok(number) = Signal::try_from(signal.number) {
        let _ = kill(target, number);
    }
}

fn wait_for_children(child: Pid, workload: &Workload) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => sys::exit_now(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => sys::exit_now(128 + signal as i32),
            Ok(WaitStatus::Stopped(pid, _)) if pid == child => {
                let _ = nix::unistd::write(&workload.lifeline, &[STOPPED]); // the supervisor may be ending
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => sys::exit_now(125),
        }
    }
}
