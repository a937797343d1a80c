//! What a hostile workload tries, from inside: [`probe`] is this very executable, bound into the image and run there.
//!
//! Each attempt has a name and says whether it came through. None may, but those that README.md states.

#![allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)] // the arguments of system calls are words

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use libc::c_long;

use crate::gpus;
use crate::support::machine::Machine;
use crate::support::pty::Pty;
use crate::support::{Case, Finish, Finished, program, text};

/// The name under which libtest knows the probe.
const PROBE: &str = "escapes::probe";

/// Begins each line that the probe prints.
const MARK: &str = "attempt: ";

/// A system call by its number. What is not an error came through.
#[allow(unsafe_code)] // no crate wraps calls that are meant to be refused
fn call(number: c_long, args: &[usize]) -> io::Result<()> {
    let arg = |i: usize| args.get(i).copied().unwrap_or(0);
    // SAFETY: pointers among the arguments are to C strings and buffers that outlive the call.
    let result = unsafe { libc::syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn at(text: &CStr) -> usize {
    text.as_ptr() as usize
}

const HERE: usize = libc::AT_FDCWD as usize;

/// PID 1, or without a PID namespace the processes that stand for it: our parent and the supervisor, its own.
fn keepers() -> Vec<i32> {
    let parent = i32::try_from(std::os::unix::process::parent_id()).expect("a pid");
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).expect("read our parent's state");
    let supervisor = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    [Some(parent), supervisor].into_iter().flatten().filter(|pid| *pid > 0).collect()
}

/// The first that succeeds, else the last error.
fn any(attempts: impl IntoIterator<Item = io::Result<()>>) -> io::Result<()> {
    let mut last = Err(io::Error::other("nothing was there to try"));
    for attempt in attempts {
        if attempt.is_ok() {
            return attempt;
        }
        last = attempt;
    }
    last
}

fn keeper(what: impl Fn(i32) -> io::Result<()>) -> io::Result<()> {
    any(keepers().into_iter().map(what))
}

fn writes(paths: &[&str]) -> io::Result<()> {
    any(paths.iter().map(|path| OpenOptions::new().write(true).open(path).map(drop)))
}

fn reads(paths: &[&str]) -> io::Result<()> {
    any(paths.iter().map(|path| File::open(path).map(drop)))
}

fn holds(condition: bool, what: &str) -> io::Result<()> {
    if condition { Ok(()) } else { Err(io::Error::new(ErrorKind::PermissionDenied, what.to_owned())) }
}

fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field is there");
    line.trim_start_matches(':').trim().to_owned()
}

/// A shell script in a user and mount namespace below ours, where it has all capabilities.
fn nested(script: &str) -> io::Result<()> {
    let output = Command::new("/bin/busybox").args(["unshare", "-Urm", "/bin/sh", "-c", script]).output()?;
    holds(output.status.success(), &String::from_utf8_lossy(&output.stderr))
}

type Attempts = Vec<(&'static str, io::Result<()>)>;

fn attempts() -> Attempts {
    [rights(), mounts(), keeper_processes(), machine()].into_iter().flatten().collect()
}

/// To be more than the caller. Root with ranges of ids may become any of them; then the test says which capabilities it has.
fn rights() -> Attempts {
    let granted = std::env::var("GRANTED").unwrap_or_default();
    let gained = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].iter().any(|set| {
        let set = status(set);
        set != "0000000000000000" && set != granted
    });
    let mut attempts = vec![
        ("a capability in any set", holds(gained, "none")),
        ("no_new_privs off", holds(status("NoNewPrivs") != "1", "on")),
        ("no_new_privs switched off", call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as usize])),
        ("an ambient capability", call(libc::SYS_prctl, &[libc::PR_CAP_AMBIENT as usize, 2, 1])),
        ("set-user-ID files", holds(!mounted_nosuid(), "every mount of the image is nosuid")),
    ];
    if granted.is_empty() {
        attempts.extend(other_ids());
    }
    attempts
}

fn other_ids() -> Attempts {
    let own = nix::unistd::getuid().as_raw() as usize;
    let others = [0, 1, 65534].into_iter().filter(|id| *id != own);
    vec![
        ("other user ids", any(others.map(|id| call(libc::SYS_setresuid, &[id; 3])))),
        ("other group ids", call(libc::SYS_setresgid, &[4242; 3])),
        ("other groups", call(libc::SYS_setgroups, &[0, 0])),
    ]
}

