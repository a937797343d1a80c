//! Who the caller is to a registry: a name and a secret, out of Docker's and containers' files and their helpers.
//!
//! In: a registry, and perhaps a namespace in it. Out: a [`Credential`], which never shows its secret. Nothing is read
//! until a registry asks for a login. The rules are those of containers-auth.json(5), which hold for Docker's
//! `config.json` too: the first file that knows the registry wins, and in it a helper for the registry, then the store of
//! all, then the entry with the longest name.

mod edit;
mod file;
mod helper;

use std::fmt;
use std::path::PathBuf;

use crate::error::{Context, Error, Hint, Result};
use crate::reference::{ImageRef, canonical_registry};

use file::{AuthFile, Found};
pub(super) use file::{encode, json};

/// The name under which a helper gives out an identity token instead of a password (docker-credential-helpers).
const TOKEN_USER: &str = "<token>";

/// A caller, as one registry knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The name, which is no secret. Empty where only a token is known.
    pub user: String,
    /// What proves it.
    pub secret: Secret,
    /// The file or helper it came from, for messages.
    pub from: String,
}

/// What must never be shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A password, or a token that is used as one.
    Password(String),
    /// An OAuth refresh token, as `docker login` gets from some registries.
    Identity(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Identity(_) => "Identity(..)",
        })
    }
}

/// For messages: whose it is, and where it is from.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user.as_str() {
            "" => write!(f, "the token from {}", self.from),
            user => write!(f, "the credentials of `{}` from {}", user.escape_debug(), self.from),
        }
    }
}

impl Credential {
    /// What a file or helper gives as a name and a secret.
    fn new(user: &str, secret: &str, from: String) -> Self {
        let (user, secret) = match user {
            TOKEN_USER => (String::new(), Secret::Identity(secret.into())),
            user => (user.into(), Secret::Password(secret.into())),
        };
        Self { user, secret, from }
    }
}

/// The files that may know the caller.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// In the order of reading.
    pub files: Vec<PathBuf>,
    /// The one of them that is Docker's.
    pub docker: Option<PathBuf>,
    /// The one of them that a login is stored in, if none fits better.
    pub to_write: Option<PathBuf>,
}

impl Keyring {
    /// The credential for `name`, `REGISTRY[/NAMESPACE...]`.
    pub(super) fn find(&self, name: &str) -> Result<Option<Credential>> {
        for path in &self.files {
            let Some(file) = AuthFile::read(path)? else { continue };
            let found = file.find(name).context(|| format!("find credentials for `{name}` in `{}`", path.display()))?;
            let credential = match found {
                Some(Found::Entry(credential)) => Some(credential),
                Some(Found::Helper { program, or }) => helper::get(&program, &server(name), path)?.or(or),
                None => None,
            };
            if credential.is_some() {
                return Ok(credential);
            }
        }
        Ok(None)
    }

    /// Keeps a credential for `name`, which `canonical_name` has made: with the helper that the file wants, else in the
    /// file. The file is the first that knows `name` already, since it would be read before any other; else Docker's, if
    /// there is one; else containers' in the home directory. Says where.
    pub fn store(&self, name: &str, credential: &Credential) -> Result<String> {
        let path = self.to_store(name)?;
        if let Some(program) = AuthFile::read(&path)?.as_ref().and_then(|file| file.helper(name)) {
            helper::store(program, &server(name), credential)?;
            return Ok(format!("docker-credential-{program}"));
        }
        edit::store(&path, name, credential)?;
        Ok(format!("`{}`", path.display()))
    }

    fn to_store(&self, name: &str) -> Result<PathBuf> {
        for path in &self.files {
            if AuthFile::read(path)?.is_some_and(|file| file.knows(name)) {
                return Ok(path.clone());
            }
        }
        let docker = self.docker.as_ref().filter(|path| path.exists());
        let path = docker.or(self.to_write.as_ref()).cloned();
        path.context(|| "no place for credentials is known").hint(|| "set $HOME, or name a file in $REGISTRY_AUTH_FILE")
    }

    /// Forgets `name` in every file, and with the helpers that they want for it. Says where it was.
    pub fn forget(&self, name: &str) -> Result<Vec<String>> {
        let mut places = Vec::new();
        for path in &self.files {
            let Some(file) = AuthFile::read(path)? else { continue };
            if let Some(program) = file.helper(name) {
                helper::erase(program, &server(name))?;
                places.push(format!("docker-credential-{program}"));
            }
            if edit::forget(path, name)? {
                places.push(format!("`{}`", path.display()));
            }
        }
        Ok(places)
    }

