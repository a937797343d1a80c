//! Request + image config + rootfs + host facts → [`Plan`]: everything a run decides, as one plain value.
//!
//! In: values only. Out: a value that `explain` prints, `spec` renders and `launch` executes. Building it touches
//! nothing, and nothing is decided after it. Each part says why it is there.

pub mod account;
pub mod env;
pub mod explain;
pub mod idmap;
pub mod mounts;
mod namespaces;
mod parts;
mod process;
pub mod signal;
pub mod spec;
mod text;
pub mod user;

use std::path::Path;

use oci_spec::image::{Config, ImageConfiguration};
use serde::Serialize;

use crate::cdi::Devices;
use crate::cli::Pid;
use crate::config::Given;
use crate::error::Result;
use crate::gpu::Injection;
use crate::host::Host;
use crate::request::Request;
use crate::seccomp::{self, fakeroot};
use account::Accounts;
use mounts::Mount;
pub use namespaces::{Namespace, NamespaceKind};
pub use parts::{Directory, File, ImageFacts, Link, Rootfs};
pub use process::Process;
pub(crate) use text::lossy;
use user::{Ids, Wanted};

/// Everything decided about a run.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// `--name`, by which `ps` and `exec` know the run.
    pub name: Option<String>,
    /// The Slurm step it is in, as `JOB.STEP`: likewise.
    pub step: Option<String>,
    /// The image, as it was named, and its digest.
    pub image: ImageFacts,
    /// The root file system.
    pub rootfs: Rootfs,
    /// Who the workload is.
    pub user: Ids,
    /// The namespaces that are made.
    pub namespaces: Vec<Namespace>,
    /// Host name inside, if it is not the host's.
    pub hostname: Option<String>,
    /// Directories made in the rootfs if they are not there.
    pub directories: Vec<Directory>,
    /// Files written into the rootfs's upper layer.
    pub files: Vec<File>,
    /// Links made in /dev.
    pub links: Vec<Link>,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// The GPUs and the host's driver.
    pub injection: Injection,
    /// The system calls that are refused or pretended, if any are.
    pub seccomp: Option<seccomp::Filter>,
    /// What `--device` brings, beside its mounts.
    pub devices: Devices,
    /// What is executed.
    pub process: Process,
    /// The options that variables and configuration files gave.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<Given>,
    /// What differs from what the user may expect, one line each.
    pub notices: Vec<String>,
}

/// What a plan is made from.
pub struct Inputs<'a> {
    /// What was asked for.
    pub request: &'a Request,
    /// The image.
    pub image: ImageFacts,
    /// The image's config.
    pub config: &'a ImageConfiguration,
    /// The image's tree.
    pub rootfs: &'a Path,
    /// The image's account files.
    pub accounts: &'a Accounts,
    /// Whether the image has apt.
    pub has_apt: bool,
    /// The caller and the machine.
    pub host: &'a Host,
    /// The GPUs and the host's driver.
    pub injection: Injection,
    /// What `--device` brings.
    pub devices: Devices,
}

/// Decides everything about a run.
pub fn build(inputs: &Inputs) -> Result<Plan> {
    let Inputs { request, host, .. } = inputs;
    let config = inputs.config.config().clone().unwrap_or_default();
    let user = Ids::decide(wanted_user(request, &config), request.ids, host, inputs.accounts)?;
    let process = Process::decide(inputs, &config, &user)?;
    Ok(Plan {
        name: request.name.clone(),
        step: host.slurm_step(),
        image: inputs.image.clone(),
        rootfs: Rootfs::decide(request, inputs.rootfs),
        namespaces: namespaces::decide(request, host),
        hostname: request.hostname.clone(),
        directories: directories(request, &process),
        files: files(inputs, &user),
        links: mounts::LINKS.to_vec(),
        mounts: mounts::decide(request, host, &inputs.devices.mounts),
        injection: inputs.injection.clone(),
        seccomp: seccomp::decide(&request.seccomp, request.fakeroot, host.kernel, &process.capabilities)?,
        devices: inputs.devices.clone(),
        given: request.given.clone(),
        notices: notices(request, host, &inputs.injection, &inputs.devices),
        process,
        user,
    })
}

fn wanted_user<'a>(request: &'a Request, config: &'a Config) -> Wanted<'a> {
    match (&request.user, request.root) {
        _ if request.fakeroot => Wanted::Root("--fakeroot"),
        (_, true) => Wanted::Root("--root"),
        (Some(user), _) => Wanted::Named(user),
        (None, _) => Wanted::Default(config.user().as_deref()),
    }
}

/// What is below a bind belongs to the host: nothing is made there.
fn directories(request: &Request, process: &Process) -> Vec<Directory> {
    let in_rootfs = |path: &Path| !request.mounts.iter().any(|m| path.starts_with(m.target()));
    let home = process.home().filter(|h| h.is_absolute()).map(|path| Directory { path, why: "the workload's HOME" });
    let cwd = Directory { path: process.cwd.clone(), why: "the working directory" };
    home.into_iter().chain([cwd]).filter(|d| in_rootfs(&d.path)).collect()
}

fn files(inputs: &Inputs, ids: &Ids) -> Vec<File> {
    let accounts = inputs.accounts;
    let file = |path, content: Option<Vec<u8>>| {
        content.map(|content| File { path, content, why: "a line for the workload's own ids" })
    };
    let passwd = file("/etc/passwd", account::passwd_with(ids, accounts));
    let group = file("/etc/group", account::group_with(ids, accounts));
    let apt = (inputs.request.fakeroot && inputs.has_apt).then(|| File {
        path: fakeroot::APT_SETTINGS,
        content: fakeroot::APT_STAYS_ROOT.into(),
        why: "--fakeroot: apt would see that it has not become another user",
    });
    passwd.into_iter().chain(group).chain(apt).collect()
}

fn notices(request: &Request, host: &Host, injection: &Injection, devices: &Devices) -> Vec<String> {
    let obstacle = host.no_proc_of_its_own().filter(|_| request.pid == Pid::Private);
    let proc = obstacle.map(|why| format!("{why}: running without a PID namespace"));
    proc.into_iter().chain(injection.warnings.iter().chain(&devices.warnings).cloned()).collect()
}
