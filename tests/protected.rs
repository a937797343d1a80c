//! Debian's own registry behind TLS and passwords: certificates, logins, client certificates and a proxy.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::authority::{Authority, NAME};
use crate::support::distribution::{free_port, is_here, serve};
use crate::support::image::{Image, layout, verb};
use crate::support::process::Running;
use crate::support::{Case, Finish, Finished, text};

const PASSWORD: &str = "open sesame: ü";

/// Of `tester`, as `htpasswd -nbB` writes it.
const HTPASSWD: &str = "tester:$2y$05$8OyO2032jSvy4UhETks1vODEhOvyxs0225S7a2g0pr77qAsjZXpou\n";

/// A registry with one image in it, `r:1`.
struct Protected {
    case: Case,
    port: u16,
    _registry: Running,
}

impl Protected {
    /// One that wants a password, and a certificate of its clients too if `clients`.
    fn start(clients: bool) -> Option<Self> {
        if !is_here(&["openssl"]) {
            return None;
        }
        let case = Case::new();
        push(&case);
        let authority = Authority::new(&case);
        let [certificate, key] = authority.issue("server", "serverAuth");
        let mut tls = json!({"certificate": certificate, "key": key});
        if clients {
            tls["clientcas"] = json!([authority.certificate()]);
        }
        let htpasswd = json!({"htpasswd": {"realm": "test", "path": case.file("htpasswd", HTPASSWD)}});
        let port = free_port();
        let registry = serve(&case, port, Some(tls), Some(htpasswd));
        Some(Self { case, port, _registry: registry })
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn image(&self) -> String {
        format!("{}/r:1", self.host())
    }

    /// Puts a file of `certs/` where the user's certificates for `host` are.
    fn certs_d(&self, host: &str, from: &str, to: &str) {
        let dir = self.case.path("home/.config/containers/certs.d").join(host);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(self.case.path("certs").join(from), dir.join(to)).unwrap();
    }

    fn login(&self, host: &str, password: &str, env: &[(&str, &str)]) -> Finished {
        let stdin = std::fs::File::open(self.case.file("stdin", password)).unwrap();
        let mut command = self.case.bare();
        command.args(["login", "-u", "tester", "--password-stdin", host]).envs(env.iter().copied()).stdin(stdin);
        let finished = command.finish();
        assert!(!format!("{finished:?}").contains("sesame"), "{finished:?}");
        finished
    }

    fn pull(&self, env: &[(&str, &str)]) -> Finished {
        verb(&self.case, &["pull", "-q", &self.image()]).envs(env.iter().copied()).finish()
    }
}

/// Fills the registry's storage through one that is open.
fn push(case: &Case) {
    let image = Image::busybox();
    layout(case, "layout", &[&image]);
    let port = free_port();
    let _registry = serve(case, port, None, None);
    let mut command = Command::new("skopeo");
    case.surround(&mut command);
    command.args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"]);
    command.arg(format!("oci:{}", text(&case.path("layout")))).arg(format!("docker://127.0.0.1:{port}/r:1"));
    let finished = command.env("XDG_RUNTIME_DIR", case.path("tmp")).finish();
    assert_eq!(finished.status, 0, "{finished:?}");
}

#[test]
fn an_authority_is_trusted_by_certs_d_and_by_ssl_cert_file() {
    let Some(protected) = Protected::start(false) else { return };
    let unknown = protected.pull(&[]);
    unknown.refused(&["UnknownIssuer", "hint: an authority of your own", "certs.d"]);
    let ca = protected.case.path("certs/ca.crt");
    protected.pull(&[("SSL_CERT_FILE", text(&ca))]).refused(&["only after a login", "401"]);
    protected.certs_d(&protected.host(), "ca.crt", "ca.crt");
    protected.pull(&[]).refused(&["only after a login", "401"]);
}

#[test]
fn a_login_opens_the_door() {
    let Some(protected) = Protected::start(false) else { return };
    let (case, host) = (&protected.case, protected.host());
    protected.certs_d(&host, "ca.crt", "ca.crt");
    protected.login(&host, "close sesame", &[]).refused(&["refuses the credentials of `tester`", "401"]);
    assert!(!case.path("home/.config/containers/auth.json").exists());
    assert!(protected.login(&host, PASSWORD, &[]).ok().starts_with(&format!("logged in to {host} as `tester`")));
    let said = verb(case, &["-q", &protected.image(), "echo", "hello"]).finish();
    assert_eq!(said.ok(), "hello\n");
    verb(case, &["pull", "-q", &format!("{host}/none:1")]).finish().refused(&["has no `", "404"]);
    verb(case, &["logout", &host]).finish().ok();
    protected.pull(&[]).refused(&["only after a login"]);
    let skopeos = case.path("home/.docker/config.json");
    std::fs::create_dir_all(skopeos.parent().unwrap()).unwrap();
    let mut login = Command::new("skopeo");
    case.surround(&mut login);
    let stdin = std::fs::File::open(case.file("stdin", PASSWORD)).unwrap();
    login.args(["login", "-u", "tester", "--password-stdin", &host]).env("REGISTRY_AUTH_FILE", &skopeos).stdin(stdin);
    assert_eq!(login.finish().status, 0);
    assert_eq!(protected.pull(&[]).status, 0, "what skopeo has written is read");
}

#[test]
fn a_client_certificate_is_shown_where_one_is_wanted() {
    let Some(protected) = Protected::start(true) else { return };
    let host = protected.host();
    protected.certs_d(&host, "ca.crt", "ca.crt");
    let refused = protected.login(&host, PASSWORD, &[]);
    refused.failed(125, &["get https://127.0.0.1"]);
    Authority::of(&protected.case).issue("client", "clientAuth");
    protected.certs_d(&host, "client.signed", "client.cert");
    protected.pull(&[]).refused(&["`client.cert` has no `client.key`"]);
    protected.certs_d(&host, "server.key", "client.key");
    protected.pull(&[]).refused(&["client.key`: match it with its certificate"]);
    protected.certs_d(&host, "client.key", "client.key");
    protected.login(&host, PASSWORD, &[]).ok();
    assert_eq!(protected.pull(&[]).status, 0);
}

#[test]
fn an_insecure_registry_need_not_be_known() {
    let Some(protected) = Protected::start(false) else { return };
    let conf = format!("[[registry]]\nlocation = '{}'\ninsecure = true\n", protected.host());
    let conf = protected.case.file("registries.conf", &conf);
    let env = [("CONTAINERS_REGISTRIES_CONF", text(&conf))];
    protected.login(&protected.host(), PASSWORD, &env).ok();
    assert_eq!(protected.pull(&env).status, 0);
    protected.pull(&[]).refused(&["UnknownIssuer"]);
}

/// A proxy that leads to the loopback whatever it is asked for, and writes that down.
struct TestProxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = Arc::clone(&proxy.asked);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let asked = Arc::clone(&asked);
                std::thread::spawn(move || tunnel(client, to, &asked));
            }
        });
        proxy
    }
}

