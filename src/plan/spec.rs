//! A plan as an OCI runtime spec: what `gpurun spec` prints, and what libcontainer's init is given its share of.
//!
//! In: a [`Plan`]. Out: a [`Spec`] that runc, crun or youki would run to the same effect. oci-spec's builders fill
//! capabilities, limits, masked paths, resources and a host name by themselves: each is set to what the plan says.

use std::path::PathBuf;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount as SpecMount, MountBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, User, UserBuilder,
};

use super::idmap::IdMap;
use super::mounts::{Mount, What};
use super::user::Ids;
use super::{NamespaceKind, Plan};
use crate::error::{Context, Result};

/// Renders the plan.
pub fn render(plan: &Plan) -> Result<Spec> {
    spec(plan).context(|| "render the runtime spec")
}

fn spec(plan: &Plan) -> std::result::Result<Spec, OciSpecError> {
    let mut spec = SpecBuilder::default()
        .root(RootBuilder::default().path(&plan.rootfs.lower).readonly(plan.rootfs.read_only).build()?)
        .process(process(plan)?)
        .linux(linux(plan)?)
        .mounts(plan.mounts.iter().chain(&injected(plan)).map(mount).collect::<std::result::Result<Vec<_>, _>>()?)
        .build()?;
    spec.set_hostname(plan.hostname.clone());
    Ok(spec)
}

fn process(plan: &Plan) -> std::result::Result<Process, OciSpecError> {
    let text = |s: &std::ffi::OsString| s.to_string_lossy().into_owned();
    let env = plan.process.env.iter().map(|(k, v)| format!("{}={}", text(k), text(v)));
    let none = Capabilities::new();
    let kept: Capabilities = plan.process.capabilities.iter().copied().collect();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(kept.clone())
        .effective(kept.clone())
        .inheritable(none.clone())
        .permitted(kept)
        .ambient(none)
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(plan.process.terminal)
        .user(user(&plan.user)?)
        .args(plan.process.argv.iter().map(text).collect::<Vec<_>>())
        .env(env.collect::<Vec<_>>())
        .cwd(&plan.process.cwd)
        .capabilities(capabilities)
        .no_new_privileges(true)
        .build()?;
    process.set_rlimits(rlimits(plan)?);
    Ok(process)
}

fn user(ids: &Ids) -> std::result::Result<User, OciSpecError> {
    let user = UserBuilder::default().uid(ids.uid).gid(ids.gid);
    match &ids.groups {
        Some(groups) => user.additional_gids(groups.clone()).build(),
        None => user.build(),
    }
}

fn rlimits(plan: &Plan) -> std::result::Result<Option<Vec<PosixRlimit>>, OciSpecError> {
    let limit = |l: &crate::request::Limit| {
        let name = format!("RLIMIT_{}", l.name.to_uppercase());
        let kind: PosixRlimitType = serde_json::from_value(name.into())?;
        PosixRlimitBuilder::default().typ(kind).soft(l.soft).hard(l.hard).build()
    };
    let all = plan.process.limits.iter().map(limit).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok((!all.is_empty()).then_some(all))
}

fn linux(plan: &Plan) -> std::result::Result<Linux, OciSpecError> {
    let ids = &plan.user;
    let namespaces = plan.namespaces.iter().map(|n| namespace(n.kind));
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces.collect::<std::result::Result<Vec<_>, _>>()?)
        .uid_mappings(id_map(&ids.map.uids)?)
        .gid_mappings(id_map(&ids.map.gids)?)
        .build()?;
    linux.set_seccomp(plan.seccomp.as_ref().map(|filter| filter.rules.clone()));
    linux.set_resources(None);
    linux.set_masked_paths(None);
    linux.set_readonly_paths(None);
    Ok(linux)
}

fn id_map(map: &IdMap) -> std::result::Result<Vec<LinuxIdMapping>, OciSpecError> {
    let line = LinuxIdMappingBuilder::default;
    map.extents().iter().map(|e| line().container_id(e.inside).host_id(e.outside).size(e.count).build()).collect()
}

fn namespace(kind: NamespaceKind) -> std::result::Result<LinuxNamespace, OciSpecError> {
    LinuxNamespaceBuilder::default()
        .typ(match kind {
            NamespaceKind::User => LinuxNamespaceType::User,
            NamespaceKind::Mount => LinuxNamespaceType::Mount,
            NamespaceKind::Pid => LinuxNamespaceType::Pid,
            NamespaceKind::Uts => LinuxNamespaceType::Uts,
            NamespaceKind::Network => LinuxNamespaceType::Network,
        })
        .build()
}

/// The driver's files and nodes. The links and files that gpurun makes itself have no words in a spec.
fn injected(plan: &Plan) -> Vec<Mount> {
    let injection = &plan.injection;
    let bind =
        |source: PathBuf, target: PathBuf, read_only, why| Mount { read_only, ..Mount::bind(source, target, why) };
    let devices = injection.devices.iter().map(|d| bind((&d.path).into(), (&d.path).into(), false, d.why));
    devices.chain(injection.binds.iter().map(|b| bind(b.source.clone(), b.target.clone(), !b.socket, b.why))).collect()
}

fn tmpfs(size: Option<u64>, mode: u32) -> Vec<String> {
    let size = size.map(|s| format!("size={s}"));
    ["nosuid".to_owned(), "nodev".into(), format!("mode={mode:o}")].into_iter().chain(size).collect()
}

/// One mount as the spec writes it.
fn mount(mount: &Mount) -> std::result::Result<SpecMount, OciSpecError> {
    let (kind, source, mut options) = match &mount.what {
        What::Bind { source } => ("bind", source.as_path(), vec!["rbind".to_owned(), "nosuid".into()]),
        What::Tmpfs { size, mode } => ("tmpfs", "tmpfs".as_ref(), tmpfs(*size, *mode)),
        What::Scratch { mode } => ("tmpfs", "tmpfs".as_ref(), tmpfs(None, *mode)),
        What::Devpts => ("devpts", "devpts".as_ref(), words(&["nosuid", "noexec", "newinstance", "ptmxmode=0666"])),
        What::Proc => ("proc", "proc".as_ref(), words(&["nosuid", "noexec", "nodev"])),
    };
    options.extend(mount.nodev.then(|| "nodev".to_owned()));
    options.extend(mount.noexec.then(|| "noexec".to_owned()));
    if mount.read_only {
        options.push(if kind == "bind" { "rro".into() } else { "ro".into() });
    }
    MountBuilder::default().destination(&mount.target).typ(kind).source(source).options(options).build()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}
