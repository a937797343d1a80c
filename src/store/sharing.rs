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

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

use super::lock::Lock;
use super::{ImageRecord, Store, copy, parallel, path_of};
use crate::error::{Context, Error, Result};
use crate::image::Digest;
use crate::layer::change::Index;
use crate::layer::tree::{Directory, Tree};

/// Files of a layer that a rootfs shows, by their number in its stage.
pub type Shown = HashMap<u64, PathBuf>;

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
        let shown = self.elsewhere.get(&number).ok_or_else(missing).context(what)?;
        match link_or_copy(AT_FDCWD, shown.as_os_str().as_encoded_bytes(), dir, name) {
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
            for (layer, number, path) in self.shown_if_sound(image) {
                all.entry(layer).or_default().entry(number).or_insert(path);
            }
        }
        Ok(all)
    }

    /// Takes away the second names that the image's files have in stages, unless another process is pulling.
    pub fn thin(&self, record: &ImageRecord) -> Result<()> {
        match Lock::try_exclusive(&self.root.join("lock"))? {
            Some(_lock) => self.thin_locked(record),
            None => Ok(()),
        }
    }

    /// The same, for a caller that has the store's lock.
    pub(super) fn thin_locked(&self, record: &ImageRecord) -> Result<()> {
        parallel::each(&self.shown_if_sound(record), |(layer, number, _)| remove_if_there(&self.staged(layer, *number)))
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
        for (layer, number, path) in
            self.shown_if_sound(record).into_iter().filter(|(layer, ..)| shared.contains(layer))
        {
            let staged = self.staged(&layer, number);
            match linkat(AT_FDCWD, &path, AT_FDCWD, &staged, AtFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => {} // it may be lost, and whoever needs it says so
                Err(e) if copy::is_needed(e) => {
                    let what = || format!("rename `{}` to `{}`", path.display(), staged.display());
                    std::fs::rename(&path, &staged).context(what)?; // the image goes anyway
                }
                Err(e) => return Err(e).context(|| format!("link `{}` to its layer's stage", path.display())),
            }
        }
        Ok(())
    }

    /// What an image shows, if its layers' indexes can be read. Where they cannot, whoever needs such a layer says so; other
    /// images must not suffer, and it must be possible to remove this one.
    fn shown_if_sound(&self, image: &ImageRecord) -> Vec<(Digest, u64, PathBuf)> {
        self.shown_by(image).unwrap_or_default()
    }

    /// Every file that an image shows: its layer, its number there, and where. What is below a directory that its owner may
    /// not search can be reached by nobody, and keeps its name in the stage.
    fn shown_by(&self, image: &ImageRecord) -> Result<Vec<(Digest, u64, PathBuf)>> {
        let root = self.rootfs_path(&image.chain_id).join("root");
        let indexes = image.diff_ids().map(|layer| self.index(&layer)).collect::<Result<Vec<_>>>()?;
        let diff_ids: Vec<_> = image.diff_ids().collect();
        let of = |directory: Directory| {
            let dir = path_of(&root, &directory.path);
            let file = move |(name, staged): (Vec<u8>, crate::layer::tree::Staged)| (staged, path_of(&dir, &name));
            directory.files.into_iter().map(file).collect::<Vec<_>>()
        };
        let files = open(Tree::of(&indexes)?.directories()?).flat_map(of);
        Ok(files.map(|(staged, path)| (diff_ids[staged.layer], staged.number, path)).collect())
    }

    fn index(&self, layer: &Digest) -> Result<Index> {
        Index::read(&self.layer_path(layer))
    }

    fn staged(&self, layer: &Digest, number: u64) -> PathBuf {
        self.layer_path(layer).join("files").join(number.to_string())
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
