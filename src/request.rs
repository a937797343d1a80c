//! What a run asks for: the options of the command line, each parsed into a value.
//!
//! In: [`RunArgs`] and the caller's directories. Out: [`Request`], which plan decides by. Only `--env-file` is read from
//! disk here; whether a bind's source exists is looked at by [`Request::check_sources`], before anything starts.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cli::{EnvPolicy, Network, Pid, RunArgs};
use crate::error::{Context, Error, Result};
use crate::gpu::classify::Capabilities;
use crate::gpu::compat;
use crate::gpu::select::{self, Asked};
use crate::host::Host;
use crate::plan::env::{self, Rule};

/// The largest env file that is read.
const MAX_ENV_FILE: u64 = 16 << 20;

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

/// All options of one run.
#[derive(Clone, Debug)]
pub struct Request {
    /// The user's mounts, parents before what is below them.
    pub mounts: Vec<Wanted>,
    /// `--env-file`, then `-e`.
    pub env: Vec<Rule>,
    /// What of the caller's environment passes.
    pub env_policy: EnvPolicy,
    /// `-w`, or the current directory with `--here`.
    pub workdir: Option<PathBuf>,
    /// `-u`
    pub user: Option<String>,
    /// `--root`
    pub root: bool,
    /// `--stop-signal`
    pub stop_signal: Option<String>,
    /// `--gpus`, else what the host's environment asks for.
    pub gpus: Asked,
    /// `--gpu-caps`
    pub gpu_caps: Option<Capabilities>,
    /// `--driver-root`
    pub driver_root: Option<PathBuf>,
    /// `--cuda-compat`
    pub cuda_compat: compat::Mode,
    /// Not `--no-require`
    pub require: bool,
    /// `--entrypoint`; empty to remove the image's.
    pub entrypoint: Option<OsString>,
    /// Command and arguments.
    pub command: Vec<OsString>,
    /// `--read-only`
    pub read_only: bool,
    /// `--hostname`
    pub hostname: Option<String>,
    /// `--name`
    pub name: Option<String>,
    /// `--network`
    pub network: Network,
    /// `--pid`
    pub pid: Pid,
    /// `--shm-size`, in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`
    pub limits: Vec<Limit>,
}

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

/// A resource limit (setrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Limit {
    /// Docker's name of it: `nofile`, `memlock`, …
    pub name: String,
    /// What holds; `u64::MAX` is unlimited.
    pub soft: u64,
    /// What the workload may raise it to.
    pub hard: u64,
}

impl Request {
    /// Parses every option.
    pub fn new(args: &RunArgs, host: &Host) -> Result<Self> {
        Ok(Self {
            mounts: mounts(args, host)?,
            env: env_rules(args)?,
            env_policy: args.env_policy,
            workdir: if args.here { Some(current_dir(host, "--here")?) } else { args.workdir.clone() },
            user: args.user.clone(),
            root: args.root,
            stop_signal: args.stop_signal.clone(),
            gpus: select::asked(args.gpus.as_deref(), |name| host.var(name)?.to_str())?,
            gpu_caps: args.gpu_caps.as_deref().map(|list| Capabilities::parse(list, "--gpu-caps")).transpose()?,
            driver_root: args.driver_root.clone(),
            cuda_compat: args.cuda_compat,
            require: !args.no_require,
            entrypoint: args.entrypoint.clone(),
            command: without_dashes(&args.command),
            read_only: args.read_only,
            hostname: args.hostname.clone().map(checked_hostname).transpose()?,
            name: args.name.clone(),
            network: args.network,
            pid: args.pid,
            shm_size: args.shm_size.as_deref().map(parse_size).transpose()?,
            limits: args.ulimit.iter().map(|l| parse_limit(l)).collect::<Result<_>>()?,
        })
    }

    /// Refuses a run whose bind sources are not there.
    pub fn check_sources(&self) -> Result<()> {
        self.mounts.iter().try_for_each(|mount| match mount {
            Wanted::Bind { source, why, .. } => std::fs::symlink_metadata(source)
                .and_then(|_| std::fs::metadata(source))
                .map(drop)
                .context(|| format!("stat `{}`, the source of a bind ({why})", source.display())),
            Wanted::Tmpfs { .. } => Ok(()),
        })
    }
}

/// Docker has no `--` after the image; podman's users write one.
fn without_dashes(command: &[OsString]) -> Vec<OsString> {
    command.strip_prefix(&[OsString::from("--")][..]).unwrap_or(command).to_vec()
}

fn checked_hostname(name: String) -> Result<String> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    match (1..=64).contains(&name.len()) && name.bytes().all(ok) {
        true => Ok(name),
        false => Err(Error::new(format!("`{name}` is not a host name: up to 64 letters, digits, `-` and `.`"))),
    }
}

fn current_dir(host: &Host, why: &str) -> Result<PathBuf> {
    host.cwd.clone().context(|| format!("{why} needs a current directory, and this one was deleted or is unreadable"))
}

