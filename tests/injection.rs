//! What is injected, for machines of every layout: decided by the library from a folder, nothing is run.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use gpurun::cdi;
use gpurun::error::{Context, Result};
use gpurun::gpu::classify::Capabilities;
use gpurun::gpu::compat::Mode;
use gpurun::gpu::image::Contents;
use gpurun::gpu::inventory::{Gpu, Inventory};
use gpurun::gpu::nvml::{self, Answers, child};
use gpurun::gpu::root::DriverRoot;
use gpurun::gpu::{Injection, Inputs, inject, ldcache, rdma, select};

use crate::support::machine::{Machine, elf};
use crate::support::text;

fn decide(machine: &Machine, gpus: &str, caps: Option<&str>, image: &Contents, env: &[&str]) -> Result<Injection> {
    decide_with(&DriverRoot::folder(&machine.path())?, gpus, caps, image, env)
}

fn decide_with(root: &DriverRoot, gpus: &str, caps: Option<&str>, image: &Contents, env: &[&str]) -> Result<Injection> {
    let caps = caps.map(|list| Capabilities::parse(list, "a test")).transpose()?;
    let env: Vec<_> = env.iter().map(ToString::to_string).collect();
    inject(&Inputs {
        root,
        asked: &select::parse(gpus)?,
        capabilities: caps.as_ref(),
        compat: Mode::Auto,
        check: true,
        image,
        image_env: &env,
        nvml: &|known| ask(root, known),
        cuda_visible: None,
        mps: None,
    })
}

/// What the folder's NVML says, if it has one that says something.
fn ask(root: &DriverRoot, known: Option<&Inventory>) -> Result<Answers> {
    let library = nvml::library(root, known.map(|inventory| &inventory.version));
    let library = library.filter(|path| path.with_file_name("nvml.table").exists());
    child::ask(&library.context(|| "there is no NVML")?, child::LIMIT)
}

/// The injection, one thing a line, with the machine's folder as `/`. Libraries with all names that the loader finds them by.
fn shown(machine: &Machine, injection: &Injection) -> Vec<String> {
    let of = |path: &Path| Path::new("/").join(path.strip_prefix(machine.path()).expect("it is in the folder"));
    let mut lines = vec![format!("driver {}", injection.driver.as_deref().unwrap_or("none"))];
    let gpu = |g: &Gpu| format!("gpu {} {} {}", g.index, g.pci, g.uuid.as_deref().unwrap_or("-"));
    let part =
        |g: &Gpu| g.instances.iter().map(|p| format!("mig {}:{} {} {}", g.index, p.index, p.uuid, p.profile)).collect();
    lines.extend(injection.gpus.iter().flat_map(|g| -> Vec<String> { [vec![gpu(g)], part(g)].concat() }));
    lines.extend(injection.devices.iter().map(|d| format!("node {} ({})", d.path, d.why)));
    for bind in &injection.binds {
        let (target, source) = (&bind.target, of(&bind.source));
        let names = names(injection, target);
        let names = if names.is_empty() { String::new() } else { format!(" as {}", names.join(" ")) };
        let source = if source == *target { String::new() } else { format!(" = {}", source.display()) };
        lines.push(format!("{} {}{source}{names}", if bind.socket { "socket" } else { "bind" }, target.display()));
    }
    let elsewhere = injection.links.iter().filter(|l| !l.path.starts_with("/.gpurun") || l.to.contains('/'));
    lines.extend(elsewhere.map(|l| format!("link {} -> {}", l.path, l.to)));
    for file in &injection.generated {
        let text = String::from_utf8_lossy(&file.content);
        let text = if file.name == "ld.so.cache" { String::new() } else { format!(": {}", text.trim_end()) };
        lines.push(format!("file {}{text}", file.over));
    }
    lines.extend(injection.proc.iter().map(|(path, _)| format!("proc {path}")));
    lines.extend(injection.env.iter().map(|(name, value)| format!("env {name}={}", value.display())));
    lines.extend(injection.decisions.iter().chain(&injection.warnings).map(|text| format!("note {text}")));
    lines
}

