//! Real files in a container: the loaders of real C libraries, and NVIDIA's own library and program of two branches in both
//! layouts, from `tests/driver-files`. There is no kernel driver, so no more than finding and loading can be seen.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gpus::{can_enter, enter, enter_with, on};
use crate::support::machine::Machine;
use crate::support::pty::Pty;
use crate::support::{Case, Finish, can, text};

fn compile(source: &str, arguments: &[&str], to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let file = to.with_extension("c");
    std::fs::write(&file, source).unwrap();
    let status = Command::new("cc").args(arguments).arg("-o").arg(to).arg(&file).status().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(status.success());
}

/// A Debian libc from `tests/driver-files`, which also has NVIDIA's own files.
fn downloaded() -> Option<PathBuf> {
    let dir = std::env::var_os("GPURUN_TEST_DRIVER").map(PathBuf::from);
    can(dir.is_some(), "what `tests/driver-files` downloads").then_some(dir).flatten()
}

fn with_libc(case: &Case, files: &Path) {
    let copied = Command::new("cp").arg("-a").arg(files.join("libc/.")).arg(case.image.path()).status().unwrap();
    assert!(copied.success());
    case.image.link("/lib64", "usr/lib64");
    case.image.link("/lib", "usr/lib");
}

/// The loader of a real libc, without `LD_LIBRARY_PATH`: the image's own driver is shadowed, with a cache and without.
#[test]
fn the_loader_finds_the_hosts_driver() {
    let Some(files) = downloaded().filter(|_| can_enter()) else { return };
    if !can(Command::new("cc").arg("--version").output().is_ok(), "cc") {
        return;
    }
    let (machine, case) = (Machine::new("ubuntu"), Case::new());
    with_libc(&case, &files);
    let library = |to: &Path, word: &str| {
        let source = format!("const char *who(void) {{ return \"{word}\"; }}\n");
        compile(&source, &["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libcuda.so.1"], to);
    };
    library(&machine.path().join("usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01"), "the host's");
    library(&case.image.at("/usr/lib/x86_64-linux-gnu/libcuda.so.1"), "the image's");
    let program = "#include <dlfcn.h>\n#include <stdio.h>\nint main(void) { void *l = dlopen(\"libcuda.so.1\", 2); \
        if (!l) return puts(dlerror()), 1; puts(((const char *(*)(void)) dlsym(l, \"who\"))()); return 0; }\n";
    compile(program, &["-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2"], &case.image.at("/bin/which-driver"));
    assert_eq!(on(&machine, &case, &["-q"], "which-driver").ok(), "the image's\n");
    assert_eq!(on(&machine, &case, &["-q", "--gpus", "all"], "which-driver").ok(), "the host's\n");
    let cache = Command::new("/sbin/ldconfig").arg("-r").arg(case.image.path()).status();
    if can(cache.is_ok_and(|s| s.success()), "ldconfig") {
        assert_eq!(on(&machine, &case, &["-q"], "which-driver").ok(), "the image's\n");
        assert_eq!(on(&machine, &case, &["-q", "--gpus", "all"], "which-driver").ok(), "the host's\n");
    }
}

/// A small Debian over busybox, with the cache that its ldconfig would write.
fn plain_debian(case: &Case) -> bool {
    let Some(debs) = std::env::var_os("GPURUN_TEST_DEBS") else {
        return can(false, "Debian's packages in $GPURUN_TEST_DEBS");
    };
    for deb in std::fs::read_dir(debs).unwrap() {
        let made = Command::new("dpkg-deb").arg("-x").arg(deb.unwrap().path()).arg(case.image.path()).status();
        assert!(made.unwrap().success());
    }
    assert!(Command::new("/sbin/ldconfig").arg("-r").arg(case.image.path()).status().unwrap().success());
    true
}

/// NVIDIA's own nvidia-smi says 12 where it finds no NVML. With NVML it goes on to the driver, and says 9 if nvidiactl
/// cannot be opened, as without a driver. gpurun must be able to open it or it would refuse, so it is /dev/tty here: that
/// opens for whoever has a terminal, and not in the container, which is a session without one.
#[test]
fn nvidias_own_program_finds_nvidias_own_library() {
    let Some(files) = downloaded().filter(|_| can_enter()) else { return };
    let case = Case::new();
    if !plain_debian(&case) {
        return;
    }
    let script = "nvidia-smi >/dev/null; echo it said $?.";
    for version in ["535.261.03", "550.163.01"] {
        let machine = Machine::from_list(&format!(
            "driver {version}\ngpu 0000:01:00.0 0 - NVIDIA A100\nnode /dev/nvidia0 195:0\n\
             node /dev/nvidiactl 195:255\nnode /dev/nvidia-uvm 510:0\n"
        ));
        for layout in ["", "-flat"] {
            let driver = files.join(format!("{}{layout}", &version[..3]));
            let smi =
                driver.join(if layout.is_empty() { "usr/lib/nvidia/current" } else { "usr/bin" }).join("nvidia-smi");
            let smi = format!("{}:/usr/bin/nvidia-smi", text(&smi));
            assert_eq!(case.sh(&["-v", &smi], script).stdout, "it said 12.\n", "{driver:?}");
            let options = ["--gpus", "all", "--driver-root", text(&driver)];
            let mut terminal = Pty::open();
            let command = enter_with(&machine, &case, "/dev/tty", &options, &["sh", "-c", script]);
            let mut child = terminal.command(&command).spawn().unwrap();
            terminal.expect("it said 9.");
            assert!(child.wait().unwrap().success());
        }
    }
}

/// With a nvidiactl that opens, NVML gets as far as the first ioctl, which /dev/null refuses.
#[test]
fn nvidias_own_library_talks_to_the_node() {
    let Some(files) = downloaded().filter(|_| can_enter()) else { return };
    let (machine, case) = (Machine::new("ubuntu"), Case::new());
    with_libc(&case, &files);
    let driver = files.join("550");
    let options = ["--gpus", "all", "--driver-root", text(&driver)];
    let found = enter(&machine, &case, &options, &["sh", "-c", "nvidia-smi >/dev/null; echo $?"]).finish();
    assert_eq!(found.stdout, "17\n", "{found:?}");
}
