//! Where the machine is: a root folder that every path of the driver, of /proc, /sys and /dev goes through.
//!
//! In: `/`, or a folder that is laid out like a machine; `--driver-root` gives the driver's files a root of their own.
//! Out: texts, names, real paths and device nodes. Links are followed inside the root, so a driver root's absolute links
//! (Debian's alternatives) mean what they mean there. In a folder, where no nodes can be made without privileges, the
//! file `devices.txt` lists them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, major, minor};

use crate::error::{Context, Result};
use crate::inroot::{self, Root};

/// More than any file of /proc/driver/nvidia has.
const MAX_TEXT: u64 = 1 << 20;

/// A machine.
pub struct DriverRoot {
    system: Root,
    system_path: PathBuf,
    files: Root,
    /// What `devices.txt` lists, in a folder.
    nodes: Option<BTreeMap<PathBuf, Node>>,
    /// What was read: each part of /proc/driver/nvidia is asked for by several.
    texts: RefCell<BTreeMap<String, Option<String>>>,
}

/// A device node as the caller finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Major and minor number.
    pub number: (u64, u64),
    /// The error number of `open()`; `None` if it opens.
    pub error: Option<i32>,
}

impl DriverRoot {
    /// The machine that this is, with the driver's files below `files` if that is given.
    pub fn host(files: Option<&Path>) -> Result<Self> {
        Self::new(Path::new("/"), files, None)
    }

    /// A folder that is laid out like a machine, with a `devices.txt` in it: `PATH MAJOR:MINOR [ERRNO]` a line.
    pub fn folder(path: &Path) -> Result<Self> {
        Self::folder_with(path, None)
    }

    /// The same, with the driver's files below `files` if that is given.
    pub fn folder_with(path: &Path, files: Option<&Path>) -> Result<Self> {
        let list = path.join("devices.txt");
        let text = std::fs::read_to_string(&list).context(|| format!("read `{}`", list.display()))?;
        Self::new(path, files, Some(parse_nodes(&text).context(|| format!("understand `{}`", list.display()))?))
    }

    fn new(system: &Path, files: Option<&Path>, nodes: Option<BTreeMap<PathBuf, Node>>) -> Result<Self> {
        let of_files = Root::open(files.unwrap_or(system)).map_err(|e| match files {
            Some(_) => e.hint("--driver-root takes the directory below which the driver's usr/lib is"),
            None => e,
        })?;
        Ok(Self {
            system: Root::open(system)?,
            system_path: system.into(),
            files: of_files,
            nodes,
            texts: RefCell::default(),
        })
    }

    /// A small file of /proc or /sys; `None` if there is none that can be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let read = || {
            let bytes = self.system.read(Path::new(path), MAX_TEXT).ok()??;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        self.texts.borrow_mut().entry(path.to_owned()).or_insert_with(read).clone()
    }

    /// The sorted names in a directory of /proc, /sys or /dev.
    pub fn names(&self, path: &str) -> Vec<String> {
        let mut names = self.system.names(Path::new(path));
        names.sort();
        names
    }

    /// Whether a directory may have directories in it: procfs gives it a link for each, beside two of its own
    /// (fs/proc/generic.c, proc_mkdir). Other file systems may not count.
    pub fn has_directories(&self, path: &str) -> bool {
        nix::sys::stat::stat(&self.system_path(path)).is_ok_and(|stat| stat.st_nlink != 2)
    }

    /// A path of the machine as this process spells it.
    pub fn system_path(&self, path: &str) -> PathBuf {
        self.system_path.join(path.trim_start_matches('/'))
    }

    /// A device node; `None` if there is nothing at the path.
    pub fn node(&self, path: &str) -> Option<Node> {
        match &self.nodes {
            Some(listed) => listed.get(Path::new(path)).copied(),
            None => probe(Path::new(path)),
        }
    }

    /// Whether something other than a device may be at this path of the machine: a socket, a directory.
    pub fn has(&self, path: &str) -> bool {
        self.system.resolve(Path::new(path)).is_ok()
    }

    /// The real path, as this process spells it, of one of the driver's files.
    pub fn real(&self, path: &Path) -> Option<PathBuf> {
        real(&self.files.resolve(path).ok()?)
    }

    /// A directory of the driver's files, open, and its real path.
    pub fn directory(&self, path: &Path) -> Option<(OwnedFd, PathBuf)> {
        let dir = self.files.resolve(path).ok()?;
        let path = real(&dir)?;
        inroot::is_dir(dir.as_fd()).ok()?.then_some((dir, path))
    }

    /// One of the driver's files, open for reading, and its real path.
    pub fn open(&self, path: &Path) -> Option<(File, PathBuf)> {
        let file = self.files.file(path).ok()??;
        let path = real(&file)?;
        Some((file, path))
    }

    /// The content of one of the driver's files.
    pub fn file(&self, path: &Path, cap: u64) -> Option<Vec<u8>> {
        self.files.read(path, cap).ok()?
    }
}

