//! Serializes bytes that need not be UTF-8 as the text that JSON wants. Pure.

use std::ffi::{OsStr, OsString};

/// One.
pub(crate) fn lossy<S: serde::Serializer>(text: impl AsRef<OsStr>, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.serialize_str(&text.as_ref().to_string_lossy())
}

/// Several.
pub(super) fn lossy_list<S: serde::Serializer>(list: &[OsString], s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_seq(list.iter().map(|text| text.to_string_lossy()))
}

/// Variables.
pub(super) fn lossy_pairs<S: serde::Serializer>(
    pairs: &[(OsString, OsString)],
    s: S,
) -> std::result::Result<S::Ok, S::Error> {
    s.collect_seq(pairs.iter().map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy())))
}
