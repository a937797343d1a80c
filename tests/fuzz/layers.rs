//! Layers: tars, blobs, what they do to a tree, and the whole way to a rootfs on the disk.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::{targets, text};
use crate::image::{Digest, Layer};
use crate::layer::change::{Attributes, Change, Index, MAX_PATH, Name, What};
use crate::layer::counted::Counted;
use crate::layer::decode::decode;
use crate::layer::tar::Reader;
use crate::layer::tree::{Directory, Tree};
use crate::layer::unpack::{Job, unpack};
use crate::store::{LayerFiles, build_rootfs};
use crate::timings::Timings;

/// The most that a layer may unpack to here.
const MAX_UNPACKED: u64 = 16 << 20;

targets! {
    /// Pieces of data come in order and inside their file.
    fn tar(bytes) {
        let bytes = with_checksums(bytes);
        let mut reader = Reader::new(&bytes[..]);
        while let Ok(Some(entry)) = reader.next() {
            assert!(i64::try_from(entry.size).is_ok() && entry.mode <= 0o7777 && entry.mtime.nanos < 1_000_000_000);
            let mut end = 0;
            let read = reader.data(|offset, piece| {
                assert!(offset >= end, "a piece at {offset} after one that ends at {end}");
                end = offset + piece.len() as u64;
                Ok(())
            });
            assert!(end <= entry.size);
            if read.is_err() {
                break;
            }
        }
    }

    /// Compressed or not, of one part or many.
    fn blob(bytes) {
        if let Ok(decoder) = decode(bytes) {
            let _ = std::io::copy(&mut decoder.take(MAX_UNPACKED), &mut std::io::sink()); // an error is fine
        }
    }

    /// Layers as lines of text, `--` between them: the tree has each name once, below its parent and in the root.
    fn tree(bytes) {
        let text = text(bytes).replace('\0', ""); // the tar's names have none
        let layers: Vec<_> = text.split("--\n").map(index).collect();
        if let Ok(directories) = Tree::of(&layers).and_then(Tree::directories) {
            check_directories(&directories);
        }
    }

    /// A layer above one that is full of links outside: nothing outside is changed, and what is made is the tree.
    fn layer(bytes) {
        let bytes = with_checksums(bytes);
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "untouched").unwrap();
        let before = listed(&outside);
        let below = planted(&outside);
        let layers = [below, bytes].into_iter().enumerate().map(|(n, tar)| stage(home.path(), n, &tar));
        if let Ok(layers) = layers.collect::<crate::error::Result<Vec<_>>>() {
            let _ = rootfs(home.path(), &layers); // refused is fine
        }
        assert_eq!(listed(&outside), before);
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
        let names: HashSet<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.iter().all(|n| ["outside", "0", "1", "root"].iter().any(|known| n == known)), "{names:?}");
        open_up(home.path());
    }
}

/// The checksum of what looks like a header: hardly a change would get past it otherwise.
pub(super) fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    bytes
}

/// `d PATH`, `f PATH`, `l PATH -> TARGET`, `h PATH -> TARGET`, `n PATH`, a line each; whiteouts by their names.
fn index(lines: &str) -> Index {
    let change = |(number, line): (u64, &str)| {
        let (kind, rest) = line.split_once(' ')?;
        let (path, target) = rest.split_once(" -> ").unwrap_or((rest, ""));
        let what = match kind {
            "d" => What::Dir(Attributes::implicit()),
            "l" => What::Symlink { number, target: target.into() },
            "h" => What::HardLink { target: crate::layer::change::normal(target.as_bytes()).ok()? },
            "n" => What::Device,
            _ => What::File { number },
        };
        Some(match Name::parse(path.as_bytes()).ok()? {
            Name::Plain(path) => Change { path, what },
            Name::Whiteout(path) => Change { path, what: What::Whiteout },
            Name::Opaque(path) => Change { path, what: What::Opaque },
            Name::Ignored => return None,
        })
    };
    Index { changes: (0..).zip(lines.lines()).filter_map(change).collect(), bytes: 0 }
}

