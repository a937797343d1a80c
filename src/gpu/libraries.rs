//! The driver's libraries in gpurun's own directory, for those programs of the image that can load them.
//!
//! In: the libraries of the host, facts about the image. Out: [`Libraries`]. Pure.

use super::files::Library;
use super::image::Contents;
use super::injection::{Bind, Link};
use super::ldcache::Entry;
use super::{PRIVATE, loader};

/// The libraries, each under all of its names, and what the loader's cache says of them.
#[derive(Default)]
pub(super) struct Libraries {
    pub(super) binds: Vec<Bind>,
    pub(super) links: Vec<Link>,
    pub(super) entries: Vec<Entry>,
    /// Which are left out, and why.
    pub(super) warnings: Vec<String>,
}

/// Where the libraries of 64-bit programs are, or those of 32-bit ones.
pub(super) fn directory(wide: bool) -> String {
    format!("{PRIVATE}/{}", if wide { "lib" } else { "lib32" })
}

/// Places the libraries that the image can load.
pub(super) fn place(libraries: &[Library], image: &Contents) -> Libraries {
    let mut made = Libraries::default();
    for library in libraries {
        match unloadable(library, image) {
            Some(why) => made.warnings.push(why),
            None => made.add(library),
        }
    }
    made
}

impl Libraries {
    fn add(&mut self, library: &Library) {
        let dir = directory(library.wide);
        self.binds.push(Bind::read(&library.real, format!("{dir}/{}", library.name).into(), "a library of the driver"));
        for (name, to) in names(library) {
            let path = format!("{dir}/{name}");
            self.entries.push(Entry::new(loader::flags(library.wide), &name, &path));
            if name != library.name {
                self.links.push(Link { path, to });
            }
        }
    }
}

/// A distribution's own build may need more than the image has; NVIDIA's files need glibc 2.14 at most.
fn unloadable(library: &Library, image: &Contents) -> Option<String> {
    let (needs, has) = library.glibc.zip(image.glibc)?;
    let name = &library.name;
    (needs > has).then(|| {
        format!("`{name}` is left out: it needs glibc {}.{}, and the image has {}.{}", needs.0, needs.1, has.0, has.1)
    })
}

/// The names a library is asked for by, and where each leads. For some the SONAME is the file's own name. Bare names are
/// those that libnvidia-container makes, since programs ask for them without a development package.
fn names(library: &Library) -> Vec<(String, String)> {
    let mut all = vec![(library.soname.clone(), library.name.clone())];
    let extra = match library.soname.as_str() {
        "libcuda.so.1" => Some("libcuda.so"),
        "libnvidia-opticalflow.so.1" => Some("libnvidia-opticalflow.so"),
        "libGLX_nvidia.so.0" => Some("libGLX_indirect.so.0"),
        _ => None,
    };
    all.extend(extra.map(|name| (name.to_owned(), library.soname.clone())));
    all
}
