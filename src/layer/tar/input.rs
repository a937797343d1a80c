//! What a tar is read from: bytes that can be passed over without being read.

#![allow(clippy::cast_possible_truncation)] // to usize, of numbers that were compared with a usize before

use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// What a tar is read from.
pub trait Input: BufRead {
    /// Passes over `n` bytes, all of which must be there.
    fn skip(&mut self, mut n: u64) -> io::Result<()> {
        while n > 0 {
            let have = self.fill_buf()?.len();
            if have == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = n.min(have as u64) as usize;
            self.consume(step);
            n -= step as u64;
        }
        Ok(())
    }
}

/// By seeking: an archive's index is read without its blobs. A file that ends early is noticed when the blob is read.
impl Input for BufReader<File> {
    fn skip(&mut self, n: u64) -> io::Result<()> {
        let n = i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.seek_relative(n)
    }
}

impl Input for &[u8] {}

impl<I: Input> Input for &mut I {}
