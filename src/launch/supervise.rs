//! The supervisor's side of a run: wait for the start, forward every signal, give back the status.
//!
//! In: the launched process and the ends of its pipes. Out: the workload's exit status. Runs in the process the caller
//! started, which stays in the caller's mount namespace.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::{SigmaskHow, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::signals::{self, Waiter};
use super::tty;
use crate::error::{Context, Result};
use crate::sys;

/// Stays with the launched process until it ends.
pub(super) fn run(child: Pid, started: Result<()>, lifeline: &OwnedFd, console: Option<OwnedFd>) -> Result<u8> {
    let supervisor = Supervisor { child };
    if let Err(failure) = started {
        waitpid(child, None).context(|| format!("wait for process {child}"))?;
        return Err(failure);
    }
    match console {
        Some(console) => {
            sys::release_program(); // whoever sits there stays longer than it takes
            tty::relay(&supervisor, console, lifeline)
        }
        None => supervisor.wait(),
    }
}

/// The launched process, and how it is told things.
pub(super) struct Supervisor {
    child: Pid,
}

impl Supervisor {
    fn wait(&self) -> Result<u8> {
        let mut signals = Waiter::new(signals::waited_for());
        loop {
            match signals.next() {
                Ok(signal) if signal.number == libc::SIGCHLD => {
                    if let Some(status) = self.ended()? {
                        return Ok(status);
                    }
                }
                Ok(signal) => {
                    self.forward(signal.number, signal.from_kernel)?;
                    if signal.number == libc::SIGTSTP {
                        stop_self(libc::SIGTSTP)?;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e).context(|| "sigtimedwait"),
            }
        }
    }

    /// The exit status, if the launched process has ended.
    pub(super) fn ended(&self) -> Result<Option<u8>> {
        match waitpid(self.child, Some(WaitPidFlag::WNOHANG)).context(|| format!("wait for process {}", self.child))? {
            WaitStatus::Exited(_, status) => Ok(Some(u8::try_from(status).unwrap_or(u8::MAX))),
            WaitStatus::Signaled(_, signal, _) => Ok(Some(128 + signal as u8)),
            _ => Ok(None),
        }
    }

    /// Hands a signal on; one that a terminal's key made goes to the workload's whole process group, as it would
    /// without gpurun.
    pub(super) fn forward(&self, number: i32, to_group: bool) -> Result<()> {
        let value = if to_group || number == libc::SIGCONT { signals::TO_GROUP } else { 0 };
        match sys::sigqueue(self.child, number, value) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => return Err(e).context(|| format!("send signal {number} to process {}", self.child)),
        }
        Ok(())
    }
}

/// Stops this process by the signal that stopped the workload, as the shell that waits for it expects. The kernel stops
/// no orphaned process group by a terminal's signal (setpgid(2)): there nobody would continue it, but somebody asked.
pub(super) fn stop_self(signal: i32) -> Result<()> {
    let what = || format!("stop gpurun by signal {signal}");
    let before = signals::unblock(signal).context(what)?;
    sys::kill(nix::unistd::getpid(), signal).context(what)?;
    sys::sigmask(SigmaskHow::SIG_SETMASK, &before).context(what)?;
    match sys::is_pending(Signal::SIGCONT).context(what)? {
        true => Ok(()), // it was what ended the stop
        false => kill(nix::unistd::getpid(), Signal::SIGSTOP).context(what),
    }
}
