//! Every signal reaches the workload, none is lost, and stopping and going on work as without gpurun.

use nix::sys::signal::Signal;

use crate::support::image::{Image, oci};
use crate::support::process::{Running, count, eventually, state};
use crate::support::{Case, Finish, program};

/// Says which signals it gets, until SIGTERM ends it.
const TELL: &str = "for s in INT HUP QUIT USR1 USR2 CONT WINCH; do trap \"echo $s\" $s; done; \
                    trap 'echo TERM; exit 3' TERM; echo up; while :; do sleep 1000 & wait $!; done";

fn telling(case: &Case, options: &[&str]) -> Running {
    let mut running = case.gpurun(options, &["sh", "-c", TELL]).start();
    running.until("up");
    running
}

#[test]
fn each_is_forwarded() {
    let case = Case::new();
    for options in [&[][..], &["--root"], &["--pid", "host"]] {
        let mut running = telling(&case, options);
        for signal in ["INT", "HUP", "QUIT", "USR1", "USR2", "CONT", "WINCH"] {
            running.signal(format!("SIG{signal}").parse().unwrap());
            assert_eq!(running.line(), signal);
        }
        running.signal(Signal::SIGTERM);
        running.finish().ends(3);
    }
}

#[test]
fn one_that_the_workload_does_not_handle_ends_it() {
    let case = Case::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1] {
        // No shell: one ignores SIGQUIT until it has become something else.
        let mut running = case.gpurun(&[], &["sleep", "1234.5"]).start();
        eventually("supervisor, PID 1 and workload are there", || count("1234.5") == 3);
        running.signal(signal);
        running.finish().ends(128 + signal as i32);
    }
}

#[test]
fn stopping_and_going_on() {
    let case = Case::new();
    let script = "trap 'echo CONT' CONT; echo up; while :; do sleep 0.05; done";
    let mut running = case.gpurun(&[], &["sh", "-c", script]).start();
    running.until("up").signal(Signal::SIGTSTP);
    let pid = running.pid();
    eventually("gpurun stops", || state(pid) == 'T');
    running.signal(Signal::SIGCONT).until("CONT");
    assert_ne!(state(pid), 'T');
    running.signal(Signal::SIGTERM);
    running.finish().ends(143);
}

#[test]
fn one_sent_before_the_workload_runs_is_not_lost() {
    let case = Case::new();
    for delay in 0..30 {
        let mut running = case.gpurun(&[], &["sleep", "1000"]).start();
        let pid = running.pid();
        // Before gpurun has blocked its signals it dies of one, as any program would.
        let status = || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let blocked = || !status().contains("SigBlk:\t0000000000000000");
        eventually("gpurun blocks its signals", blocked);
        std::thread::sleep(std::time::Duration::from_micros(delay * 200));
        running.signal(Signal::SIGTERM);
        running.finish().ends(143);
    }
}

#[test]
fn the_stop_signal_takes_the_place_of_term() {
    let case = Case::new();
    for (name, number) in [("SIGINT", 2), ("9", 9), ("SIGRTMIN+3", 37), ("USR2", 12)] {
        let mut running = case.gpurun(&["--stop-signal", name], &["sh", "-c", "echo up; exec sleep 1000"]).start();
        running.until("up").signal(Signal::SIGTERM);
        running.finish().ends(128 + number);
    }
    case.sh(&["--stop-signal", "NONE"], ":").refused(&["NONE"]);
}

#[test]
fn thousands_of_them_do_no_harm() {
    let case = Case::new();
    let mut running = telling(&case, &[]);
    for _ in 0..2000 {
        running.signal(Signal::SIGUSR1).signal(Signal::SIGWINCH);
    }
    running.signal(Signal::SIGTERM);
    running.finish().ends(3);
}

/// As some daemons do, and programs that do not want to wait for their children.
#[test]
fn a_caller_who_ignores_the_end_of_children_is_told_it_and_its_workload_ignores_it_too() {
    let case = Case::new();
    let layout = oci(&Image::busybox().layout(&case, "layout"));
    let here = case.reference().into_string().unwrap();
    let ignored = |signals: &[&str], reference: &str| {
        let mut command = std::process::Command::new("env");
        case.surround(&mut command);
        command.args(signals).arg(program()).arg("-q").arg(reference);
        let shown = command.args(["grep", "SigIgn", "/proc/self/status"]).finish();
        let mask = u64::from_str_radix(shown.ok().split_whitespace().nth(1).unwrap(), 16).unwrap();
        [Signal::SIGCHLD, Signal::SIGPIPE].map(|signal| mask >> (signal as i32 - 1) & 1 == 1)
    };
    assert_eq!(ignored(&["--default-signal"], &here), [false, false]);
    for reference in [&here, &layout, &layout] {
        assert_eq!(ignored(&["--ignore-signal=CHLD,PIPE"], reference), [true, true], "a pull comes between, or none");
    }
    let mut command = std::process::Command::new("env");
    case.surround(&mut command);
    command
        .arg("--ignore-signal=CHLD")
        .arg(program())
        .args(["-q", "-v", "/:/etc/passwd"])
        .arg(case.reference())
        .arg("true");
    command.finish().refused(&["/etc/passwd"]);
}
