//! `gpurun completions` and `gpurun man`: generated from the command line's own definition.

use clap::CommandFactory;

use crate::cli::Cli;
use crate::error::{Context, Result};
use crate::output;

/// Prints the completion script of a shell.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gpurun", &mut script);
    output::facts(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// Prints the man page.
pub(super) fn man() -> Result<u8> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).context(|| "render the man page")?;
    output::facts(&String::from_utf8_lossy(&page))?;
    Ok(0)
}
