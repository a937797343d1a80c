//! The plan can be asked for, is what happens, and starts nothing.

use serde_json::Value;

use crate::support::{Case, Finish, text};

const OPTIONS: &[&str] =
    &["-e", "A=b", "-w", "/made", "--root", "--hostname", "inside", "--tmpfs", "/t:size=1m", "--network", "none"];

fn verb(case: &Case, verb: &[&str], options: &[&str], argv: &[&str]) -> String {
    let mut command = case.bare();
    command.args(verb).args(options).arg(case.reference()).args(argv);
    command.finish().ok().to_owned()
}

#[test]
fn nothing_is_started() {
    let case = Case::new();
    let option = format!("{}:/w", text(&case.path("work")));
    for what in [&["explain"][..], &["explain", "--json"], &["spec"], &["run", "--dry-run"], &["--dry-run"]] {
        let shown = verb(&case, what, &["-v", &option], &["touch", "/w/ran"]);
        assert!(shown.contains("/w/ran"), "{shown}");
        assert!(!case.path("work/ran").exists());
    }
}

#[test]
fn each_line_says_why() {
    let case = Case::new();
    let shown = verb(&case, &["explain"], OPTIONS, &["echo", "it's"]);
    for want in [
        "(--root)",
        "hostname: inside",
        "/t = tmpfs of 1048576 bytes  (--tmpfs)",
        "network  (--network none)",
        "command: echo 'it'\\''s'",
        "directory: /made",
        "A=b",
        "terminal: none",
    ] {
        assert!(shown.contains(want), "no `{want}` in {shown}");
    }
    assert_eq!(verb(&case, &["run", "--dry-run"], OPTIONS, &["echo", "it's"]), shown);
}

#[test]
fn the_json_agrees_with_the_run() {
    let case = Case::new();
    let json: Value = serde_json::from_str(&verb(&case, &["explain", "--json"], OPTIONS, &["sh"])).unwrap();
    let run = case.sh(OPTIONS, "env; echo; pwd; id -u; awk '{print $2}' /proc/mounts");
    let (env, rest) = run.ok().split_once("\n\n").unwrap();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let mut planned = list(&json["process"]["env"]);
    let mut seen: Vec<_> =
        env.lines().filter(|l| !l.starts_with("PWD=") && !l.starts_with("SHLVL=")).map(str::to_owned).collect();
    planned.sort();
    seen.sort();
    assert_eq!(planned, seen);
    let mut lines = rest.lines();
    assert_eq!((lines.next(), lines.next()), (json["process"]["cwd"].as_str(), Some("0")));
    let mounts: Vec<_> = lines.collect();
    for mount in json["mounts"].as_array().unwrap() {
        assert!(mounts.contains(&mount["target"].as_str().unwrap()), "{mount} in {mounts:?}");
    }
    assert_eq!(list(&json["process"]["argv"]), ["sh"]);
}

#[test]
fn the_spec_is_one_that_a_runtime_takes() {
    let case = Case::new();
    let spec: Value = serde_json::from_str(&verb(&case, &["spec"], OPTIONS, &["echo", "x"])).unwrap();
    assert_eq!(spec["process"]["args"], serde_json::json!(["echo", "x"]));
    assert_eq!((&spec["process"]["cwd"], &spec["hostname"]), (&"/made".into(), &"inside".into()));
    assert_eq!(spec["linux"]["uidMappings"][0]["containerID"], 0);
    assert_eq!(spec["linux"]["resources"], Value::Null);
    let kinds: Vec<_> =
        spec["linux"]["namespaces"].as_array().unwrap().iter().map(|n| n["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["user", "mount", "pid", "uts", "network"]);
}

#[test]
fn a_plan_that_cannot_be_made_is_refused_the_same_way() {
    let case = Case::new();
    for what in [&["explain"][..], &["spec"], &["run"], &["run", "--dry-run"]] {
        let mut command = case.bare();
        command.args(what).args(["-v", "/no/such:/x"]).arg(case.reference()).arg("true");
        command.finish().refused(&["/no/such"]);
    }
}
