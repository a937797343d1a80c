//! Files + environment + flags → settings: which value each option has, and who says so. Pure, but for [`settle`], which
//! reads the files.
//!
//! In: `/etc/gpurun/config.toml` and the caller's own, and the command line as clap parsed it without them. Out: the command
//! line as it stands with them. A key is the long name of an option that has a variable, and its value becomes the default
//! of clap's argument: so there is no second list of options, and a flag or a variable comes before. Then come the
//! profile, the caller's file, and the machine's. What is said of registries is read by [`crate::registry`], when one is asked.

mod apply;
mod file;

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use serde::Serialize;

pub use apply::Settled;
pub(crate) use file::toml_error;

use crate::cli::Cli;
use crate::error::{Context, Error, Hint, Result};
use crate::host::Host;
use file::{File, Setting};

/// The machine's file.
const MACHINES: &str = "/etc/gpurun/config.toml";
/// The largest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// An option that was given a value, and by whom, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Given {
    /// Its long name.
    pub option: String,
    /// Its value, or its values with commas between.
    pub value: String,
    /// Who says so.
    pub why: String,
}

/// The caller's file, whether it is there or not, and the machine's.
pub(crate) fn paths(own: Option<PathBuf>) -> impl Iterator<Item = PathBuf> {
    own.map(|dir| dir.join("gpurun/config.toml")).into_iter().chain([MACHINES.into()])
}

/// The command line `argv`, which is `bare` without the files, with what they add. `command` makes the command that
/// `bare` was parsed by.
pub fn settle(command: impl Fn() -> Command, argv: &[OsString], bare: ArgMatches) -> Result<Settled> {
    let lines = std::env::vars_os().any(|(name, value)| is_list(&name, &value));
    let texts = paths(config_home()).filter_map(|path| text(&path).transpose()).collect::<Result<Vec<_>>>()?;
    if texts.is_empty() && !lines {
        return Ok(Settled { matches: bare, settings: Vec::new() });
    }
    let variable = |name: &str| std::env::var(name).ok();
    let files = texts.iter().map(|(path, text)| File::parse(path, text, &variable));
    apply::apply(&command, argv, bare, &Config(files.collect::<Result<_>>()?))
}

/// Whether a variable of ours has several lines.
fn is_list(name: &std::ffi::OsStr, value: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"GPURUN_") && value.as_encoded_bytes().contains(&b'\n')
}

/// Where the caller keeps configuration; only who has no `$HOME` is looked up.
fn config_home() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").or_else(|| Host::probe().home);
    absolute("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")))
}

/// A file and its text, if there is one.
fn text(path: &Path) -> Result<Option<(PathBuf, String)>> {
    use std::io::ErrorKind;
    let what = || format!("read the configuration file `{}`", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        // A home that the caller may not even look into, as root's in a user namespace, has nothing of theirs.
        Err(e) if e.kind() == ErrorKind::PermissionDenied && path.symlink_metadata().is_err() => return Ok(None),
        Err(e) => return Err(e).context(what),
    };
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).context(what)?;
    match text.len() as u64 > MAX_FILE {
        true => Err(Error::new(format!("it is larger than {MAX_FILE} bytes"))).context(what),
        false => Ok(Some((path.into(), text))),
    }
}

/// What the files say, the caller's first.
#[derive(Debug, Default)]
struct Config(Vec<File>);

impl Config {
    /// The value that each key has with this profile: the first of what says something about it.
    fn merged(&self, profile: Option<&str>) -> Result<Vec<Setting>> {
        let of_profile = match profile {
            Some(name) => self.profile(name)?,
            None => Vec::new(),
        };
        let mut merged: Vec<Setting> = Vec::new();
        for setting in of_profile.into_iter().chain(self.0.iter().flat_map(|file| &file.options)) {
            if merged.iter().all(|other| other.key != setting.key) {
                merged.push(setting.clone());
            }
        }
        Ok(merged)
    }

    fn profile(&self, name: &str) -> Result<Vec<&Setting>> {
        let found: Vec<_> = self.0.iter().filter_map(|file| file.profiles.get(name)).collect();
        if !found.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
        let error = Error::new(format!("there is no profile `{}`", name.escape_debug()));
        let known: Vec<_> = self.0.iter().flat_map(|file| file.profiles.keys().map(String::as_str)).collect();
        Err(error).hint(|| match known[..] {
            [] => "a `[profile.NAME]` in ~/.config/gpurun/config.toml makes one".into(),
            _ => format!("there are: {}", known.join(", ")),
        })
    }

    fn all(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter().flat_map(|file| file.options.iter().chain(file.profiles.values().flatten()))
    }
}
