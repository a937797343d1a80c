//! Which signals are forwarded, ignored and waited for, and the mask under which a launch runs.
//!
//! In: what the caller has set. Out: the same, for the workload's process before its exec. Two are handled gpurun's own way from
//! its start; those that are forwarded are blocked in the supervisor before anything is made, so that none is lost between
//! fork and the wait.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::error::{Context, Result};
use crate::sys;

/// What the supervisor hands on to the workload.
pub(crate) const FORWARDED: &[Signal] = &[
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
];

/// The value sent along with a signal that is meant for the workload's whole process group, as a terminal's keys are.
pub(crate) const TO_GROUP: usize = 1;

/// All forwarded signals, and the end of a child.
pub(crate) fn waited_for() -> SigSet {
    FORWARDED.iter().copied().chain([Signal::SIGCHLD]).collect()
}

/// Blocks what is waited for, what writing to a terminal from the background would stop us with, and what writing more
/// than the caller may (`ulimit -f`) would kill us with: that is an error. Gives the mask that was.
pub(crate) fn block() -> Result<SigSet> {
    let mut set = waited_for();
    set.add(Signal::SIGTTOU);
    set.add(Signal::SIGXFSZ);
    sys::sigmask(SigmaskHow::SIG_BLOCK, &set).context(|| "block signals")
}

/// How long the workload runs at least before it is worth to let go of the program's pages: that is a fiftieth of a start.
const LONG: Duration = Duration::from_millis(50);

/// Waits for signals, with little memory if that takes long.
pub(crate) struct Waiter {
    set: SigSet,
    released: bool,
}

impl Waiter {
    /// For these, all of which are blocked.
    pub(crate) fn new(set: SigSet) -> Self {
        Self { set, released: false }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> nix::Result<sys::Signal> {
        if !self.released {
            match sys::sigwait(&self.set, Some(LONG)) {
                Err(Errno::EAGAIN) => sys::release_program(),
                early => return early,
            }
            self.released = true;
        }
        sys::sigwait(&self.set, None)
    }
}

/// Lets a signal through. Gives the mask that was.
pub(crate) fn unblock(signal: i32) -> nix::Result<SigSet> {
    let set: SigSet = [Signal::try_from(signal)?].into_iter().collect();
    sys::sigmask(SigmaskHow::SIG_UNBLOCK, &set)
}

/// Signals that must be handled in one way: a reader that is gone is an error and no end, and of a child whose end is ignored
/// nobody is told.
const OURS: &[(Signal, bool)] = &[(Signal::SIGPIPE, true), (Signal::SIGCHLD, false)];

/// Handles them so. Gives those that the caller ignores.
pub(crate) fn take_over() -> Result<SigSet> {
    let mut ignored = SigSet::empty();
    for (signal, ours) in OURS {
        if sys::ignore(*signal, *ours).context(|| format!("sigaction {signal}"))? {
            ignored.add(*signal);
        }
    }
    Ok(ignored)
}

/// Ignores of them what the caller ignores.
pub(crate) fn give_back(ignored: &SigSet) -> nix::Result<()> {
    OURS.iter().try_for_each(|(signal, _)| sys::ignore(*signal, ignored.contains(*signal)).map(drop))
}

/// Gives this process the caller's mask back, and has it ignore what the caller ignores.
pub(crate) fn restore(before: &SigSet, ignored: &SigSet) -> nix::Result<()> {
    give_back(ignored)?;
    sys::sigmask(SigmaskHow::SIG_SETMASK, before).map(drop)
}
