//! The environment the workload gets (design.md §5).
//!
//! In: the image's Env, the host's environment, the policy and the options. Out: a list of `NAME=value`, in order,
//! without repeats. Values are bytes: neither the host's nor the image's need be UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::user::Ids;
use crate::cli::EnvPolicy;
use crate::error::{Error, Result};
use crate::host::Host;

/// What Docker sets when the image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a job, its MPI, its accelerator and its user need; nothing that names the host's software.
const HPC: &[&str] = &[
    "SLURM_*",
    "PMI_*",
    "PMIX_*",
    "OMPI_*",
    "PRTE_*",
    "UCX_*",
    "NCCL_*",
    "MPICH_*",
    "MV2_*",
    "I_MPI_*",
    "HYDRA_*",
    "FI_*",
    "PSM2_*",
    "PSM3_*",
    "CUDA_*",
    "NVSHMEM_*",
    "OMP_*",
    "KMP_*",
    "MKL_*",
    "OPENBLAS_*",
    "GOMP_*",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "TZ",
    "USER",
    "LOGNAME",
    "HOME",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// What names the host's software, which is not there inside: never taken by a policy, only by `-e`.
const NEVER: &[&str] = &[
    "PATH",
    "LD_*",
    "PYTHON*",
    "CONDA_*",
    "MODULE*",
    "LMOD_*",
    "_LMFILES_",
    "LOADEDMODULES",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_ROOT",
    "CUDA_DIR",
    "CUDA_TOOLKIT_*",
    "MKL_ROOT",
    "MKLROOT",
    "GPURUN_*",
];

/// What belongs to the caller's session rather than to the workload, in addition, for `--env-policy host`.
const SESSION: &[&str] =
    &["PWD", "OLDPWD", "SHLVL", "_", "XDG_RUNTIME_DIR", "DBUS_*", "TMPDIR", "SHELL", "BASH_FUNC_*"];

/// One `-e`: a value, or names to take from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `K=V`
    Set(OsString, OsString),
    /// `K`, or a pattern with one `*` at its end
    Pass(OsString),
}

impl Rule {
    /// Parses the argument of `-e`.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        let split = bytes.iter().position(|&b| b == b'=');
        let name = &bytes[..split.unwrap_or(bytes.len())];
        if name.is_empty() || name.contains(&0) {
            return Err(Error::new(format!("`{}` does not name a variable", text.display())));
        }
        let owned = |b: &[u8]| OsString::from_vec(b.to_vec());
        Ok(split.map_or_else(|| Self::Pass(owned(name)), |at| Self::Set(owned(name), owned(&bytes[at + 1..]))))
    }
}

/// The lines of an `--env-file`: empty ones and those that start with `#` say nothing (as Docker reads them).
pub fn parse_file(content: &[u8]) -> Result<Vec<Rule>> {
    content
        .split(|&b| b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start())
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| Rule::parse(OsStr::from_bytes(line)))
        .collect()
}

/// Everything the environment is made of.
pub struct Sources<'a> {
    /// The image's `Env`, `K=V` each.
    pub image: &'a [String],
    /// The caller's.
    pub host: &'a Host,
    /// What of the caller's passes.
    pub policy: EnvPolicy,
    /// `--env-file`, then `-e`.
    pub rules: &'a [Rule],
    /// Who the workload is: `HOME`, `USER` and `LOGNAME` must agree with it.
    pub ids: &'a Ids,
    /// What gpurun itself adds.
    pub own: &'a [(OsString, OsString)],
}

/// The environment, in the order: image, host by policy, identity, gpurun's own, options. Later ones win.
pub fn decide(sources: &Sources) -> Vec<(OsString, OsString)> {
    let mut env = Environment::default();
    env.set("PATH", DEFAULT_PATH);
    for (name, value) in sources.image.iter().filter_map(|entry| entry.split_once('=')) {
        env.set(name, value);
    }
    for (name, value) in sources.host.env.iter().filter(|(name, _)| passes(sources.policy, name)) {
        env.set(name, value);
    }
    identity(&mut env, sources);
    for (name, value) in sources.own {
        env.set(name, value);
    }
    env.amend(sources.rules, sources.host);
    env.0
}

/// The environment of a workload that is running, changed by the options of another command beside it.
pub fn amended(env: Vec<(OsString, OsString)>, rules: &[Rule], host: &Host) -> Vec<(OsString, OsString)> {
    let mut env = Environment(env);
    env.amend(rules, host);
    env.0
}

/// The same for another user.
pub fn of_user(env: Vec<(OsString, OsString)>, name: &OsStr, home: &Path) -> Vec<(OsString, OsString)> {
    let mut env = Environment(env);
    env.set("HOME", home.as_os_str());
    env.set("USER", name);
    env.set("LOGNAME", name);
    env.0
}

/// The caller's own ids keep the caller's names unless the policy is the image's; another user has its own.
fn identity(env: &mut Environment, sources: &Sources) {
    let ids = sources.ids;
    let callers_own = (ids.uid, ids.gid) == (ids.host_uid, ids.host_gid);
    if callers_own && env.has("HOME") {
        return;
    }
    env.set("HOME", ids.home.as_os_str());
    if !callers_own {
        env.set("USER", &ids.name);
        env.set("LOGNAME", &ids.name);
    }
}

