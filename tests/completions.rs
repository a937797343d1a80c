//! What `completions/` holds is what the program prints. `UPDATE_COMPLETIONS=1 cargo test they_are_current` writes it anew.

use std::path::Path;
use std::process::Command;

use crate::support::program;

/// File, what it holds (read when the tests were built: the ordinary user may not reach it), and what prints it.
const GENERATED: &[(&str, &str, &[&str])] = &[
    ("gpurun.bash", include_str!("../completions/gpurun.bash"), &["completions", "bash"]),
    ("_gpurun", include_str!("../completions/_gpurun"), &["completions", "zsh"]),
    ("gpurun.fish", include_str!("../completions/gpurun.fish"), &["completions", "fish"]),
    ("gpurun.1", include_str!("../completions/gpurun.1"), &["man"]),
];

#[test]
fn they_are_current() {
    for (file, kept, args) in GENERATED {
        let printed = Command::new(program()).args(*args).output().expect("run gpurun");
        assert!(printed.status.success(), "{printed:?}");
        if std::env::var_os("UPDATE_COMPLETIONS").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(file);
            std::fs::write(path, &printed.stdout).expect("write it");
        } else {
            assert!(*kept == String::from_utf8_lossy(&printed.stdout), "completions/{file} is old");
        }
    }
}
