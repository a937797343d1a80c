//! The verbs that are about runs: `run`, `exec`, `ps`, `explain` and `spec`.

#![allow(rustdoc::broken_intra_doc_links)] // the docs are help texts, in which brackets are what may be left out

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::{FetchArgs, Pull, StoreArgs};
use crate::config::Given;
use crate::gpu::compat;

/// What the host's environment contributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EnvPolicy {
    /// Job, MPI, locale and proxy variables; never PATH, LD_*, PYTHON*
    #[default]
    Hpc,
    /// Nothing
    Image,
    /// Everything but what belongs to the host's own software
    Host,
}

/// The network the workload sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The host's
    #[default]
    Host,
    /// None but loopback
    None,
}

/// Whose processes the workload sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pid {
    /// Its own
    #[default]
    Private,
    /// The host's
    Host,
}

/// Which ids there are inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdMode {
    /// One, as nothing needs another
    #[default]
    Auto,
    /// The caller's, under whatever number: no subordinate ids are needed
    Single,
    /// The caller's and its subordinate ones (/etc/subuid), so that owners and users can be changed for real
    Range,
}

/// Arguments of `run`, `explain` and `spec`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Run")]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// When to ask the registry
    #[arg(long, env = "GPURUN_PULL", default_value = "missing", value_name = "WHEN", help_heading = "Images")]
    pub pull: Pull,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub fetch: FetchArgs,
    /// GPUs to inject: all, a count, device=0,1, device=GPU-…, device=MIG-…, device=0:1, none, or auto (all if there is a driver)
    #[arg(long, env = "GPURUN_GPUS", value_name = "SPEC", help_heading = "GPUs")]
    pub gpus: Option<String>,
    /// What of the driver to inject: compute, utility, video, graphics, display, ngx, compat32, all
    #[arg(long, env = "GPURUN_GPU_CAPS", value_name = "LIST", help_heading = "GPUs")]
    pub gpu_caps: Option<String>,
    /// Directory below which the driver's files are, if not in the system's own places
    #[arg(long, env = "GPURUN_DRIVER_ROOT", value_name = "DIR", help_heading = "GPUs")]
    pub driver_root: Option<PathBuf>,
    /// When the image's own newer CUDA driver library is used
    #[arg(long, env = "GPURUN_CUDA_COMPAT", default_value = "auto", value_name = "WHEN", help_heading = "GPUs")]
    pub cuda_compat: compat::Mode,
    /// Give the host's InfiniBand and RoCE adapters
    #[arg(long, env = "GPURUN_RDMA", help_heading = "GPUs", value_parser = BoolishValueParser::new())]
    pub rdma: bool,
    /// Run even if the driver is not what the image requires
    #[arg(long, env = "GPURUN_NO_REQUIRE", help_heading = "GPUs", value_parser = BoolishValueParser::new())]
    pub no_require: bool,
    /// Devices: CDI names as amd.com/gpu=0, or nodes as /dev/x[:/dev/y][:rwm], several separated by commas
    #[arg(long, env = "GPURUN_DEVICE", value_name = "DEVICE", help_heading = "GPUs")]
    pub device: Vec<String>,
    /// Directory of CDI specs, instead of /etc/cdi and /var/run/cdi; of several the last counts most
    #[arg(long, env = "GPURUN_CDI_SPEC_DIR", value_name = "DIR", value_delimiter = ':', help_heading = "GPUs")]
    pub cdi_spec_dir: Vec<PathBuf>,
    /// Bind a host path: SRC[:DST][:OPTIONS], several separated by commas
    #[arg(short, long, env = "GPURUN_VOLUME", value_name = "SRC:DST[:ro]")]
    pub volume: Vec<OsString>,
    /// Mount: type=bind|tmpfs,source=…,target=…[,readonly]
    #[arg(long, env = "GPURUN_MOUNT", value_name = "SPEC")]
    pub mount: Vec<OsString>,
    /// Mount a tmpfs: DST[:size=…,mode=…]
    #[arg(long, env = "GPURUN_TMPFS", value_name = "DST")]
    pub tmpfs: Vec<OsString>,
    /// Set a variable: K=V, or take it from the host: K, 'GLOB_*'
    #[arg(short, long, env = "GPURUN_ENV", value_name = "K[=V]")]
    pub env: Vec<OsString>,
    /// Set variables from a file of K=V lines
    #[arg(long, env = "GPURUN_ENV_FILE", value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// What the host's environment contributes
    #[arg(long, env = "GPURUN_ENV_POLICY", default_value = "hpc", value_name = "POLICY")]
    pub env_policy: EnvPolicy,
    /// Start in this directory
    #[arg(short, long, env = "GPURUN_WORKDIR", value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Appear as this user inside: NAME|UID[:GROUP|GID]
    #[arg(short, long, env = "GPURUN_USER", conflicts_with = "root", value_name = "USER")]
    pub user: Option<String>,
    /// Appear as root inside (the default is the caller's own uid and gid)
    #[arg(long, env = "GPURUN_ROOT", value_parser = BoolishValueParser::new())]
    pub root: bool,
    /// Appear as root for whom changes of owners and ids succeed, as apt and dnf need it, though nothing changes
    #[arg(long, env = "GPURUN_FAKEROOT", conflicts_with = "user", value_parser = BoolishValueParser::new())]
    pub fakeroot: bool,
    /// Ids that there are inside
    #[arg(long, env = "GPURUN_IDS", default_value = "auto", value_name = "WHICH")]
    pub ids: IdMode,
    /// Refuse system calls: default (Docker's profile), none, or a profile of Docker's format
    #[arg(long, env = "GPURUN_SECCOMP", default_value = "none", value_name = "PROFILE")]
    pub seccomp: OsString,
    /// Bind the current directory at the same path and start there
    #[arg(long, env = "GPURUN_HERE", conflicts_with = "workdir", value_parser = BoolishValueParser::new())]
    pub here: bool,
    /// Bind the home directory at the same path
    #[arg(long, env = "GPURUN_HOME", value_parser = BoolishValueParser::new())]
    pub home: bool,
    /// Replace the image's entrypoint; an empty one removes it
    #[arg(long, env = "GPURUN_ENTRYPOINT", value_name = "CMD")]
    pub entrypoint: Option<OsString>,
    /// Signal that the workload gets when gpurun gets SIGTERM
    #[arg(long, env = "GPURUN_STOP_SIGNAL", value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Make the root file system read-only
    #[arg(long, env = "GPURUN_READ_ONLY", value_parser = BoolishValueParser::new())]
    pub read_only: bool,
    /// Keep what the workload writes in this directory, for later runs
    #[arg(long, env = "GPURUN_OVERLAY", conflicts_with = "read_only", value_name = "DIR")]
    pub overlay: Option<PathBuf>,
    /// Host name inside
    #[arg(long, env = "GPURUN_HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,
    /// Name of this run, seen inside as GPURUN_NAME
    #[arg(long, env = "GPURUN_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// Network
    #[arg(long, env = "GPURUN_NETWORK", default_value = "host")]
    pub network: Network,
    /// Process namespace
    #[arg(long, env = "GPURUN_PID", default_value = "private")]
    pub pid: Pid,
    /// Size of a private /dev/shm, as 64m or 2g (the default is the host's own)
    #[arg(long, env = "GPURUN_SHM_SIZE", value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// Set a resource limit: NAME=SOFT[:HARD]
    #[arg(long, env = "GPURUN_ULIMIT", value_name = "LIMIT")]
    pub ulimit: Vec<String>,
    /// Print what would run and why, and start nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Accepted as Docker has it: a terminal is used when stdin and stdout are one
    #[arg(short, long, hide = true)]
    pub tty: bool,
    /// Accepted as Docker has it: stdin is always passed
    #[arg(short, long, hide = true)]
    pub interactive: bool,
    /// Accepted as Docker has it: nothing of a run ever stays
    #[arg(long, hide = true)]
    pub rm: bool,
    /// Accepted as Docker has it: there is always an init
    #[arg(long, hide = true)]
    pub init: bool,
    /// Accepted as Docker has it: nothing reads labels
    #[arg(short, long, hide = true, value_name = "K=V")]
    pub label: Vec<String>,
    /// Image to run, as Docker names it, or docker://, oci:, oci-archive:, docker-archive:, dir:, builtin:hello, ./PATH
    #[arg(value_name = "IMAGE", required = true)]
    pub image: Option<String>,
    /// Command and its arguments, in place of the image's own
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
    /// Which of these variables and configuration files gave
    #[arg(skip)]
    pub given: Vec<Given>,
}

/// Arguments of `exec`.
#[derive(Args, Clone, Debug)]
pub struct ExecArgs {
    /// Set a variable: K=V, or take it from the host: K, 'GLOB_*'
    #[arg(short, long, value_name = "K[=V]")]
    pub env: Vec<OsString>,
    /// Start in this directory (the default is the workload's)
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Run as this user (the default is the workload's): NAME|UID[:GROUP|GID]
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Accepted as Docker has it: a terminal is used when stdin and stdout are one
    #[arg(short, long, hide = true)]
    pub tty: bool,
    /// Accepted as Docker has it: stdin is always passed
    #[arg(short, long, hide = true)]
    pub interactive: bool,
    /// The run: its name, the PID of any of its processes, or its Slurm step as JOB.STEP
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// Arguments of `ps`.
#[derive(Args, Clone, Debug)]
pub struct PsArgs {
    /// Print the facts as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run: RunArgs,
}
