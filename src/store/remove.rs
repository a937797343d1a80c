//! Removal: a name, then what nothing refers to any more.

use std::collections::HashSet;
use std::path::Path;

use super::lock::Lock;
use super::making::{self, INDEX};
use super::{ImageRecord, NameRecord, Store, delete, entries};
use crate::error::{Context, Result};

/// What became of a name that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, and with the last name of an image all that only it used.
    Done,
    /// It is there: its image has no other name, and a run uses it.
    InUse,
}

impl Store {
    /// Takes a name away, unless its image is in use.
    pub fn remove(&self, name: &NameRecord) -> Result<Removal> {
        let _lock = Lock::exclusive_file(&self.root.join("lock"))?;
        let names = self.names()?.into_iter().filter(|n| n.digest == name.digest).count();
        let record = ImageRecord::load(&self.image_path(&name.digest))?.and_then(Result::ok); // what is damaged may go
        if names == 1 && record.as_ref().is_some_and(|r| self.is_in_use(r).unwrap_or(true)) {
            return Ok(Removal::InUse);
        }
        remove_file(&self.name_path(&name.reference, &name.platform))?;
        self.sweep_locked().map(|()| Removal::Done)
    }

    /// Removes what nothing refers to.
    pub fn sweep(&self) -> Result<()> {
        if !self.root.exists() {
            return Ok(()); // nothing was pulled yet, so there is no place for a lock either
        }
        let _lock = Lock::exclusive_file(&self.root.join("lock"))?;
        self.sweep_locked()
    }

    /// Whether a run holds the image's rootfs.
    fn is_in_use(&self, record: &ImageRecord) -> Result<bool> {
        let dir = self.rootfs_path(&record.chain_id);
        Ok(Lock::try_exclusive(&dir)?.is_none() && dir.exists())
    }

    /// Removes every image that has no name and is not in use, then every rootfs and layer that no image needs, those
    /// of pulls that failed among them.
    fn sweep_locked(&self) -> Result<()> {
        let named: HashSet<_> = self.names()?.into_iter().map(|n| n.digest).collect();
        let (mut kept, mut touched) = (Vec::new(), HashSet::new());
        for image in self.images()? {
            if named.contains(&image.digest) || self.is_in_use(&image)? {
                kept.push(image);
            } else {
                self.fatten(&image)?;
                touched.extend(image.diff_ids());
                remove_file(&self.image_path(&image.digest))?;
            }
        }
        let trees = kept.iter().map(|i| i.chain_id.hex()).collect();
        let layers = kept.iter().flat_map(|i| i.layers.iter().map(|l| l.diff_id.hex())).collect();
        // A layer without the rootfs that shows its files would be worse than none.
        self.keep_only("layers", &layers)?;
        self.keep_only("rootfs", &trees)?;
        self.remove_worthless_records()?;
        self.forget_all()?;
        kept.iter().filter(|image| image.shares(&touched)).try_for_each(|image| self.thin_locked(image))?;
        for boot in entries(&self.root.join("making"))? {
            for path in entries(&boot)?.iter().filter(|path| path.join(INDEX).exists()) {
                making::take_away(path)?;
            }
        }
        Ok(())
    }

    /// Those that are damaged, and those that are half written: that is done with the store's lock shared, so whoever did it
    /// now is dead.
    fn remove_worthless_records(&self) -> Result<()> {
        for dir in ["names", "images"] {
            let all = entries(&self.root.join(dir))?;
            all.iter().filter(|path| path.extension().is_some_and(|e| e == "tmp")).try_for_each(|p| remove_file(p))?;
        }
        self.damaged()?.iter().try_for_each(|(path, _)| remove_file(path))
    }

    fn keep_only(&self, dir: &str, needed: &HashSet<String>) -> Result<()> {
        for path in entries(&self.root.join(dir))? {
            if !path.file_name().is_some_and(|name| needed.contains(&*name.to_string_lossy())) {
                // A run may have taken hold of it since it was looked at.
                if let Some(_lock) = Lock::try_exclusive(&path)? {
                    self.take_away(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Renamed first: whatever is cut while it is deleted is nothing that anybody would trust.
    fn take_away(&self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let grave = self.root.join("making").join(format!("removed-{name}"));
        delete::tree(&grave)?;
        std::fs::rename(path, &grave).context(|| format!("rename `{}`", path.display()))?;
        delete::tree(&grave)
    }
}

pub(super) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(|| format!("remove `{}`", path.display())),
        _ => Ok(()),
    }
}
