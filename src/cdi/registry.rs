//! Where specs are, and which device is in which.
//!
//! In: directories, least important first. Out: the spec and the device of a name, or which names there are. A spec that
//! cannot be read spoils its own devices alone.

use std::path::{Path, PathBuf};

use super::name::Name;
use super::spec::{self, Device, MAX_SIZE, Spec};
use crate::error::{Context, Error, Result};

/// Static specs, then generated ones, which win (SPEC.md and pkg/cdi/spec-dirs.go). NixOS links no /var/run.
const DIRECTORIES: &[&str] = &["/etc/cdi", "/var/run/cdi", "/run/cdi"];

/// More than anybody has in one directory.
const MAX_FILES: usize = 1000;

/// How many names an error lists.
const MAX_LISTED: usize = 20;

/// All specs of a machine.
pub(super) struct Registry {
    /// Where was looked.
    directories: Vec<PathBuf>,
    /// Whether one of them is there.
    any: bool,
    specs: Vec<Placed>,
    /// What could not be read.
    pub(super) broken: Vec<Error>,
}

/// A spec and the file it is in.
#[derive(Debug)]
pub(super) struct Placed {
    /// The file.
    pub(super) path: PathBuf,
    /// The number of its directory: a higher one wins.
    directory: usize,
    /// What is in it.
    pub(super) spec: Spec,
}

impl Registry {
    /// Reads the specs in the directories that are given, else in the usual ones.
    pub(super) fn read(given: &[PathBuf]) -> Self {
        let directories = match given {
            [] => DIRECTORIES.iter().map(PathBuf::from).collect(),
            given => given.to_vec(),
        };
        let mut registry = Self { directories, any: false, specs: Vec::new(), broken: Vec::new() };
        let mut known: Vec<PathBuf> = Vec::new();
        for (number, directory) in registry.directories.clone().iter().enumerate() {
            // On most systems /var/run is a link to /run.
            let Ok(real) = directory.canonicalize() else { continue };
            registry.any = true;
            if !known.contains(&real) {
                known.push(real);
                registry.read_directory(directory, number);
            }
        }
        registry
    }

    fn read_directory(&mut self, directory: &Path, number: usize) {
        match files(directory) {
            Err(e) => self.broken.push(e),
            Ok(files) => files.into_iter().for_each(|path| match read(&path) {
                Ok(spec) => self.specs.push(Placed { path, directory: number, spec }),
                Err(e) => self.broken.push(e),
            }),
        }
    }

    /// The spec that has a device, and the device.
    pub(super) fn find(&self, name: &Name) -> Result<(&Placed, &Device)> {
        let is = |device: &&Device| device.name == name.device;
        let of_kind = self.specs.iter().filter(|placed| placed.spec.kind == name.kind);
        let all: Vec<_> = of_kind.filter_map(|placed| Some((placed, placed.spec.devices.iter().find(is)?))).collect();
        let Some(best) = all.iter().map(|(placed, _)| placed.directory).max() else { return Err(self.unknown(name)) };
        let best: Vec<_> = all.into_iter().filter(|(placed, _)| placed.directory == best).collect();
        match best[..] {
            [one] => Ok(one),
            _ => Err(conflict(name, &best)),
        }
    }

    fn unknown(&self, name: &Name) -> Error {
        let looked = self.directories.iter().map(|d| format!("`{}`", d.display())).collect::<Vec<_>>().join(", ");
        let error = match self.any {
            true => Error::new(format!("there is no CDI device `{name}` in {looked}")),
            false => Error::new(format!("there is no CDI device `{name}`: none of {looked} is there"))
                .hint("the vendor's tool writes a spec (`amd-ctk cdi generate`, `nvidia-ctk cdi generate`), and `--cdi-spec-dir DIR` names another directory"),
        };
        let error = self.broken.iter().fold(error, |error, e| error.hint(format!("a spec cannot be used: {e:#}")));
        let error = if self.specs.is_empty() { error } else { error.hint(self.listed()) };
        match name.kind == "nvidia.com/gpu" {
            true => error.hint("`--gpus` brings NVIDIA's GPUs without a spec"),
            false => error,
        }
    }

