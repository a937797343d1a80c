//! Bytes → [`Cache`]. Pure; nothing that the bytes say is believed.

use super::{Cache, ENTRY, EXTENSION, Entry, HEADER, MAGIC_NEW, TAG_HWCAPS};

/// All strings of a cache together, by its size: entries share them, and in a hostile file millions could share a long one.
const MAX_SHARING: usize = 4;

const MAGIC_OLD: &[u8] = b"ld.so-1.7.0\0";

/// `DL_CACHE_HWCAP_EXTENSION`: the low half of `hwcap` counts into the extension's names.
const HWCAP_EXTENSION: u64 = 1 << 62;

impl Cache {
    /// Reads a cache of either format; `None` if it is neither or is broken.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.starts_with(MAGIC_NEW) {
            true => Self::parse_new(bytes),
            false => Self::parse_old(bytes),
        }
    }

    fn parse_old(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(&MAGIC_OLD[..11]) {
            return None;
        }
        let count = int(bytes, 12)? as usize;
        let end = count.checked_mul(12)?.checked_add(16)?;
        let tail = bytes.get(end..)?;
        // ALIGN_CACHE: the new format, if there, follows at the alignment of its entries.
        let embedded = bytes.get(end.checked_next_multiple_of(8)?..).unwrap_or_default();
        if embedded.starts_with(MAGIC_NEW) {
            return Self::parse_new(embedded);
        }
        let mut strings = Budget::new(tail);
        let entry = |e: &[u8]| {
            let mut text = |at| strings.take(int(e, at)?);
            Some(Entry { flags: int(e, 0)?, soname: text(4)?, path: text(8)?, osversion: 0, hwcap: 0 })
        };
        let entries = bytes[16..end].chunks_exact(12).map(entry).collect::<Option<_>>()?;
        Some(Self { entries, hwcaps: Vec::new() })
    }

    fn parse_new(bytes: &[u8]) -> Option<Self> {
        let count = int(bytes, 20)? as usize;
        let table = bytes.get(HEADER..count.checked_mul(ENTRY)?.checked_add(HEADER)?)?;
        let mut strings = Budget::new(bytes);
        let entry = |e: &[u8]| {
            let hwcap = u64::from(int(e, 16)?) | u64::from(int(e, 20)?) << 32;
            let mut text = |at| strings.take(int(e, at)?);
            Some(Entry { flags: int(e, 0)?, soname: text(4)?, path: text(8)?, osversion: int(e, 12)?, hwcap })
        };
        let entries: Vec<_> = table.chunks_exact(ENTRY).map(entry).collect::<Option<_>>()?;
        let hwcaps = match int(bytes, 32)? {
            0 => Vec::new(),
            at => hwcaps(bytes, at as usize)?,
        };
        let known = |e: &Entry| e.hwcap & HWCAP_EXTENSION == 0 || e.hwcap & 0xffff_ffff < hwcaps.len() as u64;
        entries.iter().all(known).then_some(Self { entries, hwcaps })
    }
}

fn hwcaps(bytes: &[u8], at: usize) -> Option<Vec<Vec<u8>>> {
    let extension = bytes.get(at..)?;
    if int(extension, 0)? != EXTENSION {
        return None;
    }
    let count = int(extension, 4)? as usize;
    let sections = extension.get(8..count.checked_mul(16)?.checked_add(8)?)?;
    let Some(section) = sections.chunks_exact(16).find(|s| int(s, 0) == Some(TAG_HWCAPS)) else {
        return Some(Vec::new());
    };
    let (start, size) = (int(section, 8)? as usize, int(section, 12)? as usize);
    let offsets = bytes.get(start..start.checked_add(size)?)?.chunks_exact(4);
    let mut strings = Budget::new(bytes);
    offsets.map(|o| strings.take(int(o, 0)?)).collect()
}

