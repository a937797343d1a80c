//! What `--device` names: a CDI device, or a node of the host in Docker's spelling.
//!
//! In: the options. Out: [`Asked`] each. Pure.

use std::path::PathBuf;

use super::mounts::check_target;
use crate::cdi::Asked;
use crate::cdi::name::Name;
use crate::error::{Error, Result};

/// All of them; an option may be a list with commas.
pub(super) fn wanted(options: &[String]) -> Result<Vec<Asked>> {
    options.iter().flat_map(|list| list.split(',')).map(parse).collect()
}

/// Whether one of them is NVIDIA's: then no others are wanted but those of `--gpus`.
pub(super) fn names_nvidias(asked: &[Asked]) -> bool {
    asked.iter().any(
        |one| matches!(one, Asked::Cdi(name) if name.kind.split('/').next().is_some_and(|v| v.ends_with("nvidia.com"))),
    )
}

fn parse(text: &str) -> Result<Asked> {
    if text.starts_with('/') {
        return node(text);
    }
    let bad = || {
        Error::new(format!("`--device {text}` names no device"))
            .hint("write a path as /dev/NAME, or a CDI device as VENDOR/CLASS=NAME: nvidia.com/gpu=0")
    };
    Name::parse(text).map(Asked::Cdi).ok_or_else(bad)
}

/// `SOURCE[:TARGET][:PERMISSIONS]`
fn node(text: &str) -> Result<Asked> {
    let mut parts: Vec<_> = text.split(':').collect();
    let letters = |part: &&str| !part.is_empty() && part.chars().all(|c| "rwm".contains(c));
    if let Some(permissions) = parts.pop_if(|part| letters(part))
        && !(permissions.contains('r') && permissions.contains('w'))
    {
        return Err(Error::new(format!(
            "`--device {text}`: `{permissions}` cannot be kept, since no device cgroup is made"
        ))
        .hint("without it, your own rights on the node hold"));
    }
    let (source, target) = match parts[..] {
        [both] => (both, both),
        [source, target] if target.starts_with('/') => (source, target),
        _ => return Err(Error::new(format!("`--device {text}` is not SOURCE[:TARGET][:rwm]"))),
    };
    let (source, target): (PathBuf, PathBuf) = (source.into(), target.into());
    // A directory may be /dev itself.
    if target.as_path() != "/dev" {
        check_target(&target)?;
    }
    Ok(Asked::Node { source, target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names_come_in_dockers_spelling() {
        let node = |source: &str, target: &str| Asked::Node { source: source.into(), target: target.into() };
        let name = |text: &str| Asked::Cdi(Name::parse(text).unwrap());
        let options =
            ["/dev/fuse".into(), "/dev/a:/dev/b:rwm,/dev/c:rw".into(), "amd.com/gpu=0,nvidia.com/gpu=0:1".into()];
        let want = [
            node("/dev/fuse", "/dev/fuse"),
            node("/dev/a", "/dev/b"),
            node("/dev/c", "/dev/c"),
            name("amd.com/gpu=0"),
            name("nvidia.com/gpu=0:1"),
        ];
        let asked = wanted(&options).unwrap();
        assert_eq!(asked, want);
        assert!(names_nvidias(&asked) && !names_nvidias(&asked[..4]));
        for text in [
            "",
            "fuse",
            "gpu=0",
            "/dev/a:b",
            "/dev/a:/dev/b:x",
            "/dev/a:r",
            "/dev/a:/proc/b",
            "/dev/null",
            "/dev/a:/b/../c",
        ] {
            assert!(wanted(&[text.into()]).is_err(), "{text}");
        }
    }
}
