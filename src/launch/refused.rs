//! Kernels and surroundings that refuse what a launch needs: which switch it is, and what to do.
//!
//! In: the error of the call that was refused, and the host's switches. Out: the error with a hint. [`namespaces`] is for the
//! supervisor's calls, [`mounts`] for the
//! launched process's, [`resolver`] for what is read of the image before.

use std::fs;
use std::path::PathBuf;

use crate::error::Error;

/// The switches that forbid user namespaces, as far as the host shows them.
#[derive(Clone, Debug, Default)]
struct Switches {
    /// `user.max_user_namespaces` is 0.
    none_allowed: bool,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's own, until 2021).
    for_root_only: bool,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu, since 24.04).
    by_apparmor: bool,
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
    if switches.by_apparmor {
        return error
            .hint(format!(
                "AppArmor restricts user namespaces to programs with a profile: as root, {}",
                profile(switches)
            ))
            .hint("or for all programs: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, as root");
    }
    match error.errno() {
        Some(libc::ENOSPC) => error.hint("too many user namespaces: raise `user.max_user_namespaces`, or nest less"),
        Some(libc::EPERM) => error.hint(
            "something around gpurun forbids user namespaces: a container's seccomp profile (`--security-opt \
             seccomp=unconfined` lifts Docker's), a chroot, or a root without CAP_SETFCAP, as in `gpurun --root`",
        ),
        Some(libc::ENOSYS) => error.hint(UNKNOWN),
        _ => error,
    }
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
    match error.errno() {
        Some(libc::ENOSYS) => error.hint(UNKNOWN),
        Some(libc::EPERM) => error.hint(
            "user namespaces work here and mounts in them do not: a seccomp profile or a security module around gpurun \
             forbids them",
        ),
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
        for (errno, switches, want) in [
            (Errno::ENOSPC, &off, "user.max_user_namespaces=15000"),
            (Errno::EPERM, &debian, "unprivileged_userns_clone=1"),
            (Errno::EACCES, &ubuntu, "'profile gpurun \"/home/me/bin/gpurun\" flags=(unconfined) { userns, }'"),
            (Errno::EPERM, &ubuntu, "apparmor_restrict_unprivileged_userns=0"),
            (Errno::ENOSPC, &none, "nest less"),
            (Errno::EPERM, &none, "seccomp=unconfined"),
            (Errno::ENOSYS, &none, "Linux 5.12"),
        ] {
            assert!(hints(errno, switches).contains(want), "{want} in {}", hints(errno, switches));
        }
        assert_eq!(hints(Errno::ENOMEM, &none), "");
    }
}