fn check_directories(directories: &[Directory]) {
    let mut seen = HashSet::new();
    for directory in directories {
        let path = &directory.path;
        assert!(path.len() <= MAX_PATH);
        assert_eq!(path.is_empty(), seen.is_empty(), "the root comes first");
        if let Some((parent, name)) = path.iter().rposition(|b| *b == b'/').map(|at| (&path[..at], &path[at + 1..])) {
            assert!(seen.contains(parent), "a directory before its parent");
            assert!(is_name(name));
        }
        assert!(seen.insert(path.clone()), "a directory twice");
    }
    for directory in directories {
        let mut names = HashSet::new();
        for (name, _) in &directory.files {
            let path =
                if directory.path.is_empty() { name.clone() } else { [&directory.path, &b"/"[..], name].concat() };
            assert!(is_name(name) && names.insert(name) && !seen.contains(&path));
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

/// A layer of links that lead outside, each in its way.
fn planted(outside: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |kind, path: &str, link: &Path| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_link(&mut header, path, link).unwrap();
    };
    let up = Path::new("../../../../../../../..").join(outside.strip_prefix("/").unwrap());
    add(tar::EntryType::Symlink, "abs", outside);
    add(tar::EntryType::Symlink, "up", &up);
    add(tar::EntryType::Symlink, "file", &outside.join("file"));
    add(tar::EntryType::Symlink, "self", Path::new("self"));
    add(tar::EntryType::Symlink, "proc", Path::new("/proc/self/cwd"));
    add(tar::EntryType::Symlink, "d/link", Path::new("../abs"));
    add(tar::EntryType::Link, "hard", Path::new("file"));
    tar.into_inner().unwrap()
}

/// Unpacks a layer into `HOME/NUMBER/files`.
fn stage(home: &Path, number: usize, tar: &[u8]) -> crate::error::Result<(Index, LayerFiles)> {
    let path = home.join(number.to_string());
    let files = path.join("files");
    fs::create_dir_all(&files).unwrap();
    let layer = Layer { digest: None, size: None, diff_id: Digest::of(tar) };
    let job = Job {
        counted: Counted::within(MAX_UNPACKED),
        umask: 0o022,
        stop: AtomicBool::new(false),
        timings: &Timings::new(false),
    };
    let unpacked = unpack(&layer, tar, &files, &job, &|_| ())?;
    let stored = unpacked.index.to_bytes()?;
    assert_eq!(Index::from_bytes(&stored)?, unpacked.index);
    Ok((unpacked.index, LayerFiles::open(&path)?))
}

fn rootfs(home: &Path, layers: &[(Index, LayerFiles)]) -> crate::error::Result<()> {
    let directories = Tree::of(layers.iter().map(|(index, _)| index))?.directories()?;
    check_directories(&directories);
    let files: Vec<_> = layers.iter().map(|(_, files)| files).collect();
    build_rootfs(&directories, &files, &home.join("root"), MAX_UNPACKED)?;
    Ok(())
}

/// Names and what `stat` says of them.
fn listed(dir: &Path) -> Vec<String> {
    let meta = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        let m = fs::symlink_metadata(path).unwrap();
        format!("{} {:o} {} {} {}.{}", path.display(), m.mode(), m.nlink(), m.size(), m.mtime(), m.mtime_nsec())
    };
    let inside = fs::read_dir(dir).unwrap().map(|entry| meta(&entry.unwrap().path()));
    std::iter::once(meta(dir)).chain(inside).collect()
}

/// Directories that are closed to their owner could not be removed.
fn open_up(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700)); // a path may be too long to name
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) && entry.path().as_os_str().as_bytes().len() < MAX_PATH {
            open_up(&entry.path());
        }
    }
}
