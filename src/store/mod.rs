//! All state on disk: unpacked images, and what is known of them.
//!
//! ```text
//! STORE/                     mode 0700, by default ~/.local/share/gpurun
//!   names/REFERENCE.json     a reference and a platform, with %2F for each /, and the image they last meant
//!   images/HEX.json          an image: its config and its layers; HEX is its digest
//!   */NAME.PID.tmp           a record in the making, which is renamed over the one that was there
//!   rootfs/HEX/root/         the tree of all its layers; HEX is its chain id
//!   layers/HEX/index         what a layer does; HEX is its diff id
//!   layers/HEX/files/N       its files, as far as no rootfs shows them; each is hard linked into every rootfs that does
//!   nvml/HEX.json            what NVML said of a machine; HEX is the hash of its boot, driver, GPUs and their nodes
//!   kept/HEX                 what has come of a blob while its layer is made; HEX is the blob's digest
//!   making/BOOT/guard        flock, shared: whoever pulls, so that other machines with this store let it be
//!   making/BOOT/NAME/        a layer or rootfs in the making; BOOT is the kernel's boot id
//!   making/BOOT/NAME.lock    flock, exclusive: whoever makes it
//!   making/removed-HEX/      a layer or rootfs that is being taken away
//!   lock                     flock, shared: whoever pulls; exclusive: whoever removes
//! ```
//!
//! What stands outside `making` is whole, was verified, is on the disk, and is never written again: it gets its name by
//! one rename, after one syncfs of everything. Layers come first, then the rootfs, the image, the name; removal goes the
//! other way, so whatever is cut in between leaves only what nothing refers to; but a layer goes before the rootfs that shows
//! its files, since it is worth nothing without them. A layer in `making` that has an index
//! is whole as well, but a power cut may have lost it: another boot does not trust it. So a pull that takes long gives what is
//! whole its final name before it has the rest. What is kept of a blob is hashed again
//! by whoever goes on with it, and goes when its layer is whole. No thread waits for a lock in
//! `making` while it holds one there, except the one that publishes a rootfs. A run holds a shared flock on
//! `rootfs/HEX`, and what is locked is not removed.
//!
//! Runs before the launch. A warm run only reads, a name and an image, and holds the flock; once an hour at most it sets the
//! time of the name's record, by which `prune` finds what was not used for long. What is in `nvml` is trusted by nobody who
//! cannot read it, and taken away by `prune`: whoever misses it asks NVML again.
//!
//! A file system without flock gets locks that this machine alone sees; one without hard links gets copies.

mod copy;
mod delete;
mod kept;
mod local_lock;
mod lock;
mod making;
mod nvml;
mod parallel;
mod prune;
mod record;
mod remove;
mod rootfs;
mod sharing;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;

use crate::error::{Context, Error, Hint, Result};
use crate::host::Host;
use crate::image::Digest;
pub use kept::{Kept, Resumed};
pub use lock::Lock;
pub use making::Making;
pub use prune::{Limits, shared};
use record::Loaded;
pub use record::{ImageRecord, LayerRecord, NameRecord, since_1970};
pub use remove::Removal;
pub use rootfs::{Degraded, build as build_rootfs};
pub use sharing::{LayerFiles, Shown};

/// How exactly it is known when a name was used, in seconds.
const USED_WITHIN: u64 = 3600;

/// The longest reference and platform that name their own file, whose name has 255 bytes at most; others are hashed.
const MAX_KEY: usize = 200;

/// A store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A pull, while which nobody removes what it makes or needs.
#[derive(Debug)]
pub struct Pulling {
    store: Lock,
    _boot: Lock,
}

impl Pulling {
    /// Whether other machines that share the store cannot see this machine's locks.
    pub fn is_for_this_machine_alone(&self) -> bool {
        self.store.is_local()
    }
}

/// A rootfs that nobody removes while this is held.
#[derive(Debug)]
pub struct HeldRootfs {
    /// The tree.
    pub root: PathBuf,
    _lock: Lock,
}

