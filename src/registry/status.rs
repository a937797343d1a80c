//! An answer that is not the content → one sentence, what the user can do, and whether to try again: pure.

use std::time::Duration;

use serde::Deserialize;
use ureq::http::StatusCode;

use super::retry::{Again, Failure};
use crate::error::Error;

/// As whom a registry was asked, for messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// As nobody: these places know no credentials for it.
    Nobody {
        /// For reading.
        places: String,
    },
    /// With this credential, as it is shown.
    With(String),
    /// As nobody, whatever is known: a redirect led there.
    Redirected,
}

/// An answer of a registry or of its token server.
pub(super) struct Refusal<'a> {
    pub(super) status: StatusCode,
    /// Who answered.
    pub(super) host: &'a str,
    /// What was asked for.
    pub(super) subject: &'a str,
    /// As whom.
    pub(super) asker: &'a Asker,
    pub(super) retry_after: Option<Duration>,
    /// The beginning of the body.
    pub(super) body: &'a [u8],
}

impl Refusal<'_> {
    /// The failure that this answer is.
    pub(super) fn failure(&self) -> Failure {
        let error = self.hinted(Error::new(self.sentence()));
        let error = match said(self.body) {
            Some(said) => error.because(Error::new(said)),
            None => error,
        };
        let passing = self.status == StatusCode::TOO_MANY_REQUESTS || self.status.is_server_error();
        let again = match (passing, self.retry_after) {
            (false, _) => Again::Never,
            (true, Some(wait)) => Again::After(wait),
            (true, None) => Again::Soon,
        };
        Failure { error, again }
    }

    fn sentence(&self) -> String {
        let Self { status, host, subject, asker, .. } = self;
        match (status.as_u16(), asker) {
            (401, Asker::With(who)) => format!("{host} refuses {who} for {subject} ({status})"),
            (403, Asker::With(who)) => format!("{host} forbids access to {subject} with {who} ({status})"),
            (401, Asker::Nobody { .. }) => {
                format!("{host} gives out {subject} only after a login, or it does not exist ({status})")
            }
            (403, Asker::Nobody { .. }) => format!("{host} forbids access to {subject} ({status})"),
            (404, _) => format!("{host} has no {subject} ({status})"),
            (429, _) => format!("{host} allows no more requests for now, and none for {subject} ({status})"),
            (500.., _) => format!("{host} failed to answer for {subject} ({status})"),
            _ => format!("{host} did not give {subject}: it answered {status}"),
        }
    }

    fn hinted(&self, error: Error) -> Error {
        match (self.status.as_u16(), self.asker) {
            (401 | 403, Asker::Nobody { places }) => {
                let none = if places.is_empty() { String::new() } else { format!("; none fit it in {places}") };
                error
                    .hint(format!("check the name; gpurun asked without credentials, which a private image needs{none}"))
                    .hint("`gpurun login REGISTRY` stores some; an image copied to `oci:DIR` or `docker-archive:FILE` needs none")
            }
            (401, Asker::With(_)) => error.hint("`gpurun login REGISTRY` stores others, `gpurun logout REGISTRY` none"),
            (403, Asker::With(_)) => error.hint("check the name, and whether this account may read it"),
            (404, Asker::Nobody { .. } | Asker::With(_)) => {
                error.hint("check the image's name and tag; some registries say so of what an account may not see")
            }
            (429, _) => error.hint("try again later, or use a mirror or a copy of the image"),
            _ => error,
        }
    }
}

/// The registry's own words (distribution-spec, "Error Codes"; token servers use `details`), fit for a terminal.
fn said(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        details: Option<String>,
    }
    #[derive(Deserialize)]
    struct Entry {
        code: Option<String>,
        message: Option<String>,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let first = body.errors.into_iter().next().and_then(|e| e.message.filter(|m| !m.is_empty()).or(e.code));
    let said = first.or(body.details)?;
    Some(said.chars().take(200).flat_map(char::escape_debug).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, retry_after: Option<Duration>, body: &str) -> Failure {
        failure_as(&Asker::Nobody { places: "`f`".into() }, status, retry_after, body)
    }

    fn failure_as(asker: &Asker, status: u16, retry_after: Option<Duration>, body: &str) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        Refusal { status, host: "h", subject: "`a:b`", asker, retry_after, body: body.as_bytes() }.failure()
    }

    #[test]
    fn each_status_has_its_sentence() {
        for (status, want, hints, again) in [
            (401, "h gives out `a:b` only after a login, or it does not exist (401 Unauthorized)", 2, Again::Never),
            (403, "h forbids access to `a:b` (403 Forbidden)", 2, Again::Never),
            (404, "h has no `a:b` (404 Not Found)", 1, Again::Never),
            (416, "h did not give `a:b`: it answered 416 Range Not Satisfiable", 0, Again::Never),
            (429, "h allows no more requests for now, and none for `a:b` (429 Too Many Requests)", 1, Again::Soon),
            (503, "h failed to answer for `a:b` (503 Service Unavailable)", 0, Again::Soon),
        ] {
            let failure = failure(status, None, "");
            assert_eq!(failure.error.to_string(), want);
            assert_eq!((failure.error.hints().len(), failure.again), (hints, again), "{status}");
        }
        let wait = Duration::from_secs(7);
        assert_eq!(failure(429, Some(wait), "").again, Again::After(wait));
        assert_eq!(failure(404, Some(wait), "").again, Again::Never);
    }

    #[test]
    fn who_asked_is_said() {
        let me = Asker::With("the credentials of `me` from `f`".into());
        let sentence = |status| failure_as(&me, status, None, "").error.to_string();
        assert_eq!(sentence(401), "h refuses the credentials of `me` from `f` for `a:b` (401 Unauthorized)");
        assert_eq!(sentence(403), "h forbids access to `a:b` with the credentials of `me` from `f` (403 Forbidden)");
        assert!(failure(401, None, "").error.hints()[0].ends_with("none fit it in `f`"));
    }

    #[test]
    fn where_a_redirect_led_nobody_can_log_in() {
        for (status, want) in [
            (401, "h did not give `a:b`: it answered 401 Unauthorized"),
            (403, "h did not give `a:b`: it answered 403 Forbidden"),
            (404, "h has no `a:b` (404 Not Found)"),
        ] {
            let error = failure_as(&Asker::Redirected, status, None, "").error;
            assert_eq!((error.to_string().as_str(), error.hints().len()), (want, 0));
        }
    }

    #[test]
    fn the_registrys_words_are_told_but_tamed() {
        let text = |body: &str| format!("{:#}", failure(404, None, body).error);
        assert!(text(r#"{"errors":[{"code":"X","message":"manifest unknown"}]}"#).ends_with(": manifest unknown"));
        assert!(text(r#"{"errors":[{"code":"DENIED","message":""}]}"#).ends_with(": DENIED"));
        assert!(text(r#"{"details":"incorrect"}"#).ends_with(": incorrect"));
        assert!(text("{\"errors\":[{\"message\":\"\\u001b[2J\"}]}").ends_with(r": \u{1b}[2J"));
        assert!(text("<html>").ends_with("(404 Not Found)"));
    }
}
