//! The only unsafe code of gpurun, but for what main.rs has with C: system calls that no crate of ours wraps, `fork`, and
//! the static program's heap.
//!
//! In and out: owned descriptors and plain values. Each wrapper's error is the call with its arguments. Used by every
//! process.

#![allow(unsafe_code)]

#[cfg(target_env = "musl")]
pub mod heap;

use std::ffi::{CStr, CString};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::error::{Context, Error, Result};

/// Attributes of a mount (mount_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttr(u64);

impl MountAttr {
    /// Nothing on it can be written.
    pub const RDONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// Set-user-ID bits and file capabilities have no effect.
    pub const NOSUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    /// Device nodes on it cannot be opened.
    pub const NODEV: Self = Self(libc::MOUNT_ATTR_NODEV);
    /// Nothing on it can be executed.
    pub const NOEXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);

    /// These attributes, and `other` if `on`.
    #[must_use]
    pub fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }
}

/// What a forked process finds itself to be.
pub enum Fork {
    /// The caller; the child's pid.
    Parent(nix::unistd::Pid),
    /// The new process.
    Child,
}

/// fork(2), refused unless this process has exactly one thread: the child goes on to run ordinary code.
pub fn fork() -> Result<Fork> {
    single_threaded()?;
    // SAFETY: with one thread no lock can be held by a thread that does not exist in the child.
    match unsafe { nix::unistd::fork() }.context(|| "fork")? {
        nix::unistd::ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        nix::unistd::ForkResult::Child => Ok(Fork::Child),
    }
}

/// No machine has smaller pages; where they are larger, the kernel refuses what does not begin with one.
const PAGE: u64 = 4096;

/// A child that runs `become_other` and must end there in an exec or an exit (vfork(2)): until then it works in our
/// memory, which need not be copied, and we sleep. Of its stack only what is used is ever made; it stays, so call it once.
pub fn spawn(mut become_other: impl FnMut() -> std::convert::Infallible) -> nix::Result<nix::unistd::Pid> {
    use nix::sched::{CloneFlags, clone};
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
    const STACK: NonZeroUsize = NonZeroUsize::new(256 << 10).unwrap();
    // SAFETY: a new mapping, of zeroes, that is never unmapped. An allocator might clear it itself, page by page.
    let stack = unsafe {
        let (prot, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK);
        let at = mmap_anonymous(None, STACK, prot, flags)?;
        std::slice::from_raw_parts_mut(at.cast().as_ptr(), STACK.get())
    };
    let child = Box::new(|| match become_other() {});
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: we sleep until the child has memory of its own or is gone, so nothing is used by both at once, and the stack
    // and what is borrowed outlive its use. What the child changes in our memory is of its own making. It has signal
    // handlers and descriptors of its own. Only PID 1 calls this, which has one thread.
    unsafe { clone(child, stack, flags, Some(libc::SIGCHLD)) }
}

/// Gives up all capabilities of this process but these, and the right to get any other by an exec.
pub fn drop_capabilities(kept: &[caps::Capability]) -> nix::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let prctl = |option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong| {
        // SAFETY: plain integers.
        Errno::result(unsafe { libc::prctl(option, first, second, 0, 0) })
    };
    let kept = |number: &u8| kept.iter().any(|capability| capability.index() == *number);
    for capability in (0..u8::MAX).filter(|number| !kept(number)) {
        match prctl(libc::PR_CAPBSET_DROP, capability.into(), 0) {
            Ok(_) => {}
            Err(Errno::EINVAL) => break, // that was the last the kernel knows
            Err(e) => return Err(e),
        }
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    let [low, high] = [0..32, 32..64].map(|half| half.filter(kept).fold(0, |set, number| set | 1_u32 << (number % 32)));
    let (header, sets) = ([VERSION_3, 0], [low, low, 0, high, high, 0]);
    // SAFETY: a version 3 header of this process, and its two sets of effective, permitted and inheritable words.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }).map(drop)
}

/// Has the kernel decide this thread's system calls by a filter from now on (seccomp(2)). It must have no_new_privs.
pub fn install_filter(filter: &crate::seccomp::Filter) -> nix::Result<()> {
    use oci_spec::runtime::LinuxSeccompFilterFlag as Flag;
    let flags = filter.rules.flags().iter().flatten().fold(0, |flags, flag| match flag {
        Flag::SeccompFilterFlagLog => flags | libc::SECCOMP_FILTER_FLAG_LOG,
        Flag::SeccompFilterFlagSpecAllow => flags | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        Flag::SeccompFilterFlagTsync | Flag::SeccompFilterFlagWaitKillableRecv => flags, // one thread, and no listener
    });
    let len = u16::try_from(filter.program.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: filter.program.as_ptr().cast_mut().cast() };
    // SAFETY: seccompiler's instructions are laid out as the kernel's (`repr(C)`), which copies them; both outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    Errno::result(ret).map(drop)
}

