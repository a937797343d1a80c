//! ImageRef → an image in the store: looked up, or fetched and unpacked.
//!
//! In: a reference, the store, and when to ask the registry. Out: the record of an image whose rootfs is there. Runs
//! before the launch; its threads are joined when it returns.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::stat::Mode;

use crate::cli::Pull;
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Image, Layer, Platform};
use crate::layer::change::Index;
use crate::layer::tree::Tree;
use crate::layer::unpack::{self, Unpacked, Watch};
use crate::progress::Progress;
use crate::reference::ImageRef;
use crate::source::Source;
use crate::store::{ImageRecord, LayerFiles, Making, NameRecord, Store};

/// Layers that are unpacked at once. Each has four threads, of which inflating is the slowest.
const AT_ONCE: usize = 4;

/// How an image is obtained.
pub struct Options {
    /// When to ask where it comes from.
    pub when: Pull,
    /// What it must be built for.
    pub platform: Platform,
    /// The most bytes that its layers may unpack to, each.
    pub max_unpacked: u64,
    /// Where it is shown.
    pub progress: Arc<Progress>,
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
    open().and_then(|source| pull(&name, store, options, &*source)).context(|| format!("pull `{name}`"))
}

fn pull(reference: &str, store: &Store, options: &Options, source: &dyn Source) -> Result<Obtained> {
    let image = source.image(&options.platform)?;
    let name = NameRecord {
        reference: reference.into(),
        platform: options.platform.to_string(),
        digest: image.digest,
        pulled: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
    };
    if let Some(record) = store.image(&image.digest)? {
        return known(store, name, record);
    }
    let pulling = store.begin_pull()?;
    let record = Puller { store, options, source }.make(&image, &name)?;
    drop(pulling);
    store.thin(&record)?;
    Ok(Obtained { name, record, pulled: true })
}

/// The image is there already; only its name may be new.
fn known(store: &Store, name: NameRecord, record: ImageRecord) -> Result<Obtained> {
    match store.find(&name.reference, &name.platform)? {
        Some((name, old)) if old.digest == record.digest => Ok(Obtained { name, record, pulled: false }),
        _ => {
            let _pulling = store.begin_pull()?;
            store.set_name(&name)?;
            Ok(Obtained { name, record, pulled: false })
        }
    }
}

struct Puller<'a> {
    store: &'a Store,
    options: &'a Options,
    source: &'a dyn Source,
}

/// A layer that is whole: where its stage is, and, if this pull must still give it its name, the making of it.
struct Whole {
    path: PathBuf,
    index: Index,
    making: Option<Making>,
}

