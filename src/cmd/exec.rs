//! `gpurun exec`: a command beside a workload that runs already.

use std::ffi::OsString;
use std::path::PathBuf;

use super::run::accounts_in;
use crate::cli::ExecArgs;
use crate::error::{Context, Result};
use crate::host::Host;
use crate::launch::Inherited;
use crate::launch::join::{self, Target, User};
use crate::plan::account::Account;
use crate::plan::env::{self, Rule};
use crate::plan::idmap::Mapping;
use crate::plan::{Process, user};
use crate::runs;

/// Runs it and ends as it ends.
pub(super) fn exec(args: &ExecArgs, inherited: Inherited) -> Result<u8> {
    let host = Host::probe();
    // The workload may have been started without a terminal.
    let term = host.terminal.then(|| Ok(Rule::Pass("TERM".into())));
    let rules = term.into_iter().chain(args.env.iter().map(|rule| Rule::parse(rule))).collect::<Result<Vec<_>>>()?;
    let run = runs::find(&args.target)?;
    let mut target = Target::open(&run).context(|| format!("join the run `{}`", args.target))?;
    let mut process =
        Process { capabilities: run.label.capabilities.clone(), ..process(args, &host, target.env.clone()) };
    if let Some(spec) = &args.user {
        let map = run.label.map.as_ref().context(|| "the run is an older gpurun's, which does not tell its users")?;
        become_another(spec, map, &host, &mut target, &mut process)?;
    }
    process.env = env::amended(process.env, &rules, &host);
    let Err(failure) = join::join(&target, &process, inherited);
    Err(failure)
}

/// Makes it one of the users that there are in the run. The workload's own keeps what the workload has.
fn become_another(spec: &str, map: &Mapping, host: &Host, target: &mut Target, process: &mut Process) -> Result<()> {
    let account = Account::find(spec, "--user", &accounts_in(&[target.root()?])?)?;
    let callers = map.uids.inside(host.uid).zip(map.gids.inside(host.gid));
    let callers = callers.context(|| "find the caller's ids inside")?;
    map.check(account.uid, user::groups(&account, callers.0).into_iter().flatten().chain([account.gid]), "--user")?;
    let account = user::another(account, spec, callers, map)?;
    if account.uid != target.user.uid {
        process.capabilities = user::capabilities(account.uid, map);
        process.env = env::of_user(std::mem::take(&mut process.env), &account.name, &account.home);
    }
    target.user = User { uid: account.uid, gid: account.gid, groups: user::groups(&account, callers.0) };
    Ok(())
}

fn process(args: &ExecArgs, host: &Host, env: Vec<(OsString, OsString)>) -> Process {
    let (cwd, cwd_why) = match &args.workdir {
        Some(path) => (path.clone(), "--workdir"),
        None => (PathBuf::from("."), "the workload's"),
    };
    Process {
        argv: args.command.clone(),
        argv_why: "the command line",
        env,
        cwd,
        cwd_why,
        capabilities: Vec::new(),
        terminal: host.terminal,
        limits: Vec::new(),
        stop_signal: libc::SIGTERM,
    }
}
