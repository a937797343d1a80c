//! One error type for the whole program: what failed, why, what the user can do, and the exit status that says so.
//!
//! In: the call that failed, with its arguments, and the error below it. Out: `error:` with the chain in one sentence,
//! then `hint:` lines. Runs in every process. A message names its own step and never repeats its source's text.

use std::error::Error as StdError;
use std::fmt;

/// The result of everything that can fail in gpurun.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit status when gpurun could not start the workload (usage errors too), as with Docker.
pub const EXIT_GPURUN: u8 = 125;
/// Exit status when the command was found but cannot be executed.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// Exit status when the command was not found.
pub const EXIT_NOT_FOUND: u8 = 127;

/// A failed step: its sentence, the cause below it, hints for the user, and gpurun's exit status.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    what: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hints: Vec<String>,
    exit: u8,
}

impl Error {
    /// A failure that has no deeper cause: `what` is one sentence, lower case, without a full stop.
    pub fn new(what: impl Into<String>) -> Self {
        Self(Box::new(Inner { what: what.into(), source: None, hints: Vec::new(), exit: EXIT_GPURUN }))
    }

    /// The cause below this failure.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the user can do about it; printed as a `hint:` line of its own.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// The exit status to end with, if not [`EXIT_GPURUN`].
    #[must_use]
    pub fn exit(mut self, status: u8) -> Self {
        self.0.exit = status;
        self
    }

    /// The status gpurun exits with because of this error.
    pub fn exit_status(&self) -> u8 {
        self.chain().map(|e| e.0.exit).find(|&s| s != EXIT_GPURUN).unwrap_or(EXIT_GPURUN)
    }

    /// All hints, the outermost step's first.
    pub fn hints(&self) -> Vec<&str> {
        self.chain().flat_map(|e| e.0.hints.iter().map(String::as_str)).collect()
    }

    /// Whether the error or one of its causes is an I/O error of this kind.
    pub fn is_io(&self, kind: std::io::ErrorKind) -> bool {
        self.sources().any(|e| e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == kind))
    }

    /// The first operating system error number in the chain.
    pub fn errno(&self) -> Option<i32> {
        self.sources().find_map(|e| {
            let io = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
            io.or_else(|| e.downcast_ref::<nix::errno::Errno>().map(|e| *e as i32))
        })
    }

    fn sources(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        std::iter::successors(Some(self as &(dyn StdError + 'static)), |&e| e.source())
    }

    /// Our own errors in the chain, also those that came through a `Read` inside an I/O error.
    fn chain(&self) -> impl Iterator<Item = &Error> {
        self.sources().filter_map(|e| {
            let carried = || e.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref::<Error>();
            e.downcast_ref::<Error>().or_else(carried)
        })
    }
}

/// This step alone; `{:#}` writes the whole chain in one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        if f.alternate() {
            for cause in self.sources().skip(1) {
                write!(f, ": {cause}")?;
            }
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

/// Names the step that failed, on any result.
pub trait Context<T> {
    /// Wraps the error in a sentence that names this step and its arguments.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::new(what()).because(e))
    }
}

impl<T> Context<T> for Option<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.ok_or_else(|| Error::new(what()))
    }
}

/// Adds to an error that already is ours.
pub trait Hint<T> {
    /// What the user can do about it.
    fn hint<S: Into<String>>(self, hint: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Hint<T> for Result<T> {
    fn hint<S: Into<String>>(self, hint: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.hint(hint()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_reads_as_one_sentence() {
        let io = std::io::Error::from_raw_os_error(libc::ENOENT);
        let e = Error::new("open `/x`").because(io);
        let e = Error::new("read the image record").because(e);
        assert_eq!(format!("{e:#}"), "read the image record: open `/x`: No such file or directory (os error 2)");
        assert_eq!(e.errno(), Some(libc::ENOENT));
        assert!(e.is_io(std::io::ErrorKind::NotFound));
    }

    #[test]
    fn hints_and_status_come_from_any_depth() {
        let e = Error::new("execve").exit(EXIT_NOT_FOUND).hint("inner");
        let e = Error::new("start").because(e).hint("outer");
        assert_eq!(e.exit_status(), EXIT_NOT_FOUND);
        assert_eq!(e.hints(), ["outer", "inner"]);
        let e = Error::new("unpack").because(std::io::Error::other(e));
        assert_eq!((e.hints().len(), e.exit_status()), (2, EXIT_NOT_FOUND), "through a reader");
        assert_eq!(Error::new("x").exit_status(), EXIT_GPURUN);
    }
}
