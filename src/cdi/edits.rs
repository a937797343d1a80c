//! What else a spec edits: mounts, links, variables, groups.
//!
//! In: parts of a spec. Out: parts of the plan, or what an ordinary user cannot have, by its name. Pure, but that
//! [`nested`] looks whether the host has a path.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Link;
use super::spec::{self, Edits};
use crate::error::{Error, Result};
use crate::plan::mounts::{Mount, What};
use crate::request::{check_target, parse_mode, parse_size};

/// Options that hold anyway, or that say how mounts travel, which they never do here.
const HOLD: &[&str] = &[
    "rw",
    "bind",
    "rbind",
    "nosuid",
    "dev",
    "exec",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "atime",
    "noatime",
    "relatime",
    "strictatime",
    "nodiratime",
    "diratime",
    "lazytime",
    "async",
    "z",
    "Z",
];

/// Directories of the host's, in which no place for anything is made.
const HOSTS: &[&str] = &["/dev/shm", "/sys"];

/// Refuses what needs privileges.
pub(super) fn refuse(edits: &Edits) -> Result<()> {
    if let Some(interface) = edits.net_devices.first() {
        let name = &interface.host_interface_name;
        return Err(Error::new(format!(
            "netDevices: an ordinary user cannot move the interface `{name}` into a container"
        )));
    }
    match edits.intel_rdt {
        Some(_) => {
            Err(Error::new("intelRdt: an ordinary user cannot set the shares of caches and of memory bandwidth"))
        }
        None => Ok(()),
    }
}

/// Variables, which were checked to have a name.
pub(super) fn env(entries: &[String]) -> impl Iterator<Item = (OsString, OsString)> {
    entries.iter().filter_map(|entry| entry.split_once('=')).map(|(name, value)| (name.into(), value.into()))
}

/// The caller's groups stay as they are: those are enough, or nothing is.
pub(super) fn missing_groups(wanted: &[u32], have: &[u32]) -> impl Iterator<Item = String> {
    let missing = wanted.iter().filter(|group| **group != 0 && !have.contains(group));
    missing.map(|group| {
        format!("the device wants the group {group}, and you are not in it: an ordinary user can add none")
    })
}

/// What a chmod hook is for: directories in /dev that were made without a mode. Ours have one.
pub(super) fn modes(mode: &str, paths: &[String]) -> Vec<String> {
    let other = paths.iter().filter(|path| mode.trim_start_matches('0') != "755" || !path.starts_with("/dev/"));
    other.map(|path| format!("`{path}` keeps its mode: the spec's hook would give it {mode}")).collect()
}

/// A mount of a spec.
pub(super) fn mount(mount: &spec::Mount) -> Result<Mount> {
    match mount.kind.as_str() {
        "" | "none" | "bind" => bind(mount),
        "tmpfs" => tmpfs(mount),
        kind => Err(Error::new(format!(
            "the mount at `{}` is of the type `{kind}`, which cannot be had",
            mount.container_path
        ))),
    }
}

fn bind(mount: &spec::Mount) -> Result<Mount> {
    let mut made = Mount::bind(&mount.host_path, &mount.container_path, "a device's file");
    for option in &mount.options {
        match option.as_str() {
            "ro" | "rro" => made.read_only = true,
            "nodev" => made.nodev = true,
            "noexec" => made.noexec = true,
            known if HOLD.contains(&known) => {}
            other => return Err(unknown(mount, other)),
        }
    }
    Ok(made)
}

fn tmpfs(mount: &spec::Mount) -> Result<Mount> {
    let (mut size, mut mode) = (None, 0o1777);
    for option in &mount.options {
        match option.split_once('=') {
            Some(("size", value)) => size = Some(parse_size(value)?),
            Some(("mode", value)) => mode = parse_mode(value)?,
            None if ["nodev", "noexec"].contains(&option.as_str()) || HOLD.contains(&option.as_str()) => {}
            _ => return Err(unknown(mount, option)),
        }
    }
    Ok(Mount { what: What::Tmpfs { size, mode }, ..Mount::bind("", &mount.container_path, "a device's directory") })
}

fn unknown(mount: &spec::Mount, option: &str) -> Error {
    Error::new(format!("the mount at `{}` has the option `{option}`, which cannot be had", mount.container_path))
}

/// Adds mounts to those that there are. Devices of one vendor share nodes and files, each of which is mounted once.
pub(super) fn add(all: &mut Vec<Mount>, more: Vec<Mount>) -> Result<()> {
    for mount in more {
        check(&mount.target)?;
        match all.iter().find(|known| known.target == mount.target) {
            None => all.push(mount),
            Some(known) if known.what == mount.what => {}
            Some(_) => {
                let at = mount.target.display();
                return Err(Error::new(format!("two devices want something else at `{at}` each")));
            }
        }
    }
    Ok(())
}

fn check(target: &Path) -> Result<()> {
    check_target(target)?;
    match HOSTS.iter().any(|hosts| target.starts_with(hosts)) {
        true => Err(Error::new(format!("nothing can be put at `{}`: the directory is the host's", target.display()))),
        false => Ok(()),
    }
}

