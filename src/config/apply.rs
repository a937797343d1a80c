//! What the files say, as defaults of clap's arguments. Pure, but that clap reads the variables.
//!
//! In: the command, the command line and [`Config`]. Out: what clap makes of them together, or what is wrong in a file. Where
//! two options exclude each other, the one that comes first by the order of precedence puts the other out of force.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory};

use super::file::{Place, Setting, Value};
use super::{Cli, Config, Given};
use crate::error::{Context, Error, Result};

/// A command line with what the files add to it.
#[derive(Debug)]
pub struct Settled {
    /// As clap has it.
    pub matches: ArgMatches,
    pub(super) settings: Vec<Setting>,
}

pub(super) fn apply(
    command: &dyn Fn() -> Command,
    argv: &[OsString],
    bare: ArgMatches,
    config: &Config,
) -> Result<Settled> {
    let (path, given) = verb(&bare);
    let command = command();
    let of_verb = path.iter().try_fold(&command, |command, name| command.find_subcommand(name));
    let of_verb = of_verb.context(|| "find the verb's options")?;
    if !of_verb.get_arguments().any(has_key) {
        return Ok(Settled { matches: bare, settings: Vec::new() });
    }
    check(config, of_verb)?;
    let profile = given.try_get_one::<String>("profile").ok().flatten();
    let settings = config.merged(profile.map(String::as_str))?;
    let settings = without_excluded(settings, of_verb, given)?;
    let with_defaults = |command: Command| command.mut_args(|arg| with_default(arg, &settings, given));
    let command = within(command.clone(), &path, &with_defaults);
    let matches = command.try_get_matches_from(argv).context(|| "apply the configuration files")?;
    Ok(Settled { matches, settings })
}

/// The names that lead to the verb, and what it was given.
fn verb(matches: &ArgMatches) -> (Vec<&str>, &ArgMatches) {
    let (mut path, mut matches) = (Vec::new(), matches);
    while let Some((name, below)) = matches.subcommand() {
        path.push(name);
        matches = below;
    }
    (path, matches)
}

/// `command` with the verb at `path` changed.
fn within(command: Command, path: &[&str], change: &dyn Fn(Command) -> Command) -> Command {
    match path {
        [] => change(command),
        [name, rest @ ..] => command.mut_subcommand(name, |below| within(below, rest, change)),
    }
}

/// Options that have a variable have a key; the choice of a profile is not a part of one.
fn has_key(arg: &Arg) -> bool {
    arg.get_env().is_some() && arg.get_long().is_some_and(|long| long != "profile")
}

fn option<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| has_key(arg) && arg.get_long() == Some(key))
}

/// Refuses keys that no verb has, and values that the verb's options cannot have, wherever they are in the files.
fn check(config: &Config, of_verb: &Command) -> Result<()> {
    let mut all = None;
    for setting in config.all() {
        match option(of_verb, &setting.key) {
            Some(arg) => check_value(setting, arg)?,
            None if has(all.get_or_insert_with(Cli::command), &setting.key) => {}
            None => return Err(unknown(setting, all.get_or_insert_with(Cli::command))),
        }
    }
    Ok(())
}

fn has(command: &Command, key: &str) -> bool {
    option(command, key).is_some() || command.get_subcommands().any(|below| has(below, key))
}

fn unknown(setting: &Setting, all: &Command) -> Error {
    let error = Error::new(format!("{}: there is no key `{}`", setting.place, setting.key.escape_debug()));
    let nearest = keys(all).map(|key| (strsim::jaro_winkler(&key, &setting.key), key));
    match nearest.filter(|(likeness, _)| *likeness > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, key)) => error.hint(format!("perhaps `{key}`")),
        None => error.hint("a key is the long name of an option that has a variable, as `gpus` or `plain-http`"),
    }
}

fn keys(command: &Command) -> Box<dyn Iterator<Item = String> + '_> {
    let own = command.get_arguments().filter(|arg| has_key(arg)).filter_map(|arg| arg.get_long().map(str::to_owned));
    Box::new(own.chain(command.get_subcommands().flat_map(keys)))
}

