//! `gpurun login` and `logout`: what is kept where, once the registry has taken it, and what never is.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use nix::sys::termios::LocalFlags;
use serde_json::{Value, json};

use crate::support::http::{Reply, Server};
use crate::support::process::{eventually, status};
use crate::support::pty::Pty;
use crate::support::{Case, Finish, Finished, program};

/// `me:open sesame`
const AUTH: &str = "bWU6b3BlbiBzZXNhbWU=";

/// A registry that lets in nobody but `me`.
fn registry() -> Server {
    Server::start(|r| match r.header("authorization") == Some(&format!("Basic {AUTH}")) {
        true => Reply::new(200, "{}"),
        false => Reply::new(401, "").with("WWW-Authenticate", r#"Basic realm="x""#),
    })
}

/// With this on standard input.
fn login(case: &Case, args: &[&str], password: &str, env: &[(&str, &str)]) -> Finished {
    let stdin = std::fs::File::open(case.file("stdin", password)).unwrap();
    let mut command = case.bare();
    command.arg("login").args(args).envs(env.iter().copied()).stdin(Stdio::from(stdin));
    let finished = command.finish();
    assert!(!format!("{finished:?}").contains("sesame"));
    finished
}

fn json(case: &Case, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(case.path(name)).unwrap()).unwrap()
}

#[test]
fn a_login_is_kept_where_it_is_looked_for() {
    let (case, server) = (Case::new(), registry());
    let host = server.host();
    let args = ["--username", "me", "--password-stdin", &host];
    let (own, docker) = ("home/.config/containers/auth.json", "home/.docker/config.json");
    let place = format!("logged in to {host} as `me`, kept in `{}`\n", case.path(own).display());
    assert_eq!(login(&case, &args, "open sesame\n", &[]).ok(), place);
    assert_eq!(json(&case, own), json!({"auths": {&host: {"auth": AUTH}}}));
    assert_eq!(std::fs::metadata(case.path(own)).unwrap().permissions().mode() & 0o777, 0o600);

    // One that is kept already is replaced there, though Docker's file comes first otherwise.
    case.file(docker, r#"{"auths":{"other":{"auth":"eDp5"}},"HttpHeaders":{"a":"b"}}"#);
    assert_eq!(login(&case, &args, "open sesame", &[]).ok(), place);
    std::fs::remove_file(case.path(own)).unwrap();
    login(&case, &args, "open sesame", &[]).ok();
    let want = json!({"auths": {"other": {"auth": "eDp5"}, &host: {"auth": AUTH}}, "HttpHeaders": {"a": "b"}});
    assert_eq!(json(&case, docker), want);

    let file = case.path("file");
    login(&case, &args, "open sesame", &[("REGISTRY_AUTH_FILE", file.to_str().unwrap())]).ok();
    assert_eq!(json(&case, "file"), json!({"auths": {&host: {"auth": AUTH}}}));
}

#[test]
fn what_is_kept_is_used_and_forgotten() {
    let (case, server) = (Case::new(), registry());
    let image = format!("{}/r", server.host());
    let mut pull = case.bare();
    pull.args(["pull", &image]);
    pull.finish().failed(125, &["only after a login"]);
    login(&case, &["-u", "me", "--password-stdin", &server.host()], "open sesame", &[]).ok();
    let refused = pull.finish();
    assert!(!refused.stderr.contains("login"), "{refused:?}");
    let mut logout = case.bare();
    logout.args(["logout", &server.host()]);
    assert!(logout.finish().ok().contains("removed from `"));
    assert_eq!(logout.finish().ok(), format!("nobody was logged in to {}\n", server.host()));
    pull.finish().failed(125, &["only after a login"]);
}

#[test]
fn a_refused_login_keeps_nothing() {
    let (case, server) = (Case::new(), registry());
    let refused = login(&case, &["-u", "me", "--password-stdin", &server.host()], "close sesame", &[]);
    refused.refused(&["refuses the credentials of `me` from standard input", "401", "hint: nothing was stored"]);
    assert!(std::fs::read_dir(case.path("home")).unwrap().next().is_none());
}

#[test]
fn what_cannot_be_a_login_is_refused() {
    let case = Case::new();
    login(&case, &["--password-stdin", "h:1"], "x", &[]).refused(&["needs `--username`"]);
    login(&case, &["-u", "me", "h:1"], "x", &[]).refused(&["no terminal", "--password-stdin"]);
    login(&case, &["-u", "me", "--password-stdin", "h:1"], "\n", &[]).refused(&["the password is empty"]);
    login(&case, &["-u", "a:b", "--password-stdin", "h:1"], "x", &[]).refused(&["no `:` in it"]);
    login(&case, &["-u", "me", "--password-stdin", "myhost"], "x", &[]).refused(&["`myhost` is not the name"]);
    login(&case, &["-u", "me", "--password", "open sesame", "h:1"], "", &[]).refused(&["`--password` cannot be had"]);
    login(&case, &["-u", "me", "--password=open sesame", "h:1"], "", &[]).refused(&["`--password` cannot be had"]);
}

#[test]
fn a_registry_that_does_not_look_is_told() {
    let (case, server) = (Case::new(), Server::start(|_| Reply::new(200, "{}")));
    let done = login(&case, &["-u", "me", "--password-stdin", &server.host()], "open sesame", &[]);
    done.ends(0);
    assert!(done.stderr.contains("did not look at the password"), "{done:?}");
}

#[test]
fn a_password_is_typed_unseen() {
    let (case, server, pty) = (Case::new(), registry(), &mut Pty::open());
    let mut command = case.bare();
    command.args(["login", &server.host()]);
    let mut child = pty.command(&command).spawn().unwrap();
    pty.expect(&format!("User name for {}: ", server.host()));
    pty.type_in("me\r").expect("Password of me: ");
    eventually("the terminal hides", || !pty.modes().local_flags.contains(LocalFlags::ECHO));
    pty.type_in("open sesamx\x7fe\r");
    let seen = pty.expect("logged in to ");
    assert!(!seen.contains("open") && !seen.contains("sesam"), "{seen:?}");
    assert_eq!(status(child.wait().unwrap()), 0);
    assert!(pty.modes().local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG));
}