/// Fails if this process has more than one thread. `/proc/self/task` has two links and one for each thread.
fn single_threaded() -> Result<()> {
    let task = nix::sys::stat::stat("/proc/self/task").context(|| "stat `/proc/self/task`")?;
    if task.st_nlink == 3 {
        return Ok(());
    }
    Err(Error::new(format!("launching needs a single thread, there are {}", task.st_nlink.saturating_sub(2))))
}

/// Ends this process at once: no destructor, no exit handler, no flush of the parent's buffers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// A detached copy of the mount at `path`, with what is mounted below it if `recursive` (open_tree(2)).
pub fn open_tree(dir: BorrowedFd, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let what = || format!("open_tree `{}`", path.display());
    let name = cstring(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    let empty = if path.as_os_str().is_empty() { libc::AT_EMPTY_PATH as u32 } else { 0 };
    // SAFETY: `name` is a C string that outlives the call.
    fd(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), name.as_ptr(), flags | empty) }).context(what)
}

/// A new file system of this type, mounted nowhere yet (fsopen(2), fsmount(2)). A `None` value sets a flag.
pub fn fsmount(fstype: &CStr, options: &[(&CStr, Option<&CStr>)], attr: MountAttr) -> Result<OwnedFd> {
    let what = |call: &str| format!("{call} `{}`", fstype.to_string_lossy());
    // SAFETY: `fstype` is a C string that outlives the call.
    let fs = fd(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), libc::FSOPEN_CLOEXEC) })
        .context(|| what("fsopen"))?;
    for (key, value) in options {
        let cmd = if value.is_some() { libc::FSCONFIG_SET_STRING } else { libc::FSCONFIG_SET_FLAG };
        fsconfig(fs.as_fd(), cmd, Some(key), *value).context(|| {
            let value = value.map(|value| format!("={}", value.to_string_lossy())).unwrap_or_default();
            format!("{} with {}{value}", what("fsconfig"), key.to_string_lossy())
        })?;
    }
    fsconfig(fs.as_fd(), libc::FSCONFIG_CMD_CREATE, None, None).context(|| what("fsconfig: create"))?;
    // SAFETY: plain integers.
    fd(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attr.0) })
        .context(|| what("fsmount"))
}

fn fsconfig(fs: BorrowedFd, cmd: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
    let ptr = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the strings outlive the call; null is allowed for commands that take none.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), cmd, ptr(key), ptr(value), 0) })
}

/// Adds attributes to a mount, and to all below it if `recursive` (mount_setattr(2)).
pub fn mount_setattr(mount: BorrowedFd, set: MountAttr, recursive: bool) -> Result<()> {
    if set == MountAttr::default() {
        return Ok(());
    }
    let attr = libc::mount_attr { attr_set: set.0, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let size = std::mem::size_of::<libc::mount_attr>();
    // SAFETY: `attr` is of the size given and outlives the call.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size)
    })
    .context(|| format!("mount_setattr 0x{:x}", set.0))
}

/// Attaches a detached mount on the file or directory that `target` is open on (move_mount(2)).
pub fn move_mount(mount: BorrowedFd, target: BorrowedFd) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    let empty = c"".as_ptr();
    // SAFETY: both names are empty C strings.
    check(unsafe { libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), empty, target.as_raw_fd(), empty, flags) })
        .context(|| "move_mount")
}

/// Sends a signal of any number to a process, or to a process group by its negative number (kill(2)).
pub fn kill(pid: nix::unistd::Pid, signal: i32) -> nix::Result<()> {
    // SAFETY: plain integers.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ended, with this status or, by signal N, 128+N.
    Ended(i32),
    /// This signal stopped it.
    Stopped(i32),
}

/// Waits for any child (waitpid(2)); `None` if `WNOHANG` is among the options and nothing has changed. nix's own knows
/// no real-time signals.
pub fn wait_any(options: i32) -> nix::Result<Option<(nix::unistd::Pid, Change)>> {
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, options) })?;
    let change = match () {
        () if libc::WIFSTOPPED(status) => Change::Stopped(libc::WSTOPSIG(status)),
        () if libc::WIFSIGNALED(status) => Change::Ended(128 + libc::WTERMSIG(status)),
        () => Change::Ended(libc::WEXITSTATUS(status)),
    };
    Ok((pid > 0).then(|| (nix::unistd::Pid::from_raw(pid), change)))
}