fn passes(policy: EnvPolicy, name: &OsStr) -> bool {
    let any = |patterns: &[&str]| patterns.iter().any(|p| matches(p.as_bytes(), name.as_bytes()));
    match policy {
        EnvPolicy::Image => name == "TERM",
        EnvPolicy::Hpc => any(HPC) && !any(NEVER),
        EnvPolicy::Host => !any(NEVER) && !any(SESSION),
    }
}

/// A `*` stands at the end of a pattern or nowhere.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    pattern.strip_suffix(b"*").map_or(pattern == name, |prefix| name.starts_with(prefix))
}

/// Names in the order in which they were first set.
#[derive(Default)]
struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    fn set(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        let (name, value) = (name.as_ref(), value.as_ref().to_owned());
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn amend(&mut self, rules: &[Rule], host: &Host) {
        for rule in rules {
            match rule {
                Rule::Set(name, value) => self.set(name, value),
                Rule::Pass(pattern) => self.pass(pattern, host),
            }
        }
    }

    fn pass(&mut self, pattern: &OsStr, host: &Host) {
        for (name, value) in host.env.iter().filter(|(name, _)| matches(pattern.as_bytes(), name.as_bytes())) {
            self.set(name, value);
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::idmap::Mapping;
    use super::*;

    fn decided(policy: EnvPolicy, uid: u32, rules: &[&str]) -> Vec<String> {
        let env = [
            ("PATH", "/host"),
            ("LANG", "C"),
            ("SLURM_JOB_ID", "7"),
            ("LD_PRELOAD", "x"),
            ("HOME", "/home/me"),
            ("USER", "me"),
            ("CUDA_HOME", "/opt/cuda"),
            ("CUDA_CACHE_PATH", "/c"),
            ("SECRET", "s"),
            ("A", "host"),
        ];
        let env = env.map(|(k, v)| (k.into(), v.into())).to_vec();
        let host = Host { env, ..Host::example() };
        let (gid, name, home) = if uid == 0 { (0, "root", "/root") } else { (1000, "me", "/home/me") };
        let map = Mapping::one(uid, gid, &host, "a test");
        let ids = Ids {
            uid,
            gid,
            host_uid: 1000,
            host_gid: 1000,
            name: name.into(),
            home: home.into(),
            why: "a test",
            groups: None,
            map,
        };
        let rules: Vec<Rule> = rules.iter().map(|r| Rule::parse(OsStr::new(r)).unwrap()).collect();
        let image = ["A=image".to_owned(), "B=image=x".to_owned(), "LANG=en".to_owned()];
        decide(&Sources { image: &image, host: &host, policy, rules: &rules, ids: &ids, own: &[] })
            .into_iter()
            .map(|(k, v)| format!("{}={}", k.display(), v.display()))
            .collect()
    }

    #[test]
    fn hpc_takes_the_job_and_leaves_the_software() {
        let path = format!("PATH={DEFAULT_PATH}");
        let want = [
            &path,
            "A=image",
            "B=image=x",
            "LANG=C",
            "SLURM_JOB_ID=7",
            "HOME=/home/me",
            "USER=me",
            "CUDA_CACHE_PATH=/c",
        ];
        assert_eq!(decided(EnvPolicy::Hpc, 1000, &[]), want);
    }

    #[test]
    fn image_takes_nothing_and_host_all_but_software() {
        let path = format!("PATH={DEFAULT_PATH}");
        let want = [&path, "A=image", "B=image=x", "LANG=en", "HOME=/home/me"];
        assert_eq!(decided(EnvPolicy::Image, 1000, &[]), want);
        let host = decided(EnvPolicy::Host, 1000, &[]);
        assert!(host.contains(&"SECRET=s".to_owned()) && host.contains(&"A=host".to_owned()));
        assert!(!host.iter().any(|e| e.starts_with("LD_PRELOAD") || e.starts_with("CUDA_HOME") || e == "PATH=/host"));
    }

    #[test]
    fn another_user_has_its_own_home_and_name() {
        let env = decided(EnvPolicy::Hpc, 0, &[]);
        assert!(env.contains(&"HOME=/root".to_owned()) && env.contains(&"USER=root".to_owned()), "{env:?}");
    }

    #[test]
    fn options_win() {
        let env = decided(EnvPolicy::Image, 1000, &["A=opt", "SECRET", "SLURM_*", "MISSING", "PATH=/x"]);
        for want in ["A=opt", "SECRET=s", "SLURM_JOB_ID=7", "PATH=/x"] {
            assert!(env.contains(&want.to_owned()), "{want} in {env:?}");
        }
        assert!(!env.iter().any(|e| e.starts_with("MISSING")));
    }

    #[test]
    fn env_files_are_read_as_docker_does() {
        let rules = parse_file(b"# c\n\n A=1\r\nB= x # y\nC\n").unwrap();
        let set = |k: &str, v: &str| Rule::Set(k.into(), v.into());
        assert_eq!(rules, [set("A", "1"), set("B", " x # y"), Rule::Pass("C".into())]);
        assert!(parse_file(b"=x").is_err());
    }
}
