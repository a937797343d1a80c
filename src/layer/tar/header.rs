//! One header block: ustar's fields, GNU's among them, with their numbers. In: 512 bytes. Out: [`Header`]. Pure.

#![allow(clippy::cast_possible_truncation)] // a mode's upper bits mean nothing

use super::{Block, Kind, Time};
use crate::error::{Context, Error, Result};

/// One header block whose checksum was right.
pub(super) struct Header(pub(super) Block);

impl Header {
    pub(super) fn parse(block: &Block) -> Result<Self> {
        let header = Self(*block);
        let stored = header.number(148..156)?;
        let counted = |add: fn(u8) -> i64| -> i64 {
            block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { add(b) }).sum()
        };
        // Some old tars summed the bytes as signed.
        match [counted(i64::from), counted(|b| i64::from(b.cast_signed()))].contains(&(stored.cast_signed())) {
            true => Ok(header),
            false => Err(Error::new("a header whose checksum is wrong")),
        }
    }

    fn number(&self, field: std::ops::Range<usize>) -> Result<u64> {
        parse_number(&self.0[field])
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn size(&self) -> Result<u64> {
        self.number(124..136)
    }

    pub(super) fn real_size(&self) -> Result<u64> {
        self.number(483..495)
    }

    /// Some writers put the file type in as well.
    pub(super) fn mode(&self) -> Result<u32> {
        Ok(self.number(100..108)? as u32 & 0o7777)
    }

    pub(super) fn mtime(&self) -> Result<Time> {
        Ok(Time { seconds: parse_signed(&self.0[136..148])?, nanos: 0 })
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(&self.0[157..257]).to_vec()
    }

    /// Only POSIX's magic has a prefix: GNU's holds other fields there.
    pub(super) fn path(&self) -> Vec<u8> {
        let (prefix, name) = (until_nul(&self.0[345..500]), until_nul(&self.0[..100]));
        match &self.0[257..263] == b"ustar\0" && !prefix.is_empty() {
            true => [prefix, b"/", name].concat(),
            false => name.to_vec(),
        }
    }

    /// A name that ends in `/` was a directory before there was a type for it.
    pub(super) fn entry_kind(&self, path: &[u8]) -> Result<Kind> {
        Ok(match self.kind() {
            b'0' | 0 if path.ends_with(b"/") => Kind::Dir,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => {
                let path = String::from_utf8_lossy(path);
                return Err(Error::new(format!("entry `{path}` has the unknown type {:?}", other as char)));
            }
        })
    }
}

/// A text field ends at its first NUL, or fills the field.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

/// A field that cannot be negative.
pub(super) fn parse_number(field: &[u8]) -> Result<u64> {
    parse_signed(field)?.try_into().context(|| "a negative number in a header")
}

/// Octal text, or base 256 if the first bit is set (GNU).
fn parse_signed(field: &[u8]) -> Result<i64> {
    let bad = || "a malformed number in a header";
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = i128::from(field[0] & 0x3f) - if negative { 0x40 } else { 0 };
        let value = field[1..].iter().try_fold(first, |n, &b| n.checked_mul(256)?.checked_add(b.into()));
        return value.and_then(|v| i64::try_from(v).ok()).context(bad);
    }
    let text = until_nul(field).trim_ascii();
    let digit = |n: i64, b: &u8| n.checked_mul(8)?.checked_add((b'0'..=b'7').contains(b).then(|| (b - b'0').into())?);
    text.iter().try_fold(0, digit).context(bad)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{header, only, padded};
    use super::*;

    #[test]
    fn large_and_negative_numbers_in_base_256() {
        let tar = header(b"a", b'5', 0, |b| {
            b[136..148].fill(0xff);
            b[124..136].copy_from_slice(&[0xff; 12]); // no matter, for a directory
        });
        assert_eq!(only(&tar).0.mtime.seconds, -1);
        let sized = header(b"a", b'0', 0, |b| b[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]));
        assert_eq!(only(&[sized, padded(b"abc")].concat()).1, b"abc");
        assert_eq!(parse_signed(&[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]).unwrap(), 1 << 24);
        assert!(parse_number(&[0xff; 12]).is_err() && parse_signed(&[0xbf; 12]).is_err());
    }
}
