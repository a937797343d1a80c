//! The one resolver for every path that comes from an image or goes into a rootfs.
//!
//! In: a root directory and a path in it, as the image or the user spells it. Out: descriptors, never paths: what was
//! checked is what is used. Links are followed as the workload would see them, absolute ones from the root, and no
//! link leads outside (openat2(2) with RESOLVE_IN_ROOT and NO_MAGICLINKS). Used before the launch to read image
//! files, and in the launched process to find and make mount targets.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::error::{Context, Error, Result};

/// How often a path is resolved anew: for one with `..` in it the kernel gives up with EAGAIN when anything on the whole
/// machine was renamed or mounted meanwhile (openat2(2)).
const MAX_TRIES: usize = 1000;

/// A root directory that paths are resolved in.
pub struct Root(OwnedFd);

impl Root {
    /// The root at `path` on the host.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .context(|| format!("open the root directory `{}`", path.display()))?;
        Ok(Self(fd))
    }

    /// The root that `fd` is open on.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// What `path` is, with all links followed, opened only to be named (`O_PATH`).
    pub fn resolve(&self, path: &Path) -> Result<OwnedFd> {
        self.open_at(path, OFlag::O_PATH).context(|| format!("resolve `{}` in the image", path.display()))
    }

    /// A regular file, opened for reading; `None` if there is none. FIFOs and devices are never opened for reading
    /// (CVE-2026-47262).
    pub fn file(&self, path: &Path) -> Result<Option<File>> {
        let what = || format!("read `{}` in the image", path.display());
        let fd = match self.open_at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENXIO) => return Ok(None),
            Err(e) => return Err(e).context(what),
        };
        let stat = fstat(&fd).context(what)?;
        if !is(stat.st_mode, SFlag::S_IFREG) {
            return Err(Error::new("it is not a regular file")).context(what);
        }
        Ok(Some(File::from(fd)))
    }

    /// The content of a regular file of at most `cap` bytes; `None` if there is none.
    pub fn read(&self, path: &Path, cap: u64) -> Result<Option<Vec<u8>>> {
        let what = || format!("read `{}` in the image", path.display());
        let Some(file) = self.file(path)? else { return Ok(None) };
        let mut content = Vec::with_capacity(4096); // what most of them are: one read, and one to see the end
        file.take(cap + 1).read_to_end(&mut content).context(what)?;
        if content.len() as u64 > cap {
            return Err(Error::new(format!("it is larger than {cap} bytes"))).context(what);
        }
        Ok(Some(content))
    }

    /// The names in a directory, as far as they are text; none if there is no such directory.
    pub fn names(&self, path: &Path) -> Vec<String> {
        self.resolve(path).map(|dir| list(dir.as_fd())).unwrap_or_default()
    }

    /// The directory at `path`, made with its parents if it is not there.
    pub fn make_dir(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("make the directory `{}` in the container", path.display());
        match self.open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT) => {}
            done => return done.context(what),
        }
        let mut walked = PathBuf::from("/");
        let mut dir = self.open_at(&walked, OFlag::O_PATH).context(what)?;
        let mut made = false; // then there is nothing below
        for name in names(path).context(what)? {
            walked.push(name);
            let there =
                if made { Err(Errno::ENOENT) } else { self.open_at(&walked, OFlag::O_PATH | OFlag::O_DIRECTORY) };
            made = matches!(there, Err(Errno::ENOENT));
            dir = if made { make_dir_at(dir.as_fd(), name) } else { there }.context(what)?;
        }
        Ok(dir)
    }

    /// The directory at `path`, made if it is not there; a link is refused. An image with one at `/dev` or `/proc` would
    /// have other places mounted over (CVE-2019-19921, CVE-2023-27561).
    pub fn make_own_dir(&self, path: &Path) -> Result<OwnedFd> {
        match self.open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW) {
            Ok(dir) => Ok(dir),
            Err(_) if self.is_symlink(path)? => {
                Err(Error::new(format!("the image has a symbolic link at `{}`", path.display())))
            }
            Err(_) => self.make_dir(path),
        }
    }

    /// The file at `path`, made empty if it is not there, opened only to be named. A link that leads nowhere makes way:
    /// distributions have one at /etc/resolv.conf.
    pub fn make_file(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("make the file `{}` in the container", path.display());
        match self.open_at(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => {}
            done => return done.context(what),
        }
        self.create(path, Mode::from_bits_truncate(0o644)).context(what)
    }

    /// Writes a file anew, through links that the image may have in its place. `what` is for a private upper layer.
    pub fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        use std::io::Write;
        let what = || format!("write `{}` in the container", path.display());
        let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let fd = match self.open_at(path, flags) {
            Err(Errno::ENOENT) => self.create(path, Mode::from_bits_truncate(0o644)).context(what)?,
            done => done.context(what)?,
        };
        if !is(fstat(&fd).context(what)?.st_mode, SFlag::S_IFREG) {
            return Err(Error::new("it is not a regular file")).context(what);
        }
        File::from(fd).write_all(content).context(what)
    }

    /// Makes a link, in the place of what there may be already, which is a directory in no case.
    pub fn put_link(&self, path: &Path, to: &str) -> Result<()> {
        let what = || format!("make the link `{}` in the container", path.display());
        let parent = self.make_dir(path.parent().context(what)?)?;
        let name = path.file_name().context(what)?;
        match symlinkat(to, &parent, name) {
            Err(Errno::EEXIST) => {
                unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir).and_then(|()| symlinkat(to, &parent, name))
            }
            done => done,
        }
        .context(what)
    }

    /// Whether there is a symbolic link at `path` itself.
    pub fn is_symlink(&self, path: &Path) -> Result<bool> {
        match self.open_at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Ok(fd) => Ok(is(fstat(&fd).context(|| "fstat")?.st_mode, SFlag::S_IFLNK)),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(e).context(|| format!("look at `{}` in the image", path.display())),
        }
    }

    fn create(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        let parent = self.make_dir(path.parent().unwrap_or(Path::new("/")))?;
        let name = path.file_name().context(|| "it has no file name")?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || openat(&parent, name, flags, mode);
        match create() {
            Err(Errno::EEXIST) if self.is_symlink(path)? => {
                let flags = UnlinkatFlags::NoRemoveDir;
                unlinkat(&parent, name, flags).context(|| format!("unlink `{}`", path.display()))?;
                create()
            }
            done => done,
        }
        .context(|| format!("create `{}`", path.display()))
    }

    fn open_at(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let mut tries = (0..MAX_TRIES).map(|_| openat2(&self.0, path, how));
        tries.find(|result| !matches!(result, Err(Errno::EAGAIN))).unwrap_or(Err(Errno::EAGAIN))
    }
}

