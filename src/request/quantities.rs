//! Sizes, durations and limits, as Docker spells them. In: text. Out: numbers. Pure.

use crate::error::{Error, Result};

/// A resource limit (setrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Limit {
    /// Docker's name of it: `nofile`, `memlock`, …
    pub name: String,
    /// What holds; `u64::MAX` is unlimited.
    pub soft: u64,
    /// What the workload may raise it to.
    pub hard: u64,
}

/// Bytes, or with k, m, g, t (and b, or ib, after it) their powers of 1024, as Docker has it.
pub fn parse_size(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let bytes = shift.and_then(|s| digits.parse::<u64>().ok()?.checked_mul(1 << s)).filter(|b| *b > 0);
    bytes.ok_or_else(|| Error::new(format!("`{text}` is not a size: write 64m or 2g")))
}

/// Seconds, as 90s, 45m, 12h, 30d or 4w.
pub fn parse_duration(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        "w" => Some(604_800),
        _ => None,
    };
    let seconds = unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit));
    seconds.ok_or_else(|| Error::new(format!("`{text}` is not a duration: write 12h or 30d")))
}

/// `NAME=SOFT[:HARD]`; -1 and `unlimited` are no limit.
pub(super) fn parse_limit(text: &str) -> Result<Limit> {
    let bad = || Error::new(format!("`--ulimit {text}` is not NAME=SOFT[:HARD]"));
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let value = |v: &str| match v {
        "-1" | "unlimited" => Ok(u64::MAX),
        number => number.parse().map_err(|_| bad()),
    };
    let (soft, hard) = values.split_once(':').map_or((values, values), |pair| pair);
    let limit = Limit { name: name.into(), soft: value(soft)?, hard: value(hard)? };
    if crate::launch::limits::resource(&limit.name).is_none() {
        return Err(Error::new(format!("`{name}` is not a resource limit")));
    }
    if limit.soft > limit.hard {
        return Err(Error::new(format!("`--ulimit {text}`: the soft limit is above the hard one")));
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_limits_are_dockers() {
        for (text, want) in [("1", 1), ("64m", 64 << 20), ("2G", 2 << 30), ("3kib", 3 << 10)] {
            assert_eq!(parse_size(text).unwrap(), want);
        }
        for text in ["", "0", "m", "1x", "-1", "99999999999t"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for (text, want) in [("90s", 90), ("2m", 120), ("1h", 3600), ("30d", 2_592_000), ("1w", 604_800), ("0d", 0)] {
            assert_eq!(parse_duration(text).unwrap(), want);
        }
        for text in ["", "5", "d", "-1d", "1y", "99999999999999999999w"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        let limit = |soft, hard| Limit { name: "nofile".into(), soft, hard };
        assert_eq!(parse_limit("nofile=5").unwrap(), limit(5, 5));
        assert_eq!(parse_limit("nofile=5:-1").unwrap(), limit(5, u64::MAX));
        for text in ["nofile", "nofile=x", "bogus=1", "nofile=2:1"] {
            assert!(parse_limit(text).is_err(), "{text}");
        }
    }
}
