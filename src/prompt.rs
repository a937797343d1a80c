//! A question to the person at the terminal, and what they type; a secret is not shown while they do.
//!
//! In: keys. Out: a line. Stdin must be a terminal; the question goes to stderr. The terminal gets its modes back on every
//! way out.

use std::io::{Stdin, stdin};

use nix::errno::Errno;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::read;

use crate::error::{Context, Error, Result};
use crate::output;

/// What a key does to the line.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    More,
    Done,
    Cancelled,
}

/// A line, shown as it is typed.
pub fn line(question: &str) -> Result<String> {
    output::question(question);
    let line = read_line()?;
    Ok(line.trim().to_owned())
}

/// A line that is not shown.
pub fn secret(question: &str) -> Result<String> {
    output::question(question);
    let hidden = Hidden::begin()?;
    let line = read_line();
    drop(hidden);
    output::question("\n");
    line
}

fn read_line() -> Result<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        match read(stdin(), &mut byte) {
            Err(Errno::EINTR) => continue,
            Ok(0) => break,
            Ok(_) => {}
            Err(e) => return Err(e).context(|| "read from the terminal"),
        }
        match type_in(&mut line, byte[0]) {
            Typed::More => {}
            Typed::Done => break,
            Typed::Cancelled => return Err(Error::new("cancelled")),
        }
    }
    String::from_utf8(line).map_err(|_| Error::new("what was typed is not UTF-8"))
}

/// A secret is read key by key, so that Ctrl-C can put the terminal right; the other keys do what the kernel lets them do.
fn type_in(line: &mut Vec<u8>, key: u8) -> Typed {
    match key {
        b'\n' | b'\r' | 0x04 => return Typed::Done,
        0x03 | 0x1c => return Typed::Cancelled,
        0x15 => line.clear(),
        0x08 | 0x7f => {
            while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {} // all bytes of a character
        }
        _ => line.push(key),
    }
    Typed::More
}

/// The terminal while it shows nothing.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn begin() -> Result<Self> {
        let before = tcgetattr(stdin()).context(|| "get the terminal's modes")?;
        let mut modes = before.clone();
        modes.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(stdin(), SetArg::TCSADRAIN, &modes).context(|| "hide what is typed")?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let stdin: Stdin = stdin();
        let _ = tcsetattr(stdin, SetArg::TCSADRAIN, &self.before); // it may have gone away
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_edit_the_line() {
        for (keys, want) in [
            ("ab\n", Some("ab")),
            ("ab\u{7f}c\r", Some("ac")),
            ("é\u{7f}x\n", Some("x")),
            ("\u{7f}\u{7f}x\u{4}", Some("x")),
            ("wrong\u{15}right\n", Some("right")),
            ("ab\u{3}", None),
        ] {
            let mut line = Vec::new();
            let end = keys.bytes().map(|key| type_in(&mut line, key)).find(|typed| *typed != Typed::More);
            let line = (end == Some(Typed::Done)).then(|| String::from_utf8(line).unwrap());
            assert_eq!(line.as_deref(), want, "{keys:?}");
        }
    }
}
