//! What injection must know of an image: its loader's cache, its libc, its own forward-compatible driver.
//!
//! In: the image's tree, read as hostile input through the in-root resolver. Out: [`Contents`]. Nothing of an image is
//! ever a mount's source, and none of its programs runs.

use std::path::Path;

use super::compat::{self, Compat, Note};
use super::elf::{Elf, Glibc};
use super::inventory::Version;
use super::ldcache::{self, Cache};
use crate::error::{Context, Result};
use crate::inroot::Root;

/// Where a libc is if there is no cache that says so.
const LIBC: &[&str] = &[
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/aarch64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/lib64/libc.so.6",
    "/usr/lib64/libc.so.6",
    "/usr/lib/libc.so.6",
    "/lib/libc.so.6",
];

/// The image, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its `/etc/ld.so.cache`; empty if it has none, or one that is broken.
    pub cache: Cache,
    /// Why its cache is not used, if it has one that is not.
    pub broken_cache: Option<&'static str>,
    /// The version of its glibc.
    pub glibc: Option<Glibc>,
    /// Its musl's search path (`/etc/ld-musl-ARCH.path`), the default if it has no such file; `None` without a musl.
    pub musl: Option<String>,
    /// The store that its loaders are in, if they read no `/etc/ld.so.cache`.
    pub store: Option<&'static str>,
    /// What is in its `/usr/local/cuda/compat`.
    pub compat: Option<Compat>,
}

impl Contents {
    /// Looks at an image's tree.
    pub fn probe(rootfs: &Path) -> Result<Self> {
        let root = Root::open(rootfs)?;
        let bytes = root.read(Path::new("/etc/ld.so.cache"), ldcache::MAX_SIZE);
        let (cache, broken_cache) = match bytes {
            Ok(None) => (Cache::default(), None),
            Ok(Some(bytes)) => match Cache::parse(&bytes) {
                Some(cache) => (cache, None),
                None => (Cache::default(), Some("the image's /etc/ld.so.cache is broken: it is replaced")),
            },
            Err(_) => (Cache::default(), Some("the image's /etc/ld.so.cache cannot be read: it is replaced")),
        };
        let (glibc, musl) = (glibc(&root, &cache), musl(&root));
        let has_cache = cache != Cache::default() || broken_cache.is_some();
        let store = if has_cache || glibc.is_some() || musl.is_some() { None } else { store(&root) };
        Ok(Self { glibc, musl, store, compat: compat(&root), cache, broken_cache })
    }
}

fn glibc(root: &Root, cache: &Cache) -> Option<Glibc> {
    let cached = cache.find("libc.so.6").filter_map(|path| std::str::from_utf8(path).ok());
    let mut files = cached.chain(LIBC.iter().copied()).filter_map(|path| root.file(Path::new(path)).ok()?);
    files.find_map(|file| Elf::read(&file)?.is_glibc())
}

/// Nix's glibc and Guix's look for a cache in their own directory (nixpkgs, dont-use-system-ld-so-cache.patch).
fn store(root: &Root) -> Option<&'static str> {
    ["/nix/store", "/gnu/store"].into_iter().find(|store| root.resolve(Path::new(store)).is_ok())
}

/// musl's default path, which a file replaces (ldso/dynlink.c).
fn musl(root: &Root) -> Option<String> {
    let arch = std::env::consts::ARCH;
    root.file(Path::new(&format!("/lib/ld-musl-{arch}.so.1"))).ok()??;
    let path = root.read(Path::new(&format!("/etc/ld-musl-{arch}.path")), 4096).ok().flatten();
    Some(path.map_or_else(|| "/lib:/usr/local/lib:/usr/lib".into(), |p| String::from_utf8_lossy(&p).trim().to_owned()))
}

/// The one `libcuda.so.VERSION` in the compatibility directory, and the SONAMEs beside it.
fn compat(root: &Root) -> Option<Compat> {
    let dir = Path::new(compat::DIRECTORY);
    let names = root.names(dir);
    let versions: Vec<_> = names.iter().filter_map(|name| Version::parse(name.strip_prefix("libcuda.so.")?)).collect();
    let [version] = &versions[..] else { return None };
    let note = note(root, &dir.join(format!("libcuda.so.{version}"))).ok().flatten();
    let is_soname = |name: &&String| {
        name.rsplit_once(".so.")
            .is_some_and(|(_, number)| number.len() < 3 && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut sonames: Vec<_> = names.iter().filter(is_soname).cloned().collect();
    sonames.sort();
    Some(Compat { version: version.clone(), note, sonames })
}

fn note(root: &Root, path: &Path) -> Result<Option<Note>> {
    let file = root.file(path)?.context(|| "it is gone")?;
    Ok(Elf::read(&file).and_then(|elf| elf.compat_note()).and_then(|text| Note::parse(&text)))
}
