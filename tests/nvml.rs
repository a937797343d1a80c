//! What only NVML knows, with the real program: `support/nvml.c` is the driver's library, in a throw-away namespace that has
//! its /proc/driver/nvidia, or has none.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use gpurun::error::Result;
use gpurun::gpu::nvml::{Answers, child};

use crate::gpus::{can_enter, enter, on, within};
use crate::support::machine::Machine;
use crate::support::{Case, Finish, Finished, text};

const LIBRARY: &str = "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.163.01";

/// What a workload sees of GPUs and MIG instances.
const SEEN: &str = "ls /dev | grep -E 'nvidia[0-9]'; ls /dev/nvidia-caps 2>/dev/null; echo $CUDA_VISIBLE_DEVICES
    cd /proc/driver/nvidia 2>/dev/null && ls gpus && find capabilities -type f 2>/dev/null | sort && grep -h Modify params $(find . -name access)";

/// A machine with an NVML and what it says, and nothing in /proc.
fn machine(says: &[&str]) -> Machine {
    let libraries = ["libcuda", "libnvidia-ptxjitcompiler"];
    let lib = |name: &str| format!("lib /usr/lib/x86_64-linux-gnu/{name}.so.550.163.01 {name}.so.1\n");
    let nodes =
        "node /dev/nvidiactl 195:255\nnode /dev/nvidia-uvm 510:0\nnode /dev/nvidia0 195:0\nnode /dev/nvidia1 195:1\n";
    let list = format!(
        "{nodes}{}nvml /{LIBRARY}\nlink /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1 libnvidia-ml.so.550.163.01\n",
        libraries.map(lib).concat()
    );
    let machine = Machine::from_list(&list);
    for line in says {
        machine.says(line);
    }
    machine
}

fn ask(machine: &Machine, limit: Duration) -> Result<Answers> {
    child::ask(&machine.path().join(LIBRARY), limit)
}

#[test]
fn a_library_that_fails_is_a_sentence() {
    let mut out = String::new();
    for says in ["init 9", "init 18", "do crash", "do sleep", "driver x", "driver 550.163.01\ndo print"] {
        let machine = machine(&[says]);
        let limit = if says == "do sleep" { Duration::from_millis(300) } else { child::LIMIT };
        let said = match ask(&machine, limit) {
            Ok(answers) => format!("driver {}", answers.driver),
            Err(error) => format!("{error:#}").replace(text(&machine.path()), ""),
        };
        writeln!(out, "{}: {said}", says.replace('\n', ", ")).unwrap();
    }
    insta::assert_snapshot!(out);
    let error = child::ask(Path::new("/none/libnvidia-ml.so.1"), child::LIMIT).unwrap_err();
    assert!(format!("{error:#}").contains("/none/libnvidia-ml.so.1"), "{error:#}");
}

#[test]
fn sixteen_gpus_are_sixteen_answers() {
    let lines: Vec<_> =
        (0..16).map(|n| format!("gpu {n} GPU-{n} 00000000:{n:02X}:00.0 5 8.9 -1 NVIDIA GeForce RTX 4090")).collect();
    let says: Vec<_> =
        ["driver 550.163.01", "cuda 12040"].into_iter().chain(lines.iter().map(String::as_str)).collect();
    let answers = ask(&machine(&says), child::LIMIT).unwrap();
    assert_eq!((answers.cuda, answers.gpus.len()), (Some((12, 4)), 16));
    let last = &answers.gpus[15];
    assert_eq!((last.minor, &*last.pci, last.brand.as_deref(), last.mig), (15, "0000:0f:00.0", Some("geforce"), false));
    assert_eq!(last.compute.as_ref().unwrap().as_str(), "8.9");
}

/// `gpurun OPTIONS` on the machine, with a store of its own.
fn run(machine: &Machine, case: &Case, options: &[&str], script: &str) -> Finished {
    let store = case.path("store");
    on(machine, case, &[&["--store", text(&store)], options].concat(), script)
}

