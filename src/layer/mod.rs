//! A layer: bytes → decoded tar → entries → changes, with the files themselves staged on disk.
//!
//! ```text
//! blob ─decode→ tar bytes ─tar→ Entry ─change→ Change ┐
//!                                   └─stage→ files/N  ┴→ Index      [Index] ─tree→ Tree ─→ one rootfs
//! ```
//!
//! [`unpack`] does the first line for one layer, whatever the other layers are: all layers of an image run at once.
//! [`tree`] then decides, in memory, what the layers make together; nothing that an image names is ever resolved by
//! the kernel. Runs before the launch, in threads.

pub mod change;
pub mod counted;
pub(crate) mod decode;
mod pipe;
pub(crate) mod stage;
pub mod tar;
pub mod tree;
pub mod unpack;
