//! With a terminal on stdin and stdout the workload has one of its own, and the caller's is given back as it was.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::process::{Running, eventually, state, status};
use crate::support::pty::Pty;
use crate::support::{Case, Finish, program, text};

fn start(case: &Case, pty: &Pty, options: &[&str], argv: &[&str]) -> std::process::Child {
    pty.command(&case.gpurun(options, argv)).spawn().unwrap()
}

fn end(mut child: std::process::Child) -> i32 {
    let mut ended = None;
    eventually("gpurun ends", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    status(ended.unwrap())
}

fn pid(child: &std::process::Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

#[test]
fn it_is_one_and_has_the_callers_size() {
    let (case, pty) = (Case::new(), &mut Pty::open());
    let script = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; echo x >/dev/tty; trap 'stty size; exit' WINCH; \
                  while :; do sleep 0.05; done";
    let child = start(&case, pty, &[], &["sh", "-c", script]);
    pty.expect("/dev/pts/0\r\n24 80\r\nall\r\nx\r\n");
    pty.resize(50, 132);
    pty.expect("50 132");
    assert_eq!(end(child), 0);
}

#[test]
fn there_is_none_when_a_stream_is_not() {
    let case = Case::new();
    assert_eq!(case.sh(&[], "tty || test -t 1 || echo no").stdout, "not a tty\nno\n");
    let pty = &mut Pty::open();
    let mut command = pty.command(&case.gpurun(&[], &["sh", "-c", "test -t 0 && echo in; test -t 1 || echo not out"]));
    let finished = Finish::start(&mut command).finish();
    assert_eq!(finished.stdout, "in\nnot out\n", "{finished:?}");
}

#[test]
fn keys_reach_the_workload() {
    let (case, pty) = (Case::new(), &mut Pty::open());
    let child = start(&case, pty, &[], &["sh", "-c", "echo up; read a; echo \"got $a\"; cat; echo eof"]);
    pty.expect("up");
    eventually("the terminal is raw", || pty.is_raw());
    pty.type_in("hello\r").expect("got hello");
    pty.type_in("\x04").expect("eof");
    assert_eq!(end(child), 0);
}

#[test]
fn control_c_ends_the_foreground_and_its_children() {
    let (case, pty) = (Case::new(), &mut Pty::open());
    let child =
        start(&case, pty, &[], &["sh", "-c", "trap 'echo INT; exit 4' INT; echo up; sleep 86404.5; echo slept"]);
    pty.expect("up");
    eventually("the terminal is raw", || pty.is_raw());
    let sleeps = || crate::support::process::count_exactly("sleep\086404.5\0") == 1;
    eventually("the shell waits for its child", sleeps);
    pty.type_in("\x03").expect("INT");
    assert_eq!(end(child), 4);
}

#[test]
fn the_modes_are_given_back_on_every_way_out() {
    let case = Case::new();
    let check = |argv: &[&str], signal: Option<(Signal, bool)>, want: i32| {
        let pty = &mut Pty::open();
        let before = pty.modes();
        let child = start(&case, pty, &[], argv);
        if let Some((signal, _)) = signal {
            pty.expect("up");
            eventually("the terminal is raw", || pty.is_raw());
            kill(pid(&child), signal).unwrap();
        }
        assert_eq!(end(child), want, "{argv:?} {signal:?}");
        assert_eq!(pty.modes(), before, "{argv:?} {signal:?}");
    };
    check(&["true"], None, 0);
    check(&["sh", "-c", "stty raw -echo; exit 5"], None, 5);
    check(&["nothing"], None, 127);
    check(&["sh", "-c", "kill -9 $$"], None, 137);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1] {
        check(&["sh", "-c", "echo up; exec sleep 1000"], Some((signal, true)), 128 + signal as i32);
    }
    check(&["sh", "-c", "trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done"], Some((Signal::SIGTERM, true)), 6);
}

#[test]
fn all_output_arrives_before_the_end() {
    let (case, pty) = (Case::new(), &mut Pty::open());
    let child = start(&case, pty, &[], &["sh", "-c", "seq 1 20000; echo end"]);
    let shown = pty.expect("end\r\n");
    assert_eq!(end(child), 0);
    assert!(shown.contains("\r\n19999\r\n20000\r\n"));
    assert_eq!(shown.lines().count(), 20000);
}

#[test]
fn a_workload_that_lets_go_of_its_terminal_costs_nothing() {
    let (case, pty) = (Case::new(), &mut Pty::open());
    let script = "echo up; exec <&- >&- 2>&-; sleep 1.5; echo again >/dev/tty";
    let child = start(&case, pty, &[], &["sh", "-c", script]);
    pty.expect("up");
    pty.expect("again");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let ticks: Vec<u64> = stat.split(' ').skip(13).take(2).filter_map(|t| t.parse().ok()).collect();
    assert_eq!(end(child), 0);
    assert!(ticks.iter().sum::<u64>() < 50, "{ticks:?}");
}

#[test]
fn a_shells_job_control_works_around_it() {
    let (case, pty) = (Case::new(), &mut Pty::open());
    let mut shell = std::process::Command::new("bash");
    case.surround(shell.args(["--norc", "--noprofile", "-i"]));
    shell.env("PS1", "prompt> ").env("TERM", "dumb").env("G", program()).env("IMAGE", case.reference());
    let mut command = pty.command(&shell);
    let shell = Running::of(command.spawn().unwrap());
    pty.expect("prompt> ");
    pty.type_in("$G $IMAGE sh -c 'echo u''p; read a; echo \"got $a\"; exit 9'; echo \"status $?\"\r").expect("up");
    eventually("the terminal is raw", || pty.is_raw());
    pty.type_in("\x1a").expect("Stopped");
    pty.expect("status 148");
    pty.expect("prompt> ");
    pty.type_in("echo shell lives\r").expect("\nshell lives");
    pty.expect("prompt> ");
    pty.type_in("fg\r");
    eventually("the terminal is raw again", || pty.is_raw());
    pty.type_in("back\r").expect("got back");
    pty.expect("prompt> ");
    pty.type_in("$G $IMAGE sleep 1000 </dev/tty &\r").expect("prompt> ");
    std::thread::sleep(std::time::Duration::from_millis(300));
    pty.type_in("kill %1; wait %1; echo \"ended $?\"\r").expect("ended 143");
    pty.type_in("exit\r");
    drop(shell);
}

#[test]
fn a_shell_inside_has_job_control_of_its_own() {
    let (case, pty) = (Case::new(), &mut Pty::open());
    let child = start(&case, pty, &["-e", "PS1=inside> "], &["sh", "-i"]);
    pty.expect("inside> ");
    let screen = pty.screen();
    assert!(!screen.contains("job control"), "{screen}");
    pty.type_in("sleep 1000\r");
    pty.expect("sleep 1000");
    std::thread::sleep(std::time::Duration::from_millis(300));
    pty.type_in("\x1a").expect("Stopped");
    assert_ne!(state(pid(&child)), 'T', "only the job inside is stopped");
    pty.type_in("kill %1; fg; exit 8\r");
    assert_eq!(end(child), 8);
}

#[test]
fn a_terminal_that_goes_away_takes_gpurun_with_it() {
    let case = Case::new();
    let mut pty = Pty::open();
    let child = start(&case, &pty, &[], &["sh", "-c", "echo up; exec sleep 1000"]);
    pty.expect("up");
    pty.hang_up();
    assert_eq!(end(child), 129);
}

#[test]
fn a_terminal_that_goes_away_from_a_workload_that_does_not_mind_costs_nothing() {
    let case = Case::new();
    let mut pty = Pty::open();
    let out = case.path("work");
    let script = "trap '' HUP; echo up; sleep 1.5; echo done >/out/file";
    let child = start(&case, &pty, &["-v", &format!("{}:/out", text(&out))], &["sh", "-c", script]);
    pty.expect("up");
    pty.hang_up();
    eventually("the workload goes on", || out.join("file").exists());
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let ticks: Vec<u64> = stat.split(' ').skip(13).take(2).filter_map(|t| t.parse().ok()).collect();
    assert_eq!(end(child), 0);
    assert!(ticks.iter().sum::<u64>() < 50, "{ticks:?}");
}
