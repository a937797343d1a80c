//! The driver's program (`src/driver`), which gpurun carries: it runs with the host's glibc, as the driver's libraries do.
//!
//! In: nothing. Out: its bytes, or a [`Program`] that can be executed from memory, with an empty environment.

use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Context, Hint, Result};

/// What it is, as `src/build.rs` made it.
pub const BYTES: &[u8] = include_bytes!(env!("GPURUN_DRIVER_PROGRAM"));

const NAME: &CStr = c"gpurun-driver";

/// Why it may not start.
pub const HINT: &str = "it needs a glibc like the one that gpurun was built with, and `sysctl vm.memfd_noexec` below 2";

/// A file in memory that can be executed: before Linux 6.3 each can, and no flag asks for it.
fn executable() -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC;
    match memfd_create(NAME, flags | MFdFlags::from_bits_retain(libc::MFD_EXEC)) {
        Err(Errno::EINVAL) => memfd_create(NAME, flags),
        made => made,
    }
}

/// The program, in memory.
pub struct Program(File);

impl Program {
    /// Puts it there.
    pub fn load() -> Result<Self> {
        let what = || "put the driver's program into memory";
        let mut file = File::from(executable().context(what).hint(|| HINT)?);
        file.write_all(BYTES).context(what)?;
        Ok(Self(file))
    }

    /// What executes it, as long as `self` lives. Its libraries are the host's own: a caller's LD_LIBRARY_PATH has no say.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        command.arg0("gpurun-driver").arg(verb).env_clear();
        command
    }
}
