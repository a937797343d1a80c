//! What a registry demands before it answers, and the token that satisfies it.
//!
//! In: `WWW-Authenticate` headers. Out: the value of an `Authorization` header, kept for the session. Only anonymous
//! tokens so far: a token server hands them out to anyone (distribution, `docs/content/spec/auth/token.md`).

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use ureq::http::Uri;

use super::http::{Get, Http, read, refusal};
use super::origin::is_https;
use super::retry::Failure;
use crate::error::{Context, Error, Result};

/// The largest answer of a token server that is read; tokens have a few kB.
const MAX_TOKEN: u64 = 1 << 20;

/// What one session is trusted with.
#[derive(Debug, Default)]
pub(super) struct Auth(Mutex<Option<String>>);

impl Auth {
    /// The `Authorization` header to send, if the registry has asked for one.
    pub(super) fn current(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers a 401 that came although `used` was sent: the first time, or because a token has expired. Holds the
    /// lock while it asks, so that threads that were refused together cause one request. `None` if the registry wants
    /// what we do not have.
    pub(super) fn renew(&self, used: Option<&str>, demand: &Demand, http: &Http) -> Result<Option<String>, Failure> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_deref() != used {
            return Ok(held.clone());
        }
        let Some(bearer) = demand.challenges.iter().find(|c| c.scheme.eq_ignore_ascii_case("bearer")) else {
            return Ok(None);
        };
        let token = fetch_token(&token_url(bearer, demand)?, demand, http)?;
        *held = Some(format!("Bearer {token}"));
        Ok(held.clone())
    }
}

/// A registry's 401.
pub(super) struct Demand {
    pub(super) challenges: Vec<Challenge>,
    /// Where it came from.
    pub(super) registry: Uri,
    /// What a token must allow, where the challenge does not say.
    pub(super) repository: String,
}

