//! A tree on the disk, as values that can be compared: what each path is, and which paths are one file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::fs::{Metadata, Permissions, set_permissions, symlink_metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: char,
    pub(crate) mode: u32,
    pub(crate) mtime: (i64, i64),
    /// A file's bytes, or a link's target.
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    /// All paths of the file, this one too.
    pub(crate) names: BTreeSet<Vec<u8>>,
}

/// A tree by its paths; the root's is empty.
pub(crate) type Listing = BTreeMap<Vec<u8>, Node>;

/// Everything below `root`, and it. Modes that keep its owner out are lifted while it is looked at.
pub(crate) fn list(root: &Path) -> Listing {
    let (mut nodes, mut inodes) = (Listing::new(), HashMap::new());
    walk(root, b"", &mut nodes, &mut inodes);
    for names in inodes.into_values().filter(|names: &BTreeSet<_>| names.len() > 1) {
        for name in &names {
            nodes.get_mut(name).expect("it was listed").names.clone_from(&names);
        }
    }
    nodes
}

type Inodes = HashMap<u64, BTreeSet<Vec<u8>>>;

fn walk(at: &Path, path: &[u8], nodes: &mut Listing, inodes: &mut Inodes) {
    let meta = symlink_metadata(at).expect("stat");
    let kind = kind(&meta);
    let _open = matches!(kind, 'f' | 'd').then(|| Opened::new(at, &meta));
    let content = match kind {
        'f' => std::fs::read(at).expect("read a file"),
        'l' => std::fs::read_link(at).expect("read a link").as_os_str().as_bytes().to_vec(),
        _ => Vec::new(),
    };
    let xattrs = if matches!(kind, 'f' | 'd') { xattrs(at) } else { BTreeMap::new() };
    let names = BTreeSet::from([path.to_vec()]);
    let (mode, mtime) = (meta.mode() & 0o7777, (meta.mtime(), meta.mtime_nsec()));
    nodes.insert(path.to_vec(), Node { kind, mode, mtime, content, xattrs, names });
    if kind != 'd' {
        inodes.entry(meta.ino()).or_default().insert(path.to_vec());
        return;
    }
    for entry in std::fs::read_dir(at).expect("list a directory") {
        let name = entry.expect("list a directory").file_name();
        let below = if path.is_empty() { name.as_bytes().to_vec() } else { [path, b"/", name.as_bytes()].concat() };
        walk(&at.join(&name), &below, nodes, inodes);
    }
}

fn kind(meta: &Metadata) -> char {
    match meta.file_type() {
        t if t.is_dir() => 'd',
        t if t.is_symlink() => 'l',
        t if t.is_file() => 'f',
        t if t.is_fifo() => 'p',
        _ => '?',
    }
}

/// Something whose owner may read it for a while.
struct Opened<'a>(Option<(&'a Path, u32)>);

impl<'a> Opened<'a> {
    fn new(path: &'a Path, meta: &Metadata) -> Self {
        let wanted = if meta.is_dir() { 0o500 } else { 0o400 };
        let closed = meta.mode() & wanted != wanted;
        if closed {
            set_permissions(path, Permissions::from_mode(meta.mode() & 0o7777 | wanted)).expect("chmod");
        }
        Self(closed.then_some((path, meta.mode() & 0o7777)))
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        if let Some((path, mode)) = self.0 {
            set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
        }
    }
}

#[allow(unsafe_code)] // neither std nor nix reads extended attributes
fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let c_path = CString::new(path.as_os_str().as_bytes()).expect("a path has no NUL");
    let mut buffer = vec![0_u8; 64 << 10];
    // SAFETY: the path ends in a NUL and the buffer is as long as is said.
    let length = unsafe { libc::llistxattr(c_path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let names = buffer[..usize::try_from(length).unwrap_or(0)].to_vec();
    let user = names.split(|b| *b == 0).filter(|name| name.starts_with(b"user."));
    let value = |name: &[u8]| {
        let (c_name, mut value) = (CString::new(name).expect("split at NUL"), vec![0_u8; 64 << 10]);
        // SAFETY: as above.
        let length =
            unsafe { libc::lgetxattr(c_path.as_ptr(), c_name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        value.truncate(usize::try_from(length).expect("getxattr"));
        (String::from_utf8_lossy(name).into_owned(), value)
    };
    user.map(value).collect()
}
