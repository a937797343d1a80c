//! A command runs, and its status comes back.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::process::{count, eventually, status};
use crate::support::{Case, Finish, program};

#[test]
fn the_status_is_the_workloads() {
    let case = Case::new();
    for status in [0, 1, 2, 77, 124, 125, 126, 127, 128, 255] {
        case.sh(&[], &format!("exit {status}")).ends(status);
    }
}

#[test]
fn a_signal_that_ends_the_workload_is_128_and_its_number() {
    let case = Case::new();
    for signal in [1, 2, 6, 9, 11, 13, 14, 15, 31, 34, 37, 64] {
        case.sh(&[], &format!("kill -{signal} $$")).ends(128 + signal);
    }
}

#[test]
fn what_is_not_there_is_127() {
    let case = Case::new();
    case.image.executable("/script", "#!/no/such/interpreter\n");
    for command in ["nothing-of-this-name", "/nothing", "/etc/nothing", "/bin/sh/nothing", "/script", "", " "] {
        let finished = case.gpurun(&["--entrypoint", ""], &[command, "x"]).finish();
        match command {
            "" => finished.refused(&["there is no command"]),
            _ => finished.failed(127, &[command]),
        }
    }
}

#[test]
fn what_cannot_be_executed_is_126() {
    let case = Case::new();
    case.image.file("/plain", "x");
    case.image.executable("/noexec", "not a program, and no script either");
    case.image.executable("/empty", "");
    case.image.executable("/dir-script", "#!/etc\n");
    case.image.file("/elf-data", b"\x7fELF\x02\x01\x01\0");
    case.image.mode("/elf-data", 0o755);
    case.image.link("/self", "/proc/self/exe");
    case.image.executable("/self-script", "#!/proc/self/exe\n");
    for command in ["/plain", "/etc", "/noexec", "/empty", "/elf-data", "/dir-script", "/self", "/self-script"] {
        case.gpurun(&[], &[command]).finish().failed(126, &[command]);
    }
}

#[test]
fn path_is_searched_as_a_shell_does() {
    let case = Case::new();
    case.image.file("/a/tool", "not executable");
    case.image.executable("/b/tool", "#!/bin/sh\necho b \"$@\"\n");
    let run = |path: &str, command: &str| case.gpurun(&["-e", path], &[command, "1"]).finish();
    assert_eq!(run("PATH=/none:/a:/b", "tool").ok(), "b 1\n");
    run("PATH=/a", "tool").failed(126, &["/a/tool"]);
    run("PATH=", "tool").failed(127, &["tool"]);
    assert_eq!(case.gpurun(&["-w", "/b"], &["./tool"]).finish().ok(), "b\n");
}

#[test]
fn arguments_and_streams_arrive_as_they_are() {
    let case = Case::new();
    let mut command =
        case.gpurun(&[], &["sh", "-c", "cat; for a; do echo \"[$a]\"; done; echo err >&2", "x", "", "a b", "--", "-v"]);
    let mut running = command.stdin(Stdio::piped()).start();
    running.child.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let finished = running.finish();
    assert_eq!((finished.status, &*finished.stdout, &*finished.stderr), (0, "in\n[]\n[a b]\n[--]\n[-v]\n", "err\n"));
}

#[test]
fn options_end_at_the_image_and_run_is_the_same() {
    let case = Case::new();
    for before in [&["run"][..], &[]] {
        for dashes in [&["--"][..], &[]] {
            let mut command = case.bare();
            command.args(before).arg("--root").arg(case.reference()).args(dashes).args(["echo", "--root", "-w"]);
            assert_eq!(command.finish().ok(), "--root -w\n");
        }
    }
}

#[test]
fn what_docker_takes_and_means_nothing_here_is_taken() {
    let case = Case::new();
    let options = ["-it", "--rm", "--init", "--label", "a=b", "-l", "c", "-t", "-i"];
    assert_eq!(case.gpurun(&options, &["echo", "x"]).finish().ok(), "x\n");
}

#[test]
fn orphans_are_reaped() {
    let case = Case::new();
    let script = "for i in 1 2 3 4 5 6 7 8; do (sh -c 'sleep 0.1 &' &); done; sleep 0.6; ps -o stat | grep -c Z; :";
    assert_eq!(case.sh(&[], script).ok(), "0\n");
}

#[test]
fn the_workload_is_not_pid_1_and_pid_1_tells_nothing() {
    let case = Case::new();
    let script = "[ $$ != 1 ] && cat /proc/1/environ /proc/1/maps; ls /proc/1/fd; readlink /proc/1/exe /proc/1/cwd; :";
    assert_eq!(case.sh(&[], script).stdout, "");
}

#[test]
fn what_runs_in_the_background_ends_with_the_workload() {
    let case = Case::new();
    for options in [&[][..], &["--pid", "host"]] {
        let script = "sleep 86401.5 & (setsid sleep 86401.5 &) ; nohup sleep 86401.5 >/dev/null 2>&1 & echo up";
        assert_eq!(case.sh(options, script).stdout, "up\n");
        eventually("the background processes end", || count("86401.5") == 0);
    }
}

#[test]
fn a_killed_gpurun_leaves_no_process_and_no_mount() {
    let case = Case::new();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    for options in [&[][..], &["--pid", "host"]] {
        let script =
            "(setsid sleep 86402.5 &); sleep 86402.5 & trap '' TERM HUP INT; echo up; sleep 86402.5; sleep 86402.5";
        let mut running = case.gpurun(options, &["sh", "-c", script]).start();
        running.until("up");
        running.child.kill().unwrap();
        eventually("everything ends", || count("86402.5") == 0);
    }
    assert_eq!(mounts(), before);
}

