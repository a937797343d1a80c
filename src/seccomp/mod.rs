//! Seccomp: which system calls the workload may make, and which are only pretended to have worked.
//!
//! In: `--seccomp` ([`Wanted`]), `--fakeroot`, the kernel's version, the workload's capabilities. Out: a [`Filter`]: what it
//! is in the words of an OCI runtime spec, and the program that the kernel is given. Pure, but for reading the profile's
//! file. Installed by `launch/workload.rs`, last of all before the exec.

mod compile;
pub mod fakeroot;
mod profile;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompBuilder, LinuxSeccompFilterFlag};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use profile::Profile;

/// Docker's default profile: moby 26.1.5, `profiles/seccomp/default.json`, Apache-2.0, unchanged.
const DOCKERS: &[u8] = include_bytes!("default.json");

/// The largest profile that is read.
const MAX_PROFILE: u64 = 1 << 20;

/// What `--seccomp` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// `none`: no system call is refused by gpurun.
    #[default]
    None,
    /// `default`: Docker's own profile.
    Default,
    /// A profile in Docker's format.
    File(PathBuf),
}

impl Wanted {
    /// Parses the argument of `--seccomp`.
    pub fn parse(text: &std::ffi::OsStr) -> Result<Self> {
        match text.to_str() {
            Some("none") => Ok(Self::None),
            Some("default") => Ok(Self::Default),
            Some("") => Err(Error::new("`--seccomp` is `default`, `none`, or the path of a profile")),
            _ => Ok(Self::File(text.into())),
        }
    }

    /// The profile's text, and where it is from.
    fn read(&self) -> Result<Option<(std::borrow::Cow<'static, [u8]>, String)>> {
        Ok(match self {
            Self::None => None,
            Self::Default => Some((DOCKERS.into(), "--seccomp default".into())),
            Self::File(path) => Some((read_file(path)?.into(), format!("--seccomp {}", path.display()))),
        })
    }
}

/// What the kernel decides system calls by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Filter {
    /// The rules, as a runtime spec has them.
    pub rules: LinuxSeccomp,
    /// Names in the profile of system calls that this architecture has not: the rules leave them out.
    pub unknown: Vec<String>,
    /// What is done to a program of another architecture (32-bit), whose calls have other numbers.
    pub foreign: LinuxSeccompAction,
    /// The same as instructions for the kernel.
    #[serde(skip)]
    pub program: Vec<seccompiler::sock_filter>,
    /// Why.
    pub why: String,
}

impl Filter {
    /// With its program, which does not go where it is written.
    pub fn compiled(self) -> Result<Self> {
        Ok(Self { program: compile::compile(&self.rules, self.foreign)?, ..self })
    }
}

/// The filter that the options mean; `None` if nothing is to be filtered. `kernel` is its major and minor version,
/// `kept` the capabilities of the workload: a command of `exec` gets the same filter, whoever it is.
pub fn decide(wanted: &Wanted, fakeroot: bool, kernel: (u32, u32), kept: &[Capability]) -> Result<Option<Filter>> {
    let profile = wanted.read()?;
    let mut whys: Vec<_> = profile.iter().map(|(_, why)| why.clone()).collect();
    let mut filter = match profile {
        Some((text, why)) => {
            let what = || format!("read the seccomp profile ({why})");
            let resolved = Profile::parse(&text).and_then(|profile| profile.resolve(kernel, kept)).context(what)?;
            Some((resolved, LinuxSeccompAction::ScmpActKillProcess))
        }
        None => None,
    };
    if fakeroot {
        whys.push("--fakeroot".into());
        let (rules, foreign) = filter.unwrap_or((all_allowed()?, LinuxSeccompAction::ScmpActAllow));
        filter = Some((fakeroot::before(rules), foreign));
    }
    let Some((mut rules, foreign)) = filter else { return Ok(None) };
    let why = whys.join(", ");
    let unknown = compile::drop_unknown(&mut rules);
    let program = compile::compile(&rules, foreign).context(|| format!("compile the seccomp filter ({why})"))?;
    Ok(Some(Filter { rules, unknown, foreign, program, why }))
}

fn all_allowed() -> Result<LinuxSeccomp> {
    let rules = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .flags([LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow]);
    rules.build().context(|| "describe the seccomp filter")
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("read the seccomp profile `{}`", path.display());
    let size = std::fs::metadata(path).context(what)?.len();
    if size > MAX_PROFILE {
        return Err(Error::new(format!("it is larger than {MAX_PROFILE} bytes"))).context(what);
    }
    std::fs::read(path).context(what)
}
