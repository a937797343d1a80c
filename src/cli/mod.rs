//! The command line: clap structs only. In: argv. Out: what was asked, not yet resolved against anything.

mod gpus;
mod images;
mod run;

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::image::Platform;
pub use gpus::{CdiVerb, DriverArgs, GpusArgs};
pub use images::{ImagesArgs, InspectArgs, LoginArgs, LogoutArgs, PruneArgs, PullArgs, RmArgs};
pub use run::{EnvPolicy, ExecArgs, ExplainArgs, IdMode, Network, Pid, PsArgs, RunArgs};

/// Run a command in an OCI image, with the host's GPUs, as an ordinary user
#[derive(Debug, Parser)]
#[command(
    name = "gpurun",
    version,
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
#[command(after_help = "Exit status: the command's own; 128+N when signal N ended it; 125 gpurun could not start it, \
                        126 found but not executable, 127 not found.")]
pub struct Cli {
    /// What to do, if not to run an image
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// Without a verb: run
    #[command(flatten)]
    pub run: RunArgs,
}

/// What gpurun can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command in an image (also what `gpurun IMAGE` does)
    Run(RunArgs),
    /// Fetch an image into the store
    Pull(PullArgs),
    /// List the images in the store
    Images(ImagesArgs),
    /// Print what an image in the store is
    Inspect(InspectArgs),
    /// Remove images from the store
    Rm(RmArgs),
    /// Remove images that were not used for long, and what nothing refers to
    Prune(PruneArgs),
    /// Keep a name and a password for a registry, once it has taken them
    Login(LoginArgs),
    /// Forget what is kept for a registry
    Logout(LogoutArgs),
    /// Run another command in the container of a run
    Exec(ExecArgs),
    /// List your runs on this machine
    Ps(PsArgs),
    /// Print what `run` would do and why, and start nothing
    Explain(ExplainArgs),
    /// Print the OCI runtime spec of what `run` would do, and start nothing
    Spec(RunArgs),
    /// List the GPUs, whether they can be used and why not, and the driver's files
    Gpus(GpusArgs),
    /// Describe the GPUs to other container engines
    Cdi {
        /// What to do
        #[command(subcommand)]
        verb: CdiVerb,
    },
    /// Print the completion script of a shell
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

/// Where images are and how they come.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// Directory that holds the unpacked images
    #[arg(long, env = "GPURUN_STORE", value_name = "DIR", help_heading = "Images")]
    pub store: Option<PathBuf>,
    /// Allow registries without TLS (loopback ones always may)
    #[arg(long, env = "GPURUN_PLAIN_HTTP", help_heading = "Images", value_parser = BoolishValueParser::new())]
    pub plain_http: bool,
    /// Platform to take from a multi-platform image, as OS/ARCH[/VARIANT]
    #[arg(long, env = "GPURUN_PLATFORM", help_heading = "Images")]
    pub platform: Option<Platform>,
    /// Print nothing but errors
    #[arg(short, long, env = "GPURUN_QUIET", value_parser = BoolishValueParser::new())]
    pub quiet: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub profile: ProfileArgs,
}

/// What of the configuration files counts.
#[derive(Args, Clone, Debug)]
pub struct ProfileArgs {
    /// Take what the command line leaves open from this `[profile.NAME]` of the configuration files
    #[arg(long, env = "GPURUN_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
}

/// How an image is fetched.
#[derive(Args, Clone, Debug)]
pub struct FetchArgs {
    /// Refuse an image of which more than this is to be unpacked, as 20g
    #[arg(long, env = "GPURUN_MAX_UNPACKED", default_value = "256g", value_name = "SIZE", help_heading = "Images")]
    pub max_unpacked: String,
    /// Print where the time went, phase by phase, to standard error
    #[arg(long, env = "GPURUN_TIMINGS", value_parser = BoolishValueParser::new())]
    pub timings: bool,
}

/// When to ask the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// Only for what the store does not have
    #[default]
    Missing,
    /// Every time; layers that are there are not fetched again
    Always,
    /// Not at all
    Never,
}
