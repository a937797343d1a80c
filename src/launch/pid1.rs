//! PID 1 of the container: reaps, forwards, and ends with the workload.
//!
//! In: the workload, and signals from the supervisor. Out: the workload's exit status as its own. It holds none of the
//! caller's streams open, and no memory of it can be read from inside. Without a PID namespace it is an ordinary
//! process that adopts the workload's orphans, and ends them itself.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpid};

use super::refused;
use super::signals::{self, Waiter};
use super::workload::Workload;
use crate::error::{Context, Error, Result};
use crate::sys::{self, Change};

/// Sent by the kernel when the supervisor is gone, where no PID namespace would end the workload with us.
const ABANDONED: Signal = Signal::SIGALRM;

/// Forks the workload and stays until it ends.
pub(super) fn run(workload: &Workload) -> Result<Infallible> {
    let mut set = signals::waited_for();
    set.add(ABANDONED);
    set.thread_block().context(|| "block signals")?;
    end_with_supervisor(workload, if is_init() { Signal::SIGKILL } else { ABANDONED })?;
    prctl::set_child_subreaper(true).context(|| "prctl PR_SET_CHILD_SUBREAPER")?;
    workload.status.ended("init");
    let child = sys::spawn(|| become_workload(workload)).context(|| "fork the workload").map_err(refused::processes)?;
    reap(child, workload, set)
}

/// Whether we are PID 1, with which the kernel ends all others.
fn is_init() -> bool {
    getpid().as_raw() == 1
}

fn become_workload(workload: &Workload) -> Infallible {
    // Matters without a PID namespace, where nothing else ends the workload when gpurun is killed.
    let failure = end_with_supervisor(workload, Signal::SIGKILL).err().unwrap_or_else(|| {
        let Err(error) = workload.exec();
        error
    });
    workload.status.report(&failure);
    sys::exit_now(failure.exit_status().into())
}

/// A parent outside the PID namespace cannot be named, so whether it is alive is asked of the lifeline.
fn end_with_supervisor(workload: &Workload, signal: Signal) -> Result<()> {
    prctl::set_dumpable(false).context(|| "prctl PR_SET_DUMPABLE")?;
    prctl::set_pdeathsig(signal).context(|| "prctl PR_SET_PDEATHSIG")?;
    let mut fds = [PollFd::new(workload.lifeline.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).context(|| "poll the lifeline")?;
    // Of a pipe that nobody can read.
    match fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLERR)) {
        true => Err(Error::new("the supervisor is gone")),
        false => Ok(()),
    }
}

fn reap(child: Pid, workload: &Workload, set: SigSet) -> ! {
    let _ = sys::close_all_but(&descriptors(workload)); // nothing is left to tell a failure to
    let mut signals = Waiter::new(set);
    loop {
        match signals.next() {
            Ok(signal) if signal.number == libc::SIGCHLD => wait_for_children(child, workload),
            Ok(signal) if signal.number == ABANDONED as i32 => end(128 + libc::SIGKILL),
            Ok(signal) => forward(child, &signal, workload.stop_signal),
            Err(Errno::EINTR) => {}
            Err(_) => end(125),
        }
    }
}

/// What stays open.
fn descriptors(workload: &Workload) -> Vec<BorrowedFd<'_>> {
    let locked = workload.locked.iter().map(|lock| lock.as_fd());
    locked.chain([workload.lifeline.as_fd()]).collect()
}

/// Hands a signal on, SIGTERM as the image's stop signal. The workload may be gone already: then its end is the next
/// signal.
fn forward(child: Pid, signal: &sys::Signal, stop_signal: i32) {
    let target = if signal.value == signals::TO_GROUP { Pid::from_raw(-child.as_raw()) } else { child };
    let number = if signal.number == libc::SIGTERM { stop_signal } else { signal.number };
    let _ = sys::kill(target, number);
}

fn wait_for_children(child: Pid, workload: &Workload) {
    loop {
        match sys::wait_any(libc::WNOHANG | libc::WUNTRACED) {
            Ok(Some((pid, Change::Ended(status)))) if pid == child => end(status),
            Ok(Some((pid, Change::Stopped(signal)))) if pid == child => tell_stopped(signal, workload),
            Ok(None) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => end(125),
        }
    }
}

/// The lifeline carries the numbers of the signals that stopped the workload.
fn tell_stopped(signal: i32, workload: &Workload) {
    let number = u8::try_from(signal).unwrap_or_default();
    let _ = nix::unistd::write(&workload.lifeline, &[number]); // the supervisor may be ending
}

/// Ends, and everything that the workload has started with it.
fn end(status: i32) -> ! {
    while !is_init() && end_children() {}
    sys::exit_now(status)
}

/// Kills our children, and waits for one of them: its own are ours then. False if there was none.
fn end_children() -> bool {
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let killed = children.filter(|pid| sys::kill(Pid::from_raw(*pid), libc::SIGKILL).is_ok()).count();
    killed > 0 && sys::wait_any(0).is_ok()
}
