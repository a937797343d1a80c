//! A large blob in pieces, several of which are on their way at once.
//!
//! In: a digest, a size, and the first byte that is wanted. Out: a reader of the bytes in their order. One connection fetches
//! piece after piece; whenever the reader has to wait for one, another connection joins in, up to what the session spares.
//! What is ordered is bounded by them, so memory is too. A blob that is small, or whose registry has no ranges, is read as it
//! comes. The threads end with the reader.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::blob::Blob;
use super::session::Session;
use crate::error::{Error, Result};
use crate::image::Digest;

/// Bytes in a piece. Smaller ones cost a request more often, larger ones memory: one for each connection, and two for each
/// blob.
const PIECE: u64 = 4 << 20;

/// What is worth a second connection.
const LARGE: u64 = 8 * PIECE;

/// Opens a blob, from a byte on.
pub(super) fn open(session: &Arc<Session>, digest: Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>> {
    let wanted = if size.saturating_sub(from) < LARGE { from..size } else { from..from + PIECE };
    let first = Blob::open(Arc::clone(session), digest, size, wanted)?;
    if first.end() == size {
        return Ok(Box::new(first));
    }
    let blob = Arc::new(Whole { session: Arc::clone(session), digest, size, given_up: AtomicBool::new(false) });
    Ok(Box::new(Pieces::new(blob, first)))
}

/// What all threads of one blob know.
struct Whole {
    session: Arc<Session>,
    digest: Digest,
    size: u64,
    /// Whether nobody wants it any more.
    given_up: AtomicBool,
}

/// A piece that is to be fetched, and whoever waits for it.
struct Order {
    wanted: Range<u64>,
    /// What it is read into.
    buffer: Vec<u8>,
    to: SyncSender<Result<Vec<u8>>>,
}

/// The reader.
struct Pieces {
    blob: Arc<Whole>,
    /// Read by this thread; the others begin after it.
    first: Option<Blob>,
    /// The first byte that is not in an order.
    next: u64,
    /// Pieces on their way, in the order of the blob.
    ordered: VecDeque<Receiver<Result<Vec<u8>>>>,
    orders: Option<Sender<Order>>,
    /// The other end of `orders`, whoever is free.
    open_orders: Arc<Mutex<Receiver<Order>>>,
    fetchers: Vec<JoinHandle<()>>,
    piece: Vec<u8>,
    at: usize,
}

impl Pieces {
    fn new(blob: Arc<Whole>, first: Blob) -> Self {
        let (orders, open_orders) = channel();
        let mut pieces = Self {
            next: first.end(),
            first: Some(first),
            blob,
            ordered: VecDeque::new(),
            orders: Some(orders),
            open_orders: Arc::new(Mutex::new(open_orders)),
            fetchers: Vec::new(),
            piece: Vec::new(),
            at: 0,
        };
        pieces.add_fetcher();
        pieces
    }

    /// One more connection, with a piece to fetch and one to go on with.
    fn add_fetcher(&mut self) {
        let (blob, orders) = (Arc::clone(&self.blob), Arc::clone(&self.open_orders));
        self.fetchers.push(thread::spawn(move || fetch_all(&blob, &orders)));
        while self.ordered.len() <= self.fetchers.len() && self.next < self.blob.size {
            self.order(Vec::new());
        }
    }

    fn order(&mut self, buffer: Vec<u8>) {
        let wanted = self.next..self.blob.size.min(self.next + PIECE);
        self.next = wanted.end;
        let (to, piece) = sync_channel(1);
        if let Some(orders) = &self.orders {
            let _ = orders.send(Order { wanted, buffer, to }); // this value holds the other end
        }
        self.ordered.push_back(piece);
    }

    /// Takes the next piece, and orders one more; false at the end.
    fn advance(&mut self) -> Result<bool> {
        let Some(piece) = self.ordered.front() else { return Ok(false) };
        let arrived = match piece.try_recv() {
            Err(TryRecvError::Empty) => {
                if take_one(&self.blob.session.spare) {
                    self.add_fetcher();
                }
                self.ordered[0].recv()
            }
            Err(TryRecvError::Disconnected) => Err(std::sync::mpsc::RecvError),
            Ok(piece) => Ok(piece),
        };
        self.ordered.pop_front();
        let piece = arrived.map_err(|_| Error::new("whoever fetched it is gone"))??;
        let used = std::mem::replace(&mut self.piece, piece);
        self.at = 0;
        if self.next < self.blob.size {
            self.order(used);
        }
        Ok(true)
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(first) = &mut self.first {
            match first.read(buffer)? {
                0 => self.first = None,
                n => return Ok(n),
            }
        }
        if self.at == self.piece.len() && !self.advance().map_err(io::Error::other)? {
            return Ok(0);
        }
        let n = (&self.piece[self.at..]).read(buffer)?;
        self.at += n;
        Ok(n)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.blob.given_up.store(true, Ordering::Relaxed);
        self.orders = None;
        self.blob.session.spare.fetch_add(self.fetchers.len().saturating_sub(1), Ordering::Relaxed);
        for fetcher in self.fetchers.drain(..) {
            fetcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

/// Takes one of so many, if there is any left.
fn take_one(count: &std::sync::atomic::AtomicUsize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Fetches whatever is ordered, until nothing more will be.
fn fetch_all(blob: &Whole, orders: &Mutex<Receiver<Order>>) {
    let next = || orders.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(order) = next() {
        let piece = fetch(blob, order.wanted, order.buffer);
        let _ = order.to.send(piece); // a reader that is gone wants none
    }
}

fn fetch(blob: &Whole, wanted: Range<u64>, mut buffer: Vec<u8>) -> Result<Vec<u8>> {
    let length = usize::try_from(wanted.end - wanted.start).unwrap_or(usize::MAX);
    let mut source = Blob::open(Arc::clone(&blob.session), blob.digest, blob.size, wanted)?;
    buffer.resize(length, 0);
    let mut filled = 0;
    while filled < length && !blob.given_up.load(Ordering::Relaxed) {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) => return Err(Error::new("read a piece").because(e)),
        }
    }
    match filled == length {
        true => Ok(buffer),
        false => Err(Error::new(format!("it ends after {filled} bytes of a piece"))),
    }
}
