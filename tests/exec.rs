//! Commands beside a workload that runs, and what runs at all.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::process::{Running, count, eventually, status};
use crate::support::pty::Pty;
use crate::support::{Case, Finish, Finished, program};

/// A run that has started and stays until the test ends.
fn running(case: &Case, options: &[&str], script: &str) -> Running {
    let mut running = case.gpurun(options, &["sh", "-c", &format!("{script}; echo up; sleep 1000; :")]).start();
    running.until("up");
    running
}

fn exec(case: &Case, options: &[&str], target: &str, script: &str) -> Finished {
    let mut command = case.bare();
    command.arg("exec").args(options).args([target, "sh", "-c", script]).finish()
}

/// A name that no other test's run has.
fn name(case: &Case) -> String {
    format!("run-{}", case.path("").file_name().unwrap().display())
}

fn listed(case: &Case) -> Vec<Value> {
    let all: Value = serde_json::from_str(case.bare().args(["ps", "--json"]).finish().ok()).unwrap();
    all.as_array().unwrap().iter().filter(|run| run["name"] == name(case)).cloned().collect()
}

#[test]
fn it_has_all_that_the_workload_has() {
    let case = Case::new();
    let name = name(&case);
    let facts = "for n in user mnt pid uts net ipc; do readlink /proc/self/ns/$n; done; pwd; id -u; id -g; id -G; hostname; \
                 echo $A $B $HOME; ls /tmp; grep -E '^(Cap|NoNew|Seccomp)' /proc/self/status; readlink /proc/self/root; \
                 chown 7 /tmp 2>/dev/null; echo $?";
    for options in [
        &[][..],
        &["--root", "--hostname", "h", "--network", "none"],
        &["--pid", "host"],
        &["-u", "5:6"],
        &["--fakeroot"],
        &["--seccomp", "default"],
    ] {
        let options = [&["--name", &name, "-e", "A=1", "-e", "B=x y", "-w", "/tmp"], options].concat();
        let mut run = case.gpurun(&options, &["sh", "-c", &format!("touch /tmp/f; {facts}; echo up; sleep 1000; :")]);
        let mut run = run.start();
        let wanted: Vec<_> = std::iter::from_fn(|| Some(run.line()).filter(|line| line != "up")).collect();
        let finished = exec(&case, &[], &name, facts);
        assert_eq!(finished.ok().lines().collect::<Vec<_>>(), wanted, "{options:?}");
    }
}

#[test]
fn directory_and_variables_can_be_others() {
    let case = Case::new();
    let _run = running(&case, &["--name", &name(&case), "-e", "A=1"], ":");
    let mut command = case.bare();
    command.args([
        "exec",
        "-w",
        "etc",
        "-e",
        "A=2",
        "-e",
        "FROM_*",
        &name(&case),
        "sh",
        "-c",
        "pwd; echo $A $FROM_HOST",
    ]);
    assert_eq!(command.env("FROM_HOST", "me").finish().ok(), "/etc\n2 me\n");
    exec(&case, &["-w", "/none"], &name(&case), ":").refused(&["/none", "No such file"]);
}

#[test]
fn its_status_is_the_commands() {
    let case = Case::new();
    let _run = running(&case, &["--name", &name(&case)], ":");
    for (script, status) in [("exit 0", 0), ("exit 77", 77), ("kill -9 $$", 137), ("kill -34 $$", 162)] {
        exec(&case, &[], &name(&case), script).ends(status);
    }
    let run = |command: &str| case.bare().args(["exec", &name(&case), command]).finish();
    let missing = run("nothing");
    missing.failed(127, &["nothing"]);
    assert!(!missing.stderr.contains("-w /"), "{missing:?}");
    run("/etc").failed(126, &["/etc"]);
    run("/proc/self/exe").failed(126, &["/proc/self/exe"]);
}

