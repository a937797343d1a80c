//! Options of Docker that mean nothing to a rootless launcher that runs one command: why, and what works instead.
//!
//! In: clap's usage error. Out: the reason, if it is about one of them. Pure.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::Error;

/// Spellings, by commas, and the reason.
const REFUSED: &[(&str, &str)] = &[
    ("--detach,-d", "a run stays in the foreground and ends with its caller: `gpurun … &`"),
    ("--publish,-p,--publish-all,-P,--expose", "the network is the host's network: every port is published already"),
    ("--privileged", "an ordinary user has no privileges to give"),
    ("--cap-add,--cap-drop", "there are no capabilities inside, and an ordinary user can give none"),
    ("--device-cgroup-rule,--blkio-weight,--cgroup-parent,--cgroupns", "no cgroup is made: the job's own holds"),
    ("--memory,-m,--memory-swap,--memory-reservation", "no cgroup is made: limit the job, or `--ulimit as=BYTES`"),
    ("--cpus,--cpu-shares,-c,--cpuset-cpus,--cpuset-mems", "no cgroup is made: limit the job, or use `taskset`"),
    ("--cpu-period,--cpu-quota,--pids-limit,--oom-kill-disable", "no cgroup is made: limit the job"),
    ("--password", "everyone on the machine can read a command line: use `--password-stdin`, or type it"),
    ("--restart", "a command is run once"),
    ("--volumes-from,--volume-driver,--link,--cidfile,--ip", "there is no other container and no volume to refer to"),
    ("--runtime", "gpurun is the runtime, and `--gpus` brings the GPUs"),
    ("--security-opt", "no_new_privs holds always, and nothing else can be set"),
    ("--userns", "there is always a user namespace: `--root` and `--user` choose the ids"),
    ("--uts,--ipc,--net-alias", "the host's IPC is shared, and `--hostname` makes a UTS namespace"),
    ("--dns,--dns-search,--dns-option,--add-host", "bind a file of your own: `-v ./resolv.conf:/etc/resolv.conf`"),
    ("--group-add", "the caller's groups stay as they are, and an ordinary user can add none"),
    ("--health-cmd,--health-interval,--no-healthcheck,--log-driver,--log-opt", "there is no daemon to do it"),
    ("--sysctl", "an ordinary user can set none on the host, and few would be the container's own"),
];

/// The reason why an option is refused.
pub(super) fn reason(usage: &clap::Error) -> Option<Error> {
    let Some(ContextValue::String(argument)) = usage.get(ContextKind::InvalidArg) else { return None };
    let option = argument.split([' ', '=']).next().unwrap_or_default();
    if option == "--init" && usage.kind() == ErrorKind::TooManyValues {
        return Some(Error::new("`--init=false` cannot be had: there is always an init, which reaps and forwards"));
    }
    let is = |spelling: &&str| *spelling == option;
    let (spellings, why) = REFUSED.iter().find(|(spellings, _)| spellings.split(',').any(|s| is(&s)))?;
    let name = spellings.split(',').find(|s| is(s) && s.starts_with("--")).or(spellings.split(',').next())?;
    Some(Error::new(format!("`{name}` cannot be had: {why}")))
}
