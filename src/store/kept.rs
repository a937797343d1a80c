//! What has come of a blob from far, kept until its layer is whole: the next pull goes on where this one was cut.
//!
//! In: the bytes as they come. Out: the same bytes, perhaps in a later process or after another boot. They need not be trusted:
//! whoever reads them hashes them together with the rest, and the name of a blob is its digest. That is why no `If-Range` is sent
//! for the rest either.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lock::Lock;
use super::{Store, entries};
use crate::error::{Context, Result};
use crate::image::Digest;

/// How long nobody may go on with what was kept.
const FORGOTTEN: Duration = Duration::from_hours(7 * 24);

/// How many times what comes must find room: once as it is, and unpacked, which is three times as much as a rule.
const ROOM: u64 = 5;

/// The bytes of one blob, as far as they have come.
#[derive(Debug)]
pub struct Kept {
    file: File,
    path: PathBuf,
    size: u64,
    _lock: Lock,
}

impl Store {
    /// What is kept of a blob of `size` bytes; none if another pull is fetching it, or the disk's room is needed for the
    /// files.
    pub fn kept(&self, blob: &Digest, size: u64) -> Result<Option<Kept>> {
        let path = self.kept_path(blob);
        if self.free()? / ROOM < size.saturating_sub(self.kept_size(blob)) {
            self.forget(blob)?;
            return Ok(None);
        }
        let what = || format!("open `{}`", path.display());
        let open = || File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        drop(open().context(what)?);
        let Some(lock) = Lock::try_exclusive(&path)? else { return Ok(None) };
        let file = open().context(what)?;
        let size = file.metadata().context(what)?.len();
        Ok(Some(Kept { file, size, path, _lock: lock }))
    }

    /// Bytes of a blob that need not be fetched.
    pub fn kept_size(&self, blob: &Digest) -> u64 {
        std::fs::metadata(self.kept_path(blob)).map_or(0, |meta| meta.len())
    }

    /// Takes away what is kept of a blob, unless another pull is fetching it.
    pub fn forget(&self, blob: &Digest) -> Result<()> {
        remove_unlocked(&self.kept_path(blob))
    }

    /// Takes away what was kept so long ago that nobody will go on with it.
    pub(super) fn forget_old(&self) -> Result<()> {
        let all = entries(&self.root.join("kept"))?;
        all.iter().filter(|path| is_forgotten(path)).try_for_each(|path| remove_unlocked(path))
    }

    /// Takes away all that is kept. The caller has the store's lock, so that nobody pulls.
    pub(super) fn forget_all(&self) -> Result<()> {
        entries(&self.root.join("kept"))?.iter().try_for_each(|path| remove_unlocked(path))
    }

    fn kept_path(&self, blob: &Digest) -> PathBuf {
        self.root.join("kept").join(blob.hex())
    }
}

/// Whether it was changed so long ago that nobody will go on with it.
pub(super) fn is_forgotten(path: &Path) -> bool {
    let modified = std::fs::metadata(path).and_then(|meta| meta.modified());
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > FORGOTTEN))
}

fn remove_unlocked(path: &Path) -> Result<()> {
    let Some(_lock) = Lock::try_exclusive(path)? else { return Ok(()) };
    super::remove::remove_file(path)
}

impl Kept {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.size)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// With nothing in it.
    fn emptied(mut self) -> Option<Self> {
        self.size = 0;
        self.file.set_len(0).is_ok().then_some(self)
    }

    fn discard(self) -> Result<()> {
        super::remove::remove_file(&self.path)
    }
}

/// Gives the bytes of a blob from this one on.
type Rest<'a> = &'a (dyn Fn(u64) -> Result<Box<dyn Read + Send>> + Sync);

/// A blob from far: first what is kept of it, then the rest, which is kept as it comes.
pub struct Resumed<'a> {
    kept: Option<Kept>,
    /// Bytes that were kept before.
    had: u64,
    size: u64,
    at: u64,
    rest: Rest<'a>,
    open: Option<Box<dyn Read + Send>>,
    cut: bool,
}

impl<'a> Resumed<'a> {
    /// A blob of `size` bytes, from its start.
    pub fn new(kept: Option<Kept>, size: u64, rest: Rest<'a>) -> Self {
        let kept = kept.and_then(|kept| if kept.size > size { kept.emptied() } else { Some(kept) });
        let had = kept.as_ref().map_or(0, |kept| kept.size);
        Self { kept, had, size, at: 0, rest, open: None, cut: false }
    }

    /// Bytes that were kept before.
    pub fn had(&self) -> u64 {
        self.had
    }

    /// Whether its source ended before it did.
    pub fn was_cut(&self) -> bool {
        self.cut
    }

    /// The same blob from its start, with nothing kept.
    #[must_use]
    pub fn restarted(self) -> Self {
        Self::new(self.kept.and_then(Kept::emptied), self.size, self.rest)
    }

    /// Takes away what is kept.
    pub fn discard(self) -> Result<()> {
        self.kept.map_or(Ok(()), Kept::discard)
    }

    fn read_kept(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(kept) = self.kept.as_ref().filter(|_| self.at < self.had) else { return Ok(0) };
        let most = usize::try_from(self.had - self.at).unwrap_or(usize::MAX).min(buffer.len());
        kept.file.read_at(&mut buffer[..most], self.at)
    }

    fn read_rest(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.size {
            return Ok(0);
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert((self.rest)(self.at).map_err(io::Error::other)?),
        };
        open.read(buffer)
    }

    /// A disk that cannot take it, for it is full perhaps, is needed for the files.
    fn keep(&mut self, bytes: &[u8]) {
        if self.kept.as_mut().is_some_and(|kept| kept.append(bytes).is_err()) {
            let _ = self.kept.take().map(Kept::discard);
        }
    }
}

impl Read for Resumed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut n = self.read_kept(buffer)?;
        if n == 0 {
            n = self.read_rest(buffer).inspect_err(|e| self.cut |= e.kind() != io::ErrorKind::Interrupted)?;
            self.keep(&buffer[..n]);
        }
        self.at += n as u64;
        Ok(n)
    }
}