#[test]
fn signals_reach_it_and_not_the_workload() {
    let case = Case::new();
    let mut run = running(&case, &["--name", &name(&case)], "trap 'echo WRONG; exit 1' TERM INT HUP");
    let mut command = case.bare();
    let mut other = command
        .args([
            "exec",
            &name(&case),
            "sh",
            "-c",
            "trap 'echo HUP' HUP; echo up; while :; do sleep 1000 & wait $!; done",
        ])
        .start();
    other.until("up").signal(Signal::SIGHUP).until("HUP").signal(Signal::SIGTERM);
    other.finish().ends(143);
    assert!(run.child.try_wait().unwrap().is_none());
}

#[test]
fn a_killed_exec_leaves_no_process_and_an_ended_run_no_exec() {
    let case = Case::new();
    let mut run = running(&case, &["--name", &name(&case)], ":");
    let sleep = || {
        let mut command = case.bare();
        let mut other =
            command.args(["exec", &name(&case), "sh", "-c", "sleep 86501.5 & echo up; sleep 86501.5"]).start();
        other.until("up");
        other
    };
    let mut other = sleep();
    other.child.kill().unwrap();
    eventually("its processes end", || count("86501.5") == 0);
    let other = sleep();
    run.signal(Signal::SIGKILL).wait();
    other.finish().ends(137);
    exec(&case, &[], &name(&case), ":").refused(&["there is no run", "gpurun ps"]);
}

#[test]
fn a_run_is_meant_by_name_step_and_the_pid_of_any_of_its_processes() {
    let case = Case::new();
    let mut run = case.gpurun(&["--name", &name(&case)], &["sh", "-c", "sleep 1000 & echo up; wait"]);
    let mut run = run.env("SLURM_JOB_ID", "86502").env("SLURM_STEP_ID", "3").start();
    let (supervisor, facts) = (run.until("up").pid().to_string(), listed(&case).remove(0));
    let (init, workload) = (facts["init"].to_string(), facts["workload"].to_string());
    let children = std::fs::read_to_string(format!("/proc/{workload}/task/{workload}/children")).unwrap();
    for target in [&*name(&case), "86502.3", &supervisor, &init, &workload, children.trim()] {
        assert_eq!(exec(&case, &[], target, "echo $GPURUN_NAME").ok().trim(), name(&case), "{target}");
    }
    for target in ["1", "86502", "86502.4", "", "nobody's", &std::process::id().to_string()] {
        exec(&case, &[], target, "echo ran").refused(&["there is no run"]);
    }
    let other = running(&case, &["--name", &name(&case)], ":");
    exec(&case, &[], &name(&case), "echo ran").refused(&["2 runs", &supervisor, &other.pid().to_string()]);
    exec(&case, &[], &supervisor, ":").ok();
}

#[test]
fn ps_shows_what_runs_and_nothing_else() {
    let case = Case::new();
    assert!(listed(&case).is_empty());
    let run = running(&case, &["--name", &name(&case), "--root"], "A='\x1b[2J'");
    let facts = listed(&case).remove(0);
    assert_eq!(
        (&facts["pid"], &facts["uid"], &facts["gpus"]),
        (&run.pid().as_raw().into(), &0.into(), &Value::Array(vec![]))
    );
    assert_eq!(facts["image"], case.reference().to_str().unwrap());
    assert_eq!((&facts["command"][0], &facts["step"], &facts["digest"]), (&"sh".into(), &Value::Null, &Value::Null));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now - facts["started"].as_u64().unwrap() < 60, "{facts}");
    let finished = case.bare().arg("ps").finish();
    let table = finished.ok();
    assert!(table.starts_with("PID ") && !table.contains('\x1b'), "{table:?}");
    let line = table.lines().find(|line| line.contains(&name(&case))).unwrap();
    assert!(line.starts_with(&run.pid().to_string()) && line.contains(" 0:0 ") && line.contains("?[2J"), "{line:?}");
    drop(run);
    assert!(listed(&case).is_empty());
}