/// Has clap look at a value, alone.
fn check_value(setting: &Setting, arg: &Arg) -> Result<()> {
    let Setting { key, value, place } = setting;
    let wrong = |what: &str| Err(Error::new(format!("{place}: `{key}` {what}")));
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Flag(_)) => return Ok(()),
        (ArgAction::SetTrue, _) => return wrong("is true or false"),
        (_, Value::Flag(_)) => return wrong("is text or a number"),
        (ArgAction::Set, Value::List(_)) => return wrong("has one value"),
        _ => {}
    }
    let alone = arg.clone().env(None::<&str>).conflicts_with(Resettable::Reset);
    let alone = Command::new("gpurun").no_binary_name(true).disable_help_flag(true).arg(alone);
    let matched = alone.try_get_matches_from(value.values().iter().map(|value| format!("--{key}={value}")));
    matched.map(drop).map_err(|e| refused(place, arg, &e))
}

/// What clap says in its first line, and what it takes.
fn refused(place: &Place, arg: &Arg, by_clap: &clap::Error) -> Error {
    let told = by_clap.to_string();
    let told = told.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let error = Error::new(format!("{place}: {told}"));
    let possible: Vec<_> = arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    if possible.is_empty() { error } else { error.hint(format!("it can be {}", possible.join(", "))) }
}

/// What the files say, without what is excluded by a flag, a variable, or a setting that comes before.
fn without_excluded(merged: Vec<Setting>, of_verb: &Command, given: &ArgMatches) -> Result<Vec<Setting>> {
    let is_set = |setting: &Setting| setting.value != Value::Flag(false);
    let mut kept: Vec<Setting> = Vec::new();
    for setting in merged {
        let Some(arg) = option(of_verb, &setting.key) else { continue };
        let excludes = |other: &Arg| exclude(of_verb, arg, other);
        let by_caller = of_verb.get_arguments().any(|other| excludes(other) && is_given(given, other));
        let before = kept.iter().find(|k| is_set(k) && option(of_verb, &k.key).is_some_and(excludes));
        match before {
            Some(other) if is_set(&setting) && same_table(other, &setting) => {
                let (place, one, two) = (&setting.place, &setting.key, &other.key);
                return Err(Error::new(format!("{place}: `{one}` and `{two}` exclude each other")));
            }
            Some(_) if is_set(&setting) => {}
            _ if by_caller => {}
            _ => kept.push(setting),
        }
    }
    Ok(kept)
}

/// Whether two options exclude each other, whichever of them says so.
fn exclude(of_verb: &Command, a: &Arg, b: &Arg) -> bool {
    let says = |a: &Arg, b: &Arg| of_verb.get_arg_conflicts_with(a).iter().any(|c| c.get_id() == b.get_id());
    says(a, b) || says(b, a)
}

fn same_table(a: &Setting, b: &Setting) -> bool {
    (&a.place.file, &a.place.profile) == (&b.place.file, &b.place.profile)
}

/// Whether the caller said something of an option: by a flag or a variable.
fn is_given(given: &ArgMatches, arg: &Arg) -> bool {
    let source = given.value_source(arg.get_id().as_str());
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// A variable that stands for an option which can be repeated has one value a line.
fn with_default(arg: Arg, settings: &[Setting], given: &ArgMatches) -> Arg {
    let by_variable = given.value_source(arg.get_id().as_str()) == Some(ValueSource::EnvVariable);
    if by_variable && matches!(arg.get_action(), ArgAction::Append) {
        let lines = lines(&arg);
        return arg.env(None::<&str>).default_values(lines);
    }
    match settings.iter().find(|setting| Some(setting.key.as_str()) == arg.get_long()) {
        Some(setting) => arg.default_values(setting.value.values()),
        None => arg,
    }
}

/// The lines of an argument's variable that are not empty.
fn lines(arg: &Arg) -> Vec<OsString> {
    let value = arg.get_env().and_then(std::env::var_os).unwrap_or_default();
    let lines = value.as_bytes().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| OsStr::from_bytes(line).to_owned()).collect()
}

impl Settled {
    /// What variables and files say, for the verb's options; flags are seen where they were written.
    pub fn given(&self, command: &Command) -> Vec<Given> {
        let (path, matches) = verb(&self.matches);
        let of_verb = path.iter().try_fold(command, |command, name| command.find_subcommand(name));
        let options = of_verb.into_iter().flat_map(Command::get_arguments).filter(|arg| has_key(arg));
        options.filter_map(|arg| self.given_of(arg, matches)).collect()
    }

