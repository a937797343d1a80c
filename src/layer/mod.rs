//! A layer: bytes → decoded tar → entries → changes → staged files and an index of what they become.

pub mod tar;