/// Sends `signal` to `pid` with a value that the receiver's `siginfo` shows (sigqueue(3)).
pub fn sigqueue(pid: nix::unistd::Pid, signal: i32, value: usize) -> nix::Result<()> {
    let value = libc::sigval { sival_ptr: value as *mut libc::c_void };
    // SAFETY: the value is passed by value and never dereferenced.
    Errno::result(unsafe { libc::sigqueue(pid.as_raw(), signal, value) }).map(drop)
}

/// A signal taken by [`sigwait`].
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// Whether the kernel sent it, as a terminal's keys make it do.
    pub from_kernel: bool,
    /// The value of [`sigqueue`], 0 if it was sent otherwise.
    pub value: usize,
}

/// Whether a blocked signal waits to be taken (sigpending(2)).
pub fn is_pending(signal: nix::sys::signal::Signal) -> nix::Result<bool> {
    // SAFETY: sigset_t is plain data for which zeroes are valid, and sigpending fills it.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call.
    Errno::result(unsafe { libc::sigpending(&raw mut set) })?;
    // SAFETY: the set was filled, and a `Signal` is a signal's number.
    Ok(unsafe { libc::sigismember(&raw const set, signal as i32) } == 1)
}

/// Waits for one of `set`, all of which must be blocked (sigtimedwait(2)); `EAGAIN` if none comes in time.
pub fn sigwait(set: &nix::sys::signal::SigSet, patience: Option<std::time::Duration>) -> nix::Result<Signal> {
    let patience = patience.map(nix::sys::time::TimeSpec::from);
    let limit = patience.as_ref().map_or(std::ptr::null(), |limit| std::ptr::from_ref(limit.as_ref()));
    // SAFETY: siginfo_t is plain data for which zeroes are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointers are valid for the call, or null for no limit.
    let number = Errno::result(unsafe { libc::sigtimedwait(set.as_ref(), &raw mut info, limit) })?;
    // SAFETY: SI_QUEUE says that sigqueue filled the value in.
    let value = if info.si_code == libc::SI_QUEUE { unsafe { info.si_value() }.sival_ptr as usize } else { 0 };
    Ok(Signal { number, from_kernel: info.si_code == libc::SI_KERNEL, value })
}

/// Changes the signals that this thread has blocked, and gives those that it had (rt_sigprocmask(2)). musl's own function
/// keeps three signals to itself, of which glibc leaves one to programs, as its SIGRTMIN.
pub fn sigmask(how: SigmaskHow, set: &SigSet) -> nix::Result<SigSet> {
    const BYTES: usize = 8; // of a set, as the kernel has it
    // SAFETY: zeroes are an empty set.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    let set: *const libc::sigset_t = set.as_ref();
    // SAFETY: both sets are valid during the call, and begin with the kernel's.
    let ret = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how as libc::c_int, set, &raw mut before, BYTES) };
    // SAFETY: the kernel has filled it in, or it is empty.
    Errno::result(ret).map(|_| unsafe { SigSet::from_sigset_t_unchecked(before) })
}

/// Ignores a signal, or has it do what it does by default. Gives whether it was ignored.
pub fn ignore(which: nix::sys::signal::Signal, on: bool) -> nix::Result<bool> {
    use nix::sys::signal::{SigHandler, signal};
    let handler = if on { SigHandler::SigIgn } else { SigHandler::SigDfl };
    // SAFETY: no handler is installed, so none can run in an unsafe context.
    unsafe { signal(which, handler) }.map(|before| matches!(before, SigHandler::SigIgn))
}

/// Opens /dev/null in place of each standard stream that the caller closed: another file would get its number.
pub fn open_standard_streams() -> Result<()> {
    for number in 0..3 {
        if kind_of(number).is_err() {
            // SAFETY: the name is a C string. Nobody owns the descriptor: it stays open to the end.
            Errno::result(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) }).context(|| "open `/dev/null`")?;
        }
    }
    Ok(())
}

/// Rows, columns and pixels of a terminal.
pub type WindowSize = libc::winsize;

