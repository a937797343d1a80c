//! Signals by name: the image's `StopSignal` and `--stop-signal`. Pure.

use std::ops::RangeInclusive;

use nix::sys::signal::Signal;

use crate::error::{Error, Result};

/// The first and the last real-time signal, as Docker and the images' glibc number them (moby/sys/signal): to another C
/// library, which gpurun may be linked with, the first is another.
const REALTIME: RangeInclusive<i32> = 34..=64;

/// A signal's number (image-spec, config.md, `StopSignal`: `SIGNAME`, `SIGRTMIN+3`, or a number). `why` says who named it.
pub fn parse(text: &str, why: &str) -> Result<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = name
        .parse()
        .ok()
        .or_else(|| realtime(name))
        .or_else(|| format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32));
    number
        .filter(|n| (1..=*REALTIME.end()).contains(n))
        .ok_or_else(|| Error::new(format!("`{text}` is not a signal ({why})")))
}

fn realtime(name: &str) -> Option<i32> {
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok(),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return Some(REALTIME.start() + offset(rest, '+')?);
    }
    Some(REALTIME.end() - offset(name.strip_prefix("RTMAX")?, '-')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood() {
        for (text, want) in [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)] {
            assert_eq!(parse(text, "a test").unwrap(), want, "{text}");
        }
        for text in ["", "SIGFOO", "0", "-1", "99", "RTMIN+x", "RTMAX-999"] {
            assert!(parse(text, "a test").is_err(), "{text}");
        }
    }
}
