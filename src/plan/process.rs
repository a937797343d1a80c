//! What is executed, and in what surroundings.
//!
//! In: the request, the image's config, who the workload is. Out: [`Process`]. Pure.

use std::ffi::OsString;
use std::path::PathBuf;

use oci_spec::image::Config;
use oci_spec::runtime::Capability;
use serde::Serialize;

use super::text::{lossy, lossy_list, lossy_pairs};
use super::user::{self, Ids};
use super::{Inputs, env, signal};
use crate::error::{Error, Result};
use crate::request::{Limit, Request};

/// A command and its surroundings.
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

impl Process {
    /// Decides all of it.
    pub(super) fn decide(inputs: &Inputs, config: &Config, ids: &Ids) -> Result<Self> {
        let request = inputs.request;
        let (cwd, cwd_why) = working_dir(request, config)?;
        let (argv, argv_why) = command(request, config)?;
        Ok(Self {
            argv,
            argv_why,
            env: environment(inputs, config, ids),
            cwd,
            cwd_why,
            capabilities: capabilities(request, ids),
            terminal: inputs.host.terminal,
            limits: request.limits.clone(),
            stop_signal: stop_signal(request, config)?,
        })
    }

    /// The workload's HOME.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.env.iter().find(|(name, _)| name == "HOME").map(|(_, value)| value.into())
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
