//! Integration tests: the real program, run as an ordinary user on images that the tests make.
//!
//! `tests/run` is the command that runs them. The program is found through `GPURUN_BIN`, else where cargo built it.

mod archive;
mod completions;
mod environment;
mod explain;
mod fallbacks;
mod gpus;
mod harmless;
mod injection;
mod launch;
mod mounts;
mod refusals;
mod registry;
mod rootfs;
mod signals;
mod support;
mod terminal;
mod users;
