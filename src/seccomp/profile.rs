//! Docker's profile format: a runtime spec's filter whose rules have conditions. In: its JSON. Out: the filter that holds on
//! this machine for a process with these capabilities. Pure. The rules are those of moby's `profiles/seccomp`.

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder, LinuxSeccompFilterFlag,
    LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;

use crate::error::{Context, Error, Result};

/// This machine, as Go names it, and as libseccomp does.
const ARCHITECTURE: (&str, Arch) = match () {
    #[cfg(target_arch = "x86_64")]
    () => ("amd64", Arch::ScmpArchX86_64),
    #[cfg(target_arch = "aarch64")]
    () => ("arm64", Arch::ScmpArchAarch64),
    #[cfg(target_arch = "riscv64")]
    () => ("riscv64", Arch::ScmpArchRiscv64),
};

/// A profile as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "list")]
    architectures: Vec<Arch>,
    #[serde(default, deserialize_with = "list")]
    arch_map: Vec<Architecture>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<String>,
    #[serde(default, deserialize_with = "list")]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: Arch,
    #[serde(default, deserialize_with = "list")]
    sub_architectures: Vec<Arch>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    #[serde(default, deserialize_with = "list")]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Conditions>,
    excludes: Option<Conditions>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default, deserialize_with = "list")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Go writes an empty list as null.
fn list<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(json: D) -> std::result::Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(json)?.unwrap_or_default())
}

impl Profile {
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).context(|| "parse it")
    }

    /// The filter on a machine with this kernel, for a process that keeps these capabilities.
    pub(super) fn resolve(self, kernel: (u32, u32), kept: &[Capability]) -> Result<LinuxSeccomp> {
        self.check()?;
        let mapped = self.arch_map.into_iter().find(|a| a.architecture == ARCHITECTURE.1);
        let mapped = mapped.map(|a| [vec![a.architecture], a.sub_architectures].concat());
        let mut calls = Vec::new();
        for rule in self.syscalls {
            if rule.holds(kernel, kept)? {
                calls.push(rule.call()?);
            }
        }
        let filter = LinuxSeccompBuilder::default()
            .default_action(self.default_action)
            .architectures(mapped.unwrap_or(self.architectures))
            .flags(self.flags.unwrap_or_else(|| vec![LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow]))
            .syscalls(calls);
        let mut filter = filter.build().context(|| "describe the filter")?;
        filter.set_default_errno_ret(self.default_errno_ret);
        Ok(filter)
    }

    fn check(&self) -> Result<()> {
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(Error::new("it has both `architectures` and `archMap`"));
        }
        if self.listener_path.is_some() {
            return Err(Error::new("`listenerPath` cannot be had: gpurun has no agent that answers system calls"));
        }
        Ok(())
    }
}

impl Rule {
    /// All capabilities that are included have to be there, and none that is excluded.
    fn holds(&self, kernel: (u32, u32), kept: &[Capability]) -> Result<bool> {
        let keeps = |cap: &String| kept.iter().any(|kept| format!("CAP_{kept}") == *cap);
        let included = match &self.includes {
            Some(c) => {
                c.caps.iter().all(keeps)
                    && (c.arches.is_empty() || c.names_us())
                    && c.kernel_is_new(kernel)?.unwrap_or(true)
            }
            None => true,
        };
        let excluded = match &self.excludes {
            Some(c) => c.caps.iter().any(keeps) || c.names_us() || c.kernel_is_new(kernel)?.unwrap_or(false),
            None => false,
        };
        Ok(included && !excluded)
    }

    fn call(self) -> Result<LinuxSyscall> {
        let names = match (self.name, self.names) {
            (Some(name), names) if names.is_empty() => vec![name],
            (Some(name), _) => return Err(Error::new(format!("a rule has both `name` ({name}) and `names`"))),
            (None, names) => names,
        };
        let call = LinuxSyscallBuilder::default().names(names).action(self.action);
        let mut call = call.build().context(|| "describe a rule")?;
        call.set_errno_ret(self.errno_ret);
        call.set_args(self.args.filter(|args| !args.is_empty()));
        Ok(call)
    }
}

impl Conditions {
    fn names_us(&self) -> bool {
        self.arches.iter().any(|arch| arch == ARCHITECTURE.0)
    }

    /// Whether the kernel is at least of the version that is asked for, if one is.
    fn kernel_is_new(&self, kernel: (u32, u32)) -> Result<Option<bool>> {
        let Some(text) = &self.min_kernel else { return Ok(None) };
        let version = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        version.map(|version| Some(kernel >= version)).context(|| format!("`{text}` is not a kernel's version"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(json: &str, kernel: (u32, u32), kept: &[Capability]) -> Vec<String> {
        let profile = format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{json}]}}"#);
        let filter = Profile::parse(profile.as_bytes()).unwrap().resolve(kernel, kept).unwrap();
        filter.syscalls().iter().flatten().flat_map(LinuxSyscall::names).cloned().collect()
    }

    #[test]
    fn conditions_are_about_this_machine_and_the_process() {
        let rule = |rest: &str| format!(r#"{{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, {rest}}}"#);
        let here = ARCHITECTURE.0;
        for (rest, holds) in [
            (r#""comment": "x""#.to_owned(), true),
            (r#""includes": {"caps": ["CAP_SYS_ADMIN"]}"#.into(), false),
            (r#""excludes": {"caps": ["CAP_SYS_ADMIN"]}"#.into(), true),
            (format!(r#""includes": {{"arches": ["s390", "{here}"]}}"#), true),
            (r#""includes": {"arches": ["s390"]}"#.into(), false),
            (format!(r#""excludes": {{"arches": ["{here}"]}}"#), false),
            (r#""includes": {"minKernel": "5.14"}"#.into(), true),
            (r#""includes": {"minKernel": "5.15"}"#.into(), false),
            (r#""excludes": {"minKernel": "5.14"}"#.into(), false),
        ] {
            assert_eq!(names(&rule(&rest), (5, 14), &[]).len(), usize::from(holds), "{rest}");
        }
        let kept = [Capability::Chown, Capability::DacOverride];
        for (rest, holds) in [
            (r#""includes": {"caps": ["CAP_DAC_OVERRIDE", "CAP_CHOWN"]}"#, true),
            (r#""includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}"#, false),
            (r#""excludes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}"#, false),
            (r#""excludes": {"caps": ["CAP_SYS_ADMIN"]}"#, true),
        ] {
            assert_eq!(names(&rule(rest), (5, 14), &kept).len(), usize::from(holds), "{rest}");
        }
        assert_eq!(names(r#"{"name": "read", "action": "SCMP_ACT_ALLOW"}"#, (6, 0), &[]), ["read"], "the old format");
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for json in [
            "",
            "{}",
            r#"{"defaultAction": "SCMP_ACT_NONE"}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_ARM"}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_LOG"}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["b"], "action": "SCMP_ACT_LOG", "includes": {"minKernel": "x"}}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#,
        ] {
            assert!(Profile::parse(json.as_bytes()).and_then(|p| p.resolve((6, 0), &[])).is_err(), "{json}");
        }
    }
}
