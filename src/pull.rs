//! ImageRef → an image in the store: looked up, or fetched and unpacked.
//!
//! In: a reference, the store, and when to ask the registry. Out: the record of an image whose rootfs is there. Runs
//! before the launch; its threads are joined when it returns.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;

use crate::cli::Pull;
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Image, Layer, Platform};
use crate::layer::change::Index;
use crate::layer::counted::Counted;
use crate::layer::tree::Tree;
use crate::layer::unpack::{self, Job, Unpacked};
use crate::progress::{self, Progress};
use crate::reference::ImageRef;
use crate::source::{Far, Source};
use crate::store::{ImageRecord, LayerFiles, Making, NameRecord, Resumed, Store, since_1970};
use crate::timings::Timings;

/// How often what is whole is made safe from a power cut, while the rest takes its time. By then Linux has begun to write it
/// by itself (dirty_expire_centisecs in proc_sys_vm(5)), so that it costs little.
pub const SYNC_EVERY: Duration = Duration::from_secs(30);

/// Layers that are unpacked at once. Each has four threads, of which inflating is the slowest.
const AT_ONCE: usize = 4;

/// How an image is obtained.
pub struct Options {
    /// When to ask where it comes from.
    pub when: Pull,
    /// What it must be built for.
    pub platform: Platform,
    /// The most bytes that those of its layers that are fetched may unpack to, and that copies of its files may have.
    pub max_unpacked: u64,
    /// How often the layers that are whole get their final names, as [`SYNC_EVERY`].
    pub sync_every: Duration,
    /// Where it is shown.
    pub progress: Arc<Progress>,
    /// Where the time goes.
    pub timings: Arc<Timings>,
}

/// An image in the store.
pub struct Obtained {
    /// What it is called.
    pub name: NameRecord,
    /// What it is.
    pub record: ImageRecord,
    /// Whether something had to be fetched or made.
    pub pulled: bool,
}

/// Finds the image in the store, or asks its source for it. `open` is called only if it must be asked.
pub fn obtain<'s>(
    reference: &ImageRef,
    store: &Store,
    options: &Options,
    open: impl FnOnce() -> Result<Box<dyn Source + 's>>,
) -> Result<Obtained> {
    let (name, platform) = (reference.to_string(), options.platform.to_string());
    if options.when != Pull::Always && !reference.is_local() {
        if let Some((name, record)) = store.find(&name, &platform)? {
            return Ok(Obtained { name, record, pulled: false });
        }
        if options.when == Pull::Never {
            return Err(Error::new(format!("`{name}` is not in the store `{}`", store.path().display()))
                .hint("without `--pull never` it is fetched"));
        }
    }
    let pulled = open().and_then(|source| pull(&name, store, options, &*source));
    pulled.context(|| format!("pull `{name}`")).map_err(hint_at_disk)
}

/// What the user can do about the store's disk, whichever step met it.
fn hint_at_disk(error: Error) -> Error {
    match error.errno() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            error.hint("the store's disk is full: `gpurun rm` removes images, `--store DIR` names another place")
        }
        _ => error,
    }
}

fn pull(reference: &str, store: &Store, options: &Options, source: &dyn Source) -> Result<Obtained> {
    let image = options.timings.measure("resolve", || source.image(&options.platform))?;
    let name = NameRecord {
        reference: reference.into(),
        platform: options.platform.to_string(),
        digest: image.digest,
        pulled: since_1970(SystemTime::now()),
        used: since_1970(SystemTime::now()),
    };
    // A name that is new or means another image now is written below, with the lock.
    if let Some(obtained) = unchanged(store, &name)? {
        return Ok(obtained);
    }
    let pulling = store.begin_pull()?;
    if pulling.is_for_this_machine_alone() {
        options
            .progress
            .notice("the store's file system has no locks: remove images only while no other machine uses the store");
    }
    if let Some(record) = store.image(&image.digest)? {
        store.set_name(&name)?;
        return Ok(Obtained { name, record, pulled: false });
    }
    let record = Puller { store, options, source }.make(&image, &name)?;
    drop(pulling);
    store.thin(&record)?;
    Ok(Obtained { name, record, pulled: true })
}

