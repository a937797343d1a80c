//! Kernels that refuse: a command under a seccomp filter, which answers calls with an error, or asks the test each time.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::JoinHandle;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use syscalls::Sysno;

fn number(name: &str) -> i64 {
    name.parse::<Sysno>().expect("a system call").id().into()
}

fn program(rules: Vec<(i64, Vec<SeccompRule>)>, answer: SeccompAction) -> BpfProgram {
    let arch = std::env::consts::ARCH.try_into().expect("an architecture");
    let filter = SeccompFilter::new(rules.into_iter().collect(), SeccompAction::Allow, answer, arch);
    filter.and_then(BpfProgram::try_from).expect("a filter")
}

/// The command, for which this call fails with this error; if `first` is given, only where it is the first argument.
#[allow(unsafe_code)] // pre_exec
pub(crate) fn refuse(command: &mut Command, call: &str, first: Option<u64>, errno: i32) {
    let condition = |value| SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value).expect("one");
    let rules = first.map(|value| SeccompRule::new(vec![condition(value)]).expect("a rule")).into_iter().collect();
    let program = program(vec![(number(call), rules)], SeccompAction::Errno(errno.cast_unsigned()));
    // SAFETY: two system calls, after the fork.
    unsafe { command.pre_exec(move || seccompiler::apply_filter(&program).map_err(io::Error::other)) };
}

/// SECCOMP_IOCTL_NOTIF_RECV and _SEND (linux/seccomp.h), and the flag that lets a call go on.
const RECEIVE: u64 = 0xc050_2100;
const SEND: u64 = 0xc018_2101;
const GO_ON: u32 = 1;

/// Lets the `nth` of the calls of these names fail with `errno`, and all others go on. Gives a thread that ends with the
/// last process of the command: the name of the call that failed, if it came to that.
#[allow(unsafe_code)] // pre_exec, and a descriptor from a system call
pub(crate) fn fail_nth(
    command: &mut Command,
    calls: &[&'static str],
    nth: usize,
    errno: i32,
) -> JoinHandle<Option<Sysno>> {
    let names = calls.iter().chain([&"execve"]);
    let mut program = program(names.map(|name| (number(name), Vec::new())).collect(), SeccompAction::Log);
    for instruction in &mut program {
        if instruction.code == 6 && instruction.k == libc::SECCOMP_RET_LOG {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF; // seccompiler has no name for it
        }
    }
    let (ours, childs) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    // SAFETY: system calls on memory that outlives them, after the fork.
    unsafe {
        command.pre_exec(move || {
            let filter = libc::sock_fprog {
                len: program.len().try_into().map_err(io::Error::other)?,
                filter: program.as_ptr().cast_mut().cast(),
            };
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            let listener = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter);
            let listener = OwnedFd::from_raw_fd(listener.try_into().map_err(io::Error::other)?);
            send(&childs, &listener)
        });
    }
    let errno = -errno;
    std::thread::spawn(move || answer(&gpurun::sys::receive_fd(std::os::fd::AsFd::as_fd(&ours)).ok()?, nth, errno))
}

fn send(socket: &std::os::unix::net::UnixStream, fd: &OwnedFd) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let (fds, iov) = ([fd.as_raw_fd()], [io::IoSlice::new(b"x")]);
    sendmsg::<()>(socket.as_raw_fd(), &iov, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)?;
    Ok(())
}

#[allow(unsafe_code)] // ioctls that no crate wraps
fn answer(listener: &OwnedFd, nth: usize, errno: i32) -> Option<Sysno> {
    let (mut seen, mut failed, mut execs, mut loaded, mut workload) = (0, None, 0, false, 0);
    loop {
        let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(listener), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).ok()?;
        if !fds[0].revents()?.contains(nix::poll::PollFlags::POLLIN) {
            return failed; // the last process is gone
        }
        // SAFETY: the kernel wants it zeroed, and fills it in.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure outlives the call.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut asked) } < 0 {
            continue; // its process was killed meanwhile
        }
        let call = Sysno::new(asked.data.nr.try_into().ok()?)?;
        execs += usize::from(call == Sysno::execve);
        // gpurun's own exec is the first and no step, the workload's the second and its last.
        let is_exec = call == Sysno::execve;
        loaded = loaded || execs == 1 && !is_exec && !is_loaders(&asked);
        if execs == 2 && is_exec {
            workload = asked.pid;
        }
        let counts = loaded && (is_exec || asked.pid != workload) && failed.is_none();
        seen += usize::from(counts);
        let fails = counts && seen == nth + 1;
        if fails {
            failed = Some(call);
        }
        let mut answer = libc::seccomp_notif_resp { id: asked.id, val: 0, error: 0, flags: GO_ON };
        if fails {
            (answer.error, answer.flags) = (errno, 0);
        }
        // SAFETY: as above. It may be gone: then nobody waits for the answer.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw mut answer) };
    }
}

/// Whether a call comes from the dynamic loader, whose failures are not gpurun's.
fn is_loaders(asked: &libc::seccomp_notif) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", asked.pid)).unwrap_or_default();
    let holds = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap_or_default());
        Some((start..end).contains(&asked.data.instruction_pointer) && line.contains("/ld-"))
    };
    maps.lines().any(|line| holds(line).unwrap_or_default())
}
