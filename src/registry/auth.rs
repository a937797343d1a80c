//! What a registry demands before it answers, and what satisfies it: a token, or the caller's name and password.
//!
//! In: `WWW-Authenticate` headers, and the caller's [`Credential`] if there is one. Out: the value of an `Authorization`
//! header, kept for the session. A token server gives tokens to anyone for what is public (distribution,
//! `docs/content/spec/auth/token.md`), to who has a password for the rest, and to who has an identity token by OAuth2
//! (`docs/content/spec/auth/oauth.md`). As with Docker, it is the registry that says where the token server is, and its
//! credentials are sent there; but never over a connection that is not protected.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, Uri};

use super::credentials::{self, Credential, Keyring, Secret};
use super::http::{Get, Http, read, refusal};
use super::origin::{is_https, is_loopback, shown};
use super::retry::Failure;
use super::status::Asker;
use crate::error::{Context, Error, Hint, Result};

/// The largest answer of a token server that is read; tokens have a few kB.
const MAX_TOKEN: u64 = 1 << 20;

/// What one session is trusted with.
pub(super) struct Auth {
    caller: Caller,
    /// Whether secrets may go over plain HTTP.
    plain_http: bool,
    held: Mutex<Held>,
}

/// Who asks.
pub(super) enum Caller {
    /// Whoever these files know for this name.
    Known { keyring: Keyring, name: String },
    /// Somebody who is to be verified.
    Given(Credential),
}

#[derive(Default)]
struct Held {
    /// The header to send.
    header: Option<String>,
    /// Whether the credential has been looked for.
    looked: bool,
    credential: Option<Credential>,
}

impl fmt::Debug for Auth {
    /// Without what is held.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

impl Auth {
    pub(super) fn new(caller: Caller, plain_http: bool) -> Self {
        Self { caller, plain_http, held: Mutex::default() }
    }

    /// The `Authorization` header to send, if the registry has asked for one.
    pub(super) fn current(&self) -> Option<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).header.clone()
    }

    /// Who has asked so far, for messages.
    pub(super) fn asker(&self) -> Asker {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.asker_with(held.credential.as_ref())
    }

    fn asker_with(&self, found: Option<&Credential>) -> Asker {
        match (found, &self.caller) {
            (Some(credential), _) | (_, Caller::Given(credential)) => Asker::With(credential.to_string()),
            (_, Caller::Known { keyring, .. }) => Asker::Nobody { places: keyring.places() },
        }
    }

    /// Answers a 401 that came although `used` was sent: the first time, or because a token has expired. Holds the
    /// lock while it asks, so that threads that were refused together cause one request. `None` if the registry wants
    /// what we do not have.
    pub(super) fn renew(&self, used: Option<&str>, demand: &Demand, http: &Http) -> Result<Option<String>, Failure> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.header.as_deref() != used {
            return Ok(held.header.clone());
        }
        if !held.looked {
            held.credential = self.caller.find()?;
            held.looked = true;
        }
        let credential = held.credential.as_ref();
        let header = match (demand.challenge("bearer"), demand.challenge("basic"), credential) {
            (Some(bearer), ..) => Some(format!("Bearer {}", self.token(bearer, demand, credential, http)?)),
            (None, Some(_), Some(credential)) => Some(self.basic(credential, &demand.registry)?),
            _ => None,
        };
        held.header.clone_from(&header);
        Ok(header.filter(|header| used != Some(header)))
    }

    fn token(
        &self,
        bearer: &Challenge,
        demand: &Demand,
        credential: Option<&Credential>,
        http: &Http,
    ) -> Result<String, Failure> {
        let (url, query) = token_request(bearer, demand)?;
        let mut response = match credential {
            Some(Credential { secret: Secret::Identity(token), .. }) => {
                self.check(&url, credential)?;
                http.post(&url, &refresh(&query, token))?
            }
            Some(credential) => {
                let account = [("account".into(), credential.user.clone())];
                let authorization = self.basic(credential, &url)?;
                let url = with_query(&url, &[&account, &query[..]].concat())?;
                http.get(&Get { authorization: Some(&authorization), ..Get::new(&url) })?
            }
            None => http.get(&Get::new(&with_query(&url, &query)?))?,
        };
        let asker = self.asker_with(credential);
        take_token(&mut response, url.host().unwrap_or_default(), &demand.what(), &asker)
    }

    /// A header that holds a name and a password, for this place.
    fn basic(&self, credential: &Credential, to: &Uri) -> Result<String> {
        self.check(to, Some(credential))?;
        match &credential.secret {
            Secret::Password(password) => Ok(format!("Basic {}", credentials::encode(&credential.user, password))),
            Secret::Identity(_) => Err(Error::new(format!("{} wants a password, not {credential}", shown(to)))),
        }
    }

    /// Refuses to send a secret where everyone can read it.
    fn check(&self, to: &Uri, credential: Option<&Credential>) -> Result<()> {
        let here = to.authority().is_some_and(|a| is_loopback(a.as_str()));
        match (is_https(to) || here || self.plain_http, credential) {
            (false, Some(credential)) => {
                let error = Error::new(format!("{credential} are not sent to {}, which is not encrypted", shown(to)));
                Err(error).hint(|| "--plain-http sends them all the same")
            }
            _ => Ok(()),
        }
    }
}

