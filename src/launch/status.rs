//! How the launched process tells the supervisor that it failed before the workload ran, and what else there is to tell.
//!
//! In the child: an error, a notice or a phase of the start, written to a pipe as JSON. In the supervisor: that error again, or
//! nothing at all, since the pipe's ends are close-on-exec: it closes when the workload's exec succeeds.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::output;
use crate::timings::{Laps, Phase, Timings};

/// The longest report that is read; a longer one is cut by the writer.
const MAX_REPORT: usize = 16 << 10;

/// The supervisor's end.
pub(crate) struct Reader(File);

/// The child's end.
#[derive(Debug)]
pub(crate) struct Writer {
    pipe: File,
    laps: Laps,
}

#[derive(Serialize, Deserialize)]
enum Report {
    Failure { what: String, hints: Vec<String>, exit: u8 },
    Notice(String),
    Phase(Phase),
}

/// A pipe whose ends close on exec.
pub(crate) fn channel(laps: Laps) -> Result<(Reader, Writer)> {
    let (read, write): (OwnedFd, OwnedFd) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context(|| "pipe2")?;
    Ok((Reader(read.into()), Writer { pipe: write.into(), laps }))
}

impl Writer {
    /// The first phase of the child begins.
    pub(crate) fn begin(&self) {
        self.laps.begin();
    }

    /// A phase has ended, and the next begins.
    pub(crate) fn ended(&self, phase: &'static str) {
        self.laps.end(phase).into_iter().for_each(|phase| self.write(&Report::Phase(phase)));
    }

    /// Tells the user what differs from what the plan hoped for.
    pub(crate) fn notice(&self, line: String) {
        self.write(&Report::Notice(line));
    }

    /// Reports a failure. There is nobody to tell if the supervisor is gone.
    pub(crate) fn report(&self, error: &Error) {
        let what = format!("{error:#}").chars().take(MAX_REPORT / 8).collect();
        let hints = error.hints().into_iter().map(Into::into).collect();
        self.write(&Report::Failure { what, hints, exit: error.exit_status() });
    }

    fn write(&self, report: &Report) {
        let _ = serde_json::to_vec(report).map(|json| (&self.pipe).write_all(&json));
    }
}

impl Reader {
    /// Waits until the workload runs, or for the reason why it does not.
    pub(crate) fn wait(self, quiet: bool, timings: &Timings) -> Result<()> {
        let mut json = Vec::new();
        self.0.take(MAX_REPORT as u64 * 2).read_to_end(&mut json).context(|| "read the launched process's report")?;
        for report in serde_json::Deserializer::from_slice(&json).into_iter::<Report>() {
            match report.context(|| "parse the launched process's report")? {
                Report::Notice(line) => output::notice(quiet, &line),
                Report::Phase(phase) => timings.add(phase),
                // The step that failed reports first; what was above it may report again.
                Report::Failure { what, hints, exit } => {
                    return Err(hints.into_iter().fold(Error::new(what).exit(exit), Error::hint));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_as_it_was() {
        let (reader, writer) = channel(Timings::new(false).laps()).unwrap();
        let later = Error::new("enter the container");
        let cause = Error::new("execve `/x`").because(nix::errno::Errno::ENOENT).exit(127).hint("look");
        writer.report(&cause);
        writer.report(&later);
        drop(writer);
        let error = reader.wait(true, &Timings::new(false)).unwrap_err();
        assert_eq!(format!("{error}"), format!("{cause:#}"));
        assert_eq!((error.exit_status(), error.hints()), (127, vec!["look"]));
    }

    #[test]
    fn a_closed_pipe_is_success() {
        let timings = Timings::new(true);
        let (reader, writer) = channel(timings.laps()).unwrap();
        writer.begin();
        writer.ended("rootfs");
        drop(writer);
        reader.wait(true, &timings).unwrap();
        assert!(timings.table().unwrap().contains("\nrootfs "));
    }
}