/// To see or change what is mounted.
fn mounts() -> Attempts {
    let tmpfs = c"tmpfs";
    vec![
        ("mount", call(libc::SYS_mount, &[at(tmpfs), at(c"/tmp"), at(tmpfs), 0, 0])),
        ("a bind of the root", call(libc::SYS_mount, &[at(c"/"), at(c"/tmp"), 0, libc::MS_BIND as usize])),
        (
            "/sys made writable",
            call(libc::SYS_mount, &[0, at(c"/sys"), 0, (libc::MS_REMOUNT | libc::MS_BIND) as usize]),
        ),
        ("umount of /proc", call(libc::SYS_umount2, &[at(c"/proc"), libc::MNT_DETACH as usize])),
        ("umount of the root", call(libc::SYS_umount2, &[at(c"/"), libc::MNT_DETACH as usize])),
        ("pivot_root", call(libc::SYS_pivot_root, &[at(c"/"), at(c"/tmp")])),
        ("chroot", call(libc::SYS_chroot, &[at(c"/tmp")])),
        ("open_tree with a copy", call(libc::SYS_open_tree, &[HERE, at(c"/"), libc::OPEN_TREE_CLONE as usize])),
        ("fsopen", call(libc::SYS_fsopen, &[at(tmpfs), 0])),
        ("mount_setattr", call(libc::SYS_mount_setattr, &[HERE, at(c"/sys"), 0, [0_u64; 4].as_ptr() as usize, 32])),
        ("a mount namespace without a user's", call(libc::SYS_unshare, &[libc::CLONE_NEWNS as usize])),
        ("a network namespace without a user's", call(libc::SYS_unshare, &[libc::CLONE_NEWNET as usize])),
        (
            "PID 1's mount namespace",
            keeper(|pid| {
                File::open(format!("/proc/{pid}/ns/mnt"))
                    .and_then(|ns| call(libc::SYS_setns, &[ns.as_raw_fd() as usize]))
            }),
        ),
        ("below a user namespace: /sys writable", nested("mount -o remount,bind,rw /sys && touch /sys/x")),
        ("below a user namespace: what /proc covers", nested("umount /proc")),
        ("below a user namespace: what /sys covers", nested("umount -l /sys && ls /sys/../sys/kernel")),
        ("below a user namespace: what /dev covers", nested("umount -l /dev/null || umount -l /dev/shm")),
        (
            "below a user namespace: what the driver's /proc covers",
            nested("umount -l /proc/driver/nvidia || umount -l /proc/driver"),
        ),
        ("below a user namespace: a node", nested("mknod /tmp/null c 1 3 && echo >/tmp/null")),
        ("below a user namespace: sysctls", nested("echo x >/proc/sys/kernel/core_pattern")),
        (
            "below a user namespace: PID 1's root",
            nested("ls /proc/1/root/ || cat /proc/1/environ || chroot /proc/1/root true"),
        ),
    ]
}

/// To reach gpurun itself.
fn keeper_processes() -> Attempts {
    let mut buffer = [0_u8; 64];
    let iov = [buffer.as_mut_ptr() as usize, buffer.len()];
    vec![
        ("descriptors that lead to directories", holds(open_directories(), "none")),
        (
            "descriptors of gpurun",
            holds(
                handed_down() != format!("HANDED={}", std::env::var("HANDED").unwrap_or_default()),
                "only those handed down",
            ),
        ),
        ("PID 1's root", keeper(|pid| fs::read_dir(format!("/proc/{pid}/root")).map(drop))),
        ("PID 1's directory", keeper(|pid| fs::read_dir(format!("/proc/{pid}/cwd")).map(drop))),
        (
            "PID 1's descriptors",
            keeper(|pid| any((0..10).map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).map(drop)))),
        ),
        ("PID 1's environment", keeper(|pid| fs::read(format!("/proc/{pid}/environ")).map(drop))),
        ("PID 1's memory", keeper(|pid| File::open(format!("/proc/{pid}/mem")).map(drop))),
        (
            "PID 1's memory written",
            keeper(|pid| OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).map(drop)),
        ),
        (
            "PID 1's memory map",
            keeper(|pid| fs::read(format!("/proc/{pid}/maps")).and_then(|maps| holds(!maps.is_empty(), "empty"))),
        ),
        ("gpurun's binary, read", keeper(|pid| File::open(format!("/proc/{pid}/exe")).map(drop))),
        (
            "gpurun's binary, written (CVE-2019-5736)",
            keeper(|pid| OpenOptions::new().write(true).open(format!("/proc/{pid}/exe")).map(drop)),
        ),
        ("gpurun's binary among all processes", holds(executables().contains("gpurun"), "it is none of theirs")),
        ("ptrace of PID 1", keeper(|pid| call(libc::SYS_ptrace, &[libc::PTRACE_SEIZE as usize, pid as usize]))),
        (
            "process_vm_readv of PID 1",
            keeper(|pid| {
                call(libc::SYS_process_vm_readv, &[pid as usize, iov.as_ptr() as usize, 1, iov.as_ptr() as usize, 1])
            }),
        ),
        ("a descriptor of PID 1 (pidfd_getfd)", keeper(pidfd_getfd)),
        ("kcmp with PID 1", keeper(|pid| call(libc::SYS_kcmp, &[pid as usize, std::process::id() as usize, 1]))),
        ("PID 1's oom score", keeper(|pid| fs::write(format!("/proc/{pid}/oom_score_adj"), "-1000"))),
    ]
}

