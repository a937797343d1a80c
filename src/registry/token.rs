//! How a token server is asked, and what it answers.
//!
//! In: a [`Challenge`] and what the token is for. Out: the request; and of the response, the token. Docker's way is a query
//! (distribution, `docs/content/spec/auth/token.md`), OAuth2's a form (`docs/content/spec/auth/oauth.md`).

use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, Uri};

use super::challenge::{Challenge, Demand};
use super::credentials;
use super::http::{read, refusal};
use super::origin::{is_https, shown};
use super::retry::Failure;
use super::status::Asker;
use crate::error::{Context, Error, Result};

/// The largest answer of a token server that is read; tokens have a few kB.
const MAX_TOKEN: u64 = 1 << 20;

/// The token server's URL, and what is asked of it. A registry on HTTPS cannot send us to a token server without it.
pub(super) fn token_request(bearer: &Challenge, demand: &Demand) -> Result<(Uri, Vec<(String, String)>)> {
    let realm = bearer.parameter("realm").context(|| "the registry names no token server (no realm)")?;
    let what = || format!("ask the token server `{}`", realm.escape_debug());
    let default = demand.repository.as_ref().map(|r| format!("repository:{r}:pull")).unwrap_or_default();
    let scopes = bearer.parameter("scope").filter(|s| !s.trim().is_empty()).unwrap_or(&default);
    let service = bearer.parameter("service").map(|s| ("service".into(), s.into()));
    let query = service.into_iter().chain(scopes.split_whitespace().map(|s| ("scope".into(), s.into())));
    let url: Uri = realm.parse().context(what)?;
    match is_https(&demand.registry) && !is_https(&url) {
        true => Err(Error::new("it is on plain HTTP, and the registry on HTTPS")).context(what),
        false => Ok((url, query.collect())),
    }
}

pub(super) fn with_query(url: &Uri, query: &[(String, String)]) -> Result<Uri> {
    let separator = match (query.is_empty(), url.query()) {
        (true, _) => "",
        (false, None) => "?",
        (false, Some(_)) => "&",
    };
    format!("{url}{separator}{}", form(query)).parse().context(|| format!("make a query to {}", shown(url)))
}

/// The body that asks for a token by an identity token: of several scopes it makes one parameter (oauth.md).
pub(super) fn refresh(query: &[(String, String)], token: &str) -> String {
    let of =
        |name: &str| query.iter().filter(|(key, _)| key == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>().join(" ");
    let fields = [
        ("grant_type", "refresh_token".into()),
        ("client_id", "gpurun".into()),
        ("service", of("service")),
        ("scope", of("scope")),
        ("refresh_token", token.into()),
    ];
    form(&fields.map(|(key, value)| (key.into(), value)))
}

fn form(fields: &[(String, String)]) -> String {
    fields.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

pub(super) fn take_token(
    response: &mut Response<Body>,
    host: &str,
    subject: &str,
    asker: &Asker,
) -> Result<String, Failure> {
    if response.status().as_u16() != 200 {
        return Err(refusal(response, host, subject, asker));
    }
    let bytes = read(response, MAX_TOKEN)?;
    parse_token(&bytes).context(|| format!("read the token that {host} gave")).map_err(Failure::from)
}

fn parse_token(bytes: &[u8]) -> Result<String> {
    /// Docker's name for it, and OAuth's.
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = credentials::json(bytes).context(|| "parse it")?;
    let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).unwrap_or_default();
    match token.is_empty() || token.bytes().any(|b| !b.is_ascii_graphic()) {
        true => Err(Error::new("there is no token in it")),
        false => Ok(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(registry: &str) -> Demand {
        Demand { challenges: Vec::new(), registry: registry.parse().unwrap(), repository: Some("a/b".into()) }
    }

    fn url(header: &str, registry: &str) -> Result<String> {
        let (url, query) = token_request(&Challenge::parse(header)[0], &demand(registry))?;
        with_query(&url, &query).map(|u| u.to_string())
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
    fn an_identity_token_is_exchanged_for_one_scope_parameter() {
        let header = r#"Bearer realm="https://a/t",service="s",scope="repository:a/b:pull repository:c:pull""#;
        let (_, query) = token_request(&Challenge::parse(header)[0], &demand("https://r")).unwrap();
        assert_eq!(
            refresh(&query, "t/+="),
            "grant_type=refresh_token&client_id=gpurun&service=s\
             &scope=repository%3Aa%2Fb%3Apull%20repository%3Ac%3Apull&refresh_token=t%2F%2B%3D"
        );
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
