//! What is executed in the container: found before, executed last.
//!
//! In: the plan's process as C strings. [`Workload::prepare`] runs in the launched process, inside the container with the
//! workload's own rights; [`Workload::exec`] in a child of it, which becomes the workload or reports why not.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::signal::SigSet;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{AccessFlags, Pid, faccessat, fchdir, getcwd, setpgid, tcsetpgrp};

use super::{Inherited, limits, signals, status, user};
use crate::error::{Context, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, Error, Result};
use crate::plan::Process;
use crate::request::Limit;
use crate::seccomp::Filter;
use crate::sys;

/// How many `#!` interpreters the kernel follows (fs/exec.c).
const MAX_INTERPRETERS: usize = 5;

/// How much of a file the kernel reads to find its interpreter (BINPRM_BUF_SIZE).
const SHEBANG_BYTES: u64 = 256;

/// What helps a command of `exec` that nothing but the workload's directory keeps from starting.
const ELSEWHERE: &str = "`-w /` starts elsewhere than the workload is";

/// The workload, and what its process needs to become it.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    argv: Vec<CString>,
    env: Vec<CString>,
    path: Vec<PathBuf>,
    cwd: PathBuf,
    limits: Vec<Limit>,
    kept: Vec<caps::Capability>,
    filter: Option<Filter>,
    command: OnceCell<CString>,
    terminal: bool,
    window: Option<sys::WindowSize>,
    mask: SigSet,
    /// What it gets in place of SIGTERM.
    pub(super) stop_signal: i32,
    /// What the caller handed down.
    pub(super) inherited: Inherited,
    /// Where failures are told.
    pub(super) status: Rc<status::Writer>,
    /// Closed when the supervisor is gone.
    pub(super) lifeline: Rc<OwnedFd>,
    /// The lock of what keeps the writes, which PID 1 holds as long as it may be written.
    pub(super) locked: Option<Rc<OwnedFd>>,
}

/// What the launch gives a workload beside the plan's process.
pub(crate) struct Surroundings {
    /// Where failures are told.
    pub(crate) status: status::Writer,
    /// The launched process's end of the lifeline.
    pub(crate) lifeline: OwnedFd,
    /// The caller's signal mask.
    pub(crate) mask: SigSet,
    /// The size of the caller's terminal, if the workload gets one.
    pub(crate) window: Option<sys::WindowSize>,
    /// What the caller handed down.
    pub(crate) inherited: Inherited,
}

impl Workload {
    /// Puts everything into the form exec needs, while there still is somebody to tell that it has none.
    pub(crate) fn new(process: &Process, filter: Option<&Filter>, around: Surroundings) -> Result<Self> {
        let c = |bytes: Vec<u8>| {
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            CString::new(bytes).context(|| format!("`{shown}` has a NUL byte"))
        };
        let pairs = process.env.iter().map(|(k, v)| c([k.as_bytes(), b"=", v.as_bytes()].concat()));
        let path = process.env.iter().find(|(name, _)| name == "PATH").map(|(_, v)| v.as_os_str());
        Ok(Self {
            argv: process.argv.iter().map(|a| c(a.as_bytes().to_vec())).collect::<Result<_>>()?,
            env: pairs.collect::<Result<_>>()?,
            path: std::env::split_paths(path.unwrap_or_default()).collect(),
            cwd: process.cwd.clone(),
            limits: process.limits.clone(),
            kept: process.capabilities.iter().copied().map(number).collect::<Result<_>>()?,
            filter: filter.cloned(),
            command: OnceCell::new(),
            terminal: process.terminal,
            window: around.window,
            mask: around.mask,
            stop_signal: process.stop_signal,
            inherited: around.inherited,
            status: Rc::new(around.status),
            lifeline: Rc::new(around.lifeline),
            locked: None,
        })
    }

    /// Gives up all capabilities but what the plan keeps, enters the working directory and finds the command.
    pub(super) fn prepare(&self) -> Result<()> {
        if self.terminal {
            user::own_terminal()?;
        }
        sys::drop_capabilities(&self.kept).context(|| "give up all capabilities")?;
        enter(&self.cwd).map_err(|e| if self.cwd == Path::new(".") { e.hint(ELSEWHERE) } else { e })?;
        let command = find(OsStr::from_bytes(self.argv[0].as_bytes()), &self.path)?;
        check_interpreters(&command)?;
        let _ = self.command.set(sys::cstring(&command)?); // `prepare` runs once
        Ok(())
    }

