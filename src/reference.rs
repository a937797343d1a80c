//! Text → [`ImageRef`]: one forgiving parser for every spelling of an image.
//!
//! In: what the user wrote. Out: which image is meant, without having looked at it: only [`ImageRef::parse_at`] asks
//! whether a path exists. Docker's rules for names: distribution/reference, `normalize.go`.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::image::Digest;

const DOCKER_HUB: &str = "docker.io";

/// An image as the user named it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageRef {
    /// An image in a registry.
    Registry(RegistryRef),
    /// An OCI layout directory, and the tag to take from it.
    OciDir {
        /// The layout's directory.
        path: PathBuf,
        /// `org.opencontainers.image.ref.name` of the manifest; `None` takes the only one.
        tag: Option<String>,
    },
    /// An OCI layout in a tar.
    OciArchive {
        /// The tar.
        path: PathBuf,
        /// As for [`ImageRef::OciDir`].
        tag: Option<String>,
    },
    /// The output of `docker save`, and the name to take from it.
    DockerArchive {
        /// The tar.
        path: PathBuf,
        /// A `RepoTags` entry; `None` takes the only one.
        tag: Option<String>,
    },
    /// A directory that is used as the root file system itself.
    Dir(PathBuf),
    /// An image gpurun carries.
    Builtin(String),
}

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

impl ImageRef {
    /// Parses `text`; what is spelled like a path (`./x`, `/x`) is looked at to tell what it is. Paths become absolute:
    /// a name in the store means the same wherever it is said.
    pub fn parse_at(text: &str) -> Result<Self> {
        match text.starts_with(['.', '/', '~']) {
            true => Self::from_content(Path::new(text))?.absolute(),
            false => Self::parse(text)?.divided().absolute(),
        }
    }

    /// In a layout, a name may have a `:` of its own (`docker.io/library/busybox:1`), and so may a path: what is there
    /// tells where the one ends. Either way it is spelled the same.
    fn divided(mut self) -> Self {
        if let Self::OciDir { path, tag } | Self::OciArchive { path, tag } = &mut self
            && !path.exists()
        {
            let text = tag.iter().fold(path.display().to_string(), |text, tag| format!("{text}:{tag}"));
            let there = text.rmatch_indices(':').map(|(at, _)| at).find(|at| Path::new(&text[..*at]).exists());
            if let Some(at) = there {
                (*path, *tag) = (text[..at].into(), Some(text[at + 1..].to_owned()));
            }
        }
        self
    }

    fn absolute(mut self) -> Result<Self> {
        match &mut self {
            Self::Registry(_) | Self::Builtin(_) => {}
            Self::OciDir { path, .. }
            | Self::OciArchive { path, .. }
            | Self::DockerArchive { path, .. }
            | Self::Dir(path) => {
                *path = std::path::absolute(&*path).context(|| format!("find `{}`", path.display()))?;
            }
        }
        Ok(self)
    }

    /// Parses `text` by its spelling alone.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("docker://") {
            return parse_docker(rest).map(Self::Registry);
        }
        match text.split_once(':') {
            Some(("oci", rest)) => path_and_tag(rest).map(|(path, tag)| Self::OciDir { path, tag }),
            Some(("oci-archive", rest)) => path_and_tag(rest).map(|(path, tag)| Self::OciArchive { path, tag }),
            Some(("docker-archive", rest)) => path_and_name(rest).map(|(path, tag)| Self::DockerArchive { path, tag }),
            Some(("dir", rest)) if !rest.is_empty() => Ok(Self::Dir(rest.into())),
            Some(("builtin", name)) if !name.is_empty() => Ok(Self::Builtin(name.into())),
            Some((scheme @ ("sqsh" | "sif"), _)) => Err(Error::new(format!("`{scheme}:` images cannot be run yet"))
                .hint("use the image it was made from, or unpack it and run `dir:PATH`")),
            _ => parse_docker(text).map(Self::Registry),
        }
    }

    /// Whether it is on this machine: then it is looked at anew each time, which asks nobody else.
    pub fn is_local(&self) -> bool {
        !matches!(self, Self::Registry(_))
    }

    /// A path that exists is what its content says.
    fn from_content(path: &Path) -> Result<Self> {
        let meta =
            std::fs::metadata(path).map_err(|e| Error::new(format!("stat image `{}`", path.display())).because(e))?;
        if meta.is_dir() {
            let layout = path.join("oci-layout").exists();
            return Ok(if layout { Self::OciDir { path: path.into(), tag: None } } else { Self::Dir(path.into()) });
        }
        match crate::archive::sniff(path)? {
            crate::archive::Kind::Oci => Ok(Self::OciArchive { path: path.into(), tag: None }),
            crate::archive::Kind::Docker => Ok(Self::DockerArchive { path: path.into(), tag: None }),
        }
    }
}

