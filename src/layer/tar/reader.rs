//! Blocks of the input → headers → entries and their data. In: an [`Input`]. Out: [`Entry`] values, and pieces.

#![allow(clippy::cast_possible_truncation)] // to usize, of numbers that were compared with a usize or a cap before

use std::sync::Arc;

use super::header::{Header, until_nul};
use super::pax::{InForce, Records, parse_time};
use super::sparse::Segment;
use super::{BLOCK, Block, Entry, Input, Kind, MAX_EXTENSION};
use crate::error::{Context, Error, Result};

/// Reads a tar.
pub struct Reader<R> {
    input: R,
    /// Bytes of the input that were read or passed over.
    position: u64,
    /// Data of the current entry that is still in the input, and the padding after it.
    pub(super) left: u64,
    padding: u64,
    segments: Option<Vec<Segment>>,
    global: Arc<Records>,
}

impl<R: Input> Reader<R> {
    /// A tar that starts where `input` stands.
    pub fn new(input: R) -> Self {
        Self { input, position: 0, left: 0, padding: 0, segments: None, global: Arc::default() }
    }

    /// Where in the stream the data of the current entry begins, or goes on.
    pub fn offset(&self) -> u64 {
        self.position
    }

    /// The next entry; what is left of the one before is passed over. `None` at the end.
    #[allow(clippy::should_implement_trait)] // an error in the middle of a tar ends it, which an iterator would hide
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let at = |position: u64| move || format!("read the tar at byte {position}");
        let position = self.position + self.left + self.padding;
        self.skip_rest().context(at(position))?;
        self.next_entry().context(at(position))
    }

    /// Hands out the data of the current entry in pieces, each with the offset in the file where it belongs.
    pub fn data(&mut self, mut sink: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let whole = [Segment { offset: 0, length: self.left }];
        let segments = self.segments.take();
        for segment in segments.as_deref().unwrap_or(&whole) {
            let (mut offset, mut length) = (segment.offset, segment.length);
            while length > 0 {
                let piece = self.piece(length)?;
                sink(offset, piece)?;
                let read = piece.len() as u64;
                self.consumed(read);
                (offset, length) = (offset + read, length - read);
            }
        }
        Ok(())
    }

    /// The input, from the end of the tar on: what pads it belongs to the layer's digest.
    pub fn into_input(self) -> R {
        self.input
    }

    pub(super) fn piece(&mut self, most: u64) -> Result<&[u8]> {
        let left = self.left;
        let buffer = self.input.fill_buf().context(|| "read the data of an entry")?;
        let most = usize::try_from(most.min(left)).unwrap_or(usize::MAX).min(buffer.len());
        match most {
            0 => Err(Error::new(format!("the tar ends {left} bytes before the end of an entry"))),
            _ => Ok(&buffer[..most]),
        }
    }

    pub(super) fn consumed(&mut self, bytes: u64) {
        self.input.consume(bytes as usize);
        self.position += bytes;
        self.left -= bytes;
    }

    fn skip_rest(&mut self) -> Result<()> {
        let rest = self.left + self.padding;
        self.input.skip(rest).context(|| format!("pass over {rest} bytes"))?;
        self.position += rest;
        (self.left, self.padding, self.segments) = (0, 0, None);
        Ok(())
    }

    fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut long = Extensions::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            match header.kind() {
                b'x' => long.records = Records::parse(&self.extension(header.size()?)?)?,
                b'g' => {
                    let records = Records::parse(&self.extension(header.size()?)?)?;
                    Arc::make_mut(&mut self.global).merge(records)?;
                }
                b'L' => long.path = Some(until_nul(&self.extension(header.size()?)?).to_vec()),
                b'K' => long.link = Some(until_nul(&self.extension(header.size()?)?).to_vec()),
                b'V' => self.start_data(header.size()?)?, // a volume label names the tar, not a file
                _ => return self.entry(&header, long).map(Some),
            }
            self.skip_rest()?;
        }
    }

    /// The next header; `None` at two blocks of zeroes, or where the tar just ends.
    fn header(&mut self) -> Result<Option<Header>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().any(|&b| b != 0) {
            return Header::parse(&block).map(Some);
        }
        match self.block()? {
            Some(second) if second.iter().any(|&b| b != 0) => Err(Error::new("a header follows a block of zeroes")),
            _ => Ok(None),
        }
    }

    pub(super) fn block(&mut self) -> Result<Option<Block>> {
        let mut block: Block = [0; size_of::<Block>()];
        if self.input.fill_buf().context(|| "read a header")?.is_empty() {
            return Ok(None);
        }
        self.input.read_exact(&mut block).context(|| "read a header")?;
        self.position += BLOCK;
        Ok(Some(block))
    }

    fn start_data(&mut self, size: u64) -> Result<()> {
        if size > i64::MAX as u64 - BLOCK {
            return Err(Error::new(format!("an entry of {size} bytes")));
        }
        (self.left, self.padding) = (size, size.next_multiple_of(BLOCK) - size);
        Ok(())
    }

    /// The whole data of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(Error::new(format!("a header extension of {size} bytes, more than {MAX_EXTENSION}")));
        }
        self.start_data(size)?;
        let mut data = vec![0; size as usize];
        self.input.read_exact(&mut data).context(|| "read a header extension")?;
        self.position += size;
        self.left = 0;
        Ok(data)
    }

    fn entry(&mut self, header: &Header, long: Extensions) -> Result<Entry> {
        let records = InForce { own: long.records, global: Arc::clone(&self.global) };
        let path = long.path.or_else(|| records.get(b"path")).unwrap_or_else(|| header.path());
        let kind = header.entry_kind(&path)?;
        self.start_data(stored(header, &records)?)?;
        let sparse = if kind == Kind::File { self.sparse(header, &records)? } else { None };
        let entry = Entry {
            path: records.get(b"GNU.sparse.name").unwrap_or(path),
            kind,
            link: long.link.or_else(|| records.get(b"linkpath")).unwrap_or_else(|| header.link()),
            size: sparse.as_ref().map_or(self.left, |s| s.size),
            mode: header.mode()?,
            mtime: records.get(b"mtime").map_or_else(|| header.mtime(), |text| parse_time(&text))?,
            xattrs: records.xattrs(),
        };
        self.segments = sparse.map(|s| s.segments);
        Ok(entry)
    }
}

