//! The few facts of an ELF file that injection decides by: class, SONAME, glibc versions, the CUDA compatibility note.
//!
//! In: an open file, of the host's driver or of an image, so every offset is checked and every read bounded. Out:
//! [`Elf`]. Little-endian files only: the driver exists for no other machine.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// The largest part of a file that is read at once. libcuda's string table, the largest by far, has about 100 kB.
const MAX_PART: u64 = 4 << 20;
/// More sections than any library has.
const MAX_SECTIONS: u16 = 1024;
/// More records of versions than any library has.
const MAX_RECORDS: usize = 4096;
/// More than any name in a library that is read here.
const MAX_NAME: usize = 256;

const SHT_DYNAMIC: u32 = 6;
const SHT_NOTE: u32 = 7;
const SHT_GNU_VERDEF: u32 = 0x6fff_fffd;
const SHT_GNU_VERNEED: u32 = 0x6fff_fffe;
const DT_SONAME: u64 = 14;

/// The section that says which drivers a forward compatibility libcuda works with (cuda-elf-header.go:116 of
/// nvidia-container-toolkit).
const COMPAT_NOTE: &[u8] = b".note.cuda.fwd_compatibility";

/// A glibc version, as in `GLIBC_2.34`.
pub type Glibc = (u32, u32);

/// An ELF file's section table.
pub struct Elf<'a> {
    file: &'a File,
    /// Whether it is of the 64-bit class.
    pub wide: bool,
    sections: Vec<Section>,
    names: Option<Section>,
    /// The string table that was read last, and where it is: all that is asked for is in one.
    strings: RefCell<Option<(u64, Rc<[u8]>)>>,
}

#[derive(Clone, Copy)]
struct Section {
    name: u32,
    kind: u32,
    offset: u64,
    size: u64,
    link: u32,
}

impl<'a> Elf<'a> {
    /// Reads the section table; `None` if the file is no such ELF file.
    pub fn read(file: &'a File) -> Option<Self> {
        let mut header = [0; 64];
        let got = file.read_at(&mut header, 0).ok()?; // a 32-bit file may end before
        header.get(..got).filter(|read| read.len() >= 52)?;
        let wide = match header.get(..6)? {
            [0x7f, b'E', b'L', b'F', 2, 1] => true,
            [0x7f, b'E', b'L', b'F', 1, 1] => false,
            _ => return None,
        };
        let (table, entry, count, names) =
            if wide { (word(&header, 40, wide)?, 58, 60, 62) } else { (word(&header, 32, wide)?, 46, 48, 50) };
        let entry_size = u64::from(half(&header, entry)?);
        let count = half(&header, count)?.min(MAX_SECTIONS);
        let bytes = part(file, table, entry_size * u64::from(count))?;
        let entries = bytes.chunks_exact(usize::try_from(entry_size).ok().filter(|s| *s > 0)?);
        let sections: Vec<_> = entries.map(|e| Section::parse(e, wide)).collect::<Option<_>>()?;
        Some(Self {
            file,
            wide,
            names: sections.get(usize::from(half(&header, names)?)).copied(),
            sections,
            strings: RefCell::default(),
        })
    }

    /// `DT_SONAME`.
    pub fn soname(&self) -> Option<String> {
        let section = self.of_kind(SHT_DYNAMIC)?;
        let (content, strings) = self.with_strings(section)?;
        let size = if self.wide { 8 } else { 4 };
        let mut entries = content.chunks_exact(2 * size);
        let entry = entries.find(|e| word(e, 0, self.wide) == Some(DT_SONAME))?;
        let name = text(&strings, word(entry, size, self.wide)?)?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }

    /// The newest glibc that the file needs (`.gnu.version_r`).
    pub fn needs_glibc(&self) -> Option<Glibc> {
        let (content, strings) = self.with_strings(self.of_kind(SHT_GNU_VERNEED)?)?;
        let needs = chain(&content, 0, 12); // Verneed: vn_aux at 8, vn_next at 12
        let names = needs.flat_map(|at| {
            let aux = int(&content, at + 8).map_or(content.len(), |aux| at.saturating_add(aux as usize));
            chain(&content, aux, 12).filter_map(|at| int(&content, at + 8)) // Vernaux: vna_name at 8, vna_next at 12
        });
        names.filter_map(|name| glibc(&text(&strings, name.into())?)).max()
    }

    /// The newest glibc that the file, a libc, is (`.gnu.version_d`).
    pub fn is_glibc(&self) -> Option<Glibc> {
        let (content, strings) = self.with_strings(self.of_kind(SHT_GNU_VERDEF)?)?;
        let definitions = chain(&content, 0, 16); // Verdef: vd_aux at 12, vd_next at 16; Verdaux: vda_name at 0
        let names = definitions.filter_map(|at| int(&content, at.checked_add(int(&content, at + 12)? as usize)?));
        names.filter_map(|name| glibc(&text(&strings, name.into())?)).max()
    }

    /// The text of the forward compatibility note: a note's name and then, padded to four bytes, its content.
    pub fn compat_note(&self) -> Option<String> {
        let names = part(self.file, self.names?.offset, self.names?.size)?;
        let named = |s: &&Section| {
            let at = names.get(s.name as usize..).unwrap_or_default();
            s.kind == SHT_NOTE && at.starts_with(COMPAT_NOTE)
        };
        let section = self.sections.iter().find(named)?;
        let note = part(self.file, section.offset, section.size)?;
        let (name, content) = (int(&note, 0)? as usize, int(&note, 4)? as usize);
        let start = 12_usize.checked_add(name.checked_next_multiple_of(4)?)?;
        let bytes = note.get(start..start.checked_add(content)?)?;
        String::from_utf8(bytes.iter().copied().take_while(|b| *b != 0).collect()).ok()
    }