fn tunnel(mut client: TcpStream, to: u16, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|n| n > 0) {}
    asked.lock().unwrap().push(head);
    let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut up, mut from_client) = (server.try_clone().unwrap(), reader);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut up); // until either hangs up
        let _ = up.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut &server, &mut client);
}

#[test]
fn a_proxy_stands_before_what_is_not_here() {
    let Some(protected) = Protected::start(false) else { return };
    let case = &protected.case;
    let proxy = TestProxy::start(protected.port);
    let url = format!("http://me:proxy-secret@127.0.0.1:{}", proxy.port);
    protected.certs_d(NAME, "ca.crt", "ca.crt");
    protected.login(NAME, PASSWORD, &[("HTTPS_PROXY", &url)]).ok();
    let pulled = verb(case, &["pull", "-q", &format!("{NAME}/r:1")]).env("https_proxy", &url).finish();
    assert_eq!(pulled.status, 0, "{pulled:?}");
    let asked = proxy.asked.lock().unwrap().clone();
    assert!(!asked.is_empty() && asked.iter().all(|a| a.starts_with(&format!("CONNECT {NAME}:443 "))), "{asked:?}");
    assert!(
        asked.iter().all(|a| !a.contains("Basic dGVzdGVy")),
        "the registry's password is not the proxy's: {asked:?}"
    );

    protected.certs_d(&protected.host(), "ca.crt", "ca.crt");
    protected.pull(&[("HTTPS_PROXY", &url)]).refused(&["only after a login"]);
    assert_eq!(proxy.asked.lock().unwrap().len(), asked.len(), "none stands before this machine");
    let broken = protected.pull(&[("HTTPS_PROXY", "socks5://me:proxy-secret@127.0.0.1")]);
    broken.refused(&["use the proxy of $HTTPS_PROXY", "`socks5` cannot be used"]);
    assert!(!broken.stderr.contains("proxy-secret"), "{broken:?}");
}
