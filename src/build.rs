//! Builds the driver's program, which gpurun carries (`src/driver`), and links gpurun itself so that it starts fast: at a fixed
//! address, so that nothing is relocated; with glibc, with the unwinder in it, since libgcc_s.so asks the processor what
//! it can, which a virtual machine takes long for.

use std::env::{var, var_os};
use std::path::PathBuf;
use std::process::Command;

/// What is said of gpurun's own build, and would be taken for the program's.
const OURS: &[&str] =
    &["CARGO_BUILD_RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_LINKER", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"];

fn main() {
    for input in ["src/build.rs", "src/driver", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={input}");
    }
    println!("cargo::rustc-env=GPURUN_DRIVER_PROGRAM={}", driver().display());
    if var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// The program, for the same machine and with glibc, whatever gpurun itself is linked with.
fn driver() -> PathBuf {
    let target = format!("{}-unknown-linux-gnu", var("CARGO_CFG_TARGET_ARCH").expect("Cargo says for which machine"));
    let dir = PathBuf::from(var_os("OUT_DIR").expect("Cargo says where to")).join("driver");
    let mut cargo = Command::new(var_os("CARGO").expect("Cargo says where it is"));
    cargo.args(["build", "--release", "--locked", "--package", "gpurun-driver", "--features", "program"]);
    cargo.args(["--target", &target, "--target-dir"]).arg(&dir);
    cargo.env("CARGO_BUILD_BUILD_DIR", &dir); // in one that both had, each would wait for the other
    for name in OURS {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("Cargo can be executed");
    assert!(status.success(), "cargo build --package gpurun-driver --target {target}: {status}");
    dir.join(target).join("release/gpurun-driver")
}