    fn of_kind(&self, kind: u32) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == kind)
    }

    fn with_strings(&self, section: &Section) -> Option<(Vec<u8>, Rc<[u8]>)> {
        let content = part(self.file, section.offset, section.size)?;
        let table = self.sections.get(section.link as usize)?;
        let mut last = self.strings.borrow_mut();
        if last.as_ref().is_none_or(|(at, _)| *at != table.offset) {
            *last = Some((table.offset, part(self.file, table.offset, table.size)?.into()));
        }
        last.as_ref().map(|(_, strings)| (content, Rc::clone(strings)))
    }
}

impl Section {
    fn parse(bytes: &[u8], wide: bool) -> Option<Self> {
        let (offset, size, link) = if wide { (24, 32, 40) } else { (16, 20, 24) };
        Some(Self {
            name: int(bytes, 0)?,
            kind: int(bytes, 4)?,
            offset: word(bytes, offset, wide)?,
            size: word(bytes, size, wide)?,
            link: int(bytes, link)?,
        })
    }
}

/// The offsets of a chain of records, each with the distance to the next at `next`; always forward, and not for long.
fn chain(bytes: &[u8], first: usize, next: usize) -> impl Iterator<Item = usize> + '_ {
    std::iter::successors((first < bytes.len()).then_some(first), move |&at| {
        let step = int(bytes, at.checked_add(next)?)? as usize;
        at.checked_add(step).filter(|_| step > 0).filter(|at| *at < bytes.len())
    })
    .take(MAX_RECORDS)
}

fn part(file: &File, offset: u64, size: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).ok().filter(|_| size <= MAX_PART)?];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn int(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// A value of the file's word size.
fn word(bytes: &[u8], at: usize, wide: bool) -> Option<u64> {
    match wide {
        true => Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?)),
        false => int(bytes, at).map(u64::from),
    }
}

fn text(strings: &[u8], at: u64) -> Option<String> {
    let from = strings.get(usize::try_from(at).ok()?..)?;
    let end = from.iter().take(MAX_NAME).position(|b| *b == 0)?;
    String::from_utf8(from[..end].to_vec()).ok()
}

fn glibc(version: &str) -> Option<Glibc> {
    let mut parts = version.strip_prefix("GLIBC_")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// This machine's own libc, which every test needs anyway.
    fn libc() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps.lines().find_map(|line| line.split_whitespace().last().filter(|p| p.ends_with("/libc.so.6")));
        std::fs::read(path.unwrap()).unwrap()
    }

    #[test]
    fn a_real_libc_says_who_it_is() {
        let file = file(&libc());
        let elf = Elf::read(&file).unwrap();
        assert!(elf.wide);
        assert_eq!(elf.soname().as_deref(), Some("libc.so.6"));
        assert!(elf.is_glibc().unwrap() > (2, 17));
        assert_eq!(elf.compat_note(), None);
        let program = File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(Elf::read(&program).unwrap().needs_glibc().unwrap() >= (2, 2));
    }

    /// A library of an image is as long as it likes, and each of its records may name a string without an end.
    #[test]
    fn long_chains_of_long_names_are_soon_given_up() {
        let mut content = vec![0; 3 << 20];
        for record in content.chunks_exact_mut(24) {
            record[12..16].copy_from_slice(&20_u32.to_le_bytes()); // vd_aux
            record[16..20].copy_from_slice(&24_u32.to_le_bytes()); // vd_next
        }
        let strings = vec![b'x'; 3 << 20];
        let mut bytes = libc()[..64].to_vec();
        bytes[40..48].copy_from_slice(&64_u64.to_le_bytes());
        bytes[60..62].copy_from_slice(&2_u16.to_le_bytes());
        let at = 64 + 2 * 64;
        for (kind, offset, size) in [(SHT_GNU_VERDEF, at, content.len()), (3, at + content.len(), strings.len())] {
            let mut header = vec![0; 64];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            header[40..44].copy_from_slice(&1_u32.to_le_bytes());
            bytes.extend(header);
        }
        let file = file(&[bytes, content, strings].concat());
        let start = std::time::Instant::now();
        assert_eq!(Elf::read(&file).unwrap().is_glibc(), None);
        assert!(start.elapsed().as_secs() < 10, "it would take minutes");
    }

    fn facts(bytes: &[u8]) {
        let file = file(bytes);
        if let Some(elf) = Elf::read(&file) {
            let _ = (elf.soname(), elf.needs_glibc(), elf.is_glibc(), elf.compat_note());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn broken_files_are_read_without_panic(at in prop::collection::vec((0_usize..4096, any::<u8>()), 1..40)) {
            let all = libc();
            let mut bytes = all[..8192].to_vec();
            bytes.extend_from_slice(&all[all.len() - 8192..]);
            let table = (bytes.len() as u64 - 4096).to_le_bytes();
            bytes[40..48].copy_from_slice(&table);
            for (at, byte) in at {
                let tail = bytes.len() - 4096 + at;
                bytes[at] = byte;
                bytes[tail] = byte;
            }
            facts(&bytes);
        }

        #[test]
        fn noise_is_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            facts(&bytes);
            if bytes.len() > 8 {
                bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
                facts(&bytes);
            }
        }
    }
}