impl Puller<'_> {
    fn make(&self, image: &Image, name: &NameRecord) -> Result<ImageRecord> {
        let mut layers = self.layers(image)?;
        let unpacked = layers.values().map(|l| l.index.bytes).sum();
        let record = ImageRecord::of(image, unpacked)?;
        let rootfs = self.rootfs(image, &layers)?;
        let mut made = Vec::new();
        for (diff_id, layer) in &mut layers {
            made.extend(layer.making.take().map(|making| (making, self.store.layer_path(diff_id))));
        }
        made.extend(rootfs.map(|making| (making, self.store.rootfs_path(&record.chain_id))));
        self.store.publish(made, &record, name)?;
        Ok(record)
    }

    /// Every layer of the image, by its diff id; those that are not there are unpacked, the largest first.
    fn layers(&self, image: &Image) -> Result<HashMap<Digest, Whole>> {
        let distinct: HashMap<_, _> = image.layers.iter().map(|l| (l.diff_id, l)).collect();
        let mut waiting: Vec<_> = distinct.into_values().collect();
        waiting.sort_by_key(|l| l.size);
        let (threads, umask) = (AT_ONCE.min(waiting.len()), umask());
        let (waiting, done, stop) = (Mutex::new(waiting), Mutex::new(Vec::new()), AtomicBool::new(false));
        let work = || {
            while let Some(layer) = pop(&waiting) {
                let whole = self.layer(layer, umask, &stop).context(|| format!("layer {}", layer.name()));
                let failed = whole.is_err();
                push(&done, whole.map(|whole| (layer.diff_id, whole)));
                // After the push: the others give up because of it, so their errors come later.
                stop.fetch_or(failed, Ordering::Relaxed);
            }
        };
        thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }

    fn layer(&self, layer: &Layer, umask: u32, stop: &AtomicBool) -> Result<Whole> {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new("another layer failed"));
        }
        let path = self.store.layer_path(&layer.diff_id);
        if path.exists() {
            return whole(path, None);
        }
        let making = self.store.make(&format!("layer-{}", layer.diff_id.hex()))?;
        if path.exists() {
            making.discard()?; // whoever had it before finished it
            return whole(path, None);
        }
        if !making.is_whole() {
            self.unpack(layer, &making, umask, stop)?;
        }
        whole(making.path().to_owned(), Some(making))
    }

    /// Fetches and unpacks a layer. The index is written last: with it the layer counts as whole.
    fn unpack(&self, layer: &Layer, making: &Making, umask: u32, stop: &AtomicBool) -> Result<()> {
        let bar = self.options.progress.layer(short(&layer.name()), layer.size);
        let stage = making.path().join("files");
        std::fs::create_dir(&stage).context(|| format!("mkdir `{}`", stage.display()))?;
        let watch = Watch { fetched: &|bytes| bar.fetched(bytes), stop };
        let options = unpack::Options { max_unpacked: self.options.max_unpacked, umask };
        let unpacked = unpack::unpack(layer, self.source.blob(layer)?, &stage, &options, watch)?;
        making.finish(&unpacked.index.to_bytes()?)?;
        bar.done();
        self.tell(layer, &unpacked);
        Ok(())
    }

    fn tell(&self, layer: &Layer, unpacked: &Unpacked) {
        let layer = short(&layer.name());
        if unpacked.devices > 0 {
            self.options
                .progress
                .notice(&format!("{layer}: left out {} device nodes, which only root can make", unpacked.devices));
        }
        if unpacked.lost_xattrs > 0 {
            self.options
                .progress
                .notice(&format!("{layer}: the store cannot hold {} extended attributes", unpacked.lost_xattrs));
        }
    }

    /// The tree of all layers, unless it is there.
    fn rootfs(&self, image: &Image, layers: &HashMap<Digest, Whole>) -> Result<Option<Making>> {
        let chain_id = image.chain_id();
        let path = self.store.rootfs_path(&chain_id);
        if path.exists() {
            return Ok(None);
        }
        let making = self.store.make(&format!("rootfs-{}", chain_id.hex()))?;
        if path.exists() {
            making.discard()?;
            return Ok(None);
        }
        let ordered: Vec<_> = image.layers.iter().filter_map(|l| layers.get(&l.diff_id)).collect();
        let directories = Tree::of(ordered.iter().map(|l| &l.index))?.directories()?;
        crate::store::build_rootfs(&directories, &self.files(image, layers)?, &making.path().join("root"))?;
        Ok(Some(making))
    }

    /// Where the files of every layer are. Those of a layer that was there before may be in another image's rootfs.
    fn files(&self, image: &Image, layers: &HashMap<Digest, Whole>) -> Result<Vec<LayerFiles>> {
        let before = layers.iter().filter(|(_, layer)| layer.making.is_none()).map(|(diff_id, _)| *diff_id).collect();
        let shown = self.store.shown(&before)?;
        let files = |layer: &Layer| {
            let whole = layers.get(&layer.diff_id).context(|| "a layer was not unpacked")?;
            LayerFiles::open(&whole.path, shown.get(&layer.diff_id).cloned().unwrap_or_default())
        };
        image.layers.iter().map(files).collect()
    }
}

fn whole(path: PathBuf, making: Option<Making>) -> Result<Whole> {
    Ok(Whole { index: Index::read(&path)?, path, making })
}

fn pop<T>(list: &Mutex<Vec<T>>) -> Option<T> {
    list.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn push<T>(list: &Mutex<Vec<T>>, item: T) {
    list.lock().unwrap_or_else(PoisonError::into_inner).push(item);
}

/// The start of a digest, enough to tell layers apart.
fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}

/// The process's umask, which can only be read by setting it: before any thread is started.
fn umask() -> u32 {
    let mask = nix::sys::stat::umask(Mode::empty());
    nix::sys::stat::umask(mask);
    mask.bits()
}
