//! A terminal with a person at it: types, reads the screen, resizes, looks at the modes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};

use super::process::eventually;

/// The outside of a pseudo terminal.
pub(crate) struct Pty {
    master: Option<File>,
    slave: File,
    screen: Arc<Mutex<String>>,
    looks_away: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// Reads the screen until told to look away.
fn watch(mut master: &File, screen: &Mutex<String>, looks_away: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !looks_away.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(20_u8)) != Ok(1) {
            continue;
        }
        let Ok(n @ 1..) = master.read(&mut buffer) else { return };
        screen.lock().expect("lock").push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
}

impl Pty {
    /// A terminal of 24 lines of 80.
    pub(crate) fn open() -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("make a terminal");
        for end in [&master, &slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("fcntl");
        }
        let (screen, looks_away) = (Arc::default(), Arc::default());
        let (master, shown, stop) = (File::from(master), Arc::clone(&screen), Arc::clone(&looks_away));
        let copy = master.try_clone().expect("dup");
        let reader = std::thread::spawn(move || watch(&copy, &shown, &stop));
        Self { master: Some(master), slave: slave.into(), screen, looks_away, reader: Some(reader) }
    }

    /// The command in a session of its own, with this as its terminal.
    pub(crate) fn command(&self, inner: &Command) -> Command {
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(inner.get_program()).args(inner.get_args()).env_clear();
        for (name, value) in inner.get_envs() {
            value.map(|value| command.env(name, value));
        }
        if let Some(dir) = inner.get_current_dir() {
            command.current_dir(dir);
        }
        let end = || Stdio::from(self.slave.try_clone().expect("dup"));
        command.stdin(end()).stdout(end()).stderr(end());
        command
    }

    /// Types.
    pub(crate) fn type_in(&mut self, text: &str) -> &mut Self {
        self.master.as_mut().expect("it is there").write_all(text.as_bytes()).expect("type");
        self
    }

    /// Waits until the screen shows this, and clears it up to there.
    #[track_caller]
    pub(crate) fn expect(&mut self, wanted: &str) -> String {
        let mut before = String::new();
        let mut seen = String::new();
        let screen = Arc::clone(&self.screen);
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the terminal shows it", || {
                let mut screen = screen.lock().expect("lock");
                seen.clone_from(&screen);
                let Some(at) = screen.find(wanted) else { return false };
                screen[..at].clone_into(&mut before);
                screen.drain(..at + wanted.len());
                true
            });
        }));
        assert!(found.is_ok(), "no `{wanted}` in {seen:?}");
        before
    }

    /// What the screen shows now.
    pub(crate) fn screen(&self) -> String {
        self.screen.lock().expect("lock").clone()
    }

    /// Takes it away while programs use it.
    pub(crate) fn hang_up(&mut self) {
        self.looks_away.store(true, Ordering::Relaxed);
        self.reader.take().map(JoinHandle::join);
        self.master = None;
    }

    /// Makes the window larger or smaller.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = gpurun::sys::WindowSize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        gpurun::sys::set_window_size(self.master.as_ref().expect("it is there").as_fd(), &size).expect("resize");
    }

    /// The modes a program left it in.
    pub(crate) fn modes(&self) -> Termios {
        tcgetattr(&self.slave).expect("tcgetattr")
    }

    /// Whether it hands on every key as it is.
    pub(crate) fn is_raw(&self) -> bool {
        !self.modes().local_flags.intersects(LocalFlags::ICANON | LocalFlags::ISIG)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        self.looks_away.store(true, Ordering::Relaxed);
    }
}
