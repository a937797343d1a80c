//! A blob's bytes, whatever happens to the connection: what is read from it goes on where it broke.
//!
//! In: a digest, a size, and which of the bytes are wanted. Out: a reader of exactly those, or an error. The digest is verified by whoever
//! reads, who has to hash the bytes anyway.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::sync::Arc;

use ureq::http::{Response, header};
use ureq::{Body, BodyReader};

use super::http::text;
use super::retry::{self, Failure};
use super::session::Session;
use crate::error::{Context, Error, Result};
use crate::image::Digest;

/// So many bytes between two broken connections make the second one the first of its kind again.
const PROGRESS: u64 = 1 << 20;

/// A blob that is being read.
pub(super) struct Blob {
    session: Arc<Session>,
    digest: Digest,
    size: u64,
    at: u64,
    /// Where what is wanted ends.
    end: u64,
    body: Bytes,
    /// How often the connection broke without [`PROGRESS`] in between, and where it last did.
    breaks: u32,
    broke_at: u64,
}

/// The bytes that one connection gives.
struct Bytes {
    reader: BodyReader<'static>,
    /// Whether their end is known without waiting for the connection's.
    delimited: bool,
    /// Whether they are those that were asked for, and not the whole blob.
    partial: bool,
}

impl Blob {
    /// Asks for bytes of the blob, which follow as they are read. A registry without ranges gives all that come after the first.
    pub(super) fn open(session: Arc<Session>, digest: Digest, size: u64, wanted: Range<u64>) -> Result<Self> {
        let body = body(&session, &digest, size, &wanted)?;
        let end = if body.partial { wanted.end } else { size };
        Ok(Self { session, digest, size, at: wanted.start, end, body, breaks: 0, broke_at: 0 })
    }

    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The connection broke: waits, and goes on at the same byte.
    fn reopen(&mut self, cause: io::Error) -> Result<()> {
        if self.at - self.broke_at >= PROGRESS {
            self.breaks = 0;
        }
        (self.breaks, self.broke_at) = (self.breaks + 1, self.at);
        let Self { digest, size, at, end, .. } = self;
        let error = Error::new(format!("read {digest} of `{}` at byte {at} of {size}", self.session.name()));
        retry::pause(&self.session.notice, Failure::passing(error.because(cause)), self.breaks)?;
        self.body = body(&self.session, digest, *size, &(*at..*end))?;
        Ok(())
    }

    /// Takes note of bytes that were read. The end of the body has to be read as well for the connection to be used
    /// again.
    fn advance(&mut self, n: usize) -> usize {
        self.at += n as u64;
        if self.at == self.end && self.body.delimited {
            let _ = self.body.reader.read(&mut [0]);
        }
        n
    }
}

impl Read for Blob {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        if left == 0 {
            return Ok(0);
        }
        loop {
            let cause = match self.body.reader.read(&mut buf[..left]) {
                Ok(0) => io::Error::new(ErrorKind::UnexpectedEof, "the connection ended"),
                Ok(n) => return Ok(self.advance(n)),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => e,
            };
            self.reopen(cause).map_err(io::Error::other)?;
        }
    }
}

/// The part of the blob's body that is wanted, and perhaps what follows.
fn body(session: &Session, digest: &Digest, size: u64, wanted: &Range<u64>) -> Result<Bytes> {
    let path = format!("blobs/{digest}");
    let (from, until) = (wanted.start, Some(wanted.end).filter(|end| *end < size));
    let what = || format!("get {digest} of `{}`", session.name());
    retry::run(&session.notice, || {
        let response = session.get(&path, None, from, until)?;
        let answer = Answer::of(&response);
        let (skip, partial) = (to_skip(&answer, from, size).context(what)?, answer.partial);
        let delimited = response.body().content_length().is_some();
        let mut reader = response.into_body().into_reader();
        let skipped = io::copy(&mut reader.by_ref().take(skip), &mut io::sink()).context(what);
        match skipped.map_err(Failure::passing)? == skip {
            true => Ok(Bytes { reader, delimited, partial }),
            false => Err(Failure::passing(Error::new(format!("the connection ended before byte {from}")))),
        }
    })
}

/// What an answer says about the bytes in it.
#[derive(Clone, Copy)]
struct Answer<'a> {
    partial: bool,
    content_range: Option<&'a str>,
    length: Option<u64>,
}

impl<'a> Answer<'a> {
    fn of(response: &'a Response<Body>) -> Self {
        Self {
            partial: response.status().as_u16() == 206,
            content_range: text(response.headers(), header::CONTENT_RANGE.as_str()),
            length: response.body().content_length(),
        }
    }
}

/// How many bytes of the answer come before byte `from`: none of a part that begins there, all before it of a whole
/// blob. Refuses a blob of another size, and a part that begins elsewhere: its bytes would end up in the wrong place.
fn to_skip(answer: &Answer, from: u64, size: u64) -> Result<u64> {
    let (start, total) = match (answer.partial, answer.content_range.map(content_range)) {
        (false, _) => (0, answer.length),
        (true, Some(Some((start, total)))) if start == from => (start, total),
        (true, _) => {
            let said = answer.content_range.unwrap_or("nothing").escape_debug();
            return Err(Error::new(format!("it was asked for the bytes from {from} on, and gave `{said}`")));
        }
    };
    match total {
        Some(total) if total != size => Err(Error::new(format!("it has {total} bytes instead of {size}"))),
        _ => Ok(from - start),
    }
}

/// `bytes FIRST-LAST/TOTAL`, the total perhaps `*` (RFC 9110, 14.4): the first byte and the total.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    (first <= last).then_some((first, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        for (value, want) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("items 5-9/10", None),
            ("bytes 5-9", None),
            ("bytes -5-9/10", None),
        ] {
            assert_eq!(content_range(value), want, "{value}");
        }
    }

    #[test]
    fn bytes_go_where_they_belong_or_nowhere() {
        let whole = |length| Answer { partial: false, content_range: None, length };
        let part = |range| Answer { partial: true, content_range: range, length: None };
        for (answer, from, want) in [
            (whole(Some(10)), 0, Some(0)),
            (whole(None), 4, Some(4)),
            (whole(Some(10)), 4, Some(4)),
            (whole(Some(9)), 0, None),
            (whole(Some(11)), 4, None),
            (part(Some("bytes 4-9/10")), 4, Some(0)),
            (part(Some("bytes 4-9/*")), 4, Some(0)),
            (part(Some("bytes 4-9/11")), 4, None),
            (part(Some("bytes 3-9/10")), 4, None),
            (part(Some("bytes 5-9/10")), 4, None),
            (part(None), 4, None),
        ] {
            assert_eq!(to_skip(&answer, from, 10).ok(), want);
        }
    }
}
