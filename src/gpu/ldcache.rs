//! `ld.so.cache`: the loader's list of libraries, read from the host or an image, and written anew with ours in it.
//!
//! In: bytes, an image's too, so every length is checked. Out: [`Cache`]; [`merge`] gives the bytes of the new format.
//! The format is sysdeps/generic/dl-cache.h of glibc; both the old (`ld.so-1.7.0`) and the new one are read. No ldconfig
//! runs, on no file of an image (CVE-2025-23267).

use std::cmp::Ordering;
use std::collections::HashMap;

/// The largest cache that is read: a full desktop's has 300 kB.
pub const MAX_SIZE: u64 = 16 << 20;
/// All strings of a cache together, by its size: entries share them, and in a hostile file millions could share a long one.
const MAX_SHARING: usize = 4;

const MAGIC_OLD: &[u8] = b"ld.so-1.7.0\0";
const MAGIC_NEW: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// `cache_extension_magic`
const EXTENSION: u32 = 0xEAA4_2174;
/// `cache_extension_tag_glibc_hwcaps`: offsets of the names of `glibc-hwcaps` directories.
const TAG_HWCAPS: u32 = 1;
/// `cache_file_new_flags_endian_little`
const LITTLE_ENDIAN: u8 = 2;
/// `DL_CACHE_HWCAP_EXTENSION`: the low half of `hwcap` counts into the extension's names.
const HWCAP_EXTENSION: u64 = 1 << 62;

/// `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`
pub const FLAGS_X86_64: u32 = 0x0303;
/// `FLAG_ELF_LIBC6`: 32-bit x86 has no flag of its own.
pub const FLAGS_I386: u32 = 0x0003;
/// `FLAG_ELF_LIBC6 | FLAG_AARCH64_LIB64`
pub const FLAGS_AARCH64: u32 = 0x0a03;

/// One library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which loader it is for.
    pub flags: u32,
    /// What programs ask for.
    pub soname: Vec<u8>,
    /// Where it is.
    pub path: Vec<u8>,
    /// Operating system version: always 0 since glibc 2.36.
    pub osversion: u32,
    /// Which processors it is for.
    pub hwcap: u64,
}

impl Entry {
    /// A library for every processor.
    pub fn new(flags: u32, soname: &str, path: &str) -> Self {
        Self { flags, soname: soname.into(), path: path.into(), osversion: 0, hwcap: 0 }
    }
}

/// What a cache file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    /// The libraries, in the file's order.
    pub entries: Vec<Entry>,
    /// Names of `glibc-hwcaps` directories, which entries count into.
    pub hwcaps: Vec<Vec<u8>>,
}

impl Cache {
    /// Reads a cache of either format; `None` if it is neither or is broken.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(MAGIC_NEW) {
            return Self::parse_new(bytes);
        }
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

    /// The paths of libraries with this name, in order.
    pub fn find<'a>(&'a self, soname: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.entries.iter().filter(move |e| e.soname == soname.as_bytes()).map(|e| e.path.as_slice())
    }

    /// The file, in the new format.
    pub fn bytes(&self) -> Vec<u8> {
        let mut strings = Strings::new(HEADER + self.entries.len() * ENTRY);
        let mut out = MAGIC_NEW.to_vec();
        let mut table = Vec::with_capacity(self.entries.len() * ENTRY);
        for entry in &self.entries {
            for word in [entry.flags, strings.offset(&entry.soname), strings.offset(&entry.path), entry.osversion] {
                table.extend(word.to_le_bytes());
            }
            table.extend(entry.hwcap.to_le_bytes());
        }
        let names: Vec<_> = self.hwcaps.iter().flat_map(|name| strings.offset(name).to_le_bytes()).collect();
        let end = strings.start + strings.bytes.len();
        let extension = if names.is_empty() { 0 } else { end.next_multiple_of(4) };
        for word in [self.entries.len(), strings.bytes.len(), LITTLE_ENDIAN.into(), extension, 0, 0, 0] {
            out.extend(offset(word).to_le_bytes());
        }
        out.extend(table);
        out.extend(strings.bytes);
        if extension > 0 {
            out.resize(extension, 0);
            let content = extension + 8 + 16;
            for word in [EXTENSION, 1, TAG_HWCAPS, 0, offset(content), offset(names.len())] {
                out.extend(word.to_le_bytes());
            }
            out.extend(names);
        }
        out
    }
}

