//! gpurun: a standalone, rootless GPU container launcher.
//!
//! ```text
//! argv ─cli→ Request ─reference→ ImageRef ─registry|archive→ Image{digest, config, layers} ─store→ Rootfs
//! DriverRoot ─gpu→ Inventory ─select(Request, host env, device access)→ Injection
//! Request ─cdi(specs)→ Devices, which complete the Injection
//! Request + Image.config + Rootfs + Injection + Devices + Host facts ─plan→ Plan ─launch→ ExitStatus
//! ```
//!
//! [`cmd`] ties it together: `cmd/run.rs` is this picture as code. What is asked for: [`cli`], [`config`], [`request`],
//! [`mod@reference`]. Where images come from: [`source`], which is one of [`registry`], [`archive`], [`builtin`], and
//! [`manifest`] for what they say. How an image becomes a tree: [`pull`], [`layer`], [`store`]. What the machine has:
//! [`host`], [`gpu`], [`cdi`]; what needs the driver's own libraries is a program of its own, in [`embedded`]. What is decided:
//! [`plan`], with [`seccomp`] for system calls. What is done: [`launch`]; what is running: [`runs`]. Everything that an image
//! names is found by [`inroot`], or in memory by [`layer::tree`]; [`output`] and [`progress`] are the only printers,
//! [`timings`] is what `--timings` prints, [`prompt`] the only one to ask; [`error`] is the one error; [`sys`] has the only
//! unsafe code, but for what main.rs has with C.
//!
//! Each module says what comes in, what goes out, and where it runs: *pure* is what has to do with values alone, and what
//! says nothing runs in the process that the caller started, before the launch makes anything.

pub mod archive;
pub mod builtin;
pub mod cdi;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod embedded;
pub mod error;
#[cfg(test)]
#[path = "../tests/fuzz/mod.rs"]
mod fuzz;
pub mod gpu;
pub mod host;
pub mod image;
pub mod inroot;
pub mod launch;
pub mod layer;
pub mod manifest;
pub mod output;
pub mod plan;
pub mod progress;
pub mod prompt;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod request;
pub mod runs;
pub mod seccomp;
pub mod source;
pub mod store;
pub mod sys;
pub mod timings;
