//! A tar stream → its entries, one after the other, in bounded memory.
//!
//! In: bytes. Out: [`Entry`] values, and each file's data as borrowed pieces with the offset they belong at. Reads what
//! image builders write: ustar, PAX (global too), GNU long names, base-256 numbers, and GNU's and PAX's sparse files
//! (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"). Everything is hostile: every
//! length is capped, and what ends early is an error. Runs in the unpacking threads, and wherever an archive is read.

#![allow(clippy::cast_possible_truncation)] // to usize, of numbers that were compared with a usize or a cap before

mod header;
mod pax;
mod sparse;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::sync::Arc;

use crate::error::{Context, Error, Result};
use header::{Header, until_nul};
use pax::{InForce, Records, parse_decimal, parse_time};
use sparse::{MAX_SEGMENTS, Segment, Sparse, pairs, read_gnu_segments};

const BLOCK: u64 = 512;

type Block = [u8; BLOCK as usize];

/// The longest PAX header or GNU long name that is read, and the most that global headers may say together.
const MAX_EXTENSION: u64 = 1 << 20;

/// What a tar is read from.
pub trait Input: BufRead {
    /// Passes over `n` bytes, all of which must be there.
    fn skip(&mut self, mut n: u64) -> io::Result<()> {
        while n > 0 {
            let have = self.fill_buf()?.len();
            if have == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = n.min(have as u64) as usize;
            self.consume(step);
            n -= step as u64;
        }
        Ok(())
    }
}

/// By seeking: an archive's index is read without its blobs. A file that ends early is noticed when the blob is read.
impl Input for BufReader<File> {
    fn skip(&mut self, n: u64) -> io::Result<()> {
        let n = i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.seek_relative(n)
    }
}

impl Input for &[u8] {}

impl<I: Input> Input for &mut I {}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// A point in time, as tar gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Time {
    /// Seconds since 1970; may be negative.
    pub seconds: i64,
    /// Nanoseconds after that.
    pub nanos: u32,
}
/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name, as it is spelled.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a link, as it is spelled.
    pub link: Vec<u8>,
    /// Length of the file in bytes, holes included.
    pub size: u64,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes, in the order of their names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads a tar.
pub struct Reader<R> {
    input: R,
    /// Bytes of the input that were read or passed over.
    position: u64,
    /// Data of the current entry that is still in the input, and the padding after it.
    left: u64,
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

    fn piece(&mut self, most: u64) -> Result<&[u8]> {
        let left = self.left;
        let buffer = self.input.fill_buf().context(|| "read the data of an entry")?;
        let most = usize::try_from(most.min(left)).unwrap_or(usize::MAX).min(buffer.len());
        match most {
            0 => Err(Error::new(format!("the tar ends {left} bytes before the end of an entry"))),
            _ => Ok(&buffer[..most]),
        }
    }

    fn consumed(&mut self, bytes: u64) {
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

    fn block(&mut self) -> Result<Option<Block>> {
        let mut block: Block = [0; BLOCK as usize];
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
        // A file that counts as a directory may have some all the same.
        let has_data = matches!(header.kind(), b'0' | 0 | b'7' | b'S');
        let stored = || records.number(b"size")?.map_or_else(|| header.size(), Ok);
        // Links and directories have none, whatever their size says (as Go's archive/tar reads them).
        self.start_data(if has_data { stored()? } else { 0 })?;
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

    /// The map of a sparse file, in any of its four formats.
    fn sparse(&mut self, header: &Header, records: &InForce) -> Result<Option<Sparse>> {
        let real = || records.number(b"GNU.sparse.realsize")?.context(|| "a sparse file without its size");
        let sparse = if header.kind() == b'S' {
            Sparse { size: header.real_size()?, segments: self.gnu_segments(header)? }
        } else if records.get(b"GNU.sparse.major").as_deref() == Some(b"1") {
            Sparse { size: real()?, segments: self.map_in_data()? }
        } else if let Some(map) = records.get(b"GNU.sparse.map") {
            let numbers = map.split(|&b| b == b',').map(parse_decimal).collect::<Result<Vec<_>>>()?;
            let size = records.number(b"GNU.sparse.size")?.context(|| "a sparse file without its size")?;
            Sparse { size, segments: pairs(&numbers)? }
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
/// What the extension headers before an entry say.
#[derive(Default)]
struct Extensions {
    records: Records,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}
#[cfg(test)]
mod tests {
    use super::header::{parse_number, parse_signed};
    use super::*;
    use proptest::prelude::*;

    /// One header block, with its checksum.
    fn header(name: &[u8], kind: u8, size: u64, change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(b"00000000012");
        block[156] = kind;
        block[257..263].copy_from_slice(b"ustar\0");
        change(&mut block);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block.to_vec()
    }

    fn padded(data: &[u8]) -> Vec<u8> {
        let mut data = data.to_vec();
        data.resize(data.len().next_multiple_of(512), 0);
        data
    }

    fn file(name: &[u8], data: &[u8]) -> Vec<u8> {
        [header(name, b'0', data.len() as u64, |_| {}), padded(data)].concat()
    }

    fn pax(kind: u8, records: &[(&str, &[u8])]) -> Vec<u8> {
        let record = |(key, value): &(&str, &[u8])| {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let length = (body.len()..body.len() + 9).find(|n: &usize| n.to_string().len() + body.len() == *n).unwrap();
            [length.to_string().as_bytes(), &body].concat()
        };
        let data: Vec<u8> = records.iter().flat_map(record).collect();
        [header(b"pax", kind, data.len() as u64, |_| {}), padded(&data)].concat()
    }

    /// Name and content of every entry, holes filled with zeroes.
    fn read(tar: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
        let (mut reader, mut all) = (Reader::new(tar), Vec::new());
        while let Some(entry) = reader.next()? {
            let mut content = vec![0; usize::try_from(entry.size.min(1 << 20)).unwrap()];
            reader.data(|offset, piece| {
                let at = usize::try_from(offset).unwrap();
                content.get_mut(at..at + piece.len()).context(|| "out of the file")?.copy_from_slice(piece);
                Ok(())
            })?;
            all.push((entry, content));
        }
        Ok(all)
    }

    fn only(tar: &[u8]) -> (Entry, Vec<u8>) {
        let mut all = read(tar).unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

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
