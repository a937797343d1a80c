//! The mounts a user wants: `-v`, `--mount`, `--tmpfs`, `--home` and `--here`.
//!
//! In: the options, and the caller's directories. Out: [`Wanted`] values, parents before what is below them. Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::quantities::parse_size;
use crate::cli::RunArgs;
use crate::error::{Context, Error, Result};
use crate::host::Host;

/// Targets that gpurun itself fills: what is mounted there must be what the workload expects of them.
const RESERVED: &[&str] = &[
    "/",
    "/dev",
    "/sys",
    "/dev/pts",
    "/dev/ptmx",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/fd",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
];

/// One mount the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path inside.
        target: PathBuf,
        /// Whether nothing below it can be written.
        read_only: bool,
        /// The option that asked for it.
        why: &'static str,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Absolute path inside.
        target: PathBuf,
        /// Size in bytes; half of the memory if not given.
        size: Option<u64>,
        /// Permission bits.
        mode: u32,
    },
}

impl Wanted {
    /// Where it is mounted.
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// The current directory, which the option `why` needs.
pub(super) fn current_dir(host: &Host, why: &str) -> Result<PathBuf> {
    host.cwd.clone().context(|| format!("{why} needs a current directory, and this one was deleted or is unreadable"))
}

/// All of them.
pub(super) fn wanted(args: &RunArgs, host: &Host) -> Result<Vec<Wanted>> {
    let mut all = Vec::new();
    if args.home {
        let home = host.home.clone().context(|| "--home needs a home directory, and none is known: set $HOME")?;
        all.push(Wanted::Bind { source: home.clone(), target: home, read_only: false, why: "--home" });
    }
    if args.here {
        let cwd = current_dir(host, "--here")?;
        all.push(Wanted::Bind { source: cwd.clone(), target: cwd, read_only: false, why: "--here" });
    }
    for list in &args.volume {
        all.extend(parse_volumes(list, host)?);
    }
    for spec in &args.mount {
        all.push(parse_mount(spec, host)?);
    }
    for spec in &args.tmpfs {
        all.push(parse_tmpfs(spec)?);
    }
    for mount in &all {
        check_target(mount.target())?;
    }
    all.sort_by_key(|m| m.target().components().count());
    Ok(all)
}

/// Refuses a place where nothing can be mounted.
pub(crate) fn check_target(target: &Path) -> Result<()> {
    let shown = target.display();
    if !target.is_absolute() {
        return Err(Error::new(format!("the mount target `{shown}` is not an absolute path"))
            .hint(format!("did you mean `/{shown}`?")));
    }
    if target.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(Error::new(format!("the mount target `{shown}` has `..` in it")));
    }
    let plain: PathBuf = target.components().collect();
    if plain.starts_with("/proc") || RESERVED.iter().any(|r| plain == Path::new(r)) {
        return Err(Error::new(format!("`{shown}` cannot be mounted over: gpurun fills it itself"))
            .hint("choose another target"));
    }
    Ok(())
}