impl Caller {
    fn find(&self) -> Result<Option<Credential>> {
        match self {
            Self::Known { keyring, name } => keyring.find(name),
            Self::Given(credential) => Ok(Some(credential.clone())),
        }
    }
}

/// A registry's 401.
pub(super) struct Demand {
    pub(super) challenges: Vec<Challenge>,
    /// Where it came from.
    pub(super) registry: Uri,
    /// What a token must allow, where the challenge does not say; nothing, to log in.
    pub(super) repository: Option<String>,
}

impl Demand {
    fn challenge(&self, scheme: &str) -> Option<&Challenge> {
        self.challenges.iter().find(|c| c.scheme.eq_ignore_ascii_case(scheme))
    }

    /// What is asked of a token server, in a message.
    fn what(&self) -> String {
        self.repository.as_ref().map_or_else(|| "a token".into(), |r| format!("a token for `{r}`"))
    }
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

/// The token server's URL, and what is asked of it. A registry on HTTPS cannot send us to a token server without it.
fn token_request(bearer: &Challenge, demand: &Demand) -> Result<(Uri, Vec<(String, String)>)> {
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

fn with_query(url: &Uri, query: &[(String, String)]) -> Result<Uri> {
    let separator = match (query.is_empty(), url.query()) {
        (true, _) => "",
        (false, None) => "?",
        (false, Some(_)) => "&",
    };
    format!("{url}{separator}{}", form(query)).parse().context(|| format!("make a query to {}", shown(url)))
}

/// The body that asks for a token by an identity token: of several scopes it makes one parameter (oauth.md).
fn refresh(query: &[(String, String)], token: &str) -> String {
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

fn take_token(response: &mut Response<Body>, host: &str, subject: &str, asker: &Asker) -> Result<String, Failure> {
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
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

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
    fn secrets_go_only_where_nobody_listens() {
        let me = Credential { user: "me".into(), secret: Secret::Password("hush".into()), from: "`f`".into() };
        let basic = |plain_http, to: &str| {
            let auth = Auth::new(Caller::Given(me.clone()), plain_http);
            auth.basic(&me, &to.parse().unwrap()).map_err(|e| format!("{e:#} {e:?}"))
        };
        let header = format!("Basic {}", STANDARD.encode("me:hush"));
        for (plain_http, to) in [(false, "https://h/x"), (false, "http://127.0.0.1:5/x"), (true, "http://h/x")] {
            assert_eq!(basic(plain_http, to).unwrap(), header, "{to}");
        }
        let error = basic(false, "http://h/x?q").unwrap_err();
        assert!(error.contains("the credentials of `me` from `f` are not sent to http://h/x,"), "{error}");
        assert!(!error.contains("hush"));
        let token = Credential { secret: Secret::Identity("hush".into()), ..me.clone() };
        let auth = Auth::new(Caller::Given(token.clone()), false);
        assert!(auth.basic(&token, &"https://h".parse().unwrap()).is_err());
        assert!(!format!("{auth:?}").contains("hush"));
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