impl Store {
    /// The store at `chosen`, or where this caller's is by default. Nothing is made yet.
    pub fn locate(chosen: Option<&Path>, host: &Host) -> Result<Self> {
        let below = |dir: &std::ffi::OsStr| Path::new(dir).join("gpurun");
        let root = match (chosen, host.var("XDG_DATA_HOME"), &host.home) {
            (Some(path), ..) => std::path::absolute(path).context(|| format!("find `{}`", path.display()))?,
            (_, Some(data), _) if data.as_encoded_bytes().starts_with(b"/") => below(data),
            (_, _, Some(home)) => home.join(".local/share/gpurun"),
            _ => return Err(Error::new("no place for images is known").hint("set $HOME, or name one with --store DIR")),
        };
        Ok(Self { root })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The image that this name last meant on this platform, if its rootfs is there.
    pub fn find(&self, reference: &str, platform: &str) -> Result<Option<(NameRecord, ImageRecord)>> {
        let Some(name) = NameRecord::read(&self.name_path(reference, platform))? else { return Ok(None) };
        Ok(self.image(&name.digest)?.map(|record| (name, record)))
    }

    /// The image of this digest, if its rootfs is there.
    pub fn image(&self, digest: &Digest) -> Result<Option<ImageRecord>> {
        Ok(ImageRecord::read(&self.image_path(digest))?.filter(|record| self.has(record)))
    }

    /// Whether an image's rootfs is there.
    pub fn has(&self, record: &ImageRecord) -> bool {
        self.rootfs_path(&record.chain_id).exists()
    }

    /// The rootfs of an image, held so that nobody removes it.
    pub fn hold(&self, record: &ImageRecord) -> Result<HeldRootfs> {
        let dir = self.rootfs_path(&record.chain_id);
        let lock = Lock::shared(&dir)?
            .context(|| format!("`{}` was removed just now", dir.display()))
            .hint(|| "`gpurun pull` fetches the image again")?;
        Ok(HeldRootfs { root: dir.join("root"), _lock: lock })
    }

    /// Notes that the image of this name is used now, if that was not noted within the hour. A store that cannot be
    /// written does without.
    pub fn touch(&self, name: &NameRecord) {
        let now = since_1970(SystemTime::now());
        if now.saturating_sub(name.used) > USED_WITHIN {
            let path = self.name_path(&name.reference, &name.platform);
            let _ =
                std::fs::File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
        }
    }

    /// Refuses what the store's disk has no room for: blobs of so many bytes, and an image of so many layers.
    pub fn check_room(&self, bytes: u64, layers: usize) -> Result<()> {
        let (disk, free) = (self.disk()?, self.free()?);
        let shown = crate::output::size;
        if bytes > free {
            return Err(Error::new(format!(
                "{} are to be fetched, and the store has {} free",
                shown(bytes),
                shown(free)
            ))
            .because(Errno::ENOSPC));
        }
        // For each layer its directory, stage, index, lock and blob, and as many for the image. Some file systems count none.
        let (inodes, least) = (disk.files_available(), 5 * (layers as u64 + 1));
        match disk.files() > 0 && inodes < least {
            true => {
                Err(Error::new(format!("the store has {inodes} inodes free, and the image needs at least {least}"))
                    .because(Errno::ENOSPC))
            }
            false => Ok(()),
        }
    }

    /// Bytes that the store's disk has free.
    fn free(&self) -> Result<u64> {
        let disk = self.disk()?;
        Ok(disk.blocks_available() * disk.fragment_size())
    }

    fn disk(&self) -> Result<nix::sys::statvfs::Statvfs> {
        nix::sys::statvfs::statvfs(&self.root).context(|| format!("statvfs `{}`", self.root.display()))
    }

    /// Everything that has a name, sorted by it. Damaged records are passed over, here and in [`Self::images`].
    pub fn names(&self) -> Result<Vec<NameRecord>> {
        let mut all = self.load_all("names", |path| self.load_name(path), |_, _| {})?;
        all.sort_by(|a, b| (&a.reference, &a.platform).cmp(&(&b.reference, &b.platform)));
        Ok(all)
    }

    /// Every image.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        self.load_all("images", ImageRecord::load, |_, _| {})
    }

    /// The records that are damaged, and how.
    pub fn damaged(&self) -> Result<Vec<(PathBuf, Error)>> {
        let mut all = Vec::new();
        self.load_all("names", |path| self.load_name(path), |path, error| all.push((path, error)))?;
        self.load_all("images", ImageRecord::load, |path, error| all.push((path, error)))?;
        Ok(all)
    }

