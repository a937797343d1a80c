//! Debian's own registry, `docker-registry`, as a process of a test's own.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::process::{Running, eventually};
use super::{Case, can};

/// Whether it is here, and skopeo to fill it, and what else a test needs of Debian.
pub(crate) fn is_here(others: &[&str]) -> bool {
    let there = |tool: &str| Path::new("/usr/bin").join(tool).exists();
    let tools = [&["docker-registry", "skopeo"], others].concat();
    can(tools.iter().all(|tool| there(tool)), &tools.join(", "))
}

/// A port of the loopback that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("listen on the loopback").local_addr().expect("its address").port()
}

/// Serves what is in the test's `registry/` at a port, with these sections of `http` and `auth` in its configuration.
pub(crate) fn serve(case: &Case, port: u16, tls: Option<Value>, auth: Option<Value>) -> Running {
    let mut http = json!({"addr": format!("127.0.0.1:{port}")});
    http.as_object_mut().expect("it is one").extend(tls.map(|tls| ("tls".to_owned(), tls)));
    let storage = json!({"filesystem": {"rootdirectory": case.path("registry")}});
    let log = json!({"level": "error", "accesslog": {"disabled": true}});
    let mut config = json!({"version": "0.1", "log": log, "storage": storage, "http": http});
    config.as_object_mut().expect("it is one").extend(auth.map(|auth| ("auth".to_owned(), auth)));
    let mut command = Command::new("docker-registry");
    case.surround(&mut command);
    command.arg("serve").arg(case.file(&format!("registry-{port}.yml"), &config.to_string()));
    let registry = Running::of(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start a registry"));
    eventually("the registry answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    registry
}
