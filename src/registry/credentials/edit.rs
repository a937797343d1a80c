//! One registry's entry in a file of credentials, made, replaced or removed; everything else in it stays.
//!
//! In: the file's text. Out: the new one, which takes the old one's place at once and is the caller's alone. Docker and
//! containers indent with tabs, and so does this.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

use super::{Credential, Secret, canonical, file, server};
use crate::error::{Context, Error, Result};

/// Where the entries are.
const AUTHS: &str = "auths";

/// Puts a credential into a file, which need not be there.
pub(super) fn store(path: &Path, name: &str, credential: &Credential) -> Result<()> {
    let what = || format!("store the credentials in `{}`", path.display());
    let text = file::text(path)?.unwrap_or_default();
    let entry = match &credential.secret {
        Secret::Password(password) => json!({"auth": file::encode(&credential.user, password)}),
        Secret::Identity(token) => json!({"auth": file::encode(&credential.user, ""), "identitytoken": token}),
    };
    let (text, _) = edited(&text, name, Some(entry)).context(what)?;
    replace(path, &text).context(what)
}

/// Takes the entry of a name out of a file. Whether there was one.
pub(super) fn forget(path: &Path, name: &str) -> Result<bool> {
    let what = || format!("remove the credentials from `{}`", path.display());
    let text = file::text(path)?.unwrap_or_default();
    let (text, had) = edited(&text, name, None).context(what)?;
    if had {
        replace(path, &text).context(what)?;
    }
    Ok(had)
}

/// The text with this entry in place of all that have the name in some spelling, and whether there were any.
fn edited(text: &str, name: &str, entry: Option<Value>) -> Result<(String, bool)> {
    let mut all: Map<String, Value> = if text.trim().is_empty() { Map::new() } else { file::json(text.as_bytes())? };
    let auths = all.entry(AUTHS).or_insert(Value::Null);
    if auths.is_null() {
        *auths = json!({});
    }
    let auths = auths.as_object_mut().context(|| "its `auths` are of another form than expected")?;
    let before = auths.len();
    auths.retain(|key, _| canonical(key) != name);
    let had = auths.len() < before;
    if let Some(entry) = entry {
        auths.insert(key(name), entry);
    }
    Ok((render(&all)?, had))
}

/// A name as Docker and containers both read it.
fn key(name: &str) -> String {
    if name.contains('/') { name.into() } else { server(name) }
}

fn render(all: &Map<String, Value>) -> Result<String> {
    let mut bytes = Vec::new();
    all.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"\t")))
        .context(|| "render JSON")?;
    bytes.push(b'\n');
    String::from_utf8(bytes).context(|| "render JSON")
}

/// Replaces a file, or what the link at its place leads to, by one that only the caller can read.
fn replace(path: &Path, text: &str) -> Result<()> {
    let path = path.canonicalize().unwrap_or_else(|_| path.into()); // it need not be there
    let dir = path.parent().context(|| "find its directory")?;
    DirBuilder::new().recursive(true).mode(0o700).create(dir).context(|| format!("create `{}`", dir.display()))?;
    let new = beside(&path)?;
    let done = write(&new, text).and_then(|()| std::fs::rename(&new, &path));
    if done.is_err() {
        let _ = std::fs::remove_file(&new); // it may not have come to be
    }
    done.context(|| format!("write `{}`", new.display()))
}

/// A name that no other process uses.
fn beside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::new("it has no name"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".gpurun-{}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set(text: &str, name: &str) -> Value {
        serde_json::from_str(&edited(text, name, Some(json!({"auth": "x"}))).unwrap().0).unwrap()
    }

    #[test]
    fn only_the_entry_changes() {
        let text = r#"{"credsStore":"","auths":{"h":{"auth":"old","email":"e"},"https://h/v1/":{},"h/a":{"auth":"y"}},"x":[1]}"#;
        let (new, had) = edited(text, "h", Some(json!({"auth": "x"}))).unwrap();
        let want = "{\n\t\"credsStore\": \"\",\n\t\"auths\": {\n\t\t\"h/a\": {\n\t\t\t\"auth\": \"y\"\n\t\t},\n\t\t\"h\": {\n\t\t\t\"auth\": \"x\"\n\t\t}\n\t},\n\t\"x\": [\n\t\t1\n\t]\n}\n";
        assert_eq!((new.as_str(), had), (want, true));
        assert_eq!(set("", "docker.io"), json!({"auths": {"https://index.docker.io/v1/": {"auth": "x"}}}));
        assert_eq!(set(r#"{"auths":null}"#, "docker.io/me"), json!({"auths": {"docker.io/me": {"auth": "x"}}}));
        assert!(!edited(text, "i", None).unwrap().1);
        let error = edited(r#"{"auths":"aHVzaA=="}"#, "h", None).unwrap_err();
        assert!(!format!("{error:#} {error:?}").contains("aHVz"));
    }

    #[test]
    fn a_file_is_replaced_at_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("a/b/real"), dir.path().join("link"));
        replace(&real, "1").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o644)).unwrap();
        symlink(&real, &link).unwrap();
        replace(&link, "2").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "2");
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(real.parent().unwrap()).unwrap().count(), 1, "nothing is left behind");
        assert_eq!(std::fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
