//! Device nodes: the host's are bound, since an ordinary user can make none.
//!
//! In: a node of a spec, or the paths of a `--device`. Out: mounts, and what does not agree with the spec. Looks at the
//! host's nodes, and opens those of a spec, since no number says what a device cgroup forbids.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::spec::DeviceNode;
use crate::error::{Context, Error, Result};
use crate::gpu::root::why_not;
use crate::plan::mounts::Mount;

/// The most nodes that a directory may have.
const MAX_NODES: usize = 4096;

/// What moby leaves out of a directory of devices (daemon/oci_linux.go, and runc's devices.GetDevices).
const NO_DEVICES: &[&str] = &["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];

/// A node of a spec, and what is to be said about it.
pub(super) fn named(node: &DeviceNode) -> Result<(Mount, Vec<String>)> {
    let source = node.host_path.as_ref().unwrap_or(&node.path);
    let what = || format!("find the device node `{source}`");
    let stat = std::fs::metadata(source)
        .context(what)
        .map_err(|e| e.hint("the spec may be older than the driver: the tool that wrote it writes it anew"))?;
    if !is_kind(&stat, &node.kind) {
        return Err(Error::new(format!("it is not of the type that the spec says: `{}`", node.kind))).context(what);
    }
    let warnings = other_number(node, source, &stat).into_iter().chain(unopenable(node, source, &stat));
    Ok((Mount { noexec: true, ..Mount::bind(source, &node.path, "a device's node") }, warnings.collect()))
}

fn is_kind(stat: &Metadata, kind: &str) -> bool {
    let is = stat.file_type();
    match kind {
        "b" => is.is_block_device(),
        "p" => is.is_fifo(),
        "" => is.is_char_device() || is.is_block_device() || is.is_fifo(),
        _ => is.is_char_device(),
    }
}

/// A major number of 0 says nothing, and a minor number of 0 is not written at all.
fn other_number(node: &DeviceNode, source: &str, stat: &Metadata) -> Option<String> {
    let stated = (node.major.filter(|n| *n != 0)?, node.minor.unwrap_or_default());
    let found = (major(stat.rdev()), minor(stat.rdev()));
    let same = u64::try_from(stated.0) == Ok(found.0) && u64::try_from(stated.1) == Ok(found.1);
    (!same).then(|| {
        let (stated, found) = (format!("{}:{}", stated.0, stated.1), format!("{}:{}", found.0, found.1));
        format!(
            "`{source}` is the device {found}, and its CDI spec says {stated}: the spec may be older than the driver"
        )
    })
}

/// With `O_NONBLOCK` nobody waits for a device that comes up at its first open.
fn unopenable(node: &DeviceNode, source: &str, stat: &Metadata) -> Option<String> {
    if !stat.file_type().is_char_device() {
        return None;
    }
    let writes = node.permissions.as_ref().is_none_or(|letters| letters.contains('w'));
    let mut options = std::fs::OpenOptions::new();
    let opened = options.read(true).write(writes).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(source);
    let error = opened.err()?;
    Some(format!("`{source}` cannot be opened: {}", error.raw_os_error().map_or_else(|| error.to_string(), why_not)))
}

/// A node that `--device` names by its path, or all nodes in a directory, as Docker has it.
pub(super) fn plain(source: &Path, target: &Path) -> Result<Vec<Mount>> {
    let what = || format!("find the device node `{}`", source.display());
    let stat = std::fs::metadata(source).context(what)?;
    let mut all = Vec::new();
    if stat.is_dir() {
        walk(source, target, &mut all).context(what)?;
    } else if is_device(&stat) {
        all.push(bound(source, target));
    }
    match all.is_empty() {
        false => Ok(all),
        true if stat.is_dir() => Err(Error::new(format!("there is no device node in `{}`", source.display()))),
        true => Err(Error::new(format!("`{}` is no device node", source.display()))
            .hint(format!("for a file or a socket, `-v {}`", source.display()))),
    }
}

fn is_device(stat: &Metadata) -> bool {
    stat.file_type().is_char_device() || stat.file_type().is_block_device()
}

fn bound(source: &Path, target: &Path) -> Mount {
    Mount { noexec: true, ..Mount::bind(source, target, "--device") }
}

/// Links are left out: they lead to nodes that are there by their own names.
fn walk(source: &Path, target: &Path, all: &mut Vec<Mount>) -> Result<()> {
    for name in names(source)?.iter().filter(|name| !NO_DEVICES.iter().any(|no| *name == *no)) {
        let (source, target): (PathBuf, PathBuf) = (source.join(name), target.join(name));
        let Ok(stat) = std::fs::symlink_metadata(&source) else { continue };
        // What the caller may not list it could not open either.
        if stat.is_dir() && names(&source).is_ok() {
            walk(&source, &target, all)?;
        } else if is_device(&stat) {
            all.push(bound(&source, &target));
        }
        if all.len() > MAX_NODES {
            return Err(Error::new(format!("there are more than {MAX_NODES} device nodes in it")));
        }
    }
    Ok(())
}

fn names(directory: &Path) -> Result<Vec<OsString>> {
    let what = || format!("list `{}`", directory.display());
    let entries = std::fs::read_dir(directory).context(what)?;
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>().context(what)?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str) -> DeviceNode {
        DeviceNode { path: path.into(), ..DeviceNode::default() }
    }

    #[test]
    fn a_node_is_the_hosts_and_what_the_spec_has_otherwise_is_said() {
        let host = DeviceNode { host_path: Some("/dev/null".into()), major: Some(1), minor: Some(3), ..node("/dev/x") };
        let (mount, warnings) = named(&host).unwrap();
        assert_eq!(mount, Mount { noexec: true, ..Mount::bind("/dev/null", "/dev/x", "a device's node") });
        assert_eq!(warnings, Vec::<String>::new());
        let (_, warnings) = named(&DeviceNode { minor: None, ..host.clone() }).unwrap();
        assert!(warnings[0].contains("is the device 1:3, and its CDI spec says 1:0"), "{warnings:?}");
        assert!(named(&DeviceNode { kind: "b".into(), ..host.clone() }).is_err());
        assert!(named(&DeviceNode { kind: "u".into(), ..host }).is_ok());
        let missing = named(&node("/dev/none")).unwrap_err();
        assert!(format!("{missing:#}").contains("`/dev/none`: No such file"), "{missing:#}");
        assert!(named(&node("/etc/passwd")).is_err());
    }

    #[test]
    fn a_directory_is_all_its_nodes() {
        assert_eq!(
            plain(Path::new("/dev/null"), Path::new("/dev/x")).unwrap(),
            [bound(Path::new("/dev/null"), Path::new("/dev/x"))]
        );
        let all = plain(Path::new("/dev"), Path::new("/dev/host")).unwrap();
        assert!(all.contains(&bound(Path::new("/dev/null"), Path::new("/dev/host/null"))));
        assert!(all.iter().all(|mount| !mount.target.starts_with("/dev/host/pts")));
        for path in ["/etc/passwd", "/proc/self", "/dev/none"] {
            assert!(plain(Path::new(path), Path::new("/dev/x")).is_err(), "{path}");
        }
    }
}
