//! GPUs and the driver in a container, with the real program: in a throw-away namespace there is a /proc/driver/nvidia, and
//! /dev/null stands for each node. What a GPU would do is not tested here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::machine::Machine;
use crate::support::{Case, Finish, Finished, can, program, text};

/// Makes the namespace's /proc and /dev those of the machine, with the programs in its `helper` over /usr/bin, then runs the
/// rest.
const ENTER: &str = r#"
set -e
machine=$1 dev=$2; shift 2
mount -t tmpfs -o mode=755 none /proc/driver
[ ! -d "$machine/proc/driver" ] || cp -r "$machine/proc/driver/." /proc/driver/
mount -t tmpfs -o mode=755 none "$dev"
for node in null zero full random urandom tty; do : >"$dev/$node"; mount --bind "/dev/$node" "$dev/$node"; done
while read -r node _; do
    at=$dev/${node#/dev/}
    mkdir -p "$(dirname "$at")"; : >"$at"; mount --bind /dev/null "$at"
done <"$machine/devices.txt"
mkdir "$dev/shm" "$dev/pts"
mount --rbind "$dev" /dev
[ ! -d "$machine/helper" ] || mount -t overlay -o "lowerdir=$machine/helper:/usr/bin" none /usr/bin
exec "$@"
"#;

/// `gpurun OPTIONS IMAGE sh -c SCRIPT` on the machine, with its files as the driver's.
pub(crate) fn on(machine: &Machine, case: &Case, options: &[&str], script: &str) -> Finished {
    let driver = machine.path();
    let options = [&["--driver-root", text(&driver)], options].concat();
    enter(machine, case, &options, &["sh", "-c", script]).finish()
}

/// `gpurun OPTIONS IMAGE ARGV` on the machine.
pub(crate) fn enter(machine: &Machine, case: &Case, options: &[&str], argv: &[&str]) -> Command {
    let mut command = inside(machine, case, options);
    command.arg(case.reference()).args(argv);
    command
}

/// `gpurun ARGUMENTS` on the machine.
pub(crate) fn inside(machine: &Machine, case: &Case, arguments: &[&str]) -> Command {
    let mut command = within(machine, case);
    command.args(arguments);
    command
}

/// `gpurun` on the machine.
pub(crate) fn within(machine: &Machine, case: &Case) -> Command {
    let mut command = Command::new("unshare");
    case.surround(&mut command);
    let dev = case.path("dev");
    std::fs::create_dir_all(&dev).expect("make a directory");
    command.args(["-Urm", "--propagation", "private", "sh", "-c", ENTER, "sh"]).arg(machine.path()).arg(dev);
    command.arg(program());
    command
}

pub(crate) fn can_enter() -> bool {
    let made = Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "none", "/proc/driver"]).status();
    can(made.is_ok_and(|status| status.success()), "user namespaces and unshare")
}

#[test]
fn the_chosen_gpu_and_the_driver_are_there_and_no_other() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("ubuntu"), Case::new());
    let before = case.image.digest();
    let script = "ls /dev | grep nvidia; ls /proc/driver/nvidia/gpus; grep Modify /proc/driver/nvidia/params
        ls /.gpurun/lib | grep cuda; readlink /.gpurun/lib/libcuda.so.1; test -s /usr/bin/nvidia-smi && echo smi
        echo $CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES; touch /.gpurun/lib/x /proc/driver/nvidia/x 2>/dev/null || echo kept";
    for options in [&["--gpus", "device=1"][..], &["--gpus", "device=1", "--read-only", "-e", "LD_PRELOAD=/evil.so"]] {
        let want = "nvidia-uvm\nnvidia-uvm-tools\nnvidia0\nnvidiactl\n0000:0f:00.0\nModifyDeviceFiles: 0\n\
                    libcuda.so\nlibcuda.so.1\nlibcuda.so.550.163.01\nlibcuda.so.550.163.01\nsmi\n0 void\nkept\n";
        assert_eq!(on(&machine, &case, options, script).stdout, want);
    }
    assert_eq!(case.image.digest(), before, "the image is untouched");
    let none = on(&machine, &case, &["--gpus", "none"], "ls /dev /.gpurun 2>&1 | grep -c nvidia");
    assert_eq!(none.stdout, "0\n");
}

