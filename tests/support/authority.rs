//! Certificates that openssl makes for a test: of an authority, of a server on the loopback, and of a client.

use std::path::PathBuf;
use std::process::Command;

use super::{Case, Finish, text};

/// The name that a server has beside its address: known to nobody, so that it is only found through a proxy.
pub(crate) const NAME: &str = "registry.invalid";

/// An authority of a test's own.
pub(crate) struct Authority<'a> {
    case: &'a Case,
}

impl<'a> Authority<'a> {
    /// Makes one.
    pub(crate) fn new(case: &'a Case) -> Self {
        let new = Self::of(case);
        new.openssl(&["req", "-x509", "-newkey", "ec", "-nodes", "-subj", "/CN=test authority", "-days", "2"], "ca");
        new
    }

    /// The one that a test has made before.
    pub(crate) fn of(case: &'a Case) -> Self {
        Self { case }
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// The certificate and the key of a server or a client.
    pub(crate) fn issue(&self, name: &str, usage: &str) -> [PathBuf; 2] {
        let extensions = format!("subjectAltName=IP:127.0.0.1,DNS:{NAME}\nextendedKeyUsage={usage}\n");
        self.case.file("certs/extensions", &extensions);
        self.openssl(&["req", "-newkey", "ec", "-nodes", "-subj", "/CN=test"], name);
        let ca = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions"];
        let (request, out) = (format!("{name}.crt"), format!("{name}.signed"));
        self.run(&[&["x509", "-req", "-in", &request, "-out", &out][..], &ca].concat());
        [self.path(&out), self.path(&format!("{name}.key"))]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.case.path("certs").join(name)
    }

    /// Makes a key, and what `command` makes of it.
    fn openssl(&self, command: &[&str], name: &str) {
        let (key, out) = (format!("{name}.key"), format!("{name}.crt"));
        let files = ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", &key, "-out", &out];
        self.run(&[command, &files].concat());
    }

    fn run(&self, arguments: &[&str]) {
        let dir = self.case.path("certs");
        std::fs::create_dir_all(&dir).expect("make a directory");
        let mut command = Command::new("openssl");
        let finished = command.args(arguments).current_dir(&dir).env("HOME", text(&dir)).finish();
        assert_eq!(finished.status, 0, "openssl {arguments:?}: {finished:?}");
    }
}
