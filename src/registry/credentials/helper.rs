//! `docker-credential-NAME`, the programs that keep secrets out of files.
//!
//! In: a request on its stdin, bounded in time. Out: what it prints, bounded in size. The protocol:
//! docker/docker-credential-helpers, `README.md` and `credentials/error.go`. They are programs of the host, found by PATH.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use serde_json::json;

use super::file;
use super::{Credential, Secret, TOKEN_USER};
use crate::error::{Context, Error, Result};

/// How long one may take; some ask a person or a cloud.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest answer that is read.
const MAX_ANSWER: u64 = 64 << 10;

/// How helpers say that they know nothing, which is no error.
const UNKNOWN: &str = "credentials not found";

/// What it says on stdout, and how it ended.
struct Answer {
    text: String,
    good: bool,
}

/// What the helper that `file` names has for `server`.
pub(super) fn get(name: &str, server: &str, file: &Path) -> Result<Option<Credential>> {
    let what = || format!("ask docker-credential-{name} (`{}`) for the credentials of `{server}`", file.display());
    let answer = run(name, "get", server, PATIENCE).context(what)?;
    parse(&answer, format!("docker-credential-{name} (`{}`)", file.display())).context(what)
}

/// Has the helper keep a credential.
pub(super) fn store(name: &str, server: &str, credential: &Credential) -> Result<()> {
    let (user, secret) = match &credential.secret {
        Secret::Password(password) => (credential.user.as_str(), password),
        Secret::Identity(token) => (TOKEN_USER, token),
    };
    let request = json!({"ServerURL": server, "Username": user, "Secret": secret}).to_string();
    let answer = run(name, "store", &request, PATIENCE);
    answer
        .and_then(|answer| done(&answer))
        .context(|| format!("have docker-credential-{name} store the credentials of `{server}`"))
}

/// Has the helper forget one.
pub(super) fn erase(name: &str, server: &str) -> Result<()> {
    let answer = run(name, "erase", server, PATIENCE);
    answer
        .and_then(|answer| done(&answer))
        .context(|| format!("have docker-credential-{name} erase the credentials of `{server}`"))
}

fn done(answer: &Answer) -> Result<()> {
    match answer.good || answer.text.to_lowercase().contains(UNKNOWN) {
        true => Ok(()),
        false => Err(refused(answer)),
    }
}

fn parse(answer: &Answer, from: String) -> Result<Option<Credential>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Fields {
        username: String,
        secret: String,
    }
    match answer.good {
        true => {
            let Fields { username, secret } = file::json(answer.text.as_bytes()).context(|| "read its answer")?;
            Ok((!secret.is_empty()).then(|| Credential::new(&username, &secret, from)))
        }
        false if answer.text.to_lowercase().contains(UNKNOWN) => Ok(None),
        false => Err(refused(answer)),
    }
}

/// A helper that fails says why on stdout. It has no secret to tell then, but its words are tamed.
fn refused(answer: &Answer) -> Error {
    let said: String = answer.text.trim().chars().take(200).flat_map(char::escape_debug).collect();
    Error::new(if said.is_empty() { "it failed without a word".into() } else { said })
}

/// Runs it with `request` on its stdin. Its stderr is the user's.
fn run(name: &str, action: &str, request: &str, patience: Duration) -> Result<Answer> {
    if name.contains('/') {
        return Err(Error::new("its name has a `/` in it"));
    }
    let program = format!("docker-credential-{name}");
    let mut command = Command::new(&program);
    let started = command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let child = started.map_err(|e| match e.kind() {
        // Denied: by a directory of PATH, which is then not known to have it.
        ErrorKind::NotFound | ErrorKind::PermissionDenied => {
            Error::new(format!("there is no `{program}` in PATH that can be executed"))
        }
        _ => Error::new(format!("start `{program}`")).because(e),
    })?;
    converse(child, request, Instant::now() + patience)
}

/// Gives it the request, and takes its answer. It does not outlive this.
fn converse(mut child: Child, request: &str, deadline: Instant) -> Result<Answer> {
    let answered = write(&mut child, request).and_then(|()| listen(&mut child, deadline));
    if answered.is_err() {
        let _ = child.kill(); // it may have ended by itself
    }
    let status = child.wait().context(|| "wait for it")?;
    answered.map(|text| Answer { text, good: ExitStatus::success(&status) })
}