/// The strings of a file that is read, as long as they are no more than it can reasonably have.
struct Budget<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Budget<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, left: bytes.len().saturating_mul(MAX_SHARING) }
    }

    fn take(&mut self, at: u32) -> Option<Vec<u8>> {
        let text = string(self.bytes, at)?;
        self.left = self.left.checked_sub(text.len())?;
        Some(text)
    }
}

fn int(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The string at an offset; one longer than a path may be is a sign of a broken file.
fn string(bytes: &[u8], at: u32) -> Option<Vec<u8>> {
    let from = bytes.get(at as usize..)?;
    let end = from.iter().take(4097).position(|b| *b == 0)?;
    Some(from[..end].to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::{FLAGS_X86_64, merge};
    use super::*;
    use proptest::prelude::*;

    fn entry(soname: &str, path: &str) -> Entry {
        Entry::new(FLAGS_X86_64, soname, path)
    }

    #[test]
    fn hwcaps_are_carried_over() {
        let fast = Entry { hwcap: HWCAP_EXTENSION | 1, ..entry("liba.so.1", "/lib/glibc-hwcaps/x86-64-v3/liba.so.1") };
        let cache = Cache { entries: vec![fast], hwcaps: vec![b"x86-64-v2".to_vec(), b"x86-64-v3".to_vec()] };
        let merged = merge(&cache, &[entry("libz.so.1", "/x/libz.so.1")]);
        let read = Cache::parse(&merged.bytes()).unwrap();
        assert_eq!(read, merged);
        assert_eq!((read.hwcaps, read.entries[1].hwcap), (cache.hwcaps, HWCAP_EXTENSION | 1));
    }

    #[test]
    fn the_old_format_is_read_alone_and_with_the_new_one_in_it() {
        let strings = b"libc.so.6\0/lib/libc.so.6\0";
        let mut old = MAGIC_OLD.to_vec();
        for word in [1_u32, 3, 0, 10] {
            old.extend(word.to_le_bytes());
        }
        let header = old.clone();
        old.extend(strings);
        let cache = Cache::parse(&old).unwrap();
        assert_eq!(cache.entries, [Entry { flags: 3, ..entry("libc.so.6", "/lib/libc.so.6") }]);
        let mut both = header;
        both.resize(both.len().next_multiple_of(8), 0);
        both.extend(Cache { entries: vec![entry("liba.so", "/a")], hwcaps: Vec::new() }.bytes());
        assert_eq!(Cache::parse(&both).unwrap().entries, [entry("liba.so", "/a")]);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut bytes = Cache { entries: vec![entry("a", "/a")], hwcaps: Vec::new() }.bytes();
        for count in [2_u32, u32::MAX, 0x1000_0000] {
            bytes[20..24].copy_from_slice(&count.to_le_bytes());
            assert_eq!(Cache::parse(&bytes), None, "{count}");
        }
        assert_eq!(Cache::parse(b""), None);
    }

    #[test]
    fn entries_cannot_share_more_than_a_file_has() {
        let path = format!("/{}", "a".repeat(4000));
        let many = |count| Cache { entries: vec![entry("liba.so", &path); count], hwcaps: Vec::new() }.bytes();
        assert!(Cache::parse(&many(2)).is_some());
        assert_eq!(Cache::parse(&many(5000)), None, "124 kB that would become 20 MB");
    }

    proptest! {
        #[test]
        fn broken_caches_are_no_panic(at in prop::collection::vec((0_usize..160, any::<u8>()), 0..9), new: bool) {
            let hwcap = Entry { hwcap: HWCAP_EXTENSION, ..entry("b", "/b") };
            let mut bytes = Cache { entries: vec![entry("a", "/a"), hwcap], hwcaps: vec![b"v3".to_vec()] }.bytes();
            if !new {
                bytes[..12].copy_from_slice(MAGIC_OLD);
            }
            for (at, byte) in at {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Some(cache) = Cache::parse(&bytes) {
                let _ = merge(&cache, &[entry("z", "/z")]).bytes();
            }
        }
    }
}
