//! Resource limits by Docker's names. Pure, but for [`apply`], which runs in the workload's process before exec.

use nix::sys::resource::{Resource, setrlimit};

use crate::error::{Context, Error, Result};
use crate::request::Limit;

/// The kernel's resource of this name.
pub fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "locks" => Resource::RLIMIT_LOCKS,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rss" => Resource::RLIMIT_RSS,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        "stack" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

/// Sets this process's limit.
pub fn apply(limit: &Limit) -> Result<()> {
    let what = || format!("setrlimit {} to {}:{}", limit.name, limit.soft, limit.hard);
    let resource = resource(&limit.name).ok_or_else(|| Error::new("no such limit")).context(what)?;
    setrlimit(resource, limit.soft, limit.hard)
        .context(what)
        .map_err(|e| e.hint("an ordinary user cannot raise a hard limit: see `ulimit -Ha`"))
}
