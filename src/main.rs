//! The `gpurun` program: looks at what it inherits before anything else is open, then hands over to the verbs.
//!
//! C's `main` and not Rust's, whose start-up reads and parses /proc/self/maps to guard the main thread's stack: more than
//! half of what a start's own code takes.

#![no_main]
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use gpurun::cmd::{self, Call};
use gpurun::error::Result;
use gpurun::{launch, output};

#[cfg(target_env = "musl")]
#[global_allocator]
static HEAP: gpurun::sys::heap::Heap = gpurun::sys::heap::Heap::new();

// SAFETY: the one `main`, of the type that the C library calls.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    let argument = |at| {
        // SAFETY: the C library hands over `count` C strings, which stay where they are.
        let argument = unsafe { CStr::from_ptr(*arguments.add(at)) };
        OsStr::from_bytes(argument.to_bytes()).to_owned()
    };
    let argv = (0..usize::try_from(count).unwrap_or_default()).map(argument).collect();
    let status = start(argv).unwrap_or_else(|error| {
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

fn start(argv: Vec<OsString>) -> Result<u8> {
    let start = Instant::now();
    let inherited = launch::inherited()?;
    cmd::dispatch(&Call { argv, inherited, start })
}
