//! Text → [`ImageRef`]: one forgiving parser for every spelling of an image.
//!
//! In: what the user wrote. Out: which image is meant, without having looked at it: only [`ImageRef::parse_at`] asks
//! whether a path exists.

mod name;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
pub use name::RegistryRef;
pub(crate) use name::canonical_registry;

/// What a reference may begin with, before a `:`.
const SCHEMES: &[&str] = &["oci", "oci-archive", "docker-archive", "dir", "builtin", "sqsh", "sif"];

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
            return name::parse(rest).map(Self::Registry);
        }
        match text.split_once(':') {
            Some(("oci", rest)) => path_and_tag(rest).map(|(path, tag)| Self::OciDir { path, tag }),
            Some(("oci-archive", rest)) => path_and_tag(rest).map(|(path, tag)| Self::OciArchive { path, tag }),
            Some(("docker-archive", rest)) => path_and_name(rest).map(|(path, tag)| Self::DockerArchive { path, tag }),
            Some(("dir", rest)) if !rest.is_empty() => Ok(Self::Dir(rest.into())),
            Some(("builtin", name)) if !name.is_empty() => Ok(Self::Builtin(name.into())),
            Some((scheme @ ("sqsh" | "sif"), _)) => Err(Error::new(format!("`{scheme}:` images cannot be run yet"))
                .hint("use the image it was made from, or unpack it and run `dir:PATH`")),
            _ => name::parse(text).map(Self::Registry),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

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