#[test]
fn what_is_chosen_can_be_asked_for() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("ubuntu"), Case::new());
    let driver = machine.path();
    let options = ["explain", "--gpus", "all", "--driver-root", text(&driver)];
    let finished = enter(&machine, &case, &options, &["true"]).finish();
    for line in ["driver: 550.163.01", "/dev/nvidia1  (a chosen GPU)", "CUDA forward compatibility: off"] {
        assert!(finished.ok().contains(line), "{line}");
    }
}

#[test]
fn a_users_mount_is_no_place_for_files_of_ours() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("ubuntu"), Case::new());
    let mine = case.file("mine/file", "x");
    let bind = format!("{}:/etc", text(mine.parent().unwrap()));
    let finished = on(&machine, &case, &["--gpus", "all", "-v", &bind], "ls /etc");
    assert_eq!(finished.stdout, "file\n");
    assert_eq!(std::fs::read_dir(mine.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn hostile_images_gain_nothing() {
    if !can_enter() {
        return;
    }
    let (machine, outside) = (Machine::new("ubuntu"), Case::new());
    let secret = outside.file("secret/file", "secret");
    let dir = secret.parent().unwrap();
    for path in ["/usr/lib64", "/usr/bin", "/etc/ld.so.cache", "/etc/OpenCL", "/usr/local/cuda/compat", "/run", "/lib"]
    {
        for to in [text(dir), text(&secret), "/proc/self/root", "/proc/1/root/tmp", "../../../../../../tmp", "/"] {
            let case = Case::new();
            std::fs::create_dir_all(case.image.at(path).parent().unwrap()).unwrap();
            case.image.link(path, to);
            let before = case.image.digest();
            let finished = on(&machine, &case, &["--gpus", "all"], "echo ran");
            assert!(finished.stdout == "ran\n" || finished.stderr.contains("error: "), "{path} {to}: {finished:?}");
            assert_eq!(case.image.digest(), before, "{path} {to}");
        }
    }
    for path in ["/dev", "/proc", "/.gpurun"] {
        let case = Case::new();
        case.image.link(path, text(dir));
        on(&machine, &case, &["-q", "--gpus", "all"], "echo ran").refused(&["symbolic link"]);
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "nothing is made outside");
}

pub(crate) fn compile(source: &str, arguments: &[&str], to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let file = to.with_extension("c");
    std::fs::write(&file, source).unwrap();
    let status = Command::new("cc").args(arguments).arg("-o").arg(to).arg(&file).status().unwrap();
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

/// NVIDIA's own nvidia-smi says 12 where it finds no NVML. With NVML it goes on to the driver, which is not there: 9 if
/// there is no nvidiactl, 17 if, as here, nvidiactl is /dev/null and refuses the first ioctl.
#[test]
fn nvidias_own_program_finds_nvidias_own_library() {
    let Some(files) = downloaded().filter(|_| can_enter()) else { return };
    let (machine, case) = (Machine::new("ubuntu"), Case::new());
    with_libc(&case, &files);
    let driver = files.join("driver");
    let smi = format!("{}:/usr/bin/nvidia-smi", text(&driver.join("usr/lib/nvidia/current/nvidia-smi")));
    assert_eq!(case.sh(&["-v", &smi], "nvidia-smi >/dev/null; echo $?").stdout, "12\n");
    let options = ["--gpus", "all", "--driver-root", text(&driver)];
    let found = enter(&machine, &case, &options, &["sh", "-c", "nvidia-smi >/dev/null; echo $?"]).finish();
    assert_eq!(found.stdout, "17\n", "{found:?}");
    let ml = format!(
        "{}:/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        text(&driver.join("usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.550.163.01"))
    );
    assert_eq!(case.sh(&["-v", &smi, "-v", &ml], "nvidia-smi >/dev/null; echo $?").stdout, "9\n");
}