/// The image's cache with ours in it: first among those of the same name, so that the loader takes ours, and all in the
/// order that its binary search needs.
pub fn merge(image: &Cache, ours: &[Entry]) -> Cache {
    let mut entries: Vec<_> = ours.iter().chain(&image.entries).cloned().collect();
    entries.sort_by(|a, b| compare(&b.soname, &a.soname).then(b.flags.cmp(&a.flags))); // stable: ours stay first
    Cache { entries, hwcaps: image.hwcaps.clone() }
}

/// `_dl_cache_libcmp` (elf/dl-cache.c): runs of digits count by their value.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.first(), b.first()) {
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => match number(&mut a).cmp(&number(&mut b))
            {
                Ordering::Equal => {}
                unequal => return unequal,
            },
            (Some(x), _) if x.is_ascii_digit() => return Ordering::Greater,
            (_, Some(y)) if y.is_ascii_digit() => return Ordering::Less,
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (x, y) => return x.map_or(0, |x| x.cast_signed()).cmp(&y.map_or(0, |y| y.cast_signed())),
        }
    }
}

/// glibc counts in an `int`, which wraps.
fn number(text: &mut &[u8]) -> i32 {
    let mut value = 0_i32;
    while let Some(digit) = text.first().filter(|b| b.is_ascii_digit()) {
        value = value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
        *text = &text[1..];
    }
    value
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

/// The strings of a file that is being made, each once.
struct Strings<'a> {
    start: usize,
    bytes: Vec<u8>,
    known: HashMap<&'a [u8], u32>,
}

impl<'a> Strings<'a> {
    fn new(start: usize) -> Self {
        Self { start, bytes: Vec::new(), known: HashMap::new() }
    }

    fn offset(&mut self, text: &'a [u8]) -> u32 {
        *self.known.entry(text).or_insert_with(|| {
            let at = offset(self.start + self.bytes.len());
            self.bytes.extend_from_slice(text);
            self.bytes.push(0);
            at
        })
    }
}

/// A file is far smaller than 4 GB: what it is made of was read with [`MAX_SIZE`] in mind.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
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
    use super::*;
    use proptest::prelude::*;

    fn entry(soname: &str, path: &str) -> Entry {
        Entry::new(FLAGS_X86_64, soname, path)
    }

    /// Ours is read by this machine's own ldconfig, and its cache is in the order we sort by.
    #[test]
    fn ldconfig_agrees() {
        let Ok(bytes) = std::fs::read("/etc/ld.so.cache") else { return };
        let cache = Cache::parse(&bytes).unwrap();
        assert_eq!(merge(&cache, &[]), cache, "the order is ldconfig's");
        let ours = [entry("libcuda.so.1", "/x/libcuda.so.1"), entry("libc.so.6", "/x/libc.so.6")];
        let merged = merge(&cache, &ours).bytes();
        assert_eq!(Cache::parse(&merged).unwrap(), merge(&cache, &ours));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), merged).unwrap();
        let Ok(out) = std::process::Command::new("/sbin/ldconfig").arg("-C").arg(file.path()).arg("-p").output() else {
            return;
        };
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains("libcuda.so.1 (libc6,x86-64) => /x/libcuda.so.1"), "{text}");
        let first = text.lines().find(|l| l.contains("libc.so.6 ")).unwrap();
        assert!(first.ends_with("/x/libc.so.6"), "{first}");
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
    fn names_are_ordered_as_the_loader_searches() {
        for (a, b, order) in [
            ("libx.so.10", "libx.so.9", Ordering::Greater),
            ("libx.so.9", "libx.so.9", Ordering::Equal),
            ("lib1", "liba", Ordering::Greater),
            ("liba", "lib1", Ordering::Less),
            ("liba", "libab", Ordering::Less),
            ("lib_", "liba", Ordering::Less),
        ] {
            assert_eq!(compare(a.as_bytes(), b.as_bytes()), order, "{a} {b}");
        }
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
        fn what_is_written_is_read(names in prop::collection::vec("[a-z0-9.]{1,12}", 0..30)) {
            let ours: Vec<_> = names.iter().map(|n| entry(n, &format!("/lib/{n}"))).collect();
            let cache = merge(&Cache::default(), &ours);
            prop_assert_eq!(Cache::parse(&cache.bytes()), Some(cache));
        }

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
