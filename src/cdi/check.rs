//! What makes a spec a valid one: its version, its names, its paths.
//!
//! In: a [`Spec`]. Out: what is wrong with it. Pure. The rules are SPEC.md's, and those of the library that other engines
//! read specs with (specs-go/version.go, pkg/cdi/container-edits.go of the same repository).

use super::name;
use super::spec::{Device, DeviceNode, Edits, Hook, Mount, Spec};
use crate::error::{Context, Error, Result};

/// All versions there are, oldest first.
const VERSIONS: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// When hooks may run (runtime-spec, config.md, "POSIX-platform Hooks").
const HOOK_NAMES: &[&str] =
    &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Checks all of it.
pub(super) fn spec(spec: &Spec) -> Result<()> {
    version(spec)?;
    name::kind(&spec.kind)?;
    edits(&spec.container_edits).context(|| "in `containerEdits`")?;
    for (at, device) in spec.devices.iter().enumerate() {
        name::device(&device.name)?;
        edits(&device.container_edits).context(|| format!("in device `{}`", device.name))?;
        if spec.devices[..at].iter().any(|before| before.name == device.name) {
            return Err(Error::new(format!("it has two devices `{}`", device.name)));
        }
    }
    match spec.devices.is_empty() {
        true => Err(Error::new("it has no devices")),
        false => Ok(()),
    }
}

fn version(spec: &Spec) -> Result<()> {
    let said = spec.cdi_version.strip_prefix('v').unwrap_or(&spec.cdi_version);
    let place = |version: &str| VERSIONS.iter().position(|v| *v == version);
    let Some(at) = place(said) else {
        return Err(Error::new(format!("its CDI version `{said}` is not known: 0.1.0 to 1.1.0 are")));
    };
    let (feature, needs) = newest_feature(spec);
    match place(needs).is_some_and(|needs| needs > at) {
        true => Err(Error::new(format!("it names CDI version {said} and has {feature}, which came with {needs}"))),
        false => Ok(()),
    }
}

/// The feature that needs the newest version, and that version.
fn newest_feature(spec: &Spec) -> (&'static str, &'static str) {
    let all = || spec.devices.iter().map(|device| &device.container_edits).chain([&spec.container_edits]);
    let any = |has: fn(&Edits) -> bool| all().any(has);
    let dotted = spec.kind.split_once('/').is_some_and(|(_, class)| class.contains('.'));
    let remarks = |device: &Device| !device.annotations.is_empty();
    let digit = |device: &Device| !device.name.starts_with(|c: char| c.is_ascii_alphabetic());
    let features = [
        (any(|e| !e.net_devices.is_empty()), "netDevices", "1.1.0"),
        (any(new_rdt), "schemata or enableMonitoring", "1.1.0"),
        (any(|e| e.intel_rdt.is_some()), "intelRdt", "0.7.0"),
        (any(|e| !e.additional_gids.is_empty()), "additionalGids", "0.7.0"),
        (!spec.annotations.is_empty() || spec.devices.iter().any(remarks), "annotations", "0.6.0"),
        (dotted, "a class with a dot", "0.6.0"),
        (spec.devices.iter().any(digit), "a device whose name begins with a digit", "0.5.0"),
        (any(|e| e.device_nodes.iter().any(|node| node.host_path.is_some())), "a device's hostPath", "0.5.0"),
        (any(|e| e.mounts.iter().any(|mount| !mount.kind.is_empty())), "a mount's type", "0.4.0"),
    ];
    let newest = features.into_iter().find(|(has, ..)| *has);
    newest.map_or(("nothing new", VERSIONS[0]), |(_, feature, version)| (feature, version))
}

fn new_rdt(edits: &Edits) -> bool {
    edits.intel_rdt.as_ref().is_some_and(|rdt| !rdt.schemata.is_empty() || rdt.enableMonitoring)
}

fn edits(edits: &Edits) -> Result<()> {
    edits.env.iter().try_for_each(|entry| variable(entry))?;
    edits.device_nodes.iter().try_for_each(node)?;
    edits.mounts.iter().try_for_each(mount)?;
    edits.hooks.iter().try_for_each(hook)
}

fn variable(entry: &str) -> Result<()> {
    match entry.find('=').is_some_and(|at| at > 0) && !entry.contains('\0') {
        true => Ok(()),
        false => Err(Error::new(format!("the variable `{entry}` is not NAME=VALUE"))),
    }
}

