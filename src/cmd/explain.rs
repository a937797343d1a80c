//! `gpurun explain` and `gpurun spec`: the plan of a run, which is not started.

use super::run;
use crate::cli::RunArgs;
use crate::error::Result;
use crate::output;
use crate::plan;

/// Prints the plan with its reasons.
pub(super) fn explain(args: &RunArgs, json: bool) -> Result<u8> {
    let (plan, _held) = run::plan(args)?;
    if json {
        output::json(&plan)?;
    } else {
        output::facts(&plan::explain::human(&plan))?;
    }
    Ok(0)
}

/// Prints the OCI runtime spec.
pub(super) fn spec(args: &RunArgs) -> Result<u8> {
    let (plan, _held) = run::plan(args)?;
    output::json(&plan::spec::render(&plan)?)?;
    Ok(0)
}
