//! The mounts a user wants: `-v`, `--mount`, `--tmpfs`, `--home` and `--here`.
//!
//! In: the options, and the caller's directories. Out: [`Wanted`] values, parents before what is below them. Pure.

mod mount;
mod volume;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cli::RunArgs;
use crate::error::{Context, Error, Result};
use crate::host::Host;
pub(crate) use mount::{fields, parse_mode};
use mount::{parse_mount, parse_tmpfs};
use volume::parse_volumes;

/// Targets that gpurun itself fills: what is mounted there must be what the workload expects of them.
const RESERVED: &[&str] = &[
    "/",
    "/dev",
    "/sys",
    "/dev/pts",
    "/dev/ptmx",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/fd",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
];

/// One mount the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path inside.
        target: PathBuf,
        /// Whether nothing below it can be written.
        read_only: bool,
        /// The option that asked for it.
        why: &'static str,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Absolute path inside.
        target: PathBuf,
        /// Size in bytes; half of the memory if not given.
        size: Option<u64>,
        /// Permission bits.
        mode: u32,
    },
}

impl Wanted {
    /// Where it is mounted.
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// The current directory, which the option `why` needs.
pub(super) fn current_dir(host: &Host, why: &str) -> Result<PathBuf> {
    host.cwd.clone().context(|| format!("{why} needs a current directory, and this one was deleted or is unreadable"))
}

/// All of them.
pub(super) fn wanted(args: &RunArgs, host: &Host) -> Result<Vec<Wanted>> {
    let mut all = Vec::new();
    if args.home {
        let home = host.home.clone().context(|| "--home needs a home directory, and none is known: set $HOME")?;
        all.push(Wanted::Bind { source: home.clone(), target: home, read_only: false, why: "--home" });
    }
    if args.here {
        let cwd = current_dir(host, "--here")?;
        all.push(Wanted::Bind { source: cwd.clone(), target: cwd, read_only: false, why: "--here" });
    }
    for list in &args.volume {
        all.extend(parse_volumes(list, host)?);
    }
    for spec in &args.mount {
        all.push(parse_mount(spec, host)?);
    }
    for spec in &args.tmpfs {
        all.push(parse_tmpfs(spec)?);
    }
    for mount in &all {
        check_target(mount.target())?;
    }
    all.sort_by_key(|m| m.target().components().count());
    Ok(all)
}

/// Refuses a place where nothing can be mounted.
pub(crate) fn check_target(target: &Path) -> Result<()> {
    let shown = target.display();
    if !target.is_absolute() {
        return Err(Error::new(format!("the mount target `{shown}` is not an absolute path"))
            .hint(format!("did you mean `/{shown}`?")));
    }
    if target.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(Error::new(format!("the mount target `{shown}` has `..` in it")));
    }
    let plain: PathBuf = target.components().collect();
    if plain.starts_with("/proc") || RESERVED.iter().any(|r| plain == Path::new(r)) {
        return Err(Error::new(format!("`{shown}` cannot be mounted over: gpurun fills it itself"))
            .hint("choose another target"));
    }
    Ok(())
}

/// A source that is spelled like a path; a bare word is a named volume to Docker, which there are none of here.
fn absolute_source(source: &OsStr, host: &Host) -> Result<PathBuf> {
    let path = Path::new(source);
    if path.is_absolute() {
        return Ok(path.into());
    }
    if let Ok(below) = path.strip_prefix("~") {
        let home = host.home.as_ref().context(|| "`~` needs a home directory, and none is known: set $HOME")?;
        return Ok(home.join(below));
    }
    if source.as_bytes().starts_with(b".") {
        return Ok(current_dir(host, "a relative bind source")?.join(path));
    }
    Err(Error::new(format!("the bind source `{}` is not a path, and there are no named volumes", path.display()))
        .hint(format!("did you mean `./{}`?", path.display())))
}

/// What Docker takes for macOS' sake and means nothing on Linux.
const CONSISTENCY: [&[u8]; 3] = [b"consistent", b"cached", b"delegated"];

/// Why an option that Docker or Podman has cannot be honoured.
fn refused(word: &[u8]) -> Option<&'static str> {
    Some(match word {
        b"shared" | b"rshared" => "what an ordinary user mounts inside cannot appear outside",
        b"slave" | b"rslave" => "what is mounted outside later does not appear inside: everything there now does",
        b"bind" => "what is mounted below a bind always comes along",
        b"U" => "an ordinary user cannot give files away: they are the caller's inside as well",
        b"O" => "there are no overlays of single directories: `--overlay` keeps what is written to the image",
        b"copy" | b"nocopy" => "there are no named volumes that anything could be copied to",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_absolute_and_not_gpuruns_own() {
        for target in ["b", "/a/../b", "/", "/dev", "/proc/", "/proc/x", "//sys", ""] {
            assert!(check_target(Path::new(target)).is_err(), "{target}");
        }
        for target in ["/b", "/dev/x", "/proc2", "/sys/x"] {
            assert!(check_target(Path::new(target)).is_ok(), "{target}");
        }
    }
}
