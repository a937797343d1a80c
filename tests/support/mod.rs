//! What the tests share: images made of busybox, the program as a command, processes that are watched, terminals.

pub(crate) mod authority;
pub(crate) mod distribution;
pub(crate) mod filter;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod listing;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod pty;
pub(crate) mod server;
pub(crate) mod tree;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use process::{Finish, Finished};
use tree::Tree;

/// One test's surroundings: an image, a home and a working directory, all gone when it ends.
pub(crate) struct Case {
    dir: tempfile::TempDir,
    /// The image.
    pub(crate) image: Tree,
}

impl Case {
    /// An image with busybox and nothing else.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        for name in ["home", "work", "tmp"] {
            std::fs::create_dir(dir.path().join(name)).expect("make a directory");
        }
        let image = Tree::busybox(&dir.path().join("image"));
        Self { dir, image }
    }

    /// A path in this test's directory on the host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file on the host.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("make a directory");
        std::fs::write(&path, content).expect("write a file");
        path
    }

    /// The reference of the image.
    pub(crate) fn reference(&self) -> OsString {
        let mut reference = OsString::from("dir:");
        reference.push(self.image.path());
        reference
    }

    /// The program with nothing of the caller's environment but a PATH and a home.
    pub(crate) fn bare(&self) -> Command {
        let mut command = Command::new(program());
        self.surround(&mut command);
        command
    }

    /// Gives a command this test's surroundings.
    pub(crate) fn surround(&self, command: &mut Command) {
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.path("home")).env("USER", "tester");
        command.current_dir(self.path("work"));
    }

    /// `gpurun OPTIONS IMAGE ARGV`
    pub(crate) fn gpurun(&self, options: &[&str], argv: &[&str]) -> Command {
        let mut command = self.bare();
        command.args(options).arg(self.reference()).args(argv);
        command
    }

    /// A shell script on the host, in namespaces of its own in which it may mount; `None` where there are none to be had.
    pub(crate) fn mounter(&self, script: &str) -> Option<Command> {
        let unshare = || {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--user", "--mount"]);
            command
        };
        let works = unshare().arg("true").status().is_ok_and(|s| s.success());
        can(works, "unshare with user namespaces").then(|| {
            let mut command = unshare();
            self.surround(&mut command);
            command.args(["sh", "-c", script, "sh"]);
            command
        })
    }

    /// Runs a shell script in the image.
    pub(crate) fn sh(&self, options: &[&str], script: &str) -> Finished {
        self.gpurun(options, &["sh", "-c", script]).finish()
    }
}

/// The program under test.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("GPURUN_BIN").map_or_else(|| env!("CARGO_BIN_EXE_gpurun").into(), PathBuf::from)
}

/// Whether a test goes on. What is not here is no reason to pass where `tests/run` has provided everything.
pub(crate) fn can(condition: bool, what: &str) -> bool {
    let must = std::env::var_os("GPURUN_MUST_WORK").is_some();
    assert!(condition || !must, "this test needs {what}");
    condition
}

/// `path` as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("the tests' paths are UTF-8")
}