/// Length of the data of an entry. Links and directories have none, whatever their size says (as Go's archive/tar reads
/// them); a file that counts as a directory may have some all the same.
fn stored(header: &Header, records: &InForce) -> Result<u64> {
    match header.kind() {
        b'0' | 0 | b'7' | b'S' => records.number(b"size")?.map_or_else(|| header.size(), Ok),
        _ => Ok(0),
    }
}

/// What the extension headers before an entry say.
#[derive(Default)]
struct Extensions {
    records: Records,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::super::sample::{file, header, only, padded, pax, read};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_entries() {
        let tar = [file(b"a", b"one"), header(b"d/", 0, 0, |_| {}), file(b"b", &[7; 513]), vec![0; 1024]].concat();
        let all = read(&tar).unwrap();
        let names: Vec<_> = all.iter().map(|(e, c)| (e.path.as_slice(), e.kind, c.len())).collect();
        assert_eq!(names, [(&b"a"[..], Kind::File, 3), (b"d/", Kind::Dir, 0), (b"b", Kind::File, 513)]);
        assert_eq!((all[0].0.mode, all[0].0.mtime.seconds), (0o644, 10));
        assert_eq!(all[0].1, b"one");
    }

    #[test]
    fn names_longer_than_a_header() {
        let prefixed = header(b"name", b'0', 0, |b| b[345..348].copy_from_slice(b"dir"));
        assert_eq!(only(&prefixed).0.path, b"dir/name");
        let gnu = header(b"name", b'0', 0, |b| {
            b[257..265].copy_from_slice(b"ustar  \0");
            b[345..348].copy_from_slice(b"dir");
        });
        assert_eq!(only(&gnu).0.path, b"name");
        let long = [b"n".repeat(300), vec![0]].concat();
        let gnu = [header(b"././@LongLink", b'L', 301, |_| {}), padded(&long), file(b"short", b"x")].concat();
        assert_eq!(only(&gnu).0.path, b"n".repeat(300));
        let link = [header(b"l", b'K', 301, |_| {}), padded(&long), header(b"s", b'2', 0, |_| {})].concat();
        assert_eq!(only(&link).0.link, b"n".repeat(300));
        assert_eq!(only(&[pax(b'x', &[("path", b"caf\xe9")]), file(b"short", b"")].concat()).0.path, b"caf\xe9");
    }

    #[test]
    fn what_is_cut_or_damaged_is_an_error() {
        let tar = [file(b"a", b"one"), vec![0; 1024]].concat();
        assert!(read(&tar[..512]).is_err() && read(&tar[..300]).is_err());
        assert!(read(&tar[..1024]).is_ok(), "two blocks of zeroes are not asked for");
        let mut damaged = tar.clone();
        damaged[0] = b'b';
        assert!(read(&damaged).is_err());
        assert!(read(&[vec![0; 512], file(b"a", b"")].concat()).is_err(), "hidden behind the end");
        assert!(read(&header(b"a", b'?', 0, |_| {})).is_err());
        assert!(read(&[pax(b'x', &[("path", b"a\0b")]), file(b"a", b"")].concat()).is_err());
    }

    #[test]
    fn huge_extension_headers_cost_no_memory() {
        for kind in [b'x', b'g', b'L', b'K'] {
            let error = read(&header(b"a", kind, 1 << 30, |_| {})).unwrap_err();
            assert!(format!("{error:#}").contains("header extension of 1073741824 bytes"), "{error:#}");
        }
    }

    proptest! {
        /// Errors are fine, panics and endless loops are not.
        #[test]
        fn any_bytes_are_read_or_refused(seed in any::<u64>(), flips in prop::collection::vec((0..4096_usize, any::<u8>()), 0..12)) {
            let kinds = [b'0', b'x', b'S', b'L', b'g', b'5', b'1', b'2'];
            let mut tar = Vec::new();
            for i in 0..4 {
                let kind = kinds[(seed >> (8 * i)) as usize % kinds.len()];
                tar.extend(header(b"name", kind, (seed >> i) % 600, |_| {}));
                tar.extend(padded(&seed.to_le_bytes().repeat(75)[..((seed >> i) % 600) as usize]));
            }
            for (at, byte) in flips {
                if let Some(b) = tar.get_mut(at) { *b = byte; }
            }
            let _ = read(&tar);
            let _ = Records::parse(&tar);
        }
    }
}
