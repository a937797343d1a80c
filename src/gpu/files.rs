//! The driver's user-space files of one version, wherever this distribution has them.
//!
//! In: a [`DriverRoot`] and the version of the loaded module. Out: [`DriverFiles`], or what is missing with its package.
//! Files of another version are never taken: CUDA and NVML refuse to talk to a module that is not exactly theirs.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::classify::{self, Capabilities, Capability};
use super::elf::{Elf, Glibc};
use super::injection::Bind;
use super::inventory::Version;
use super::ldcache::{self, Cache};
use super::places::{DATA, DATA_ROOTS, LIBRARIES, LIBRARIES_32, NEEDED, PROGRAM_NAMES, PROGRAMS, XORG};
use super::root::DriverRoot;
use crate::error::{Error, Result};
use crate::inroot;

/// One library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its file name.
    pub name: String,
    /// Where it is on the host, links resolved.
    pub real: PathBuf,
    /// What programs ask for.
    pub soname: String,
    /// Whether it is for 64-bit programs.
    pub wide: bool,
    /// What it is for.
    pub capability: Capability,
    /// The newest glibc it needs.
    pub glibc: Option<Glibc>,
}

/// A file that has a fixed place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where it is on the host, links resolved.
    pub real: PathBuf,
    /// Where it belongs in a container.
    pub target: PathBuf,
}

/// What of the driver goes into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverFiles {
    /// By name.
    pub libraries: Vec<Library>,
    /// Programs.
    pub programs: Vec<Placed>,
    /// Configuration and data.
    pub data: Vec<Placed>,
}

impl DriverFiles {
    /// Finds what these capabilities need.
    pub fn find(root: &DriverRoot, version: &Version, wanted: &Capabilities) -> Result<Self> {
        let mut libraries = libraries(root, &directories(root, LIBRARIES), version, wanted, true);
        complete(root, &libraries, version, wanted)?;
        if wanted.has(Capability::Compat32) {
            libraries.extend(self::libraries(root, &directories(root, LIBRARIES_32), version, wanted, false));
        }
        let modules = xorg(root, version, wanted);
        Ok(Self { libraries, programs: programs(root, wanted), data: [data(root, wanted), modules].concat() })
    }

    /// What goes to its fixed place, which libraries do not.
    pub(super) fn binds(&self) -> Vec<Bind> {
        let bind = |why| move |file: &Placed| Bind::read(&file.real, file.target.clone(), why);
        let programs = self.programs.iter().map(bind("a program of the driver"));
        programs.chain(self.data.iter().map(bind("where loaders look for the driver"))).collect()
    }
}

/// Where a 64-bit library of this name is, links resolved.
pub fn library(root: &DriverRoot, name: &str) -> Option<PathBuf> {
    let wide = |real: &PathBuf| File::open(real).is_ok_and(|file| Elf::read(&file).is_some_and(|elf| elf.wide));
    let real = |(path, _, _): &Directory| root.real(&path.join(name)).filter(wide);
    directories(root, LIBRARIES).iter().find_map(real)
}

/// A directory and the names in it.
type Directory = (PathBuf, PathBuf, Vec<String>);

/// The directories of the driver, each once: those in which the host's loader finds it come first.
fn directories(root: &DriverRoot, fixed: &[&str]) -> Vec<Directory> {
    let cache = root.file(Path::new("/etc/ld.so.cache"), ldcache::MAX_SIZE).and_then(|b| Cache::parse(&b));
    let cache = cache.unwrap_or_default();
    let cached = ["libcuda.so.1", "libnvidia-ml.so.1"].iter().flat_map(|name| cache.find(name));
    let parents = cached.filter_map(|path| Some(Path::new(std::str::from_utf8(path).ok()?).parent()?.to_owned()));
    let (mut found, mut seen) = (Vec::<Directory>::new(), BTreeSet::new());
    for path in parents.chain(fixed.iter().map(PathBuf::from)) {
        if !seen.insert(path.clone()) {
            continue;
        }
        let Some((dir, real)) = root.directory(&path) else { continue };
        if found.iter().all(|(_, known, _)| *known != real) {
            found.push((path, real, inroot::list(dir.as_fd())));
        }
    }
    found
}

/// The libraries of one class, the first of each name.
fn libraries(
    root: &DriverRoot,
    from: &[Directory],
    version: &Version,
    wanted: &Capabilities,
    wide: bool,
) -> Vec<Library> {
    let mut found: Vec<Library> = Vec::new();
    for (path, _, names) in from {
        for name in names {
            let Some(capability) = classify::library(name, version.as_str(), wanted) else { continue };
            if found.iter().any(|known| known.name == *name) {
                continue;
            }
            let library = root.open(&path.join(name)).and_then(|(file, real)| read(name, &file, real, capability));
            found.extend(library.filter(|l| l.wide == wide));
        }
    }
    newest(found)
}

