//! `--device`: devices of CDI specs and nodes of the host, with the real program. /dev/null and /dev/zero stand for nodes.

use std::path::Path;

use crate::gpus::{can_enter, enter, inside};
use crate::injection_real::{compile, downloaded, with_libc};
use crate::support::machine::Machine;
use crate::support::{Case, Finish, Finished, can, text};

/// A case and a directory of specs.
struct Specs(Case);

impl Specs {
    fn new(files: &[(&str, &str)]) -> Self {
        let case = Case::new();
        std::fs::create_dir(case.path("cdi")).unwrap();
        for (name, spec) in files {
            case.file(&format!("cdi/{name}"), spec);
        }
        Self(case)
    }

    /// `gpurun --device DEVICE OPTIONS IMAGE sh -c SCRIPT`
    fn run(&self, device: &str, options: &[&str], script: &str) -> Finished {
        let dir = self.0.path("cdi");
        self.0.sh(&[&["--cdi-spec-dir", text(&dir), "--device", device], options].concat(), script)
    }

    fn explain(&self, device: &str) -> Finished {
        let dir = self.0.path("cdi");
        self.0.gpurun(&["explain", "--cdi-spec-dir", text(&dir), "--device", device], &["true"]).finish()
    }
}

/// One device `v.com/c=d` with these edits, in YAML's flow style.
fn spec(edits: &str) -> String {
    format!("{{cdiVersion: 1.1.0, kind: v.com/c, devices: [{{name: d, containerEdits: {{{edits}}}}}]}}")
}

/// As amd-ctk writes it, with other nodes.
const AMD: &str = r#"{
	"cdiVersion": "0.6.0",
	"kind": "amd.com/gpu",
	"devices": [
		{"name": "0", "containerEdits": {"deviceNodes": [
			{"path": "/dev/kfd", "hostPath": "/dev/null", "type": "c", "permissions": "rw"},
			{"path": "/dev/dri/renderD128", "hostPath": "/dev/zero", "major": 1, "minor": 5, "permissions": "rw"}]}},
		{"name": "1", "containerEdits": {"deviceNodes": [
			{"path": "/dev/kfd", "hostPath": "/dev/null"},
			{"path": "/dev/dri/renderD129", "hostPath": "/dev/zero"}]}}
	],
	"containerEdits": {"env": ["ROCR=1", "FROM=the spec"]}
}"#;

#[test]
fn devices_of_other_vendors_come_in_by_their_names() {
    let specs = Specs::new(&[("amd.json", AMD)]);
    let script = "ls /dev/dri; head -c 3 /dev/dri/renderD128 | od -An -tx1; echo x >/dev/kfd && echo $ROCR $FROM";
    let one = specs.run("amd.com/gpu=0", &["-e", "FROM=the option"], script);
    assert_eq!((one.ok(), &*one.stderr), ("renderD128\n 00 00 00\n1 the option\n", ""));
    let both = specs.run("amd.com/gpu=0,amd.com/gpu=1", &["--read-only", "--root"], script);
    assert_eq!(both.ok(), "renderD128\nrenderD129\n 00 00 00\n1 the spec\n");
    let plan = specs.explain("amd.com/gpu=0");
    for words in ["amd.com/gpu=0 of /", "/dev/kfd = /dev/null  (a device's node)", "  ROCR=1\n"] {
        assert!(plan.ok().contains(words), "{words}: {plan:?}");
    }
}

