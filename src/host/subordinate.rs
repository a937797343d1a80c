//! The caller's subordinate ids, and the host's programs that may map them.
//!
//! In: /etc/subuid and /etc/subgid (subuid(5)). Out: [`Subordinate`]. Read only where a run wants them. What is odd in the
//! files is passed over: it is newuidmap that decides what is the caller's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where setuid programs are: on every distribution, on NixOS, on Guix. The caller's PATH is not asked.
const PLACES: &[&str] = &["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin", "/run/privileged/bin"];

/// How many ranges are taken. The kernel takes 340 lines in one write of less than a page (user_namespaces(7)).
const MAX_RANGES: usize = 100;

/// The highest id: the one above is "no id" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;

/// What the host lets the caller map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subordinate {
    /// User ids.
    pub uids: Vec<Range>,
    /// Group ids.
    pub gids: Vec<Range>,
    /// Absolute path of newuidmap(1).
    pub newuidmap: Option<PathBuf>,
    /// Absolute path of newgidmap(1).
    pub newgidmap: Option<PathBuf>,
}

/// Ids on the host that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u32,
    /// How many, at least one; the last is an id.
    pub count: u32,
}

impl Subordinate {
    /// Looks for those of `user`, whose ids are `uid` and `gid`.
    pub fn probe(user: &OsStr, uid: u32, gid: u32) -> Self {
        let of = |file, own| ranges(&std::fs::read(file).unwrap_or_default(), user, uid, own); // most hosts have neither
        let program = |name| PLACES.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file());
        Self {
            uids: of("/etc/subuid", uid),
            gids: of("/etc/subgid", gid),
            newuidmap: program("newuidmap"),
            newgidmap: program("newgidmap"),
        }
    }

    /// Usual ones, for tests.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let ranges = vec![Range { start: 100_000, count: 65536 }];
        Self {
            uids: ranges.clone(),
            gids: ranges,
            newuidmap: Some("/usr/bin/newuidmap".into()),
            newgidmap: Some("/usr/bin/newgidmap".into()),
        }
    }
}

impl Range {
    /// `None` if it is no range, or one with the host's root in it.
    fn parse(start: &[u8], count: &[u8]) -> Option<Self> {
        let range = Self { start: number(start)?, count: number(count)? };
        let last = range.start.checked_add(range.count.checked_sub(1)?)?;
        (range.start > 0 && last <= MAX_ID).then_some(range)
    }

    fn overlaps(self, other: Self) -> bool {
        let before = |a: Self, b: Self| a.start + (a.count - 1) < b.start;
        !before(self, other) && !before(other, self)
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    let all = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all)?.parse().ok()
}

/// The lines `NAME|UID:START:COUNT` of the caller's, in order; the kernel refuses ids that are mapped twice, and `own` is.
fn ranges(text: &[u8], user: &OsStr, uid: u32, own: u32) -> Vec<Range> {
    let (user, uid) = (user.as_bytes(), uid.to_string());
    let mut taken = vec![Range { start: own, count: 1 }];
    for line in text.split(|&b| b == b'\n') {
        let fields: Vec<_> = line.split(|&b| b == b':').collect();
        let [owner, start, count] = fields[..] else { continue };
        let is_callers = owner == user || owner == uid.as_bytes();
        let Some(range) = Range::parse(start, count).filter(|_| is_callers) else { continue };
        if !taken.iter().any(|other| range.overlaps(*other)) && taken.len() <= MAX_RANGES {
            taken.push(range);
        }
    }
    taken.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(u32, u32)> {
        ranges(text.as_bytes(), OsStr::new("me"), 1000, 1001).iter().map(|r| (r.start, r.count)).collect()
    }

    #[test]
    fn lines_are_the_callers_by_name_or_number() {
        let text = "you:1:5\nme:100000:65536\n1001:7:7\n1000:300000:10\nmemo:9:9\n";
        assert_eq!(found(text), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(found("me:5:1"), [(5, 1)], "without an end of line");
        assert_eq!(found(""), []);
    }

    #[test]
    fn odd_lines_are_passed_over() {
        for line in [
            "me",
            "me:",
            "me::",
            "me:5",
            "me:5:",
            "me::5",
            "me:5:5:5",
            "me:x:5",
            "me:5:x",
            "me:+5:5",
            "me:-5:5",
            "me: 5:5",
            "me:5:0",
            "#me:5:5",
            " me:5:5",
            "me:4294967296:1",
            "me:4294967295:1",
            "me:4294967290:6",
            "me:5:4294967291",
            "me:99999999999999999999:1",
            "me:5:5\r",
            ":5:5",
            "me:0:5",
            "me:1000:5",
            "me:990:100",
            "me:100:5\0",
        ] {
            let text = format!("{line}\nme:100000:9\nme:100008:2\nme:99999:1\n");
            assert_eq!(found(&text), [(100_000, 9), (99_999, 1)], "{line:?}");
        }
        assert_eq!(found("me:4294967294:1\nme:1:1000"), [(4_294_967_294, 1), (1, 1000)]);
        let many: Vec<_> = (5000..5500).map(|n| format!("me:{n}:1")).collect();
        assert_eq!(found(&many.join("\n")).len(), MAX_RANGES);
    }
}