/// The image, if it is there and the name means it already: then nothing is written.
fn unchanged(store: &Store, wanted: &NameRecord) -> Result<Option<Obtained>> {
    let found = store.find(&wanted.reference, &wanted.platform)?;
    let same = found.filter(|(_, record)| record.digest == wanted.digest);
    Ok(same.map(|(name, record)| Obtained { name, record, pulled: false }))
}

struct Puller<'a> {
    store: &'a Store,
    options: &'a Options,
    source: &'a dyn Source,
}

/// A layer that is whole.
struct Whole {
    index: Index,
    files: LayerFiles,
}

/// A layer that this thread makes.
struct Step<'a> {
    layer: &'a Layer,
    making: &'a Making,
    job: &'a Job<'a>,
    bar: progress::Layer,
}

impl Step<'_> {
    fn unpack(&self, blob: impl Read + Send) -> Result<Unpacked> {
        unpack::unpack(self.layer, blob, &self.making.stage()?, self.job, &|bytes| self.bar.fetched(bytes))
    }
}

impl Puller<'_> {
    fn make(&self, image: &Image, name: &NameRecord) -> Result<ImageRecord> {
        self.store.check_room(self.to_fetch(image), image.layers.len())?;
        let layers = self.layers(image).inspect_err(|error| self.make_room(image, error))?;
        let unpacked = |layer: &Digest| layers.get(layer).map_or(0, |whole| whole.index.bytes);
        let record = ImageRecord::of(image, unpacked)?;
        let timings = &self.options.timings;
        let rootfs = timings.measure("merge", || self.rootfs(image, layers))?;
        timings.measure("sync", || self.store.sync())?;
        timings.measure("publish", || self.store.publish(rootfs, &record, name))?;
        Ok(record)
    }

    /// Bytes of the blobs that are not there, as far as their source says. Their files are hardly ever smaller.
    fn to_fetch(&self, image: &Image) -> u64 {
        let missing = image.layers.iter().filter(|l| !self.store.layer_path(&l.diff_id).exists());
        missing.map(|layer| layer.size.unwrap_or_default().saturating_sub(self.store.kept_size(&layer.name()))).sum()
    }

    /// On a full disk nothing is kept for later.
    fn make_room(&self, image: &Image, error: &Error) {
        if matches!(error.errno(), Some(libc::ENOSPC | libc::EDQUOT)) {
            let forgotten = image.layers.iter().try_for_each(|layer| self.store.forget(&layer.name()));
            drop(forgotten); // what remains goes with the next removal
        }
    }

    /// Every layer of the image, by its diff id; those that are not there are unpacked, the largest first.
    fn layers(&self, image: &Image) -> Result<HashMap<Digest, Whole>> {
        let distinct: HashMap<_, _> = image.layers.iter().map(|l| (l.diff_id, l)).collect();
        let mut waiting: Vec<_> = distinct.into_values().collect();
        waiting.sort_by_key(|l| l.size);
        let (threads, job) = (AT_ONCE.min(waiting.len()), self.job());
        let (waiting, done) = (Mutex::new(waiting), Mutex::new(Vec::new()));
        let work = || {
            while let Some(layer) = pop(&waiting) {
                let whole = self.layer(layer, &job).context(|| format!("layer {}", layer.name()));
                let failed = whole.is_err();
                push(&done, whole.map(|whole| (layer.diff_id, whole)));
                // After the push: the others give up because of it, so their errors come later.
                job.stop.fetch_or(failed, Ordering::Relaxed);
            }
        };
        thread::scope(|scope| {
            let (under_way, ended) = mpsc::channel::<()>();
            for _ in 0..threads {
                let (work, under_way) = (&work, under_way.clone());
                scope.spawn(move || {
                    work();
                    drop(under_way);
                });
            }
            drop(under_way);
            if let Err(error) = self.keep_whole(&done, &ended) {
                push(&done, Err(error)); // in its turn: what failed first is told
                job.stop.store(true, Ordering::Relaxed);
            }
        });
        done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }

    /// Gives the layers that are whole their final names from time to time, until the last is: another boot trusts nothing
    /// else.
    fn keep_whole(&self, done: &Mutex<Vec<Result<(Digest, Whole)>>>, ended: &Receiver<()>) -> Result<()> {
        let mut kept = HashSet::new();
        while ended.recv_timeout(self.options.sync_every) == Err(RecvTimeoutError::Timeout) {
            let whole: Vec<_> = lock(done).iter().flatten().map(|(diff_id, _)| *diff_id).collect();
            let whole: Vec<_> = whole.into_iter().filter(|diff_id| kept.insert(*diff_id)).collect();
            if !whole.is_empty() {
                self.store.sync()?;
                whole.iter().try_for_each(|diff_id| self.store.publish_layer(diff_id))?;
            }
        }
        Ok(())
    }

    /// The umask can only be read by setting it, and so before any thread is started.
    fn job(&self) -> Job<'_> {
        let umask = nix::sys::stat::umask(Mode::empty());
        nix::sys::stat::umask(umask);
        Job {
            counted: Counted::within(self.options.max_unpacked),
            umask: umask.bits(),
            stop: AtomicBool::new(false),
            timings: &self.options.timings,
        }
    }

    fn layer(&self, layer: &Layer, job: &Job) -> Result<Whole> {
        if job.stop.load(Ordering::Relaxed) {
            return Err(Error::new("another layer failed"));
        }
        let path = self.store.layer_path(&layer.diff_id);
        if path.exists() {
            return counted(whole(&path)?, job);
        }
        let making = self.store.make_layer(&layer.diff_id)?;
        if path.exists() {
            making.discard()?; // whoever had it before finished it
            return counted(whole(&path)?, job);
        }
        // From here on nobody waits for this pull: others take the layer from where it is, and whoever is first
        // publishes it. The descriptor goes with it.
        if making.is_whole() {
            return counted(whole(making.path())?, job);
        }
        match self.make_whole(layer, &making, job) {
            Ok(()) => whole(making.path()),
            Err(error) => cleared(making, error),
        }
    }

    fn make_whole(&self, layer: &Layer, making: &Making, job: &Job) -> Result<()> {
        let bar = self.options.progress.layer(short(&layer.name()), layer.size);
        let step = Step { layer, making, job, bar };
        match (self.source.far(), layer.digest, layer.size) {
            (Some(far), Some(digest), Some(size)) => self.fetch(far, digest, size, &step)?,
            _ => self.finish(&step, &step.unpack(self.source.blob(layer)?)?)?,
        }
        step.bar.done();
        Ok(())
    }

    /// Makes a layer of a blob from far. What an earlier pull kept of it is not fetched again, unless it proves to be
    /// damaged. It stays when the source fails once more, and goes when the layer is whole, no good, or too large.
    fn fetch(&self, far: &dyn Far, digest: Digest, size: u64, step: &Step) -> Result<()> {
        let rest = |from| far.rest(step.layer, from);
        let mut blob = Resumed::new(self.store.kept(&digest, size)?, size, &rest);
        loop {
            let failed = match step.unpack(&mut blob) {
                Ok(unpacked) => return self.finish(step, &unpacked).and_then(|()| blob.discard()),
                Err(error) => error,
            };
            if blob.was_cut() || step.job.stop.load(Ordering::Relaxed) {
                return Err(failed);
            }
            if blob.had() == 0 || failed.errno().is_some() {
                return blob.discard().and(Err(failed));
            }
            let layer = short(&digest);
            self.options.progress.notice(&format!("{layer}: what was kept of it is damaged; it is fetched again"));
            blob = blob.restarted();
        }
    }

    /// The index is written last: with it the layer counts as whole.
    fn finish(&self, step: &Step, unpacked: &Unpacked) -> Result<()> {
        step.making.finish(&unpacked.index.to_bytes()?)?;
        self.tell(step.layer, unpacked);
        Ok(())
    }

    fn tell(&self, layer: &Layer, unpacked: &Unpacked) {
        let layer = short(&layer.name());
        if unpacked.devices > 0 {
            self.options
                .progress
                .notice(&format!("{layer}: left out {} device nodes, which only root can make", unpacked.devices));
        }
        self.tell_lost(&layer, unpacked.lost_xattrs);
    }

    /// Images that cannot be looked into are of no help, and no harm.
    fn tell_damaged(&self) -> Result<()> {
        for (_, error) in self.store.damaged()? {
            self.options
                .progress
                .notice(&format!("{error:#}; nothing is shared with it, `gpurun prune` takes it away"));
        }
        Ok(())
    }

    fn tell_lost(&self, whose: &str, xattrs: u64) {
        if xattrs > 0 {
            self.options.progress.notice(&format!("{whose}: the store cannot hold {xattrs} extended attributes"));
        }
    }

    /// The tree of all layers, unless it is there.
    fn rootfs(&self, image: &Image, layers: HashMap<Digest, Whole>) -> Result<Option<Making>> {
        let chain_id = image.chain_id();
        let path = self.store.rootfs_path(&chain_id);
        if path.exists() {
            return Ok(None);
        }
        let making = self.store.make_rootfs(&chain_id)?;
        if path.exists() {
            making.discard()?;
            return Ok(None);
        }
        match self.build(image, layers, making.path()) {
            Ok(()) => Ok(Some(making)),
            Err(error) => cleared(making, error),
        }
    }

    fn build(&self, image: &Image, mut layers: HashMap<Digest, Whole>, path: &Path) -> Result<()> {
        self.find_files(&mut layers)?;
        let ordered: Vec<_> = image.layers.iter().filter_map(|l| layers.get(&l.diff_id)).collect();
        let directories = Tree::of(ordered.iter().map(|l| &l.index))?.directories()?;
        let files: Vec<_> = ordered.iter().map(|l| &l.files).collect();
        let max_copied = self.options.max_unpacked;
        let degraded = crate::store::build_rootfs(&directories, &files, &path.join("root"), max_copied)?;
        self.tell_lost("directories", degraded.lost_xattrs);
        if degraded.copies > 0 {
            let notice = format!("the store can give files no second name: {} are copies", degraded.copies);
            self.options.progress.notice(&notice);
        }
        Ok(())
    }

    /// The files of a layer that was published, perhaps since this pull opened it, may be in another image's rootfs.
    fn find_files(&self, layers: &mut HashMap<Digest, Whole>) -> Result<()> {
        let published: HashSet<_> =
            layers.keys().filter(|diff_id| self.store.layer_path(diff_id).exists()).copied().collect();
        if !published.is_empty() {
            self.tell_damaged()?;
        }
        for (diff_id, shown) in self.store.shown(&published)? {
            if let Some(layer) = layers.get_mut(&diff_id) {
                layer.files.are_also(shown);
            }
        }
        Ok(())
    }
}

/// A bomb leaves nothing. What cannot be taken away now goes with the next pull.
fn cleared<T>(making: Making, error: Error) -> Result<T> {
    let _ = making.discard();
    Err(error)
}

fn whole(path: &Path) -> Result<Whole> {
    Ok(Whole { index: Index::read(path)?, files: LayerFiles::open(path)? })
}

/// A layer that this pull found whole.
fn counted(whole: Whole, job: &Job) -> Result<Whole> {
    job.counted.whole(&whole.index)?;
    Ok(whole)
}

fn pop<T>(list: &Mutex<Vec<T>>) -> Option<T> {
    lock(list).pop()
}

fn push<T>(list: &Mutex<Vec<T>>, item: T) {
    lock(list).push(item);
}

fn lock<T>(list: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The start of a digest, enough to tell layers apart.
fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}