/// By name, and of those that programs ask for by one name the newest: a library with a version of its own may be there in
/// several, and is there by the link of its SONAME.
fn newest(mut found: Vec<Library>) -> Vec<Library> {
    found.sort_by(|a, b| ldcache::compare(b.name.as_bytes(), a.name.as_bytes()));
    let mut known = BTreeSet::new();
    found.retain(|library| known.insert(library.soname.clone()));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// What the file itself says; one that is no library is none.
fn read(name: &str, file: &File, real: PathBuf, capability: Capability) -> Option<Library> {
    let elf = Elf::read(file)?;
    let soname = elf.soname().unwrap_or_else(|| name.to_owned());
    Some(Library { name: name.into(), soname, wide: elf.wide, capability, glibc: elf.needs_glibc(), real })
}

/// Nothing that a capability cannot do without may be missing.
fn complete(root: &DriverRoot, found: &[Library], version: &Version, wanted: &Capabilities) -> Result<()> {
    for (name, capability, packages) in NEEDED {
        let file = format!("{name}.so.{version}");
        if !wanted.has(*capability) || found.iter().any(|library| library.name == file) {
            continue;
        }
        let others = other_versions(root, name);
        let none = !found.iter().any(|library| library.name.ends_with(version.as_str()));
        return Err(if none && !others.is_empty() {
            skew(version, &others)
        } else {
            missing(version, &file, packages)
        });
    }
    Ok(())
}

fn skew(version: &Version, others: &[String]) -> Error {
    let others = others.join(" and ");
    Error::new(format!("the loaded driver is {version}, and its user-space files are {others}"))
        .hint("the driver was updated while its module was loaded: reboot, or have an administrator reload the module")
        .hint("or the right ones are somewhere else: `--driver-root DIR`")
}

fn missing(version: &Version, file: &str, packages: &str) -> Error {
    let packages = packages.replace("BRANCH", &version.major().to_string());
    Error::new(format!("driver {version} is not wholly installed: `{file}` is nowhere"))
        .hint(format!("install {packages}"))
        .hint("or name its place: `--driver-root DIR`")
}

/// The versions in which a library is there.
fn other_versions(root: &DriverRoot, name: &str) -> Vec<String> {
    let names = directories(root, LIBRARIES).into_iter().flat_map(|(_, _, names)| names);
    let suffix = |file: String| Version::parse(file.strip_prefix(name)?.strip_prefix(".so.")?);
    let mut all: Vec<_> = names.filter_map(suffix).map(|v| v.to_string()).collect();
    all.sort();
    all.dedup();
    all
}

fn programs(root: &DriverRoot, wanted: &Capabilities) -> Vec<Placed> {
    let names = PROGRAM_NAMES.iter().filter(|(_, capability)| wanted.has(*capability));
    // Most machines have two of them.
    let directories: Vec<_> = PROGRAMS.iter().filter(|dir| root.real(Path::new(dir)).is_some()).collect();
    let place = |name: &str| {
        let real = directories.iter().find_map(|dir| root.real(&Path::new(dir).join(name)))?;
        Some(Placed { real, target: Path::new("/usr/bin").join(name) })
    };
    names.filter_map(|(name, _)| place(name)).collect()
}

fn data(root: &DriverRoot, wanted: &Capabilities) -> Vec<Placed> {
    let wanted = DATA.iter().filter(|(_, _, capability)| wanted.has(*capability));
    let place = |(name, target, _): &(&str, &str, Capability)| {
        let real = DATA_ROOTS.iter().find_map(|dir| root.real(&Path::new(dir).join(name)))?;
        Some(Placed { real, target: Path::new(target).join(name) })
    };
    wanted.filter_map(place).collect()
}

/// The X server's driver, and its GLX module under both of its names: only that one carries a version, so without it
/// nobody knows whose the driver is.
fn xorg(root: &DriverRoot, version: &Version, wanted: &Capabilities) -> Vec<Placed> {
    if !wanted.has(Capability::Display) {
        return Vec::new();
    }
    let (bare, full) = ("libglxserver_nvidia.so", format!("libglxserver_nvidia.so.{version}"));
    let find = |name: &str| XORG.iter().find_map(|dir| Some((*dir, root.real(&Path::new(dir).join(name))?)));
    let glx =
        find(&full).or_else(|| find(bare)).filter(|(_, real)| real.file_name().is_some_and(|n| n == full.as_str()));
    let Some((dir, glx)) = glx else { return Vec::new() };
    let place = |dir: &str, name: &str, real: &Path| Placed { real: real.into(), target: Path::new(dir).join(name) };
    let driver = find("nvidia_drv.so").map(|(dir, real)| place(dir, "nvidia_drv.so", &real));
    [place(dir, bare, &glx), place(dir, &full, &glx)].into_iter().chain(driver).collect()
}