#[test]
fn a_mig_instance_is_there_and_no_other() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("mig"), Case::new());
    let place = "GPU-aaaa0000-0000-0000-0000-000000000001/5/1";
    for (gpus, want) in [
        (
            "device=0:0",
            "nvidia1\nnvidia-cap156\nnvidia-cap157\nMIG-bbbb0000-0000-0000-0000-000000000001\n0000:07:00.0\n\
            capabilities/gpu1/mig/gi1/access\ncapabilities/gpu1/mig/gi1/ci0/access\n",
        ),
        (
            "device=MIG-cccc",
            "nvidia1\nnvidia-cap192\nnvidia-cap194\nMIG-cccc0000-0000-0000-0000-000000000003\n0000:07:00.0\n\
            capabilities/gpu1/mig/gi5/access\ncapabilities/gpu1/mig/gi5/ci1/access\n",
        ),
        (
            &format!("device=MIG-{place}"),
            "nvidia1\nnvidia-cap192\nnvidia-cap194\nMIG-cccc0000-0000-0000-0000-000000000003\n0000:07:00.0\n\
            capabilities/gpu1/mig/gi5/access\ncapabilities/gpu1/mig/gi5/ci1/access\n",
        ),
        ("device=1", "nvidia0\n0\n0000:0f:00.0\n"),
    ] {
        let finished = run(&machine, &case, &["--gpus", gpus], SEEN);
        let (seen, modify) = finished.stdout.split_once("ModifyDeviceFiles: 0\n").expect(&finished.stderr);
        assert_eq!(seen, want, "{gpus}");
        assert!(modify.lines().all(|line| line == "DeviceFileModify: 0"), "{modify}");
        assert!(!finished.stderr.contains("MIG"), "{}", finished.stderr);
    }
    assert_eq!(machine.asked(), 1, "the store remembers, and a whole GPU needs no NVML");
    case.bare().args(["prune", "--store", text(&case.path("store"))]).finish().ok();
    run(&machine, &case, &["--gpus", "all"], "true").ends(0);
    assert_eq!(machine.asked(), 2, "it forgets what is pruned");
}

#[test]
fn all_is_every_instance_and_every_whole_gpu() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("mig"), Case::new());
    let finished = run(
        &machine,
        &case,
        &["--gpus", "all"],
        "ls /dev/nvidia-caps /dev | grep -E 'cap|nvidia[0-9]'; echo $CUDA_VISIBLE_DEVICES",
    );
    let visible = "MIG-bbbb0000-0000-0000-0000-000000000001,MIG-bbbb0000-0000-0000-0000-000000000002,\
                   MIG-cccc0000-0000-0000-0000-000000000003,GPU-aaaa0000-0000-0000-0000-000000000002\n";
    for word in
        ["nvidia-cap156\nnvidia-cap157\nnvidia-cap192\nnvidia-cap193\nnvidia-cap194\n", "nvidia0\nnvidia1\n", visible]
    {
        assert!(finished.stdout.contains(word), "{finished:?}");
    }
    assert!(finished.stderr.contains("one MIG instance") && !finished.stdout.contains("nvidia-cap1\n"), "{finished:?}");
    let mut variable =
        enter(&machine, &case, &["--driver-root", text(&machine.path())], &["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]);
    let finished = variable.env("NVIDIA_VISIBLE_DEVICES", "MIG-cccc,1").finish();
    assert_eq!(finished.stdout, "MIG-cccc0000-0000-0000-0000-000000000003,GPU-aaaa0000-0000-0000-0000-000000000002\n");
}

#[test]
fn without_nvml_the_whole_gpus_go_on() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("mig"), Case::new());
    machine.says("init 999");
    let finished = run(&machine, &case, &["--gpus", "all"], "ls /dev | grep -E 'nvidia[0-9]'");
    assert_eq!(finished.stdout, "nvidia0\n");
    assert!(finished.stderr.contains("NVML was needed, since MIG is on, and did not answer"), "{}", finished.stderr);
    run(&machine, &case, &["--gpus", "device=0"], "true").refused(&["only NVML knows its instances", "did not answer"]);
    run(&machine, &case, &["--gpus", "device=MIG-cccc"], "true")
        .refused(&["there is no MIG instance", "did not answer"]);
}

#[test]
fn a_store_that_cannot_be_written_asks_each_time() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("mig"), Case::new());
    for _ in 0..2 {
        let options = ["--store", "/proc/none", "--gpus", "device=0:0"];
        assert_eq!(on(&machine, &case, &options, "echo ran").stdout, "ran\n");
    }
    assert_eq!(machine.asked(), 2);
}

/// As in gVisor: nodes, the driver's files, and nothing in /proc.
#[test]
fn a_sandbox_has_no_proc_and_has_nvml() {
    if !can_enter() {
        return;
    }
    let says = [
        "driver 550.163.01",
        "cuda 12040",
        "gpu 1 GPU-1111 00000000:01:00.0 2 7.5 0 Tesla T4",
        "gpu 0 GPU-2222 00000000:02:00.0 2 7.5 0 Tesla T4",
    ];
    let (machine, case) = (machine(&says), Case::new());
    for _ in 0..2 {
        let finished = run(&machine, &case, &["--gpus", "device=GPU-11"], SEEN);
        assert_eq!(finished.stdout, "nvidia1\n0\n", "{}", finished.stderr);
    }
    assert_eq!(machine.asked(), 1);
    run(&machine, &case, &["--gpus", "device=2"], "true").refused(&["there is no GPU `2`", "1 (GPU-2222)"]);
    machine.says("init 9");
    let other = Case::new();
    run(&machine, &other, &["--gpus", "all"], "true").refused(&["no `/proc/driver/nvidia`", "NVML"]);
    let auto = run(&machine, &other, &["--gpus", "auto"], "echo ran");
    assert!(auto.stdout == "ran\n" && auto.stderr.contains("is not loaded: running without GPUs"), "{auto:?}");
}

