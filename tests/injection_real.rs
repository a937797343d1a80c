//! Real files in a container: the loaders of real C libraries, and NVIDIA's own library and program of two branches in both
//! layouts, from `tests/driver-files`. There is no kernel driver, so no more than finding and loading can be seen.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gpus::{can_enter, enter, on, within_with};
use crate::support::machine::Machine;
use crate::support::pty::Pty;
use crate::support::{Case, Finish, can, text};

pub(crate) fn compile(source: &str, arguments: &[&str], to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let file = to.with_extension("c");
    std::fs::write(&file, source).unwrap();
    let status = Command::new("cc").arg("-o").arg(to).arg(&file).args(arguments).status().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(status.success());
}

/// A Debian libc from `tests/driver-files`, which also has NVIDIA's own files.
pub(crate) fn downloaded() -> Option<PathBuf> {
    let dir = std::env::var_os("GPURUN_TEST_DRIVER").map(PathBuf::from);
    can(dir.is_some(), "what `tests/driver-files` downloads").then_some(dir).flatten()
}

pub(crate) fn with_libc(case: &Case, files: &Path) {
    let copied = Command::new("cp").arg("-a").arg(files.join("libc/.")).arg(case.image.path()).status().unwrap();
    assert!(copied.success());
    case.image.link("/lib64", "usr/lib64");
    case.image.link("/lib", "usr/lib");
}

/// A library that says a word.
fn library(to: &Path, soname: &str, word: &str) {
    let source = format!("const char *who(void) {{ return \"{word}\\n\"; }}\n");
    compile(&source, &["-shared", "-fPIC", "-nostdlib", &format!("-Wl,-soname,{soname}")], to);
}