/// The size of the terminal behind `fd` (TIOCGWINSZ).
pub fn window_size(fd: BorrowedFd) -> nix::Result<WindowSize> {
    let mut size = WindowSize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the ioctl writes a winsize.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Sets the size of the terminal behind `fd` (TIOCSWINSZ).
pub fn set_window_size(fd: BorrowedFd, size: &WindowSize) -> nix::Result<()> {
    // SAFETY: the ioctl reads a winsize.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const *size) }).map(drop)
}

/// The other end of a pseudo terminal's master, wherever it is mounted (TIOCGPTPEER).
pub fn peer(master: BorrowedFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: plain integers.
    fd(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into()).context(|| "ioctl TIOCGPTPEER")
}

/// Lets the other end of a pseudo terminal's master be opened (TIOCSPTLCK).
pub fn unlock_terminal(master: BorrowedFd) -> Result<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the ioctl reads an int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })
        .map(drop)
        .context(|| "ioctl TIOCSPTLCK")
}

/// Makes a terminal the one of this process's session, which it leads (TIOCSCTTY).
pub fn become_controlling(terminal: BorrowedFd) -> Result<()> {
    // SAFETY: plain integers.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })
        .map(drop)
        .context(|| "ioctl TIOCSCTTY")
}

/// A process, as long as it is not reaped (pidfd_open(2)).
pub fn pidfd_open(pid: nix::unistd::Pid) -> Result<OwnedFd> {
    // SAFETY: plain integers. The descriptor closes on exec.
    fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) }).context(|| format!("pidfd_open {pid}"))
}

/// Sends it a signal, or with 0 asks whether it is alive (pidfd_send_signal(2)).
pub fn pidfd_signal(process: BorrowedFd, signal: i32) -> Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, none, 0) })
        .context(|| format!("pidfd_send_signal {signal}"))
}

/// The user namespace that a namespace belongs to; EPERM if it is not this process's own or one below (ioctl_ns(2)).
pub fn owner(namespace: BorrowedFd) -> Result<OwnedFd> {
    // SAFETY: the ioctl has no argument. The descriptor closes on exec.
    fd(unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_USERNS) }.into()).context(|| "ioctl NS_GET_USERNS")
}

/// Sends a descriptor over a socket (SCM_RIGHTS).
pub fn send_fd(socket: BorrowedFd, sent: BorrowedFd) -> Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let (fds, iov) = ([sent.as_raw_fd()], [io::IoSlice::new(b"f")]);
    sendmsg::<()>(socket.as_raw_fd(), &iov, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)
        .map(drop)
        .context(|| "sendmsg")
}

/// A descriptor sent over a socket (SCM_RIGHTS).
pub fn receive_fd(socket: BorrowedFd) -> Result<OwnedFd> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let (mut buffer, mut control) = ([0; 64], nix::cmsg_space!([RawFd; 1]));
    let mut iov = [io::IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)
        .context(|| "recvmsg")?;
    let mut messages = message.cmsgs().context(|| "read the control message")?;
    match messages.next() {
        Some(ControlMessageOwned::ScmRights(fds)) if fds.len() == 1 => {
            // SAFETY: the kernel just made this descriptor for us.
            Ok(unsafe { OwnedFd::from_raw_fd(fds[0]) })
        }
        _ => Err(Error::new("no descriptor came with the message")),
    }
}

/// One of the three standard streams, which are always open after [`open_standard_streams`].
pub fn stdio(number: RawFd) -> BorrowedFd<'static> {
    assert!((0..3).contains(&number));
    // SAFETY: nothing in gpurun closes the standard streams, other than `close_all_but` in a process that ends there.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Closes every descriptor but these (close_range(2)).
pub fn close_all_but(kept: &[BorrowedFd]) -> nix::Result<()> {
    let mut kept: Vec<_> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    let mut first = 0;
    for end in kept.into_iter().chain([u32::MAX]) {
        if first < end {
            // SAFETY: the one caller, PID 1, uses no descriptor again but those that stay, and drops none: it never returns.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) })?;
        }
        first = end.saturating_add(1);
    }
    Ok(())
}

/// The file type of an inherited descriptor (`S_IFMT` of fstat(2)).
pub fn kind_of(number: RawFd) -> nix::Result<libc::mode_t> {
    // SAFETY: zeroes are valid for this plain struct, which fstat fills.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid; an invalid descriptor is an error.
    Errno::result(unsafe { libc::fstat(number, &raw mut stat) })?;
    Ok(stat.st_mode & libc::S_IFMT)
}

