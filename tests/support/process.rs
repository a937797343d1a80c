//! Processes that never outlive a test, and what became of them.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    /// As a shell has it: 128+N for signal N.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// It succeeded and had nothing to remark: what it printed.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{self:?}");
        &self.stdout
    }

    /// It ended with this status.
    #[track_caller]
    pub(crate) fn ends(&self, status: i32) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// gpurun refused with a sentence that has these words in it, and nothing ran.
    #[track_caller]
    pub(crate) fn refused(&self, words: &[&str]) {
        self.failed(125, words);
        assert_eq!(self.stdout, "", "{self:?}");
    }

    /// gpurun failed with this status and a sentence that has these words in it.
    #[track_caller]
    pub(crate) fn failed(&self, status: i32, words: &[&str]) {
        self.ends(status);
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in {self:?}");
        }
    }
}

/// Runs a command to its end.
pub(crate) trait Finish {
    fn finish(&mut self) -> Finished;
    fn start(&mut self) -> Running;
}

impl Finish for Command {
    fn finish(&mut self) -> Finished {
        self.start().finish()
    }

    /// Standard input is empty unless the command says otherwise.
    fn start(&mut self) -> Running {
        let mut child = self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start gpurun");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let _ = sender.send(String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned());
            }
        });
        let mut stderr = child.stderr.take().expect("it is piped");
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Running { child, lines: Some(lines), stderr: Some(stderr) }
    }
}

/// A process that is killed if the test forgets it.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Option<Receiver<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// One whose streams are somewhere else.
    pub(crate) fn of(child: Child) -> Self {
        Self { child, lines: None, stderr: None }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a pid"))
    }

    /// Reads lines until this one.
    #[track_caller]
    pub(crate) fn until(&mut self, wanted: &str) -> &mut Self {
        while self.line() != wanted {}
        self
    }

    /// The next line.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let lines = self.lines.as_ref().expect("its streams are piped");
        lines.recv_timeout(PATIENCE).expect("it prints a line").trim_end().to_owned()
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> &mut Self {
        kill(self.pid(), signal).expect("send a signal");
        self
    }

    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let status = status(self.wait());
        let lines = self.lines.take().expect("its streams are piped");
        let stdout = std::iter::from_fn(|| lines.recv_timeout(PATIENCE).ok()).collect();
        let stderr = self.stderr.take().expect("its streams are piped").join().expect("read stderr");
        Finished { status, stdout, stderr }
    }

    /// Its end, or a panic.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the process ends", || {
            ended = self.child.try_wait().expect("wait for a process");
            ended.is_some()
        });
        ended.expect("it ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As a shell has it.
pub(crate) fn status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many processes of the machine have this word in their command line.
pub(crate) fn count(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("list /proc").flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

/// How many have exactly this one.
pub(crate) fn count_exactly(line: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("list /proc").flatten();
    entries.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|l| l == line.as_bytes())).count()
}

/// The state letter of a process, as ps shows it.
pub(crate) fn state(pid: Pid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
}