/// The canonical spelling: the same image always gives the same text, whatever the user wrote. Paths stay as given.
impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_tag = |f: &mut fmt::Formatter<'_>, scheme: &str, path: &Path, tag: &Option<String>| {
            write!(f, "{scheme}:{}", path.display())?;
            tag.iter().try_for_each(|t| write!(f, ":{t}"))
        };
        match self {
            Self::Registry(r) => fmt::Display::fmt(r, f),
            Self::OciDir { path, tag } => with_tag(f, "oci", path, tag),
            Self::OciArchive { path, tag } => with_tag(f, "oci-archive", path, tag),
            Self::DockerArchive { path, tag } => with_tag(f, "docker-archive", path, tag),
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
            Self::Builtin(name) => write!(f, "builtin:{name}"),
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

/// `PATH[:TAG]`. The tag is what follows the last `:` that has no `/` after it.
fn path_and_tag(text: &str) -> Result<(PathBuf, Option<String>)> {
    let (path, tag) = match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !path.is_empty() => (path, Some(tag)),
        _ => (text, None),
    };
    match (path, tag) {
        ("", _) => Err(Error::new("an image path is missing after the `:`")),
        (_, Some("")) => Err(Error::new(format!("`{text}` ends in `:` without a tag"))),
        (path, tag) => Ok((path.into(), tag.map(Into::into))),
    }
}

/// `PATH[:NAME[:TAG]]`: a name has a `:` of its own, so the path ends at the first one.
fn path_and_name(text: &str) -> Result<(PathBuf, Option<String>)> {
    match text.split_once(':') {
        Some((path, name)) if !path.is_empty() && !name.is_empty() => Ok((path.into(), Some(name.into()))),
        _ => path_and_tag(text),
    }
}

/// A Docker name, or enroot's `REGISTRY#IMAGE`.
fn parse_docker(text: &str) -> Result<RegistryRef> {
    let bad = |why: &str| Error::new(format!("`{text}` is not an image reference: {why}"));
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().map_err(|e| bad("the digest is malformed").because(e))?)),
        None => (text, None),
    };
    let (registry, rest) = match rest.split_once('#') {
        Some((registry, rest)) => (Some(registry), rest),
        None => split_registry(rest),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
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

/// What a reference may begin with, before a `:`.
const SCHEMES: &[&str] = &["oci", "oci-archive", "docker-archive", "dir", "builtin", "sqsh", "sif"];

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

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        ImageRef::parse(text).map_or_else(|e| format!("error: {e}"), |r| r.to_string())
    }

    #[test]
    fn docker_names_are_spelled_out() {
        let d = Digest::of(b"x");
        for (text, want) in [
            ("busybox", "docker.io/library/busybox:latest".into()),
            ("docker://busybox:1", "docker.io/library/busybox:1".into()),
            ("index.docker.io/a/b", "docker.io/a/b:latest".into()),
            ("127.0.0.1:5000/debian:bookworm", "127.0.0.1:5000/debian:bookworm".into()),
            ("localhost/x", "localhost/x:latest".into()),
            ("nvcr.io#nvidia/pytorch:25.09-py3", "nvcr.io/nvidia/pytorch:25.09-py3".into()),
            ("[::1]:5000/x", "[::1]:5000/x:latest".into()),
            ("head#a/b", "head#a/b:latest".into()),
            (&format!("a/b:t@{d}"), format!("docker.io/a/b:t@{d}")),
            (&format!("a/b@{d}"), format!("docker.io/a/b@{d}")),
            ("oci:/a:b/c:tag", "oci:/a:b/c:tag".into()),
            ("oci:dir", "oci:dir".into()),
            ("docker-archive:x.tar:busybox:1", "docker-archive:x.tar:busybox:1".into()),
            ("builtin:hello", "builtin:hello".into()),
            ("dir:/x", "dir:/x".into()),
        ] {
            assert_eq!(canonical(text), want, "{text}");
            assert_eq!(canonical(&want), want, "round trip of {text}");
        }
    }

    #[test]
    fn relative_paths_become_absolute() {
        let cwd = std::env::current_dir().unwrap();
        for (text, path) in [("oci:a:tag", "a"), ("oci-archive:./b.tar", "b.tar"), ("dir:c/d", "c/d")] {
            let parsed = ImageRef::parse_at(text).unwrap().to_string();
            assert!(parsed.contains(&format!(":{}", cwd.join(path).display())), "{parsed}");
        }
    }

    #[test]
    fn what_is_there_tells_a_path_from_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a", "a:b", "a:b/c"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        for (written, path, tag) in [
            ("a", "a", None),
            ("a:docker.io/library/x:1", "a", Some("docker.io/library/x:1")),
            ("a:docker.io/library/x", "a", Some("docker.io/library/x")),
            ("a:x:1", "a", Some("x:1")),
            ("a:b/c", "a:b/c", None),
            ("a:b/c:x:1", "a:b/c", Some("x:1")),
            ("a:b:x", "a:b", Some("x")),
            ("gone:x:1", "gone:x", Some("1")),
        ] {
            let text = format!("oci:{}", at(written).display());
            let parsed = ImageRef::parse_at(&text).unwrap();
            assert_eq!(parsed, ImageRef::OciDir { path: at(path), tag: tag.map(Into::into) }, "{written}");
            assert_eq!(parsed.to_string(), text, "spelled as before");
        }
    }

    #[test]
    fn malformed_names_are_refused() {
        for text in [
            "",
            "a//b",
            "a/",
            "-a",
            "a..b",
            "Busybox",
            "a:b:c",
            "a@sha256:12",
            "a:",
            "oci:",
            "a b",
            "h:x/y",
            "é",
            "Oci:1/x",
        ] {
            assert!(ImageRef::parse(text).is_err(), "{text}");
        }
    }
}
