//! One layer, from its blob to its stage: fetched, hashed, inflated, hashed again and written, all at the same time.
//!
//! ```text
//! fetch: blob, size, digest ─▶ inflate ─┬▶ hash: diff id
//!                                       └▶ write: tar entries → changes, staged files
//! ```
//!
//! In: a blob's bytes, and what they must be. Out: [`Unpacked`], if both digests and the size are right; otherwise an
//! error, and a stage that nobody may use. Four threads for each layer, joined before this returns.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};

use sha2::{Digest as _, Sha256};

use super::change::{Attributes, Change, Index, Name, What, normal, shown};
use super::decode::decode;
use super::pipe::{Passed, Reader, Writer, pipe};
use super::stage::Stage;
use super::tar::{self, Entry, Kind};
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Layer};

/// The most entries that a layer may have.
const MAX_ENTRIES: usize = 10_000_000;

/// How a layer is unpacked.
pub struct Options {
    /// The most bytes that the tar may have.
    pub max_unpacked: u64,
    /// The process's umask.
    pub umask: u32,
}

/// What others see and say while a layer is unpacked.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Told how many bytes of the blob have come in all.
    pub fetched: &'a (dyn Fn(u64) + Sync),
    /// Whether to give up.
    pub stop: &'a AtomicBool,
}

/// A layer that was unpacked, and verified.
#[derive(Debug)]
pub struct Unpacked {
    /// What it does.
    pub index: Index,
    /// Device nodes that were left out.
    pub devices: u64,
    /// Extended attributes that the file system could not take.
    pub lost_xattrs: u64,
}

/// Unpacks a layer into an empty directory.
pub fn unpack(
    layer: &Layer,
    blob: impl Read + Send,
    stage: &Path,
    options: &Options,
    watch: Watch,
) -> Result<Unpacked> {
    let stage = Stage::open(stage, options.umask)?;
    let (to_inflate, [compressed]) = pipe();
    let (to_readers, [to_hash, to_write]) = pipe();
    let disk_failed = AtomicBool::new(false);
    let (fetched, inflated, diff_id, written) = thread::scope(|scope| {
        let fetch = scope.spawn(|| fetch(layer, blob, to_inflate, watch));
        let inflate = scope.spawn(|| inflate(compressed, to_readers, options.max_unpacked, &disk_failed));
        let hash = scope.spawn(|| hash(to_hash));
        let write = scope.spawn(|| {
            let mut from = to_write; // dropped last: who hangs up has said why
            let written = write(&mut from, stage);
            disk_failed.fetch_or(written.as_ref().is_err_and(|e| e.errno().is_some()), Ordering::Relaxed);
            written
        });
        (join(fetch), join(inflate), join(hash), join(write))
    });
    // A thread that failed ends the pipe of the one after it, whose complaint comes second.
    fetched.and(inflated)?;
    let unpacked = written?;
    match diff_id? == layer.diff_id {
        true => Ok(unpacked),
        false => Err(Error::new(format!("it does not unpack to {}, as the image's config says", layer.diff_id))),
    }
}

fn join<T>(thread: ScopedJoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Passes the blob on, and checks its size and digest.
fn fetch(layer: &Layer, mut blob: impl Read, mut to: Writer, watch: Watch) -> Result<()> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    while !watch.stop.load(Ordering::Relaxed) {
        match to.pass(&mut blob, |bytes| hash.update(bytes)).context(|| "fetch it")? {
            Passed::HungUp => return Ok(()),
            Passed::Bytes(0) => return verify(layer, size, Digest::from_hash(hash)),
            Passed::Bytes(n) => size += n as u64,
        }
        (watch.fetched)(size);
        if layer.size.is_some_and(|said| size > said) {
            break;
        }
    }
    match watch.stop.load(Ordering::Relaxed) {
        true => Err(Error::new("another layer failed")),
        false => verify(layer, size, Digest::from_hash(hash)),
    }
}

fn verify(layer: &Layer, size: u64, digest: Digest) -> Result<()> {
    match layer.size {
        Some(said) if size < said => Err(Error::new(format!("it ends after {size} bytes of {said}"))),
        Some(said) if size > said => Err(Error::new(format!("it is longer than the {said} bytes its manifest says"))),
        _ if layer.digest.is_some_and(|said| said != digest) => Err(Error::new(format!("its digest is {digest}"))),
        _ => Ok(()),
    }
}

