//! Integration tests: the real program, run as an ordinary user on images that the tests make.
//!
//! `tests/run` is the command that runs them. The program is found through `GPURUN_BIN`, else where cargo built it.

mod archive;
mod cdi;
mod completions;
mod config;
mod credentials;
mod degraded;
mod downgrade;
mod environment;
mod escapes;
mod exec;
mod explain;
mod failures;
mod fallbacks;
mod gpus;
mod harmless;
mod images;
mod images_config;
mod images_refused;
mod injection;
mod injection_hostile;
mod injection_real;
mod ladder;
mod launch;
mod login;
mod mirrors;
mod model;
mod mounts;
mod nvml;
mod overlay;
mod protected;
mod prune;
mod real_registry;
mod refusals;
mod registry;
mod resume;
mod rootfs;
mod signals;
mod store;
mod support;
mod surroundings;
mod terminal;
mod tight;
mod users;
mod writers;
