//! The maps of sparse files: which pieces hold data, checked. Pure.

use super::header::parse_number;
use crate::error::{Context, Error, Result};

/// The most pieces a sparse file may have.
pub(super) const MAX_SEGMENTS: usize = 1 << 18;

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
    pub(super) fn checked(self, stored: u64) -> Result<Self> {
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

pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Segment>> {
    match numbers.len().is_multiple_of(2) && numbers.len() <= 2 * MAX_SEGMENTS {
        true => Ok(numbers.chunks(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect()),
        false => Err(Error::new("the map of a sparse file is malformed")),
    }
}

/// Reads up to `count` pieces of 24 bytes, and the byte after them that says whether there are more.
pub(super) fn read_gnu_segments(bytes: &[u8], count: usize, segments: &mut Vec<Segment>) -> Result<bool> {
    for piece in bytes[..count * 24].chunks(24).take_while(|p| p[0] != 0) {
        segments.push(Segment { offset: parse_number(&piece[..12])?, length: parse_number(&piece[12..])? });
    }
    match segments.len() <= MAX_SEGMENTS {
        true => Ok(bytes[count * 24] != 0),
        false => Err(Error::new(format!("a sparse file of more than {MAX_SEGMENTS} pieces"))),
    }
}
