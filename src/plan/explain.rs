//! A plan as a person reads it: each decision with its reason. In: a [`Plan`]. Out: text. Pure.

use std::fmt::Write;

use oci_spec::runtime::{LinuxSeccompAction, LinuxSyscall};

use super::Plan;
use super::idmap::{Extent, IdMap};
use super::mounts::{Mount, What};
use super::user::Ids;
use crate::gpu::Injection;
use crate::gpu::inventory::Gpu;
use crate::gpu::mig::Instance;

/// The plan, one decision a line.
pub fn human(plan: &Plan) -> String {
    let mut out = String::new();
    image(&mut out, plan);
    user(&mut out, plan);
    gpus(&mut out, plan);
    devices(&mut out, plan);
    section(&mut out, "namespaces", plan.namespaces.iter().map(|n| (format!("{:?}", n.kind).to_lowercase(), n.why)));
    section(&mut out, "mounts", plan.mounts.iter().map(|m| (mount(m), m.why)));
    section(&mut out, "made", plan.directories.iter().map(|d| (d.path.display().to_string(), d.why)));
    let link = |l: &super::Link| format!("{} -> {}", l.path, l.to);
    section(&mut out, "links", plan.links.iter().map(|l| (link(l), "every runtime makes them")));
    section(&mut out, "written", plan.files.iter().map(|f| (f.path.to_owned(), f.why)));
    seccomp(&mut out, plan);
    process(&mut out, plan);
    section(&mut out, "settings", plan.given.iter().map(|g| (format!("{} = {}", g.option, g.value), g.why.as_str())));
    out
}

fn image(out: &mut String, plan: &Plan) {
    line(out, "image", &plan.image.reference, plan.image.digest.as_deref().unwrap_or("a directory, as it is"));
    let above = match &plan.rootfs.kept {
        Some(dir) => format!("below `{}`, which keeps all writes: --overlay", dir.display()),
        None if plan.rootfs.read_only => "read-only: --read-only".into(),
        None => "below a tmpfs that takes all writes".into(),
    };
    line(out, "rootfs", &plan.rootfs.lower.display().to_string(), &above);
    if let Some(places) = &plan.rootfs.otherwise {
        line(out, "otherwise", &places.join(" "), "what can be written if the kernel refuses the overlay");
    }
}

fn user(out: &mut String, plan: &Plan) {
    let ids = &plan.user;
    let outside = |map: &IdMap, id| map.outside(id).unwrap_or_default(); // the plan's ids are mapped
    let (uid, gid) = (outside(&ids.map.uids, ids.uid), outside(&ids.map.gids, ids.gid));
    line(out, "user", &format!("{}:{} = {uid}:{gid} outside", ids.uid, ids.gid), ids.why);
    self::ids(out, ids);
    if let Some(name) = &plan.hostname {
        line(out, "hostname", name, "--hostname");
    }
}

/// All ids that there are, and what becomes of the caller's groups.
fn ids(out: &mut String, ids: &Ids) {
    let Some(mappers) = &ids.map.mappers else { return line(out, "ids", "one, the caller's", &ids.map.why) };
    for (title, map, mapper) in
        [("user ids", &ids.map.uids, &mappers.newuidmap), ("group ids", &ids.map.gids, &mappers.newgidmap)]
    {
        let why = format!("{}, by {}", ids.map.why, mapper.display());
        let row = |e: &Extent| format!("{e} = {} outside", Extent { inside: e.outside, ..*e });
        section(out, title, map.extents().iter().map(|e| (row(e), why.as_str())));
    }
    match &ids.groups {
        Some(groups) => line(out, "groups", &format!("{groups:?}"), "the user's in the image's /etc/group"),
        None => line(out, "groups", "the caller's", "it is the caller, whatever its number"),
    }
}

fn gpus(out: &mut String, plan: &Plan) {
    let injection = &plan.injection;
    match &injection.driver {
        Some(driver) => self::driver(out, driver, injection),
        None => line(out, "gpus", "none", injection.why),
    }
    for decision in &injection.decisions {
        let _ = writeln!(out, "{decision}"); // writing to a String cannot fail
    }
    section(out, "devices", injection.devices.iter().map(|d| (d.path.clone(), d.why)));
    let bind = |b: &crate::gpu::Bind| format!("{} = {}", b.target.display(), b.source.display());
    section(out, "driver files", injection.binds.iter().map(|b| (bind(b), b.why)));
    let link = |l: &crate::gpu::Link| (format!("{} -> {}", l.path, l.to), "a name it is asked for by");
    section(out, "driver links", injection.links.iter().map(link));
    section(out, "generated", injection.generated.iter().map(|g| (g.over.clone(), g.why)));
    let shown = |(path, _): &(String, String)| (format!("/proc/driver/nvidia/{path}"), "the chosen GPUs alone");
    section(out, "driver's /proc", injection.proc.iter().map(shown));
}

fn driver(out: &mut String, driver: &str, injection: &Injection) {
    section(out, "gpus", injection.gpus.iter().flat_map(gpu).map(|gpu| (gpu, injection.why)));
    line(out, "driver", driver, &format!("{}; for {}", injection.driver_why, injection.capabilities));
}

