//! Runs one target: every seed, and then mutations of them for a fixed time.
//!
//! The test starts itself once more as a child, which does the work, so that whatever ends the child (a panic, a stack
//! overflow, an allocation without end, the watchdog) leaves its last input behind, in a file that it writes first.

#![allow(clippy::print_stdout, clippy::print_stderr)] // what the test harness shows of a failed test

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{Resource, setrlimit};

use super::mutate::Mutator;

/// What one input may take, on a machine that is busy with other things.
const MAX_TIME: Duration = Duration::from_secs(20);

/// What the child may take: more than any stated limit lets an input of [`super::mutate::MAX_INPUT`] bytes cost.
const MAX_MEMORY: u64 = 512 << 20;

/// Set in the child: its directory.
const CHILD: &str = "GPURUN_FUZZ_CHILD";

type Target = fn(&[u8]);

/// Runs a target, which is the unit test `gpurun::PATH`.
pub(crate) fn run(path: &str, target: Target) {
    let test = path.split_once("::").map_or(path, |(_, test)| test);
    match std::env::var_os(CHILD) {
        Some(dir) => child(Path::new(&dir), name(test), target),
        None => parent(test),
    }
}

fn name(test: &str) -> &str {
    test.rsplit_once("::").map_or(test, |(_, name)| name)
}

/// Starts the child, and tells what ended it.
fn parent(test: &str) {
    // Targets make many small files, which cost least in memory.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, dir.path()).env("TMPDIR", dir.path());
    let output = child.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{said}");
    if !output.status.success() {
        let input = Slot::last(dir.path());
        let kept = std::env::temp_dir().join(format!("gpurun-fuzz-{}", name(test)));
        fs::write(&kept, &input).unwrap();
        let shown = input[..input.len().min(8192)].escape_ascii();
        panic!("{test}: {}; its input, kept in `{}`: b\"{shown}\"", output.status, kept.display());
    }
}

fn child(dir: &Path, name: &str, target: Target) {
    setrlimit(Resource::RLIMIT_DATA, MAX_MEMORY, MAX_MEMORY).unwrap();
    let mut slot = Slot::new(dir);
    if let Some(input) = std::env::var_os("FUZZ_INPUT") {
        return slot.execute(&fs::read(input).unwrap(), target);
    }
    let rng = number("FUZZ_RNG").unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into());
    println!("{name}: FUZZ_RNG={rng}");
    let (seeds, dictionary) = (seeds(name), dictionary(name));
    assert!(!seeds.is_empty(), "no seeds in `{}`", home().join(name).display());
    let mut mutator = Mutator::new(rng, seeds.clone(), dictionary);
    for seed in seeds {
        slot.execute(&seed, target);
    }
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(2));
    while Instant::now() < end {
        let input = mutator.next();
        slot.execute(&input, target);
        if is_new() {
            keep(name, &input);
            mutator.add(input);
        }
    }
    println!("{name}: {} executions, {} inputs", slot.executed.load(Ordering::Relaxed), mutator.inputs());
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// Where the input that is being executed can be found when the process is gone.
struct Slot {
    file: File,
    executed: Arc<AtomicU64>,
}

impl Slot {
    fn new(dir: &Path) -> Self {
        let (file, executed) = (File::create(dir.join("input")).unwrap(), Arc::default());
        std::thread::spawn({
            let executed = Arc::clone(&executed);
            move || watch(&executed)
        });
        Self { file, executed }
    }

    fn execute(&mut self, input: &[u8], target: Target) {
        let length = (input.len() as u64).to_le_bytes();
        self.file.write_all_at(&[&length, input].concat(), 0).unwrap();
        #[cfg(fuzzing)]
        super::coverage::clear();
        target(input);
        self.executed.fetch_add(1, Ordering::Relaxed);
    }

    fn last(dir: &Path) -> Vec<u8> {
        let slot = fs::read(dir.join("input")).unwrap_or_default();
        let Some((length, input)) = slot.split_first_chunk() else { return Vec::new() };
        input[..usize::try_from(u64::from_le_bytes(*length)).unwrap()].to_vec()
    }
}

/// Ends the process if one input takes too long.
fn watch(executed: &AtomicU64) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = executed.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > MAX_TIME {
            eprintln!("an input takes longer than {MAX_TIME:?}");
            std::process::abort();
        }
    }
}

/// Where the seeds are: beside this file, unless the tests run where that cannot be read.
fn home() -> PathBuf {
    std::env::var_os("GPURUN_FUZZ_SEEDS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds"), PathBuf::from)
}

/// Each file is a seed; in one called `lines` each line is. What earlier hunts kept comes with them.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for dir in [Some(home().join(name)), corpus(name)].into_iter().flatten() {
        let mut files: Vec<_> = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files {
            let bytes = fs::read(&file).unwrap();
            match file.ends_with("lines") {
                true => all.extend(bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec)),
                false => all.push(bytes),
            }
        }
    }
    all
}

/// Words that mean something to the target, one a line.
fn dictionary(name: &str) -> Vec<Vec<u8>> {
    let words = fs::read(home().join(name).with_extension("dict")).unwrap_or_default();
    words.split(|b| *b == b'\n').filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect()
}

fn corpus(name: &str) -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("FUZZ_CORPUS")?).join(name))
}

/// Whether the last input reached something that none before did. Without counters nobody can tell.
fn is_new() -> bool {
    #[cfg(fuzzing)]
    return super::coverage::is_new();
    #[cfg(not(fuzzing))]
    false
}

/// Keeps an input for the next hunt.
fn keep(name: &str, input: &[u8]) {
    if let Some(dir) = corpus(name) {
        fs::create_dir_all(&dir).unwrap();
        let digest = crate::image::Digest::of(input);
        fs::write(dir.join(&digest.hex()[..16]), input).unwrap();
    }
}