    fn given_of(&self, arg: &Arg, matches: &ArgMatches) -> Option<Given> {
        let (id, option) = (arg.get_id().as_str(), arg.get_long()?);
        let place = || self.settings.iter().find(|s| s.key == option).map(|s| s.place.to_string());
        let variable = || Some(format!("${}", arg.get_env()?.to_string_lossy()));
        let why = match matches.value_source(id)? {
            ValueSource::EnvVariable => variable()?,
            ValueSource::DefaultValue if matches!(arg.get_action(), ArgAction::Append) && !lines(arg).is_empty() => {
                variable()?
            }
            ValueSource::DefaultValue => place()?,
            _ => return None,
        };
        let values: Vec<_> = matches.get_raw(id)?.map(|value| value.to_string_lossy()).collect();
        Some(Given { option: option.into(), value: values.join(", "), why })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::File;
    use super::*;

    /// The options of `run` that the caller's file, the machine's file and `argv` give, in order of their names.
    fn settled(own: &str, machines: &str, argv: &[&str]) -> String {
        let files = [("/own", own), ("/etc", machines)];
        let files = files.map(|(path, text)| File::parse(Path::new(path), text, &|_| None).unwrap());
        let argv: Vec<OsString> = [&["gpurun"], argv, &["image"]].concat().iter().map(Into::into).collect();
        let bare = Cli::command().try_get_matches_from(&argv).unwrap();
        let settled = match apply(&Cli::command, &argv, bare, &Config(files.into())) {
            Ok(settled) => settled,
            Err(error) => return format!("{error:#} {:?}", error.hints()),
        };
        let of = |id: &str| -> Option<String> {
            let values: Vec<_> = settled.matches.get_raw(id)?.map(|value| value.to_string_lossy()).collect();
            Some(format!("{id}={}", values.join("+")))
        };
        let shown = ["gpus", "here", "root", "user", "volume", "workdir"].into_iter().filter_map(of);
        shown.filter(|one| !one.ends_with("=false")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_flag_comes_before_the_profile_the_callers_file_and_the_machines() {
        let (own, machines) = ("gpus = 1\n[profile.p]\ngpus = 2\nvolume = ['/a', '/b']", "gpus = 3\nworkdir = '/m'");
        assert_eq!(settled("", machines, &[]), "gpus=3 workdir=/m");
        assert_eq!(settled(own, machines, &[]), "gpus=1 workdir=/m");
        assert_eq!(settled(own, machines, &["--profile", "p"]), "gpus=2 volume=/a+/b workdir=/m");
        assert_eq!(settled(own, machines, &["--profile=p", "--gpus=4", "-v/c"]), "gpus=4 volume=/c workdir=/m");
        assert_eq!(
            settled(own, "[profile.p]\ngpus = 9\nroot = true", &["--profile=p"]),
            "gpus=2 root=true volume=/a+/b"
        );
    }

    #[test]
    fn what_comes_first_puts_its_opposite_out_of_force() {
        assert_eq!(settled("root = true", "", &["-u", "me"]), "user=me");
        assert_eq!(settled("root = true", "user = 'me'", &[]), "root=true");
        assert_eq!(settled("root = false", "root = true\nuser = 'me'", &[]), "user=me");
        let error = settled("root = true\nuser = 'me'", "", &[]);
        assert!(error.contains("exclude each other"), "{error}");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (own, want) in [
            ("\nplain-htp = true", "`/own` line 2: there is no key `plain-htp` [\"perhaps `plain-http`\"]"),
            ("dry-run = true", "`/own` line 1: there is no key `dry-run`"),
            ("image = 'x'", "`/own` line 1: there is no key `image`"),
            ("root = 'yes'", "`/own` line 1: `root` is true or false"),
            ("gpus = true", "`/own` line 1: `gpus` is text or a number"),
            ("gpus = ['1']", "`/own` line 1: `gpus` has one value"),
            (
                "[profile.p]\npull = 'often'",
                "`/own` line 2 (profile `p`): invalid value 'often' for '--pull <WHEN>' [\"it can be missing, always, never\"]",
            ),
        ] {
            let error = settled(own, "", &[]);
            assert!(error.starts_with(want), "{own}: {error}");
        }
        assert_eq!(settled("max-unpacked = '20g'", "", &[]), "", "a key of another verb");
        let error = settled("[profile.p]\n", "", &["--profile", "q"]);
        assert_eq!(error, "there is no profile `q` [\"there are: p\"]");
    }
}
