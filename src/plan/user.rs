//! Who the workload is: the caller's ids outside, and which ids, name and home that is inside.
//!
//! In: the request, the image's `User`, the image's passwd and group files as bytes. Out: [`Ids`] and the account files'
//! new content. One id is mapped, so any user the image names is the caller under another number.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::host::Host;

/// The largest id the kernel's signed users can hold; above it the id wraps to root (containerd CVE-2024-40635).
const MAX_ID: u32 = i32::MAX as u32;

/// The user inside, mapped from the caller outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ids {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// The caller's user id outside.
    pub host_uid: u32,
    /// The caller's group id outside.
    pub host_gid: u32,
    /// Name inside.
    #[serde(serialize_with = "super::lossy")]
    pub name: OsString,
    /// Home directory inside.
    pub home: PathBuf,
    /// Why this user.
    pub why: &'static str,
}

/// The image's account files, as far as they are there and readable.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// /etc/passwd
    pub passwd: Option<Vec<u8>>,
    /// /etc/group
    pub group: Option<Vec<u8>>,
}

/// Which user the options ask for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// `--root` or `--fakeroot`, which it names
    Root(&'static str),
    /// `-u`
    Named(&'a str),
    /// The image's `User` if it has one that is not root, else the caller's own ids.
    Default(Option<&'a str>),
}

impl Ids {
    /// Decides who the workload is.
    pub fn decide(wanted: Wanted, host: &Host, accounts: &Accounts) -> Result<Self> {
        let mapped = |spec, why| Self::named(spec, why, host, accounts);
        match wanted {
            Wanted::Root(why) => mapped("0:0", why),
            Wanted::Named(spec) => mapped(spec, "--user"),
            Wanted::Default(None | Some("")) => Ok(Self::callers(host, "the caller's own")),
            Wanted::Default(Some(spec)) => {
                let ids = mapped(spec, "the image's User")?;
                Ok(if ids.uid == 0 { Self::callers(host, "the caller's own; the image asks for root") } else { ids })
            }
        }
    }

    fn callers(host: &Host, why: &'static str) -> Self {
        Self {
            uid: host.uid,
            gid: host.gid,
            host_uid: host.uid,
            host_gid: host.gid,
            name: host.user.clone(),
            home: host.home.clone().unwrap_or_else(|| "/".into()),
            why,
        }
    }

    /// `NAME|UID[:GROUP|GID]`, looked up in the image's files (image-spec, config.md, `User`: an unknown name is an error).
    fn named(spec: &str, why: &'static str, host: &Host, accounts: &Accounts) -> Result<Self> {
        let (user, group) = spec.split_once(':').map_or((spec, None), |(u, g)| (u, Some(g)));
        let entry = find(accounts.passwd.as_deref(), user, 7);
        let uid = match (parse_id(user), &entry) {
            (Some(id), _) => id.context(|| format!("use `{spec}` ({why})"))?,
            (None, Some(entry)) => field_id(entry, 2)?,
            (None, None) => return Err(unknown("user", user, why)),
        };
        let gid = match group.filter(|g| !g.is_empty()) {
            Some(group) => group_id(group, why, accounts)?,
            None => entry.as_ref().map_or(Ok(0), |e| field_id(e, 3))?,
        };
        let field = |i: usize| entry.as_ref().map(|e| OsString::from_vec(e[i].to_vec())).filter(|f| !f.is_empty());
        Ok(Self {
            uid,
            gid,
            host_uid: host.uid,
            host_gid: host.gid,
            name: field(0).unwrap_or_else(|| if uid == 0 { "root".into() } else { user.into() }),
            home: field(5).map_or_else(|| if uid == 0 { "/root".into() } else { "/".into() }, PathBuf::from),
            why,
        })
    }
}

fn group_id(group: &str, why: &str, accounts: &Accounts) -> Result<u32> {
    match (parse_id(group), find(accounts.group.as_deref(), group, 4)) {
        (Some(id), _) => id.context(|| format!("use the group `{group}` ({why})")),
        (None, Some(entry)) => field_id(&entry, 2),
        (None, None) => Err(unknown("group", group, why)),
    }
}

fn unknown(kind: &str, name: &str, why: &str) -> Error {
    Error::new(format!(
        "unknown {kind} `{name}` ({why}): the image's /etc/{} does not name it",
        match kind {
            "user" => "passwd",
            _ => "group",
        }
    ))
    .hint("a number is taken as it is: `--user UID:GID`; without --user the image's User is replaced by `--root`")
}

/// `None` if it is a name; an error if it is a number out of range.
fn parse_id(text: &str) -> Option<Result<u32>> {
    let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    number.then(|| match text.parse() {
        Ok(id) if id <= MAX_ID => Ok(id),
        _ => Err(Error::new(format!("the id {text} is not between 0 and {MAX_ID}"))),
    })
}

fn field_id(entry: &[&[u8]], field: usize) -> Result<u32> {
    let text = String::from_utf8_lossy(entry[field]);
    parse_id(&text).unwrap_or_else(|| Err(Error::new(format!("the image's account files give `{text}` as an id"))))
}

/// The line of `key`, a name or a number, with at least `fields` fields.
fn find<'a>(file: Option<&'a [u8]>, key: &str, fields: usize) -> Option<Vec<&'a [u8]>> {
    file?
        .split(|&b| b == b'\n')
        .map(|line| line.split(|&b| b == b':').collect::<Vec<_>>())
        .filter(|entry| entry.len() >= fields)
        .find(|entry| entry[0] == key.as_bytes() || entry[2] == key.as_bytes())
}

