//! A plan as a person reads it: each decision with its reason. In: a [`Plan`]. Out: text. Pure.

use std::fmt::Write;

use super::Plan;
use super::mounts::{Mount, What};
use crate::gpu::Injection;

/// The plan, one decision a line.
pub fn human(plan: &Plan) -> String {
    let mut out = String::new();
    image(&mut out, plan);
    user(&mut out, plan);
    gpus(&mut out, plan);
    section(&mut out, "namespaces", plan.namespaces.iter().map(|n| (format!("{:?}", n.kind).to_lowercase(), n.why)));
    section(&mut out, "mounts", plan.mounts.iter().map(|m| (mount(m), m.why)));
    section(&mut out, "made", plan.directories.iter().map(|d| (d.path.display().to_string(), d.why)));
    let link = |l: &super::Link| format!("{} -> {}", l.path, l.to);
    section(&mut out, "links", plan.links.iter().map(|l| (link(l), "every runtime makes them")));
    section(&mut out, "written", plan.files.iter().map(|f| (f.path.to_owned(), f.why)));
    process(&mut out, plan);
    out
}

fn image(out: &mut String, plan: &Plan) {
    line(out, "image", &plan.image.reference, plan.image.digest.as_deref().unwrap_or("a directory, as it is"));
    let above = if plan.rootfs.read_only { "read-only: --read-only" } else { "below a tmpfs that takes all writes" };
    line(out, "rootfs", &plan.rootfs.lower.display().to_string(), above);
}

fn user(out: &mut String, plan: &Plan) {
    let ids = &plan.user;
    let map = format!("{}:{} = {}:{} outside", ids.uid, ids.gid, ids.host_uid, ids.host_gid);
    line(out, "user", &map, ids.why);
    if let Some(name) = &plan.hostname {
        line(out, "hostname", name, "--hostname");
    }
}

fn gpus(out: &mut String, plan: &Plan) {
    let injection = &plan.injection;
    match &injection.driver {
        Some(driver) => self::driver(out, driver, injection),
        None => line(out, "gpus", "none", injection.why),
    }
    section(out, "devices", injection.devices.iter().map(|d| (d.path.clone(), d.why)));
}

fn driver(out: &mut String, driver: &str, injection: &Injection) {
    let gpu = |g: &crate::gpu::inventory::Gpu| {
        let uuid = g.uuid.as_deref().unwrap_or("no UUID yet");
        (format!("{} {} {uuid} at {}", g.index, g.model, g.pci), injection.why)
    };
    section(out, "gpus", injection.gpus.iter().map(gpu));
    line(out, "driver", driver, &format!("{}; for {}", injection.driver_why, injection.capabilities));
    for decision in &injection.decisions {
        let _ = writeln!(out, "{decision}"); // writing to a String cannot fail
    }
    let bind = |b: &crate::gpu::Bind| format!("{} = {}", b.target.display(), b.source.display());
    section(out, "driver files", injection.binds.iter().map(|b| (bind(b), b.why)));
    let link = |l: &crate::gpu::Link| (format!("{} -> {}", l.path, l.to), "a name it is asked for by");
    section(out, "driver links", injection.links.iter().map(link));
    section(out, "generated", injection.generated.iter().map(|g| (g.over.clone(), g.why)));
    let shown = |(path, _): &(String, String)| (format!("/proc/driver/nvidia/{path}"), "the chosen GPUs alone");
    section(out, "driver's /proc", injection.proc.iter().map(shown));
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
        What::Tmpfs { size: None, .. } => format!("{target} = tmpfs{ro}"),
        What::Devpts => format!("{target} = devpts"),
        What::Proc => format!("{target} = proc"),
    }
}

fn section(out: &mut String, title: &str, rows: impl Iterator<Item = (String, &'static str)>) {
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