    /// Becomes the workload.
    pub(super) fn exec(&self) -> Result<Infallible> {
        own_process_group(self.terminal)?;
        if let Some(size) = &self.window {
            sys::set_window_size(sys::stdio(0), size).context(|| "set the terminal's size")?;
        }
        self.limits.iter().try_for_each(limits::apply)?;
        signals::restore(&self.mask, &self.inherited.ignored).context(|| "restore the signals")?;
        let command = self.command.get().context(|| "no command was found")?;
        if let Some(filter) = &self.filter {
            sys::install_filter(filter).context(|| format!("install the seccomp filter ({})", filter.why))?;
        }
        let Err(errno) = nix::unistd::execve(command, &self.argv, &self.env);
        Err(not_executable(command, errno))
    }
}

/// A capability of a spec, as the kernel has it.
fn number(capability: oci_spec::runtime::Capability) -> Result<caps::Capability> {
    format!("CAP_{capability}").parse().context(|| format!("keep CAP_{capability}"))
}

/// Enters the working directory; a magic link there could lead to a directory that gpurun has open (CVE-2024-21626).
fn enter(path: &Path) -> Result<()> {
    let what = || format!("enter the working directory `{}`", path.display());
    let dir = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY).context(what)?;
    fchdir(&dir).context(what)?;
    match getcwd().context(what)?.is_absolute() {
        true => Ok(()),
        false => Err(Error::new("it is outside the container")).context(what),
    }
}

fn open(path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, path, how)
}

/// As a shell finds it: a name with a slash as it is, another along PATH.
fn find(name: &OsStr, path: &[PathBuf]) -> Result<PathBuf> {
    let not_found = || Error::new(format!("`{}` is not in the container", name.display())).exit(EXIT_NOT_FOUND);
    let candidates = match name.as_bytes().contains(&b'/') {
        true => vec![PathBuf::from(name)],
        false => path.iter().map(|dir| dir.join(name)).collect(),
    };
    let mut refused = None;
    for candidate in candidates {
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => refused = refused.or(Some((candidate, errno))),
        }
    }
    Err(refused.map_or_else(not_found, |(candidate, errno)| {
        Error::new(format!("execute `{}`", candidate.display())).because(errno).exit(EXIT_NOT_EXECUTABLE)
    }))
}

fn executable(path: &Path) -> nix::Result<()> {
    let file = open(path, OFlag::O_PATH)?;
    let kind = SFlag::from_bits_truncate(fstat(&file)?.st_mode & SFlag::S_IFMT.bits());
    if kind != SFlag::S_IFREG {
        return Err(Errno::EACCES);
    }
    faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS)
}

/// A script's interpreter that is a magic link would be gpurun itself, run with the image's libraries and left open for
/// writing (CVE-2019-5736). What cannot be read is no script.
fn check_interpreters(command: &Path) -> Result<()> {
    let mut file = command.to_owned();
    for _ in 0..MAX_INTERPRETERS {
        let what = || format!("execute `{}`, the interpreter of `{}`", file.display(), command.display());
        let fd = match open(&file, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::EACCES) => return Ok(()),
            Err(e) => {
                let status = if e == Errno::ENOENT { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE };
                return Err(e).context(what).map_err(|e| e.exit(status));
            }
        };
        match interpreter(fd).context(what).map_err(|e| e.exit(EXIT_NOT_EXECUTABLE))? {
            Some(next) => file = next,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// The path after `#!`, if the file starts with it.
fn interpreter(file: OwnedFd) -> Result<Option<PathBuf>> {
    let mut head = Vec::new();
    File::from(file).take(SHEBANG_BYTES).read_to_end(&mut head).context(|| "read its first line")?;
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    let line = rest.split(|&b| b == b'\n' || b == 0).next().unwrap_or_default().trim_ascii();
    let path = line.split(|&b| b == b' ' || b == b'\t').next().unwrap_or_default();
    Ok((!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path))))
}

/// A group of its own, so that a terminal's keys and gpurun's reach all of the workload and nothing else.
fn own_process_group(terminal: bool) -> Result<()> {
    let me = Pid::from_raw(0);
    setpgid(me, me).context(|| "setpgid")?;
    if terminal {
        tcsetpgrp(sys::stdio(0), nix::unistd::getpid()).context(|| "take the terminal's foreground")?;
    }
    Ok(())
}

fn not_executable(command: &CString, errno: Errno) -> Error {
    let error = Error::new(format!("execve `{}`", command.to_string_lossy())).because(errno);
    match errno {
        Errno::ENOENT => error.exit(EXIT_NOT_FOUND).hint("the file is there, so its interpreter or loader is missing"),
        Errno::ENOEXEC => {
            error.exit(EXIT_NOT_EXECUTABLE).hint("it is for another architecture, or a script without `#!`")
        }
        _ => error.exit(EXIT_NOT_EXECUTABLE),
    }
}