#[test]
fn files_directories_and_links_are_where_the_spec_has_them() {
    let edits = |case: &Case| {
        let (file, dir) = (case.file("host/file", "content"), case.file("host/dir/below", "in it"));
        let (file, dir) = (text(&file).to_owned(), text(dir.parent().unwrap()).to_owned());
        spec(&format!(
            "mounts: [{{hostPath: {file}, containerPath: /opt/v/file, options: [ro, nodev, noexec]}}, \
             {{hostPath: {dir}, containerPath: /opt/v/dir, options: [rw, rbind]}}, \
             {{hostPath: tmpfs, containerPath: /opt/t, type: tmpfs, options: [mode=700, size=64k]}}], \
             hooks: [{{hookName: createContainer, path: /usr/bin/nvidia-ctk, args: [nvidia-ctk, hook, create-symlinks, \
             --link, ../v/file::/opt/l/link, --link, ../null::/dev/v/by-path, --link, x::/opt/v/dir/below, --link, new::/etc/old]}}]"
        ))
    };
    let specs = Specs::new(&[]);
    specs.0.file("cdi/v.yaml", &edits(&specs.0));
    specs.0.image.file("/etc/old", "the image's");
    let before = specs.0.image.digest();
    let script = "cat /opt/l/link /opt/v/dir/below; echo; readlink /dev/v/by-path; readlink /etc/old; stat -c %a /opt/t
        echo x >/opt/v/dir/new; echo x >/opt/t/x; echo x 2>/dev/null >/opt/v/file || echo kept";
    let want = "contentin it\n../null\nnew\n700\nkept\n";
    assert_eq!(specs.run("v.com/c=d", &[], script).ok(), want);
    assert_eq!(specs.run("v.com/c=d", &["--read-only"], script).ok(), want);
    assert!(
        specs.explain("v.com/c=d").ok().contains("the link `/opt/v/dir/below` is not made: `/opt/v/dir` is mounted")
    );
    assert_eq!(specs.0.image.digest(), before, "the image is untouched");
    assert_eq!(std::fs::read_to_string(specs.0.path("host/dir/below")).unwrap(), "in it");
    let mine = specs.0.file("mine/file", "mine");
    let bind = format!("{}:/opt/v", text(mine.parent().unwrap()));
    assert_eq!(specs.run("v.com/c=d", &["-v", &bind], "ls /opt/v").ok(), "file\n");
    assert_eq!(
        std::fs::read_dir(mine.parent().unwrap()).unwrap().count(),
        1,
        "nothing is made in the user's directory"
    );
}

#[test]
fn what_does_not_agree_with_the_spec_is_said_and_the_run_goes_on() {
    let edits =
        "deviceNodes: [{path: /dev/v, hostPath: /dev/null, major: 510, minor: 7}], additionalGids: [0, 4294967294]";
    let specs = Specs::new(&[("v.yaml", &spec(edits))]);
    let finished = specs.run("v.com/c=d", &[], "echo ran");
    assert_eq!((finished.status, &*finished.stdout), (0, "ran\n"));
    for words in ["`/dev/null` is the device 1:3, and its CDI spec says 510:7", "the group 4294967294"] {
        assert!(finished.stderr.contains(words), "{finished:?}");
    }
}