/// /etc/passwd with a line for the workload's user; `None` if it needs no change.
pub fn passwd_with(ids: &Ids, accounts: &Accounts) -> Option<Vec<u8>> {
    let home = ids.home.as_os_str();
    let name = ids.name.as_bytes();
    let line = [
        name,
        b":x:",
        ids.uid.to_string().as_bytes(),
        b":",
        ids.gid.to_string().as_bytes(),
        b"::",
        home.as_bytes(),
        b":/bin/sh\n",
    ]
    .concat();
    with_line(accounts.passwd.as_deref(), ids.uid, 7, &line, b"root:x:0:0:root:/root:/bin/sh\n")
}

/// /etc/group with a line for the workload's group; `None` if it needs no change.
pub fn group_with(ids: &Ids, accounts: &Accounts) -> Option<Vec<u8>> {
    let line = [ids.name.as_bytes(), b":x:", ids.gid.to_string().as_bytes(), b":\n"].concat();
    with_line(accounts.group.as_deref(), ids.gid, 4, &line, b"root:x:0:\n")
}

/// An account line holds no separator: a name or home that does would forge a second entry.
fn with_line(file: Option<&[u8]>, id: u32, fields: usize, line: &[u8], root: &[u8]) -> Option<Vec<u8>> {
    let id_text = id.to_string();
    let separators = line.iter().filter(|&&b| b == b':' || b == b'\n').count();
    if separators != fields || find(file, &id_text, fields).is_some_and(|e| e[2] == id_text.as_bytes()) {
        return None;
    }
    let mut content = file.map_or_else(|| if id == 0 { Vec::new() } else { root.to_vec() }, <[u8]>::to_vec);
    if content.last().is_some_and(|&b| b != b'\n') {
        content.push(b'\n');
    }
    content.extend_from_slice(line);
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host::example()
    }

    fn accounts() -> Accounts {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:500:501::/srv/app:/bin/sh\nbad:x:4294967296:1::/:/\n";
        let group = "root:x:0:\nstaff:x:50:app\n";
        Accounts { passwd: Some(passwd.into()), group: Some(group.into()) }
    }

    #[test]
    fn users_are_resolved_in_the_image() {
        for (wanted, uid, gid, home) in [
            (Wanted::Root("--root"), 0, 0, "/root"),
            (Wanted::Default(None), 1000, 1001, "/home/me"),
            (Wanted::Default(Some("")), 1000, 1001, "/home/me"),
            (Wanted::Default(Some("root")), 1000, 1001, "/home/me"),
            (Wanted::Default(Some("app")), 500, 501, "/srv/app"),
            (Wanted::Named("500"), 500, 501, "/srv/app"),
            (Wanted::Named("app:staff"), 500, 50, "/srv/app"),
            (Wanted::Named("77"), 77, 0, "/"),
            (Wanted::Named("77:88"), 77, 88, "/"),
            (Wanted::Named("0"), 0, 0, "/root"),
        ] {
            let ids = Ids::decide(wanted, &host(), &accounts()).unwrap();
            assert_eq!((ids.uid, ids.gid, ids.home.to_str().unwrap()), (uid, gid, home), "{wanted:?}");
            assert_eq!((ids.host_uid, ids.host_gid), (1000, 1001));
        }
    }

    #[test]
    fn unknown_and_wrapping_ids_are_errors() {
        for spec in ["nobody", "app:nogroup", "2147483648", "4294967296", "bad", "1:2147483648", "-1"] {
            assert!(Ids::decide(Wanted::Named(spec), &host(), &accounts()).is_err(), "{spec}");
            assert!(Ids::decide(Wanted::Default(Some(spec)), &host(), &accounts()).is_err(), "{spec}");
        }
        assert!(Ids::decide(Wanted::Named("app"), &host(), &Accounts::default()).is_err());
    }

    #[test]
    fn account_files_gain_one_line_for_the_caller() {
        let ids = Ids::decide(Wanted::Default(None), &host(), &accounts()).unwrap();
        let passwd = String::from_utf8(passwd_with(&ids, &accounts()).unwrap()).unwrap();
        assert!(passwd.ends_with("\nme:x:1000:1001::/home/me:/bin/sh\n"), "{passwd}");
        assert!(group_with(&ids, &accounts()).unwrap().ends_with(b"\nme:x:1001:\n"));
        let root = Ids::decide(Wanted::Root("--root"), &host(), &accounts()).unwrap();
        assert_eq!(passwd_with(&root, &accounts()), None);
        assert!(passwd_with(&ids, &Accounts::default()).unwrap().starts_with(b"root:x:0:0:"));
        let forged = Ids { home: "/x:/bin/sh\nevil".into(), ..ids };
        assert_eq!(passwd_with(&forged, &accounts()), None);
    }
}
