//! The adapter to libcontainer: the only file that names its inner modules, which are public but undocumented, so the
//! version is pinned.
//!
//! In: a [`Plan`], in a process whose root is the finished rootfs. Out: namespaces, and a process that libcontainer's init
//! has given a session, its terminal, its ids, no capability and no descriptor, and handed to our [`Workload`]. The root
//! is made by `rootfs.rs`, so libcontainer is told that the container is there already, as for `exec`: its own way parses
//! every mount of the host as UTF-8 and walks each path many times. No cgroup, no state directory, no bundle.
//! [`unshare`] runs in the supervisor, [`init`] in the launched process, which is PID 1 of its namespace.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

use libcontainer::namespaces::{NamespaceError, Namespaces};
use libcontainer::notify_socket::{NotifyListener, NotifySocket};
use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{
    Linux, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, ProcessBuilder, RootBuilder, Spec, UserBuilder,
};
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::channel::{init_channel, main_channel};
use libcontainer::process::init::process::container_init_process;
use libcontainer::syscall::SyscallError;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};

use super::workload::Workload;
use crate::error::{Context, Error, Result};
use crate::plan::{NamespaceKind, Plan};

/// The first descriptor that is not a standard stream.
const FIRST_FD: RawFd = 3;

/// Makes one kind of namespace for this process (for its children, if it is the PID namespace's).
pub(crate) fn unshare(kind: NamespaceKind) -> Result<()> {
    let (typ, flag) = match kind {
        NamespaceKind::User => (LinuxNamespaceType::User, libc::CLONE_NEWUSER),
        NamespaceKind::Mount => (LinuxNamespaceType::Mount, libc::CLONE_NEWNS),
        NamespaceKind::Pid => (LinuxNamespaceType::Pid, libc::CLONE_NEWPID),
        NamespaceKind::Uts => (LinuxNamespaceType::Uts, libc::CLONE_NEWUTS),
        NamespaceKind::Network => (LinuxNamespaceType::Network, libc::CLONE_NEWNET),
    };
    let what = || format!("unshare a {kind:?} namespace").to_lowercase();
    let wanted = vec![namespace(typ).context(what)?];
    let namespaces = Namespaces::try_from(Some(&wanted)).context(what)?;
    namespaces.apply_namespaces(|f| f.bits() == flag).map_err(errno).context(what)
}

/// libcontainer's nix is older than ours: its error numbers are others to [`Error::errno`].
fn errno(error: NamespaceError) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        NamespaceError::Nix(errno) | NamespaceError::Syscall(SyscallError::Nix(errno)) => {
            nix::errno::Errno::from_raw(errno as i32).into()
        }
        other => other.into(),
    }
}

/// The word to start, queued before init listens for it: nothing waits between create and start here. `dir` is one for
/// the socket.
pub(crate) fn queue_start(dir: &Path) -> Result<NotifyListener> {
    let socket = dir.join("start");
    let listener = NotifyListener::new(&socket).context(|| "listen for the start of the workload")?;
    NotifySocket::new(&socket).notify_container_start().context(|| "start the workload")?;
    Ok(listener)
}

/// Runs libcontainer's init in the finished root. It returns only if something failed; what the workload could not do
/// it has reported itself.
pub(crate) fn init(
    plan: &Plan,
    start: NotifyListener,
    workload: Workload,
    console: Option<&OwnedFd>,
) -> Result<Infallible> {
    let (mut main, _main_receiver) = main_channel().context(|| "make libcontainer's channel")?;
    let (_init_sender, mut init) = init_channel().context(|| "make libcontainer's channel")?;
    let args = ContainerArgs {
        container_type: ContainerType::TenantContainer { exec_notify_fd: -1 },
        syscall: SyscallType::Linux,
        spec: Rc::new(share_of(plan).context(|| "describe the container to libcontainer")?),
        rootfs: "/".into(),
        console_socket: console.map(AsRawFd::as_raw_fd),
        notify_listener: start,
        preserve_fds: workload.inherited.highest.map_or(0, |fd| fd - FIRST_FD + 1),
        container: None,
        user_ns_config: None,
        detached: false,
        executor: Box::new(workload),
        no_pivot: false,
        // Never read on this path: no cgroup is made, entered or left.
        cgroup_config: libcgroups::common::CgroupConfig {
            cgroup_path: "".into(),
            systemd_cgroup: false,
            container_name: String::new(),
        },
        stdin: None,
        stdout: None,
        stderr: None,
        as_sibling: false,
        pid_file: None,
    };
    match container_init_process(&args, &mut main, &mut init) {
        Ok(()) => Err(Error::new("libcontainer's init returned")),
        Err(e) => Err(Error::new("enter the container").because(e)),
    }
}

/// The part of the plan that is left for libcontainer: the session, the terminal, the ids, the host's name. What is made
/// already is not in it, nor what is the workload's own business, such as a directory and an environment that need not
/// be UTF-8.
fn share_of(plan: &Plan) -> std::result::Result<Spec, OciSpecError> {
    let user = UserBuilder::default().uid(plan.user.uid).gid(plan.user.gid).build()?;
    let mut process = ProcessBuilder::default()
        .terminal(plan.process.terminal)
        .user(user)
        .args(Vec::new())
        // Without HOME it would look one up in the image, through NSS, with privileges.
        .env(vec!["HOME=/".into()])
        .cwd("/")
        .no_new_privileges(true)
        .build()?;
    process.set_rlimits(None);
    process.set_capabilities(None); // the workload drops them, in half the calls
    let uts = plan.namespaces.iter().filter(|n| n.kind == NamespaceKind::Uts); // all others are entered
    let uts = uts.map(|_| namespace(LinuxNamespaceType::Uts)).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut linux = Linux::default();
    linux.set_namespaces(Some(uts)).set_resources(None).set_masked_paths(None).set_readonly_paths(None);
    let mut spec = Spec::default();
    spec.set_root(Some(RootBuilder::default().path("/").readonly(false).build()?)).set_mounts(None);
    spec.set_process(Some(process)).set_linux(Some(linux)).set_hostname(plan.hostname.clone());
    Ok(spec)
}

fn namespace(typ: LinuxNamespaceType) -> std::result::Result<LinuxNamespace, OciSpecError> {
    LinuxNamespaceBuilder::default().typ(typ).build()
}

/// libcontainer calls these in the launched process: `validate` when everything but the exec is done, `exec` last.
impl Executor for Workload {
    fn validate(&self, _: &Spec) -> std::result::Result<(), ExecutorValidationError> {
        self.prepare().map_err(|e| {
            self.status.report(&e);
            ExecutorValidationError::ArgValidationError("reported".into())
        })
    }

    /// The workload's environment is given to execve: libcontainer's way would lose its order, and panics on bytes
    /// that are not UTF-8.
    fn setup_envs(
        &self,
        _: std::collections::HashMap<String, String>,
    ) -> std::result::Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _: &Spec) -> std::result::Result<(), ExecutorError> {
        let Err(e) = super::pid1::run(self);
        self.status.report(&e);
        crate::sys::exit_now(e.exit_status().into()) // libcontainer would close descriptors that it has closed already
    }
}
