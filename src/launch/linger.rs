//! The end of a run's mounts, left to the kernel.
//!
//! To take a mount namespace apart is a tenth of a start, and falls to the last process in it, for whose end the caller waits.
//! So the namespace lives a little longer than PID 1: a message refers to it that waits in a socket, and to that socket nothing
//! refers but PID 1 and the same message. When PID 1 ends, the kernel finds the circle as soon as another socket is closed,
//! which its lifeline is, and takes it apart in a worker of its own (net/unix/garbage.c). A kernel before 6.9 does that where
//! the socket is closed: there PID 1 takes as long as ever.
//!
//! In: nothing. Out: the socket, for PID 1 to hold. Runs in the launched process, in its own mount namespace, before the change
//! of root.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::stream_pair;
use crate::error::{Context, Result};
use crate::sys;

/// This process's mount namespace.
const NAMESPACE: &str = "/proc/self/ns/mnt";

/// Makes the circle.
pub(super) fn hold_mounts() -> Result<OwnedFd> {
    let namespace =
        open(NAMESPACE, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).context(|| format!("open `{NAMESPACE}`"))?;
    let (held, peer) = stream_pair()?;
    sys::send_fd(peer.as_fd(), namespace.as_fd())?;
    sys::send_fd(peer.as_fd(), held.as_fd())?;
    Ok(held)
}
