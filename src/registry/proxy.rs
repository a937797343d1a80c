//! Whether a request goes through a proxy: pure.
//!
//! In: the environment and a URL. Out: which proxy. The rules are those of Go's `golang.org/x/net/http/httpproxy`, and so
//! Docker's and Podman's, with curl's `ALL_PROXY` for what they leave open. Every request is tunnelled by CONNECT.

use std::fmt;
use std::net::IpAddr;

use ureq::Proxy;
use ureq::http::Uri;

use super::origin::{is_https, is_loopback};
use crate::error::{Context, Error, Result};
use crate::host::Host;

/// What the environment says.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Variable>,
    https: Option<Variable>,
    /// Who is met without one.
    none: String,
}

/// A variable and what it holds.
#[derive(Clone)]
struct Variable {
    name: String,
    value: String,
}

impl fmt::Debug for Proxies {
    /// Without the URLs, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("none", &self.none).finish_non_exhaustive()
    }
}

/// How to get to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    HttpProxy,
    HttpsProxy,
}

impl Proxies {
    /// Of this environment; the upper-case names come first, as in Go.
    pub fn of(host: &Host) -> Self {
        let set = |name: &str| {
            let value = host.var(name).and_then(|v| v.to_str()).filter(|v| !v.is_empty())?;
            Some(Variable { name: name.into(), value: value.into() })
        };
        let var = |name: &str| set(name).or_else(|| set(&name.to_lowercase()));
        Self {
            http: var("HTTP_PROXY").or_else(|| var("ALL_PROXY")),
            https: var("HTTPS_PROXY").or_else(|| var("ALL_PROXY")),
            none: var("NO_PROXY").map(|none| none.value).unwrap_or_default(),
        }
    }

    /// The proxy for plain HTTP.
    pub(super) fn http(&self) -> Result<Option<Proxy>> {
        self.http.as_ref().map(Variable::proxy).transpose()
    }

    /// The proxy for HTTPS.
    pub(super) fn https(&self) -> Result<Option<Proxy>> {
        self.https.as_ref().map(Variable::proxy).transpose()
    }

    /// The way to a URL. None stands before this machine itself.
    pub(super) fn way(&self, url: &Uri) -> Way {
        let authority = url.authority().map_or("", |a| a.as_str());
        let (proxy, port) = if is_https(url) { (&self.https, 443) } else { (&self.http, 80) };
        let port = url.port_u16().unwrap_or(port);
        match proxy.is_none() || is_loopback(authority) || self.excepts(url.host().unwrap_or_default(), port) {
            true => Way::Direct,
            false if is_https(url) => Way::HttpsProxy,
            false => Way::HttpProxy,
        }
    }

    fn excepts(&self, host: &str, port: u16) -> bool {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_lowercase();
        self.none.split(',').map(|entry| entry.trim().to_lowercase()).any(|entry| excepts(&entry, &host, port))
    }
}

impl Variable {
    fn proxy(&self) -> Result<Proxy> {
        proxy(&self.value).context(|| format!("use the proxy of ${}", self.name))
    }
}

/// Whether an entry of `NO_PROXY` means this host: `*`, a network, or an address or a domain, perhaps with a port.
fn excepts(entry: &str, host: &str, port: u16) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    if let Some((network, bits)) = entry.split_once('/') {
        let (Ok(network), Ok(bits), Some(address)) = (network.parse(), bits.parse(), address) else { return false };
        return contains(network, bits, address);
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, wanted)) if entry.parse::<IpAddr>().is_err() => (name, wanted.parse().ok()),
        _ => (entry, Some(port)),
    };
    let named = match (name.trim_matches(['[', ']']).parse::<IpAddr>(), address) {
        (Ok(name), Some(address)) => name == address,
        (Err(_), None) => is_below(host, name),
        _ => false,
    };
    entry == "*" || named && wanted == Some(port)
}

/// A domain means itself and what is below it; with a dot before it, only that.
fn is_below(host: &str, domain: &str) -> bool {
    let bare = domain.trim_start_matches('*');
    let suffix = if bare.starts_with('.') { bare.to_owned() } else { format!(".{bare}") };
    suffix.len() > 1 && (host.ends_with(&suffix) || host == domain)
}

