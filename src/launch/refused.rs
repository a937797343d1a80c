//! Kernels and surroundings that refuse what a launch needs: which switch it is, and what to do.
//!
//! In: the error of the call that was refused, the host's switches and what confines this process. Out: the error with a hint. [`namespaces`] is for the
//! supervisor's calls, [`mounts`] for the
//! launched process's, [`resolver`] for what is read of the image before.

use std::fs;
use std::path::PathBuf;

use crate::error::Error;

/// What forbids user namespaces, as far as the host shows it.
#[derive(Clone, Debug, Default)]
struct Switches {
    /// `user.max_user_namespaces` is 0.
    none_allowed: bool,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's own, until 2021).
    for_root_only: bool,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu, since 24.04).
    by_apparmor: bool,
    /// What a security module confines this process by.
    confined: Option<String>,
    /// gpurun's own file.
    program: PathBuf,
}

/// An error of the user or PID namespace or its maps, with what blocks it.
pub(super) fn namespaces(error: Error) -> Error {
    let is = |name: &str, value: &str| fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|v| v.trim() == value);
    let switches = Switches {
        none_allowed: is("user/max_user_namespaces", "0"),
        for_root_only: is("kernel/unprivileged_userns_clone", "0"),
        by_apparmor: is("kernel/apparmor_restrict_unprivileged_userns", "1"),
        confined: confined(),
        program: std::env::current_exe().unwrap_or_else(|_| "gpurun".into()),
    };
    explain(error, &switches)
}

fn explain(error: Error, switches: &Switches) -> Error {
    if switches.none_allowed {
        return error.hint("user namespaces are switched off: `sysctl user.max_user_namespaces=15000`, as root");
    }
    if switches.for_root_only {
        return error.hint("user namespaces are switched off: `sysctl kernel.unprivileged_userns_clone=1`, as root");
    }
    match (error.errno(), switches.confined.as_deref()) {
        (Some(libc::EPERM | libc::EACCES), None) if switches.by_apparmor => unprofiled(error, switches),
        (Some(libc::EPERM | libc::EACCES), Some(label)) if label.starts_with(UNPRIVILEGED) => {
            unprofiled(error, switches)
        }
        (Some(libc::EPERM | libc::EACCES), Some(label)) => error.hint(within(label)).hint(FORBIDDEN),
        (Some(libc::ENOSPC), _) => error
            .hint("too many namespaces: raise `user.max_user_namespaces` and `user.max_pid_namespaces`, or nest less"),
        (Some(libc::EPERM), _) => error.hint(FORBIDDEN),
        (Some(libc::ENOSYS), _) => error.hint(UNKNOWN),
        _ => error,
    }
}

fn unprofiled(error: Error, switches: &Switches) -> Error {
    error
        .hint(format!("AppArmor restricts user namespaces to programs with a profile: as root, {}", profile(switches)))
        .hint("or for all programs: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, as root")
}

/// The profile that Ubuntu puts a program into which makes a user namespace and has no profile of its own: the namespace
/// is made, and every capability in it denied, so that its maps cannot be written (AppArmor's wiki,
/// unprivileged_userns_restriction). Where that profile is not loaded, unshare is refused with EACCES.
const UNPRIVILEGED: &str = "unprivileged_userns";

const FORBIDDEN: &str = "something around gpurun forbids user namespaces: a container's seccomp profile (`--security-opt \
                         seccomp=unconfined` lifts Docker's), a chroot, or a root without CAP_SETFCAP, as in `gpurun \
                         --root`";

/// The label that AppArmor or SELinux confines this process by (proc_pid_attr(5)); `None` if there is none that does.
fn confined() -> Option<String> {
    let label = fs::read_to_string("/proc/self/attr/current").ok()?;
    let label = label.trim_end_matches(['\n', '\0']);
    let free = label.is_empty() || label.contains("unconfined") || label.ends_with("(complain)");
    (!free).then(|| label.to_owned())
}

fn within(label: &str) -> String {
    format!(
        "gpurun is confined as `{label}`: a profile or policy that forbids this (in a container, `--security-opt \
         apparmor=unconfined` or `label=disable` lifts it)"
    )
}

/// What writes and loads a profile that allows gpurun its namespaces (apparmor.d(5), as Ubuntu ships for browsers).
fn profile(switches: &Switches) -> String {
    let program = switches.program.display();
    format!(
        "`printf '%s\\n' 'abi <abi/4.0>,' 'profile gpurun \"{program}\" flags=(unconfined) {{ userns, }}' \
         >/etc/apparmor.d/gpurun && apparmor_parser -r /etc/apparmor.d/gpurun`"
    )
}

