//! The only printer: what goes to stdout and what to stderr.
//!
//! In: what a verb has found out. Out: facts it was asked for on stdout; errors, warnings and notices on stderr. A reader
//! that went away is no error.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::error::{Context, Error, Result};

/// Prints facts, as they are, to stdout.
pub fn facts(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(tame(text).as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context(|| "write to stdout"),
    }
}

/// Prints facts as JSON to stdout.
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).context(|| "render JSON")?;
    text.push('\n');
    facts(&text)
}

/// Prints a line that the user may want to know, to stderr.
pub fn notice(quiet: bool, line: &str) {
    if !quiet {
        to_stderr(&format!("gpurun: {}\n", indented(line)));
    }
}

/// Prints a table that was asked for beside the facts, to stderr.
pub fn table(text: &str) {
    to_stderr(text);
}

/// Ends a line that was drawn on stderr.
pub fn end_line() {
    to_stderr("\n");
}

/// Prints a question to the person at the terminal, and lets them answer in the same line.
pub fn question(text: &str) {
    to_stderr(text);
}

/// Prints an error with its causes and hints, to stderr.
pub fn error(error: &Error) {
    to_stderr(&format!("error: {}\n", indented(&format!("{error:#}"))));
    for hint in error.hints() {
        to_stderr(&format!("hint: {}\n", indented(hint)));
    }
}

/// Nobody can be told that stderr is closed.
fn to_stderr(text: &str) {
    let _ = io::stderr().write_all(tame(text).as_bytes());
}

/// Without what a terminal obeys: some of what is printed is an image's.
fn tame(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    match text.contains(obeyed) {
        true => text.chars().map(|c| if obeyed(c) { c.escape_default().collect() } else { c.to_string() }).collect(),
        false => text.into(),
    }
}

/// Further lines begin with spaces, so that none passes for one of gpurun's own.
fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}

/// Bytes as a person reads them, in powers of 1000 as registries and disks count.
pub fn size(bytes: u64) -> String {
    const UNITS: &[&str] = &["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let step =
        |(value, unit): (f64, usize)| (value >= 999.5 && unit + 1 < UNITS.len()).then(|| (value / 1000.0, unit + 1));
    #[allow(clippy::cast_precision_loss)] // three digits are shown
    let (value, unit) =
        std::iter::successors(Some((bytes as f64 / 1000.0, 0)), |s| step(*s)).last().unwrap_or((0.0, 0));
    match value < 9.95 {
        true => format!("{value:.1} {}", UNITS[unit]),
        false => format!("{value:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_told_nothing_by_a_name() {
        assert_eq!(tame("a\u{1b}[2J\r\u{9b}b\tc\nd"), "a\\u{1b}[2J\\r\\u{9b}b\tc\nd");
        assert_eq!(indented("x\nhint: y"), "x\n  hint: y");
    }

    #[test]
    fn sizes_have_three_digits_at_most() {
        for (bytes, want) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (53_400_000, "53 MB"), (3_016_000_000, "3.0 GB")]
        {
            assert_eq!(size(bytes), want);
        }
    }
}