/// Whether a network has an address: its first `bits` are the same.
fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let shared = |a: u128, b: u128, width: u32| bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0);
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => shared(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => shared(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

/// A proxy's URL, which a message must not show.
fn proxy(url: &str) -> Result<Proxy> {
    let scheme = url.split_once("://").map_or("http", |(scheme, _)| scheme);
    match (scheme, Proxy::new(url)) {
        ("http" | "https", Ok(proxy)) => Ok(proxy),
        ("http" | "https", Err(_)) => Err(Error::new("it is not the URL of a proxy")),
        _ => Err(Error::new(format!("a proxy of the kind `{}` cannot be used", scheme.escape_debug()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(env: &[(&str, &str)]) -> Proxies {
        let env = env.iter().map(|(k, v)| (k.into(), v.into())).collect();
        Proxies::of(&Host { env, ..Host::example() })
    }

    fn way(env: &[(&str, &str)], url: &str) -> Way {
        of(env).way(&url.parse().unwrap())
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let both = [("HTTPS_PROXY", "http://s"), ("http_proxy", "http://p")];
        assert_eq!(way(&both, "https://h"), Way::HttpsProxy);
        assert_eq!(way(&both, "http://h"), Way::HttpProxy);
        assert_eq!(way(&both[1..], "https://h"), Way::Direct);
        assert_eq!(way(&[("all_proxy", "http://p")], "https://h"), Way::HttpsProxy);
        assert_eq!(way(&[("HTTPS_PROXY", "")], "https://h"), Way::Direct);
        for here in ["https://localhost:5000", "https://127.0.0.1", "https://[::1]:5000"] {
            assert_eq!(way(&both, here), Way::Direct, "{here}");
        }
    }

    #[test]
    fn exceptions_of_every_form() {
        for (entries, url, direct) in [
            ("*", "https://h", true),
            ("*", "https://10.0.0.1", true),
            ("a, B.Example ,c", "https://b.example", true),
            ("b.example", "https://x.b.example", true),
            (".b.example", "https://x.b.example", true),
            (".b.example", "https://b.example", false),
            ("*.b.example", "https://x.b.example", true),
            ("b.example", "https://ab.example", false),
            ("b.example:443", "https://b.example", true),
            ("b.example:5000", "https://b.example", false),
            ("b.example:5000", "https://b.example:5000", true),
            ("10.0.0.0/8", "https://10.1.2.3:5000", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("10.1.2.3", "https://10.1.2.3", true),
            ("fd00::/8", "https://[fd00::1]:5000", true),
            ("fd00::1", "https://[fd00::1]", true),
            ("10.0.0.0/99", "https://10.1.2.3", false),
            ("0.0.0.0/0", "https://10.1.2.3", true),
            ("", "https://h", false),
            (",:,/,*.", "https://h", false),
        ] {
            let env = [("HTTPS_PROXY", "http://p"), ("NO_PROXY", entries)];
            assert_eq!(way(&env, url) == Way::Direct, direct, "{entries} {url}");
        }
    }

    #[test]
    fn a_proxys_password_is_not_shown() {
        let proxies = |url: &str| of(&[("HTTPS_PROXY", url)]);
        for url in ["http://me:hush@p:1", "http://me:hush@ p", "socks5://me:hush@p"] {
            let shown = format!("{:?} {:?}", proxies(url), proxies(url).https().err().map(|e| format!("{e:#} {e:?}")));
            assert!(!shown.contains("hush"), "{shown}");
        }
        assert!(proxies("http://me:hush@p:1").https().is_ok() && proxies("p:3128").https().is_ok());
        assert!(proxies("socks5://p").https().is_err());
    }

    #[test]
    fn a_proxy_that_is_no_good_is_told_by_its_variable() {
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            let error = of(&[(name, "socks5://p")]).https().unwrap_err();
            assert!(format!("{error:#}").starts_with(&format!("use the proxy of ${name}: ")), "{error:#}");
        }
        let both = [("ALL_PROXY", "socks5://p"), ("http_proxy", "socks4://p")];
        assert!(format!("{:#}", of(&both).http().unwrap_err()).contains("$http_proxy: "));
    }
}