/// Passes on what the blob inflates to.
fn inflate(mut from: Reader, mut to: Writer, max: u64, disk_failed: &AtomicBool) -> Result<()> {
    let done = pass_inflated(&mut from, &mut to, max);
    // Whether the blob was damaged on its way is told by the digest of all of it.
    match done {
        Ok(Ended::HungUp) if disk_failed.load(Ordering::Relaxed) => Ok(()),
        Ok(Ended::HungUp | Ended::Whole) => drain(&mut from).context(|| "read the rest of it"),
        Err(error) => drain(&mut from).context(|| "read the rest of it").and(Err(error)),
    }
}

enum Ended {
    Whole,
    HungUp,
}

fn pass_inflated(from: &mut Reader, to: &mut Writer, max: u64) -> Result<Ended> {
    let (mut decoder, mut size) = (decode(from)?, 0);
    loop {
        match to.pass(&mut decoder, |_| {}).context(|| "inflate it")? {
            Passed::HungUp => return Ok(Ended::HungUp),
            Passed::Bytes(0) => return Ok(Ended::Whole),
            Passed::Bytes(n) => size += n as u64,
        }
        if size > max {
            return Err(Error::new(format!("it unpacks to more than {max} bytes"))
                .hint("`--max-unpacked SIZE` sets what is allowed"));
        }
    }
}

fn drain(from: &mut Reader) -> io::Result<()> {
    loop {
        match from.fill_buf()?.len() {
            0 => return Ok(()),
            n => from.consume(n),
        }
    }
}

fn hash(mut from: Reader) -> Result<Digest> {
    let mut hash = Sha256::new();
    loop {
        match from.fill_buf().context(|| "hash it")? {
            [] => return Ok(Digest::from_hash(hash)),
            bytes => {
                hash.update(bytes);
                let n = bytes.len();
                from.consume(n);
            }
        }
    }
}

type Tar<'a> = tar::Reader<&'a mut Reader>;

/// Stages the files, and notes the changes.
fn write(from: &mut Reader, mut stage: Stage) -> Result<Unpacked> {
    let mut tar = tar::Reader::new(from);
    let (mut index, mut devices) = (Index::default(), 0);
    while let Some(entry) = tar.next()? {
        if index.changes.len() == MAX_ENTRIES {
            return Err(Error::new(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let Some(change) = change(&entry, &mut stage, &mut tar, &mut index.bytes)? else { continue };
        devices += u64::from(change.what == What::Device);
        index.changes.push(change);
    }
    drain(tar.into_input()).context(|| "read what follows the tar")?;
    Ok(Unpacked { index, devices, lost_xattrs: stage.lost_xattrs })
}

fn change(entry: &Entry, stage: &mut Stage, tar: &mut Tar, bytes: &mut u64) -> Result<Option<Change>> {
    let (path, what) = match Name::parse(&entry.path)? {
        Name::Ignored => return Ok(None),
        Name::Whiteout(path) => (path, What::Whiteout),
        Name::Opaque(path) => (path, What::Opaque),
        Name::Plain(path) => (path, staged(entry, stage, tar, bytes)?),
    };
    if path.is_empty() && !matches!(what, What::Dir(_) | What::Opaque) {
        return Err(Error::new(format!("entry `{}` would replace the root", shown(&entry.path))));
    }
    Ok(Some(Change { path, what }))
}

fn staged(entry: &Entry, stage: &mut Stage, tar: &mut Tar, bytes: &mut u64) -> Result<What> {
    Ok(match entry.kind {
        Kind::Dir => What::Dir(Attributes::of(entry)),
        Kind::File => {
            let (number, written) = stage.file(entry, tar)?;
            *bytes += written;
            What::File { number }
        }
        Kind::Fifo => What::File { number: stage.fifo(entry)? },
        Kind::Symlink => What::Symlink { number: stage.symlink(entry)?, target: entry.link.clone() },
        Kind::HardLink => What::HardLink { target: normal(&entry.link)? },
        Kind::CharDevice | Kind::BlockDevice => What::Device,
    })
}