/// Refuses a mount for which a place would have to be made in a directory of the host's that another one binds.
pub(super) fn nested(mounts: &[Mount]) -> Result<()> {
    for outer in mounts {
        let What::Bind { source } = &outer.what else { continue };
        for inner in mounts.iter().filter(|inner| inner.target != outer.target) {
            let Ok(below) = inner.target.strip_prefix(&outer.target) else { continue };
            if !source.join(below).exists() {
                let (inner, outer) = (inner.target.display(), outer.target.display());
                return Err(Error::new(format!(
                    "`{inner}` has no place: `{outer}` is a directory of the host's without it"
                )));
            }
        }
    }
    Ok(())
}

/// Links of a hook: paths inside, and where they lead.
pub(super) fn links(pairs: Vec<(String, String)>) -> Result<Vec<Link>> {
    let link = |(path, to): (String, String)| {
        check(Path::new(&path))?;
        let path: PathBuf = Path::new(&path).components().collect();
        Ok(Link { path, to, why: "a link that the spec's hook would make" })
    };
    pairs.into_iter().map(link).collect()
}

/// Leaves out links that a mount would cover, and repeated ones. Says which are covered.
pub(super) fn hidden(links: &mut Vec<Link>, mounts: &[Mount]) -> Vec<String> {
    let mut said = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    links.retain(|link| {
        let over = mounts.iter().find(|mount| link.path.starts_with(&mount.target));
        said.extend(over.map(|over| {
            format!("the link `{}` is not made: `{}` is mounted there", link.path.display(), over.target.display())
        }));
        let first = !seen.contains(&link.path);
        seen.push(link.path.clone());
        over.is_none() && first
    });
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdi::spec::{IntelRdt, NetDevice};
    use proptest::prelude::*;

    fn of_spec(host: &str, inside: &str, kind: &str, options: &[&str]) -> spec::Mount {
        let options = options.iter().map(ToString::to_string).collect();
        spec::Mount { host_path: host.into(), container_path: inside.into(), kind: kind.into(), options }
    }

    #[test]
    fn mounts_keep_the_options_that_mean_something() {
        let usual = of_spec("/a", "/b", "", &["ro", "nosuid", "nodev", "rbind", "rprivate", "noexec"]);
        let want = Mount { read_only: true, nodev: true, noexec: true, ..Mount::bind("/a", "/b", "a device's file") };
        assert_eq!(mount(&usual).unwrap(), want);
        let tmpfs =
            mount(&of_spec("tmpfs", "/tmp/data", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=64k"])).unwrap();
        assert_eq!(tmpfs.what, What::Tmpfs { size: Some(65536), mode: 0o755 });
        for (kind, option) in [("", "suid"), ("", "uid=0"), ("tmpfs", "nr_inodes=1"), ("overlay", "ro")] {
            let error = mount(&of_spec("/a", "/b", kind, &[option])).unwrap_err();
            assert!(error.to_string().starts_with("the mount at `/b`"), "{error}");
        }
    }

    #[test]
    fn what_needs_privileges_is_refused_by_name() {
        let net = Edits {
            net_devices: vec![NetDevice { host_interface_name: "eth1".into(), name: "x".into() }],
            ..Edits::default()
        };
        assert!(refuse(&net).unwrap_err().to_string().contains("`eth1`"));
        let rdt = Edits { intel_rdt: Some(IntelRdt::default()), ..Edits::default() };
        assert!(refuse(&rdt).unwrap_err().to_string().starts_with("intelRdt"));
        assert_eq!(missing_groups(&[0, 5, 39], &[5]).count(), 1);
    }

    #[test]
    fn one_place_has_one_thing() {
        let mut all = Vec::new();
        let node = || Mount::bind("/dev/kfd", "/dev/kfd", "x");
        add(&mut all, vec![node(), node()]).unwrap();
        assert_eq!(all.len(), 1);
        assert!(add(&mut all, vec![Mount::bind("/dev/other", "/dev/kfd", "x")]).is_err());
        for target in ["/proc/x", "/dev/shm/x", "/sys/x", "/dev/null", "/a/../b", "/"] {
            assert!(add(&mut all, vec![Mount::bind("/a", target, "x")]).is_err(), "{target}");
        }
    }

    #[test]
    fn a_link_below_a_mount_is_not_made() {
        let pair = |path: &str| (path.to_owned(), "x".to_owned());
        let mut all = links(vec![pair("/usr/lib/a.so"), pair("/usr/lib//a.so"), pair("/opt/v/b")]).unwrap();
        let said = hidden(&mut all, &[Mount::bind("/v", "/opt/v", "x")]);
        assert_eq!((all.len(), said.len()), (1, 1), "{all:?} {said:?}");
        assert!(links(vec![pair("/usr/../etc/x")]).is_err() && links(vec![pair("/proc/x")]).is_err());
    }

    proptest! {
        #[test]
        fn nothing_is_put_into_a_directory_of_the_hosts(parts in proptest::collection::vec("(dev|shm|proc|sys|pts|null|\\.|\\.\\.|a)", 0..5), slashes in 1..3_usize) {
            let target = "/".repeat(slashes) + &parts.join("/");
            let mut all = Vec::new();
            if add(&mut all, vec![Mount::bind("/a", &target, "x")]).is_ok() {
                let plain: PathBuf = Path::new(&target).components().collect();
                prop_assert!(!target.contains(".."), "{target}");
                prop_assert!(!["/proc", "/sys", "/dev/shm"].iter().any(|dir| plain.starts_with(dir)), "{target}");
                prop_assert!(!["/", "/dev", "/dev/null"].iter().any(|own| plain == Path::new(own)), "{target}");
            }
        }
    }
}
