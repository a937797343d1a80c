//! The terminal between the caller's and the workload's own: raw mode, bytes both ways, size, stop and continue.
//!
//! In: the console socket, over which libcontainer's init sends the pseudo terminal's master. Out: the workload's exit
//! status. Runs in the supervisor. The caller's terminal gets its modes back on every way out.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{read, tcgetpgrp, write};

use super::signals;
use super::supervise::{Supervisor, stop_self};
use crate::error::{Context, Result};
use crate::sys;

/// How much is relayed at a time.
const CHUNK: usize = 16 << 10;

/// Relays until the workload ends.
pub(super) fn relay(supervisor: &Supervisor, console: OwnedFd, lifeline: &OwnedFd) -> Result<u8> {
    let master = receive_master(&console)?;
    drop(console);
    let peer = sys::peer(master.as_fd())?;
    let mut terminal = Terminal { modes: Modes::take()?, master, _peer: peer, typed: Vec::new(), gone: false };
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals::waited_for(), flags).context(|| "signalfd")?;
    terminal.resume()?;
    loop {
        let ready = terminal.wait(&signals, lifeline)?;
        if ready.output {
            terminal.show()?;
        }
        if ready.stopped
            && let Some(signal) = stopping_signal(lifeline)?
        {
            terminal.modes.restore();
            stop_self(signal)?;
        }
        if ready.input {
            terminal.take_input()?;
        }
        terminal.send()?;
        if ready.signal
            && let Some(status) = terminal.handle(supervisor, &signals)?
        {
            while terminal.show()? {}
            return Ok(status);
        }
    }
}

/// The master of the pseudo terminal that init opened in the container (SCM_RIGHTS).
fn receive_master(console: &OwnedFd) -> Result<OwnedFd> {
    let master = sys::receive_fd(console.as_fd()).context(|| "receive the terminal from the container")?;
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))
        .context(|| "make the terminal non-blocking")?;
    Ok(master)
}

/// What stopped the workload; nothing if PID 1 is gone.
fn stopping_signal(lifeline: &OwnedFd) -> Result<Option<i32>> {
    let mut byte = [0];
    let got = read(lifeline, &mut byte).context(|| "read the lifeline")?;
    Ok((got == 1).then_some(byte[0].into()))
}

struct Terminal {
    modes: Modes,
    master: OwnedFd,
    /// Keeps the master from hanging up, which poll would report for ever, when no process of the workload holds it.
    _peer: OwnedFd,
    /// Whether the caller's terminal hung up: nothing more can be read from it.
    gone: bool,
    /// Typed, and not yet taken by the workload's terminal.
    typed: Vec<u8>,
}

#[derive(Default)]
struct Ready {
    signal: bool,
    stopped: bool,
    output: bool,
    input: bool,
}

impl Terminal {
    /// Waits for something to do. Nothing more is read while the workload has not taken what was typed, and nothing at
    /// all in the background.
    fn wait(&self, signals: &SignalFd, lifeline: &OwnedFd) -> Result<Ready> {
        let wanted = |on: bool, flag: PollFlags| if on { flag } else { PollFlags::empty() };
        let input = self.typed.is_empty() && self.modes.raw && !self.gone;
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(lifeline.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.master.as_fd(), PollFlags::POLLIN | wanted(!self.typed.is_empty(), PollFlags::POLLOUT)),
        ];
        if input {
            fds.push(PollFd::new(sys::stdio(0), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context(|| "poll the terminal"),
        }
        let is = |i: usize, flag: PollFlags| fds.get(i).and_then(PollFd::revents).is_some_and(|r| r.intersects(flag));
        Ok(Ready {
            signal: is(0, PollFlags::POLLIN),
            stopped: is(1, PollFlags::POLLIN),
            output: is(2, PollFlags::POLLIN),
            input: is(3, PollFlags::POLLIN | PollFlags::POLLHUP),
        })
    }

    /// Shows what the workload wrote; false if there is nothing left.
    fn show(&mut self) -> Result<bool> {
        let mut buffer = [0; CHUNK];
        match read(&self.master, &mut buffer) {
            Ok(0) | Err(Errno::EIO | Errno::EAGAIN) => Ok(false),
            Ok(n) => write_all(&buffer[..n]).map(|()| true),
            Err(Errno::EINTR) => Ok(true),
            Err(e) => Err(e).context(|| "read the workload's terminal"),
        }
    }

    fn take_input(&mut self) -> Result<()> {
        let mut buffer = [0; CHUNK];
        match read(sys::stdio(0), &mut buffer) {
            Ok(0) | Err(Errno::EIO) => self.gone = true,
            Ok(n) => self.typed.extend_from_slice(&buffer[..n]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(e) => return Err(e).context(|| "read the terminal"),
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        if self.typed.is_empty() {
            return Ok(());
        }
        match write(&self.master, &self.typed) {
            Ok(n) => drop(self.typed.drain(..n)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::EIO) => self.typed.clear(),
            Err(e) => return Err(e).context(|| "write to the workload's terminal"),
        }
        Ok(())
    }

    /// Takes one signal; the exit status if it was the workload's end.
    fn handle(&mut self, supervisor: &Supervisor, signals: &SignalFd) -> Result<Option<u8>> {
        let Some(info) = signals.read_signal().context(|| "read a signal")? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        match Signal::try_from(number) {
            Ok(Signal::SIGCHLD) => return supervisor.ended(),
            Ok(Signal::SIGWINCH) => self.resize()?,
            Ok(Signal::SIGTSTP) => supervisor.forward(number, true)?,
            Ok(Signal::SIGCONT) => {
                self.resume()?;
                supervisor.forward(number, true)?;
            }
            _ => supervisor.forward(number, info.ssi_code == libc::SI_KERNEL)?,
        }
        Ok(None)
    }

    /// Takes the terminal, if gpurun is in its foreground.
    fn resume(&mut self) -> Result<()> {
        match tcgetpgrp(sys::stdio(0)) {
            Ok(group) if group == nix::unistd::getpgrp() => self.modes.make_raw().and_then(|()| self.resize()),
            Ok(_) => Ok(()),
            Err(_) => {
                self.gone = true; // the kernel sends SIGCONT after the SIGHUP
                Ok(())
            }
        }
    }

    fn resize(&self) -> Result<()> {
        let Ok(size) = sys::window_size(sys::stdio(0)) else { return Ok(()) }; // it may be gone
        sys::set_window_size(self.master.as_fd(), &size).context(|| "set the terminal's size")
    }
}

fn write_all(mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match write(sys::stdio(1), bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(Errno::EIO) => return Ok(()), // the caller's terminal is gone, SIGHUP follows
            Err(e) => return Err(e).context(|| "write to the terminal"),
        }
    }
    Ok(())
}

/// The modes of the caller's terminal, given back when dropped.
struct Modes {
    before: Termios,
    raw: bool,
}

impl Modes {
    fn take() -> Result<Self> {
        let before = tcgetattr(sys::stdio(0)).context(|| "read the terminal's modes")?;
        Ok(Self { before, raw: false })
    }

    fn make_raw(&mut self) -> Result<()> {
        let mut raw = self.before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(sys::stdio(0), SetArg::TCSADRAIN, &raw).context(|| "make the terminal raw")?;
        self.raw = true;
        Ok(())
    }

    fn restore(&mut self) {
        if self.raw {
            let _ = tcsetattr(sys::stdio(0), SetArg::TCSADRAIN, &self.before); // the terminal may be gone
            self.raw = false;
        }
    }
}

impl Drop for Modes {
    fn drop(&mut self) {
        self.restore();
    }
}
