//! The configuration file and variables: what a run makes of them, and what it says of mistakes in them.

use crate::support::{Case, Finish, text};

const FILE: &str = "home/.config/gpurun/config.toml";

#[test]
fn a_file_gives_what_the_command_line_leaves_open() {
    let case = Case::new();
    case.file(FILE, "env = ['A=file', 'B=${USER}']\nroot = true\n[profile.small]\nenv = ['A=profile']\n");
    let script = "echo $A $B $(id -u)";
    assert_eq!(case.sh(&[], script).ok(), "file tester 0\n");
    assert_eq!(case.sh(&["--profile", "small"], script).ok(), "profile 0\n");
    assert_eq!(case.sh(&["-e", "A=flag"], script).ok(), "flag 0\n", "a flag's list takes the place of the file's");
    let uid = nix::unistd::getuid();
    let user = format!("-u{uid}");
    assert_eq!(case.sh(&[&user], script).ok(), format!("file tester {uid}\n"));
    let mut run = case.gpurun(&[], &["sh", "-c", script]);
    run.env("GPURUN_ENV", "A=first\nB=two words\n").env("GPURUN_ROOT", "false");
    assert_eq!(run.finish().ok(), format!("first two words {uid}\n"), "a variable has a value a line");
    let mut elsewhere = case.gpurun(&[], &["sh", "-c", script]);
    assert_eq!(elsewhere.env("XDG_CONFIG_HOME", case.path("none")).finish().ok(), format!("{uid}\n"));
}

#[test]
fn a_profile_counts_for_every_verb_that_has_options_of_its_own() {
    let case = Case::new();
    case.file(FILE, "[profile.p]\ndriver-root = '/no/driver'\n");
    for verb in [&["gpus"][..], &["cdi", "generate"]] {
        let mut flag = case.bare();
        flag.args(verb).args(["--profile", "p"]).finish().refused(&["/no/driver"]);
        let mut variable = case.bare();
        variable.args(verb).env("GPURUN_PROFILE", "p").finish().refused(&["/no/driver"]);
    }
    let mut login = case.bare();
    login.args(["login", "--profile", "none"]).finish().refused(&["there is no profile `none`"]);
}

#[test]
fn a_variable_turns_a_flag_on_and_off_by_any_of_its_words() {
    let case = Case::new();
    case.file(FILE, "read-only = true\n");
    for (value, works) in
        [("1", false), ("yes", false), ("TRUE", false), ("on", false), ("0", true), ("no", true), ("false", true)]
    {
        let mut run = case.gpurun(&[], &["sh", "-c", "echo x >/file"]);
        let finished = run.env("GPURUN_READ_ONLY", value).finish();
        assert_eq!(finished.status == 0, works, "{value}: {finished:?}");
        assert!(works || finished.stderr.contains("Read-only file system"), "{value}: {finished:?}");
    }
    let mut run = case.gpurun(&[], &["true"]);
    run.env("GPURUN_READ_ONLY", "perhaps").finish().refused(&["invalid value 'perhaps' for '--read-only'"]);
}

#[test]
fn explain_says_who_gave_what() {
    let case = Case::new();
    let file = case.file(FILE, "hostname = 'h'\n[profile.p]\nroot = true\n");
    let mut explain = case.bare();
    explain.args(["explain", "--profile=p"]).arg(case.reference()).arg("true").env("GPURUN_READ_ONLY", "true");
    let said = explain.finish().ok().to_owned();
    let path = text(&file);
    for want in [
        format!("hostname = h  (`{path}` line 1)"),
        format!("root = true  (`{path}` line 3 (profile `p`))"),
        "read-only = true  ($GPURUN_READ_ONLY)".into(),
    ] {
        assert!(said.contains(&want), "{want}: {said}");
    }
}

#[test]
fn a_file_with_mistakes_is_refused_with_its_line() {
    let case = Case::new();
    for (content, want) in [
        ("gpus = 'none'\nvolumes = ['/x']\n", "config.toml` line 2: there is no key `volumes`"),
        ("gpus = \n", "config.toml`: line 1: "),
        ("pull = 'often'\n", "config.toml` line 1: invalid value 'often' for '--pull <WHEN>'"),
        ("[registry.'h:1']\nmirror = 'x'\n", "config.toml`: line 2: unknown field `mirror`"),
    ] {
        case.file(FILE, content);
        case.sh(&[], "echo ran").refused(&[want]);
    }
    case.bare().arg("--help").finish().ok();
    std::fs::remove_file(case.path(FILE)).unwrap();
    std::fs::create_dir(case.path(FILE)).unwrap();
    case.sh(&[], "echo ran").refused(&["read the configuration file `", "Is a directory"]);
}
