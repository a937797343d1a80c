//! The descriptors that the caller handed down: they reach the workload (PMI_FD, a jobserver), directories excepted.
//!
//! Runs first of all, before gpurun opens anything of its own.

use std::os::fd::RawFd;

use crate::error::{Context, Result};
use crate::sys;

/// Looks at every inherited descriptor, and gives the highest number above the standard streams that stays open. A standard
/// stream that was closed is opened on /dev/null. An open directory would lead the workload out of its root, so it is marked
/// to close on exec. Without /proc nothing is handed down.
pub(super) fn inherit() -> Result<Option<RawFd>> {
    sys::open_standard_streams()?;
    let mut highest = None;
    for number in open_numbers() {
        match sys::kind_of(number) {
            Ok(libc::S_IFDIR) => sys::set_cloexec(number).context(|| format!("close descriptor {number} on exec"))?,
            Ok(_) => highest = highest.max(Some(number)),
            Err(_) => {} // the directory we listed them with is closed by now
        }
    }
    Ok(highest)
}

fn open_numbers() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|number| *number > 2).collect()
}
