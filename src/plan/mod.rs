//! Request + image config + rootfs + host facts → [`Plan`]: everything a run decides, as one plain value.
//!
//! In: values only. Out: a value that `explain` prints, `spec` renders and `launch` executes. Building it touches
//! nothing, and nothing is decided after it. Each part says why it is there.

pub mod account;
pub mod env;
pub mod explain;
pub mod idmap;
pub mod mounts;
pub mod signal;
pub mod spec;
pub mod user;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use oci_spec::image::{Config, ImageConfiguration};
use oci_spec::runtime::Capability;
use serde::Serialize;

use crate::cdi::Devices;
use crate::cli::{Network, Pid};
use crate::config::Given;
use crate::error::{Error, Result};
use crate::gpu::Injection;
use crate::host::Host;
use crate::request::{Limit, Request};
use crate::seccomp::{self, fakeroot};
use account::Accounts;
use mounts::Mount;
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

/// Which image runs.
#[derive(Clone, Debug, Serialize)]
pub struct ImageFacts {
    /// Canonical reference.
    pub reference: String,
    /// Digest of its manifest; a `dir:` has none.
    pub digest: Option<String>,
}

/// The root file system: an image tree below, what takes the writes above.
#[derive(Clone, Debug, Serialize)]
pub struct Rootfs {
    /// The image's tree on the host, never written.
    #[serde(serialize_with = "lossy")]
    pub lower: PathBuf,
    /// Whether the workload may not write to it either.
    pub read_only: bool,
    /// The directory on the host whose `upper` keeps the writes; without one they go to a tmpfs.
    pub kept: Option<PathBuf>,
    /// Where the workload can write if the kernel refuses the overlay: then the tree is bound read-only, with a tmpfs at each
    /// of these that it has. `None` if nothing else will do.
    pub otherwise: Option<Vec<&'static str>>,
}

/// Where programs expect to be able to write.
const WRITABLE: &[&str] =
    &["/tmp", "/var/tmp", "/run", "/var/run", "/var/log", "/var/cache", "/var/lock", "/home", "/root", "/mnt", "/srv"];

/// A namespace of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// Which.
    pub kind: NamespaceKind,
    /// Why.
    pub why: &'static str,
}

/// The kinds of namespaces gpurun makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum NamespaceKind {
    User,
    Mount,
    Pid,
    Uts,
    Network,
}

/// A directory that must be there.
#[derive(Clone, Debug, Serialize)]
pub struct Directory {
    /// Path inside.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Why.
    pub why: &'static str,
}

/// A symbolic link that every runtime makes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Link {
    /// Path inside.
    pub path: &'static str,
    /// Where it leads.
    pub to: &'static str,
}

/// A file supplied by gpurun.
#[derive(Clone, Debug, Serialize)]
pub struct File {
    /// Path inside.
    pub path: &'static str,
    /// Its content.
    #[serde(skip)]
    pub content: Vec<u8>,
    /// Why.
    pub why: &'static str,
}

