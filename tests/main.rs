//! The integration tests, in one binary.

mod archive;
mod registry;
