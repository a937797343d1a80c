//! The records of PAX headers (POSIX.1-2017, pax, "pax Extended Header"). Pure.

use super::Time;
use crate::error::{Context, Error, Result};

/// The records of a PAX header, sorted by key; the last of each counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Records(std::collections::BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    /// `LENGTH KEY=VALUE\n`, the length being that of the whole record.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self> {
        let (mut records, mut pieces) = (Self::default(), Vec::new());
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).context(|| "a malformed PAX header")?;
            match key {
                // Format 0.0 repeats these two keys for each piece.
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => pieces.push(value),
                _ => drop(records.0.insert(key.to_vec(), value.to_vec())),
            }
            bytes = rest;
        }
        if !pieces.is_empty() {
            records.0.insert(b"GNU.sparse.map".to_vec(), pieces.join(&b','));
        }
        Ok(records)
    }

    pub(super) fn merge(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// An empty value takes back what a global header said.
    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key).filter(|value| !value.is_empty()).cloned()
    }

    pub(super) fn number(&self, key: &[u8]) -> Result<Option<u64>> {
        self.get(key).map(|text| parse_decimal(&text)).transpose()
    }

    pub(super) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let named =
            |(key, value): (&Vec<u8>, &Vec<u8>)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()));
        self.0.iter().filter_map(named).collect()
    }
}

/// Key and value of the first record, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|&b| b == b' ')?;
    let length = usize::try_from(parse_decimal(&bytes[..space]).ok()?).ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&b| b == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    // A name with a NUL would be another name to whoever stops there.
    let is_name = matches!(key, b"path" | b"linkpath" | b"GNU.sparse.name");
    let sound = !key.is_empty() && (!is_name || !value.contains(&0));
    sound.then_some((key, value, &bytes[length..]))
}
pub(super) fn parse_decimal(text: &[u8]) -> Result<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let value = digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten();
    value.context(|| format!("`{}` is not a number", String::from_utf8_lossy(text)))
}

/// Decimal seconds with a fraction, which may be negative.
pub(super) fn parse_time(text: &[u8]) -> Result<Time> {
    let bad = || format!("`{}` is not a time", String::from_utf8_lossy(text));
    let (negative, unsigned) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let dot = unsigned.iter().position(|&b| b == b'.').unwrap_or(unsigned.len());
    let seconds = i64::try_from(parse_decimal(&unsigned[..dot]).context(bad)?).context(bad)?;
    let fraction = unsigned.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(Error::new(bad()));
    }
    let nanos = (0..9).fold(0, |n, i| n * 10 + u32::from(fraction.get(i).map_or(0, |b| b - b'0')));
    Ok(match (negative, nanos) {
        (false, nanos) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos: 0 },
        (true, nanos) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}
