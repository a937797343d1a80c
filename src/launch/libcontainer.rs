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

use libcontainer::namespaces::Namespaces;
use libcontainer::notify_socket::{NotifyListener, NotifySocket};
use libcontainer::oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Spec};
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::channel::{init_channel, main_channel};
use libcontainer::process::init::process::container_init_process;
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
    namespaces.apply_namespaces(|f| f.bits() == flag).context(what)
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
        spec: Rc::new(share_of(plan)?),
        rootfs: "/".into(),
        console_socket: console.map(AsRawFd::as_raw_fd),
        notify_listener: start,
        preserve_fds: workload.highest_inherited.map_or(0, |fd| fd - FIRST_FD + 1),
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

/// The part of the spec that is left for libcontainer: what is made already is taken out, and the directory and environment, which need not be UTF-8, are the workload's own business.
fn share_of(plan: &Plan) -> Result<Spec> {
    let mut spec = crate::plan::spec::render(plan)?;
    spec.set_mounts(None);
    if let Some(root) = spec.root_mut() {
        root.set_readonly(Some(false));
    }
    if let Some(process) = spec.process_mut() {
        process.set_cwd("/".into());
        process.set_capabilities(None); // the workload drops them, in half the calls
        // Without HOME it would look one up in the image, through NSS, with privileges.
        process.set_env(Some(vec!["HOME=/".into()]));
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_namespaces(Some(left_to_make(linux.namespaces().as_deref().unwrap_or_default())?));
        linux.set_uid_mappings(None);
        linux.set_gid_mappings(None);
    }
    Ok(spec)
}

/// All namespaces but the UTS one are entered.
fn left_to_make(all: &[LinuxNamespace]) -> Result<Vec<LinuxNamespace>> {
    let left = all.iter().map(LinuxNamespace::typ).filter(|typ| *typ == LinuxNamespaceType::Uts);
    left.map(namespace).collect::<Result<_, _>>().context(|| "describe the namespaces")
}

fn namespace(typ: LinuxNamespaceType) -> std::result::Result<LinuxNamespace, libcontainer::oci_spec::OciSpecError> {
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
        Err(ExecutorError::Other("reported".into()))
    }
}