/// What is executed, and in what surroundings.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Command and arguments.
    #[serde(serialize_with = "lossy_list")]
    pub argv: Vec<OsString>,
    /// Where the command came from.
    pub argv_why: &'static str,
    /// The environment.
    #[serde(serialize_with = "lossy_pairs")]
    pub env: Vec<(OsString, OsString)>,
    /// Directory it starts in.
    #[serde(serialize_with = "lossy")]
    pub cwd: PathBuf,
    /// Where the directory came from.
    pub cwd_why: &'static str,
    /// The capabilities it keeps, which hold in its own user namespace.
    pub capabilities: Vec<Capability>,
    /// Whether it gets a terminal of its own.
    pub terminal: bool,
    /// Resource limits set for it; all others are the caller's.
    pub limits: Vec<Limit>,
    /// The signal it gets when gpurun gets SIGTERM.
    pub stop_signal: i32,
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
    let env = environment(inputs, &config, &user);
    let (cwd, cwd_why) = working_dir(request, &config)?;
    let (argv, argv_why) = command(request, &config)?;
    let injection = &inputs.injection;
    let home = env.iter().find(|(name, _)| name == "HOME").map(|(_, value)| PathBuf::from(value));
    Ok(Plan {
        name: request.name.clone(),
        step: host.slurm_step(),
        image: inputs.image.clone(),
        rootfs: Rootfs {
            lower: inputs.rootfs.into(),
            read_only: request.read_only,
            kept: request.overlay.clone(),
            otherwise: request.overlay.is_none().then(|| WRITABLE.to_vec()),
        },
        namespaces: namespaces(request, host),
        hostname: request.hostname.clone(),
        directories: directories(request, home, &cwd),
        files: files(inputs, &user),
        links: mounts::LINKS.to_vec(),
        mounts: mounts::decide(request, host, &inputs.devices.mounts),
        seccomp: seccomp::decide(&request.seccomp, request.fakeroot, host.kernel)?,
        process: Process {
            argv,
            argv_why,
            env,
            cwd,
            cwd_why,
            capabilities: capabilities(request, &user),
            terminal: host.terminal,
            limits: request.limits.clone(),
            stop_signal: stop_signal(request, &config)?,
        },
        given: request.given.clone(),
        notices: notices(request, host, injection, &inputs.devices),
        injection: injection.clone(),
        devices: inputs.devices.clone(),
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

/// A fake root opens what has mode 000, as package managers expect it.
fn capabilities(request: &Request, ids: &Ids) -> Vec<Capability> {
    if request.fakeroot { vec![Capability::DacOverride] } else { user::capabilities(ids.uid, &ids.map) }
}

fn stop_signal(request: &Request, config: &Config) -> Result<i32> {
    match (&request.stop_signal, config.stop_signal()) {
        (Some(asked), _) => signal::parse(asked, "--stop-signal"),
        (None, Some(images)) if !images.is_empty() => signal::parse(images, "the image's StopSignal"),
        _ => Ok(libc::SIGTERM),
    }
}

fn notices(request: &Request, host: &Host, injection: &Injection, devices: &Devices) -> Vec<String> {
    let obstacle = host.no_proc_of_its_own().filter(|_| request.pid == Pid::Private);
    let proc = obstacle.map(|why| format!("{why}: running without a PID namespace"));
    proc.into_iter().chain(injection.warnings.iter().chain(&devices.warnings).cloned()).collect()
}

fn environment(inputs: &Inputs, config: &Config, ids: &Ids) -> Vec<(OsString, OsString)> {
    let own = |(name, value): (&str, OsString)| (OsString::from(name), value);
    let name = inputs.request.name.iter().map(|name| own(("GPURUN_NAME", name.into())));
    let gpus = inputs.injection.env.iter().cloned().map(own);
    env::decide(&env::Sources {
        image: config.env().as_deref().unwrap_or_default(),
        host: inputs.host,
        policy: inputs.request.env_policy,
        rules: &inputs.request.env,
        ids,
        own: &name.chain(inputs.devices.env.iter().cloned()).chain(gpus).collect::<Vec<_>>(),
    })
}

/// `-w` and `--here`, else the image's WorkingDir, else the root.
fn working_dir(request: &Request, config: &Config) -> Result<(PathBuf, &'static str)> {
    let (path, why) = match (&request.workdir, config.working_dir()) {
        (Some(path), _) => (path.clone(), "--workdir or --here"),
        (None, Some(path)) if !path.is_empty() => (path.into(), "the image's WorkingDir"),
        _ => ("/".into(), "neither the options nor the image name one"),
    };
    match path.is_absolute() {
        true => Ok((path, why)),
        false => Err(Error::new(format!("the working directory `{}` is not an absolute path ({why})", path.display()))),
    }
}

/// Docker's rules: a command replaces Cmd, an entrypoint replaces Entrypoint and drops Cmd.
fn command(request: &Request, config: &Config) -> Result<(Vec<OsString>, &'static str)> {
    let of_image =
        |list: &Option<Vec<String>>| -> Vec<OsString> { list.iter().flatten().map(OsString::from).collect() };
    let (mut argv, mut why) = match &request.entrypoint {
        Some(empty) if empty.is_empty() => (Vec::new(), "the command line, without the image's Entrypoint"),
        Some(entrypoint) => (vec![entrypoint.clone()], "--entrypoint"),
        None => (of_image(config.entrypoint()), "the image's Entrypoint and the command line"),
    };
    if !request.command.is_empty() {
        if argv.is_empty() {
            why = "the command line";
        }
        argv.extend_from_slice(&request.command);
    } else if request.entrypoint.is_none() {
        why = "the image's Entrypoint and Cmd";
        argv.extend(of_image(config.cmd()));
    }
    match argv.first().is_some_and(|c| !c.is_empty()) {
        true => Ok((argv, why)),
        false => Err(Error::new("there is no command: the image names none").hint("write one after the image's name")),
    }
}

fn namespaces(request: &Request, host: &Host) -> Vec<Namespace> {
    let mut all = vec![
        Namespace { kind: NamespaceKind::User, why: "the right to mount, without privileges" },
        Namespace { kind: NamespaceKind::Mount, why: "a root file system of its own" },
    ];
    if request.pid == Pid::Private && host.no_proc_of_its_own().is_none() {
        all.push(Namespace { kind: NamespaceKind::Pid, why: "nothing the workload starts outlives it" });
    }
    if request.hostname.is_some() {
        all.push(Namespace { kind: NamespaceKind::Uts, why: "--hostname" });
    }
    if request.network == Network::None {
        all.push(Namespace { kind: NamespaceKind::Network, why: "--network none" });
    }
    all
}

/// What is below a bind belongs to the host: nothing is made there.
fn directories(request: &Request, home: Option<PathBuf>, cwd: &Path) -> Vec<Directory> {
    let in_rootfs = |path: &Path| !request.mounts.iter().any(|m| path.starts_with(m.target()));
    let home = home.filter(|h| h.is_absolute()).map(|path| Directory { path, why: "the workload's HOME" });
    let cwd = Directory { path: cwd.into(), why: "the working directory" };
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

/// Serializes bytes that need not be UTF-8 as text.
pub(crate) fn lossy<S: serde::Serializer>(text: impl AsRef<OsStr>, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.serialize_str(&text.as_ref().to_string_lossy())
}

fn lossy_list<S: serde::Serializer>(list: &[OsString], s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_seq(list.iter().map(|text| text.to_string_lossy()))
}

fn lossy_pairs<S: serde::Serializer>(pairs: &[(OsString, OsString)], s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_seq(pairs.iter().map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy())))
}