/// To change the machine.
fn machine() -> Attempts {
    let handle = [8_u32, 1, 0, 0, 0, 0];
    vec![
        (
            "sysctls",
            writes(&[
                "/proc/sys/kernel/core_pattern",
                "/proc/sys/kernel/hostname",
                "/proc/sys/kernel/modprobe",
                "/proc/sys/vm/drop_caches",
                "/proc/sys/net/ipv4/ip_forward",
                "/proc/sysrq-trigger",
                "/proc/sys/user/max_user_namespaces",
            ]),
        ),
        ("the kernel's memory", reads(&["/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmem", "/dev/port"])),
        (
            "/sys",
            writes(&[
                "/sys/kernel/uevent_helper",
                "/sys/kernel/mm/ksm/run",
                "/sys/power/state",
                "/sys/kernel/profiling",
            ]),
        ),
        ("a file in /sys", File::create("/sys/x").map(drop)),
        (
            "cgroups",
            any([
                fs::create_dir("/sys/fs/cgroup/x"),
                writes(&["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/cgroup.subtree_control"]),
            ]),
        ),
        ("a node", call(libc::SYS_mknodat, &[HERE, at(c"/tmp/node"), libc::S_IFBLK as usize | 0o666, 0x800])),
        ("nodes that are not listed", holds(strange_nodes(), "none")),
        (
            "/dev/console of the machine",
            File::open("/dev/console").and_then(|f| holds(f.metadata()?.rdev() == 0x501, "its own terminal")),
        ),
        (
            "open_by_handle_at",
            File::open("/").and_then(|root| {
                call(libc::SYS_open_by_handle_at, &[root.as_raw_fd() as usize, handle.as_ptr() as usize, 0])
            }),
        ),
        (
            "a link out of the image",
            any(["/dev/shm/gpurun-link", "/proc/link"].iter().map(|to| fs::hard_link("/bin/busybox", to))),
        ),
        (
            "a directory outside (CVE-2024-21626)",
            std::env::current_dir().and_then(|dir| {
                holds(
                    !dir.is_absolute()
                        || fs::read_link("/proc/self/cwd")?.to_string_lossy().starts_with("(unreachable)"),
                    "it is inside",
                )
            }),
        ),
        ("the host's name", call(libc::SYS_sethostname, &[at(c"x"), 1])),
        ("the clock", call(libc::SYS_clock_settime, &[0, [0_u64, 0].as_ptr() as usize])),
        ("a kernel module", call(libc::SYS_init_module, &[at(c""), 0, at(c"")])),
        ("kexec", call(libc::SYS_kexec_load, &[0, 0, 0, 0])),
        ("reboot", call(libc::SYS_reboot, &[0xfee1_dead, 0x2812_1969, 0x89ab_cdef])),
        ("bpf", call(libc::SYS_bpf, &[11, [0_u64; 16].as_ptr() as usize, 16])),
        ("swapon", call(libc::SYS_swapon, &[at(c"/bin/busybox"), 0])),
        ("acct", call(libc::SYS_acct, &[at(c"/tmp/acct")])),
        ("quotactl", call(libc::SYS_quotactl, &[0x0080_0003 << 8, at(c"/dev/sda")])),
        ("a real-time priority above the limit", call(libc::SYS_setpriority, &[0, 0, -20_isize as usize])),
        (
            "a higher hard limit",
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NPROC, u64::MAX - 1, u64::MAX - 1)
                .map_err(Into::into),
        ),
        ("ports of the machine (iopl)", call(iopl(), &[3])),
    ]
}

