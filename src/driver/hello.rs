//! The program of `builtin:hello`: says where it is and what it sees. Runs in the container.

use std::fmt::Write;
use std::path::Path;

use crate::cuda::Cuda;
use crate::{Context, Result, say};

/// How many numbers each GPU computes.
const NUMBERS: u32 = 1 << 20;

const HINT: &str = "the driver does not work here: `gpurun explain --gpus all builtin:hello` shows what is injected";

/// Prints it.
pub(crate) fn hello() -> Result<()> {
    let root = Path::new("/");
    say(text(root).as_bytes())?;
    if gpus(root).is_empty() { Ok(()) } else { compute() }
}

/// One fact a line. `root` is the root of the container.
fn text(root: &Path) -> String {
    let mut out = format!("hello from gpurun {}\n", env!("CARGO_PKG_VERSION"));
    let mut fact = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<10} {value}"); // writing to a String cannot fail
    };
    fact("user", format!("{}:{}", nix::unistd::geteuid(), nix::unistd::getegid()));
    fact("process", std::process::id().to_string());
    fact("directory", std::env::current_dir().map_or_else(|e| e.to_string(), |d| d.display().to_string()));
    fact("system", system(root));
    fact("processors", std::thread::available_parallelism().map_or_else(|e| e.to_string(), |n| n.to_string()));
    fact("root", names(root, |_| true));
    fact(
        "GPUs",
        match gpus(root).as_str() {
            "" => "none".into(),
            nodes => nodes.into(),
        },
    );
    out
}

/// The GPUs' nodes.
fn gpus(root: &Path) -> String {
    names(&root.join("dev"), is_gpu)
}

/// Computes something on every GPU and checks it.
fn compute() -> Result<()> {
    let cuda = Cuda::start().map_err(|e| format!("{e}\nhint: {HINT}"))?;
    for number in 0..cuda.count()? {
        let device = cuda.device(number)?;
        let numbers = cuda.squares(number, NUMBERS).context(|| format!("compute on GPU {number}"))?;
        let right = (0..NUMBERS).map(|n| n.wrapping_mul(n)).eq(numbers);
        if !right {
            return Err(format!("GPU {number} ({}) computes wrong numbers", device.uuid));
        }
        let line = format!("GPU {number:<6} {} {}, {NUMBERS} numbers computed and right\n", device.name, device.uuid);
        say(line.as_bytes())?;
    }
    Ok(())
}

fn system(root: &Path) -> String {
    let read = |name: &str| std::fs::read_to_string(root.join("proc/sys/kernel").join(name)).unwrap_or_default();
    format!("{} {} on {}", read("ostype").trim(), read("osrelease").trim(), read("hostname").trim())
}

/// The sorted names in a directory.
fn names(dir: &Path, wanted: impl Fn(&str) -> bool) -> String {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| wanted(name));
    names.sort();
    names.join(" ")
}

fn is_gpu(name: &str) -> bool {
    name.strip_prefix("nvidia").is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_told_by_their_nodes() {
        let dir = tempfile::tempdir().unwrap();
        assert!(text(dir.path()).contains("GPUs       none\n"));
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"] {
            std::fs::write(dir.path().join("dev").join(name), "").unwrap();
        }
        assert!(text(dir.path()).contains("GPUs       nvidia0 nvidia1\n"));
    }
}
