//! gpurun: a standalone, rootless GPU container launcher.
//!
//! ```text
//! argv ─cli→ Request ─reference→ ImageRef ─registry|archive→ Image{digest, config, layers} ─store→ Rootfs
//! DriverRoot ─gpu→ Inventory ─select(Request, host env, device access)→ Injection
//! Request + Image.config + Rootfs + Injection + Host facts ─plan→ Plan ─launch→ ExitStatus
//! ```

pub mod archive;
pub mod builtin;
pub mod cli;
pub mod cmd;
pub mod error;
pub mod host;
pub mod image;
pub mod inroot;
pub mod launch;
pub mod layer;
pub mod manifest;
pub mod output;
pub mod plan;
pub mod progress;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod request;
pub mod source;
pub mod store;
pub mod sys;
