//! A layout in a directory: files by name, regular ones only.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{Files, Opened};
use crate::error::{Context, Error, Result};

/// The directory. The names asked of it are our own: fixed ones, and digests.
#[derive(Debug)]
pub(super) struct Dir(pub(super) PathBuf);

impl Files for Dir {
    fn open(&self, name: &str) -> Result<Opened> {
        let path = self.0.join(name);
        let what = || format!("open `{}`", path.display());
        // Without O_NONBLOCK a FIFO would keep us waiting for a writer.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).context(what)?;
        let meta = file.metadata().context(what)?;
        match meta.is_file() {
            true => Ok(Opened { reader: Box::new(file), size: meta.len() }),
            false => Err(Error::new("it is not a regular file")).context(what),
        }
    }
}
