//! What a run asks for: the options of the command line, each parsed into a value.
//!
//! In: [`RunArgs`] and the caller's directories. Out: [`Request`], which plan decides by. Only `--env-file` is read from
//! disk here; whether a bind's source exists is looked at by [`Request::check_sources`], before anything starts.

mod devices;
mod mounts;
mod quantities;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cdi;
use crate::cli::{EnvPolicy, IdMode, Network, Pid, RunArgs};
use crate::config::Given;
use crate::error::{Context, Error, Result};
use crate::gpu::classify::Capabilities;
use crate::gpu::compat;
use crate::gpu::select::{self, Asked, Gpus};
use crate::host::Host;
use crate::plan::env::{self, Rule};
use crate::seccomp;
pub use mounts::Wanted;
pub(crate) use mounts::{check_target, fields, parse_mode};
pub use quantities::{Limit, parse_duration, parse_size};

/// The largest env file that is read.
const MAX_ENV_FILE: u64 = 16 << 20;

/// All options of one run.
#[derive(Clone, Debug)]
pub struct Request {
    /// The user's mounts, parents before what is below them.
    pub mounts: Vec<Wanted>,
    /// `--env-file`, then `-e`.
    pub env: Vec<Rule>,
    /// What of the caller's environment passes.
    pub env_policy: EnvPolicy,
    /// `-w`, or the current directory with `--here`.
    pub workdir: Option<PathBuf>,
    /// `-u`
    pub user: Option<String>,
    /// `--root`
    pub root: bool,
    /// `--fakeroot`
    pub fakeroot: bool,
    /// `--ids`
    pub ids: IdMode,
    /// `--seccomp`
    pub seccomp: seccomp::Wanted,
    /// `--stop-signal`
    pub stop_signal: Option<String>,
    /// `--gpus`, else what the host's environment asks for.
    pub gpus: Asked,
    /// `--gpu-caps`
    pub gpu_caps: Option<Capabilities>,
    /// `--driver-root`
    pub driver_root: Option<PathBuf>,
    /// `--device`
    pub devices: Vec<cdi::Asked>,
    /// `--cdi-spec-dir`; empty for the usual ones.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// `--cuda-compat`
    pub cuda_compat: compat::Mode,
    /// `--rdma`
    pub rdma: bool,
    /// Not `--no-require`
    pub require: bool,
    /// `--entrypoint`; empty to remove the image's.
    pub entrypoint: Option<OsString>,
    /// Command and arguments.
    pub command: Vec<OsString>,
    /// `--read-only`
    pub read_only: bool,
    /// `--overlay`, absolute.
    pub overlay: Option<PathBuf>,
    /// `--hostname`
    pub hostname: Option<String>,
    /// `--name`
    pub name: Option<String>,
    /// `--network`
    pub network: Network,
    /// `--pid`
    pub pid: Pid,
    /// `--shm-size`, in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`
    pub limits: Vec<Limit>,
    /// Which of these variables and configuration files gave.
    pub given: Vec<Given>,
}

impl Request {
    /// Parses every option.
    pub fn new(args: &RunArgs, host: &Host) -> Result<Self> {
        let devices = devices::wanted(&args.device)?;
        Ok(Self {
            mounts: mounts::wanted(args, host)?,
            env: env_rules(args)?,
            env_policy: args.env_policy,
            workdir: if args.here { Some(mounts::current_dir(host, "--here")?) } else { args.workdir.clone() },
            user: args.user.clone(),
            root: args.root,
            fakeroot: args.fakeroot,
            ids: ids(args)?,
            seccomp: seccomp::Wanted::parse(&args.seccomp)?,
            stop_signal: args.stop_signal.clone(),
            gpus: gpus(args, host, &devices)?,
            devices,
            cdi_spec_dirs: args.cdi_spec_dir.clone(),
            gpu_caps: args.gpu_caps.as_deref().map(|list| Capabilities::parse(list, "--gpu-caps")).transpose()?,
            driver_root: args.driver_root.clone(),
            cuda_compat: args.cuda_compat,
            rdma: args.rdma,
            require: !args.no_require,
            entrypoint: args.entrypoint.clone(),
            command: without_dashes(&args.command),
            read_only: args.read_only,
            overlay: args.overlay.as_deref().map(|dir| absolute(dir, host)).transpose()?,
            hostname: args.hostname.clone().map(checked_hostname).transpose()?,
            name: args.name.clone(),
            network: args.network,
            pid: args.pid,
            shm_size: args.shm_size.as_deref().map(parse_size).transpose()?,
            limits: args.ulimit.iter().map(|l| quantities::parse_limit(l)).collect::<Result<_>>()?,
            given: args.given.clone(),
        })
    }

    /// Refuses a run whose bind sources are not there.
    pub fn check_sources(&self) -> Result<()> {
        self.mounts.iter().try_for_each(|mount| match mount {
            Wanted::Bind { source, why, .. } => std::fs::symlink_metadata(source)
                .and_then(|_| std::fs::metadata(source))
                .map(drop)
                .context(|| format!("stat `{}`, the source of a bind ({why})", source.display())),
            Wanted::Tmpfs { .. } => Ok(()),
        })
    }
}

/// What is pretended hides what is done.
fn ids(args: &RunArgs) -> Result<IdMode> {
    match (args.ids, args.fakeroot) {
        (IdMode::Range, true) => Err(Error::new("`--fakeroot` pretends to do what `--ids range` does")
            .hint("`--root --ids range` changes owners and ids for real")),
        (ids, _) => Ok(ids),
    }
}

fn absolute(dir: &Path, host: &Host) -> Result<PathBuf> {
    if dir.is_absolute() { Ok(dir.into()) } else { Ok(mounts::current_dir(host, "a relative `--overlay`")?.join(dir)) }
}

/// What a batch system allots is not wanted beside GPUs that are named one by one.
fn gpus(args: &RunArgs, host: &Host, devices: &[cdi::Asked]) -> Result<Asked> {
    match args.gpus.is_none() && devices::names_nvidias(devices) {
        true => Ok(Asked { gpus: Gpus::None, capabilities: None, why: "--device names NVIDIA's GPUs" }),
        false => select::asked(args.gpus.as_deref(), |name| host.var(name)?.to_str()),
    }
}

/// Docker has no `--` after the image; podman's users write one.
fn without_dashes(command: &[OsString]) -> Vec<OsString> {
    command.strip_prefix(&[OsString::from("--")][..]).unwrap_or(command).to_vec()
}

fn checked_hostname(name: String) -> Result<String> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    match (1..=64).contains(&name.len()) && name.bytes().all(ok) {
        true => Ok(name),
        false => Err(Error::new(format!("`{name}` is not a host name: up to 64 letters, digits, `-` and `.`"))),
    }
}

fn env_rules(args: &RunArgs) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for file in &args.env_file {
        let what = || format!("read the env file `{}`", file.display());
        let size = std::fs::metadata(file).context(what)?.len();
        if size > MAX_ENV_FILE {
            return Err(Error::new(format!("it is larger than {MAX_ENV_FILE} bytes"))).context(what);
        }
        rules.extend(env::parse_file(&std::fs::read(file).context(what)?).context(what)?);
    }
    for option in &args.env {
        rules.push(Rule::parse(option)?);
    }
    Ok(rules)
}