/// The names in the loader's cache that lead to what is bound at `target`, directly, by a link, or in a bound directory.
fn names(injection: &Injection, target: &Path) -> Vec<String> {
    let file = injection.generated.iter().find(|file| file.name == "ld.so.cache").expect("there always is one");
    let cache = ldcache::Cache::parse(&file.content).expect("it can be read");
    let follow =
        |path: &str| injection.links.iter().find(|l| l.path == path).map(|l| Path::new(path).with_file_name(&l.to));
    let leads = |path: &str| {
        let mut at = PathBuf::from(path);
        while let Some(next) = follow(text(&at)) {
            at = next;
        }
        at == target || at.parent() == Some(target)
    };
    let entries = cache.entries.iter().filter(|e| leads(std::str::from_utf8(&e.path).expect("it is text")));
    entries.map(|e| String::from_utf8_lossy(&e.soname).into_owned()).collect()
}

/// What differs from another injection; what is gone by its name alone.
fn differences(base: &[String], other: &[String]) -> String {
    let name = |line: &str| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ");
    let gone = base.iter().filter(|line| !other.contains(line)).map(|line| format!("- {}\n", name(line)));
    let more = other.iter().filter(|line| !base.contains(line)).map(|line| format!("+ {line}\n"));
    gone.chain(more).collect()
}

fn debian() -> Contents {
    Contents { glibc: Some((2, 36)), ..Contents::default() }
}

