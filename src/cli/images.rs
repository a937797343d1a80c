//! The verbs that are about images and registries.

use clap::Args;
use clap::builder::BoolishValueParser;

use super::{FetchArgs, ProfileArgs, StoreArgs};

/// Arguments of `pull`.
#[derive(Args, Clone, Debug)]
pub struct PullArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub fetch: FetchArgs,
    /// Print the facts as JSON
    #[arg(long)]
    pub json: bool,
    /// Images to fetch
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Arguments of `images`.
#[derive(Args, Clone, Debug)]
pub struct ImagesArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Print the facts as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Print the facts as JSON
    #[arg(long)]
    pub json: bool,
    /// Image in the store
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// Arguments of `rm`.
#[derive(Args, Clone, Debug)]
pub struct RmArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Images to remove
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Arguments of `prune`.
#[derive(Args, Clone, Debug)]
pub struct PruneArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Remove images that were not used for so long, as 12h or 30d
    #[arg(long, env = "GPURUN_UNUSED", value_name = "TIME")]
    pub unused: Option<String>,
    /// Remove the least recently used until all files take no more than this, as 200g
    #[arg(long, env = "GPURUN_MAX_SIZE", value_name = "SIZE")]
    pub max_size: Option<String>,
    /// Print what was removed as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `login`.
#[derive(Args, Clone, Debug)]
pub struct LoginArgs {
    /// Name to log in with
    #[arg(short, long, env = "GPURUN_USERNAME", value_name = "NAME")]
    pub username: Option<String>,
    /// Take the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Send the password to a registry without TLS (loopback ones always may get it)
    #[arg(long, env = "GPURUN_PLAIN_HTTP", value_parser = BoolishValueParser::new())]
    pub plain_http: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub profile: ProfileArgs,
    /// Registry, as in an image's name, or a namespace in it
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub registry: String,
}

/// Arguments of `logout`.
#[derive(Args, Clone, Debug)]
pub struct LogoutArgs {
    /// Registry, as in an image's name, or a namespace in it
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub registry: String,
}