fn env_rules(args: &RunArgs) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for file in &args.env_file {
        let what = || format!("read the env file `{}`", file.display());
        let size = std::fs::metadata(file).context(what)?.len();
        if size > MAX_ENV_FILE {
            return Err(Error::new(format!("it is larger than {MAX_ENV_FILE} bytes"))).context(what);
        }
        rules.extend(env::parse_file(&std::fs::read(file).context(what)?).context(what)?);
    }
    for option in &args.env {
        rules.push(Rule::parse(option)?);
    }
    Ok(rules)
}

fn mounts(args: &RunArgs, host: &Host) -> Result<Vec<Wanted>> {
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

fn check_target(target: &Path) -> Result<()> {
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
    for piece in list.as_bytes().split(|&b| b == b',') {
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
    matches!(word, b"ro" | b"rw" | b"z" | b"Z" | b"rbind" | b"rprivate" | b"private")
}

fn parse_volume(spec: &OsStr, host: &Host) -> Result<Wanted> {
    let bad = |why: &str| Error::new(format!("`--volume {}`: {why}", spec.display()));
    let mut parts: Vec<&[u8]> = spec.as_bytes().split(|&b| b == b':').collect();
    let options = match parts.last() {
        Some(last) if parts.len() > 1 && last.split(|&b| b == b',').all(is_volume_option) => parts.pop(),
        Some(last) if parts.len() > 2 => {
            let words = String::from_utf8_lossy(last).into_owned();
            return Err(bad(&format!("the option `{words}` is not known")).hint("options are ro and rw"));
        }
        _ => None,
    };
    let read_only = options.is_some_and(|o| o.split(|&b| b == b',').any(|w| w == b"ro"));
    let (source, target) = match parts[..] {
        [both] if !both.is_empty() => (both, both),
        [source, target] if !source.is_empty() && !target.is_empty() => (source, target),
        _ => return Err(bad("it is not SRC[:DST][:ro]")),
    };
    let source = absolute_source(OsStr::from_bytes(source), host)?;
    let target = if parts.len() == 1 { source.clone() } else { OsStr::from_bytes(target).into() };
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

fn parse_mode(text: &str) -> Result<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777);
    mode.ok_or_else(|| Error::new(format!("`{text}` is not a mode in octal")))
}

/// Bytes, or with k, m, g, t (and b, or ib, after it) their powers of 1024, as Docker has it.
pub fn parse_size(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let bytes = shift.and_then(|s| digits.parse::<u64>().ok()?.checked_mul(1 << s)).filter(|b| *b > 0);
    bytes.ok_or_else(|| Error::new(format!("`{text}` is not a size: write 64m or 2g")))
}

/// Seconds, as 90s, 45m, 12h, 30d or 4w.
pub fn parse_duration(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        "w" => Some(604_800),
        _ => None,
    };
    let seconds = unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit));
    seconds.ok_or_else(|| Error::new(format!("`{text}` is not a duration: write 12h or 30d")))
}

/// `NAME=SOFT[:HARD]`; -1 and `unlimited` are no limit.
fn parse_limit(text: &str) -> Result<Limit> {
    let bad = || Error::new(format!("`--ulimit {text}` is not NAME=SOFT[:HARD]"));
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let value = |v: &str| match v {
        "-1" | "unlimited" => Ok(u64::MAX),
        number => number.parse().map_err(|_| bad()),
    };
    let (soft, hard) = values.split_once(':').map_or((values, values), |pair| pair);
    let limit = Limit { name: name.into(), soft: value(soft)?, hard: value(hard)? };
    if crate::launch::limits::resource(&limit.name).is_none() {
        return Err(Error::new(format!("`{name}` is not a resource limit")));
    }
    if limit.soft > limit.hard {
        return Err(Error::new(format!("`--ulimit {text}`: the soft limit is above the hard one")));
    }
    Ok(limit)
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

    #[test]
    fn sizes_and_limits_are_dockers() {
        for (text, want) in [("1", 1), ("64m", 64 << 20), ("2G", 2 << 30), ("3kib", 3 << 10)] {
            assert_eq!(parse_size(text).unwrap(), want);
        }
        for text in ["", "0", "m", "1x", "-1", "99999999999t"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for (text, want) in [("90s", 90), ("2m", 120), ("1h", 3600), ("30d", 2_592_000), ("1w", 604_800), ("0d", 0)] {
            assert_eq!(parse_duration(text).unwrap(), want);
        }
        for text in ["", "5", "d", "-1d", "1y", "99999999999999999999w"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        let limit = |soft, hard| Limit { name: "nofile".into(), soft, hard };
        assert_eq!(parse_limit("nofile=5").unwrap(), limit(5, 5));
        assert_eq!(parse_limit("nofile=5:-1").unwrap(), limit(5, u64::MAX));
        for text in ["nofile", "nofile=x", "bogus=1", "nofile=2:1"] {
            assert!(parse_limit(text).is_err(), "{text}");
        }
    }
}
