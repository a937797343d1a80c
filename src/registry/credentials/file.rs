//! Docker's `config.json` and containers' `auth.json`, which have one form: what they say about a registry.
//!
//! In: the file. Out: an entry of its own, or the helper that has to be asked. The form: docker/cli,
//! `cli/config/configfile/file.go`, and containers-auth.json(5).

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Credential, Secret, canonical, names};
use crate::error::{Context, Error, Result};

/// The largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// What a file says.
pub(super) struct AuthFile {
    path: PathBuf,
    content: Content,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    auths: Option<BTreeMap<String, Entry>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    /// Base64 of `USER:PASSWORD`.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Where the credential is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// In the file.
    Entry(Credential),
    /// With this program, or, if it knows nothing, in the file after all.
    Helper {
        /// NAME of `docker-credential-NAME`.
        program: String,
        /// What the file has.
        or: Option<Credential>,
    },
}

impl AuthFile {
    /// Reads a file, if there is one.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        Ok(match text(path)? {
            Some(text) => Some(Self::parse(path, &text).context(|| format!("read `{}`", path.display()))?),
            None => None,
        })
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let content = if text.trim().is_empty() { Content::default() } else { json(text.as_bytes())? };
        Ok(Self { path: path.into(), content })
    }

    /// What it has for `name`, `REGISTRY[/NAMESPACE...]`.
    pub(super) fn find(&self, name: &str) -> Result<Option<Found>> {
        let entry = self.entry(name).map(|entry| entry.credential(&self.path)).transpose()?.flatten();
        Ok(match (self.helper(name), entry) {
            (Some(program), or) => Some(Found::Helper { program: program.into(), or }),
            (None, Some(credential)) => Some(Found::Entry(credential)),
            (None, None) => None,
        })
    }

    /// The helper for `name`: they know whole registries only. An empty name means the file itself.
    pub(super) fn helper(&self, name: &str) -> Option<&str> {
        let registry = names(name).last().unwrap_or(name);
        let of_registry = lookup(self.content.cred_helpers.as_ref(), registry);
        of_registry.or(self.content.creds_store.as_ref()).map(String::as_str).filter(|program| !program.is_empty())
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        names(name).find_map(|name| lookup(self.content.auths.as_ref(), name).filter(|e| !e.is_empty()))
    }

    /// Whether it has an entry or a helper of exactly this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        let entry = lookup(self.content.auths.as_ref(), name).is_some_and(|e| !e.is_empty());
        entry || lookup(self.content.cred_helpers.as_ref(), name).is_some_and(|h| !h.is_empty())
    }
}

/// The value of the key that stands for `name`; one that is spelled like it comes first.
fn lookup<'a, T>(map: Option<&'a BTreeMap<String, T>>, name: &str) -> Option<&'a T> {
    let map = map?;
    map.get(name).or_else(|| map.iter().find(|(key, _)| canonical(key) == name).map(|(_, value)| value))
}

impl Entry {
    /// Docker leaves an empty one beside what a helper keeps.
    fn is_empty(&self) -> bool {
        let fields = [&self.auth, &self.username, &self.password, &self.identitytoken];
        fields.iter().all(|field| field.as_ref().is_none_or(String::is_empty))
    }

    fn credential(&self, path: &Path) -> Result<Option<Credential>> {
        let from = format!("`{}`", path.display());
        let given = |field: &Option<String>| field.clone().filter(|f| !f.is_empty());
        let (user, password) = match given(&self.auth) {
            Some(auth) => decode(&auth)?,
            None => (given(&self.username).unwrap_or_default(), given(&self.password).unwrap_or_default()),
        };
        Ok(match given(&self.identitytoken) {
            Some(token) => Some(Credential { user, secret: Secret::Identity(token), from }),
            None if user.is_empty() => None,
            None => Some(Credential::new(&user, &password, from)),
        })
    }
}

/// Base64 of `USER:PASSWORD`; some writers fill it up with zeros.
fn decode(auth: &str) -> Result<(String, String)> {
    let bad = || Error::new("an `auth` is not the base64 of USER:PASSWORD").hint("`gpurun login` writes it anew");
    let text = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad)?;
    let (user, password) = text.split_once(':').ok_or_else(bad)?;
    Ok((user.into(), password.trim_end_matches('\0').into()))
}

/// The opposite.
pub(in crate::registry) fn encode(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

/// Parses JSON that may hold a secret, which serde's own message could show.
pub(in crate::registry) fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        let kind = if e.is_data() { "it has another form than expected" } else { "it is not JSON" };
        Error::new(format!("{kind}, at line {} column {}", e.line(), e.column()))
    })
}

