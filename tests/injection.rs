//! What is injected, for machines of every layout: decided by the library from a folder, nothing is run.

use std::fmt::Write;
use std::path::Path;

use gpurun::cdi;
use gpurun::error::Result;
use gpurun::gpu::classify::Capabilities;
use gpurun::gpu::compat::Mode;
use gpurun::gpu::image::Contents;
use gpurun::gpu::root::DriverRoot;
use gpurun::gpu::{Injection, Inputs, inject, ldcache, select};

use crate::support::machine::{Machine, elf};

fn decide(machine: &Machine, gpus: &str, caps: Option<&str>, image: &Contents, env: &[&str]) -> Result<Injection> {
    let root = DriverRoot::folder(&machine.path())?;
    let caps = caps.map(|list| Capabilities::parse(list, "a test")).transpose()?;
    let env: Vec<_> = env.iter().map(ToString::to_string).collect();
    inject(&Inputs {
        root: &root,
        asked: &select::parse(gpus)?,
        capabilities: caps.as_ref(),
        compat: Mode::Auto,
        check: true,
        image,
        image_env: &env,
        cuda_visible: None,
        mps: None,
    })
}

/// The injection, one thing a line, with the machine's folder as `/`.
fn shown(machine: &Machine, injection: &Injection) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a String takes all");
    line(format!("driver {}", injection.driver.as_deref().unwrap_or("none")));
    injection.gpus.iter().for_each(|g| line(format!("gpu {} {} {}", g.index, g.pci, g.uuid.as_deref().unwrap_or("-"))));
    injection.devices.iter().for_each(|d| line(format!("node {} ({})", d.path, d.why)));
    for bind in &injection.binds {
        let source = Path::new("/").join(bind.source.strip_prefix(machine.path()).expect("it is in the folder"));
        let kind = if bind.socket { "socket" } else { "bind" };
        line(format!("{kind} {} = {}", bind.target.display(), source.display()));
    }
    injection.links.iter().for_each(|l| line(format!("link {} -> {}", l.path, l.to)));
    for file in &injection.generated {
        line(format!("file {} at {}", file.name, file.over));
        match ldcache::Cache::parse(&file.content) {
            Some(cache) => cache.entries.iter().for_each(|e| {
                line(format!(
                    "  {} {:#x} {}",
                    String::from_utf8_lossy(&e.soname),
                    e.flags,
                    String::from_utf8_lossy(&e.path)
                ));
            }),
            None => line(format!("  {}", String::from_utf8_lossy(&file.content).trim_end())),
        }
    }
    injection.proc.iter().for_each(|(path, text)| line(format!("proc {path}: {}", text.replace('\n', " | "))));
    injection.env.iter().for_each(|(name, value)| line(format!("env {name}={}", value.display())));
    injection.decisions.iter().chain(&injection.warnings).for_each(|text| line(format!("note {text}")));
    out
}

fn debian() -> Contents {
    Contents { glibc: Some((2, 36)), ..Contents::default() }
}

