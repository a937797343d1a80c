//! Links the program so that it starts fast: at a fixed address, so that nothing is relocated, which is a tenth of a start;
//! and with the unwinder in it, since libgcc_s.so asks the processor what it can, which a virtual machine takes long for.

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