/// Logs its arguments and its environment, and makes the nodes of capabilities.
const MODPROBE: &str = r#"#!/bin/sh
echo "$*; $(tr '\0' ' ' </proc/$$/environ)" >>MACHINE/modprobe.log
while [ $# -gt 0 ]; do
    node=/dev/nvidia-caps/nvidia-cap$(sed -n 's/DeviceFileMinor: //p' "$2")
    : >"$node"; mount --bind /dev/null "$node"
    shift 2
done
"#;

#[test]
fn missing_nodes_of_instances_are_made_by_the_hosts_helper() {
    if !can_enter() {
        return;
    }
    let missing = ["156", "157"].map(|number| format!("node /dev/nvidia-caps/nvidia-cap{number} 234:{number}\n"));
    let list = include_str!("driver-roots/mig.txt").replace(&missing.concat(), "");
    let (machine, case) = (Machine::from_list(&list), Case::new());
    let helper = machine.path().join("helper/nvidia-modprobe");
    std::fs::create_dir(helper.parent().unwrap()).unwrap();
    std::fs::write(&helper, MODPROBE.replace("MACHINE", text(&machine.path()))).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let log = machine.path().join("modprobe.log");

    let driver = machine.path();
    let refused =
        enter(&machine, &case, &["explain", "--gpus", "device=0:0", "--driver-root", text(&driver)], &["true"])
            .finish();
    refused.refused(&[
        "nvidia-cap156` is not there: `nvidia-modprobe -f /proc/driver/nvidia/capabilities/gpu1/mig/gi1/access`",
    ]);
    assert!(!log.exists(), "explain makes nothing");

    let finished = run(&machine, &case, &["-e", "A=b", "--gpus", "device=0:0"], "ls /dev/nvidia-caps");
    assert_eq!(finished.stdout, "nvidia-cap156\nnvidia-cap157\n", "{}", finished.stderr);
    let gi1 = "/proc/driver/nvidia/capabilities/gpu1/mig/gi1";
    assert_eq!(std::fs::read_to_string(log).unwrap(), format!("-f {gi1}/access -f {gi1}/ci0/access; \n"));
}

#[test]
fn gpus_and_explain_show_what_nvml_knows() {
    if !can_enter() {
        return;
    }
    let (machine, case) = (Machine::new("mig"), Case::new());
    let path = machine.path();
    let gpus = |more: &[&str]| within(&machine, &case).args(["gpus", "--driver-root", text(&path)]).args(more).finish();
    let shown = gpus(&[]);
    for line in [
        "driver 550.163.01, CUDA 12.4\n",
        "/dev/nvidia1 NVIDIA A100-SXM4-40GB (brand nvidia, compute capability 8.0, MIG on): usable\n",
        "  0:2 MIG-bbbb0000-0000-0000-0000-000000000002 /dev/nvidia-caps/nvidia-cap192 /dev/nvidia-caps/nvidia-cap193 1c.2g.10gb \
         (GPU instance 5, compute instance 0): usable\n",
        "/dev/nvidia0 NVIDIA A100-SXM4-40GB (brand nvidia, compute capability 8.0): usable\n",
    ] {
        assert!(shown.stdout.contains(line), "{line}{shown:?}");
    }
    let json: serde_json::Value = serde_json::from_str(&gpus(&["--json"]).stdout).unwrap();
    let part = &json["gpus"][0]["instances"][2];
    assert_eq!(
        (&json["cuda"], &json["gpus"][1]["compute"], &part["index"], &part["ci"]),
        (&"12.4".into(), &"8.0".into(), &3.into(), &1.into())
    );
    let options = ["explain", "--gpus", "device=0:3", "--driver-root", text(&path)];
    let explained = enter(&machine, &case, &options, &["true"]).finish().stdout;
    for line in
        ["0:3 1c.2g.10gb MIG-cccc0000-0000-0000-0000-000000000003", "NVML: asked, since a MIG instance is asked for"]
    {
        assert!(explained.contains(line), "{line}\n{explained}");
    }
    machine.says("init 999");
    let shown = gpus(&[]);
    for line in
        ["MIG is on, and only NVML knows its instances\n", "brands and compute capabilities are not known: ask NVML"]
    {
        assert!(shown.stdout.contains(line), "{line}{shown:?}");
    }
}
