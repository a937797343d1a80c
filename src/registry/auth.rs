//! What satisfies a registry that demands something before it answers: a token, or the caller's name and password.
//!
//! In: a [`Demand`], and the caller's [`Credential`] if there is one. Out: the value of an `Authorization` header, kept for
//! the session. A token server gives tokens to anyone for what is public, to who has a password for the rest, and to who
//! has an identity token by OAuth2. As with Docker, it is the registry that says where the token server is, and its
//! credentials are sent there; but never over a connection that is not protected.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use ureq::http::Uri;

use super::challenge::{Challenge, Demand};
use super::credentials::{self, Credential, Keyring, Secret};
use super::http::{Get, Http};
use super::origin::{is_https, is_loopback, shown};
use super::retry::Failure;
use super::status::Asker;
use super::token::{refresh, take_token, token_request, with_query};
use crate::error::{Error, Hint, Result};

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

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

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
}
