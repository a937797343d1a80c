//! A root file system in a directory, and a digest of everything in it.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

const BUSYBOX: &str = "/bin/busybox";

/// An image's tree.
pub(crate) struct Tree(PathBuf);

impl Tree {
    /// Busybox under each of its names, an empty /etc and /tmp.
    pub(crate) fn busybox(path: &Path) -> Self {
        for dir in ["bin", "etc", "tmp"] {
            std::fs::create_dir_all(path.join(dir)).expect("make a directory");
        }
        std::fs::copy(BUSYBOX, path.join("bin/busybox"))
            .expect("the tests need busybox-static: `tests/run` installs it");
        let names = Command::new(BUSYBOX).arg("--list").output().expect("run busybox").stdout;
        for name in String::from_utf8_lossy(&names).lines().filter(|name| *name != "busybox") {
            symlink("busybox", path.join("bin").join(name)).expect("make a link");
        }
        Self(path.into())
    }

    /// Where it is on the host.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it, on the host.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// Writes a file.
    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let at = self.at(path);
        std::fs::create_dir_all(at.parent().expect("it has one")).expect("make a directory");
        std::fs::write(at, content).expect("write a file");
    }

    /// Writes an executable file.
    pub(crate) fn executable(&self, path: &str, content: impl AsRef<[u8]>) {
        self.file(path, content);
        self.mode(path, 0o755);
    }

    /// Makes a link.
    pub(crate) fn link(&self, path: &str, to: &str) {
        symlink(to, self.at(path)).expect("make a link");
    }

    /// Makes a directory.
    pub(crate) fn dir(&self, path: &str) {
        std::fs::create_dir_all(self.at(path)).expect("make a directory");
    }

    /// Sets the mode.
    pub(crate) fn mode(&self, path: &str, mode: u32) {
        std::fs::set_permissions(self.at(path), std::fs::Permissions::from_mode(mode)).expect("chmod");
    }

    /// Names, types, modes, owners, times, link targets and contents: equal if nothing at all has changed.
    pub(crate) fn digest(&self) -> String {
        let mut listing = String::new();
        list(&self.0, &mut listing);
        listing
    }
}

fn list(path: &Path, out: &mut String) {
    let meta = std::fs::symlink_metadata(path).expect("stat");
    let content = match meta.file_type() {
        t if t.is_file() => std::fs::read(path).map(|c| hex(&c)).unwrap_or_default(), // one of mode 000 has none for us
        t if t.is_symlink() => format!("{:?}", std::fs::read_link(path).expect("readlink").as_os_str().as_bytes()),
        t if t.is_fifo() || t.is_socket() => "special".into(),
        _ => String::new(),
    };
    let (mode, uid, gid, size) = (meta.mode(), meta.uid(), meta.gid(), meta.size());
    let time = format!("{}.{}", meta.mtime(), meta.mtime_nsec());
    let _ = writeln!(out, "{} {mode:o} {uid}:{gid} {size} {} {time} {content}", path.display(), meta.nlink());
    if meta.is_dir() {
        let mut entries: Vec<_> =
            std::fs::read_dir(path).into_iter().flatten().map(|e| e.expect("list").path()).collect();
        entries.sort();
        for entry in &entries {
            list(entry, out);
        }
    }
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