#[test]
fn unknown_devices_and_broken_specs_are_named_before_anything_starts() {
    let specs = Specs::new(&[("amd.json", AMD), ("bad.yaml", "cdiVersion: 0.6.0\nkind: v.com/c\ncolor: red\n")]);
    let dir = specs.0.path("cdi");
    let place = format!("`{}`", dir.display());
    specs.run("amd.com/gpu=7", &[], "echo ran").refused(&[
        "there is no CDI device `amd.com/gpu=7` in",
        &place,
        "there are amd.com/gpu=0, amd.com/gpu=1",
        "/bad.yaml`: unknown field `color`",
        "line 3",
    ]);
    assert_eq!(specs.run("amd.com/gpu=0", &[], "echo ran").ok(), "ran\n", "a broken spec spoils its own devices alone");
    specs.0.file("cdi/again.json", AMD);
    specs.run("amd.com/gpu=0", &[], "echo ran").refused(&["more than one spec", "/again.json` and `", "/amd.json`"]);
    let nowhere = specs.0.sh(&["--cdi-spec-dir", "/nowhere", "--device", "a.com/b=c"], "echo ran");
    nowhere.refused(&["none of `/nowhere` is there", "--cdi-spec-dir"]);
    specs.0.sh(&["--device", "gpu0"], "echo ran").refused(&["`--device gpu0` names no device", "nvidia.com/gpu=0"]);
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    for (edits, words) in [
        (
            "hooks: [{hookName: prestart, path: /opt/v/hook, args: [hook, --now]}]",
            &["`/opt/v/hook` is not known", "hook --now"][..],
        ),
        ("hooks: [{hookName: prestart, path: /bin/sh, args: [sh, -c, 'touch /tmp/x']}]", &["`/bin/sh`"]),
        ("netDevices: [{hostInterfaceName: eth7, name: eth0}]", &["netDevices", "`eth7`"]),
        ("intelRdt: {closID: x}", &["intelRdt"]),
        ("deviceNodes: [{path: /dev/v}]", &["`/dev/v`", "No such file"]),
        ("deviceNodes: [{path: /dev/v, hostPath: /etc/passwd}]", &["`/etc/passwd`", "type"]),
        ("deviceNodes: [{path: /dev/null, hostPath: /dev/zero}]", &["`/dev/null` cannot be mounted over"]),
        ("deviceNodes: [{path: /dev/shm/v, hostPath: /dev/zero}]", &["/dev/shm/v"]),
        ("mounts: [{hostPath: /, containerPath: /a/../b}]", &["`/a/../b`"]),
        ("mounts: [{hostPath: /, containerPath: /proc/x}]", &["`/proc/x`"]),
        ("mounts: [{hostPath: /, containerPath: /a, options: [suid]}]", &["`suid`"]),
        ("mounts: [{hostPath: /nowhere, containerPath: /a}]", &["`/nowhere`", "No such file"]),
    ] {
        let specs = Specs::new(&[("v.yaml", &spec(edits))]);
        specs.run("v.com/c=d", &[], "echo ran").refused(words);
    }
}

#[test]
fn nothing_is_made_in_a_directory_that_a_spec_binds() {
    let specs = Specs::new(&[]);
    let dir = specs.0.file("host/dir/there", "x");
    let host = text(dir.parent().unwrap());
    for (name, ran) in [("there", true), ("new", false)] {
        let mounts = format!(
            "mounts: [{{hostPath: /etc/passwd, containerPath: /opt/v/{name}}}, {{hostPath: {host}, containerPath: /opt/v}}]"
        );
        specs.0.file("cdi/v.yaml", &spec(&mounts));
        let finished = specs.run("v.com/c=d", &[], &format!("grep -c root /opt/v/{name}"));
        match ran {
            true => assert_eq!(finished.ok(), "1\n"),
            false => finished.refused(&["`/opt/v/new` has no place"]),
        }
    }
    assert_eq!(std::fs::read_dir(host).unwrap().count(), 1);
}

/// Links of an image that lead elsewhere, at every place that a device wants to be.
#[test]
fn hostile_images_gain_nothing_from_devices() {
    let outside = Case::new();
    let secret = outside.file("secret/file", "secret");
    let dir = secret.parent().unwrap();
    let edits = "deviceNodes: [{path: /dev/v/x, hostPath: /dev/null}], \
        mounts: [{hostPath: /etc/passwd, containerPath: /opt/v/file, options: [ro]}], \
        hooks: [{hookName: prestart, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, create-symlinks, --link, evil::/opt/l/file]}]";
    for path in ["/opt", "/opt/v", "/opt/v/file", "/opt/l", "/opt/l/file", "/etc/ld.so.cache"] {
        for to in [text(dir), text(&secret), "/proc/1/root/tmp", "../../../../../../tmp", "/"] {
            let specs = Specs::new(&[("v.yaml", &spec(edits))]);
            std::fs::create_dir_all(specs.0.image.at(path).parent().unwrap()).unwrap();
            specs.0.image.link(path, to);
            let before = specs.0.image.digest();
            let finished = specs.run("v.com/c=d", &[], "echo ran");
            assert!(finished.stdout == "ran\n" || finished.stderr.contains("error: "), "{path} {to}: {finished:?}");
            assert_eq!(specs.0.image.digest(), before, "{path} {to}");
        }
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "nothing is made outside");
    assert!(!Path::new("/tmp/file").exists() && !Path::new("/tmp/v").exists());
}