#[test]
fn gpurun_killed_at_any_moment_of_its_start_leaves_nothing() {
    let case = Case::new();
    for delay in 0..40 {
        let mut running = case.gpurun(&[], &["sleep", "86403.5"]).start();
        std::thread::sleep(std::time::Duration::from_micros(delay * 500));
        running.child.kill().unwrap();
    }
    eventually("everything ends", || count("86403.5") == 0);
}

#[test]
fn inherited_descriptors_arrive_at_their_numbers_but_directories_do_not() {
    let case = Case::new();
    let file = case.file("handed", "down\n");
    let shell = r#"exec 7<"$1" 2000<"$1" 9<. 10</; exec "$2" "$3" sh -c 'cat <&7; cat /proc/self/fd/2000; cd /proc/self/fd; ls -d 7 2000 9 10 2>&1'"#;
    let mut command = Command::new("bash");
    command.args(["-c", shell, "x"]).arg(&file).arg(program()).arg(case.reference());
    case.surround(command.current_dir("/"));
    let absent = |n: u32| format!("ls: {n}: No such file or directory\n");
    assert_eq!(command.finish().stdout, format!("down\ndown\n{}{}2000\n7\n", absent(9), absent(10)));
}

#[test]
fn a_thousand_descriptors_arrive() {
    let case = Case::new();
    let shell = r#"ulimit -n 4096 && for ((i = 20; i < 1500; i++)); do eval "exec $i</dev/null"; done
                   exec "$1" "$2" sh -c 'ls /proc/$$/fd | grep -c ...'"#;
    let mut command = Command::new("bash");
    command.args(["-c", shell, "x"]).arg(program()).arg(case.reference());
    case.surround(&mut command);
    let open = command.finish().stdout;
    assert!(open.trim().parse::<usize>().unwrap() >= 1400, "{open}");
}

#[test]
fn closed_streams_are_no_reason_to_fail() {
    let case = Case::new();
    for redirection in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let shell = format!(r#"exec "$1" "$2" sh -c 'echo out; read x; exit 7' {redirection}"#);
        let mut command = Command::new("bash");
        command.args(["-c", &shell, "x"]).arg(program()).arg(case.reference());
        case.surround(&mut command);
        command.finish().ends(7);
    }
}

#[test]
fn a_null_stream_can_be_written() {
    let case = Case::new();
    let mut command = case.gpurun(&[], &["sh", "-c", "echo x && echo y >&2 && read z"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(status(child.wait().unwrap()), 1);
}

#[test]
fn a_deleted_directory_is_no_place_to_fail_in() {
    let case = Case::new();
    let shell = r#"mkdir gone; cd gone; rmdir ../gone; exec "$1" "$2" pwd"#;
    let mut command = Command::new("bash");
    command.args(["-c", shell, "x"]).arg(program()).arg(case.reference());
    case.surround(&mut command);
    assert_eq!(command.finish().ok(), "/\n");
    command = Command::new("bash");
    command.args(["-c", &shell.replace("\"$1\"", "\"$1\" --here"), "x"]).arg(program()).arg(case.reference());
    case.surround(&mut command);
    command.finish().refused(&["--here", "current directory"]);
}

#[test]
fn mask_umask_and_limits_stay_the_callers() {
    let case = Case::new();
    let show =
        "umask; ulimit -n; cut -d' ' -f19 /proc/self/stat; grep -E 'Sig(Blk|Ign)|Cpus_allowed_list' /proc/self/status";
    let run = |how: &str| {
        let shell = format!(
            "umask 027; ulimit -n 333; trap '' USR1; exec env --block-signal=RTMIN,USR2 nice -n 3 {how} \"$3\""
        );
        let mut command = Command::new("bash");
        command.args(["-c", &shell, "x"]).arg(program()).arg(case.reference()).arg(show);
        case.surround(&mut command);
        command.finish().ok().to_owned()
    };
    assert_eq!(run(r#""$1" "$2" sh -c"#), run("busybox sh -c"));
}

#[test]
fn a_limit_that_a_start_cannot_keep_is_named() {
    let case = Case::new();
    for (limit, words) in [
        ("-n 12", &["open_tree", "os error 24", "hint: ", "`ulimit -n`"][..]),
        ("-f 0", &["write `/etc/passwd`", "File too large", "hint: ", "`ulimit -f`"]),
        ("-u 1", &["fork", "EAGAIN", "hint: ", "`ulimit -u`"]),
    ] {
        // Only what the test itself needs is handed down.
        let shell = format!(
            "for fd in /proc/$$/fd/*; do [ ${{fd##*/}} -gt 2 ] && eval \"exec ${{fd##*/}}>&-\"; done; ulimit {limit}; exec \"$1\" -q \"$2\" echo ran"
        );
        let mut command = Command::new("bash");
        command.args(["-c", &shell, "x"]).arg(program()).arg(case.reference());
        case.surround(&mut command);
        command.finish().refused(words);
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_writer() {
    let case = Case::new();
    assert_eq!(case.sh(&[], "(yes; echo $? >&2) | head -n 1").stderr, "141\n");
}

#[test]
fn the_phases_of_a_start_are_told_to_who_asks() {
    let case = Case::new();
    let finished = case.gpurun(&["-q", "--timings"], &["echo", "ran"]).finish();
    let phases: Vec<_> = finished.stderr.lines().filter_map(|line| line.split(' ').next()).collect();
    let all = ["phase", "parse", "resolve", "plan", "namespaces", "rootfs", "binds", "init", "exec"];
    assert_eq!((phases.as_slice(), finished.status, finished.stdout.as_str()), (&all[..], 0, "ran\n"));
    assert_eq!(case.gpurun(&[], &["true"]).finish().stderr, "");
}