/// One way to authenticate (RFC 9110, 11.6.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Parses a `WWW-Authenticate` header, which may hold several challenges: a word that no `=` follows begins one.
    pub(super) fn parse(header: &str) -> Vec<Self> {
        let mut challenges: Vec<Self> = Vec::new();
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let (word, after) = split_word(rest);
            if word.is_empty() {
                let mut chars = rest.chars();
                match chars.next() {
                    None => return challenges,
                    Some(_) => rest = chars.as_str(), // no rule covers it: pass over it
                }
            } else if let Some(value) = after.trim_start().strip_prefix('=') {
                let (value, after) = split_value(value.trim_start());
                if let Some(challenge) = challenges.last_mut() {
                    challenge.parameters.push((word.into(), value));
                }
                rest = after;
            } else {
                challenges.push(Self { scheme: word.into(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

fn split_word(text: &str) -> (&str, &str) {
    let end = |c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~/:".contains(c);
    text.split_at(text.find(end).unwrap_or(text.len()))
}

/// A word, or a quoted string with its escapes undone.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = split_word(text);
        return (word.into(), rest);
    };
    let (mut value, mut chars) = (String::new(), quoted.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            other => value.push(other),
        }
    }
    (value, chars.as_str())
}

/// The token server's URL. A registry on HTTPS cannot send us to a token server without it.
fn token_url(bearer: &Challenge, demand: &Demand) -> Result<Uri> {
    let realm = bearer.parameter("realm").context(|| "the registry names no token server (no realm)")?;
    let what = || format!("ask the token server `{}`", realm.escape_debug());
    let default = format!("repository:{}:pull", demand.repository);
    let scopes = bearer.parameter("scope").filter(|s| !s.trim().is_empty()).unwrap_or(&default);
    let service = bearer.parameter("service").map(|s| ("service", s));
    let query = service.into_iter().chain(scopes.split_whitespace().map(|s| ("scope", s)));
    let query: Vec<_> = query.map(|(key, value)| format!("{key}={}", encode(value))).collect();
    let separator = if realm.contains('?') { '&' } else { '?' };
    let url: Uri = format!("{realm}{separator}{}", query.join("&")).parse().context(what)?;
    match is_https(&demand.registry) && !is_https(&url) {
        true => Err(Error::new("it is on plain HTTP, and the registry on HTTPS")).context(what),
        false => Ok(url),
    }
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn fetch_token(url: &Uri, demand: &Demand, http: &Http) -> Result<String, Failure> {
    let host = url.host().unwrap_or_default();
    let mut response = http.get(&Get::new(url))?;
    if response.status().as_u16() != 200 {
        return Err(refusal(&mut response, host, &format!("a token for `{}`", demand.repository)));
    }
    let bytes = read(&mut response, MAX_TOKEN)?;
    parse_token(&bytes).context(|| format!("read the token that {host} gave")).map_err(Failure::from)
}

fn parse_token(bytes: &[u8]) -> Result<String> {
    /// Docker's name for it, and OAuth's.
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(bytes).context(|| "parse it as JSON")?;
    let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).unwrap_or_default();
    match token.is_empty() || token.bytes().any(|b| !b.is_ascii_graphic()) {
        true => Err(Error::new("there is no token in it")),
        false => Ok(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scheme key=value key=value; scheme ...`
    fn parsed(header: &str) -> String {
        let one = |c: &Challenge| {
            c.parameters.iter().fold(c.scheme.clone(), |text, (key, value)| format!("{text} {key}={value}"))
        };
        Challenge::parse(header).iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn challenges_of_every_spelling() {
        for (header, want) in [
            (
                r#"Bearer realm="https://a/t",service="s",scope="a,b c""#,
                "Bearer realm=https://a/t service=s scope=a,b c",
            ),
            (r#"Basic realm="x", Bearer realm="y" , service=z"#, "Basic realm=x; Bearer realm=y service=z"),
            (r#"bearer REALM = "a\"b\\c""#, r#"bearer REALM=a"b\c"#),
            ("Bearer realm=https://a/t,service=s", "Bearer realm=https://a/t service=s"),
            ("Negotiate", "Negotiate"),
            ("Negotiate, Basic realm=x", "Negotiate; Basic realm=x"),
            (r#"Bearer realm="never closed"#, "Bearer realm=never closed"),
            ("realm=x", ""),
            ("", ""),
            ("== ,,é=\"", ""),
        ] {
            assert_eq!(parsed(header), want, "{header}");
        }
    }

    fn url(header: &str, registry: &str) -> Result<String> {
        let demand = Demand { challenges: Vec::new(), registry: registry.parse().unwrap(), repository: "a/b".into() };
        token_url(&Challenge::parse(header)[0], &demand).map(|u| u.to_string())
    }

    #[test]
    fn token_urls_ask_for_the_scope_and_stay_protected() {
        let header = r#"Bearer realm="https://a/t",service="s x",scope="repository:a/b:pull registry:c:*""#;
        let want = "https://a/t?service=s%20x&scope=repository%3Aa%2Fb%3Apull&scope=registry%3Ac%3A%2A";
        assert_eq!(url(header, "https://r").unwrap(), want);
        let ours = "https://a/t?k&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!(url(r#"Bearer realm="https://a/t?k""#, "https://r").unwrap(), ours);
        assert!(url(r#"Bearer realm="http://a/t""#, "https://r").is_err(), "downgrade");
        assert!(url(r#"Bearer realm="http://a/t""#, "http://r").is_ok());
        assert!(url("Bearer service=x", "https://r").is_err());
    }

    #[test]
    fn tokens_have_two_names_and_no_line_ends() {
        for (body, want) in [
            (r#"{"token":"t"}"#, Some("t")),
            (r#"{"access_token":"u"}"#, Some("u")),
            (r#"{"token":"","access_token":"u"}"#, Some("u")),
            (r#"{"token":"a\r\nX: y"}"#, None),
            ("{}", None),
            ("x", None),
        ] {
            assert_eq!(parse_token(body.as_bytes()).ok().as_deref(), want, "{body}");
        }
    }
}
