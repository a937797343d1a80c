//! How the launched process tells the supervisor that it failed before the workload ran.
//!
//! In the child: an error, written to a pipe as JSON. In the supervisor: that error again, or nothing at all, since
//! the pipe's ends are close-on-exec: it closes when the workload's exec succeeds.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// The longest report that is read; a longer one is cut by the writer.
const MAX_REPORT: usize = 16 << 10;

/// The supervisor's end.
pub(crate) struct Reader(File);

/// The child's end.
#[derive(Debug)]
pub(crate) struct Writer(File);

#[derive(Serialize, Deserialize)]
struct Report {
    what: String,
    hints: Vec<String>,
    exit: u8,
}

/// A pipe whose ends close on exec.
pub(crate) fn channel() -> Result<(Reader, Writer)> {
    let (read, write): (OwnedFd, OwnedFd) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context(|| "pipe2")?;
    Ok((Reader(read.into()), Writer(write.into())))
}

impl Writer {
    /// Reports a failure. There is nobody to tell if the supervisor is gone.
    pub(crate) fn report(&self, error: &Error) {
        let what = format!("{error:#}").chars().take(MAX_REPORT / 8).collect();
        let hints = error.hints().into_iter().map(Into::into).collect();
        let report = Report { what, hints, exit: error.exit_status() };
        let _ = serde_json::to_vec(&report).map(|json| (&self.0).write_all(&json));
    }
}

impl Reader {
    /// Waits until the workload runs, or for the reason why it does not.
    pub(crate) fn wait(self) -> Result<()> {
        let mut json = Vec::new();
        self.0.take(MAX_REPORT as u64 * 2).read_to_end(&mut json).context(|| "read the launched process's report")?;
        if json.is_empty() {
            return Ok(());
        }
        // The step that failed reports first; what was above it may report again.
        let mut reports = serde_json::Deserializer::from_slice(&json).into_iter::<Report>();
        let what = || "parse the launched process's report";
        let report = reports.next().context(what)?.context(what)?;
        Err(report.hints.into_iter().fold(Error::new(report.what).exit(report.exit), Error::hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_as_it_was() {
        let (reader, writer) = channel().unwrap();
        let later = Error::new("enter the container");
        let cause = Error::new("execve `/x`").because(nix::errno::Errno::ENOENT).exit(127).hint("look");
        writer.report(&cause);
        writer.report(&later);
        drop(writer);
        let error = reader.wait().unwrap_err();
        assert_eq!(format!("{error}"), format!("{cause:#}"));
        assert_eq!((error.exit_status(), error.hints()), (127, vec!["look"]));
    }

    #[test]
    fn a_closed_pipe_is_success() {
        let (reader, writer) = channel().unwrap();
        drop(writer);
        reader.wait().unwrap();
    }
}