impl From<Root> for OwnedFd {
    fn from(root: Root) -> Self {
        root.0
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The names in an open directory, as far as they are text.
pub fn list(dir: BorrowedFd) -> Vec<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut opened) = Dir::openat(dir, ".", flags, Mode::empty()) else { return Vec::new() };
    let entries = opened.iter().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| name != "." && name != "..").collect()
}

/// Whether what `fd` is open on is a directory.
pub fn is_dir(fd: BorrowedFd) -> Result<bool> {
    Ok(is(fstat(fd).context(|| "fstat")?.st_mode, SFlag::S_IFDIR))
}

fn is(mode: libc::mode_t, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) == kind
}

/// A file or directory in one that gpurun has made, opened only to be named.
pub fn make_at(parent: BorrowedFd, name: &OsStr, directory: bool) -> Result<OwnedFd> {
    let what = || format!("make `{}`", name.display());
    if directory {
        return make_dir_at(parent, name).context(what);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::from_bits_truncate(0o644)).context(what)
}

fn make_dir_at(parent: BorrowedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e),
    }
    openat(parent, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// The components of an absolute path; `..` is refused, since what is made must be where the path says.
fn names(path: &Path) -> Result<Vec<&OsStr>> {
    path.components()
        .filter(|c| !matches!(c, Component::RootDir | Component::CurDir))
        .map(|c| match c {
            Component::Normal(name) if name.as_bytes().len() <= 255 => Ok(name),
            other => Err(Error::new(format!("`{}` cannot be made", other.as_os_str().display()))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        let opened = Root::open(&root).unwrap();
        (dir, opened)
    }

    #[test]
    fn links_stay_inside() {
        let (dir, root) = root();
        for (name, to) in [("up", "../../secret"), ("abs", "/secret"), ("proc", "/proc/self/root/secret")] {
            symlink(to, dir.path().join("root/etc").join(name)).unwrap();
            assert_eq!(root.read(&Path::new("/etc").join(name), 100).unwrap(), None, "{name}");
        }
        std::fs::write(dir.path().join("root/secret"), "inside").unwrap();
        assert_eq!(root.read(Path::new("/etc/up"), 100).unwrap().unwrap(), b"inside");
        assert_eq!(root.read(Path::new("/../../secret"), 100).unwrap().unwrap(), b"inside");
    }

    #[test]
    fn renames_on_the_machine_are_no_reason_to_fail() {
        let (dir, root) = root();
        symlink("../etc/../etc/../etc/file", dir.path().join("root/etc/up")).unwrap();
        std::fs::write(dir.path().join("root/etc/file"), "inside").unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir(&a).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::rename(&a, &b).and_then(|()| std::fs::rename(&b, &a)).unwrap();
                }
            });
            let read = (0..5000).try_for_each(|_| root.read(Path::new("/etc/up"), 100).map(drop));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            read.unwrap();
        });
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let (dir, root) = root();
        nix::unistd::mkfifo(&dir.path().join("root/fifo"), Mode::S_IRWXU).unwrap();
        std::fs::write(dir.path().join("root/big"), [0; 11]).unwrap();
        assert!(root.read(Path::new("/fifo"), 10).is_err());
        assert!(root.read(Path::new("/etc"), 10).is_err());
        assert!(root.read(Path::new("/big"), 10).is_err());
        assert_eq!(root.read(Path::new("/big"), 11).unwrap().unwrap().len(), 11);
    }

    #[test]
    fn targets_are_made_through_links_of_the_image_but_never_outside() {
        let (dir, root) = root();
        symlink("/run", dir.path().join("root/var")).unwrap();
        std::fs::create_dir(dir.path().join("root/run")).unwrap();
        root.make_dir(Path::new("/var/a/b")).unwrap();
        root.make_file(Path::new("/var/c/file")).unwrap();
        assert!(dir.path().join("root/run/a/b").is_dir());
        assert!(dir.path().join("root/run/c/file").is_file());
        symlink("../../..", dir.path().join("root/out")).unwrap();
        root.make_dir(Path::new("/out/made")).unwrap();
        assert!(dir.path().join("root/made").is_dir());
        assert!(!dir.path().join("made").exists());
        symlink("/nowhere/at/all", dir.path().join("root/dangling")).unwrap();
        assert!(root.make_dir(Path::new("/dangling/x")).is_err());
        assert!(root.make_dir(Path::new("/a/../../b")).is_err());
    }
}