const fn iopl() -> c_long {
    #[cfg(target_arch = "x86_64")]
    return libc::SYS_iopl;
    #[cfg(not(target_arch = "x86_64"))]
    return libc::SYS_reboot;
}

fn mounted_nosuid() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    mounts.lines().all(|line| line.split(' ').nth(5).is_some_and(|options| options.contains("nosuid")))
}

/// Of this process. The directory that lists them is one of them.
fn descriptors() -> Vec<std::path::PathBuf> {
    fs::read_dir("/proc/self/fd").expect("list descriptors").map(|e| e.expect("list").path()).collect()
}

fn open_directories() -> bool {
    descriptors().iter().filter_map(|fd| fs::metadata(fd).ok()).any(|meta| meta.is_dir())
}

/// The numbers above the standard streams that an exec leaves open, in this process.
fn handed_down() -> String {
    let kept = |fd: &std::path::PathBuf| {
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(fd.file_name()?)).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
        (i32::from_str_radix(&flags, 8).ok()? & libc::O_CLOEXEC == 0).then_some(())
    };
    let all = descriptors().into_iter().filter(|fd| kept(fd).is_some());
    let mut numbers: Vec<i32> = all.filter_map(|fd| fd.file_name()?.to_str()?.parse().ok()).collect();
    numbers.retain(|number| *number > 2);
    numbers.sort_unstable();
    format!("HANDED={numbers:?}")
}

fn executables() -> String {
    let pids = fs::read_dir("/proc").expect("list /proc").flatten();
    let links = pids.filter_map(|pid| fs::read_link(pid.path().join("exe")).ok());
    links.map(|link| link.to_string_lossy().into_owned()).filter(|link| link != "/probe").collect()
}

fn pidfd_getfd(pid: i32) -> io::Result<()> {
    #[allow(unsafe_code)]
    // SAFETY: plain integers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    call(libc::SYS_pidfd_getfd, &[usize::try_from(pidfd).map_err(io::Error::other)?, 0])
}

/// Nodes in /dev that are neither standard, nor the GPUs', nor terminals.
fn strange_nodes() -> bool {
    let standard = ["null", "zero", "full", "random", "urandom", "tty", "console"];
    let listed = fs::read_dir("/dev").expect("list /dev").flatten();
    let nodes = listed.filter(|e| e.file_type().is_ok_and(|t| t.is_char_device() || t.is_block_device()));
    let mut names = nodes.map(|e| e.file_name().to_string_lossy().into_owned());
    names.any(|name| !standard.contains(&name.as_str()) && !name.starts_with("nvidia"))
}

/// What the tests below run inside; libtest runs it for nobody else.
#[test]
#[ignore = "runs in a container, where the other tests of this file start it"]
fn probe() {
    if let Some(name) = std::env::var_os("SOCKET") {
        let address = SocketAddr::from_abstract_name(name.as_encoded_bytes()).expect("an address");
        return report("an abstract socket", UnixStream::connect_addr(&address).map(drop));
    }
    if std::env::var_os("TERMINAL").is_some() {
        report("a typed character (TIOCSTI)", call(libc::SYS_ioctl, &[0, libc::TIOCSTI as usize, at(c"x")]));
        report("the terminal taken (TIOCSCTTY)", call(libc::SYS_ioctl, &[0, libc::TIOCSCTTY as usize, 1]));
        return report("a selection pasted (TIOCLINUX)", call(libc::SYS_ioctl, &[0, 0x541c, at(c"\x03")]));
    }
    for (name, outcome) in attempts() {
        report(name, outcome);
    }
}

#[allow(clippy::print_stdout)] // the test that started it reads this
fn report(name: &str, outcome: io::Result<()>) {
    match outcome {
        Ok(()) => println!("{MARK}{name}: came through"),
        Err(e) => println!("{MARK}{name}: {e}"),
    }
}

/// An image in which this executable can run.
fn image() -> Case {
    let case = Case::new();
    let listed = Command::new("ldd").arg(std::env::current_exe().expect("our path")).output().expect("ldd");
    let listed = String::from_utf8(listed.stdout).expect("paths");
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        case.image.file(library, fs::read(library).expect("read a library"));
        case.image.mode(library, 0o755);
    }
    case
}

const ARGV: &[&str] = &["/probe", PROBE, "--exact", "--ignored", "--nocapture", "--test-threads=1"];

fn bind() -> String {
    format!("-v{}:/probe:ro", text(&std::env::current_exe().expect("our path")))
}