/// A request fits into a pipe, so that this cannot wait; a helper need not read it.
fn write(child: &mut Child, request: &str) -> Result<()> {
    let mut stdin = child.stdin.take().context(|| "open its stdin")?;
    match stdin.write_all(request.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context(|| "write to its stdin"),
        _ => Ok(()),
    }
}

/// What it prints until it ends.
fn listen(child: &mut Child, deadline: Instant) -> Result<String> {
    let mut stdout = child.stdout.take().context(|| "open its stdout")?;
    let mut text = Vec::new();
    while read(&mut stdout, &mut text, deadline)? {}
    while child.try_wait().context(|| "wait for it")?.is_none() {
        left(deadline)?;
        std::thread::sleep(Duration::from_millis(5)); // it has closed its stdout, and is about to end
    }
    String::from_utf8(text).map_err(|_| Error::new("its answer is not UTF-8"))
}

/// Reads what has come; `false` at the end.
fn read(stdout: &mut ChildStdout, text: &mut Vec<u8>, deadline: Instant) -> Result<bool> {
    let wait = PollTimeout::try_from(left(deadline)?).unwrap_or(PollTimeout::MAX);
    let ready = match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], wait) {
        Err(nix::errno::Errno::EINTR) => 0,
        ready => ready.context(|| "poll its stdout")?,
    };
    if ready == 0 {
        return Ok(true);
    }
    let mut chunk = [0; 4096];
    let n = stdout.read(&mut chunk).context(|| "read its stdout")?;
    text.extend(&chunk[..n]);
    match text.len() as u64 > MAX_ANSWER {
        true => Err(Error::new(format!("its answer is longer than {MAX_ANSWER} bytes"))),
        false => Ok(n > 0),
    }
}

fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(Error::new("it did not answer in time")),
        false => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, good: bool) -> Result<Option<Credential>> {
        parse(&Answer { text: text.into(), good }, "docker-credential-x".into())
    }

    #[test]
    fn answers_of_helpers() {
        let found = parsed(r#"{"ServerURL":"h","Username":"me","Secret":"hush"}"#, true).unwrap().unwrap();
        assert_eq!((found.user.as_str(), &found.secret), ("me", &Secret::Password("hush".into())));
        let found = parsed(r#"{"ServerURL":"h","Username":"<token>","Secret":"t"}"#, true).unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.secret), ("", Secret::Identity("t".into())));
        assert_eq!(parsed(r#"{"Username":"","Secret":""}"#, true).unwrap(), None);
        assert_eq!(parsed("credentials not found in native keychain\n", false).unwrap(), None);
        let error = parsed("the keychain is locked\n", false).unwrap_err();
        assert_eq!(error.to_string(), "the keychain is locked");
        let error = format!("{:#}", parsed(r#"{"Username":"me","Secret":["hush"]}"#, true).unwrap_err());
        assert!(!error.contains("hush"), "{error}");
    }

    fn sh(script: &str) -> Result<Answer> {
        let mut command = Command::new("sh");
        let child = command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        converse(child, "h", Instant::now() + Duration::from_millis(500))
    }

    #[test]
    fn helpers_are_bounded() {
        let answer = sh("read server; echo \"$server!\"; exit 3").unwrap();
        assert_eq!((answer.text.as_str(), answer.good), ("h!\n", false));
        assert!(sh("exec <&-; exit 0").unwrap().good, "it need not read");
        for script in ["exec sleep 60", "exec >&-; exec sleep 60"] {
            assert_eq!(sh(script).err().unwrap().to_string(), "it did not answer in time", "{script}");
        }
        assert!(sh("exec yes").err().unwrap().to_string().contains("longer than"));
    }

    #[test]
    fn no_path_is_a_name() {
        assert!(run("../x", "get", "h", PATIENCE).is_err());
        let error = run("of-nobody", "get", "h", PATIENCE).err().unwrap();
        assert_eq!(error.to_string(), "there is no `docker-credential-of-nobody` in PATH that can be executed");
    }
}
