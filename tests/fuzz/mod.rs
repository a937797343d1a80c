//! Fuzz targets: functions of bytes that may refuse them, and never panic, hang, take memory without end or break what
//! the target asserts. They are unit tests, since much of what they drive is private.
//!
//! ```text
//! seeds/TARGET/* ─mutate→ bytes ─target→ nothing, or a failure: the bytes are kept and printed
//! ```
//!
//! `cargo test --lib fuzz` runs each for two seconds, in a child process of its own; `FUZZ_SECONDS` says how long.
//! `FUZZ_RNG` repeats a run, `FUZZ_INPUT=FILE` runs one input: with the name of a target it repeats a failure, whose
//! input then becomes one more seed. `tests/fuzz/run SECONDS [TARGET]` builds the same targets with coverage counters
//! (LLVM's SanitizerCoverage, which stable Rust has) and keeps what reaches new code: for long hunts.

#[cfg(fuzzing)]
mod coverage;
pub(crate) mod driver;
mod mutate;

mod documents;
mod gpu;
mod layers;
mod request;

/// Targets, each a unit test that the driver runs.
macro_rules! targets {
    ($($(#[$doc:meta])* fn $name:ident($bytes:ident) $body:block)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            fn target($bytes: &[u8]) $body
            $crate::fuzz::driver::run(concat!(module_path!(), "::", stringify!($name)), target);
        }
    )*};
}
pub(crate) use targets;

/// The input as text, as far as it is.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