/// What was tried, and what came through.
fn outcome(finished: &Finished) -> (usize, Vec<String>) {
    let tried: Vec<_> = finished.stdout.split(MARK).skip(1).filter_map(|rest| rest.lines().next()).collect();
    let through = tried.iter().filter_map(|line| line.strip_suffix(": came through")).map(str::to_owned);
    (tried.len(), through.collect())
}

#[track_caller]
fn refused(options: &[&str], finished: &Finished) {
    assert_eq!(finished.status, 0, "{options:?} {finished:?}");
    let (tried, through) = outcome(finished);
    assert!(
        tried > 60 && through.is_empty(),
        "{options:?}: {tried} tried, came through: {through:?}\n{}",
        finished.stdout
    );
}

#[test]
fn nothing_comes_through_whoever_the_workload_is() {
    nothing_comes_through(&[
        &[],
        &["--root"],
        &["-u", "5:6"],
        &["--pid", "host"],
        &["--root", "--pid", "host"],
        &["--network", "none", "--hostname", "x"],
        &["--read-only"],
    ]);
}

/// With each of these options.
pub(crate) fn nothing_comes_through(with: &[&[&str]]) {
    let case = image();
    let before = case.image.digest();
    let (bind, handed) = (bind(), handed_down());
    for options in with {
        let options = [*options, &["-e", &handed, &bind]].concat();
        refused(&options, &case.gpurun(&options, ARGV).finish());
    }
    assert_eq!(case.image.digest(), before);
}

#[test]
fn nothing_comes_through_with_gpus() {
    if !gpus::can_enter() {
        return;
    }
    let (machine, case, bind, handed) = (Machine::new("ubuntu"), image(), bind(), handed_down());
    let driver = machine.path();
    for options in [&[][..], &["--root"]] {
        let options = [options, &["--gpus", "device=1", "--driver-root", text(&driver), "-e", &handed, &bind]].concat();
        refused(&options, &gpus::enter(&machine, &case, &options, ARGV).finish());
    }
}

#[test]
fn abstract_sockets_are_the_networks() {
    let (case, bind) = (image(), bind());
    let name = format!("gpurun-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("an address");
    let _listener = UnixListener::bind_addr(&address).expect("listen");
    let socket = format!("SOCKET={name}");
    for (network, through) in [("host", 1), ("none", 0)] {
        let options = ["-e", &socket, "--network", network, &bind];
        let finished = case.gpurun(&options, ARGV).finish();
        assert_eq!(outcome(&finished), (1, vec!["an abstract socket".to_owned(); through]), "{finished:?}");
    }
}

#[test]
fn nothing_is_typed_into_the_callers_terminal() {
    let case = image();
    let argv = ARGV.join(" ");
    let script = format!("{} -e TERMINAL=1 {} {} {argv} | cat", text(&program()), bind(), case.reference().display());
    let mut shell = Command::new("sh");
    case.surround(shell.args(["-c", &script]));
    let mut pty = Pty::open();
    let mut child = pty.command(&shell).spawn().expect("start a shell");
    let screen = pty.expect("TIOCLINUX): ");
    child.wait().expect("wait for the shell");
    assert!(screen.contains(MARK) && !screen.contains("came through"), "{screen}");
}

#[test]
fn no_path_of_the_host_is_told_that_was_not_asked_for() {
    let case = Case::new();
    let told =
        case.sh(&[], "cat /proc/self/mountinfo /proc/mounts /proc/self/maps /proc/self/status; env").ok().to_owned();
    let home = format!("HOME={}", text(&case.path("home")));
    let told = told.replace(&home, "");
    for path in [case.path(""), program()] {
        let path = text(&path).trim_end_matches('/').to_owned();
        assert!(!told.contains(&path), "{path} in {told}");
    }
}

#[test]
fn a_mount_that_is_made_later_does_not_appear() {
    let case = Case::new();
    let dir = case.path("work/later");
    fs::create_dir(&dir).expect("make a directory");
    let script = r#"mount --make-rshared / && mkfifo go up && { "$G" -v "$D:/d" "$I" sh -c 'echo up >&3; read x; ls /d' <go 3>up & }
                    exec 4>go 5<up; read x <&5; mount -t tmpfs none "$D" && touch "$D/appeared" && echo >&4; wait"#;
    let mut command = Command::new("unshare");
    case.surround(command.args(["-Urm", "bash", "-c", script]));
    command.env("G", program()).env("I", case.reference()).env("D", &dir);
    assert_eq!(command.finish().ok(), "");
    assert!(!Path::new(&dir.join("appeared")).exists(), "it was in a namespace");
}
