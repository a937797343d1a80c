//! The `gpurun` program: looks at what it inherits before anything else is open, then hands over to the verbs.
//!
//! C's `main` and not Rust's, whose start-up reads and parses /proc/self/maps to guard the main thread's stack: more than
//! half of what a start's own code takes.

#![no_main]
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

use gpurun::error::Result;
use gpurun::{cmd, launch, output};

// SAFETY: the one `main`, of the type that the C library calls. glibc gives `std::env::args_os` the arguments by itself.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    let status = start().unwrap_or_else(|error| {
        output::error(&error);
        error.exit_status()
    });
    status.into()
}

/// All that the program needs of libm.so.6, for the rate that indicatif shows: to load that library takes one start in fifty.
// SAFETY: of the type that C's has.
#[unsafe(no_mangle)]
extern "C" fn pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

fn start() -> Result<u8> {
    let inherited = launch::inherited()?;
    cmd::dispatch(inherited)
}