/// The kernel knows the path of what is open.
fn real(fd: &impl AsRawFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()
}

/// Opens the node, since no number says what the caller may do with it: a device cgroup shows nowhere else. The
/// driver brings a GPU up at its first open; with `O_NONBLOCK` nobody waits for that.
fn probe(path: &Path) -> Option<Node> {
    let stat = nix::sys::stat::stat(path).ok()?;
    let number = (major(stat.st_rdev), minor(stat.st_rdev));
    if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFCHR {
        return Some(Node { number, error: Some(libc::ENOTTY) });
    }
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    match open(path, flags, Mode::empty()) {
        Ok(_) => Some(Node { number, error: None }),
        Err(errno) => Some(Node { number, error: Some(errno as i32) }),
    }
}

fn parse_nodes(text: &str) -> Result<BTreeMap<PathBuf, Node>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| parse_node(line).context(|| format!("`{line}` is not PATH MAJOR:MINOR [ERRNO]"))).collect()
}

fn parse_node(line: &str) -> Option<(PathBuf, Node)> {
    let mut words = line.split_whitespace();
    let (path, number) = (words.next()?, words.next()?.split_once(':')?);
    let error = match words.next() {
        None => None,
        Some("EPERM") => Some(libc::EPERM),
        Some("EACCES") => Some(libc::EACCES),
        Some("ENXIO") => Some(libc::ENXIO),
        Some("EIO") => Some(libc::EIO),
        Some(_) => return None,
    };
    Some((path.into(), Node { number: (number.0.parse().ok()?, number.1.parse().ok()?), error }))
}

/// Why `open()` fails, in words for the one who wants the device.
pub fn why_not(errno: i32) -> String {
    let known = match errno {
        libc::EPERM => "the device cgroup forbids it (EPERM): a batch system or a container gave this job other GPUs",
        libc::EACCES => "its owner and mode forbid it (EACCES): ask for membership of its group",
        libc::ENXIO | libc::ENODEV | libc::EIO => "the driver cannot serve it (ENXIO): `dmesg` tells more",
        libc::ENOTTY => "it is not a character device",
        _ => return std::io::Error::from_raw_os_error(errno).to_string(),
    };
    known.into()
}

/// By its path: all else is descriptors, and what was read.
impl std::fmt::Debug for DriverRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DriverRoot").field("system", &self.system_path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_say_whether_they_open() {
        assert_eq!(probe(Path::new("/dev/null")), Some(Node { number: (1, 3), error: None }));
        assert_eq!(probe(Path::new("/dev/none")), None);
        assert_eq!(probe(Path::new("/etc/passwd")).unwrap().error, Some(libc::ENOTTY));
        let listed = parse_nodes("# a comment\n/dev/nvidia0 195:0\n/dev/nvidia1 195:1 EPERM\n").unwrap();
        assert_eq!(listed[Path::new("/dev/nvidia1")], Node { number: (195, 1), error: Some(libc::EPERM) });
        assert!(parse_nodes("/dev/x").is_err() && parse_nodes("/dev/x 1:2 E").is_err());
    }

    #[test]
    fn links_of_a_driver_root_stay_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/lib/current")).unwrap();
        std::fs::write(dir.path().join("usr/lib/current/libx.so.1"), "x").unwrap();
        std::os::unix::fs::symlink("/usr/lib/current/libx.so.1", dir.path().join("usr/lib/libx.so.1")).unwrap();
        let root = DriverRoot::host(Some(dir.path())).unwrap();
        let real = root.real(Path::new("/usr/lib/libx.so.1")).unwrap();
        assert_eq!(real, dir.path().canonicalize().unwrap().join("usr/lib/current/libx.so.1"));
        let (directory, _) = root.directory(Path::new("/usr/lib/current")).unwrap();
        assert_eq!(inroot::list(directory.as_fd()), ["libx.so.1"]);
    }
}
