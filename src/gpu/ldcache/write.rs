//! [`Cache`] → the bytes of a file, in the new format. Pure.

use std::collections::HashMap;

use super::{Cache, ENTRY, EXTENSION, HEADER, MAGIC_NEW, TAG_HWCAPS};

/// `cache_file_new_flags_endian_little`
const LITTLE_ENDIAN: u8 = 2;

impl Cache {
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
            out.extend(hwcaps(extension, &names));
        }
        out
    }
}

/// The extension at an offset: its header, that of its one section, and the section, which are offsets of names.
fn hwcaps(at: usize, names: &[u8]) -> Vec<u8> {
    let content = at + 8 + 16;
    let words = [EXTENSION, 1, TAG_HWCAPS, 0, offset(content), offset(names.len())];
    words.into_iter().flat_map(u32::to_le_bytes).chain(names.iter().copied()).collect()
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

/// A file is far smaller than 4 GB: what it is made of was read with [`super::MAX_SIZE`] in mind.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