#[test]
fn every_layout_and_selection() {
    for (name, gpus, caps) in [
        ("ubuntu", "all", None),
        ("ubuntu", "device=1", Some("all")),
        ("ubuntu", "device=GPU-aaaa0000-0000-0000-0000-000000000001", Some("utility")),
        ("debian", "all", None),
        ("rhel", "all", None),
        ("nixos", "1", None),
        ("vendored", "device=0000:00:04.0", Some("compute")),
    ] {
        let machine = Machine::new(name);
        let injection = decide(&machine, gpus, caps, &debian(), &[]).unwrap();
        let title = format!("{name}-{}-{}", gpus.replace([':', '='], "-"), caps.unwrap_or("usual"));
        insta::assert_snapshot!(title, shown(&machine, &injection));
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    let mut out = String::new();
    for (name, gpus, caps, env) in [
        ("mismatch", "all", None, ""),
        ("half", "all", None, ""),
        ("half", "all", Some("compute"), ""),
        ("rhel", "2", None, ""),
        ("rhel", "device=1", None, ""),
        ("ubuntu", "device=7", None, ""),
        ("ubuntu", "device=0:1", None, ""),
        ("ubuntu", "device=GPU-aaaa", None, ""),
        ("rhel", "all", None, "NVIDIA_REQUIRE_CUDA=cuda>=12.4"),
        ("ubuntu", "all", None, "NVIDIA_DRIVER_CAPABILITIES=compute,magic"),
    ] {
        let error = decide(&Machine::new(name), gpus, caps, &debian(), &[env]).unwrap_err();
        let _ = writeln!(out, "{name} {gpus} {env}\n  {error:#}");
        error.hints().iter().for_each(|hint| writeln!(out, "  hint: {hint}").expect("a String takes all"));
    }
    insta::assert_snapshot!(out);
}

#[test]
fn a_spec_for_other_engines() {
    let machine = Machine::new("rhel");
    let root = DriverRoot::folder(&machine.path()).unwrap();
    let spec = cdi::generate::generate(&root, &Capabilities::usual()).unwrap();
    let text = serde_json::to_string_pretty(&spec).unwrap().replace(&*machine.path().to_string_lossy(), "");
    insta::assert_snapshot!(text);
}

#[test]
fn a_machine_without_uvm_is_enough_for_utility() {
    let injection = decide(&Machine::new("half"), "all", Some("utility"), &debian(), &[]).unwrap();
    assert!(injection.devices.iter().all(|device| !device.path.contains("uvm")));
}

#[test]
fn the_images_environment_never_widens_the_selection() {
    let machine = Machine::new("ubuntu");
    let env = ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=all"];
    let injection = decide(&machine, "device=0", None, &debian(), &env).unwrap();
    assert_eq!(injection.gpus.len(), 1);
    assert!(!injection.devices.iter().any(|device| device.path == "/dev/nvidia0"), "GPU 0 has the node nvidia1");
    assert_eq!(decide(&machine, "none", None, &debian(), &env).unwrap().driver, None);
}

#[test]
fn machines_without_a_driver() {
    let bare = Machine::from_list("dir /proc\n");
    assert_eq!(decide(&bare, "auto", None, &debian(), &[]).unwrap().warnings.len(), 1);
    for (list, word) in [
        ("dir /proc\n", "there is no NVIDIA driver"),
        ("file /dev/dxg\n", "WSL2"),
        ("file /etc/nv_tegra_release\n", "Jetson"),
    ] {
        let error = decide(&Machine::from_list(list), "all", None, &debian(), &[]).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

/// An image's tree with a compat directory, baked driver libraries and a cache that names both.
fn image(dir: &Path, compat: &str) -> Contents {
    let entry = |name: &str, path: &str| ldcache::Entry::new(ldcache::FLAGS_X86_64, name, path);
    let cache = ldcache::merge(
        &ldcache::Cache::default(),
        &[entry("libcuda.so.1", "/usr/local/cuda/compat/libcuda.so.1"), entry("libcuda.so.1", "/usr/lib/libcuda.so.1")],
    );
    for (path, content) in [
        ("etc/ld.so.cache", cache.bytes()),
        (compat, elf(2, "libcuda.so.1", None)),
        ("usr/local/cuda/compat/libcuda.so.1", elf(2, "libcuda.so.1", None)),
    ] {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    Contents::probe(dir).unwrap()
}

fn first_cuda(injection: &Injection) -> Vec<String> {
    let cache = ldcache::Cache::parse(&injection.generated[0].content).unwrap();
    cache.find("libcuda.so.1").map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

#[test]
fn forward_compatibility_goes_first_or_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let newer = image(dir.path(), "usr/local/cuda/compat/libcuda.so.560.35.05");
    let ubuntu = decide(&Machine::new("ubuntu"), "all", None, &newer, &["NVIDIA_REQUIRE_CUDA=cuda>=12.6"]).unwrap();
    let want = ["/usr/local/cuda/compat/libcuda.so.1", "/.gpurun/lib/libcuda.so.1", "/usr/lib/libcuda.so.1"];
    assert_eq!(first_cuda(&ubuntu), want, "{:?}", ubuntu.decisions);
    let geforce = decide(&Machine::new("debian"), "all", None, &newer, &[]).unwrap();
    assert_eq!(first_cuda(&geforce), want[1..], "{:?}", geforce.decisions);
}

#[test]
fn hostile_images_are_read_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let (image, secret) = (dir.path().join("image"), dir.path().join("secret"));
    std::fs::create_dir_all(image.join("etc")).unwrap();
    std::fs::create_dir_all(image.join("usr/local/cuda")).unwrap();
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("libcuda.so.999.1"), elf(2, "libcuda.so.1", None)).unwrap();
    std::os::unix::fs::symlink(&secret, image.join("usr/local/cuda/compat")).unwrap();
    let cache = image.join("etc/ld.so.cache");
    std::os::unix::fs::symlink("/proc/self/environ", &cache).unwrap();
    let found = Contents::probe(&image).unwrap();
    assert_eq!((found.compat, found.cache), (None, ldcache::Cache::default()), "nothing outside is looked at");
    std::fs::remove_file(&cache).unwrap();
    let mut header = b"glibc-ld.so.cache1.1".to_vec();
    header.extend([0xff; 28]);
    std::fs::write(&cache, &header).unwrap();
    assert!(Contents::probe(&image).unwrap().broken_cache.is_some());
    std::fs::File::options().write(true).open(&cache).unwrap().set_len(4 << 30).unwrap();
    assert!(Contents::probe(&image).unwrap().broken_cache.is_some());
}
