//! Where a registry is, and which requests go to the same place: pure.
//!
//! In: names and URLs as the user, the registry or a redirect wrote them. Out: base URLs and yes or no.

use std::net::IpAddr;

use ureq::http::Uri;

use crate::error::{Context, Error, Result};

/// The host a registry's API is served from: Docker Hub has another one than its name (moby, registry/config.go).
pub(super) fn api_host(registry: &str) -> &str {
    match registry {
        "docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// Whether `host[:port]` is this machine: 127.0.0.0/8, `::1` or `localhost`, which Docker lets speak plain HTTP too.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Whether two URLs have the same scheme, host and port: only then may one see what the other is trusted with.
pub(super) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let origin = |uri: &Uri| {
        let port = uri.port_u16().or(if is_https(uri) { Some(443) } else { Some(80) });
        (is_https(uri), uri.host().map(str::to_ascii_lowercase), port)
    };
    origin(a) == origin(b)
}

/// Whether a URL is protected on its way.
pub(super) fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// Where `location` leads, as seen from `from`. Never from HTTPS to HTTP: who can answer there may be anyone.
pub(super) fn follow(from: &Uri, location: &str) -> Result<Uri> {
    let what = || format!("follow the redirect of {} to `{}`", shown(from), location.escape_debug());
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |a| a.as_str());
    let text = match location {
        l if l.starts_with("http://") || l.starts_with("https://") => l.to_owned(),
        l if l.starts_with("//") => format!("{scheme}:{l}"),
        l if l.starts_with('/') => format!("{scheme}://{authority}{l}"),
        l => {
            let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{authority}{folder}/{l}")
        }
    };
    let to: Uri = text.parse().context(what)?;
    match is_https(from) && !is_https(&to) {
        true => Err(Error::new("it leads from HTTPS to plain HTTP")).context(what),
        false => Ok(to),
    }
}

/// A URL for a message: without the query, which in a signed URL is a credential.
pub(super) fn shown(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |a| a.as_str());
    format!("{}://{authority}{}", uri.scheme_str().unwrap_or("https"), uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_every_name() {
        for name in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]", "[::1]:5000"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["docker.io", "localhost.example", "128.0.0.1", "[::2]:5000", "127.0.0.1.example:5000"] {
            assert!(!is_loopback(name), "{name}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://A/x", "https://a:443/y"));
        for (a, b) in [("https://a/", "http://a/"), ("https://a/", "https://a:1/"), ("https://a/", "https://b.a/")] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn redirects_are_resolved_and_never_downgraded() {
        let from: Uri = "https://h:1/v2/x/blobs/d?q".parse().unwrap();
        for (location, want) in [
            ("https://o/y?z", Some("https://o/y?z")),
            ("//o/y", Some("https://o/y")),
            ("/y", Some("https://h:1/y")),
            ("y", Some("https://h:1/v2/x/blobs/y")),
            ("http://o/y", None),
            ("http://h:1/y", None),
            ("https://o y", None),
        ] {
            assert_eq!(follow(&from, location).ok().map(|u| u.to_string()).as_deref(), want, "{location}");
        }
        assert!(follow(&"http://h/".parse().unwrap(), "https://o/").is_ok());
        assert_eq!(shown(&from), "https://h:1/v2/x/blobs/d");
    }
}
