//! A machine in a folder, made from a list in `tests/driver-roots`: files, links, nodes, GPUs, MIG instances. Libraries are
//! ELF files of two sections, so that their names and needs are read as those of real ones are; but an NVML that is asked is
//! `nvml.c`, with the list's lines that start with `says` as its table.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use gpurun::gpu::ldcache::{Cache, Entry, FLAGS_X86_64, merge};

/// A machine that lasts as long as this.
pub(crate) struct Machine(tempfile::TempDir);

impl Machine {
    /// Makes the one that `tests/driver-roots/NAME.txt` lists.
    pub(crate) fn new(name: &str) -> Self {
        let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/driver-roots").join(name).with_extension("txt");
        Self::from_list(&std::fs::read_to_string(list).expect("read the list"))
    }

    /// Makes the one that a text lists.
    pub(crate) fn from_list(text: &str) -> Self {
        let machine = Self(tempfile::tempdir().expect("make a temporary directory"));
        let (mut nodes, mut cache, mut minors) = (String::new(), Vec::new(), String::new());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["lib", path, soname] => machine.file(path, elf(2, soname, None)),
                ["lib", path, soname, glibc] => machine.file(path, elf(2, soname, Some(glibc))),
                ["lib32", path, soname] => machine.file(path, elf(1, soname, None)),
                ["link", path, to] => symlink(to, machine.place(path)).expect("make a link"),
                ["file", path] => machine.file(path, path),
                ["text", path, ..] => machine.file(path, words[2..].join(" ").replace('|', "\n")),
                ["dir", path] => drop(std::fs::create_dir_all(machine.at(path))),
                ["node", path, ..] => {
                    machine.file(path, "");
                    nodes = nodes + &words[1..].join(" ") + "\n";
                }
                ["cache", soname, path] => cache.push(Entry::new(FLAGS_X86_64, soname, path)),
                ["driver", version] => machine.driver(version),
                ["nvml", path] => machine.file(path, nvml()),
                ["says", ..] => machine.says(line.trim_start_matches("says ")),
                ["mig", minor, gi, ci, gi_cap, ci_cap] => {
                    machine.capability(&format!("gpu{minor}/mig/gi{gi}"), gi_cap, &mut minors);
                    machine.capability(&format!("gpu{minor}/mig/gi{gi}/ci{ci}"), ci_cap, &mut minors);
                }
                ["gpu", pci, minor, uuid, ..] => machine.gpu(pci, minor, uuid, &words[4..].join(" ")),
                _ => panic!("`{line}` is no line of a machine"),
            }
        }
        machine.file("/devices.txt", nodes);
        if !minors.is_empty() {
            machine.file("/proc/driver/nvidia-caps/mig-minors", minors);
        }
        if !cache.is_empty() {
            machine.file("/etc/ld.so.cache", merge(&Cache::default(), &cache).bytes());
        }
        machine
    }

    /// Its folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().canonicalize().expect("it is there")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn place(&self, path: &str) -> PathBuf {
        let at = self.at(path);
        std::fs::create_dir_all(at.parent().expect("it has one")).expect("make a directory");
        at
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.place(path), content).expect("write a file");
    }

    /// One more line in the table of its NVML, which is at Debian's and Ubuntu's place.
    pub(crate) fn says(&self, line: &str) {
        let path = self.place("/usr/lib/x86_64-linux-gnu/nvml.table");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, format!("{text}{line}\n")).expect("write a table");
    }

    /// How often its NVML was asked.
    pub(crate) fn asked(&self) -> usize {
        let asked = std::fs::read_to_string(self.at("/usr/lib/x86_64-linux-gnu/nvml.asked"));
        asked.map_or(0, |lines| lines.lines().count())
    }

    /// What the kernel has for a capability, and its line in the table of their numbers.
    fn capability(&self, path: &str, number: &str, minors: &mut String) {
        let text = format!("DeviceFileMinor: {number}\nDeviceFileMode: 292\nDeviceFileModify: 1\n");
        self.file(&format!("/proc/driver/nvidia/capabilities/{path}/access"), text);
        let line = format!("{}/access {number}\n", path.replace("/mig", ""));
        if !minors.contains(&line) {
            minors.push_str(&line);
        }
    }

    fn driver(&self, version: &str) {
        let text = format!("NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Apr  8 12:41:17 UTC 2025\n");
        self.file("/proc/driver/nvidia/version", text);
        self.file(
            "/proc/driver/nvidia/params",
            "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileUID: 0\n",
        );
    }

    fn gpu(&self, pci: &str, minor: &str, uuid: &str, model: &str) {
        let uuid = if uuid == "-" { "GPU-????????-????-????-????-????????????" } else { uuid };
        let text = format!(
            "Model: \t\t {model}\nIRQ:   \t\t 1\nGPU UUID: \t {uuid}\nBus Location: \t {pci}\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
        );
        self.file(&format!("/proc/driver/nvidia/gpus/{pci}/information"), text);
    }
}

/// The NVML of `nvml.c`, compiled once.
fn nvml() -> &'static [u8] {
    static NVML: OnceLock<Vec<u8>> = OnceLock::new();
    NVML.get_or_init(|| {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let (source, library) = (dir.path().join("nvml.c"), dir.path().join("libnvidia-ml.so.1"));
        std::fs::write(&source, include_str!("nvml.c")).expect("write a file");
        let options = ["-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o"];
        let status = Command::new("cc").args(options).arg(&library).arg(&source).status().expect("run cc");
        assert!(status.success(), "compile nvml.c");
        std::fs::read(library).expect("read a file")
    })
}

/// An ELF file with a `.dynamic` section that names it and, if asked for, a `.gnu.version_r` that needs a glibc.
#[allow(clippy::cast_possible_truncation)] // all of it is small
pub(crate) fn elf(class: u8, soname: &str, glibc: Option<&str>) -> Vec<u8> {
    let strings = format!("\0{soname}\0GLIBC_{}\0", glibc.unwrap_or("2.2.5")).into_bytes();
    let version = 2 + soname.len() as u32;
    let word = |n: u64| if class == 2 { n.to_le_bytes().to_vec() } else { (n as u32).to_le_bytes().to_vec() };
    let dynamic = [word(14), word(1), word(0), word(0)].concat();
    // Verneed { version 1, one aux, file, aux at 16, no next }, Vernaux { hash, flags, other, name, no next }
    let halves = |a: u16, b: u16| [a.to_le_bytes(), b.to_le_bytes()].concat();
    let ints = |list: &[u32]| list.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
    let needs = [halves(1, 1), ints(&[0, 16, 0]), ints(&[0]), halves(0, 0), ints(&[version, 0])].concat();
    let (header, entry) = if class == 2 { (64, 64) } else { (52, 40) };
    let sections = [(3_u32, &strings, 0_u32), (6, &dynamic, 1), (0x6fff_fffe, &needs, 1)];
    let mut body = Vec::new();
    let mut table = vec![0; entry];
    for (kind, content, link) in sections {
        let at = (header + body.len()) as u64;
        body.extend_from_slice(content);
        let head =
            [ints(&[0, kind]), word(0), word(0), word(at), word(content.len() as u64), ints(&[link, 0])].concat();
        table.extend(head);
        table.resize(table.len().next_multiple_of(entry), 0);
    }
    let mut file = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
    file.resize(16, 0);
    file.extend([halves(3, 62), ints(&[1]), word(0), word(0), word((header + body.len()) as u64), ints(&[0])].concat());
    for half in [header as u16, 0, 0, entry as u16, 4, 0] {
        file.extend(half.to_le_bytes());
    }
    [file, body, table].concat()
}
