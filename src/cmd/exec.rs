//! `gpurun exec`: a command beside a workload that runs already.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::cli::ExecArgs;
use crate::error::{Context, Result};
use crate::host::Host;
use crate::launch::fds::Inherited;
use crate::launch::join::{self, Target};
use crate::plan::Process;
use crate::plan::env::{self, Rule};
use crate::runs;

/// Runs it and ends as it ends.
pub(super) fn exec(args: &ExecArgs, inherited: Inherited) -> Result<u8> {
    let host = Host::probe();
    // The workload may have been started without a terminal.
    let term = host.terminal.then(|| Ok(Rule::Pass("TERM".into())));
    let rules = term.into_iter().chain(args.env.iter().map(|rule| Rule::parse(rule))).collect::<Result<Vec<_>>>()?;
    let run = runs::find(&args.target)?;
    let target = Target::open(&run).context(|| format!("join the run `{}`", args.target))?;
    let process = Process { dac_override: run.label.dac_override, ..process(args, &host, &rules, target.env.clone()) };
    let workloads = args.workdir.is_none();
    let Err(failure) = join::join(&target, &process, inherited);
    Err(if workloads { failure.hint("`-w /` starts elsewhere than the workload is") } else { failure })
}

fn process(args: &ExecArgs, host: &Host, rules: &[Rule], env: Vec<(OsString, OsString)>) -> Process {
    let (cwd, cwd_why) = match &args.workdir {
        Some(path) => (path.clone(), "--workdir"),
        None => (PathBuf::from("."), "the workload's"),
    };
    Process {
        argv: args.command.clone(),
        argv_why: "the command line",
        env: env::amended(env, rules, host),
        cwd,
        cwd_why,
        dac_override: false,
        terminal: host.terminal,
        limits: Vec::new(),
        stop_signal: libc::SIGTERM,
    }
}
