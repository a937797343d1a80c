//! Images that would have the host's files read, written or bound when GPUs are injected. Each run is either refused or right,
//! and the outside is as it was.

use std::path::{Path, PathBuf};
use std::process::Command;

use gpurun::gpu::ldcache::{Cache, Entry, FLAGS_X86_64};
use serde_json::json;

use crate::gpus::{can_enter, inside, on};
use crate::support::image::Image;
use crate::support::machine::{Machine, elf};
use crate::support::{Case, Finish, Finished, text};

/// What an image leads to: each of its files would be seen in the container if it were read or bound.
struct Outside(Case);

impl Outside {
    fn new() -> Self {
        let outside = Self(Case::new());
        let cache = Cache { entries: vec![Entry::new(FLAGS_X86_64, "libsecret.so.1", "/secret")], hwcaps: Vec::new() };
        std::fs::create_dir(outside.dir()).unwrap();
        for (name, content) in [
            ("ld.so.cache", cache.bytes()),
            ("libcuda.so.999.1", elf(2, "libcuda.so.1", None)),
            ("nvidia-smi", b"secret".to_vec()),
            ("file", b"secret".to_vec()),
        ] {
            std::fs::write(outside.dir().join(name), content).unwrap();
        }
        outside
    }

    fn dir(&self) -> PathBuf {
        self.0.path("secret")
    }
}

/// Looks for anything of the outside: in the mounts, the cache, the files, and in what is decided.
const LOOK: &str = "grep SECRET /proc/self/mountinfo; grep -a libsecret /etc/ld.so.cache
    cat /usr/lib64/file /etc/file /etc/nvidia/file /usr/bin/file /usr/local/cuda/compat/file 2>/dev/null
    test -e /usr/local/cuda/compat/libcuda.so.999.1 && echo its libcuda; ls -d SECRET 2>/dev/null
    ls /dev | grep -x nvidia[0-9]; echo ran";

/// With all capabilities, so that every path is used.
const ALL: &[&str] = &["-q", "--gpus", "device=0", "--gpu-caps", "all"];

fn look(machine: &Machine, case: &Case, outside: &Outside) -> Finished {
    on(machine, case, ALL, &LOOK.replace("SECRET", text(&outside.dir())))
}

/// Everything below a directory with what any change of it changes; nothing is opened.
fn stamps(dir: &Path) -> String {
    let mut find = Command::new("find");
    find.arg(dir).args(["-printf", "%P %i %m %n %s %T@ %C@\\n"]).finish().ok().to_owned()
}

/// Runs what the image makes of it. It is right or refused with a sentence, and neither the outside nor the image has changed.
fn harmless(machine: &Machine, outside: &Outside, what: &str, make: impl FnOnce(&Case)) -> Finished {
    let case = Case::new();
    make(&case);
    let (before, image) = (stamps(&outside.dir()), stamps(case.image.path()));
    let finished = look(machine, &case, outside);
    let refused = finished.status == 125 && finished.stderr.starts_with("error: ") && finished.stdout.is_empty();
    assert!(finished.stdout == "nvidia1\nran\n" || refused, "{what}: {finished:?}");
    assert_eq!(stamps(&outside.dir()), before, "{what} changed the outside");
    assert_eq!(stamps(case.image.path()), image, "{what} changed the image");
    finished
}

#[test]
fn links_lead_nowhere() {
    if !can_enter() {
        return;
    }
    let (machine, outside) = (Machine::new("ubuntu"), Outside::new());
    let dir = outside.dir();
    let up = format!("../../../../../../../..{}", text(&dir));
    let magic = ["/proc/self/root", "/proc/self/fd/3", "/proc/self/cwd"];
    let places = [
        "/usr",
        "/usr/lib64",
        "/usr/bin",
        "/usr/share",
        "/usr/local/cuda/compat",
        "/etc",
        "/etc/nvidia",
        "/run",
        "/lib",
    ];
    for path in places {
        for to in [text(&dir), &up, "/"].iter().chain(&magic) {
            let make = |case: &Case| link(case, path, to);
            harmless(&machine, &outside, &format!("{path} -> {to}"), make);
        }
    }
    let file = |name: &str| text(&dir.join(name)).to_owned();
    for (path, to) in [
        ("/etc/ld.so.cache", file("ld.so.cache")),
        ("/etc/ld.so.cache", "/proc/self/environ".into()),
        ("/etc/ld.so.cache", "/proc/self/fd/0".into()),
        ("/usr/bin/nvidia-smi", file("nvidia-smi")),
        ("/usr/local/cuda/compat/libcuda.so.999.1", file("libcuda.so.999.1")),
        ("/etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf", file("file")),
        ("/etc/OpenCL/vendors/nvidia.icd", file("file")),
    ] {
        harmless(&machine, &outside, &format!("{path} -> {to}"), |case| link(case, path, &to));
    }
}

fn link(case: &Case, path: &str, to: &str) {
    let at = case.image.at(path);
    if path == "/etc" {
        std::fs::remove_dir(&at).unwrap();
    }
    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
    case.image.link(path, to);
}