    /// Makes the store's directories, and keeps whoever removes things away from it.
    pub fn begin_pull(&self) -> Result<Pulling> {
        let what = || format!("make the store `{}`", self.root.display());
        for name in ["names", "images", "rootfs", "layers", "making", "kept"] {
            make_private_dirs(&self.root.join(name)).context(what).hint(|| "--store DIR names another place")?;
        }
        let path = self.root.join("lock");
        let lock = Lock::shared_file(&path).hint(|| "--store DIR names another place")?;
        let lock = lock.context(|| format!("`{}` was removed", path.display()))?;
        let guard = making::guard(self)?;
        making::reclaim(self)?;
        self.forget_old()?;
        Ok(Pulling { store: lock, _boot: guard })
    }

    /// Writes everything to the disk.
    pub fn sync(&self) -> Result<()> {
        let dir = std::fs::File::open(&self.root).context(|| format!("open `{}`", self.root.display()))?;
        crate::sys::syncfs(dir.as_fd()).context(|| format!("write the store `{}` to its disk", self.root.display()))
    }

    /// Gives what was made, and is on the disk, its final names.
    pub fn publish(&self, rootfs: Option<Making>, image: &ImageRecord, name: &NameRecord) -> Result<()> {
        for layer in image.diff_ids() {
            self.publish_layer(&layer)?;
        }
        if let Some(rootfs) = rootfs {
            rootfs.publish(&self.rootfs_path(&image.chain_id))?;
        }
        image.write(&self.image_path(&image.digest))?;
        self.set_name(name)
    }

    /// Gives a whole layer that is on the disk its final name, unless another pull that needs it did.
    pub fn publish_layer(&self, layer: &Digest) -> Result<()> {
        let path = self.layer_path(layer);
        if path.exists() {
            return Ok(());
        }
        let making = self.make_layer(layer)?;
        match (path.exists(), making.is_whole()) {
            (true, _) => making.discard(),
            (false, true) => making.publish(&path),
            (false, false) => Err(Error::new(format!("the layer {layer} has vanished from the store"))),
        }
    }

    /// Makes a name mean an image that is there.
    pub fn set_name(&self, name: &NameRecord) -> Result<()> {
        name.write(&self.name_path(&name.reference, &name.platform))
    }

    /// Where a layer is, once it is whole and on the disk.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// Where a rootfs is.
    pub fn rootfs_path(&self, chain_id: &Digest) -> PathBuf {
        self.root.join("rootfs").join(chain_id.hex())
    }

    fn image_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", digest.hex()))
    }

    fn name_path(&self, reference: &str, platform: &str) -> PathBuf {
        let key = format!("{reference} {platform}").replace('%', "%25").replace('/', "%2F");
        let key = if key.len() > MAX_KEY { Digest::of(key.as_bytes()).hex() } else { key };
        self.root.join("names").join(key + ".json")
    }

    /// A name's record. One that is not where its name is looked for would be listed, but neither run nor removed, so it
    /// counts as damaged.
    fn load_name(&self, path: &Path) -> Result<Loaded<NameRecord>> {
        let in_place = |name: NameRecord| match self.name_path(&name.reference, &name.platform) == path {
            true => Ok(name),
            false => Err(Error::new(format!("`{}` is not the file of `{}`", path.display(), name.reference))),
        };
        Ok(NameRecord::load(path)?.map(|sound| sound.and_then(in_place)))
    }

    /// Every sound record in a directory of the store; the others are told.
    fn load_all<T>(
        &self,
        dir: &str,
        load: impl Fn(&Path) -> Result<Loaded<T>>,
        mut damaged: impl FnMut(PathBuf, Error),
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        for path in entries(&self.root.join(dir))?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
            match load(&path)? {
                None => {} // it was removed meanwhile
                Some(Ok(record)) => all.push(record),
                Some(Err(error)) => damaged(path, error),
            }
        }
        Ok(all)
    }
}

/// What is in a directory, in no order; nothing if it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("list `{}`", dir.display());
    match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).context(what),
        Ok(list) => list.map(|entry| Ok(entry.context(what)?.path())).collect(),
    }
}

/// A path with a name below it that need not be UTF-8.
fn path_of(dir: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    dir.join(std::ffi::OsStr::from_bytes(name))
}

/// A directory with its parents, which only their owner may enter.
fn make_private_dirs(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
