//! Subordinate ids, which the host's setuid newuidmap and newgidmap alone may map.
//!
//! In: the plan's mapping. Out: the supervisor's maps are written. Runs in a child of the supervisor that is forked before
//! the namespaces are made and stays outside of them: inside, a setuid program gains nothing. The programs get no
//! environment, no stream but one for what they have to say, and nothing of the image (CVE-2025-23266).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::SigSet;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};

use super::stream_pair;
use crate::error::{Context, Error, Result};
use crate::plan::idmap::{IdMap, Mappers, Mapping};
use crate::sys::{self, Fork};

/// The child, waiting for the word.
pub(super) struct Mapper {
    child: Pid,
    line: UnixStream,
}

impl Mapper {
    /// Forks it; `None` if nothing but the caller's own id is to be mapped.
    pub(super) fn fork(mapping: &Mapping) -> Result<Option<Self>> {
        let Some(mappers) = &mapping.mappers else { return Ok(None) };
        let (supervisor, (ours, childs)) = (getpid(), stream_pair()?);
        match sys::fork()? {
            Fork::Parent(child) => Ok(Some(Self { child, line: ours.into() })),
            Fork::Child => {
                drop(ours);
                let _ = SigSet::empty().thread_set_mask(); // a terminal's keys end what takes too long
                serve(childs.into(), || write_maps(supervisor, mappers, mapping));
                sys::exit_now(0)
            }
        }
    }

    /// Has it write the maps of this process, which is in its new user namespace by now.
    pub(super) fn map(mut self) -> Result<()> {
        let mut told = String::new();
        self.line.write_all(b".").context(|| "give the word to map ids")?;
        self.line.read_to_string(&mut told).context(|| "wait for the ids to be mapped")?;
        waitpid(self.child, None).context(|| format!("wait for process {}", self.child))?;
        match told.strip_prefix(DONE) {
            Some("") => Ok(()),
            None if told.is_empty() => Err(Error::new("a signal has ended what maps the subordinate ids")),
            _ => Err(Error::new(format!("map the subordinate ids: {told}")).hint(
                "`--ids single` needs none; setuid programs do nothing in a container, under no_new_privs or on a \
                 nosuid mount",
            )),
        }
    }
}

/// What it answers if there is nothing to complain of.
const DONE: &str = "done";

/// Without a word from the supervisor, which has failed or is gone, nothing is mapped.
fn serve(mut line: UnixStream, map: impl FnOnce() -> Result<()>) {
    if line.read_exact(&mut [0]).is_err() {
        return;
    }
    let answer = map().map_or_else(|error| format!("{error:#}"), |()| DONE.into());
    let _ = line.write_all(answer.as_bytes()); // the supervisor may be gone
}

fn write_maps(supervisor: Pid, mappers: &Mappers, mapping: &Mapping) -> Result<()> {
    call(&mappers.newuidmap, supervisor, &mapping.uids)?;
    call(&mappers.newgidmap, supervisor, &mapping.gids)
}

fn call(program: &Path, process: Pid, map: &IdMap) -> Result<()> {
    let numbers = map.extents().iter().flat_map(|e| [e.inside, e.outside, e.count]);
    let mut command = Command::new(program);
    command.arg(process.to_string()).args(numbers.map(|number| number.to_string())).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let finished = command.output().context(|| format!("execute `{}`", program.display()))?;
    let told = String::from_utf8_lossy(&finished.stderr).trim().replace('\n', "; ");
    match finished.status.success() {
        true => Ok(()),
        false => Err(Error::new(format!("`{}` refused: {told} ({})", program.display(), finished.status))),
    }
}
