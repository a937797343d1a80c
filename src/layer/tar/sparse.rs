//! Sparse files: where each of the four formats keeps its map.
//!
//! In: the header and the records of an entry, and the reader where the map goes on. Out: [`Sparse`], whose pieces are all
//! there.

use super::header::{Header, parse_number};
use super::pax::{InForce, parse_decimal};
use super::{BLOCK, Input, Reader};
use crate::error::{Context, Error, Result};

/// The most pieces a sparse file may have.
const MAX_SEGMENTS: usize = 1 << 18;

/// A piece of a sparse file that holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Length and pieces of a sparse file.
pub(super) struct Sparse {
    pub(super) size: u64,
    pub(super) segments: Vec<Segment>,
}

impl Sparse {
    /// Pieces in order, inside the file, and all of them stored.
    fn checked(self, stored: u64) -> Result<Self> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for segment in &self.segments {
            let next = segment.offset.checked_add(segment.length).filter(|_| segment.offset >= end);
            end = next.filter(|n| *n <= self.size).context(|| "the map of a sparse file is malformed")?;
            sum += segment.length;
        }
        match sum == stored && i64::try_from(self.size).is_ok() {
            true => Ok(self),
            false => Err(Error::new(format!("a sparse file stores {stored} bytes, its map says {sum}"))),
        }
    }
}

impl<R: Input> Reader<R> {
    /// The map of a sparse file, in any of its four formats.
    pub(super) fn sparse(&mut self, header: &Header, records: &InForce) -> Result<Option<Sparse>> {
        let size = |key: &[u8]| records.number(key)?.context(|| "a sparse file without its size");
        let sparse = if header.kind() == b'S' {
            Sparse { size: header.real_size()?, segments: self.gnu_segments(header)? }
        } else if records.get(b"GNU.sparse.major").as_deref() == Some(b"1") {
            Sparse { size: size(b"GNU.sparse.realsize")?, segments: self.map_in_data()? }
        } else if let Some(map) = records.get(b"GNU.sparse.map") {
            let numbers = map.split(|&b| b == b',').map(parse_decimal).collect::<Result<Vec<_>>>()?;
            Sparse { size: size(b"GNU.sparse.size")?, segments: pairs(&numbers)? }
        } else {
            return Ok(None);
        };
        sparse.checked(self.left).map(Some)
    }

    /// Four pieces in the header, 21 in each block that follows it (GNU tar manual, "Storing Sparse Files").
    fn gnu_segments(&mut self, header: &Header) -> Result<Vec<Segment>> {
        let mut segments = Vec::new();
        let mut more = read_gnu_segments(&header.0[386..483], 4, &mut segments)?;
        while more {
            // These blocks stand between the header and the data, and are not counted in its size.
            let block = self.block()?.context(|| "the map of a sparse file ends early")?;
            more = read_gnu_segments(&block, 21, &mut segments)?;
        }
        Ok(segments)
    }

    /// PAX format 1.0: the map is text at the start of the data, padded to a block.
    fn map_in_data(&mut self) -> Result<Vec<Segment>> {
        let before = self.left;
        let count = self.decimal_line()?;
        if count > MAX_SEGMENTS as u64 {
            return Err(Error::new(format!("a sparse file of {count} pieces")));
        }
        let numbers = (0..count * 2).map(|_| self.decimal_line()).collect::<Result<Vec<_>>>()?;
        let read = before - self.left;
        let mut rest = read.next_multiple_of(BLOCK) - read;
        while rest > 0 {
            let step = self.piece(rest)?.len() as u64;
            self.consumed(step);
            rest -= step;
        }
        pairs(&numbers)
    }

    fn decimal_line(&mut self) -> Result<u64> {
        let mut line = Vec::new();
        loop {
            match self.piece(1)?[0] {
                b'\n' => break self.consumed(1),
                digit if line.len() < 20 => line.push(digit),
                _ => return Err(Error::new("the map of a sparse file is malformed")),
            }
            self.consumed(1);
        }
        parse_decimal(&line)
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<Segment>> {
    match numbers.len().is_multiple_of(2) && numbers.len() <= 2 * MAX_SEGMENTS {
        true => Ok(numbers.chunks(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect()),
        false => Err(Error::new("the map of a sparse file is malformed")),
    }
}

/// Reads up to `count` pieces of 24 bytes, and the byte after them that says whether there are more.
fn read_gnu_segments(bytes: &[u8], count: usize, segments: &mut Vec<Segment>) -> Result<bool> {
    for piece in bytes[..count * 24].chunks(24).take_while(|p| p[0] != 0) {
        segments.push(Segment { offset: parse_number(&piece[..12])?, length: parse_number(&piece[12..])? });
    }
    match segments.len() <= MAX_SEGMENTS {
        true => Ok(bytes[count * 24] != 0),
        false => Err(Error::new(format!("a sparse file of more than {MAX_SEGMENTS} pieces"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{file, header, only, padded, pax, read};

    #[test]
    fn sparse_files_in_every_format() {
        let want = [vec![0; 1000], b"data".to_vec(), vec![0; 1004]].concat();
        let gnu = header(b"a", b'S', 4, |b| {
            b[386..397].copy_from_slice(b"00000001750");
            b[398..409].copy_from_slice(b"00000000004");
            b[483..494].copy_from_slice(b"00000003730");
        });
        assert_eq!(only(&[gnu, padded(b"data")].concat()).1, want);
        let posix0 = [("GNU.sparse.size", &b"2008"[..]), ("GNU.sparse.offset", b"1000"), ("GNU.sparse.numbytes", b"4")];
        let posix01 = [("GNU.sparse.size", &b"2008"[..]), ("GNU.sparse.map", b"1000,4")];
        for records in [&posix0[..], &posix01] {
            assert_eq!(only(&[pax(b'x', records), file(b"a", b"data")].concat()).1, want);
        }
        let posix1 = [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"2008"),
            ("GNU.sparse.name", b"real"),
        ];
        let data = [padded(b"1\n1000\n4\n"), b"data".to_vec()].concat();
        let (entry, content) = only(&[pax(b'x', &posix1), file(b"GNUSparse/a", &data)].concat());
        assert_eq!((entry.path.as_slice(), content), (&b"real"[..], want));
    }

    #[test]
    fn sparse_maps_that_lie_are_refused() {
        for map in ["1000,5", "5,2,4,2", "2007,4", "18446744073709551615,4", "1000", "x,4"] {
            let records = [("GNU.sparse.size", &b"2008"[..]), ("GNU.sparse.map", map.as_bytes())];
            assert!(read(&[pax(b'x', &records), file(b"a", b"data")].concat()).is_err(), "{map}");
        }
        let posix1 = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.realsize", b"2008")];
        for data in [&b"1\n0\n99999"[..], b"999999999\n", b"1\n", b""] {
            assert!(read(&[pax(b'x', &posix1), file(b"a", data)].concat()).is_err());
        }
    }
}