/// A comma list of `SRC[:DST][:OPTIONS]`; a piece that is an option word belongs to the mount before it.
fn parse_volumes(list: &OsStr, host: &Host) -> Result<Vec<Wanted>> {
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

/// What Docker takes for macOS' sake and means nothing on Linux.
const CONSISTENCY: [&[u8]; 3] = [b"consistent", b"cached", b"delegated"];

/// Why an option that Docker or Podman has cannot be honoured.
fn refused(word: &[u8]) -> Option<&'static str> {
    Some(match word {
        b"shared" | b"rshared" => "what an ordinary user mounts inside cannot appear outside",
        b"slave" | b"rslave" => "what is mounted outside later does not appear inside: everything there now does",
        b"bind" => "what is mounted below a bind always comes along",
        b"U" => "an ordinary user cannot give files away: they are the caller's inside as well",
        b"O" => "there are no overlays of single directories: `--overlay` keeps what is written to the image",
        b"copy" | b"nocopy" => "there are no named volumes that anything could be copied to",
        _ => return None,
    })
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

/// A source that is spelled like a path; a bare word is a named volume to Docker, which there are none of here.
fn absolute_source(source: &OsStr, host: &Host) -> Result<PathBuf> {
    let path = Path::new(source);
    if path.is_absolute() {
        return Ok(path.into());
    }
    if let Ok(below) = path.strip_prefix("~") {
        let home = host.home.as_ref().context(|| "`~` needs a home directory, and none is known: set $HOME")?;
        return Ok(home.join(below));
    }
    if source.as_bytes().starts_with(b".") {
        return Ok(current_dir(host, "a relative bind source")?.join(path));
    }
    Err(Error::new(format!("the bind source `{}` is not a path, and there are no named volumes", path.display()))
        .hint(format!("did you mean `./{}`?", path.display())))
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

fn parse_mount(spec: &OsStr, host: &Host) -> Result<Wanted> {
    let bad = |why: String| Error::new(format!("`--mount {}`: {why}", spec.display()));
    let (mut kind, mut source, mut target) = (OsString::from("bind"), None, None);
    let (mut read_only, mut size, mut mode) = (false, None, 0o1777);
    for field in fields(spec.as_bytes()) {
        let at = field.iter().position(|&b| b == b'=').unwrap_or(field.len());
        let key = String::from_utf8_lossy(&field[..at]).into_owned();
        let value = OsStr::from_bytes(field.get(at + 1..).unwrap_or_default()).to_owned();
        let text = value.to_string_lossy();
        match key.as_str() {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "dst" | "destination" => target = Some(PathBuf::from(value)),
            "readonly" | "ro" => read_only = matches!(&*text, "" | "true" | "1"),
            "bind-propagation" if matches!(&*text, "private" | "rprivate") => {}
            "consistency" if CONSISTENCY.contains(&text.as_bytes()) => {}
            "bind-propagation" | "bind-recursive" | "bind-nonrecursive" | "consistency" => {
                let why = refused(text.as_bytes()).unwrap_or("what is mounted below comes along, read-only with it");
                return Err(bad(format!("`{key}={text}` cannot be had: {why}")));
            }
            "tmpfs-size" => size = Some(parse_size(&text)?),
            "tmpfs-mode" => mode = parse_mode(&text)?,
            _ => return Err(bad(format!("the key `{key}` is not known"))),
        }
    }
    let target = target.ok_or_else(|| bad("it has no target".into()))?;
    match (kind.to_str(), source) {
        (Some("bind"), Some(source)) => {
            Ok(Wanted::Bind { source: absolute_source(&source, host)?, target, read_only, why: "--mount" })
        }
        (Some("bind"), None) => Err(bad("it has no source".into())),
        (Some("tmpfs"), None) => Ok(Wanted::Tmpfs { target, size, mode }),
        _ => Err(bad("the type is not bind or tmpfs".into())),
    }
}

/// `DST[:size=…,mode=…]`; mount flags that hold anyway are accepted.
fn parse_tmpfs(spec: &OsStr) -> Result<Wanted> {
    let bytes = spec.as_bytes();
    let at = bytes.iter().position(|&b| b == b':').unwrap_or(bytes.len());
    let (mut size, mut mode) = (None, 0o1777);
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

    fn host() -> Host {
        Host::example()
    }

    fn bind(source: &str, target: &str, read_only: bool, why: &'static str) -> Wanted {
        Wanted::Bind { source: source.into(), target: target.into(), read_only, why }
    }

    #[test]
    fn volumes_come_in_every_spelling() {
        for (text, want) in [
            ("/a:/b", vec![bind("/a", "/b", false, "--volume")]),
            ("/a", vec![bind("/a", "/a", false, "--volume")]),
            ("/a:ro", vec![bind("/a", "/a", true, "--volume")]),
            ("/a:/b:ro,z,/c:/d", vec![bind("/a", "/b", true, "--volume"), bind("/c", "/d", false, "--volume")]),
            (r"/a\:b\,c:/d\:e", vec![bind("/a:b,c", "/d:e", false, "--volume")]),
            (r"/a\b\\c:/b", vec![bind(r"/a\b\\c", "/b", false, "--volume")]),
            ("/a:/b:rprivate,Z,/c", vec![bind("/a", "/b", false, "--volume"), bind("/c", "/c", false, "--volume")]),
            ("./x:/b", vec![bind("/work/./x", "/b", false, "--volume")]),
            ("~/x:/b", vec![bind("/home/me/x", "/b", false, "--volume")]),
        ] {
            assert_eq!(parse_volumes(OsStr::new(text), &host()).unwrap(), want, "{text}");
        }
        for text in ["data:/b", "", ":/b", "/a:", "/a:/b:rox", "/a:/b:/c:ro"] {
            assert!(parse_volumes(OsStr::new(text), &host()).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_are_read_as_csv() {
        let parse = |text: &str| parse_mount(OsStr::new(text), &host());
        assert_eq!(parse("type=bind,src=/a,dst=/b,readonly").unwrap(), bind("/a", "/b", true, "--mount"));
        assert_eq!(parse("\"source=/a,b\",target=/c").unwrap(), bind("/a,b", "/c", false, "--mount"));
        let tmpfs = Wanted::Tmpfs { target: "/t".into(), size: Some(1 << 20), mode: 0o700 };
        assert_eq!(parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700").unwrap(), tmpfs);
        for text in ["type=volume,source=x,target=/b", "target=/b", "source=/a", "source=/a,target=/b,x=1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn targets_are_absolute_and_not_gpuruns_own() {
        for target in ["b", "/a/../b", "/", "/dev", "/proc/", "/proc/x", "//sys", ""] {
            assert!(check_target(Path::new(target)).is_err(), "{target}");
        }
        for target in ["/b", "/dev/x", "/proc2", "/sys/x"] {
            assert!(check_target(Path::new(target)).is_ok(), "{target}");
        }
    }
}
