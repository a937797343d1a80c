//! One request, over ureq: redirects, timeouts, proxies, and bodies read up to a limit.
//!
//! In: a URL and the headers that matter here. Out: the response to it, or a [`Failure`] that knows whether another
//! try can help. Redirects are followed here and not by ureq, which would send credentials to another port.

use std::io::Read;
use std::time::{Duration, SystemTime};

use ureq::config::Config;
use ureq::http::{HeaderMap, Response, Uri, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, Proxy};

use super::origin::{follow, same_origin, shown};
use super::proxy::{Proxies, Way};
use super::retry::{Failure, retry_after};
use super::status::{Asker, Refusal};
use crate::error::{Context, Error, Result};

/// To connect, TLS included.
const CONNECT: Duration = Duration::from_secs(30);
/// Without a byte in either direction; there is no limit on a whole body.
const STALL: Duration = Duration::from_mins(1);
const MAX_REDIRECTS: u32 = 10;
/// Connections kept open: as many as there are layers fetched at once.
const KEEP: usize = 8;
/// How much of an error's body is read for its message.
const MAX_REFUSAL: u64 = 64 << 10;

/// The connections of one session.
#[derive(Debug)]
pub(super) struct Http {
    direct: Agent,
    /// Where plain HTTP, and where HTTPS goes through a proxy.
    proxied_plain: Option<Agent>,
    proxied_tls: Option<Agent>,
    proxies: Proxies,
}

/// A request.
pub(super) struct Get<'a> {
    pub(super) url: &'a Uri,
    pub(super) accept: Option<&'a str>,
    pub(super) authorization: Option<&'a str>,
    /// The first byte wanted.
    pub(super) from: u64,
    /// The one after the last, if not all that follow are wanted.
    pub(super) until: Option<u64>,
}

impl<'a> Get<'a> {
    pub(super) fn new(url: &'a Uri) -> Self {
        Self { url, accept: None, authorization: None, from: 0, until: None }
    }
}

impl Http {
    /// Certificates are verified as `tls` says.
    pub(super) fn new(tls: &TlsConfig, proxies: &Proxies) -> Result<Self> {
        let agent = |proxy| config(tls).proxy(proxy).build().new_agent();
        let through = |proxy: Option<Proxy>| proxy.map(|proxy| agent(Some(proxy)));
        Ok(Self {
            direct: agent(None),
            proxied_plain: through(proxies.http()?),
            proxied_tls: through(proxies.https()?),
            proxies: proxies.clone(),
        })
    }

    /// The final response, whatever its status.
    pub(super) fn get(&self, get: &Get) -> Result<Response<Body>, Failure> {
        let (mut url, mut authorization) = (get.url.clone(), get.authorization);
        for _ in 0..MAX_REDIRECTS {
            let response = self.exchange(&url, &Get { authorization, ..*get })?;
            let location = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => text(response.headers(), header::LOCATION.as_str()),
                _ => return Ok(response),
            };
            let to = follow(&url, location.context(|| format!("{} redirects to nowhere", shown(&url)))?)?;
            authorization = authorization.filter(|_| same_origin(&url, &to));
            url = to;
        }
        Err(Error::new(format!("{} redirects more than {MAX_REDIRECTS} times", shown(get.url))).into())
    }

    /// The answer to a form that holds a secret: no redirect is followed.
    pub(super) fn post(&self, url: &Uri, form: &str) -> Result<Response<Body>, Failure> {
        let request = self.agent(url).post(url).content_type("application/x-www-form-urlencoded");
        request.send(form).map_err(|e| Failure::transport(format!("post to {}", shown(url)), e))
    }

    fn agent(&self, url: &Uri) -> &Agent {
        let agent = match self.proxies.way(url) {
            Way::Direct => None,
            Way::HttpProxy => self.proxied_plain.as_ref(),
            Way::HttpsProxy => self.proxied_tls.as_ref(),
        };
        agent.unwrap_or(&self.direct)
    }

    fn exchange(&self, url: &Uri, get: &Get) -> Result<Response<Body>, Failure> {
        let mut request = self.agent(url).get(url);
        if let Some(accept) = get.accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(authorization) = get.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if get.from > 0 || get.until.is_some() {
            let last = get.until.map_or(String::new(), |until| (until - 1).to_string());
            request = request.header(header::RANGE, format!("bytes={}-{last}", get.from));
        }
        request.call().map_err(|e| Failure::transport(format!("get {}", shown(url)), e))
    }
}

/// The whole body, if it is no longer than `limit`.
pub(super) fn read(response: &mut Response<Body>, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let body = response.body_mut().as_reader();
    body.take(limit + 1).read_to_end(&mut bytes).context(|| "read the answer").map_err(Failure::passing)?;
    match bytes.len() as u64 > limit {
        true => Err(Error::new(format!("the answer is larger than the {limit} bytes that are read")).into()),
        false => Ok(bytes),
    }
}

/// The failure that an answer of `host` is, which should have been `subject`.
pub(super) fn refusal(response: &mut Response<Body>, host: &str, subject: &str, asker: &Asker) -> Failure {
    let retry_after =
        text(response.headers(), header::RETRY_AFTER.as_str()).and_then(|v| retry_after(v, SystemTime::now()));
    let body = read(response, MAX_REFUSAL).unwrap_or_default();
    Refusal { status: response.status(), host, subject, asker, retry_after, body: &body }.failure()
}

fn config(tls: &TlsConfig) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .tls_config(tls.clone())
        .user_agent(concat!("gpurun/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(STALL))
        .timeout_per_write(Some(STALL))
        .max_idle_connections_per_host(KEEP)
}

/// A header's value, if it is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