#[test]
fn nodes_come_in_dockers_spelling() {
    let case = Case::new();
    let run = |device: &str, script: &str| case.sh(&["--device", device], script);
    assert_eq!(
        run("/dev/zero:/dev/v:rwm,/dev/full:/opt/full", "head -c 2 /dev/v | od -An -tx1; ls /opt").ok(),
        " 00 00\nfull\n"
    );
    assert_eq!(
        run("/dev:/dev/host", "head -c 2 /dev/host/zero | od -An -tx1; ls /dev/host/pts 2>&1 | grep -c No").ok(),
        " 00 00\n1\n"
    );
    run("/etc/passwd", "echo ran").refused(&["`/etc/passwd` is no device node", "-v /etc/passwd"]);
    run("/dev/none", "echo ran").refused(&["`/dev/none`", "No such file"]);
    run(text(&case.path("work")), "echo ran").refused(&["no device node"]);
    run("/dev/zero:/dev/v:r", "echo ran").refused(&["`r` cannot be kept", "device cgroup"]);
}

/// The machine `ubuntu` with the spec of NVIDIA's tool.
fn nvidia() -> (Machine, Specs) {
    let machine = Machine::new("ubuntu");
    let spec = include_str!("cdi-specs/nvidia.yaml").replace("MACHINE", text(&machine.path()));
    (machine, Specs::new(&[("nvidia.yaml", &spec)]))
}

fn on(machine: &Machine, specs: &Specs, options: &[&str], script: &str) -> Finished {
    let dir = specs.0.path("cdi");
    let options = [&["--cdi-spec-dir", text(&dir)], options].concat();
    enter(machine, &specs.0, &options, &["sh", "-c", script]).finish()
}

