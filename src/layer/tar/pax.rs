//! The records of PAX headers (POSIX.1-2017, pax, "pax Extended Header"). In: their data. Out: [`Records`], and those
//! [`InForce`] for one entry. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MAX_EXTENSION, Time};
use crate::error::{Context, Error, Result};

/// What star named extended attributes by, and all others after it.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of a PAX header, sorted by key; the last of each counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Length of all keys and values.
    bytes: u64,
}

/// The records that hold for one entry: its own, and the global ones that they do not replace.
pub(super) struct InForce {
    pub(super) own: Records,
    pub(super) global: Arc<Records>,
}

impl Records {
    /// `LENGTH KEY=VALUE\n`, the length being that of the whole record.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self> {
        let (mut records, mut pieces) = (Self::default(), Vec::new());
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).context(|| "a malformed PAX header")?;
            match key {
                // Format 0.0 repeats these two keys for each piece.
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => pieces.push(value),
                _ => records.insert(key.to_vec(), value.to_vec()),
            }
            bytes = rest;
        }
        if !pieces.is_empty() {
            records.insert(b"GNU.sparse.map".to_vec(), pieces.join(&b','));
        }
        Ok(records)
    }

    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let length = |key: &[u8], value: &[u8]| (key.len() + value.len()) as u64;
        let added = length(&key, &value);
        let replaced = self.values.get(&key).map_or(0, |old| length(&key, old));
        self.values.insert(key, value);
        self.bytes = self.bytes + added - replaced;
    }

    /// Adds those of one more global header. All together are no longer than one may be.
    pub(super) fn merge(&mut self, later: Self) -> Result<()> {
        later.values.into_iter().for_each(|(key, value)| self.insert(key, value));
        match self.bytes > MAX_EXTENSION {
            true => Err(Error::new(format!("global headers of more than {MAX_EXTENSION} bytes"))),
            false => Ok(()),
        }
    }

    fn xattrs(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let from = self.values.range(XATTR.to_vec()..);
        from.map_while(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value.clone())))
    }
}

impl InForce {
    /// An empty value takes back what a global header said.
    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.own.values.get(key).or_else(|| self.global.values.get(key));
        value.filter(|value| !value.is_empty()).cloned()
    }

    pub(super) fn number(&self, key: &[u8]) -> Result<Option<u64>> {
        self.get(key).map(|text| parse_decimal(&text)).transpose()
    }

    pub(super) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.global.xattrs().chain(self.own.xattrs()).collect::<BTreeMap<_, _>>().into_iter().collect()
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

/// Digits only, and no more than a `u64` holds.
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

#[cfg(test)]
mod tests {
    use super::super::sample::{file, header, only, padded, pax, read};
    use super::*;

    #[test]
    fn pax_records_win_over_headers_and_global_ones_last() {
        let records: &[(&str, &[u8])] =
            &[("size", b"3"), ("mtime", b"-1.5"), ("SCHILY.xattr.user.x", b"a\n=b"), ("linkpath", b"to")];
        let tar = [pax(b'x', records), header(b"a", b'0', 9999, |_| {}), padded(b"abc")].concat();
        let (entry, content) = only(&tar);
        assert_eq!((content.as_slice(), entry.mtime), (&b"abc"[..], Time { seconds: -2, nanos: 500_000_000 }));
        assert_eq!(entry.xattrs, [(b"user.x".to_vec(), b"a\n=b".to_vec())]);
        let global = [pax(b'g', &[("mtime", b"77")]), file(b"a", b""), pax(b'x', &[("mtime", b"5")]), file(b"b", b"")];
        let times: Vec<_> = read(&global.concat()).unwrap().iter().map(|(e, _)| e.mtime.seconds).collect();
        assert_eq!(times, [77, 5]);
    }

    #[test]
    fn global_headers_cannot_fill_the_memory() {
        let global = |n: u8| pax(b'g', &[(&format!("comment{}", char::from(n)), &vec![b'x'; 400_000])]);
        assert!(read(&[global(b'a'), global(b'b'), file(b"a", b"")].concat()).is_ok());
        assert!(read(&[global(b'a'), global(b'a'), global(b'a'), file(b"a", b"")].concat()).is_ok());
        let error = read(&[global(b'a'), global(b'b'), global(b'c')].concat()).unwrap_err();
        assert!(format!("{error:#}").contains("global headers"), "{error:#}");
    }

    #[test]
    fn global_attributes_are_those_of_entries_that_have_none() {
        let global = pax(b'g', &[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.b", b"2"), ("mtime", b"7")]);
        let own = pax(b'x', &[("SCHILY.xattr.user.b", b"3"), ("mtime", b"")]);
        let (entry, _) = only(&[global, own, file(b"a", b"")].concat());
        let xattr = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        assert_eq!(entry.xattrs, [xattr("user.a", "1"), xattr("user.b", "3")]);
        assert_eq!(entry.mtime.seconds, 10, "the header's, since the global one is taken back");
    }
}
