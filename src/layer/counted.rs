//! What the layers of one pull have in all, and may have: pure.
//!
//! In: bytes, entries and names as they come, from the threads of all layers. Out: an error at the first that is too many.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::change::{Change, Index};
use crate::error::{Error, Result};

/// The most entries that the layers of one pull may have.
const MAX_ENTRIES: usize = 10_000_000;

/// The most bytes that their names and directories' attributes may have: they are in memory all at once.
const MAX_NAMES: usize = 512 << 20;

/// Bytes of tars, entries and bytes of names, and how many there may be.
pub struct Counted {
    bytes: AtomicU64,
    entries: AtomicUsize,
    names: AtomicUsize,
    max_bytes: u64,
    max_entries: usize,
    max_names: usize,
}

impl Counted {
    /// Nothing so far. The tars of the layers that are unpacked may have `max_unpacked` bytes.
    pub fn within(max_unpacked: u64) -> Self {
        Self::new(max_unpacked, MAX_ENTRIES, MAX_NAMES)
    }

    pub(super) fn new(max_bytes: u64, max_entries: usize, max_names: usize) -> Self {
        let (bytes, entries, names) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { bytes, entries, names, max_bytes, max_entries, max_names }
    }

    /// A layer that was unpacked before: its names are in memory as those of others are.
    pub fn whole(&self, index: &Index) -> Result<()> {
        self.entries(index.changes.len())?;
        self.names(index.changes.iter().map(Change::size).sum())
    }

    fn bytes(&self, more: u64) -> Result<()> {
        match self.bytes.fetch_add(more, Ordering::Relaxed) + more > self.max_bytes {
            true => Err(Error::new(format!("the image unpacks to more than {} bytes", self.max_bytes))
                .hint("`--max-unpacked SIZE` sets what is allowed")),
            false => Ok(()),
        }
    }

    fn entries(&self, more: usize) -> Result<()> {
        match self.entries.fetch_add(more, Ordering::Relaxed) + more > self.max_entries {
            true => Err(Error::new(format!("the image has more than {} entries", self.max_entries))),
            false => Ok(()),
        }
    }

    fn names(&self, more: usize) -> Result<()> {
        match self.names.fetch_add(more, Ordering::Relaxed) + more > self.max_names {
            true => Err(Error::new(format!("the names of its files have more than {} bytes", self.max_names))),
            false => Ok(()),
        }
    }
}

/// What one layer has had so far. It counts for nothing if nothing comes of it: the layer may be unpacked again.
pub(super) struct Share<'a> {
    all: &'a Counted,
    bytes: AtomicU64,
    entries: AtomicUsize,
    names: AtomicUsize,
}

impl<'a> Share<'a> {
    /// Nothing so far.
    pub(super) fn of(all: &'a Counted) -> Self {
        Self { all, bytes: AtomicU64::new(0), entries: AtomicUsize::new(0), names: AtomicUsize::new(0) }
    }

    /// So many more bytes of its tar.
    pub(super) fn bytes(&self, more: u64) -> Result<()> {
        self.bytes.fetch_add(more, Ordering::Relaxed);
        self.all.bytes(more)
    }

    /// One more entry, which is not staged yet.
    pub(super) fn entry(&self) -> Result<()> {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.all.entries(1)
    }

    /// So many more bytes of names.
    pub(super) fn names(&self, more: usize) -> Result<()> {
        self.names.fetch_add(more, Ordering::Relaxed);
        self.all.names(more)
    }

    /// Nothing has come of it.
    pub(super) fn give_back(&self) {
        self.all.bytes.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.all.entries.fetch_sub(self.entries.load(Ordering::Relaxed), Ordering::Relaxed);
        self.all.names.fetch_sub(self.names.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::change::What;

    #[test]
    fn entries_and_their_names_are_counted() {
        let all = Counted::new(0, 2, 10);
        let share = Share::of(&all);
        assert!(share.entry().is_ok() && share.names(10).is_ok() && share.entry().is_ok());
        assert_eq!(share.entry().unwrap_err().to_string(), "the image has more than 2 entries");
        assert_eq!(share.names(1).unwrap_err().to_string(), "the names of its files have more than 10 bytes");
        share.give_back();
        let changes = ["long", "longer"].map(|path| Change { path: path.into(), what: What::Device }).into();
        let index = Index { changes, bytes: 0 };
        assert!(all.whole(&index).is_ok());
        assert_eq!(all.whole(&index).unwrap_err().to_string(), "the image has more than 2 entries");
    }
}
