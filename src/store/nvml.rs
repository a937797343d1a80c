//! What NVML said of a machine, so that it need not be asked again.
//!
//! In: a digest of all that the answers depend on, the answers. Out: the answers, or nothing: to ask again is always right,
//! so what cannot be read was never there.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Store, delete, make_private_dirs, record};
use crate::error::{Context, Result};
use crate::image::Digest;

impl Store {
    /// What NVML said of a machine in this state.
    pub fn nvml<T: DeserializeOwned>(&self, state: &Digest) -> Option<T> {
        record::load(&self.nvml_path(state)).ok()??.ok()
    }

    /// Keeps what NVML said of a machine in this state.
    pub fn keep_nvml(&self, state: &Digest, answers: &impl Serialize) -> Result<()> {
        let dir = self.root.join("nvml");
        make_private_dirs(&dir).context(|| format!("mkdir `{}`", dir.display()))?;
        record::write(&self.nvml_path(state), answers)
    }

    /// Forgets all machines: it is not known which of them will be seen again.
    pub(super) fn forget_nvml(&self) -> Result<()> {
        delete::tree(&self.root.join("nvml"))
    }

    fn nvml_path(&self, state: &Digest) -> PathBuf {
        self.root.join("nvml").join(format!("{}.json", state.hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_was_never_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store { root: dir.path().join("store") };
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        assert_eq!(store.nvml::<String>(&one), None);
        store.keep_nvml(&one, &"answers").unwrap();
        assert_eq!(store.nvml::<String>(&one).as_deref(), Some("answers"));
        assert_eq!(store.nvml::<String>(&two), None);
        std::fs::write(store.nvml_path(&one), "\"answ").unwrap();
        assert_eq!(store.nvml::<String>(&one), None);
        store.forget_nvml().unwrap();
        assert!(!store.root.join("nvml").exists());
        store.forget_nvml().unwrap();
    }
}
