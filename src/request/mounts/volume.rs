//! `--volume`, as Docker writes it, and in lists, as Apptainer has them. In: its argument. Out: [`Wanted`]. Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::{CONSISTENCY, Wanted, absolute_source, refused};
use crate::error::{Error, Result};
use crate::host::Host;

/// A comma list of `SRC[:DST][:OPTIONS]`; a piece that is an option word belongs to the mount before it.
pub(super) fn parse_volumes(list: &OsStr, host: &Host) -> Result<Vec<Wanted>> {
    let mut specs: Vec<Vec<u8>> = Vec::new();
    for piece in split(list.as_bytes(), b',') {
        match specs.last_mut() {
            Some(last) if is_volume_option(piece) => {
                last.push(b',');
                last.extend_from_slice(piece);
            }
            _ => specs.push(piece.to_vec()),
        }
    }
    specs.iter().map(|spec| parse_volume(OsStr::from_bytes(spec), host)).collect()
}

fn is_volume_option(word: &[u8]) -> bool {
    let holds = [b"ro".as_slice(), b"rw", b"z", b"Z", b"rbind", b"rprivate", b"private"];
    holds.contains(&word) || CONSISTENCY.contains(&word) || refused(word).is_some()
}

fn parse_volume(spec: &OsStr, host: &Host) -> Result<Wanted> {
    let bad = |why: &str| Error::new(format!("`--volume {}`: {why}", spec.display()));
    let mut parts = split(spec.as_bytes(), b':');
    let options = match parts.last() {
        Some(last) if parts.len() > 1 && last.split(|&b| b == b',').all(is_volume_option) => parts.pop(),
        Some(last) if parts.len() > 2 => {
            let words = String::from_utf8_lossy(last).into_owned();
            return Err(bad(&format!("the option `{words}` is not known")).hint("options are ro and rw"));
        }
        _ => None,
    };
    let mut words = options.into_iter().flat_map(|o| o.split(|&b| b == b','));
    if let Some((word, why)) = words.find_map(|word| Some((word, refused(word)?))) {
        return Err(bad(&format!("`{}` cannot be had: {why}", String::from_utf8_lossy(word))));
    }
    let read_only = options.is_some_and(|o| o.split(|&b| b == b',').any(|w| w == b"ro"));
    let (source, target) = match parts[..] {
        [both] if !both.is_empty() => (both, both),
        [source, target] if !source.is_empty() && !target.is_empty() => (source, target),
        _ => return Err(bad("it is not SRC[:DST][:ro]")),
    };
    let source = absolute_source(&unescaped(source), host)?;
    let target = if parts.len() == 1 { source.clone() } else { unescaped(target).into() };
    Ok(Wanted::Bind { source, target, read_only, why: "--volume" })
}

/// Pieces between separators. A backslash before a separator makes it an ordinary character.
fn split(bytes: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut pieces, mut start) = (Vec::new(), 0);
    for at in 0..bytes.len() {
        if bytes[at] == separator && (at == 0 || bytes[at - 1] != b'\\') {
            pieces.push(&bytes[start..at]);
            start = at + 1;
        }
    }
    pieces.push(&bytes[start..]);
    pieces
}

/// A name without the backslashes that [`split`] has heeded.
fn unescaped(name: &[u8]) -> OsString {
    let mut plain = Vec::new();
    for &byte in name {
        if matches!(byte, b':' | b',') && plain.last() == Some(&b'\\') {
            plain.pop();
        }
        plain.push(byte);
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host::example()
    }

    fn bind(source: &str, target: &str, read_only: bool) -> Wanted {
        Wanted::Bind { source: source.into(), target: target.into(), read_only, why: "--volume" }
    }

    #[test]
    fn volumes_come_in_every_spelling() {
        for (text, want) in [
            ("/a:/b", vec![bind("/a", "/b", false)]),
            ("/a", vec![bind("/a", "/a", false)]),
            ("/a:ro", vec![bind("/a", "/a", true)]),
            ("/a:/b:ro,z,/c:/d", vec![bind("/a", "/b", true), bind("/c", "/d", false)]),
            (r"/a\:b\,c:/d\:e", vec![bind("/a:b,c", "/d:e", false)]),
            (r"/a\b\\c:/b", vec![bind(r"/a\b\\c", "/b", false)]),
            ("/a:/b:rprivate,Z,/c", vec![bind("/a", "/b", false), bind("/c", "/c", false)]),
            ("./x:/b", vec![bind("/work/./x", "/b", false)]),
            ("~/x:/b", vec![bind("/home/me/x", "/b", false)]),
        ] {
            assert_eq!(parse_volumes(OsStr::new(text), &host()).unwrap(), want, "{text}");
        }
        for text in ["data:/b", "", ":/b", "/a:", "/a:/b:rox", "/a:/b:/c:ro"] {
            assert!(parse_volumes(OsStr::new(text), &host()).is_err(), "{text}");
        }
    }
}