#[test]
fn a_workload_cannot_pass_for_a_supervisor() {
    let case = Case::new();
    let binds = ["/lib", "/lib64", "/usr/lib"].into_iter().filter(|p| std::path::Path::new(p).is_dir());
    let binds: Vec<_> = binds.map(|lib| format!("-v{lib}:{lib}:ro")).collect();
    let (image, own) =
        (format!("-v{}:/inner", case.image.path().display()), format!("-v{}:/gpurun", program().display()));
    let inner = format!("/gpurun --name {} --network none dir:/inner sh -c 'echo up; sleep 1000'", name(&case));
    for pid in ["private", "host"] {
        let options: Vec<_> = binds.iter().map(String::as_str).chain([&*image, &*own, "--pid", pid]).collect();
        let mut run = case.gpurun(&options, &["sh", "-c", &inner]).start();
        run.until("up");
        // It is a real run, with a real label, but one inside.
        assert!(listed(&case).is_empty());
        exec(&case, &[], &name(&case), "echo ran").refused(&["there is no run"]);
        let supervisor = run.pid().to_string();
        let inside = format!("/gpurun exec {} sh -c 'echo $GPURUN_NAME'", name(&case));
        assert_eq!(exec(&case, &[], &supervisor, &inside).ok().trim(), name(&case));
    }
}

/// As pam_namespace makes one for each session of a user, and Slurm's job_container for each job. Docker makes another for
/// PIDs or the root as well, and what runs in there could claim anything.
#[test]
fn a_run_in_another_mount_namespace_of_the_same_user_namespace_is_found() {
    let case = Case::new();
    let found = format!("in {}\n", name(&case));
    let root = r#"set -e; mount -t tmpfs x /mnt; for d in /*; do if test -L $d; then cp -P $d /mnt; elif test -d $d; then
                  mkdir /mnt$d; test $d = /mnt || mount --rbind $d /mnt$d; fi; done; cd /mnt; /sbin/pivot_root . mnt; exec "$@""#;
    for (around, exec, listed) in [
        ("unshare -m", &*found, true),
        ("unshare -mpf --mount-proc --kill-child", "", false),
        (&format!("unshare -m sh -c '{root}' x"), "", false),
    ] {
        let script = format!(
            r#"mkfifo up; {around} "$G" --name "$N" "$I" sh -c 'echo up; sleep 1000' >up & read x <up || exit 99
               "$G" ps --json; "$G" exec "$N" sh -c 'echo in $GPURUN_NAME'; kill -9 $!; wait; rm up"#
        );
        let mut command = std::process::Command::new("unshare");
        case.surround(command.args(["-Urm", "sh", "-c", &script]));
        let finished = command.env("G", program()).env("I", case.reference()).env("N", name(&case)).finish();
        assert_eq!(finished.status, 0, "{finished:?}");
        assert_eq!(finished.stdout.contains(&format!("\"name\": \"{}\"", name(&case))), listed, "{finished:?}");
        assert!(finished.stdout.ends_with(exec), "{finished:?}");
        assert_eq!(finished.stderr.contains("there is no run"), !listed, "{finished:?}");
    }
}

/// PID 1 cannot be looked into, so /proc may hide it from its own user.
#[test]
fn runs_are_found_where_proc_hides_pid_1() {
    let case = Case::new();
    let inner = r#"mkfifo up; "$G" --name "$N" "$I" sh -c 'echo up; sleep 1000' >up & read x <up
                   "$G" exec "$N" echo in; "$G" exec "$(pgrep -n sleep)" echo in; kill -9 $!; wait; rm up"#;
    let outer = r#"mount -t proc -o hidepid=2 proc /proc
                   exec setpriv --inh-caps=-all sh -c "$S""#;
    let mut command = std::process::Command::new("unshare");
    case.surround(command.args(["-Umpf", "--map-current-user", "--keep-caps", "--kill-child", "sh", "-c", outer]));
    command.env("G", program()).env("I", case.reference()).env("N", name(&case)).env("S", inner);
    assert_eq!(command.finish().stdout, "in\nin\n");
}

