//! Who the workload is: the caller's ids outside, and which ids, name and home that is inside.
//!
//! In: the request, the image's `User` and accounts, `--ids`. Out: [`Ids`]. Where one id is mapped, any user that is
//! asked for is the caller under another number. With ranges, `-u` makes the workload another user indeed, and whoever
//! else it is, is the caller.

use std::ffi::OsString;
use std::path::PathBuf;

use oci_spec::runtime::Capability;
use serde::Serialize;

use super::account::{self, Account, Accounts};
use super::idmap::Mapping;
use crate::cli::IdMode;
use crate::error::{Error, Result};
use crate::host::Host;

/// What root may do to the ids that are mapped, of Docker's defaults what chown(1), su(1) and package managers need. Each
/// holds in the workload's own user namespace alone (user_namespaces(7)).
const OF_ROOT: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
];

/// The user inside, mapped from the caller outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ids {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups inside; `None` for the caller's, which go with its user id.
    pub groups: Option<Vec<u32>>,
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
    /// All ids that there are inside.
    pub map: Mapping,
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
    /// Decides who the workload is, and which ids there are beside.
    pub fn decide(wanted: Wanted, mode: IdMode, host: &Host, accounts: &Accounts) -> Result<Self> {
        let (account, why) = who(wanted, host, accounts)?;
        let own = match (mode, wanted) {
            (IdMode::Range, Wanted::Named(_)) => (host.uid, host.gid),
            _ => (account.uid, account.gid),
        };
        let map = match mode {
            IdMode::Auto => Mapping::one(own.0, own.1, host, "--ids auto: nothing needs another"),
            IdMode::Single => Mapping::one(own.0, own.1, host, "--ids single"),
            IdMode::Range => Mapping::range(own.0, own.1, host)?,
        };
        map.check(account.uid, groups(&account, own.0).into_iter().flatten().chain([account.gid]), why)?;
        let account = match wanted {
            Wanted::Named(spec) => another(account, spec, own, &map)?,
            _ => account,
        };
        let groups = groups(&account, own.0);
        let Account { uid, gid, name, home, .. } = account;
        Ok(Self { uid, gid, groups, host_uid: host.uid, host_gid: host.gid, name, home, why, map })
    }

    /// Whether it is another user than the caller, whose groups are no concern of it.
    pub fn is_another(&self) -> bool {
        self.groups.is_some()
    }

    /// The caller's user id inside.
    pub fn callers_uid(&self) -> Option<u32> {
        self.map.uids.inside(self.host_uid)
    }
}

fn who(wanted: Wanted, host: &Host, accounts: &Accounts) -> Result<(Account, &'static str)> {
    let named = |spec, why| Account::find(spec, why, accounts).map(|account| (account, why));
    match wanted {
        Wanted::Root(why) => named("0:0", why),
        Wanted::Named(spec) => named(spec, "--user"),
        Wanted::Default(None | Some("")) => Ok((callers(host), "the caller's own")),
        Wanted::Default(Some(spec)) => match named(spec, "the image's User")? {
            (root, _) if root.uid == 0 => Ok((callers(host), "the caller's own; the image asks for root")),
            other => Ok(other),
        },
    }
}

fn callers(host: &Host) -> Account {
    let home = host.home.clone().unwrap_or_else(|| "/".into());
    Account { uid: host.uid, gid: host.gid, groups: Vec::new(), name: host.user.clone(), home }
}

/// Where there are more ids than the caller's, which are `own` inside, only a number makes `spec` the caller or gives it
/// the caller's group: the image says which numbers a name has.
pub fn another(account: Account, spec: &str, own: (u32, u32), map: &Mapping) -> Result<Account> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    if map.mappers.is_none() || account.uid == own.0 && (is_number(user) || user == "root") {
        return Ok(account);
    }
    if account.uid == own.0 {
        let error = Error::new(format!("the image's user `{user}` would be you, who are {} inside (--user)", own.0));
        return Err(error.hint(format!("`-u {}` is you, `-u NUMBER` another", own.0)));
    }
    if account.gid == own.1 && !is_number(group) {
        let error = Error::new(format!("the group of the user `{spec}` would be yours, {} inside (--user)", own.1));
        return Err(error.hint(format!("`-u {user}:NUMBER` has another")));
    }
    Ok(Account { groups: account.groups.into_iter().filter(|gid| *gid != own.1).collect(), ..account })
}

fn is_number(text: &str) -> bool {
    account::parse_id(text).is_some()
}

/// The groups that a user needs set; the caller, who is `own` inside, keeps those it has.
pub fn groups(account: &Account, own: u32) -> Option<Vec<u32>> {
    (account.uid != own).then(|| account.groups.clone())
}