/// Each layout: all GPUs with the usual capabilities, then what other selections and capabilities change about that.
#[test]
fn every_layout_selection_and_set_of_capabilities() {
    let few = &["compute", "utility", "all"][..];
    let full = &["compute", "utility", "video", "graphics", "display", "all"];
    for (name, files, gpus, caps) in [
        ("ubuntu", None, &["device=1", "device=GPU-aaaa0000-0000-0000-0000-000000000001", "1"][..], &full[..]),
        ("debian", None, &["device=0"], full),
        ("suse", None, &["device=GPU-eeee0000-0000-0000-0000-000000000001"], full),
        ("rhel", None, &["1"], few),
        ("nixos", None, &["1"], few),
        ("vendored", None, &["device=0000:00:04.0"], few),
        ("gke", None, &["1"], few),
        ("operator", None, &["1"], few),
        ("elsewhere", Some("opt/site"), &["1"], few),
        ("fabric", None, &["1"], few),
        ("wsl", None, &[], few),
        ("mig", None, &["device=0:2"], few),
    ] {
        let machine = Machine::new(name);
        let files = files.map(|dir| machine.path().join(dir));
        let root = DriverRoot::folder_with(&machine.path(), files.as_deref()).unwrap();
        let lines = |gpus, caps| shown(&machine, &decide_with(&root, gpus, caps, &debian(), &[]).unwrap());
        let base = lines("all", None);
        let mut out = base.join("\n") + "\n";
        let selections = gpus.iter().map(|gpus| (*gpus, None)).chain(caps.iter().map(|caps| ("all", Some(*caps))));
        for (gpus, caps) in selections {
            let changed = differences(&base, &lines(gpus, caps));
            let _ = write!(out, "\n--gpus {gpus} --gpu-caps {}\n{changed}", caps.unwrap_or("compute,utility"));
        }
        insta::assert_snapshot!(name, out);
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    let mut out = String::new();
    for (name, gpus, caps, env) in [
        ("mismatch", "all", None, ""),
        ("half", "all", None, ""),
        ("stale", "all", None, ""),
        ("elsewhere", "all", None, ""),
        ("wsl", "1", None, ""),
        ("wsl", "device=0", None, ""),
        ("rhel", "2", None, ""),
        ("rhel", "device=1", None, ""),
        ("ubuntu", "device=7", None, ""),
        ("ubuntu", "device=0:1", None, ""),
        ("mig", "device=1:0", None, ""),
        ("mig", "device=0:1", None, ""),
        ("mig", "device=MIG-b", None, ""),
        ("mig", "device=MIG-ffff", None, ""),
        ("mig", "all", None, "NVIDIA_REQUIRE_CUDA=brand=geforce"),
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
fn the_fabric_is_what_can_be_opened_of_it() {
    let decide =
        |list: &str, lockable| rdma::decide(&DriverRoot::folder(&Machine::from_list(list).path()).unwrap(), lockable);
    let fabric = rdma::decide(&DriverRoot::folder(&Machine::new("fabric").path()).unwrap(), None).unwrap();
    let paths: Vec<_> = fabric.devices.iter().map(|device| device.path.as_str()).collect();
    assert_eq!(paths, ["/dev/infiniband/uverbs0", "/dev/infiniband/rdma_cm"]);
    assert_eq!(fabric.warnings.len(), 1, "another job's adapter: {:?}", fabric.warnings);
    let poor = decide("node /dev/infiniband/uverbs0 231:192\n", Some(8 << 20)).unwrap();
    assert!(poor.warnings[0].contains("rdma_cm") && poor.warnings[1].contains("8388608"), "{:?}", poor.warnings);
    let mut out = String::new();
    for list in ["dir /dev\n", "node /dev/infiniband/uverbs0 231:192 EACCES\nnode /dev/infiniband/rdma_cm 10:58\n"] {
        let error = decide(list, None).unwrap_err();
        let _ = writeln!(out, "{error:#}");
        error.hints().iter().for_each(|hint| writeln!(out, "  hint: {hint}").expect("a String takes all"));
    }
    insta::assert_snapshot!(out);
}

/// The image's loader decides how the driver is found.
#[test]
fn every_loader_finds_the_driver() {
    let dir = tempfile::tempdir().unwrap();
    let probe = |paths: &[&str]| {
        let image = tempfile::tempdir_in(&dir).unwrap();
        for path in paths {
            let at = image.path().join(path);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(at, elf(2, "libc.so.6", None)).unwrap();
        }
        Contents::probe(image.path()).unwrap()
    };
    let machine = Machine::new("rhel");
    let find = |image: &Contents, env: &[&str]| {
        let made = decide(&machine, "all", None, image, env).unwrap();
        let files: Vec<_> = made.generated.iter().map(|file| file.over.clone()).collect();
        let path = made.env.iter().find(|(name, _)| *name == "LD_LIBRARY_PATH").map(|(_, path)| path.clone());
        (files, path, made.warnings.join(" "))
    };
    let cache = "/etc/ld.so.cache".to_owned();
    let (files, path, warnings) = find(&probe(&["bin/static"]), &[]);
    assert_eq!((files, path, warnings.as_str()), (vec![cache.clone()], None, ""), "distroless");
    let arch = std::env::consts::ARCH;
    let (files, path, warnings) = find(&probe(&[&format!("lib/ld-musl-{arch}.so.1")]), &[]);
    assert_eq!((files, path), (vec![cache.clone(), format!("/etc/ld-musl-{arch}.path")], None));
    assert!(warnings.contains("musl"), "{warnings}");
    let nix = probe(&["nix/store/abc-glibc-2.40/lib/libc.so.6", "nix/store/abc-glibc-2.40/lib/ld-linux-x86-64.so.2"]);
    assert_eq!(find(&nix, &[]).1.unwrap(), "/.gpurun/lib");
    assert_eq!(find(&nix, &["LD_LIBRARY_PATH=/opt/lib"]).1.unwrap(), "/.gpurun/lib:/opt/lib");
    let both = probe(&["nix/store/abc/x", "etc/ld.so.cache"]);
    assert_eq!(find(&both, &[]).1, None, "a distribution in which somebody has installed Nix");
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
    for list in ["dir /proc\n", "node /dev/dxg 10:125\n"] {
        let bare = Machine::from_list(list);
        assert_eq!(decide(&bare, "auto", None, &debian(), &[]).unwrap().warnings.len(), 1);
    }
    for (list, word) in [
        ("dir /proc\n", "there is no NVIDIA driver"),
        ("node /dev/dxg 10:125\n", "`/usr/lib/wsl/lib/libcuda.so.1` is not there"),
        ("node /dev/dxg 10:125 EACCES\nfile /usr/lib/wsl/lib/libcuda.so.1\n", "`/dev/dxg` cannot be opened"),
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

/// Two GPUs of different kinds, one of which was never used.
fn unlike() -> Machine {
    let text = "driver 550.163.01\ngpu 0000:01:00.0 0 - NVIDIA X1\ngpu 0000:02:00.0 1 GPU-2222 NVIDIA X1\n\
        node /dev/nvidiactl 195:255\nnode /dev/nvidia-uvm 510:0\nnode /dev/nvidia0 195:0\nnode /dev/nvidia1 195:1\n\
        lib /usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01 libcuda.so.1\n\
        lib /usr/lib/x86_64-linux-gnu/libnvidia-ptxjitcompiler.so.550.163.01 libnvidia-ptxjitcompiler.so.1\n\
        nvml /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.163.01\n\
        says driver 550.163.01\nsays cuda 12040\n\
        says gpu 0 GPU-1111 00000000:01:00.0 2 8.0 0 NVIDIA X1\nsays gpu 1 GPU-2222 00000000:02:00.0 5 9.0 0 NVIDIA X1\n";
    Machine::from_list(text)
}

#[test]
fn nvml_is_asked_for_what_proc_does_not_say_and_for_nothing_else() {
    for (gpus, require, asks, want) in [
        ("all", "", false, Ok(2)),
        ("1", "", false, Ok(1)),
        ("device=1", "cuda>=12.4", false, Ok(1)),
        ("device=1", "cuda>=99 brand=tesla,driver>=470,driver<471", false, Err("wants CUDA 99")),
        ("device=GPU-2222", "", false, Ok(1)),
        ("device=GPU-1111", "", true, Ok(1)),
        ("device=GPU-3333", "", true, Err("there is no GPU `gpu-3333`")),
        ("device=0:0", "", true, Err("there is no MIG instance `0:0`: GPU 0 (NVIDIA X1) is not divided")),
        ("device=1", "brand=geforce,arch>=9.0", true, Ok(1)),
        ("all", "brand=geforce", true, Err("and GPU 0 of brand tesla")),
        ("all", "arch>=8.0", true, Ok(2)),
    ] {
        let machine = unlike();
        let env = format!("NVIDIA_REQUIRE_CUDA={require}");
        match (decide(&machine, gpus, None, &debian(), &[&env]), want) {
            (Ok(made), Ok(number)) => {
                assert_eq!((made.gpus.len(), made.warnings), (number, vec![]), "{gpus} {require}");
            }
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{error}"),
            (made, _) => panic!("{gpus} {require}: {made:?}"),
        }
        assert_eq!(machine.asked(), usize::from(asks), "{gpus} {require}");
    }
}

#[test]
fn what_nvml_does_not_say_is_said_not_to_be_checked() {
    let machine = unlike();
    machine.says("init 999");
    let made = decide(&machine, "all", None, &debian(), &["NVIDIA_REQUIRE_X=brand=tesla,arch>=8.0"]).unwrap();
    for (warning, word) in made.warnings.iter().zip(["did not answer", "not known: the brand of the GPU, the compute"])
    {
        assert!(warning.contains(word), "{warning}");
    }
    assert_eq!((made.warnings.len(), machine.asked()), (2, 1));
}

#[test]
fn forward_compatibility_asks_for_the_brand() {
    let dir = tempfile::tempdir().unwrap();
    let newer = image(dir.path(), "usr/local/cuda/compat/libcuda.so.560.35.05");
    for (gpu, on) in [("device=0", true), ("device=1", false)] {
        let machine = unlike();
        let made = decide(&machine, gpu, None, &newer, &[]).unwrap();
        assert_eq!(first_cuda(&made)[0].starts_with("/usr/local/cuda/compat"), on, "{:?}", made.decisions);
        assert_eq!(machine.asked(), 1);
    }
    let machine = unlike();
    machine.says("init 999");
    let made = decide(&machine, "device=1", None, &newer, &[]).unwrap();
    assert!(
        first_cuda(&made)[0].starts_with("/usr/local/cuda/compat"),
        "by its name it may be one: {:?}",
        made.decisions
    );
    assert_eq!(decide(&machine, "device=1", None, &debian(), &[]).unwrap().warnings, [""; 0]);
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
