//! Options of Docker that mean nothing to a rootless launcher that runs one command: why, and what works instead.
//!
//! In: clap's usage error. Out: the reason, if it is about one of them, or about what is no text. Pure.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::Error;

/// Spellings, by commas, and the reason.
const REFUSED: &[(&str, &str)] = &[
    ("--detach,-d,--detach-keys", "a run stays in the foreground and ends with its caller: `gpurun … &`"),
    (
        "--attach,-a,--sig-proxy",
        "stdin, stdout, stderr and signals are always the caller's: redirect what is not wanted",
    ),
    ("--publish,-p,--publish-all,-P,--expose", "the network is the host's network: every port is published already"),
    ("--privileged", "an ordinary user has no privileges to give: `--root` or `--fakeroot` look like root inside"),
    (
        "--cap-add,--cap-drop",
        "there are no capabilities inside, and an ordinary user can give none; see `--fakeroot` and `--ids`",
    ),
    ("--device-cgroup-rule,--cgroup-parent,--cgroupns", "no cgroup is made: the job's own holds"),
    ("--device-read-bps,--device-read-iops,--device-write-bps,--device-write-iops", "no cgroup is made: use `ionice`"),
    ("--blkio-weight,--blkio-weight-device,--io-maxbandwidth,--io-maxiops", "no cgroup is made: use `ionice`"),
    ("--memory,-m,--memory-swap,--memory-reservation", "no cgroup is made: limit the job, or `--ulimit as=BYTES`"),
    (
        "--memory-swappiness,--kernel-memory,--kernel-memory-tcp",
        "no cgroup is made: limit the job, or `--ulimit as=BYTES`",
    ),
    (
        "--cpus,--cpu-shares,-c,--cpuset-cpus,--cpuset-mems",
        "no cgroup is made: limit the job, or use `taskset` or `numactl`",
    ),
    ("--cpu-period,--cpu-quota,--cpu-rt-period,--cpu-rt-runtime", "no cgroup is made: limit the job, or use `taskset`"),
    ("--cpu-count,--cpu-percent,--isolation", "it is for Windows: limit the job, or use `taskset`"),
    ("--pids-limit,--oom-kill-disable", "no cgroup is made: limit the job, or `--ulimit nproc=N`"),
    ("--oom-score-adj", "it stays the caller's: `choom -n N gpurun …` sets it"),
    ("--password", "everyone on the machine can read a command line: use `--password-stdin`, or type it"),
    ("--restart", "a command is run once: loop in the shell, or let the scheduler requeue"),
    (
        "--stop-timeout",
        "whoever sends the signal decides when to kill: `timeout -k SECONDS`, or the scheduler's grace time",
    ),
    ("--volumes-from,--volume-driver", "there is no other container and no named volume: `-v HOSTDIR:DIR`"),
    ("--link,--ip,--ip6,--link-local-ip,--mac-address", "there is no network of its own: `--network host` or `none`"),
    ("--network-alias,--net-alias", "there is no network of its own: `--network host` or `none`"),
    ("--net", "it is spelt `--network`: `host` or `none`"),
    ("--cidfile", "there is no container to name: `$!` of the shell is the run, and `--name` is seen inside"),
    ("--runtime", "gpurun is the runtime, and `--gpus` brings the GPUs"),
    ("--security-opt", "no_new_privs holds always; a seccomp profile is given by `--seccomp FILE`"),
    ("--userns", "there is always a user namespace: `--root`, `--user` and `--ids` choose the ids"),
    ("--uts,--domainname", "`--hostname` makes a UTS namespace, and nothing else is set in it"),
    ("--ipc", "the host's IPC is shared, as MPI and NCCL need it; `--shm-size` makes a private /dev/shm"),
    ("--dns,--dns-search,--dns-option,--dns-opt", "bind a file of your own: `-v ./resolv.conf:/etc/resolv.conf`"),
    ("--add-host", "bind a file of your own: `-v ./hosts:/etc/hosts`"),
    ("--group-add", "the caller's groups stay as they are, and an ordinary user can add none"),
    ("--health-cmd,--health-interval,--health-retries,--health-timeout", "there is no daemon to look: use `timeout`"),
    ("--health-start-period,--health-start-interval,--no-healthcheck", "no health check is ever run: leave it out"),
    ("--log-driver,--log-opt", "there is no daemon that logs: redirect stdout and stderr"),
    ("--annotation,--label-file", "nothing reads annotations or labels: leave it out"),
    ("--disable-content-trust", "no signature is checked, digests always are: name the image by its digest"),
    ("--storage-opt", "changes live in memory: `--tmpfs DIR:size=SIZE` limits a directory"),
    ("--use-api-socket", "there is no daemon: `-v /run/docker.sock:/run/docker.sock` for Docker's own"),
    ("--sysctl", "an ordinary user can set none on the host, and few would be the container's own"),
];

/// The reason why an option is refused.
pub(super) fn reason(usage: &clap::Error) -> Option<Error> {
    if usage.kind() == ErrorKind::InvalidUtf8 {
        return Some(
            Error::new("an image, or what an option takes that is no path, is not UTF-8")
                .hint("such a path of an image is named from its directory: `cd` there, and `./NAME`"),
        );
    }
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
