//! Which libraries the loader must find: what `ldconfig` would see of the devices' files in the directories of an
//! update-ldcache hook.
//!
//! In: the mounts and links of the devices, directories inside. Out: entries of the loader's cache, and links by the
//! libraries' SONAMEs, which ldconfig makes too. Reads the host's files; nothing of the image is read: what it has itself
//! its own cache lists.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use super::Link;
use crate::gpu::elf::Elf;
use crate::gpu::ldcache::Entry;
use crate::gpu::loader::flags;
use crate::plan::mounts::{Mount, What};

/// How long a chain of links may be.
const MAX_LINKS: usize = 8;

/// What is found.
pub(super) struct Found {
    /// For the cache.
    pub(super) entries: Vec<Entry>,
    /// Links that have the SONAME of a library beside it.
    pub(super) links: Vec<Link>,
}

/// One library, at its place inside.
struct Library {
    path: PathBuf,
    soname: String,
    wide: bool,
    /// Whether it is mounted by itself, so that there can be a link beside it.
    alone: bool,
}

/// Finds all.
pub(super) fn find(mounts: &[Mount], links: &[Link], folders: &[String]) -> Found {
    let folders: Vec<&Path> = folders.iter().map(Path::new).collect();
    let libraries: Vec<_> = mounts.iter().flat_map(|mount| of_mount(mount, &folders)).collect();
    let own = libraries.iter().map(|library| entry(&library.soname, &library.path, library.wide));
    let linked = links.iter().filter(|link| link.path.parent().is_some_and(|dir| folders.contains(&dir)));
    let linked = linked.filter_map(|link| {
        let name = link.path.file_name()?.to_str().filter(|name| is_library(name))?;
        Some(entry(name, &link.path, behind(link, links, &libraries)?.wide))
    });
    let mut entries: Vec<Entry> = Vec::new();
    for entry in own.chain(linked) {
        if !entries.iter().any(|known| (&known.soname, known.flags) == (&entry.soname, entry.flags)) {
            entries.push(entry);
        }
    }
    Found { entries, links: libraries.iter().filter_map(|library| soname_link(library, links)).collect() }
}

fn entry(name: &str, path: &Path, wide: bool) -> Entry {
    Entry::new(flags(wide), name, &path.to_string_lossy())
}

/// The libraries that a mount brings into these directories.
fn of_mount(mount: &Mount, folders: &[&Path]) -> Vec<Library> {
    let What::Bind { source } = &mount.what else { return Vec::new() };
    if !source.is_dir() {
        let wanted = mount.target.parent().is_some_and(|dir| folders.contains(&dir));
        return wanted.then(|| library(source, mount.target.clone(), true)).flatten().into_iter().collect();
    }
    let below =
        folders.iter().filter_map(|folder| Some((*folder, source.join(folder.strip_prefix(&mount.target).ok()?))));
    below.flat_map(|(folder, host)| of_directory(folder, &host)).collect()
}

fn of_directory(folder: &Path, host: &Path) -> Vec<Library> {
    let entries = std::fs::read_dir(host).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    names.iter().filter_map(|name| library(&host.join(name), folder.join(name), false)).collect()
}

fn library(host: &Path, path: PathBuf, alone: bool) -> Option<Library> {
    let name = path.file_name()?.to_str().filter(|name| is_library(name))?;
    if !host.metadata().ok()?.is_file() {
        return None;
    }
    let file = File::open(host).ok()?;
    let elf = Elf::read(&file)?;
    let soname = elf.soname().filter(|soname| is_library(soname)).unwrap_or_else(|| name.to_owned());
    Some(Library { soname, wide: elf.wide, alone, path })
}

/// What ldconfig looks at (elf/ldconfig.c, `search_dir`), and is a plain name.
fn is_library(name: &str) -> bool {
    (name.starts_with("lib") || name.starts_with("ld-")) && name.contains(".so") && !name.contains(['/', '\0'])
}

/// The library that a link leads to, over other links.
fn behind<'l>(link: &Link, links: &[Link], libraries: &'l [Library]) -> Option<&'l Library> {
    let mut path = leads_to(link)?;
    for _ in 0..MAX_LINKS {
        let found = libraries.iter().find(|library| {
            library.path == path || library.path.parent() == path.parent() && path.ends_with(&library.soname)
        });
        if found.is_some() {
            return found;
        }
        path = leads_to(links.iter().find(|link| link.path == path)?)?;
    }
    None
}

fn leads_to(link: &Link) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in link.path.parent()?.join(&link.to).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            other => path.push(other),
        }
    }
    Some(path)
}

fn soname_link(library: &Library, links: &[Link]) -> Option<Link> {
    let name = library.path.file_name()?.to_str()?;
    let path = library.path.with_file_name(&library.soname);
    let needed = library.alone && name != library.soname && !links.iter().any(|link| link.path == path);
    needed.then(|| Link { path, to: name.into(), why: "the library's SONAME, as ldconfig would link it" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_among_those_that_are_made() {
        let link = |path: &str, to: &str| Link { path: path.into(), to: to.into(), why: "x" };
        let library =
            Library { path: "/l/libcuda.so.1.2".into(), soname: "libcuda.so.1".into(), wide: true, alone: true };
        let links =
            [link("/l/libcuda.so", "libcuda.so.1"), link("/l/gbm/x.so", "../libcuda.so"), link("/l/loop", "loop")];
        let libraries = [library];
        assert!(behind(&links[0], &links, &libraries).is_some());
        assert!(behind(&links[1], &links, &libraries).is_some());
        assert!(behind(&links[2], &links, &libraries).is_none());
        let made = soname_link(&libraries[0], &links).unwrap();
        assert_eq!((made.path.to_str().unwrap(), &*made.to), ("/l/libcuda.so.1", "libcuda.so.1.2"));
        assert!(soname_link(&libraries[0], &[link("/l/libcuda.so.1", "x")]).is_none());
    }
}
