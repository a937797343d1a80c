//! Which failures pass by themselves, and how long to wait for that.
//!
//! In: a step that may fail for a while. Out: its result, or the error of its last try. Everything but [`run`] and
//! [`pause`] is pure.

use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use super::Notice;
use crate::error::{Error, Result};

/// How often a step is tried in all.
pub(super) const TRIES: u32 = 5;
/// The first wait; each following one is twice as long.
const FIRST: Duration = Duration::from_millis(300);
/// The longest wait that a registry may ask for: beyond it, the user decides.
const LONGEST: Duration = Duration::from_mins(1);

const TLS_HINT: &str = "an authority of your own is trusted through ~/.config/containers/certs.d/HOST:PORT/ca.crt or \
                        SSL_CERT_FILE; a registry without TLS needs --plain-http";

/// A failed step, and whether it is worth another try.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) again: Again,
}

/// When a failed step may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It would fail the same way.
    Never,
    /// After a wait of our choice.
    Soon,
    /// After a wait of the registry's choice.
    After(Duration),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: Again::Never }
    }
}

impl Failure {
    /// A failure that is likely to pass.
    pub(super) fn passing(error: Error) -> Self {
        Self { error, again: Again::Soon }
    }

    /// A request that got no answer. A name that is not known, a port that nobody listens on and a failed TLS
    /// handshake stay so; a host that does not answer has been waited for long enough.
    pub(super) fn transport(what: String, error: ureq::Error) -> Self {
        use ureq::{Error as E, Timeout};
        let again = match &error {
            E::Io(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::InvalidData) => Again::Never,
            E::Io(e) if is_unknown_name(e) => Again::Never,
            E::Timeout(Timeout::Connect | Timeout::Resolve) => Again::Never,
            E::Io(_) | E::Timeout(_) | E::Protocol(_) | E::ConnectionFailed | E::BodyStalled => Again::Soon,
            _ => Again::Never,
        };
        let tls = matches!(&error, E::Io(e) if e.kind() == ErrorKind::InvalidData);
        let error = Error::new(what).because(error.into_io());
        let error = if tls { error.hint(TLS_HINT) } else { error };
        Self { error, again }
    }

    /// The same failure, as a part of a larger step.
    pub(super) fn within(self, what: String) -> Self {
        Self { error: Error::new(what).because(self.error), ..self }
    }

    /// How long to wait before the next try, after `tries` of them; the error if there is to be none.
    pub(super) fn wait(self, tries: u32, jitter: f64) -> Result<(Duration, Error)> {
        match self.again {
            Again::Soon | Again::After(_) if tries >= TRIES => Err(self.error),
            Again::Never => Err(self.error),
            Again::Soon => Ok((backoff(tries, jitter), self.error)),
            Again::After(wait) if wait > LONGEST => {
                Err(self.error.hint(format!("it asks to try again in {} s", wait.as_secs())))
            }
            Again::After(wait) => Ok((wait + FIRST.mul_f64(jitter), self.error)),
        }
    }
}

/// Whether the resolver is sure that there is no such host; the standard library passes only its words on (EAI_NONAME and
/// EAI_NODATA of gai_strerror(3), of glibc and of musl).
fn is_unknown_name(error: &std::io::Error) -> bool {
    const GLIBC: [&str; 2] = ["Name or service not known", "No address associated with hostname"];
    const MUSL: [&str; 2] = ["Name does not resolve", "Name has no usable address"];
    let said = error.to_string();
    GLIBC.iter().chain(&MUSL).any(|words| said.contains(words))
}

/// Twice as long each time, and somewhere between half and all of that, so that many clients do not come back at once.
fn backoff(tries: u32, jitter: f64) -> Duration {
    FIRST.mul_f64(f64::from(1_u32 << (tries - 1).min(8)) * (0.5 + jitter / 2.0)).min(LONGEST)
}

/// Tries a step until it succeeds or is not worth another try.
pub(super) fn run<T>(notice: &Notice, mut step: impl FnMut() -> Result<T, Failure>) -> Result<T> {
    let mut tries = 1;
    loop {
        match step() {
            Ok(done) => return Ok(done),
            Err(failure) => pause(notice, failure, tries)?,
        }
        tries += 1;
    }
}

/// Waits before the next try, having said so, or gives the error back.
pub(super) fn pause(notice: &Notice, failure: Failure, tries: u32) -> Result<()> {
    let (wait, error) = failure.wait(tries, random())?;
    notice(&format!("{error:#}; trying again in {:.1} s", wait.as_secs_f64()));
    std::thread::sleep(wait);
    Ok(())
}

/// A number in 0..1; the standard library's only randomness is in its hash maps' keys.
#[allow(clippy::cast_precision_loss)] // 32 bits are kept
fn random() -> f64 {
    (RandomState::new().hash_one(0) >> 32) as f64 / f64::from(u32::MAX)
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(http_date(value.trim())?.duration_since(now).unwrap_or_default()),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7); the two obsolete forms are not written any more.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let [_, day, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|m| *m == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = time.split(':').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let ([hours, minutes, seconds], 1970..=9999, 1..=31) = (&clock[..], year, day) else { return None };
    // Days since 1970, the year beginning in March: https://howardhinnant.github.io/date_algorithms.html
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let of_day = hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(*seconds)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + of_day.min(86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let wait =
            |again, tries, jitter| Failure { error: Error::new("x"), again }.wait(tries, jitter).ok().map(|w| w.0);
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(wait(Again::Soon, 1, 0.0), ms(150));
        assert_eq!(wait(Again::Soon, 1, 1.0), ms(300));
        assert_eq!(wait(Again::Soon, 4, 1.0), ms(2400));
        assert_eq!(wait(Again::Soon, TRIES, 0.0), None);
        assert_eq!(wait(Again::Never, 1, 0.0), None);
        assert_eq!(wait(Again::After(Duration::from_mins(1)), 1, 0.0), ms(60_000));
        assert_eq!(wait(Again::After(Duration::from_secs(61)), 1, 0.0), None);
        assert_eq!(wait(Again::After(Duration::ZERO), TRIES, 0.0), None);
        assert_eq!(backoff(99, 1.0), LONGEST);
    }

    #[test]
    fn a_name_that_nobody_knows_stays_so() {
        for (said, again) in
            [("Name or service not known", Again::Never), ("Temporary failure in name resolution", Again::Soon)]
        {
            let error = std::io::Error::other(format!("failed to lookup address information: {said}"));
            assert_eq!(Failure::transport("get".into(), ureq::Error::Io(error)).again, again, "{said}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 5);
        for (value, want) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(5)),
            ("Sun, 06 Nov 1993 08:49:37 GMT", Some(0)),
            ("Thu, 29 Feb 1996 00:00:00 GMT", Some(825_552_000 - 784_111_777 + 5)),
            ("Sun, 06 Nov 1994 99999999999999999999:49:37 GMT", None),
            ("Sun, 06 Nov 1994 1:2 GMT", None),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(value, now).map(|d| d.as_secs()), want, "{value}");
        }
    }

    #[test]
    fn jitter_stays_in_its_range() {
        assert!((0..100).map(|_| random()).all(|r| (0.0..=1.0).contains(&r)));
    }
}