#[test]
fn a_typed_login_can_be_cancelled() {
    let (case, pty) = (Case::new(), &mut Pty::open());
    let mut command = case.bare();
    command.args(["login", "-u", "me", "h:1"]);
    let mut child = pty.command(&command).spawn().unwrap();
    pty.expect("Password of me: ");
    eventually("the terminal hides", || !pty.modes().local_flags.contains(LocalFlags::ECHO));
    pty.type_in("open\x03").expect("error: cancelled");
    assert_eq!(status(child.wait().unwrap()), 125);
    assert!(pty.modes().local_flags.contains(LocalFlags::ECHO));
}

/// A `docker-credential-keep` that keeps one credential in a file.
#[test]
fn a_store_keeps_and_forgets() {
    let (case, server) = (Case::new(), registry());
    let script = "#!/bin/sh\nread line; echo \"$1 $line\" >>$HOME/asked\n[ $1 = get ] && cat $HOME/kept; \
                  [ $1 = store ] && echo \"$line\" >$HOME/kept; [ $1 = erase ] && rm $HOME/kept; exit 0\n";
    let (from, to) = (case.file("script", script), case.path("bin/docker-credential-keep"));
    let install = std::process::Command::new("install").args(["-D", "-m", "755"]).args([from, to]).status();
    assert!(install.unwrap().success());
    let config = case.file("home/.docker/config.json", r#"{"credsStore":"keep"}"#);
    let path = format!("{}:/usr/bin:/bin", case.path("bin").display());
    let done = login(&case, &["-u", "me", "--password-stdin", &server.host()], "open sesame", &[("PATH", &path)]);
    assert!(done.ok().ends_with("kept in docker-credential-keep\n"), "{done:?}");
    let kept = std::fs::read_to_string(case.path("home/kept")).unwrap();
    let want = json!({"ServerURL": server.host(), "Username": "me", "Secret": "open sesame"});
    assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), want);
    assert_eq!(std::fs::read_to_string(config).unwrap(), r#"{"credsStore":"keep"}"#);
    let mut logout = std::process::Command::new(program());
    case.surround(&mut logout);
    logout.env("PATH", path).args(["logout", &server.host()]).finish().ok();
    assert!(!case.path("home/kept").exists());
}
