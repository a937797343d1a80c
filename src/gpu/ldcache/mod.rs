//! `ld.so.cache`: the loader's list of libraries, read from the host or an image, and written anew with ours in it.
//!
//! In: bytes, an image's too, so every length is checked. Out: [`Cache`]; [`merge`] gives the one with ours. Pure.
//! The format is sysdeps/generic/dl-cache.h of glibc; both the old (`ld.so-1.7.0`) and the new one are read. No ldconfig
//! runs, on no file of an image (CVE-2025-23267).

mod order;
mod read;
mod write;

pub(super) use order::compare;

/// The largest cache that is read: a full desktop's has 300 kB.
pub const MAX_SIZE: u64 = 16 << 20;

const MAGIC_NEW: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// `cache_extension_magic`
const EXTENSION: u32 = 0xEAA4_2174;
/// `cache_extension_tag_glibc_hwcaps`: offsets of the names of `glibc-hwcaps` directories.
const TAG_HWCAPS: u32 = 1;

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
    /// The paths of libraries with this name, in order.
    pub fn find<'a>(&'a self, soname: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.entries.iter().filter(move |e| e.soname == soname.as_bytes()).map(|e| e.path.as_slice())
    }
}

/// The image's cache with ours in it: first among those of the same name, so that the loader takes ours, and all in the
/// order that its binary search needs.
pub fn merge(image: &Cache, ours: &[Entry]) -> Cache {
    let mut entries: Vec<_> = ours.iter().chain(&image.entries).cloned().collect();
    entries.sort_by(|a, b| compare(&b.soname, &a.soname).then(b.flags.cmp(&a.flags))); // stable: ours stay first
    Cache { entries, hwcaps: image.hwcaps.clone() }
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

    proptest! {
        #[test]
        fn what_is_written_is_read(names in prop::collection::vec("[a-z0-9.]{1,12}", 0..30)) {
            let ours: Vec<_> = names.iter().map(|n| entry(n, &format!("/lib/{n}"))).collect();
            let cache = merge(&Cache::default(), &ours);
            prop_assert_eq!(Cache::parse(&cache.bytes()), Some(cache));
        }
    }
}
