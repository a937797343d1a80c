//! `--fakeroot`: what a package manager does as root and cannot do in a namespace of one id answers as if it had worked
//! and does nothing, as in enroot and Charliecloud. Pure.
//!
//! An image's package manager sets owners, makes nodes, gives files capabilities and takes on other ids. With one id mapped
//! none of that can be: every file is the caller's. apt alone looks whether it has become another user, so it is told not
//! to try.

use nix::libc::{S_IFBLK, S_IFCHR, S_IFMT};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
    LinuxSyscallBuilder,
};

/// Where apt reads its settings from, the last of them.
pub const APT_SETTINGS: &str = "/etc/apt/apt.conf.d/zz-gpurun-fakeroot";

/// apt stays root: it checks what setresuid has done.
pub const APT_STAYS_ROOT: &[u8] = b"APT::Sandbox::User \"root\";\n";

/// Owners and ids: nothing is done, and that is success.
const NOTHING: &[&str] = &[
    "chown",
    "fchown",
    "fchownat",
    "lchown",
    "setuid",
    "setgid",
    "setgroups",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "capset",
];

/// Sizes of a `security.capability` attribute, with and without a root id (linux/capability.h, `XATTR_CAPS_SZ_*`). A
/// filter cannot read an attribute's name.
const CAPABILITY_SIZES: [u64; 2] = [20, 24];

/// Puts the pretences before a filter's own rules: the first that fits a call answers it.
pub(super) fn before(mut rules: LinuxSeccomp) -> LinuxSeccomp {
    let own = rules.syscalls().clone().unwrap_or_default();
    rules.set_syscalls(Some(pretences().into_iter().chain(own).collect()));
    rules
}

fn pretences() -> Vec<LinuxSyscall> {
    let node = |index, kind: u32| argument(index, LinuxSeccompOperator::ScmpCmpMaskedEq, S_IFMT.into(), kind.into());
    let nodes = |name, index| [S_IFCHR, S_IFBLK].map(|kind| pretend(&[name], Some(node(index, kind))));
    let size = |size| argument(3, LinuxSeccompOperator::ScmpCmpEq, size, 0);
    let sized = CAPABILITY_SIZES.map(|n| pretend(&["setxattr", "lsetxattr", "fsetxattr"], Some(size(n))));
    let all = [pretend(NOTHING, None)].into_iter().chain(nodes("mknod", 1)).chain(nodes("mknodat", 2));
    all.chain(sized).collect()
}

fn pretend(names: &[&str], argument: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut call =
        LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActErrno).errno_ret(0_u32);
    if let Some(argument) = argument {
        call = call.args([argument]);
    }
    call.build().expect("every field has a default")
}

fn argument(index: usize, op: LinuxSeccompOperator, value: u64, second: u64) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().index(index).op(op).value(value).value_two(second);
    argument.build().expect("every field has a default")
}