#[test]
fn nvidias_own_spec_works_and_none_of_its_hooks_runs() {
    if !can_enter() {
        return;
    }
    let (machine, specs) = nvidia();
    let before = specs.0.image.digest();
    let script = "ls /dev | grep nvidia; ls /proc/driver/nvidia/gpus; grep Modify /proc/driver/nvidia/params
        for link in /usr/lib/x86_64-linux-gnu/libcuda.so /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1 /dev/dri/by-path/*
        do readlink $link; done; grep -ao 0x2 /etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf; grep -ac libnvidia-ml.so.1 /etc/ld.so.cache
        test -s /usr/bin/nvidia-smi && echo smi $CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES; ls -d /dev/dri/*";
    let want = "nvidia-uvm\nnvidia1\nnvidiactl\n0000:07:00.0\nModifyDeviceFiles: 0\n\
        libcuda.so.1\nlibnvidia-ml.so.550.163.01\n../card0\n0x2\n1\nsmi 0 void\n/dev/dri/by-path\n/dev/dri/card0\n";
    let one = on(&machine, &specs, &["-q", "--device", "nvidia.com/gpu=0"], script);
    assert_eq!(one.stdout, want, "{one:?}");
    assert_eq!(specs.0.image.digest(), before, "the image is untouched");
    let all = on(
        &machine,
        &specs,
        &["-q", "--device", "nvidia.com/gpu=all"],
        "ls /dev /proc/driver/nvidia/gpus; echo $CUDA_VISIBLE_DEVICES",
    );
    for line in ["nvidia0", "nvidia1", "0000:07:00.0", "0000:0f:00.0", "0,1"] {
        assert!(all.stdout.lines().any(|l| l == line), "{line}: {all:?}");
    }
}

#[test]
fn a_device_is_wanted_in_place_of_what_a_batch_system_allots() {
    if !can_enter() {
        return;
    }
    let (machine, specs) = nvidia();
    let dir = specs.0.path("cdi");
    let options = ["-q", "--cdi-spec-dir", text(&dir), "--device", "nvidia.com/gpu=0"];
    let mut command = enter(&machine, &specs.0, &options, &["sh", "-c", "ls /dev | grep 'nvidia[0-9]'"]);
    assert_eq!(command.env("NVIDIA_VISIBLE_DEVICES", "all").finish().stdout, "nvidia1\n");
}

#[test]
fn gpus_and_devices_work_together() {
    if !can_enter() {
        return;
    }
    let (machine, specs) = nvidia();
    specs.0.file("cdi/amd.json", AMD);
    let driver = machine.path();
    let options =
        ["-q", "--driver-root", text(&driver), "--gpus", "device=1", "--device", "amd.com/gpu=0,nvidia.com/gpu=0"];
    let script = "ls /dev | grep -e kfd -e 'nvidia[0-9]'; echo $CUDA_VISIBLE_DEVICES $ROCR; ls /proc/driver/nvidia/gpus
        grep -ao '/[a-z0-9/._-]*libcuda.so.1[^0-9a-z]' /etc/ld.so.cache | tr -d '\\0\\n'; echo; ls /.gpurun/lib | grep -c cuda";
    let want = "kfd\nnvidia0\nnvidia1\n0,1 1\n0000:07:00.0\n0000:0f:00.0\n/.gpurun/lib/libcuda.so.1\n3\n";
    let finished = on(&machine, &specs, &options, script);
    assert_eq!(finished.stdout, want, "{finished:?}");
}

/// The loader of a real libc, without `LD_LIBRARY_PATH`.
#[test]
fn the_loader_finds_the_libraries_of_a_spec() {
    let Some(files) = downloaded().filter(|_| can_enter()) else { return };
    if !can(std::process::Command::new("cc").arg("--version").output().is_ok(), "cc") {
        return;
    }
    let (machine, specs) = nvidia();
    with_libc(&specs.0, &files);
    let library = |to: &Path, word: &str| {
        let source = format!("const char *who(void) {{ return \"{word}\"; }}\n");
        compile(&source, &["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libcuda.so.1"], to);
    };
    library(&machine.path().join("usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01"), "the host's");
    specs.0.image.dir("/opt/baked");
    library(&specs.0.image.at("/opt/baked/libcuda.so.1"), "the image's");
    specs.0.image.file("/etc/ld.so.conf", "/opt/baked\n");
    let program = "#include <dlfcn.h>\n#include <stdio.h>\nint main(int n, char **v) { void *l = dlopen(v[1], 2); \
        if (!l) return puts(dlerror()), 1; puts(((const char *(*)(void)) dlsym(l, \"who\"))()); return 0; }\n";
    compile(program, &["-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2"], &specs.0.image.at("/bin/which-driver"));
    let device = ["-q", "--device", "nvidia.com/gpu=0"];
    for name in ["libcuda.so.1", "libcuda.so"] {
        assert_eq!(
            on(&machine, &specs, &device, &format!("which-driver {name}")).ok(),
            "the host's\n",
            "{name}, without a cache"
        );
    }
    let cache = std::process::Command::new("/sbin/ldconfig").arg("-r").arg(specs.0.image.path()).status();
    if can(cache.is_ok_and(|s| s.success()), "ldconfig") {
        assert_eq!(on(&machine, &specs, &["-q"], "which-driver libcuda.so.1").ok(), "the image's\n");
        assert_eq!(on(&machine, &specs, &device, "which-driver libcuda.so.1").ok(), "the host's\n");
    }
}

/// What gpurun writes for others it can read itself, and a loader without a cache finds what is in it.
#[test]
fn a_generated_spec_can_be_used() {
    if !can_enter() {
        return;
    }
    let (machine, specs) = (Machine::new("ubuntu"), Specs::new(&[]));
    let driver = machine.path();
    let mut generate = inside(&machine, &specs.0, &["cdi", "generate", "--driver-root", text(&driver)]);
    let generated = generate.finish();
    specs.0.file("cdi/nvidia.json", generated.ok());
    let script = "ls /dev | grep nvidia; test -s /usr/lib/x86_64-linux-gnu/libcuda.so.1 && test -s /usr/lib64/libcuda.so && echo libraries";
    let finished = on(&machine, &specs, &["-q", "--device", "nvidia.com/gpu=1"], script);
    assert_eq!(finished.stdout, "nvidia-uvm\nnvidia-uvm-tools\nnvidia0\nnvidiactl\nlibraries\n", "{finished:?}");
}