#[test]
fn nothing_of_the_caller_is_seen_from_inside() {
    let case = Case::new();
    let spy = "while :; do for p in /proc/[0-9]*; do cat $p/environ $p/maps; ls -l $p/fd $p/exe $p/cwd; done >>/out/seen 2>/dev/null; done & :";
    for pid in ["private", "host"] {
        let out = format!("{}:/out", case.path("work").display());
        let _run = running(&case, &["--name", &name(&case), "--pid", pid, "-v", &out], spy);
        for _ in 0..10 {
            let mut command = case.bare();
            command.args(["exec", &name(&case), "true"]).env("SECRET", "s3cret-of-the-caller");
            command.finish().ok();
        }
        let seen = std::fs::read(case.path("work/seen")).unwrap();
        let seen = String::from_utf8_lossy(&seen);
        assert!(seen.contains("PATH="), "the workload looks, and sees its own");
        for secret in ["s3cret", "gpurun\n", "/gpurun "] {
            assert!(!seen.contains(secret), "{secret}");
        }
    }
}

#[test]
fn no_descriptor_but_those_handed_down() {
    let case = Case::new();
    let _run = running(&case, &["--name", &name(&case)], ":");
    let script = "for fd in /proc/$$/fd/*; do echo ${fd##*/}; done";
    let mut without = std::process::Command::new("/bin/busybox");
    assert_eq!(exec(&case, &[], &name(&case), script).ok(), without.args(["sh", "-c", script]).finish().ok());
    let file = case.file("handed", "down\n");
    let mut command = std::process::Command::new("bash");
    command.args([
        "-c",
        r#"exec 7<"$1" 9<. ; exec "$2" exec "$3" sh -c 'cat <&7; test -e /proc/$$/fd/9 || echo none'"#,
        "x",
    ]);
    case.surround(command.arg(file).arg(program()).arg(name(&case)));
    assert_eq!(command.finish().stdout, "down\nnone\n");
}

#[test]
fn a_terminal_is_the_containers_whatever_the_workload_does() {
    let case = Case::new();
    let trap = "rm /dev/ptmx && mkfifo /dev/ptmx && rm /dev/tty; mv /dev/pts /dev/x; umount /dev/pts; ln -sf /none /dev/pts/ptmx";
    let _run = running(&case, &["--name", &name(&case)], &format!("{{ {trap}; }} 2>/dev/null"));
    let pty = &mut Pty::open();
    let mut command = case.bare();
    command.env("TERM", "odd").args(["exec", &name(&case), "sh", "-c"]);
    command.arg("tty; stty size; echo $TERM; trap 'echo INT; exit 4' INT; echo ready; while :; do sleep 0.05; done");
    let mut child = pty.command(&command).spawn().unwrap();
    pty.expect("/dev/pts/0\r\n24 80\r\nodd\r\nready\r\n");
    eventually("the terminal is raw", || pty.is_raw());
    pty.type_in("\x03").expect("INT");
    assert_eq!(status(child.wait().unwrap()), 4);
}

#[test]
fn a_workload_in_a_directory_that_is_gone_is_joined_in_another() {
    let case = Case::new();
    let _run = running(&case, &["--name", &name(&case)], "mkdir /gone; cd /gone; rmdir /gone");
    exec(&case, &[], &name(&case), ":").refused(&["the working directory", "No such file", "-w /"]);
    assert_eq!(exec(&case, &["-w", "/"], &name(&case), "pwd").ok(), "/\n");
}

#[test]
fn it_may_be_a_user_that_there_is() {
    let case = Case::new();
    case.image.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:5:6::/srv/app:/bin/sh\n");
    let run = running(&case, &["-u", "app"], "echo 'late:x:5:7::/:/bin/sh' >>/etc/passwd");
    let target = run.pid().to_string();
    for user in ["app", "5", "app:6"] {
        let shown = exec(&case, &["-u", user], &target, "id -u; id -g; echo $HOME");
        assert_eq!(shown.ok(), "5\n6\n/srv/app\n", "{user}");
    }
    for (user, words) in [
        ("0", ["user id 0 (--user) is none of those inside: 5", "--ids range"]),
        ("5:0", ["group id 0 (--user)", "--ids range"]),
        ("late", ["group id 7 (--user)", "--ids range"]),
        ("nobody", ["unknown user `nobody`", "/etc/passwd"]),
    ] {
        exec(&case, &["-u", user], &target, "echo ran").refused(&words);
    }
}