    /// Where was looked, for messages.
    pub(super) fn places(&self) -> String {
        let places: Vec<_> = self.files.iter().map(|f| format!("`{}`", f.display())).collect();
        places.join(", ")
    }
}

/// The one spelling of `REGISTRY[/NAMESPACE...]` as a user may write it.
pub fn canonical_name(text: &str) -> Result<String> {
    let name = canonical(text);
    let registry = name.split('/').next().unwrap_or_default();
    match ImageRef::parse(&format!("{name}/x")) {
        Ok(ImageRef::Registry(image)) if image.registry == registry => Ok(name),
        _ => {
            let error = Error::new(format!("`{}` is not the name of a registry", text.escape_debug()));
            Err(error.hint("it has a dot or a port, as `nvcr.io` and `myhost:5000` have"))
        }
    }
}

/// How helpers know a registry, and how Docker's file names it: by its host, but Docker Hub by its old URL.
fn server(name: &str) -> String {
    match name.split('/').next().unwrap_or(name) {
        "docker.io" => "https://index.docker.io/v1/".into(),
        registry => registry.into(),
    }
}

/// The names under which a file may know `name`, the longest first: `h/a/b`, `h/a`, `h`.
fn names(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |n| n.rsplit_once('/').map(|(parent, _)| parent))
}

/// What a key of a file stands for. Old Dockers wrote URLs, of which the host counts; Docker Hub has many spellings.
fn canonical(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let key = match bare {
        Some(url) => url.split('/').next().unwrap_or(url),
        None => key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2"),
    };
    match key.split_once('/') {
        Some((registry, namespace)) => format!("{}/{namespace}", canonical_registry(registry)),
        None => canonical_registry(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_spelling() {
        for (key, want) in [
            ("h", "h"),
            ("H:5000", "h:5000"),
            ("https://h/v1/", "h"),
            ("http://h:1/v2/x", "h:1"),
            ("h/v2/", "h"),
            ("h/a/b", "h/a/b"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("docker.io/me", "docker.io/me"),
            ("index.docker.io/me", "docker.io/me"),
        ] {
            assert_eq!(canonical(key), want, "{key}");
        }
        assert_eq!(names("h/a/b").collect::<Vec<_>>(), ["h/a/b", "h/a", "h"]);
        assert_eq!(server("docker.io/library/x"), "https://index.docker.io/v1/");
        assert_eq!(server("h:5000/x"), "h:5000");
    }

    #[test]
    fn names_of_registries() {
        for (text, want) in [
            ("nvcr.io", Some("nvcr.io")),
            ("https://Registry.example:5000/", Some("registry.example:5000")),
            ("registry-1.docker.io", Some("docker.io")),
            ("localhost", Some("localhost")),
            ("h:5000/team", Some("h:5000/team")),
            ("[::1]:5000", Some("[::1]:5000")),
            ("myhost", None),
            ("h:5000/Team", None),
            ("", None),
            ("a b.c", None),
        ] {
            assert_eq!(canonical_name(text).ok().as_deref(), want, "{text}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        for credential in
            [Credential::new("me", "hush", "`f`".into()), Credential::new("<token>", "hush", "`f`".into())]
        {
            assert!(!format!("{credential:?} {credential}").contains("hush"));
        }
        let me = Credential::new("me", "hush", "`f`".into());
        assert_eq!(me.to_string(), "the credentials of `me` from `f`");
        assert_eq!(Credential::new("<token>", "hush", "`f`".into()).to_string(), "the token from `f`");
    }

    #[test]
    fn the_first_file_that_knows_wins() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let a = write("a", r#"{"auths":{"h":{"auth":"YTpwYXNz"}}}"#); // a:pass
        let b = write("b", r#"{"auths":{"h":{"auth":"YjpwYXNz"},"i":{"auth":"YjpwYXNz"}}}"#); // b:pass
        let keyring = Keyring { files: vec![dir.path().join("none"), a, b.clone()], ..Keyring::default() };
        let user = |name: &str| keyring.find(name).unwrap().map(|c| c.user);
        assert_eq!((user("h/x").as_deref(), user("i").as_deref(), user("j")), (Some("a"), Some("b"), None));
        assert_eq!(keyring.find("i").unwrap().unwrap().from, format!("`{}`", b.display()));
    }
}
