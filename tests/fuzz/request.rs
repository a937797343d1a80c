//! What a user writes, and what an image says of its users.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use clap::Parser;

use super::{targets, text};
use crate::cli::{Cli, IdMode};
use crate::host::Host;
use crate::host::subordinate::Subordinate;
use crate::plan::account::{Accounts, group_with, passwd_with};
use crate::plan::env;
use crate::plan::user::{Ids, Wanted};
use crate::request::Request;

targets! {
    /// An option and its value, `-v /a:/b:ro`: every target is a path in the container.
    fn options(bytes) {
        let Some(space) = bytes.iter().position(|b| *b == b' ') else { return };
        let (option, value) = (OsStr::from_bytes(&bytes[..space]), OsStr::from_bytes(&bytes[space + 1..]));
        let Ok(cli) = Cli::try_parse_from([OsStr::new("gpurun"), option, value, OsStr::new("image")]) else { return };
        if let Ok(request) = Request::new(&cli.run, &Host::example()) {
            for mount in &request.mounts {
                let target = mount.target();
                assert!(target.is_absolute() && !target.components().any(|c| c == std::path::Component::ParentDir));
            }
        }
    }

    /// `--env-file`: names have no `=`.
    fn env_file(bytes) {
        for rule in env::parse_file(bytes).into_iter().flatten() {
            let (env::Rule::Set(name, _) | env::Rule::Pass(name)) = rule;
            assert!(!name.is_empty() && !name.as_bytes().contains(&b'='));
        }
    }

    /// A user, and after a line of dashes each the image's passwd and group: the lines that are added say who it is, and
    /// all its ids are mapped.
    fn accounts(bytes) {
        let mut parts = bytes.splitn(3, |b| *b == b'\x1e').map(<[u8]>::to_vec);
        let user = text(&parts.next().unwrap_or_default());
        let accounts = Accounts { passwd: parts.next(), group: parts.next() };
        let host = Host { subordinate: Some(Subordinate::example()), ..Host::example() };
        let wanted = [Wanted::Named(&user), Wanted::Default(Some(&user)), Wanted::Root("--root")];
        for (wanted, mode) in wanted.into_iter().flat_map(|wanted| [(wanted, IdMode::Auto), (wanted, IdMode::Range)]) {
            let Ok(ids) = Ids::decide(wanted, mode, &host, &accounts) else { continue };
            assert!(i32::try_from(ids.uid).is_ok() && i32::try_from(ids.gid).is_ok());
            let gids = ids.groups.iter().flatten().chain([&ids.gid]);
            assert!(ids.map.uids.outside(ids.uid).is_some() && gids.copied().all(|gid| ids.map.gids.outside(gid).is_some()));
            for (before, after) in [
                (&accounts.passwd, passwd_with(&ids, &accounts)),
                (&accounts.group, group_with(&ids, &accounts)),
            ] {
                let (Some(before), Some(after)) = (before, after) else { continue };
                let added = after.strip_prefix(&before[..]).expect("the image's lines stay").trim_ascii_start();
                assert!(added.split_last().is_some_and(|(end, line)| *end == b'\n' && !line.contains(end)), "one line");
            }
        }
    }
}
