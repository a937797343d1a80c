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
use super::counted::{Counted, Share};
use super::decode::decode;
use super::pipe::{Passed, Reader, Writer, pipe};
use super::stage::Stage;
use super::tar::{self, Entry, Kind};
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Layer};
use crate::timings::Timings;

/// What all layers of one pull have in common while they are unpacked.
pub struct Job<'a> {
    /// What they have had so far.
    pub counted: Counted,
    /// The process's umask.
    pub umask: u32,
    /// Whether to give up.
    pub stop: AtomicBool,
    /// Where the time goes.
    pub timings: &'a Timings,
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

/// Unpacks a layer into an empty directory. `fetched` is told how many bytes of the blob have come in all.
pub fn unpack(
    layer: &Layer,
    blob: impl Read + Send,
    stage: &Path,
    job: &Job,
    fetched: &(dyn Fn(u64) + Sync),
) -> Result<Unpacked> {
    let (stage, share) = (Stage::open(stage, job.umask)?, Share::of(&job.counted));
    unpack_share(layer, blob, stage, job, &share, fetched).inspect_err(|_| share.give_back())
}

fn unpack_share(
    layer: &Layer,
    blob: impl Read + Send,
    stage: Stage,
    job: &Job,
    share: &Share,
    fetched: &(dyn Fn(u64) + Sync),
) -> Result<Unpacked> {
    let (to_inflate, [compressed]) = pipe();
    let (to_readers, [to_hash, to_write]) = pipe();
    let disk_failed = AtomicBool::new(false);
    let (fetched, inflated, diff_id, written) = thread::scope(|scope| {
        let fetch = scope.spawn(|| fetch(layer, job.timings.reader("fetch", blob), to_inflate, job, fetched));
        let inflate = scope
            .spawn(|| job.timings.measure("inflate", || inflate(compressed, to_readers, job, share, &disk_failed)));
        let hash = scope.spawn(|| job.timings.measure("hash", || hash(to_hash)));
        let write = scope.spawn(|| {
            let mut from = to_write; // dropped last: who hangs up has said why
            let written = job.timings.measure("write", || write(&mut from, stage, share));
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
fn fetch(layer: &Layer, mut blob: impl Read, mut to: Writer, job: &Job, fetched: &dyn Fn(u64)) -> Result<()> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    while !job.stop.load(Ordering::Relaxed) {
        let look = |bytes: &[u8]| job.timings.measure("hash", || hash.update(bytes));
        match to.pass(&mut blob, look).context(|| "fetch it")? {
            Passed::HungUp => return Ok(()),
            Passed::Bytes(0) => return verify(layer, size, Digest::from_hash(hash)),
            Passed::Bytes(n) => size += n as u64,
        }
        fetched(size);
        if layer.size.is_some_and(|said| size > said) {
            break;
        }
    }
    match job.stop.load(Ordering::Relaxed) {
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
fn inflate(mut from: Reader, mut to: Writer, job: &Job, share: &Share, disk_failed: &AtomicBool) -> Result<()> {
    let done = pass_inflated(&mut from, &mut to, job, share);
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

fn pass_inflated(from: &mut Reader, to: &mut Writer, job: &Job, share: &Share) -> Result<Ended> {
    let mut decoder = decode(from)?;
    loop {
        let size = match to.pass(&mut decoder, |_| {}).context(|| "inflate it")? {
            Passed::HungUp => return Ok(Ended::HungUp),
            Passed::Bytes(0) => return Ok(Ended::Whole),
            Passed::Bytes(n) => n as u64,
        };
        for phase in ["inflate", "hash", "write"] {
            job.timings.moved(phase, size);
        }
        share.bytes(size)?;
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

/// The digest of all that is left of it.
pub(crate) fn hash(mut from: impl BufRead) -> Result<Digest> {
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
fn write(from: &mut Reader, mut stage: Stage, share: &Share) -> Result<Unpacked> {
    let mut tar = tar::Reader::new(from);
    let (mut index, mut devices) = (Index::default(), 0);
    while let Some(entry) = tar.next()? {
        share.entry()?;
        let Some(change) = change(&entry, &mut stage, &mut tar, &mut index.bytes)? else { continue };
        devices += u64::from(change.what == What::Device);
        share.names(change.size())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar of so many empty files.
    fn files(many: usize) -> Vec<u8> {
        let mut tar = ::tar::Builder::new(Vec::new());
        for n in 0..many {
            tar.append_data(&mut ::tar::Header::new_gnu(), n.to_string(), &b""[..]).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn job(counted: Counted, timings: &Timings) -> Job<'_> {
        Job { counted, umask: 0o022, stop: AtomicBool::new(false), timings }
    }

    #[test]
    fn a_layer_of_too_many_entries_ends_at_the_cap() {
        let (stage, tar) = (tempfile::tempdir().unwrap(), files(5));
        let layer = Layer { digest: None, size: None, diff_id: Digest::of(&tar) };
        let timings = Timings::new(false);
        let job = job(Counted::new(1 << 20, 4, 100), &timings);
        let error = unpack(&layer, &tar[..], stage.path(), &job, &|_| {}).unwrap_err();
        assert_eq!(error.to_string(), "the image has more than 4 entries");
        assert_eq!(std::fs::read_dir(stage.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_layer_that_came_to_nothing_does_not_count() {
        let (stages, tar, timings) = ([(); 3].map(|()| tempfile::tempdir().unwrap()), files(5), Timings::new(false));
        let layer = |diff_id| Layer { digest: None, size: None, diff_id };
        let job = job(Counted::new(tar.len() as u64, 5, 5), &timings);
        let unpack = |diff_id, stage: usize| unpack(&layer(diff_id), &tar[..], stages[stage].path(), &job, &|_| {});
        let other = unpack(Digest::of(b"other"), 0).unwrap_err().to_string();
        assert!(other.contains("does not unpack to"), "{other}");
        assert_eq!(unpack(Digest::of(&tar), 1).unwrap().index.changes.len(), 5);
        let more = unpack(Digest::of(&tar), 2).unwrap_err().to_string();
        assert!(more.contains("more than"), "the second was counted: {more}");
    }
}
