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

/// The `exit` of a report that is no failure.
const NOTICE: u8 = 0;

impl Writer {
    /// Tells the user what differs from what the plan hoped for.
    pub(crate) fn notice(&self, line: String) {
        self.write(&Report { what: line, hints: Vec::new(), exit: NOTICE });
    }

    /// Reports a failure. There is nobody to tell if the supervisor is gone.
    pub(crate) fn report(&self, error: &Error) {
        let what = format!("{error:#}").chars().take(MAX_REPORT / 8).collect();
        let hints = error.hints().into_iter().map(Into::into).collect();
        self.write(&Report { what, hints, exit: error.exit_status() });
    }

    fn write(&self, report: &Report) {
        let _ = serde_json::to_vec(report).map(|json| (&self.0).write_all(&json));
    }
}

impl Reader {
    /// Waits until the workload runs, or for the reason why it does not.
    pub(crate) fn wait(self, quiet: bool) -> Result<()> {
        let mut json = Vec::new();
        self.0.take(MAX_REPORT as u64 * 2).read_to_end(&mut json).context(|| "read the launched process's report")?;
        for report in serde_json::Deserializer::from_slice(&json).into_iter::<Report>() {
            let report = report.context(|| "parse the launched process's report")?;
            if report.exit == NOTICE {
                crate::output::notice(quiet, &report.what);
                continue;
            }
            // The step that failed reports first; what was above it may report again.
            return Err(report.hints.into_iter().fold(Error::new(report.what).exit(report.exit), Error::hint));
        }
        Ok(())
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
        let error = reader.wait(true).unwrap_err();
        assert_eq!(format!("{error}"), format!("{cause:#}"));
        assert_eq!((error.exit_status(), error.hints()), (127, vec!["look"]));
    }

    #[test]
    fn a_closed_pipe_is_success() {
        let (reader, writer) = channel().unwrap();
        drop(writer);
        reader.wait(true).unwrap();
    }
}
