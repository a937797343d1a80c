//! Which ids there are inside, and what they are outside.
//!
//! In: the number that the caller has inside, and its subordinate ranges. Out: [`Mapping`], which `explain` shows and
//! `launch` has written. Pure. One id needs nobody's help and is the default; with `--ids range` the subordinate ids take
//! all numbers beside the caller's, from 0 up: what chown(2), setgroups(2) and other users need.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::account::MAX_ID;
use crate::error::{Context, Error, Hint, Result};
use crate::host::Host;
use crate::host::subordinate::Range;

/// Ids that follow each other: a line of `/proc/PID/uid_map` (user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The first inside.
    pub inside: u32,
    /// The first outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// All ids of one kind that there are inside, from the lowest up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdMap(Vec<Extent>);

/// The ids inside, and who writes that to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// User ids.
    pub uids: IdMap,
    /// Group ids.
    pub gids: IdMap,
    /// The host's programs that may map what is not the caller's own; `None` if there is nothing of that kind.
    pub mappers: Option<Mappers>,
    /// Why these.
    pub why: String,
}

/// The setuid programs of the shadow suite (newuidmap(1), newgidmap(1)), by absolute paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Mappers {
    pub newuidmap: PathBuf,
    pub newgidmap: PathBuf,
}

impl IdMap {
    /// `inside` is `outside`, and nothing else is anything.
    pub fn one(inside: u32, outside: u32) -> Self {
        Self(vec![Extent { inside, outside, count: 1 }])
    }

    /// `inside` is `outside`, and the ranges are the numbers around it.
    fn around(inside: u32, outside: u32, ranges: &[Range]) -> Self {
        let (mut extents, mut next) = (vec![Extent { inside, outside, count: 1 }], 0_u32);
        for range in ranges {
            let below = range.count.min(inside.saturating_sub(next));
            for (skipped, count) in [(0, below), (below, range.count - below)] {
                next += u32::from(next == inside && count > 0);
                let count = count.min(MAX_ID.saturating_sub(next));
                if count > 0 {
                    extents.push(Extent { inside: next, outside: range.start + skipped, count });
                    next += count;
                }
            }
        }
        extents.sort_by_key(|extent| extent.inside);
        Self(extents)
    }

    /// As the kernel takes it (user_namespaces(7)), a line for each part.
    pub fn lines(&self) -> String {
        let lines: Vec<_> = self.0.iter().map(|e| format!("{} {} {}", e.inside, e.outside, e.count)).collect();
        lines.join("\n")
    }

    /// The parts, from the lowest id inside up.
    pub fn extents(&self) -> &[Extent] {
        &self.0
    }

    /// What an id inside is outside.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        let of = |e: &Extent| inside.checked_sub(e.inside).filter(|at| *at < e.count).map(|at| e.outside + at);
        self.0.iter().find_map(of)
    }

    /// What an id outside is inside.
    pub fn inside(&self, outside: u32) -> Option<u32> {
        let of = |e: &Extent| outside.checked_sub(e.outside).filter(|at| *at < e.count).map(|at| e.inside + at);
        self.0.iter().find_map(of)
    }
}

impl Mapping {
    /// The caller's ids alone.
    pub fn one(uid: u32, gid: u32, host: &Host, why: &str) -> Self {
        Self { uids: IdMap::one(uid, host.uid), gids: IdMap::one(gid, host.gid), mappers: None, why: why.into() }
    }

    /// The caller's ids as `uid` and `gid`, and its subordinate ranges around them.
    pub fn range(uid: u32, gid: u32, host: &Host) -> Result<Self> {
        let subordinate = host.subordinate.as_ref().context(|| "look for subordinate ids")?;
        for (ranges, file) in [(&subordinate.uids, "/etc/subuid"), (&subordinate.gids, "/etc/subgid")] {
            if ranges.is_empty() {
                return Err(none_in(file, host));
            }
        }
        let found = |path: &Option<PathBuf>, name: &str| {
            path.clone().context(|| format!("`--ids range` needs `{name}`, which is not here")).hint(|| {
                "Debian and Ubuntu have it in the package uidmap, others in shadow-utils; `--ids single` needs nothing"
            })
        };
        let newuidmap = found(&subordinate.newuidmap, "newuidmap")?;
        let newgidmap = found(&subordinate.newgidmap, "newgidmap")?;
        Ok(Self {
            uids: IdMap::around(uid, host.uid, &subordinate.uids),
            gids: IdMap::around(gid, host.gid, &subordinate.gids),
            mappers: Some(Mappers { newuidmap, newgidmap }),
            why: "--ids range".into(),
        })
    }

