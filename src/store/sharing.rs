//! Where the files of a layer are. A file has one name for each rootfs that shows it, and one in the stage of its layer
//! only while no rootfs does: so link counts are what the image says, until images share a layer.
//!
//! Hard links and not reflinks, where there is a choice: what two images share is then one file in the page cache as well, and
//! nothing here is ever written, so that blocks of one's own would gain nothing but link counts.
//!
//! In: layers and images of the store. Out: for each layer its stage, and what of it is elsewhere. Pulls look; what
//! changes stages runs with the store's lock exclusive.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

use super::lock::Lock;
use super::{ImageRecord, Store, copy, parallel, path_of};
use crate::error::{Context, Error, Result};
use crate::image::Digest;
use crate::layer::change::{Index, MAX_NAME, MAX_PATH};
use crate::layer::tree::{Directory, Tree};

/// Files of a layer that a rootfs shows, by their number in its stage: the directory, and the name there. Files of one
/// directory share its path, which may be long.
pub type Shown = HashMap<u64, (Arc<Path>, Vec<u8>)>;

/// All files of a layer.
#[derive(Debug)]
pub struct LayerFiles {
    /// Its stage, which is looked at first.
    stage: OwnedFd,
    /// What is not there.
    elsewhere: Shown,
}

impl LayerFiles {
    /// The files of the layer at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let stage = path.join("files");
        let stage = File::open(&stage).context(|| format!("open `{}`", stage.display()))?;
        Ok(Self { stage: stage.into(), elsewhere: Shown::new() })
    }

    /// Where files are that the stage has no name for.
    pub fn are_also(&mut self, shown: Shown) {
        self.elsewhere = shown;
    }

    /// Gives the file of this number one more name, or makes a copy where that cannot be: then the bytes that it has.
    pub(super) fn link(&self, number: u64, dir: &OwnedFd, name: &[u8]) -> Result<Option<u64>> {
        let what = || format!("link file {number} of a layer to `{}`", String::from_utf8_lossy(name));
        match link_or_copy(self.stage.as_fd(), number.to_string().as_bytes(), dir, name) {
            Err(e) if e.is_io(ErrorKind::NotFound) => {}
            done => return done.context(what),
        }
        let missing =
            || Error::new("the store has lost it").hint("`gpurun rm` the images that share the layer, and pull again");
        let (shown, as_name) = self.elsewhere.get(&number).ok_or_else(missing).context(what)?;
        match link_or_copy(AT_FDCWD, path_of(shown, as_name).as_os_str().as_encoded_bytes(), dir, name) {
            Err(e) if e.is_io(ErrorKind::NotFound) => Err(missing()).context(what),
            done => done.context(what),
        }
    }
}

/// The bytes that it has, if it had to be a copy.
fn link_or_copy(from: BorrowedFd, old: &[u8], dir: &OwnedFd, new: &[u8]) -> Result<Option<u64>> {
    match linkat(from, old, dir, new, AtFlags::empty()) {
        Err(e) if copy::is_needed(e) => copy::copy(from, old, dir.as_fd(), new).map(Some),
        done => done.map(|()| None).map_err(std::io::Error::from).context(|| "linkat"),
    }
}

impl Store {
    /// What the rootfs in the store show of these layers.
    pub fn shown(&self, layers: &HashSet<Digest>) -> Result<HashMap<Digest, Shown>> {
        let mut all: HashMap<_, Shown> = HashMap::new();
        if layers.is_empty() {
            return Ok(all);
        }
        for image in self.images()?.iter().filter(|image| image.shares(layers)) {
            let showing = self.shown_if_sound(image);
            for directory in &showing.directories {
                let dir: Arc<Path> = showing.path_of(directory).into();
                for (layer, number, name) in showing.files(directory).filter(|(layer, ..)| layers.contains(layer)) {
                    all.entry(layer).or_default().entry(number).or_insert_with(|| (Arc::clone(&dir), name.to_vec()));
                }
            }
        }
        Ok(all)
    }

    /// Takes away the second names that the image's files have in stages, unless another process is pulling: one on
    /// another machine perhaps, where nobody can know.
    pub fn thin(&self, record: &ImageRecord) -> Result<()> {
        match Lock::try_exclusive(&self.root.join("lock"))? {
            Some(lock) if !lock.is_local() => self.thin_locked(record),
            _ => Ok(()),
        }
    }

