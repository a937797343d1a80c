//! The supervisor's label: which run it is, for `ps` and `exec` to find under /proc.
//!
//! In: the plan and the launched process. Out: a sealed file in memory that the supervisor holds open, and nobody else:
//! there is no state directory, and nothing to clean up. [`read`] finds the label of any process.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use oci_spec::runtime::Capability;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::plan::Plan;
use crate::plan::idmap::Mapping;
use crate::seccomp::Filter;

/// Where the link of the supervisor's descriptor leads.
const LINK: &str = "/memfd:gpurun (deleted)";

/// The longest label that is read.
const MAX_LABEL: u64 = 16 << 20;

/// What a run says of itself. It may be read by a newer gpurun, or an older one: what is added is optional.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Label {
    /// PID of the launched process, in the supervisor's PID namespace.
    pub init: i32,
    /// `--name`
    pub name: Option<String>,
    /// Slurm's `JOB.STEP`
    pub step: Option<String>,
    /// Canonical reference of the image.
    pub image: String,
    /// Digest of its manifest.
    pub digest: Option<String>,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups inside; `None` for the caller's.
    pub groups: Option<Vec<u32>>,
    /// All ids that there are inside; none in the label of a gpurun that mapped one id only.
    pub map: Option<Mapping>,
    /// What its system calls are decided by.
    pub seccomp: Option<Filter>,
    /// The capabilities it keeps.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Command and arguments, as text.
    pub command: Vec<String>,
    /// The UUIDs of the GPUs, or their PCI addresses.
    pub gpus: Vec<String>,
}

impl Label {
    /// The label of a plan whose launched process is `init`.
    pub(super) fn of(plan: &Plan, init: Pid) -> Self {
        let gpus = plan.injection.gpus.iter().map(|g| g.uuid.clone().unwrap_or_else(|| g.pci.clone()));
        Self {
            init: init.as_raw(),
            name: plan.name.clone(),
            step: plan.step.clone(),
            image: plan.image.reference.clone(),
            digest: plan.image.digest.clone(),
            uid: plan.user.uid,
            gid: plan.user.gid,
            groups: plan.user.groups.clone(),
            map: Some(plan.user.map.clone()),
            seccomp: plan.seccomp.clone(),
            capabilities: plan.process.capabilities.clone(),
            command: plan.process.argv.iter().map(|a| a.to_string_lossy().into_owned()).collect(),
            gpus: gpus.collect(),
        }
    }

    /// Shows it as long as the descriptor is open.
    pub(super) fn show(&self) -> Result<OwnedFd> {
        let what = || "label this run";
        let label = memfd_create(c"gpurun", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).context(what)?;
        let mut file = File::from(label);
        file.write_all(&serde_json::to_vec(self).context(what)?).context(what)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all())).context(what)?;
        Ok(file.into())
    }
}

/// The label of the process whose directory in /proc this is; `None` if it has none or ends meanwhile.
pub fn read(process: &Path) -> Option<Label> {
    let fds = std::fs::read_dir(process.join("fd")).ok()?.flatten();
    let is_label = |link: &Path| std::fs::read_link(link).is_ok_and(|to| to == Path::new(LINK));
    let label = fds.map(|fd| fd.path()).find(|link| is_label(link))?;
    let mut json = Vec::new();
    // By its link the file is opened anew, so it is read from the start.
    File::open(label).ok()?.take(MAX_LABEL).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_an_older_gpurun_is_one() {
        let facts = r#""init": 7, "name": "n", "image": "dir:/x", "uid": 1, "gid": 2, "command": ["sh"], "gpus": []"#;
        let label: Label = serde_json::from_str(&format!("{{{facts}}}")).unwrap();
        assert_eq!((label.init, label.name.as_deref(), label.map, label.capabilities), (7, Some("n"), None, vec![]));
    }
}
