//! The place where layers and trees are made, and what becomes of it when their maker dies.

use std::path::{Path, PathBuf};

use super::kept::is_forgotten;
use super::lock::Lock;
use super::remove::remove_file;
use super::{Store, delete, entries, make_private_dirs};
use crate::error::{Context, Result};
use crate::image::Digest;

/// The file that is written last into a layer in the making.
pub(super) const INDEX: &str = "index";

/// The file in a boot's directory that every pull of that boot has locked.
const GUARD: &str = "guard";

/// A directory that this process alone makes something in.
#[derive(Debug)]
pub struct Making {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: Lock,
}

impl Store {
    /// A layer in the making, as `make` gives it.
    pub fn make_layer(&self, diff_id: &Digest) -> Result<Making> {
        self.make(&format!("layer-{}", diff_id.hex()))
    }

    /// A rootfs in the making, as `make` gives it.
    pub fn make_rootfs(&self, chain_id: &Digest) -> Result<Making> {
        self.make(&format!("rootfs-{}", chain_id.hex()))
    }

    /// Waits until nobody else makes what has this name. What a dead maker left is taken away, unless it is whole.
    fn make(&self, name: &str) -> Result<Making> {
        let dir = boot_dir(self);
        make_private_dirs(&dir).context(|| format!("mkdir `{}`", dir.display()))?;
        let (path, lock_path) = (dir.join(name), dir.join(format!("{name}.lock")));
        let making = Making { _lock: Lock::exclusive_file(&lock_path)?, path, lock_path };
        if !making.is_whole() {
            delete::tree(&making.path)?;
            make_private_dirs(&making.path).context(|| format!("mkdir `{}`", making.path.display()))?;
        }
        Ok(making)
    }
}

impl Making {
    /// Where it is made.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An empty directory for the files of a layer.
    pub fn stage(&self) -> Result<PathBuf> {
        let stage = self.path.join("files");
        delete::tree(&stage)?;
        std::fs::create_dir(&stage).context(|| format!("mkdir `{}`", stage.display()))?;
        Ok(stage)
    }

    /// Whether an earlier process of this boot finished it, but not the image it is for.
    pub fn is_whole(&self) -> bool {
        self.path.join(INDEX).exists()
    }

    /// Makes it whole by its index, which is written last.
    pub fn finish(&self, index: &[u8]) -> Result<()> {
        let (part, whole) = (self.path.join("index.part"), self.path.join(INDEX));
        std::fs::write(&part, index).context(|| format!("write `{}`", part.display()))?;
        std::fs::rename(&part, &whole).context(|| format!("rename `{}` to `{}`", part.display(), whole.display()))
    }

    /// Gives it its final name. Somebody else cannot have done so: this process alone made it.
    pub(super) fn publish(self, path: &Path) -> Result<()> {
        let what = || format!("rename `{}` to `{}`", self.path.display(), path.display());
        std::fs::rename(&self.path, path).context(what)?;
        self.forget()
    }

    /// Takes it away: it is no good, or it is there under its final name already.
    pub fn discard(self) -> Result<()> {
        take_away(&self.path)?;
        self.forget()
    }

    fn forget(self) -> Result<()> {
        std::fs::remove_file(&self.lock_path).context(|| format!("remove `{}`", self.lock_path.display()))
    }
}

/// Takes away what was made. Its index goes first: whoever finds it half gone must not take it for whole.
pub(super) fn take_away(path: &Path) -> Result<()> {
    remove_file(&path.join(INDEX))?;
    delete::tree(path)
}

fn boot_dir(store: &Store) -> PathBuf {
    // Where /proc does not tell, nothing is trusted longer than its maker lives.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_else(|_| format!("process-{}", std::process::id()));
    store.root.join("making").join(boot.trim())
}

/// Keeps other machines' pulls away from what is made in this boot, whole layers too: they may share the store.
pub(super) fn guard(store: &Store) -> Result<Lock> {
    let dir = boot_dir(store);
    loop {
        make_private_dirs(&dir).context(|| format!("mkdir `{}`", dir.display()))?;
        match Lock::shared_file(&dir.join(GUARD)) {
            Ok(Some(lock)) => return Ok(lock),
            Err(error) if dir.exists() => return Err(error),
            _ => {} // it was taken away just now
        }
    }
}

/// Takes away what dead makers left, and all of another boot that nobody guards. Where guards are seen by their own machine
/// alone, that boot may be another machine's: then only what nothing was begun in for long goes.
pub(super) fn reclaim(store: &Store) -> Result<()> {
    let own = boot_dir(store);
    let others = entries(&store.root.join("making"))?.into_iter().filter(|dir| *dir != own);
    for dir in others {
        let guard = dir.join(GUARD);
        let lock = Lock::try_exclusive(&guard)?;
        if lock.is_some_and(|lock| !lock.is_local() || is_forgotten(&dir)) || !guard.exists() {
            delete::tree(&dir)?;
        }
    }
    for path in entries(&own)?.iter().filter(|p| p.extension().is_some_and(|e| e == "lock")) {
        let Some(lock) = Lock::try_exclusive(path)? else { continue };
        let making = Making { path: path.with_extension(""), lock_path: path.clone(), _lock: lock };
        if !making.is_whole() {
            making.discard()?;
        }
    }
    Ok(())
}