    fn listed(&self) -> String {
        let of_spec = |placed: &Placed| -> Vec<String> {
            placed.spec.devices.iter().map(|device| format!("{}={}", placed.spec.kind, device.name)).collect()
        };
        let mut names: Vec<_> = self.specs.iter().flat_map(of_spec).collect();
        names.sort();
        names.dedup();
        let more = names.len().saturating_sub(MAX_LISTED);
        names.truncate(MAX_LISTED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("there are {}{more}", names.join(", "))
    }
}

fn conflict(name: &Name, all: &[(&Placed, &Device)]) -> Error {
    let files = all.iter().map(|(placed, _)| format!("`{}`", placed.path.display())).collect::<Vec<_>>();
    Error::new(format!("the CDI device `{name}` is in more than one spec: {}", files.join(" and ")))
        .hint("which of them holds is not defined: have one of the files removed")
}

/// The files of a directory that are specs by their names, sorted.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("list `{}`", directory.display());
    let entries = std::fs::read_dir(directory).context(what)?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.context(what)?.path();
        let named = path.extension().is_some_and(|end| end == "json" || end == "yaml");
        if named && !path.is_dir() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(Error::new(format!("there are more than {MAX_FILES} specs in it"))).context(what);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Spec> {
    let what = || format!("read the CDI spec `{}`", path.display());
    let stat = std::fs::metadata(path).context(what)?;
    if !stat.is_file() || stat.len() > MAX_SIZE {
        return Err(Error::new(format!("it is no file of at most {MAX_SIZE} bytes"))).context(what);
    }
    spec::parse(&std::fs::read(path).context(what)?).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(device: &str, node: &str) -> String {
        format!(
            "cdiVersion: 0.6.0\nkind: v.com/c\ndevices: [{{name: {device}, containerEdits: {{deviceNodes: [{{path: {node}}}]}}}}]\n"
        )
    }

    /// Directories `0` and `1` with these files.
    fn registry(files: &[(&str, String)]) -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let registry = Registry::read(&[dir.path().join("0"), dir.path().join("1")]);
        (dir, registry)
    }

    fn find(registry: &Registry, device: &str) -> std::result::Result<String, (String, String)> {
        let found = registry.find(&Name::parse(&format!("v.com/c={device}")).unwrap());
        let node = |device: &Device| device.container_edits.device_nodes[0].path.clone();
        found.map(|(_, device)| node(device)).map_err(|e| (e.to_string(), e.hints().join("\n")))
    }

    #[test]
    fn a_generated_spec_wins_and_a_conflict_in_one_directory_is_an_error() {
        let (_dir, registry) = registry(&[
            ("0/a.yaml", spec("a", "/dev/static")),
            ("1/a.json", spec("a", "/dev/generated")),
            ("0/b.yaml", spec("b", "/dev/b")),
            ("0/c.yaml", spec("b", "/dev/c")),
            ("0/d.yml", spec("d", "/dev/d")),
        ]);
        assert_eq!(find(&registry, "a").unwrap(), "/dev/generated");
        let (error, _) = find(&registry, "b").unwrap_err();
        assert!(error.contains("/0/b.yaml` and `") && error.contains("/0/c.yaml`"), "{error}");
        let (_, hints) = find(&registry, "d").unwrap_err();
        assert_eq!(hints, "there are v.com/c=a, v.com/c=b", "only .json and .yaml are specs");
    }

    #[test]
    fn a_broken_spec_is_named_with_its_line_and_spoils_no_other() {
        let (_dir, registry) =
            registry(&[("0/a.yaml", spec("a", "/dev/a")), ("0/b.json", "{\n\"kind\": 1,\n\"x\": 2}".into())]);
        assert_eq!(find(&registry, "a").unwrap(), "/dev/a");
        let (_, hints) = find(&registry, "b").unwrap_err();
        assert!(hints.contains("/0/b.json`: unknown field `x`") && hints.contains("at line 3, column 1"), "{hints}");
    }

    #[test]
    fn without_a_directory_the_places_are_named() {
        let registry = Registry::read(&["/nowhere/cdi".into()]);
        let (error, hints) = find(&registry, "a").unwrap_err();
        assert!(
            error.contains("none of `/nowhere/cdi` is there") && hints.contains("--cdi-spec-dir"),
            "{error} {hints}"
        );
    }
}