/// A GPU, and its MIG instances if they are what is chosen of it.
fn gpu(gpu: &Gpu) -> Vec<String> {
    let uuid = gpu.uuid.as_deref().unwrap_or("no UUID yet");
    let kind = gpu.kind().map_or_else(String::new, |kind| format!(", {kind}"));
    let whole = format!("{} {} {uuid} at {}{kind}", gpu.index, gpu.model, gpu.pci);
    let part = |part: &Instance| format!("{}:{} {} {}, {}", gpu.index, part.index, part.profile, part.uuid, part.place);
    std::iter::once(whole).chain(gpu.instances.iter().map(part)).collect()
}

fn seccomp(out: &mut String, plan: &Plan) {
    let kept: Vec<_> = plan.process.capabilities.iter().map(|capability| format!("CAP_{capability}")).collect();
    let (kept, why) = match (kept.is_empty(), &plan.user.map.mappers) {
        (true, _) => ("none".into(), "always, but for root with `--fakeroot` or `--ids range`"),
        (false, None) => (kept.join(" "), "--fakeroot: root opens what has mode 000"),
        (false, Some(_)) => (kept.join(" "), "--ids range: root over the ids that are mapped, yours among them"),
    };
    line(out, "capabilities", &kept, why);
    let Some(filter) = &plan.seccomp else {
        return line(out, "system calls", "all that an ordinary user may make", "--seccomp none");
    };
    let calls = filter.rules.syscalls().iter().flatten();
    let row = |call: &LinuxSyscall| {
        let some = if call.args().is_some() { " (some, by their arguments)" } else { "" };
        (call.names().join(" ") + some, answer(call.action(), call.errno_ret()))
    };
    section(out, "system calls", calls.map(row));
    line(out, "all other calls", answer(filter.rules.default_action(), filter.rules.default_errno_ret()), &filter.why);
    line(out, "calls of 32-bit programs", answer(filter.foreign, None), "their numbers are others");
}

/// What becomes of a call.
fn answer(action: LinuxSeccompAction, errno: Option<u32>) -> &'static str {
    match (action, errno) {
        (LinuxSeccompAction::ScmpActAllow, _) => "made",
        (LinuxSeccompAction::ScmpActErrno, Some(0)) => "not made, and said to have worked",
        (LinuxSeccompAction::ScmpActErrno, _) => "refused",
        (LinuxSeccompAction::ScmpActLog, _) => "made, and logged",
        (LinuxSeccompAction::ScmpActTrace, _) => "left to a tracer",
        (LinuxSeccompAction::ScmpActTrap, _) => "answered by SIGSYS",
        _ => "answered by death",
    }
}

/// Their mounts are among the others.
fn devices(out: &mut String, plan: &Plan) {
    let devices = &plan.devices;
    section(
        out,
        "CDI devices",
        devices.named.iter().map(|n| (format!("{} of {}", n.name, n.spec.display()), "--device")),
    );
    let link = |l: &crate::cdi::Link| (format!("{} -> {}", l.path.display(), l.to), l.why);
    section(out, "device links", devices.links.iter().map(link));
    for decision in &devices.decisions {
        let _ = writeln!(out, "{decision}"); // writing to a String cannot fail
    }
}

fn process(out: &mut String, plan: &Plan) {
    let process = &plan.process;
    let argv: Vec<_> = process.argv.iter().map(|a| quoted(&a.to_string_lossy())).collect();
    line(out, "command", &argv.join(" "), process.argv_why);
    line(out, "directory", &process.cwd.display().to_string(), process.cwd_why);
    let terminal = if process.terminal { "stdin and stdout are terminals" } else { "stdin or stdout is none" };
    line(out, "terminal", if process.terminal { "its own" } else { "none" }, terminal);
    line(out, "stop signal", &process.stop_signal.to_string(), "what SIGTERM becomes");
    for limit in &process.limits {
        line(out, "limit", &format!("{} {}:{}", limit.name, limit.soft, limit.hard), "--ulimit");
    }
    let _ = writeln!(out, "environment:"); // writing to a String cannot fail
    for (name, value) in &process.env {
        let _ = writeln!(out, "  {}={}", name.display(), value.display());
    }
}

fn mount(mount: &Mount) -> String {
    let target = mount.target.display();
    let ro = if mount.read_only { ", read-only" } else { "" };
    match &mount.what {
        What::Bind { source } => format!("{target} = {}{ro}", source.display()),
        What::Tmpfs { size: Some(size), .. } => format!("{target} = tmpfs of {size} bytes{ro}"),
        What::Tmpfs { size: None, .. } | What::Scratch { .. } => format!("{target} = tmpfs{ro}"),
        What::Devpts => format!("{target} = devpts"),
        What::Proc => format!("{target} = proc"),
    }
}

fn section<'a>(out: &mut String, title: &str, rows: impl Iterator<Item = (String, &'a str)>) {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(out, "{title}:");
    for (what, why) in rows {
        let _ = writeln!(out, "  {what}  ({why})");
    }
}

fn line(out: &mut String, title: &str, what: &str, why: &str) {
    let _ = writeln!(out, "{title}: {what}  ({why})");
}

/// A word as a shell would need it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