const UNKNOWN: &str = "the kernel, or a sandbox around gpurun, does not have this call: Linux 5.12 or newer is needed, and no \
                       seccomp profile that hides it";

/// An error of the launched process before the workload, with what refuses the call.
pub(super) fn mounts(error: Error) -> Error {
    explain_mounts(error, confined)
}

/// AppArmor refuses a mount with EACCES, which a file of the user's may answer as well.
fn explain_mounts(error: Error, confined: impl FnOnce() -> Option<String>) -> Error {
    match error.errno() {
        Some(libc::ENOSYS) => error.hint(UNKNOWN),
        Some(libc::EMFILE) => error.hint("a limit of the caller's: `ulimit -n` raises it"),
        Some(libc::EFBIG) => error.hint("a limit of the caller's: `ulimit -f` raises it"),
        Some(errno @ (libc::EPERM | libc::EACCES)) => match confined() {
            Some(label) => error.hint(within(&label)),
            None if errno == libc::EPERM => error.hint(
                "user namespaces work here and mounts in them do not: a seccomp profile or a security module around \
                 gpurun forbids them",
            ),
            None => error,
        },
        _ => error,
    }
}

/// An error of fork(2).
pub(super) fn processes(error: Error) -> Error {
    match error.errno() {
        Some(libc::EAGAIN) => {
            error.hint("a limit of the caller's or the job's: `ulimit -u`, or its cgroup's `pids.max`")
        }
        _ => error,
    }
}

/// An error of the resolver of image paths, before the launch: openat2(2) is what many sandboxes do not have.
pub(crate) fn resolver(error: Error) -> Error {
    match error.errno() {
        Some(libc::ENOSYS) => error.hint(format!("openat2: {UNKNOWN}")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    fn hints(errno: Errno, switches: &Switches) -> String {
        explain(Error::new("unshare").because(errno), switches).hints().join("\n")
    }

    #[test]
    fn each_switch_has_its_own_remedy() {
        let program = PathBuf::from("/home/me/bin/gpurun");
        let none = Switches { program, ..Switches::default() };
        let off = Switches { none_allowed: true, ..none.clone() };
        let debian = Switches { for_root_only: true, ..none.clone() };
        let ubuntu = Switches { by_apparmor: true, ..none.clone() };
        let confined = |label: &str| Switches { confined: Some(label.into()), ..ubuntu.clone() };
        let (moved, docker) = (confined("unprivileged_userns (enforce)"), confined("docker-default (enforce)"));
        let own = "'profile gpurun \"/home/me/bin/gpurun\" flags=(unconfined) { userns, }'";
        for (errno, switches, want) in [
            (Errno::ENOSPC, &off, "user.max_user_namespaces=15000"),
            (Errno::EPERM, &debian, "unprivileged_userns_clone=1"),
            (Errno::EACCES, &ubuntu, own),
            (Errno::EPERM, &ubuntu, "apparmor_restrict_unprivileged_userns=0"),
            (Errno::EPERM, &moved, own),
            (Errno::EACCES, &moved, own),
            (Errno::EPERM, &docker, "confined as `docker-default (enforce)`"),
            (Errno::EPERM, &docker, "seccomp=unconfined"),
            (Errno::ENOSPC, &ubuntu, "nest less"),
            (Errno::ENOSPC, &none, "nest less"),
            (Errno::EPERM, &none, "seccomp=unconfined"),
            (Errno::ENOSYS, &none, "Linux 5.12"),
        ] {
            assert!(hints(errno, switches).contains(want), "{want} in {}", hints(errno, switches));
        }
        assert!(!hints(Errno::EPERM, &docker).contains("AppArmor restricts"));
        assert_eq!(hints(Errno::ENOMEM, &ubuntu), "");
    }

    #[test]
    fn a_refused_mount_names_what_confines_us() {
        let hints = |errno: Errno, label: Option<&str>| {
            explain_mounts(Error::new("mount").because(errno), || label.map(Into::into)).hints().join("\n")
        };
        let docker = Some("docker-default (enforce)");
        assert!(hints(Errno::EACCES, docker).contains("apparmor=unconfined"));
        assert!(hints(Errno::EPERM, docker).contains("`docker-default (enforce)`"));
        assert!(hints(Errno::EPERM, None).contains("a security module"));
        assert_eq!(hints(Errno::EACCES, None), "");
        assert_eq!(hints(Errno::ENOENT, docker), "");
    }
}