/// Marks an inherited descriptor as close-on-exec.
pub fn set_cloexec(number: RawFd) -> nix::Result<()> {
    // SAFETY: F_SETFD changes a flag of a descriptor and nothing in memory.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// By nix's macro, since C libraries disagree on the type of the number.
mod interface {
    nix::ioctl_write_ptr_bad!(
        /// Sets an interface's flags.
        set_flags,
        libc::SIOCSIFFLAGS,
        libc::ifreq
    );
}

/// Switches on the loopback interface of this process's network namespace (netdevice(7)).
pub fn bring_up_loopback() -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).context(|| "socket")?;
    // SAFETY: zeroes are valid for this plain struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).expect("a small flag");
    // SAFETY: the ioctl reads an ifreq.
    let set = unsafe { interface::set_flags(socket.as_raw_fd(), &raw const request) };
    set.map(drop).context(|| "ioctl SIOCSIFFLAGS for `lo`")
}

/// Unmaps the pages of the program and its libraries that nobody can have written to (madvise(2)). They come back from
/// the page cache when they are touched.
pub fn release_program() {
    unsafe extern "C" fn release(info: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the loader's list of segments is valid during the call.
        let (base, segments) = unsafe {
            let info = &*info;
            (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
        };
        for segment in segments.iter().filter(|s| s.p_type == libc::PT_LOAD && s.p_flags & libc::PF_W == 0) {
            let start = (base + segment.p_vaddr) & !(PAGE - 1);
            let Ok(length) = usize::try_from(base + segment.p_vaddr + segment.p_memsz - start) else { continue };
            // SAFETY: these pages are a file's and private, and cannot be written, so they come back as they were. The
            // vDSO's are not, and are refused.
            unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        }
        0
    }
    // SAFETY: `release` ignores its last argument and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(release), std::ptr::null_mut()) };
}

/// A path as the kernel takes it.
pub fn cstring(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context(|| format!("`{}` has a NUL byte", path.display()))
}

fn fd(ret: libc::c_long) -> io::Result<OwnedFd> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    let number = RawFd::try_from(ret).map_err(io::Error::other)?;
    // SAFETY: the call succeeded, so the number is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn check(ret: libc::c_long) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the file behind `fd` has extended attributes, or cannot say (flistxattr(2)).
pub fn has_xattrs(fd: BorrowedFd) -> bool {
    // SAFETY: with a size of zero nothing is written.
    let size = unsafe { libc::flistxattr(fd.as_raw_fd(), std::ptr::null_mut(), 0) };
    size != 0 && !(size < 0 && Errno::last() == Errno::ENOTSUP)
}

/// Sets an extended attribute of the file behind `fd` (fsetxattr(2)).
pub fn set_xattr(fd: BorrowedFd, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: the name is a C string and the value a slice, and both outlive the call.
    let ret = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(ret).map(drop)
}

/// The names of all extended attributes of the file behind `fd` (flistxattr(2)); none if its file system has none.
pub fn xattr_names(fd: BorrowedFd) -> nix::Result<Vec<CString>> {
    let list = sized(|buffer, size| {
        // SAFETY: the buffer has room for `size` bytes.
        unsafe { libc::flistxattr(fd.as_raw_fd(), buffer.cast(), size) }
    });
    let names = match list {
        Err(Errno::EOPNOTSUPP) => Vec::new(),
        list => list?,
    };
    Ok(names.split(|&b| b == 0).filter(|name| !name.is_empty()).filter_map(|name| CString::new(name).ok()).collect())
}

/// The value of an extended attribute of the file behind `fd` (fgetxattr(2)).
pub fn xattr(fd: BorrowedFd, name: &CStr) -> nix::Result<Vec<u8>> {
    sized(|buffer, size| {
        // SAFETY: the name is a C string, and the buffer has room for `size` bytes.
        unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), buffer.cast(), size) }
    })
}

/// What a call fills a buffer with, once it has said how large that must be.
fn sized(call: impl Fn(*mut u8, usize) -> isize) -> nix::Result<Vec<u8>> {
    let size = Errno::result(call(std::ptr::null_mut(), 0))?.unsigned_abs();
    let mut buffer = vec![0; size];
    let filled = Errno::result(call(buffer.as_mut_ptr(), size))?.unsigned_abs();
    buffer.truncate(filled);
    Ok(buffer)
}

/// Writes all of a file system to its disk (syncfs(2)).
pub fn syncfs(fd: BorrowedFd) -> nix::Result<()> {
    // SAFETY: the call takes a descriptor and nothing in memory.
    Errno::result(unsafe { libc::syncfs(fd.as_raw_fd()) }).map(drop)
}