fn node(node: &DeviceNode) -> Result<()> {
    path(&node.path)?;
    node.host_path.as_deref().map_or(Ok(()), path)?;
    let bad = |what: String| Err(Error::new(format!("the node `{}` has {what}", node.path)));
    if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
        return bad(format!("the type `{}`, which is none of b, c, u and p", node.kind));
    }
    if node.major.is_some_and(|n| n < 0) || node.minor.is_some_and(|n| n < 0) {
        return bad("a number below 0".into());
    }
    match node.permissions.as_deref() {
        Some(letters) if letters != "none" && !letters.chars().all(|c| "rwm".contains(c)) => {
            bad(format!("the permissions `{letters}`, which are not of r, w and m"))
        }
        _ => Ok(()),
    }
}

fn mount(mount: &Mount) -> Result<()> {
    path(&mount.container_path)?;
    match mount.kind.as_str() {
        "tmpfs" => Ok(()),
        _ => path(&mount.host_path),
    }
}

fn hook(hook: &Hook) -> Result<()> {
    path(&hook.path)?;
    hook.env.iter().try_for_each(|entry| variable(entry))?;
    match HOOK_NAMES.contains(&hook.hook_name.as_str()) {
        true => Ok(()),
        false => Err(Error::new(format!("`{}` is not when a hook may run", hook.hook_name))),
    }
}

/// Other engines would take relative ones from the directory they happen to be in.
fn path(text: &str) -> Result<()> {
    match text.starts_with('/') && !text.contains('\0') {
        true => Ok(()),
        false => Err(Error::new(format!("`{text}` is not an absolute path"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::parse;

    fn checked(version: &str, kind: &str, name: &str, edits: &str) -> String {
        let text = format!(
            "{{cdiVersion: {version}, kind: {kind}, devices: [{{name: {name}, containerEdits: {{{edits}}}}}]}}"
        );
        parse(text.as_bytes()).map_or_else(|e| format!("{e:#}"), |_| "good".into())
    }

    #[test]
    fn a_feature_needs_the_version_it_came_with() {
        for (version, kind, name, edits) in [
            ("0.4.0", "v.com/c", "a", "mounts: [{hostPath: /a, containerPath: /b, type: bind}]"),
            ("0.5.0", "v.com/c", "a", "deviceNodes: [{path: /dev/a, hostPath: /dev/b}]"),
            ("0.5.0", "v.com/c", "\"0\"", ""),
            ("0.6.0", "v.com/c.d", "a", ""),
            ("0.7.0", "v.com/c", "a", "additionalGids: [1]"),
            ("0.7.0", "v.com/c", "a", "intelRdt: {closID: x, enableCMT: true}"),
            ("1.1.0", "v.com/c", "a", "intelRdt: {schemata: [x]}"),
            ("1.1.0", "v.com/c", "a", "netDevices: [{hostInterfaceName: a, name: b}]"),
        ] {
            assert_eq!(checked(version, kind, name, edits), "good");
            let before = super::VERSIONS[super::VERSIONS.iter().position(|v| *v == version).unwrap() - 1];
            let error = checked(before, kind, name, edits);
            assert!(error.contains(&format!("came with {version}")), "{error}");
        }
        assert_eq!(checked("v0.3.0", "v.com/c", "a", ""), "good");
        assert!(checked("1.2.0", "v.com/c", "a", "").contains("`1.2.0` is not known"));
    }

    #[test]
    fn names_paths_and_letters_are_checked() {
        for edits in [
            "env: [NAME]",
            "env: [\"=x\"]",
            "deviceNodes: [{path: dev/x}]",
            "deviceNodes: [{path: /dev/x, type: d}]",
            "deviceNodes: [{path: /dev/x, minor: -1}]",
            "deviceNodes: [{path: /dev/x, permissions: rx}]",
            "mounts: [{hostPath: a, containerPath: /b}]",
            "mounts: [{hostPath: /a, containerPath: b}]",
            "hooks: [{hookName: later, path: /bin/x}]",
            "hooks: [{hookName: prestart, path: x}]",
        ] {
            let error = checked("1.1.0", "v.com/c", "a", edits);
            assert!(error.starts_with("in device `a`: "), "{edits}: {error}");
        }
        assert!(checked("1.1.0", "v.com", "a", "").contains("no kind"));
        assert!(checked("1.1.0", "v.com/c", "a/b", "").contains("no name"));
        assert!(parse(b"{cdiVersion: 1.1.0, kind: v.com/c, devices: []}").is_err());
        assert!(parse(b"{cdiVersion: 1.1.0, kind: v.com/c, devices: [{name: a}, {name: a}]}").is_err());
    }
}