#[test]
fn gpuruns_own_places_are_no_links() {
    if !can_enter() {
        return;
    }
    let (machine, outside) = (Machine::new("ubuntu"), Outside::new());
    for path in ["/dev", "/proc", "/sys", "/.gpurun"] {
        for to in [text(&outside.dir()), "/tmp", "/proc/self/fd/3"] {
            let what = format!("{path} -> {to}");
            harmless(&machine, &outside, &what, |case| link(case, path, to)).refused(&["symbolic link", path]);
        }
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    if !can_enter() {
        return;
    }
    let (machine, outside) = (Machine::new("ubuntu"), Outside::new());
    let fifo = |case: &Case, path: &str| {
        std::fs::create_dir_all(case.image.at(path).parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&case.image.at(path), nix::sys::stat::Mode::S_IRWXU).unwrap();
    };
    for path in [
        "/etc/ld.so.cache",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/ld-musl-x86_64.so.1",
        "/usr/local/cuda/compat/libcuda.so.560.35.05",
        "/usr/bin/nvidia-smi",
        "/etc/OpenCL/vendors/nvidia.icd",
    ] {
        let finished = harmless(&machine, &outside, &format!("a FIFO at {path}"), |case| fifo(case, path));
        assert_eq!(finished.stdout, "nvidia1\nran\n", "{path}: {finished:?}");
    }
    for path in ["/.gpurun", "/usr", "/usr/bin"] {
        harmless(&machine, &outside, &format!("a FIFO at {path}"), |case| fifo(case, path)).refused(&[path]);
    }
    for path in ["/etc/ld.so.cache", "/usr/bin/nvidia-smi"] {
        let make = |case: &Case| std::fs::create_dir_all(case.image.at(path)).unwrap();
        harmless(&machine, &outside, &format!("a directory at {path}"), make).refused(&["directory", path]);
    }
}

#[test]
fn caches_that_lie_are_replaced() {
    if !can_enter() {
        return;
    }
    let (machine, outside) = (Machine::new("ubuntu"), Outside::new());
    let header = |count: u32| [b"glibc-ld.so.cache1.1".as_slice(), &count.to_le_bytes(), &[0xff; 24]].concat();
    let write = |case: &Case, bytes: &[u8], size: u64| {
        case.image.file("/etc/ld.so.cache", bytes);
        let file = std::fs::File::options().write(true).open(case.image.at("/etc/ld.so.cache")).unwrap();
        file.set_len(size).unwrap();
    };
    for (what, bytes, size) in [
        ("a cache of 4 GB", header(u32::MAX), 4 << 30),
        ("a header that says 4 GB", header(u32::MAX), 48),
        ("a header that says too much", header(0x1000_0000), 4096),
        ("noise", vec![0xa5; 4096], 4096),
        ("nothing", Vec::new(), 0),
    ] {
        let finished = harmless(&machine, &outside, what, |case| write(case, &bytes, size));
        assert_eq!(finished.stdout, "nvidia1\nran\n", "{what}: {finished:?}");
    }
    let case = Case::new();
    write(&case, &header(u32::MAX), 48);
    let said = on(&machine, &case, &["--gpus", "all"], "grep -ac /.gpurun/lib/libcuda.so.1 /etc/ld.so.cache");
    assert_eq!(said.stdout, "1\n");
    assert!(said.stderr.contains("the image's /etc/ld.so.cache is broken: it is replaced"), "{said:?}");
}

/// NVIDIAScape, CVE-2025-23266: nothing outside runs with the image's environment, and it widens nothing.
#[test]
fn the_images_environment_is_for_the_workload_alone() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("ubuntu"), Case::new());
    let env = [
        "PATH=/bin",
        "LD_PRELOAD=/proc/self/cwd/evil.so",
        "LD_LIBRARY_PATH=/evil",
        "NVIDIA_VISIBLE_DEVICES=all",
        "CUDA_VISIBLE_DEVICES=7",
        "GPURUN_DRIVER_ROOT=/evil",
    ];
    let image = Image::busybox().config(json!({"Env": env, "WorkingDir": "/tmp"}));
    let reference = format!("oci:{}", text(&image.layout(&case, "layout")));
    let driver = machine.path();
    let options = ["-q", "--gpus", "device=0", "--driver-root", text(&driver)];
    let script = "echo $LD_PRELOAD $LD_LIBRARY_PATH $NVIDIA_VISIBLE_DEVICES $CUDA_VISIBLE_DEVICES; ls /dev | grep -x nvidia[0-9]";
    let arguments = [&options[..], &[&reference, "sh", "-c", script]].concat();
    let run = || inside(&machine, &case, &arguments).finish();
    let first = run(); // pulls, then runs; the second time it is there
    for finished in [first, run()] {
        assert_eq!(finished.stdout, "/proc/self/cwd/evil.so /evil void 0\nnvidia1\n", "{finished:?}");
    }
}