/// A file's text, if there is one. A directory in /run that root has made for itself has none for us.
pub(super) fn text(path: &Path) -> Result<Option<String>> {
    let what = || format!("read `{}`", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) if e.kind() == ErrorKind::PermissionDenied && path.starts_with("/run") => return Ok(None),
        Err(e) => return Err(e).context(what),
    };
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).context(what)?;
    match text.len() as u64 > MAX_FILE {
        true => Err(Error::new(format!("it is larger than {MAX_FILE} bytes"))).context(what),
        false => Ok(Some(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, name: &str) -> Result<Option<Found>> {
        AuthFile::parse(Path::new("/f"), text).and_then(|file| file.find(name))
    }

    /// `user password`, `token`, or `helper NAME`
    fn shown(text: &str, name: &str) -> String {
        let credential = |c: Credential| match c.secret {
            Secret::Password(password) => format!("{} {password}", c.user),
            Secret::Identity(token) => token,
        };
        match find(text, name).unwrap() {
            None => "none".into(),
            Some(Found::Entry(c)) => credential(c),
            Some(Found::Helper { program, or }) => {
                format!("helper {program}{}", or.map(|c| format!(", or {}", credential(c))).unwrap_or_default())
            }
        }
    }

    #[test]
    fn the_longest_name_wins() {
        let entry = |user: &str| format!(r#"{{"auth":"{}"}}"#, encode(user, "p"));
        let text = format!(
            r#"{{"auths":{{"h":{},"h/a":{},"h/a/b":{},"h:1":{}}}}}"#,
            entry("x"),
            entry("y"),
            entry("z"),
            entry("w")
        );
        for (name, want) in [
            ("h", "x p"),
            ("h/c", "x p"),
            ("h/a", "y p"),
            ("h/a/c", "y p"),
            ("h/a/b", "z p"),
            ("h/ab", "x p"),
            ("h:1/a", "w p"),
            ("i", "none"),
        ] {
            assert_eq!(shown(&text, name), want, "{name}");
        }
    }

    #[test]
    fn every_spelling_of_docker_hub_is_one() {
        for key in
            ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io", "https://docker.io"]
        {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"{}"}}}}}}"#, encode("me", "p"));
            assert_eq!(shown(&text, "docker.io/library/busybox"), "me p", "{key}");
        }
    }

    #[test]
    fn entries_of_every_form() {
        let entry = |fields: &str| shown(&format!(r#"{{"auths":{{"h":{{{fields}}}}}}}"#), "h");
        let auth = |text: &str| format!(r#""auth":"{}""#, STANDARD.encode(text));
        assert_eq!(entry(&auth("$oauthtoken:k:e:y")), "$oauthtoken k:e:y");
        assert_eq!(entry(&auth("me:p\0\0")), "me p");
        assert_eq!(entry(r#""username":"me","password":"p""#), "me p");
        assert_eq!(entry(r#""auth":"","identitytoken":"t""#), "t");
        assert_eq!(entry(&format!(r#"{},"identitytoken":"t""#, auth("me:"))), "t");
        assert_eq!(entry(&auth("<token>:t")), "t");
        assert_eq!(entry(""), "none");
        assert_eq!(entry(r#""auth":null,"email":"x""#), "none");
        assert_eq!(shown("{}", "h"), "none");
        assert_eq!(shown(" \n", "h"), "none");
        assert_eq!(shown(r#"{"auths":null,"credHelpers":null}"#, "h"), "none");
    }

    #[test]
    fn helpers_are_for_registries_or_for_all() {
        let auth = encode("me", "p");
        let text = format!(
            r#"{{"auths":{{"h":{{}},"k":{{"auth":"{auth}"}},"l":{{"auth":"{auth}"}}}},"credsStore":"all","credHelpers":{{"h":"one","https://index.docker.io/v1/":"hub","l":""}}}}"#
        );
        assert_eq!(shown(&text, "h/x"), "helper one");
        assert_eq!(shown(&text, "docker.io/a/b"), "helper hub");
        assert_eq!(shown(&text, "k"), "helper all, or me p");
        assert_eq!(shown(&text, "l"), "me p");
        let file = AuthFile::parse(Path::new("/f"), &text).unwrap();
        assert!(
            file.knows("h") && file.knows("docker.io") && file.knows("k") && !file.knows("k/a") && !file.knows("m")
        );
    }

    #[test]
    fn broken_files_are_errors_that_show_no_secret() {
        for text in [
            r#"{"auths":{"h":"aHVzaDpodXNo"}}"#,
            r#"{"auths":{"h":{"auth":["aHVzaDpodXNo"]}}}"#,
            r#"{"auths":{"h":{"auth":"aHVzaDpodXNo!"}}}"#,
            r#"{"auths":{"h":{"auth":"aHVzaA=="}}}"#,
            r#""aHVzaDpodXNo""#,
            r#"{"auths":{"h":{"auth":"aHVzaDpodXNo"}}"#,
        ] {
            let error = find(text, "h").unwrap_err();
            let error = format!("{error:#} {error:?}");
            assert!(!error.contains("aHVz") && !error.contains("hush"), "{error}");
        }
    }
}
