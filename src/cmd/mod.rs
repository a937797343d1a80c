//! The verbs: one file each, glue only. In: parsed arguments. Out: an exit status.

mod exec;
mod explain;
mod generate;
mod gpus;
mod images;
mod login;
mod nvml;
mod ps;
mod refused;
mod run;

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Instant;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Subcommand};

use crate::cli::{Cli, ExplainArgs, FetchArgs, Pull, RunArgs, StoreArgs, Verb};
use crate::error::{Context, EXIT_GPURUN, Result};
use crate::host::Host;
use crate::image::Platform;
use crate::launch::Inherited;
use crate::progress::Progress;
use crate::pull::{self, Obtained};
use crate::reference::ImageRef;
use crate::request::parse_size;
use crate::store::Store;
use crate::timings::Timings;
use crate::{config, output, registry, source};

/// How this process was called.
#[derive(Debug)]
pub struct Call {
    /// The command line, with the program's name.
    pub argv: Vec<OsString>,
    /// What came with it.
    pub inherited: Inherited,
    /// When.
    pub start: Instant,
}

/// Parses the command line and does what it says.
pub fn dispatch(call: &Call) -> Result<u8> {
    if let Some((argv, bare)) = plain_run(&call.argv) {
        let mut matches = ManuallyDrop::new(config::settle(plain_command, &argv, bare)?.matches);
        let args = RunArgs::from_arg_matches_mut(&mut matches).context(|| "read the command line")?;
        return run::run(&args, call);
    }
    let bare = match Cli::command().try_get_matches_from(&call.argv) {
        Ok(matches) => matches,
        Err(usage) => return refused::reason(&usage).map_or_else(|| Ok(print_usage(&usage)), Err),
    };
    let settled = config::settle(Cli::command, &call.argv, bare)?;
    let cli = Cli::from_arg_matches(&settled.matches).context(|| "read the command line")?;
    let given = || settled.given(&Cli::command());
    match cli.verb.unwrap_or(Verb::Run(cli.run)) {
        Verb::Run(args) if args.dry_run => run::run(&RunArgs { given: given(), ..args }, call),
        Verb::Run(args) => run::run(&args, call),
        Verb::Exec(args) => exec::exec(&args, call.inherited),
        Verb::Ps(args) => ps::ps(&args),
        Verb::Explain(ExplainArgs { json, run }) => explain::explain(&RunArgs { given: given(), ..run }, json),
        Verb::Spec(args) => explain::spec(&args),
        Verb::Gpus(args) => gpus::gpus(&args),
        Verb::Cdi { verb } => gpus::cdi(&verb),
        Verb::Completions { shell } => generate::completions(shell),
        Verb::Man => generate::man(),
        Verb::Pull(args) => images::pull(&args),
        Verb::Images(args) => images::images(&args),
        Verb::Inspect(args) => images::inspect(&args),
        Verb::Rm(args) => images::rm(&args),
        Verb::Prune(args) => images::prune(&args),
        Verb::Login(args) => login::login(&args),
        Verb::Logout(args) => login::logout(&args),
    }
}

/// A run without mistakes is parsed without the other verbs, which take as long as all the rest; and what clap has made for it
/// is not taken apart. Everything else, and every refusal, is left to the whole command line.
fn plain_run(argv: &[OsString]) -> Option<(Vec<OsString>, ArgMatches)> {
    let mut args = argv.to_vec();
    let first = argv.get(1)?.to_str()?;
    if first == "run" {
        args.remove(1);
    } else if first == "help" || Verb::has_subcommand(first) {
        return None;
    }
    let mut command = ManuallyDrop::new(plain_command());
    let matches = command.try_get_matches_from_mut(&args).ok()?;
    (!matches.get_flag("dry_run")).then_some((args, matches))
}

fn plain_command() -> clap::Command {
    RunArgs::augment_args(clap::Command::new("gpurun").args_override_self(true).disable_help_flag(true))
}

/// Help is what was asked for; a usage error ends with 125, since clap's 2 could be the workload's own.
fn print_usage(usage: &clap::Error) -> u8 {
    let asked = matches!(usage.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let _ = usage.print(); // to stdout or stderr, which may be closed
    if asked { 0 } else { EXIT_GPURUN }
}

/// The image that `text` names, in the store that the options mean.
fn obtain(text: &str, args: &StoreArgs, fetch: &FetchArgs, host: &Host, when: Pull) -> Result<Obtained> {
    let reference = ImageRef::parse_at(text)?;
    let store = Store::locate(args.store.as_deref(), host)?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let progress = Arc::new(Progress::new(args.quiet));
    let teller = Arc::clone(&progress);
    let (max_unpacked, timings) = (parse_size(&fetch.max_unpacked)?, Arc::new(Timings::new(fetch.timings)));
    let sync_every = pull::SYNC_EVERY;
    let options = pull::Options { when, platform, max_unpacked, sync_every, progress, timings: Arc::clone(&timings) };
    let obtained = pull::obtain(&reference, &store, &options, || {
        let notice = Arc::new(move |line: &str| teller.notice(line));
        let settings = registry::Settings::of(host);
        source::open(&reference, &registry::Options { plain_http: args.plain_http, settings, notice })
    });
    timings.table().iter().for_each(|table| output::table(table));
    obtained
}
