//! GPUs and the driver in a container, with the real program: in a throw-away namespace there is a /proc/driver/nvidia, and
//! /dev/null stands for each node. What a GPU would do is not tested here.

use std::process::Command;

use crate::support::machine::Machine;
use crate::support::{Case, Finish, Finished, can, program, text};

/// Makes the namespace's /proc, /dev and PCI devices those of the machine, with the programs in its `helper` over /usr/bin,
/// then runs the rest.
const ENTER: &str = r#"
set -e
machine=$1 dev=$2 ctl=$3; shift 3
mount -t tmpfs -o mode=755 none /proc/driver
[ ! -d "$machine/proc/driver" ] || cp -r "$machine/proc/driver/." /proc/driver/
if [ -d "$machine/sys/bus/pci/devices" ]; then
    mount -t tmpfs -o mode=755 none /sys/bus/pci/devices
    cp -r "$machine/sys/bus/pci/devices/." /sys/bus/pci/devices/
fi
mount -t tmpfs -o mode=755 none "$dev"
for node in null zero full random urandom tty; do : >"$dev/$node"; mount --bind "/dev/$node" "$dev/$node"; done
while read -r node _; do
    at=$dev/${node#/dev/}
    mkdir -p "$(dirname "$at")"; : >"$at"
    case $node in /dev/nvidiactl) of=$ctl ;; *) of=/dev/null ;; esac
    mount --bind "$of" "$at"
done <"$machine/devices.txt"
mkdir "$dev/shm" "$dev/pts"
mount --rbind "$dev" /dev
[ ! -d "$machine/helper" ] || mount -t overlay -o "lowerdir=$machine/helper:/usr/bin" none /usr/bin
exec "$@" </dev/null
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
    within_with(machine, case, "/dev/null")
}

/// With this device as `/dev/nvidiactl`.
pub(crate) fn within_with(machine: &Machine, case: &Case, ctl: &str) -> Command {
    let mut command = Command::new("unshare");
    case.surround(&mut command);
    let dev = case.path("dev");
    std::fs::create_dir_all(&dev).expect("make a directory");
    command.args(["-Urm", "--propagation", "private", "sh", "-c", ENTER, "sh"]).arg(machine.path()).arg(dev).arg(ctl);
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
fn graphics_nodes_have_the_links_that_udev_makes() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("ubuntu"), Case::new());
    let options = ["--gpus", "device=0", "--gpu-caps", "graphics"];
    let script =
        "cd /dev/dri; ls; for link in by-path/*; do echo $link $(readlink $link); test -c $link; done && echo nodes";
    let want = "by-path\ncard0\nrenderD128\nby-path/pci-0000:07:00.0-card ../card0\n\
                by-path/pci-0000:07:00.0-render ../renderD128\nnodes\n";
    assert_eq!(on(&machine, &case, &options, script).stdout, want);
}

#[test]
fn the_fabric_is_there_if_asked_for() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("fabric"), Case::new());
    let script = "ls /dev/infiniband; ls /dev | grep nvidia";
    let want = "rdma_cm\nuverbs0\nuverbs1\n";
    assert_eq!(on(&machine, &case, &["--gpus", "none", "--rdma"], script).stdout, want);
    let without = on(&machine, &case, &["--gpus", "none"], "test -e /dev/infiniband || echo none");
    assert_eq!(without.stdout, "none\n");
    on(&Machine::new("rhel"), &case, &["--rdma"], script).refused(&["no InfiniBand or RoCE adapter", "ib_uverbs"]);
    let driver = machine.path();
    let options = ["explain", "--gpus", "none", "--rdma", "--driver-root", text(&driver)];
    assert!(enter(&machine, &case, &options, &["true"]).finish().ok().contains("/dev/infiniband/uverbs0  (--rdma)"));
}

#[test]
fn windows_lends_its_driver() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("wsl"), Case::new());
    let script = "test -c /dev/dxg && cd /usr/lib/wsl && ls lib drivers && test -s /usr/bin/nvidia-smi && echo smi
        touch lib/x drivers/*/x 2>/dev/null || echo kept";
    let want = "drivers:\nnvlt.inf_amd64_0123456789abcdef\n\nlib:\nlibcuda.so\nlibcuda.so.1\nlibcuda.so.1.1\n\
                libdxcore.so\nlibnvidia-ml.so.1\nnvidia-smi\nsmi\nkept\n";
    assert_eq!(on(&machine, &case, &["--gpus", "all"], script).stdout, want);
    assert_eq!(on(&machine, &case, &["--gpus", "none"], "ls /dev/dxg /usr 2>/dev/null | grep -c .").stdout, "0\n");
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
