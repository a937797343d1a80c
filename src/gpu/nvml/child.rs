//! Asks NVML in a process of its own, and for a limited time.
//!
//! In: the library. Out: [`Answers`], or why there are none. Runs in the launcher, before any namespace is
//! made: the threads and libraries of NVML come and go with the other process, which has an empty environment, since
//! `LD_LIBRARY_PATH` would choose NVML's own libraries.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gpurun_driver::{Said, verb};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Answers;
use crate::embedded::{self, Program};
use crate::error::{Context, Error, Hint, Result};

/// How long NVML may take. It attaches one GPU after another: some 16 of them take this long (nvidia-docker#628).
pub const LIMIT: Duration = Duration::from_secs(10);

/// How long a killed process is waited for: one that the driver holds in the kernel does not end.
const GRACE: Duration = Duration::from_secs(1);

/// The largest answer: 256 GPUs with all their instances.
const MAX_ANSWER: usize = 8 << 20;

/// Asks the library.
pub fn ask(library: &Path, limit: Duration) -> Result<Answers> {
    said(library, limit).context(|| format!("ask NVML (`{}`)", library.display()))
}

fn said(library: &Path, limit: Duration) -> Result<Answers> {
    let mut child = start(library)?;
    match answer(&mut child, Instant::now() + limit)? {
        Answer::Whole(text) => {
            let status = child.wait().context(|| "wait for the process that asks")?;
            understand(&text, status)
        }
        Answer::Late => {
            give_up(&mut child)?;
            Err(Error::new(format!("it did not answer within {} seconds", limit.as_secs_f32()))
                .hint("`nvidia-persistenced` keeps the GPUs attached, so that it answers at once"))
        }
        Answer::Endless => {
            give_up(&mut child)?;
            Err(Error::new(format!("its answer is larger than {MAX_ANSWER} bytes")))
        }
    }
}

fn start(library: &Path) -> Result<Child> {
    let program = Program::load()?;
    let mut command = program.command(verb::NVML);
    command.arg(library).current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().context(|| "execute the driver's program").hint(|| embedded::HINT)
}

/// What came through the pipe.
enum Answer {
    /// All of it.
    Whole(Vec<u8>),
    /// Nothing more, and it is time.
    Late,
    /// More than anybody wants.
    Endless,
}

fn answer(child: &mut Child, deadline: Instant) -> Result<Answer> {
    let Some(pipe) = child.stdout.as_mut() else { return Ok(Answer::Whole(Vec::new())) };
    let (mut text, mut part) = (Vec::new(), vec![0; 1 << 16]);
    while readable(pipe, deadline)? {
        match pipe.read(&mut part).context(|| "read the answer")? {
            0 => return Ok(Answer::Whole(text)),
            n => text.extend_from_slice(&part[..n]),
        }
        if text.len() > MAX_ANSWER {
            return Ok(Answer::Endless);
        }
    }
    Ok(Answer::Late)
}

/// Waits until there is something to read, or the end; false if it is too late.
fn readable(pipe: &impl AsFd, deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) if ready > 0 => return Ok(true),
            Ok(_) if Instant::now() >= deadline => return Ok(false),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e).context(|| "poll"),
        }
    }
}

/// Kills the process. Its end of the pipe closes with it: if that does not happen it is left to the kernel.
fn give_up(child: &mut Child) -> Result<()> {
    child.kill().context(|| "kill the process that asks")?;
    if let Answer::Whole(_) = answer(child, Instant::now() + GRACE)? {
        child.wait().context(|| "wait for the process that asks")?;
    }
    Ok(())
}

fn understand(text: &[u8], status: ExitStatus) -> Result<Answers> {
    if let Some(signal) = status.signal() {
        return Err(Error::new(format!("it crashed (signal {signal})")));
    }
    if !status.success() {
        return Err(Error::new(format!("the process that asks failed ({status})")));
    }
    let said: Said = serde_json::from_slice(text).context(|| "understand the answer")?;
    said.map_err(Error::new)
}
