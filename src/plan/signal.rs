//! Signals by name: the image's `StopSignal`. Pure.

use nix::sys::signal::Signal;

use crate::error::{Error, Result};

/// The image's StopSignal (image-spec, config.md: `SIGNAME`, `SIGRTMIN+3`, or a number); SIGTERM without one.
pub fn stop_signal(text: Option<&str>) -> Result<i32> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(libc::SIGTERM) };
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = name
        .parse()
        .ok()
        .or_else(|| realtime(name))
        .or_else(|| format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32));
    number
        .filter(|n| (1..=libc::SIGRTMAX()).contains(n))
        .ok_or_else(|| Error::new(format!("the image's StopSignal `{text}` is not a signal")))
}

fn realtime(name: &str) -> Option<i32> {
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok(),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return Some(libc::SIGRTMIN() + offset(rest, '+')?);
    }
    Some(libc::SIGRTMAX() - offset(name.strip_prefix("RTMAX")?, '-')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood() {
        let min = libc::SIGRTMIN();
        for (text, want) in [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", min + 3), ("RTMIN", min), ("", 15)]
        {
            assert_eq!(stop_signal(Some(text)).unwrap(), want, "{text}");
        }
        assert_eq!(stop_signal(None).unwrap(), 15);
        for text in ["SIGFOO", "0", "-1", "99", "RTMIN+x", "RTMAX-999"] {
            assert!(stop_signal(Some(text)).is_err(), "{text}");
        }
    }
}
