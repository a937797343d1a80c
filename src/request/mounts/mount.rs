//! `--mount` and `--tmpfs`. In: their arguments. Out: [`Wanted`]. Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::super::quantities::parse_size;
use super::{CONSISTENCY, Wanted, absolute_source, refused};
use crate::error::{Error, Result};
use crate::host::Host;

/// What anyone may do in a tmpfs, if nothing else is said: as in /tmp.
const TMPFS_MODE: u32 = 0o1777;

/// The argument of `--mount`.
pub(super) fn parse_mount(text: &OsStr, host: &Host) -> Result<Wanted> {
    Spec::read(text)?.wanted(host)
}

/// What the fields of `--mount` say.
struct Spec<'a> {
    text: &'a OsStr,
    kind: OsString,
    source: Option<OsString>,
    target: Option<PathBuf>,
    read_only: bool,
    size: Option<u64>,
    mode: u32,
}

impl<'a> Spec<'a> {
    fn read(text: &'a OsStr) -> Result<Self> {
        let (kind, source, target) = ("bind".into(), None, None);
        let mut spec = Self { text, kind, source, target, read_only: false, size: None, mode: TMPFS_MODE };
        for field in fields(text.as_bytes()) {
            let at = field.iter().position(|&b| b == b'=').unwrap_or(field.len());
            let value = OsStr::from_bytes(field.get(at + 1..).unwrap_or_default());
            spec.set(&String::from_utf8_lossy(&field[..at]), value)?;
        }
        Ok(spec)
    }

    fn set(&mut self, key: &str, value: &OsStr) -> Result<()> {
        let text = value.to_string_lossy();
        match key {
            "type" => self.kind = value.into(),
            "source" | "src" => self.source = Some(value.into()),
            "target" | "dst" | "destination" => self.target = Some(value.into()),
            "readonly" | "ro" => self.read_only = matches!(&*text, "" | "true" | "1"),
            "bind-propagation" if matches!(&*text, "private" | "rprivate") => {}
            "consistency" if CONSISTENCY.contains(&value.as_bytes()) => {}
            "bind-propagation" | "bind-recursive" | "bind-nonrecursive" | "consistency" => {
                let why = refused(value.as_bytes()).unwrap_or("what is mounted below comes along, read-only with it");
                return Err(self.bad(&format!("`{key}={text}` cannot be had: {why}")));
            }
            "tmpfs-size" => self.size = Some(parse_size(&text)?),
            "tmpfs-mode" => self.mode = parse_mode(&text)?,
            _ => return Err(self.bad(&format!("the key `{key}` is not known"))),
        }
        Ok(())
    }

    fn wanted(self, host: &Host) -> Result<Wanted> {
        let (read_only, size, mode) = (self.read_only, self.size, self.mode);
        let target = self.target.clone().ok_or_else(|| self.bad("it has no target"))?;
        match (self.kind.to_str(), &self.source) {
            (Some("bind"), Some(source)) => {
                Ok(Wanted::Bind { source: absolute_source(source, host)?, target, read_only, why: "--mount" })
            }
            (Some("bind"), None) => Err(self.bad("it has no source")),
            (Some("tmpfs"), None) => Ok(Wanted::Tmpfs { target, size, mode }),
            _ => Err(self.bad("the type is not bind or tmpfs")),
        }
    }

    fn bad(&self, why: &str) -> Error {
        Error::new(format!("`--mount {}`: {why}", self.text.display()))
    }
}

/// `key=value` fields separated by commas; a field in double quotes may hold commas (Docker reads it as CSV).
pub(crate) fn fields(spec: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut quoted) = (vec![Vec::new()], false);
    for &byte in spec {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => all.push(Vec::new()),
            other => all.last_mut().expect("starts with one").push(other),
        }
    }
    all
}

/// `DST[:size=…,mode=…]`; mount flags that hold anyway are accepted.
pub(super) fn parse_tmpfs(spec: &OsStr) -> Result<Wanted> {
    let bytes = spec.as_bytes();
    let at = bytes.iter().position(|&b| b == b':').unwrap_or(bytes.len());
    let (mut size, mut mode) = (None, TMPFS_MODE);
    for word in bytes.get(at + 1..).unwrap_or_default().split(|&b| b == b',').filter(|w| !w.is_empty()) {
        let word = String::from_utf8_lossy(word);
        match word.split_once('=') {
            Some(("size", value)) => size = Some(parse_size(value)?),
            Some(("mode", value)) => mode = parse_mode(value)?,
            None if matches!(&*word, "rw" | "nosuid" | "nodev" | "exec") => {}
            _ => return Err(Error::new(format!("`--tmpfs {}`: `{word}` is not size= or mode=", spec.display()))),
        }
    }
    Ok(Wanted::Tmpfs { target: OsStr::from_bytes(&bytes[..at]).into(), size, mode })
}

/// Permission bits, in octal.
pub(crate) fn parse_mode(text: &str) -> Result<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777);
    mode.ok_or_else(|| Error::new(format!("`{text}` is not a mode in octal")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_csv() {
        let parse = |text: &str| parse_mount(OsStr::new(text), &Host::example());
        let bind = |source: &str, target: &str, read_only| {
            let (source, target) = (source.into(), target.into());
            Wanted::Bind { source, target, read_only, why: "--mount" }
        };
        assert_eq!(parse("type=bind,src=/a,dst=/b,readonly").unwrap(), bind("/a", "/b", true));
        assert_eq!(parse("\"source=/a,b\",target=/c").unwrap(), bind("/a,b", "/c", false));
        let tmpfs = Wanted::Tmpfs { target: "/t".into(), size: Some(1 << 20), mode: 0o700 };
        assert_eq!(parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700").unwrap(), tmpfs);
        for text in ["type=volume,source=x,target=/b", "target=/b", "source=/a", "source=/a,target=/b,x=1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
