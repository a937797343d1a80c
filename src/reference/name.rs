//! A name in a registry, as Docker spells it (distribution/reference, `normalize.go`), or enroot.
//!
//! In: text. Out: a [`RegistryRef`], in which nothing is left to defaults. Pure.

use std::fmt;

use super::SCHEMES;
use crate::error::{Error, Result};
use crate::image::Digest;

const DOCKER_HUB: &str = "docker.io";

/// A name in a registry, fully spelled out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegistryRef {
    /// Host, and port if there is one: `docker.io`, `127.0.0.1:5000`.
    pub registry: String,
    /// Path below the host: `library/busybox`.
    pub repository: String,
    /// Tag; `latest` where neither a tag nor a digest is given.
    pub tag: Option<String>,
    /// Digest of the manifest or index; it wins over the tag.
    pub digest: Option<Digest>,
}

impl RegistryRef {
    /// What to ask the registry for: the digest if there is one, else the tag.
    pub fn manifest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }
}

impl fmt::Display for RegistryRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only enroot's spelling names a registry that could be a part of the repository.
        let separator = if is_told_from_repository(&self.registry) { '/' } else { '#' };
        write!(f, "{}{separator}{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|t| write!(f, ":{t}"))?;
        self.digest.iter().try_for_each(|d| write!(f, "@{d}"))
    }
}

/// A name, divided where its spelling says.
struct Pieces<'a> {
    registry: Option<&'a str>,
    path: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

/// A Docker name, or enroot's `REGISTRY#IMAGE`.
pub(super) fn parse(text: &str) -> Result<RegistryRef> {
    let bad = |why: &str| Error::new(format!("`{text}` is not an image reference: {why}"));
    let Pieces { registry, path, tag, digest } = divide(text);
    let digest = digest.map(|d| d.parse().map_err(|e| bad("the digest is malformed").because(e))).transpose()?;
    if !path.split('/').all(is_path_component) || path.len() > 255 {
        let lower = path.to_lowercase();
        let error = bad("a repository is made of lower-case letters, digits and single `.`, `_`, `-` between them");
        return Err(if lower == path { error } else { error.hint(format!("did you mean `{lower}`?")) });
    }
    if tag.is_some_and(|t| !is_tag(t)) {
        return Err(bad("the tag is malformed"));
    }
    if registry.is_some_and(|r| !is_registry(r)) {
        return Err(bad("the registry's name is malformed"));
    }
    let registry = registry.map_or_else(|| DOCKER_HUB.into(), canonical_registry);
    let official = registry == DOCKER_HUB && !path.contains('/');
    Ok(RegistryRef {
        registry,
        repository: if official { format!("library/{path}") } else { path.into() },
        tag: tag.map(Into::into).or_else(|| digest.is_none().then(|| "latest".into())),
        digest,
    })
}

fn divide(text: &str) -> Pieces<'_> {
    let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    let (registry, rest) = match rest.split_once('#') {
        Some((registry, rest)) => (Some(registry), rest),
        None => split_registry(rest),
    };
    let (path, tag) = rest.rsplit_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
    Pieces { registry, path, tag, digest }
}

/// The one name of a registry: in lower case, and `docker.io` for every spelling of Docker Hub.
pub(crate) fn canonical_registry(name: &str) -> String {
    match name.to_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB.into(),
        other => other.into(),
    }
}

/// The first component is a registry if it could not be a repository: it has a dot, a port, or is `localhost`.
fn split_registry(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest)) if is_told_from_repository(first) => (Some(first), rest),
        _ => (None, text),
    }
}

fn is_told_from_repository(registry: &str) -> bool {
    registry.contains(['.', ':']) || registry == "localhost" || registry.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_registry(s: &str) -> bool {
    let host_ok = |h: &str| !h.is_empty() && h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if let Some((v6, port)) = s.strip_prefix('[').and_then(|s| s.split_once(']')) {
        let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return v6.parse::<std::net::Ipv6Addr>().is_ok() && port_ok;
    }
    match s.split_once(':') {
        // `builtin:5000/x` is read as another kind of image, so it can be no registry's name either.
        Some((host, port)) => host_ok(host) && is_port(port) && !SCHEMES.contains(&host.to_lowercase().as_str()),
        None => host_ok(s),
    }
}

fn is_port(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) && s.parse::<u16>().is_ok()
}

/// distribution/reference, regexp.go: alphanumerics separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(s: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators_ok = || {
        s.split(|c: char| alnum(c as u8) && c.is_ascii())
            .all(|sep| matches!(sep, "" | "." | "_" | "__") || sep.bytes().all(|b| b == b'-'))
    };
    let bytes = s.as_bytes();
    !s.is_empty() && alnum(bytes[0]) && alnum(bytes[bytes.len() - 1]) && separators_ok()
}

fn is_tag(s: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&s.len()) && word(s.as_bytes()[0]) && s.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}
