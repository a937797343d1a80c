//! Bounded pipes between the threads that unpack a layer: chunks of bytes, shared by all who read them, used again.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::tar::Input;

/// Bytes in a chunk: small enough to stay in a core's cache from one thread to the next.
const CHUNK: usize = 128 << 10;

/// Chunks that may wait in a pipe.
const DEPTH: usize = 8;

/// The writing end, for any number of readers, each of which gets every chunk.
pub(super) struct Writer {
    readers: Vec<SyncSender<Arc<Vec<u8>>>>,
    pool: Vec<Arc<Vec<u8>>>,
}

/// One reading end. It ends where the writer was dropped.
pub(super) struct Reader {
    chunks: Receiver<Arc<Vec<u8>>>,
    chunk: Arc<Vec<u8>>,
    at: usize,
}

/// A pipe with `N` reading ends.
pub(super) fn pipe<const N: usize>() -> (Writer, [Reader; N]) {
    let mut readers = Vec::with_capacity(N);
    let ends = std::array::from_fn(|_| {
        let (sender, chunks) = sync_channel(DEPTH);
        readers.push(sender);
        Reader { chunks, chunk: Arc::default(), at: 0 }
    });
    (Writer { readers, pool: Vec::new() }, ends)
}

/// What came of passing on a chunk.
pub(super) enum Passed {
    /// So many bytes went to every reader; 0 at the end.
    Bytes(usize),
    /// A reader is gone: it failed, and says why itself.
    HungUp,
}

impl Writer {
    /// Fills one chunk from `source`, shows it to `look`, and passes it on.
    pub(super) fn pass(&mut self, source: &mut dyn Read, look: impl FnOnce(&[u8])) -> io::Result<Passed> {
        let mut chunk = self.free_chunk();
        let buffer = Arc::get_mut(&mut chunk).expect("a free chunk has no other owner");
        let filled = fill(buffer, source)?;
        look(&buffer[..filled]);
        buffer.truncate(filled);
        if filled == 0 {
            return Ok(Passed::Bytes(0));
        }
        self.pool.push(Arc::clone(&chunk));
        let all = self.readers.iter().all(|reader| reader.send(Arc::clone(&chunk)).is_ok());
        Ok(if all { Passed::Bytes(filled) } else { Passed::HungUp })
    }

    /// A chunk that every reader is done with. The pipes' depth bounds how many there can be.
    fn free_chunk(&mut self) -> Arc<Vec<u8>> {
        let free = self.pool.iter_mut().position(|chunk| Arc::get_mut(chunk).is_some());
        free.map_or_else(|| Arc::new(Vec::with_capacity(CHUNK)), |i| self.pool.swap_remove(i))
    }
}

/// Reads until the chunk is full or the source ends: what comes in small pieces goes on in large ones.
fn fill(buffer: &mut Vec<u8>, source: &mut dyn Read) -> io::Result<usize> {
    buffer.resize(CHUNK, 0);
    let mut filled = 0;
    while filled < CHUNK {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            self.chunk = self.chunks.recv().unwrap_or_default();
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl Input for Reader {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_gets_every_byte_and_chunks_are_used_again() {
        let bytes: Vec<u8> = (0..=250).cycle().take(CHUNK * 40 + 5).collect();
        let (mut writer, ends) = pipe::<2>();
        let (sent, pooled, received) = std::thread::scope(|scope| {
            let readers = ends.map(|mut end| {
                scope.spawn(move || {
                    let mut all = Vec::new();
                    end.read_to_end(&mut all).map(|_| all)
                })
            });
            let mut source = &bytes[..];
            let mut sent = 0;
            while let Passed::Bytes(n @ 1..) = writer.pass(&mut source, |_| {}).unwrap() {
                sent += n;
            }
            let pooled = writer.pool.len();
            drop(writer);
            (sent, pooled, readers.map(|r| r.join().unwrap().unwrap()))
        });
        assert_eq!(sent, bytes.len());
        assert!(pooled <= 2 * (DEPTH + 2), "{pooled} chunks");
        assert!(received.iter().all(|r| *r == bytes));
    }

    #[test]
    fn a_reader_that_is_gone_is_noticed() {
        let (mut writer, [reader]) = pipe();
        drop(reader);
        assert!(matches!(writer.pass(&mut &b"x"[..], |_| {}).unwrap(), Passed::HungUp));
    }
}
