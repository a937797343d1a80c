//! The verbs that are about GPUs: `gpus` and `cdi`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ProfileArgs;

/// What `cdi` can do.
#[derive(Debug, Subcommand)]
pub enum CdiVerb {
    /// Print a CDI spec of this machine's GPUs and driver, as JSON
    Generate(DriverArgs),
}

/// Where the driver is, and what of it matters.
#[derive(Args, Clone, Debug)]
pub struct DriverArgs {
    /// What of the driver to list: compute, utility, video, graphics, display, ngx, compat32, all
    #[arg(long, env = "GPURUN_GPU_CAPS", value_name = "LIST")]
    pub gpu_caps: Option<String>,
    /// Directory below which the driver's files are, if not in the system's own places
    #[arg(long, env = "GPURUN_DRIVER_ROOT", value_name = "DIR")]
    pub driver_root: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub profile: ProfileArgs,
}

/// Arguments of `gpus`.
#[derive(Args, Clone, Debug)]
pub struct GpusArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub driver: DriverArgs,
    /// Print the facts as JSON
    #[arg(long)]
    pub json: bool,
}
