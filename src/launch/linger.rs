//! The end of a run's mounts, left to the kernel.
//!
//! To take a mount namespace apart is a tenth of a start, and falls to the last process in it, for whose end the caller waits.
//! So the namespace outlives PID 1 a little: a message refers to it that waits in a socket, and to that socket nothing refers
//! but the same message. The kernel finds such a circle as soon as a socket is closed, the other end of the same by PID 1's
//! exit, and takes it apart in a worker of its own (net/unix/garbage.c). A kernel before 6.9 does that where the socket is
//! closed: there PID 1 takes as long as ever.
//!
//! In: nothing. Out: descriptors, for PID 1 to hold, and the circle at its end. Made in the launched process, in its own mount
//! namespace, before the change of root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::stream_pair;
use crate::error::{Context, Result};
use crate::sys;

/// This process's mount namespace.
const NAMESPACE: &str = "/proc/self/ns/mnt";

/// What the circle is made of.
#[derive(Debug)]
pub(super) struct Lingering {
    namespace: OwnedFd,
    socket: OwnedFd,
    peer: OwnedFd,
}

impl Lingering {
    /// Opens all that it takes. Nothing is on its way yet: what is counts against the user's limit, and makes the kernel look for
    /// circles.
    pub(super) fn open() -> Result<Self> {
        let namespace = open(NAMESPACE, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .context(|| format!("open `{NAMESPACE}`"))?;
        let (socket, peer) = stream_pair()?;
        Ok(Self { namespace, socket, peer })
    }

    /// What stays open for it.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.namespace.as_fd(), self.socket.as_fd(), self.peer.as_fd()]
    }

    /// Closes the circle, of a process that ends now.
    pub(super) fn leave(&self) -> Result<()> {
        sys::send_fd(self.peer.as_fd(), self.namespace.as_fd())?;
        sys::send_fd(self.peer.as_fd(), self.socket.as_fd())
    }
}
