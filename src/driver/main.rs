//! The part of gpurun into which the GPU driver's own libraries are loaded. They need the C library that they were made
//! for, glibc, and its loader; gpurun itself needs neither, so that one file of it runs everywhere and starts fast. It
//! carries this program and executes it from memory, or in `builtin:hello` as the workload.
//!
//! In: a [`verb`]. Out: on standard output what it says, or on standard error one sentence. An error is a sentence here too.

mod cuda;
mod hello;
mod libraries;
mod nvml;

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use gpurun_driver::verb;

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
    match act(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}"); // nobody can be told that stderr is closed
            ExitCode::FAILURE
        }
    }
}

fn act(args: &[&OsStr]) -> Result<()> {
    match args {
        [what, library] if *what == verb::NVML => nvml::serve(Path::new(library)),
        [what] if *what == verb::HELLO => hello::hello(),
        [what] if *what == verb::LIBRARIES => say(&libraries::loaded()),
        _ => Err("this program is for gpurun to call".into()),
    }
}

/// Prints it. A reader that went away is no error.
fn say(text: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(text).and_then(|()| std::io::stdout().flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.context(|| "write to stdout"),
    }
}

/// What a call that failed was to do.
trait Context<T> {
    /// That, before the reason.
    fn context<S: std::fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context<S: std::fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| format!("{}: {error}", what()))
    }
}