    /// The same, for a caller that has the store's lock.
    pub(super) fn thin_locked(&self, record: &ImageRecord) -> Result<()> {
        let showing = self.shown_if_sound(record);
        parallel::each(&showing.directories, |directory| {
            showing.files(directory).try_for_each(|(layer, number, _)| remove_if_there(&self.staged(&layer, number)))
        })
    }

    /// Gives the files that only this image shows their names in stages back, as far as other images have the layers.
    /// The caller has the store's lock.
    pub(super) fn fatten(&self, record: &ImageRecord) -> Result<()> {
        let others: Vec<_> = self.images()?.into_iter().filter(|image| image.digest != record.digest).collect();
        if others.iter().any(|other| other.chain_id == record.chain_id) {
            return Ok(()); // its rootfs stays
        }
        let shared: HashSet<_> = others.iter().flat_map(ImageRecord::diff_ids).collect();
        if !record.shares(&shared) {
            return Ok(()); // nothing of it is needed, so it may as well be damaged
        }
        let showing = self.shown_if_sound(record);
        for directory in &showing.directories {
            let dir = showing.path_of(directory);
            for (layer, number, name) in showing.files(directory).filter(|(layer, ..)| shared.contains(layer)) {
                give_back(&path_of(&dir, name), &self.staged(&layer, number))?;
            }
        }
        Ok(())
    }

    /// What an image shows, if its layers' indexes can be read. Where they cannot, whoever needs such a layer says so; other
    /// images must not suffer, and it must be possible to remove this one.
    fn shown_if_sound(&self, image: &ImageRecord) -> Showing {
        self.shown_by(image).unwrap_or_default()
    }

    /// An image can list a layer hundreds of times: its index is read once.
    fn shown_by(&self, image: &ImageRecord) -> Result<Showing> {
        let layers: Vec<_> = image.diff_ids().collect();
        let distinct: HashSet<_> = layers.iter().collect();
        let indexes =
            distinct.into_iter().map(|layer| Ok((layer, self.index(layer)?))).collect::<Result<HashMap<_, _>>>()?;
        let root = self.rootfs_path(&image.chain_id).join("root");
        let has_short_path = |d: &Directory| path_of(&root, &d.path).as_os_str().len() < MAX_PATH - MAX_NAME;
        let directories = open(Tree::of(layers.iter().map(|layer| &indexes[layer]))?.directories()?);
        Ok(Showing { directories: directories.filter(has_short_path).collect(), root, layers })
    }

    fn index(&self, layer: &Digest) -> Result<Index> {
        Index::read(&self.layer_path(layer))
    }

    fn staged(&self, layer: &Digest, number: u64) -> PathBuf {
        self.layer_path(layer).join("files").join(number.to_string())
    }
}

/// What an image shows. What is below a directory that its owner may not search can be reached by nobody, nor can what has
/// too long a path here: they keep their names in the stage.
#[derive(Default)]
struct Showing {
    root: PathBuf,
    layers: Vec<Digest>,
    directories: Vec<Directory>,
}

impl Showing {
    fn path_of(&self, directory: &Directory) -> PathBuf {
        path_of(&self.root, &directory.path)
    }

    /// The files of a directory: the layer of each, its number there, and its name.
    fn files<'d>(&self, directory: &'d Directory) -> impl Iterator<Item = (Digest, u64, &'d [u8])> {
        directory.files.iter().map(|(name, staged)| (self.layers[staged.layer], staged.number, name.as_slice()))
    }
}

/// Gives a file that goes with its image its name in the stage back.
fn give_back(shown: &Path, staged: &Path) -> Result<()> {
    match linkat(AT_FDCWD, shown, AT_FDCWD, staged, AtFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => Ok(()), // it may be lost, and whoever needs it says so
        Err(e) if copy::is_needed(e) => {
            let what = || format!("rename `{}` to `{}`", shown.display(), staged.display());
            std::fs::rename(shown, staged).context(what) // the image goes anyway
        }
        Err(e) => Err(e).context(|| format!("link `{}` to its layer's stage", shown.display())),
    }
}

/// The directories that their owner may search, with all above them. Parents come before their children.
fn open(directories: Vec<Directory>) -> impl Iterator<Item = Directory> {
    let mut closed = HashSet::new();
    directories.into_iter().filter(move |directory| {
        let parent = directory.path.iter().rposition(|&b| b == b'/').map_or(&b""[..], |at| &directory.path[..at]);
        let open = directory.attributes.mode & 0o100 != 0 && !closed.contains(parent);
        if !open {
            closed.insert(directory.path.clone());
        }
        open
    })
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(|| format!("remove `{}`", path.display())),
        _ => Ok(()),
    }
}
