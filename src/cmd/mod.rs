//! The verbs: one file each, glue only. In: parsed arguments. Out: an exit status.

mod explain;
mod generate;
mod refused;
mod run;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Verb};
use crate::error::{EXIT_GPURUN, Result};
use crate::launch::fds::Inherited;

/// Parses the command line and does what it says.
pub fn dispatch(inherited: Inherited) -> Result<u8> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return refused::reason(&usage).map_or_else(|| Ok(print_usage(&usage)), Err),
    };
    match cli.verb.unwrap_or(Verb::Run(cli.run)) {
        Verb::Run(args) => run::run(&args, inherited),
        Verb::Explain(args) => explain::explain(&args),
        Verb::Spec(args) => explain::spec(&args),
        Verb::Completions { shell } => generate::completions(shell),
        Verb::Man => generate::man(),
        Verb::Pull(_) | Verb::Images(_) | Verb::Inspect(_) | Verb::Rm(_) => {
            Err(crate::error::Error::new("images cannot be stored yet"))
        }
    }
}

/// Help is what was asked for; a usage error ends with 125, since clap's 2 could be the workload's own.
fn print_usage(usage: &clap::Error) -> u8 {
    let asked = matches!(usage.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let _ = usage.print(); // to stdout or stderr, which may be closed
    if asked { 0 } else { EXIT_GPURUN }
}
