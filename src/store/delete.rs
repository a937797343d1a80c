//! Removes a tree of the store, whatever modes its directories have.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// Removes `path` and all below it; nothing to do if it is not there. Links are removed, not followed.
pub(super) fn tree(path: &Path) -> Result<()> {
    let what = |p: &Path| format!("remove `{}`", p.display());
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).context(|| what(path)),
        Ok(meta) if !meta.is_dir() => return std::fs::remove_file(path).context(|| what(path)),
        Ok(_) => {}
    }
    let (mut waiting, mut dirs) = (vec![path.to_owned()], Vec::new());
    while let Some(dir) = waiting.pop() {
        waiting.extend(empty(&dir).context(|| what(&dir))?);
        dirs.push(dir);
    }
    dirs.iter().rev().try_for_each(|dir| std::fs::remove_dir(dir).context(|| what(dir)))
}

/// Removes the files of a directory; gives the directories in it.
fn empty(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    let mut dirs = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => dirs.push(entry.path()),
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(dirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_directories_go_and_link_targets_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("tree/closed/deep")).unwrap();
        std::fs::write(path("kept"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), path("tree/link")).unwrap();
        std::fs::set_permissions(path("tree/closed"), std::fs::Permissions::from_mode(0o0)).unwrap();
        tree(&path("tree")).unwrap();
        assert!(!path("tree").exists() && path("kept").exists());
        tree(&path("tree")).unwrap();
    }
}
