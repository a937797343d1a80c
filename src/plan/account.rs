//! The image's accounts: a user that it names, and the lines that its account files gain.
//!
//! In: `NAME|UID[:GROUP|GID]`, the image's passwd and group files as bytes, which are hostile. Out: [`Account`], and the
//! files' new content. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::user::Ids;
use crate::error::{Context, Error, Result};

/// The largest id the kernel's signed users can hold; above it the id wraps to root (containerd CVE-2024-40635).
pub(crate) const MAX_ID: u32 = i32::MAX as u32;

/// The image's account files, as far as they are there and readable.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// /etc/passwd
    pub passwd: Option<Vec<u8>>,
    /// /etc/group
    pub group: Option<Vec<u8>>,
}

/// A user that somebody asks for.
#[derive(Clone, Debug)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The groups whose lines name the user; none if one was asked for, as with Docker.
    pub groups: Vec<u32>,
    /// Login name.
    pub name: OsString,
    /// Home directory.
    pub home: PathBuf,
}

impl Account {
    /// Looks `NAME|UID[:GROUP|GID]` up (image-spec, config.md, `User`: an unknown name is an error).
    pub fn find(spec: &str, why: &str, accounts: &Accounts) -> Result<Self> {
        let (user, group) = spec.split_once(':').map_or((spec, None), |(u, g)| (u, Some(g)));
        let entry = find(accounts.passwd.as_deref(), user, 7);
        let uid = match (parse_id(user), &entry) {
            (Some(id), _) => id.context(|| format!("use `{spec}` ({why})"))?,
            (None, Some(entry)) => field_id(entry, 2)?,
            (None, None) => return Err(unknown("user", user, why)),
        };
        let group = group.filter(|g| !g.is_empty());
        let gid = match group {
            Some(group) => group_id(group, why, accounts)?,
            None => entry.as_ref().map_or(Ok(0), |e| field_id(e, 3))?,
        };
        let field = |i: usize| entry.as_ref().map(|e| OsString::from_vec(e[i].to_vec())).filter(|f| !f.is_empty());
        let name = field(0).unwrap_or_else(|| if uid == 0 { "root".into() } else { user.into() });
        Ok(Self {
            uid,
            gid,
            groups: if group.is_none() { groups(name.as_bytes(), accounts) } else { Vec::new() },
            home: field(5).map_or_else(|| if uid == 0 { "/root".into() } else { "/".into() }, PathBuf::from),
            name,
        })
    }
}

/// The groups that have `user` in their list.
fn groups(user: &[u8], accounts: &Accounts) -> Vec<u32> {
    let lines = accounts.group.iter().flat_map(|file| file.split(|&b| b == b'\n'));
    let entries = lines.map(|line| line.split(|&b| b == b':').collect::<Vec<_>>()).filter(|entry| entry.len() == 4);
    let of_user = entries.filter(|entry| entry[3].split(|&b| b == b',').any(|member| member == user));
    of_user.filter_map(|entry| field_id(&entry, 2).ok()).collect()
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
pub(super) fn parse_id(text: &str) -> Option<Result<u32>> {
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
    use super::super::user::Wanted;
    use super::*;
    use crate::cli::IdMode;
    use crate::host::Host;

    fn accounts() -> Accounts {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:500:501::/srv/app:/bin/sh\nbad:x:4294967296:1::/:/\n";
        let group = "root:x:0:\nstaff:x:50:app\nodd:x:a:app\nmore:x:60:you,app\nnone:x:70:\n";
        Accounts { passwd: Some(passwd.into()), group: Some(group.into()) }
    }

    fn ids(wanted: Wanted) -> Ids {
        Ids::decide(wanted, IdMode::Auto, &Host::example(), &accounts()).unwrap()
    }

    #[test]
    fn users_are_resolved_in_the_image() {
        for (spec, uid, gid, home, groups) in [
            ("500", 500, 501, "/srv/app", &[50, 60][..]),
            ("app", 500, 501, "/srv/app", &[50, 60]),
            ("app:", 500, 501, "/srv/app", &[50, 60]),
            ("app:staff", 500, 50, "/srv/app", &[]),
            ("77", 77, 0, "/", &[]),
            ("77:88", 77, 88, "/", &[]),
            ("0", 0, 0, "/root", &[]),
        ] {
            let account = Account::find(spec, "a test", &accounts()).unwrap();
            assert_eq!((account.uid, account.gid, account.home.to_str().unwrap()), (uid, gid, home), "{spec}");
            assert_eq!(account.groups, groups, "{spec}");
        }
    }

    #[test]
    fn unknown_and_wrapping_ids_are_errors() {
        for spec in ["nobody", "app:nogroup", "2147483648", "4294967296", "bad", "1:2147483648", "-1"] {
            assert!(Account::find(spec, "a test", &accounts()).is_err(), "{spec}");
        }
        assert!(Account::find("app", "a test", &Accounts::default()).is_err());
    }

    #[test]
    fn account_files_gain_one_line_for_the_caller() {
        let callers = ids(Wanted::Default(None));
        let passwd = String::from_utf8(passwd_with(&callers, &accounts()).unwrap()).unwrap();
        assert!(passwd.ends_with("\nme:x:1000:1001::/home/me:/bin/sh\n"), "{passwd}");
        assert!(group_with(&callers, &accounts()).unwrap().ends_with(b"\nme:x:1001:\n"));
        assert_eq!(passwd_with(&ids(Wanted::Root("--root")), &accounts()), None);
        assert!(passwd_with(&callers, &Accounts::default()).unwrap().starts_with(b"root:x:0:0:"));
        let forged = Ids { home: "/x:/bin/sh\nevil".into(), ..callers };
        assert_eq!(passwd_with(&forged, &accounts()), None);
    }
}