    /// Refuses ids that there are not.
    pub fn check(&self, uid: u32, gids: impl IntoIterator<Item = u32>, why: &str) -> Result<()> {
        let missing = |kind: &str, id: u32, map: &IdMap| {
            let error = Error::new(format!("the {kind} id {id} ({why}) is none of those inside: {map}"));
            match &self.mappers {
                Some(_) => error.hint("/etc/subuid and /etc/subgid have no more: `usermod` gives more, as root"),
                None => error.hint("other ids are there where the run was started with `--ids range`"),
            }
        };
        if self.uids.outside(uid).is_none() {
            return Err(missing("user", uid, &self.uids));
        }
        match gids.into_iter().find(|gid| self.gids.outside(*gid).is_none()) {
            Some(gid) => Err(missing("group", gid, &self.gids)),
            None => Ok(()),
        }
    }
}

fn none_in(file: &str, host: &Host) -> Error {
    let name = host.user.display();
    Error::new(format!("`--ids range` needs subordinate ids, and `{file}` has none for `{name}` ({})", host.uid))
        .hint(format!("as root: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}`"))
        .hint("without them there is one id: `--fakeroot` lets package managers succeed with it")
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}", self.inside),
            count => write!(f, "{}-{}", self.inside, self.inside + (count - 1)),
        }
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(Extent::to_string).collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(inside: u32, ranges: &[(u32, u32)]) -> Vec<(u32, u32, u32)> {
        let ranges: Vec<_> = ranges.iter().map(|(start, count)| Range { start: *start, count: *count }).collect();
        IdMap::around(inside, 1000, &ranges).extents().iter().map(|e| (e.inside, e.outside, e.count)).collect()
    }

    #[test]
    fn ranges_go_around_the_callers_number() {
        let (a, b) = ((100_000, 65536), (500, 10));
        assert_eq!(around(0, &[a]), [(0, 1000, 1), (1, 100_000, 65536)]);
        assert_eq!(around(1000, &[a]), [(0, 100_000, 1000), (1000, 1000, 1), (1001, 101_000, 64536)]);
        assert_eq!(around(1000, &[b]), [(0, 500, 10), (1000, 1000, 1)], "too few to reach it");
        assert_eq!(around(10, &[b, a]), [(0, 500, 10), (10, 1000, 1), (11, 100_000, 65536)]);
        assert_eq!(around(4, &[b, a]), [(0, 500, 4), (4, 1000, 1), (5, 504, 6), (11, 100_000, 65536)]);
        assert_eq!(
            around(12, &[b, (7, 1), (9, 3)]),
            [(0, 500, 10), (10, 7, 1), (11, 9, 1), (12, 1000, 1), (13, 10, 2)]
        );
        let most = MAX_ID - 1; // those above are no ids to us
        assert_eq!(around(0, &[(1, u32::MAX - 1), (5, 5)]), [(0, 1000, 1), (1, 1, most)]);
        assert_eq!(around(u32::MAX - 1, &[b]), [(0, 500, 10), (u32::MAX - 1, 1000, 1)]);
    }

    #[test]
    fn an_id_has_its_place_on_both_sides() {
        let map = IdMap::around(1000, 7, &[Range { start: 100_000, count: 5000 }]);
        for (inside, outside) in [(0, 100_000), (999, 100_999), (1000, 7), (1001, 101_000), (5000, 104_999)] {
            assert_eq!((map.outside(inside), map.inside(outside)), (Some(outside), Some(inside)));
        }
        assert_eq!((map.outside(5001), map.inside(105_000), map.inside(8)), (None, None, None));
        assert_eq!(map.to_string(), "0-999, 1000, 1001-5000");
    }
}