/// A program that loads the library that it is told and has it say its word.
const WHO: &str = "#include <dlfcn.h>\n#include <stdio.h>\nint main(int argc, char **argv) {
    void *library = dlopen(argv[1], 2);
    if (!library) return puts(dlerror()), 1;
    fputs(((const char *(*)(void)) dlsym(library, \"who\"))(), stdout);
    return 0;
}\n";

const GLIBC: &str = "-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2";

/// What is downloaded, and the machine whose libcuda says that it is the host's; nothing without a compiler.
fn provided() -> Option<(PathBuf, Machine)> {
    let files = downloaded().filter(|_| can_enter())?;
    if !can(Command::new("cc").arg("--version").output().is_ok(), "cc") {
        return None;
    }
    let machine = Machine::new("ubuntu");
    library(&machine.path().join("usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01"), "libcuda.so.1", "the host's");
    Some((files, machine))
}

fn ldconfig(case: &Case) {
    let made = Command::new("/sbin/ldconfig").arg("-r").arg(case.image.path()).status();
    assert!(made.expect("the C library has ldconfig").success());
}

/// The loader of a real libc, without `LD_LIBRARY_PATH`: the image's own driver is shadowed, without a cache (as in images
/// that have no distribution) and with one.
#[test]
fn the_loader_finds_the_hosts_driver() {
    let Some((files, machine)) = provided() else { return };
    let case = Case::new();
    with_libc(&case, &files);
    library(&case.image.at("/usr/lib/x86_64-linux-gnu/libcuda.so.1"), "libcuda.so.1", "the image's");
    compile(WHO, &[GLIBC], &case.image.at("/bin/which-driver"));
    let check = || {
        assert_eq!(on(&machine, &case, &["-q"], "which-driver libcuda.so.1").ok(), "the image's\n");
        for name in ["libcuda.so.1", "libcuda.so"] {
            assert_eq!(
                on(&machine, &case, &["-q", "--gpus", "all"], &format!("which-driver {name}")).ok(),
                "the host's\n"
            );
        }
    };
    check();
    ldconfig(&case);
    check();
}

/// A library that only a directory for better processors has is known by the cache's extension alone.
#[test]
fn libraries_for_better_processors_are_still_found() {
    let Some((files, machine)) = provided() else { return };
    let case = Case::new();
    with_libc(&case, &files);
    library(&case.image.at("/opt/lib/glibc-hwcaps/x86-64-v2/libfast.so.1"), "libfast.so.1", "the fast one");
    case.image.file("/etc/ld.so.conf.d/opt.conf", "/opt/lib\n");
    case.image.file("/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
    compile(WHO, &[GLIBC], &case.image.at("/bin/which-driver"));
    ldconfig(&case);
    let script = "which-driver libfast.so.1; which-driver libcuda.so.1";
    assert_eq!(on(&machine, &case, &["-q", "--gpus", "all"], script).stdout, "the fast one\nthe host's\n");
}

/// Nix's loader is glibc's with another place for its cache, which `--inhibit-cache` does to Debian's.
#[test]
fn a_loader_that_reads_no_cache_is_told_the_directory() {
    let Some((files, machine)) = provided() else { return };
    let case = Case::new();
    let store = "/nix/store/abc-glibc-2.41/lib";
    std::fs::create_dir_all(case.image.at(store)).unwrap();
    for name in ["ld-linux-x86-64.so.2", "libc.so.6"] {
        std::fs::copy(files.join("libc/usr/lib/x86_64-linux-gnu").join(name), case.image.at(store).join(name)).unwrap();
    }
    compile(WHO, &[&format!("-Wl,-rpath,{store}")], &case.image.at("/bin/which-driver"));
    let script = format!("{store}/ld-linux-x86-64.so.2 --inhibit-cache /bin/which-driver libcuda.so.1");
    assert_eq!(on(&machine, &case, &["-q", "--gpus", "all"], &script).ok(), "the host's\n");
    let driver = machine.path();
    let explain = ["explain", "--gpus", "all", "--driver-root", text(&driver)];
    let explained = enter(&machine, &case, &explain, &["true"]).finish();
    assert!(explained.ok().contains("LD_LIBRARY_PATH: set, since loaders in /nix/store"), "{explained:?}");
}

/// musl's loader with a program that needs libcuda and no libc, which Alpine's own path file must not hide.
#[test]
fn musls_loader_finds_the_hosts_driver() {
    let Some((files, machine)) = provided() else { return };
    let case = Case::new();
    std::fs::create_dir(case.image.at("/lib")).unwrap();
    let musl = files.join("musl/usr/lib/x86_64-linux-musl/libc.so");
    std::fs::copy(musl, case.image.at("/lib/ld-musl-x86_64.so.1")).unwrap();
    let source = "const char *who(void);
        static long call(long n, long a, long b, long c) {
            long r; __asm__ volatile(\"syscall\" : \"=a\"(r) : \"a\"(n), \"D\"(a), \"S\"(b), \"d\"(c) : \"rcx\", \"r11\", \"memory\");
            return r;
        }
        __attribute__((force_align_arg_pointer)) void _start(void) {
            const char *word = who(); long size = 0; while (word[size]) size++;
            call(1, 1, (long) word, size); call(231, 0, 0, 0);
        }\n";
    let cuda = machine.path().join("usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01");
    let arguments = ["-nostdlib", "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1", text(&cuda)];
    compile(source, &arguments, &case.image.at("/bin/which-driver"));
    let found = on(&machine, &case, &["--gpus", "all"], "which-driver");
    assert_eq!(found.stdout, "the host's\n", "{found:?}");
    assert!(found.stderr.contains("the image has musl and no glibc"), "{found:?}");
    case.image.file("/etc/ld-musl-x86_64.path", "/opt/lib\n");
    assert_eq!(
        on(&machine, &case, &["-q", "--gpus", "all"], "which-driver; cat /etc/ld-musl-x86_64.path").ok(),
        "the host's\n/opt/lib:/.gpurun/lib\n"
    );
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
    ldconfig(case);
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
            let options = ["--gpus", "all", "--gpu-caps", "all", "--driver-root", text(&driver)];
            let mut terminal = Pty::open();
            let mut command = within_with(&machine, &case, "/dev/tty");
            command.args(options).arg(case.reference()).args(["sh", "-c", script]);
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