/// What the user `uid` may do to the ids of `map`: with one alone there is nothing to do.
pub fn capabilities(uid: u32, map: &Mapping) -> Vec<Capability> {
    if uid == 0 && map.mappers.is_some() { OF_ROOT.to_vec() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::subordinate::Subordinate;

    /// A caller 1000:1001 with 65536 subordinate ids of each kind.
    fn host() -> Host {
        Host { subordinate: Some(Subordinate::example()), ..Host::example() }
    }

    fn accounts() -> Accounts {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:500:501::/srv/app:/bin/sh\n";
        let group = "root:x:0:\nstaff:x:50:app\nvideo:x:44:you,app\nhuge:x:70000:huge\n";
        Accounts { passwd: Some(passwd.into()), group: Some(group.into()) }
    }

    fn decide(wanted: Wanted, mode: IdMode) -> Ids {
        Ids::decide(wanted, mode, &host(), &accounts()).unwrap()
    }

    #[test]
    fn with_one_id_everybody_is_the_caller() {
        for (wanted, uid, gid, home) in [
            (Wanted::Root("--root"), 0, 0, "/root"),
            (Wanted::Default(None), 1000, 1001, "/home/me"),
            (Wanted::Default(Some("")), 1000, 1001, "/home/me"),
            (Wanted::Default(Some("root")), 1000, 1001, "/home/me"),
            (Wanted::Default(Some("app")), 500, 501, "/srv/app"),
            (Wanted::Named("app"), 500, 501, "/srv/app"),
        ] {
            let ids = decide(wanted, IdMode::Auto);
            assert_eq!((ids.uid, ids.gid, ids.home.to_str().unwrap()), (uid, gid, home), "{wanted:?}");
            assert_eq!(
                (ids.host_uid, ids.host_gid, ids.groups.clone(), ids.callers_uid()),
                (1000, 1001, None, Some(uid))
            );
            assert_eq!((&ids.map.mappers, ids.map.uids.to_string()), (&None, uid.to_string()));
            assert_eq!(capabilities(ids.uid, &ids.map), []);
            assert_eq!(decide(wanted, IdMode::Single).map.uids, ids.map.uids);
        }
    }

    #[test]
    fn with_ranges_the_caller_is_root_or_itself_or_the_images_user_and_another_is_another() {
        for (wanted, ids, callers, outside, groups) in [
            (Wanted::Root("--root"), (0, 0), 0, (1000, 1001), None),
            (Wanted::Default(None), (1000, 1001), 1000, (1000, 1001), None),
            (Wanted::Default(Some("app")), (500, 501), 500, (1000, 1001), None),
            (Wanted::Named("1000:1001"), (1000, 1001), 1000, (1000, 1001), None),
            (Wanted::Named("app"), (500, 501), 1000, (100_500, 100_501), Some(vec![50, 44])),
            (Wanted::Named("app:50"), (500, 50), 1000, (100_500, 100_050), Some(vec![])),
            (Wanted::Named("0"), (0, 0), 1000, (100_000, 100_000), Some(vec![])),
            (Wanted::Named("65536:65536"), (65536, 65536), 1000, (165_535, 165_535), Some(vec![])),
        ] {
            let found = decide(wanted, IdMode::Range);
            assert_eq!(((found.uid, found.gid), found.callers_uid()), (ids, Some(callers)), "{wanted:?}");
            let map = &found.map;
            assert_eq!((map.uids.outside(ids.0), map.gids.outside(ids.1)), (Some(outside.0), Some(outside.1)));
            assert_eq!(found.groups, groups);
            assert_eq!(capabilities(found.uid, map).is_empty(), found.uid != 0);
        }
    }

    #[test]
    fn an_image_makes_nobody_the_caller() {
        let passwd = "nobody:x:1000:5::/:/bin/sh\ngrouped:x:5:1001::/:/bin/sh\nroot:x:0:0::/root:/bin/sh\n";
        let group = "mine:x:1001:root\nours:x:50:root\n";
        let images = Accounts { passwd: Some(passwd.into()), group: Some(group.into()) };
        let decide = |user, mode| Ids::decide(Wanted::Named(user), mode, &host(), &images);
        for (user, words) in [
            ("nobody", ["`nobody` would be you, who are 1000", "`-u 1000` is you"]),
            ("nobody:5", ["`nobody` would be you", "`-u 1000`"]),
            ("grouped", ["group of the user `grouped` would be yours, 1001", "`-u grouped:NUMBER`"]),
            ("5", ["group of the user `5` would be yours", "`-u 5:NUMBER`"]),
            ("0:mine", ["would be yours", "`-u 0:NUMBER`"]),
        ] {
            let error = decide(user, IdMode::Range).unwrap_err();
            let told = format!("{error:#}\n{}", error.hints().join("\n"));
            assert!(words.iter().all(|word| told.contains(word)), "{words:?} in {told}");
            decide(user, IdMode::Single).unwrap();
        }
        for (user, groups) in [("root", Some(vec![50])), ("5:1001", Some(vec![])), ("1000", None)] {
            assert_eq!(decide(user, IdMode::Range).unwrap().groups, groups, "{user}");
        }
    }

    #[test]
    fn what_cannot_be_mapped_is_refused_with_what_helps() {
        let without = |change: fn(&mut Subordinate)| {
            let mut host = host();
            change(host.subordinate.as_mut().unwrap());
            host
        };
        for (host, user, words) in [
            (without(|s| s.uids.clear()), "0", ["`/etc/subuid` has none for `me` (1000)", "--add-subuids"]),
            (without(|s| s.gids.clear()), "0", ["`/etc/subgid` has none for `me` (1000)", "--add-subgids"]),
            (without(|s| s.newuidmap = None), "0", ["needs `newuidmap`", "uidmap"]),
            (without(|s| s.newgidmap = None), "0", ["needs `newgidmap`", "uidmap"]),
            (
                host(),
                "65537",
                ["user id 65537 (--user) is none of those inside: 0-999, 1000, 1001-65536", "/etc/subuid"],
            ),
            (host(), "5:65537", ["group id 65537 (--user)", "/etc/subgid"]),
            (host(), "huge", ["unknown user `huge`", ""]),
        ] {
            let error = Ids::decide(Wanted::Named(user), IdMode::Range, &host, &accounts()).unwrap_err();
            let told = format!("{error:#}\n{}", error.hints().join("\n"));
            assert!(words.iter().all(|word| told.contains(word)), "{words:?} in {told}");
        }
        let member = Accounts { passwd: Some(b"huge:x:5:5::/:/bin/sh".to_vec()), ..accounts() };
        let error = Ids::decide(Wanted::Named("huge"), IdMode::Range, &host(), &member).unwrap_err();
        assert!(error.to_string().contains("group id 70000"), "{error}");
    }
}
