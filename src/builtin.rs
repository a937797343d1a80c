//! `builtin:NAME` → an image made out of the driver's program and the libraries it runs with.
//!
//! In: a name. Out: a [`Source`] whose one layer is made in memory, the same each time. Its config is that of
//! `images/NAME`. The image needs no registry and goes through the store, the plan and the launch like any other.

use std::ffi::OsStr;
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gpurun_driver::verb;
use serde_json::{Value, json};

use crate::embedded::{self, Program};
use crate::error::{Context, Error, Hint, Result};
use crate::image::{Digest, Image, Layer, Platform};
use crate::source::Source;

/// Where the executable is in the image.
const EXECUTABLE: &str = "usr/bin/gpurun-driver";

/// Account files, so that names can be looked up.
const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\n";

const BLOCK: usize = 512;

/// A built-in image.
pub struct Builtin {
    config: &'static str,
    layer: Vec<u8>,
}

impl Builtin {
    /// Makes the image of this name.
    pub fn new(name: &str) -> Result<Self> {
        let config = match name {
            "hello" => include_str!("../images/hello/config.json"),
            _ => return Err(Error::new(format!("there is no `builtin:{name}`")).hint("there is `builtin:hello`")),
        };
        Ok(Self { config, layer: layer()? })
    }

    fn described(&self) -> Layer {
        let digest = Digest::of(&self.layer);
        Layer { digest: Some(digest), size: Some(self.layer.len() as u64), diff_id: digest }
    }
}

impl Source for Builtin {
    fn image(&self, platform: &Platform) -> Result<Image> {
        if *platform != Platform::host() {
            return Err(Error::new(format!("a built-in image is for {}, not for {platform}", Platform::host())));
        }
        let layer = self.described();
        let mut config: Value = serde_json::from_str(self.config).context(|| "read the built-in config")?;
        config["architecture"] = json!(platform.architecture);
        config["rootfs"] = json!({ "type": "layers", "diff_ids": [layer.diff_id] });
        let config_json = config.to_string();
        let digest = Digest::of(config_json.as_bytes());
        Ok(Image {
            digest,
            config_digest: digest,
            config: serde_json::from_str(&config_json).context(|| "read the built-in config")?,
            config_json,
            layers: vec![layer],
        })
    }

    fn blob(&self, _: &Layer) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.layer.clone())))
    }
}

/// A tar of the executable, and of its libraries where its loader looks for them.
fn layer() -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    for dir in ["dev", "proc", "sys", "tmp", "root", "etc"] {
        append(&mut tar, &format!("{dir}/"), b'5', 0o755, b"");
    }
    append(&mut tar, "etc/passwd", b'0', 0o644, PASSWD);
    append(&mut tar, "etc/group", b'0', 0o644, GROUP);
    append(&mut tar, EXECUTABLE, b'0', 0o755, embedded::BYTES);
    for library in libraries()? {
        let name = library.strip_prefix("/").unwrap_or(&library);
        append(&mut tar, &name.to_string_lossy(), b'0', 0o755, &read(&library)?);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    Ok(tar)
}

/// The program's, and those that libcuda needs beside them: since glibc 2.34 they are empty, but still asked for.
fn libraries() -> Result<Vec<PathBuf>> {
    let mut all = loaded().context(|| "ask the driver's program for its libraries")?;
    let libc = all.iter().find(|path| path.file_name().is_some_and(|name| name == "libc.so.6"));
    let beside = |name: &str| libc.map(|libc| libc.with_file_name(name)).filter(|path| path.exists());
    let more: Vec<_> =
        ["libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"].into_iter().filter_map(beside).collect();
    all.extend(more);
    all.sort();
    all.dedup();
    Ok(all)
}

fn loaded() -> Result<Vec<PathBuf>> {
    let program = Program::load()?;
    let output = program.command(verb::LIBRARIES).output().context(|| "execute it").hint(|| embedded::HINT)?;
    if !output.status.success() {
        return Err(Error::new(String::from_utf8_lossy(&output.stderr).trim()));
    }
    let paths = output.stdout.split(|b| *b == 0).filter(|path| !path.is_empty());
    Ok(paths.map(|path| OsStr::from_bytes(path).into()).collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).context(|| format!("read `{}`", path.display()))
}

/// One entry in ustar's format, at no time in particular; the names here are short.
fn append(tar: &mut Vec<u8>, name: &str, kind: u8, mode: u32, data: &[u8]) {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", data.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(257, "ustar\0");
    put(263, "00");
    header[156] = kind;
    let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend_from_slice(&header);
    tar.extend_from_slice(data);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tar::Reader;

    #[test]
    fn the_layer_is_a_tar_with_the_executable_and_is_the_same_each_time() {
        let bytes = layer().unwrap();
        let mut tar = Reader::new(&bytes[..]);
        let mut sizes = std::collections::HashMap::new();
        while let Some(entry) = tar.next().unwrap() {
            sizes.insert(String::from_utf8(entry.path).unwrap(), entry.size);
        }
        assert_eq!(sizes.get(EXECUTABLE), Some(&(embedded::BYTES.len() as u64)));
        assert!(sizes.keys().any(|name| name.contains("libc.so")), "{sizes:?}");
        assert_eq!(Digest::of(&layer().unwrap()), Digest::of(&bytes));
    }

    #[test]
    fn other_names_and_platforms_are_refused() {
        assert!(Builtin::new("goodbye").is_err());
        let other = "linux/none".parse().unwrap();
        assert!(Builtin::new("hello").unwrap().image(&other).is_err());
    }
}
