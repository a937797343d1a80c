//! Random stacks of layers, made into a tree by gpurun and by a simple reading of image-spec's layer.md on paths; every
//! path is then compared: type, mode, time, content, attributes, and which names are one file.

use std::collections::{BTreeMap, BTreeSet};

use gpurun::image::{Digest, chain_id};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::image::{
    Entry, Image, Packing, dir, fifo, file, hardlink, layout, oci, opaque, symlink, verb, whiteout,
};
use crate::support::listing::{Listing, Node, list};
use crate::support::{Case, Finish, text};

/// One step of a layer, before it is known what is there.
#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    path: String,
    other: String,
    pick: usize,
    mode: u32,
    mtime: (i64, u32),
    xattr: Option<u8>,
}

fn paths() -> impl Strategy<Value = String> {
    let name = prop_oneof![8 => prop::sample::select(vec!["a", "b", "c", "d"]), 1 => Just("..")];
    let last = prop::sample::select(vec!["a", "b", "c", "d"]);
    (vec(name, 0..3), last).prop_map(|(parents, last)| [parents, vec![last]].concat().join("/"))
}

fn targets() -> impl Strategy<Value = String> {
    let up = prop::sample::select(vec!["", "/", "../", "../../", "./"]);
    prop_oneof![4 => (up, paths()).prop_map(|(up, path)| format!("{up}{path}")), 1 => Just("..".into()), 1 => Just("/".into())]
}

fn steps() -> impl Strategy<Value = Step> {
    let modes = prop::sample::select(vec![0o755, 0o644, 0o000, 0o555, 0o4755, 0o1777, 0o600, 0o222]);
    let times = prop::sample::select(vec![(0, 0), (1_600_000_000, 0), (-7, 250_000_000), (1, 1)]);
    let all = (0_u8..20, paths(), targets(), any::<usize>(), modes, times, prop::option::of(0_u8..3));
    all.prop_map(|(kind, path, other, pick, mode, mtime, xattr)| Step { kind, path, other, pick, mode, mtime, xattr })
}

/// A path is a directory, or a name of a file.
#[derive(Clone, Debug)]
enum Place {
    Dir(Attributes),
    Name(usize),
}

#[derive(Clone, Debug)]
struct Attributes {
    mode: u32,
    mtime: (i64, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug)]
struct File {
    kind: char,
    content: Vec<u8>,
    attributes: Attributes,
}

type Path = Vec<String>;

/// The tree as layer.md has it: paths without links in them, each with what it is.
#[derive(Clone, Debug, Default)]
struct Model {
    places: BTreeMap<Path, Place>,
    files: Vec<File>,
}

/// The image is to be refused.
#[derive(Debug)]
struct Refused;

fn implicit() -> Attributes {
    Attributes { mode: 0o755, mtime: (0, 0), xattrs: BTreeMap::new() }
}

fn split(path: &str) -> (Vec<&str>, &str) {
    let mut names: Vec<_> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let last = names.pop().unwrap_or("");
    (names, last)
}

impl Model {
    fn new() -> Self {
        let places = BTreeMap::from([(Path::new(), Place::Dir(implicit()))]);
        Self { places, files: Vec::new() }
    }

    fn link(&self, path: &Path) -> Option<&[u8]> {
        match self.places.get(path) {
            Some(Place::Name(id)) if self.files[*id].kind == 'l' => Some(&self.files[*id].content),
            _ => None,
        }
    }

    /// Where these names lead to, all links followed; but a directory of the layer itself, by the name it is spelled by,
    /// is no link any more.
    fn resolve(&mut self, names: &[&str], make: bool, own: &BTreeSet<String>) -> Result<Option<Path>, Refused> {
        let mut waiting: Vec<String> = names.iter().rev().map(ToString::to_string).collect();
        let (mut at, mut links, mut spelled) = (Path::new(), 0, 0);
        while let Some(name) = waiting.pop() {
            spelled += 1;
            match name.as_str() {
                "." => continue,
                ".." => drop(at.pop()),
                _ => at.push(name),
            }
            let is_own = links == 0 && own.contains(&names[..spelled.min(names.len())].join("/"));
            if let Some(target) = self.link(&at).filter(|_| !is_own) {
                let target = String::from_utf8_lossy(target).into_owned();
                links += 1;
                if links > 40 {
                    return Err(Refused);
                }
                if target.starts_with('/') {
                    at.clear();
                } else {
                    drop(at.pop());
                }
                waiting.extend(target.split('/').rev().filter(|n| !n.is_empty()).map(ToOwned::to_owned));
            } else if !matches!(self.places.get(&at), Some(Place::Dir(_))) {
                if !make {
                    return Ok(None);
                }
                self.places.insert(at.clone(), Place::Dir(implicit()));
            }
        }
        Ok(Some(at))
    }

    fn remove(&mut self, path: &Path) {
        self.places.retain(|at, _| !at.starts_with(path));
    }

    fn hide(&mut self, path: &str, own: &BTreeSet<String>) -> Result<(), Refused> {
        let (parents, last) = split(path);
        if let Some(mut at) = self.resolve(&parents, false, own)? {
            at.push(last.into());
            self.remove(&at);
        }
        Ok(())
    }

    fn empty(&mut self, path: &str, own: &BTreeSet<String>) -> Result<(), Refused> {
        let (parents, last) = split(path);
        if let Some(at) = self.resolve(&[&parents[..], &[last]].concat(), false, own)? {
            self.places.retain(|path, _| *path == at || !path.starts_with(&at));
        }
        Ok(())
    }

    /// The path where an entry goes, with its parents made.
    fn place(&mut self, path: &str) -> Result<Path, Refused> {
        let (parents, last) = split(path);
        let mut at = self.resolve(&parents, true, &BTreeSet::new())?.ok_or(Refused)?;
        at.push(last.into());
        Ok(at)
    }

    fn put(&mut self, path: &str, place: Place) -> Result<(), Refused> {
        let at = self.place(path)?;
        let both = |old: &Place| matches!((old, &place), (Place::Dir(_), Place::Dir(_)));
        if !self.places.get(&at).is_some_and(both) {
            self.remove(&at);
        }
        self.places.insert(at, place);
        Ok(())
    }

    fn put_file(&mut self, path: &str, file: File) -> Result<(), Refused> {
        self.files.push(file);
        self.put(path, Place::Name(self.files.len() - 1))
    }

    fn put_link(&mut self, path: &str, target: &str) -> Result<(), Refused> {
        let (parents, last) = split(target);
        let mut at = self.resolve(&parents, false, &BTreeSet::new())?.ok_or(Refused)?;
        at.push(last.into());
        match self.places.get(&at) {
            Some(Place::Name(id)) => self.put(path, Place::Name(*id)),
            _ => Err(Refused),
        }
    }

    /// Some name of a file that is there.
    fn some_name(&self, pick: usize) -> Option<String> {
        let names: Vec<_> = self.places.iter().filter(|(_, place)| matches!(place, Place::Name(_))).collect();
        (!names.is_empty()).then(|| names[pick % names.len()].0.join("/"))
    }

    /// Applies a layer; gives the entries that say the same.
    fn apply(&mut self, steps: &[Step]) -> Result<Vec<Entry>, (Vec<Entry>, Refused)> {
        let mut entries: Vec<_> = steps.iter().map(Self::written).collect();
        let done = self.try_apply(steps, &mut entries);
        let entries = entries.into_iter().flatten().collect();
        match done {
            Ok(()) => Ok(entries),
            Err(refused) => Err((entries, refused)),
        }
    }

    fn try_apply(&mut self, steps: &[Step], entries: &mut [Option<Entry>]) -> Result<(), Refused> {
        // A directory of this layer takes the place of a link below, and nothing below is in it.
        let own = steps.iter().filter(|step| step.kind < 5).map(|step| step.path.clone()).collect();
        for step in steps {
            match step.kind {
                16 | 17 => self.hide(&step.path, &own)?,
                18 => self.empty(&step.path, &own)?,
                _ => {}
            }
        }
        for (step, entry) in steps.iter().zip(entries) {
            self.step(step, entry)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step, entry: &mut Option<Entry>) -> Result<(), Refused> {
        let attributes = attributes(step);
        let file = |kind, content: &str| File { kind, content: content.into(), attributes: attributes.clone() };
        match step.kind {
            0..5 => self.put(&step.path, Place::Dir(attributes)),
            5..10 => self.put_file(&step.path, file('f', &step.other)),
            10..13 => self.put_file(&step.path, file('l', &step.other)),
            13..15 => {
                let Some(name) = self.some_name(step.pick) else { return Ok(()) };
                *entry = Some(hardlink(&step.path, &name));
                self.put_link(&step.path, &name)
            }
            15 => self.put_file(&step.path, file('p', "")),
            19 => {
                let Place::Dir(root) = Place::Dir(attributes) else { return Err(Refused) };
                self.places.insert(Path::new(), Place::Dir(root));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The entry of a step that does not depend on what is there.
    fn written(step: &Step) -> Option<Entry> {
        let entry = match step.kind {
            0..5 => dir(format!("{}/", step.path)),
            5..10 => file(&step.path, &step.other),
            10..13 => return Some(symlink(&step.path, &step.other).mtime(step.mtime.0, step.mtime.1)),
            13..15 => return None,
            15 => fifo(&step.path),
            16 | 17 => return Some(whiteout(&step.path)),
            18 => return Some(opaque(&step.path)),
            _ => dir("./"),
        };
        let entry = entry.mode(step.mode).mtime(step.mtime.0, step.mtime.1);
        Some(match step.xattr.filter(|_| step.kind != 15) {
            Some(value) => entry.xattr("user.x", [value]),
            None => entry,
        })
    }

    fn listing(&self) -> Listing {
        let bytes = |path: &Path| path.join("/").into_bytes();
        let names = |id: usize| {
            let same = self.places.iter().filter(|(_, p)| matches!(p, Place::Name(other) if *other == id));
            same.map(|(path, _)| bytes(path)).collect()
        };
        let node = |path: &Path, place: &Place| match place {
            Place::Dir(attributes) => node('d', attributes, Vec::new(), BTreeSet::from([bytes(path)])),
            Place::Name(id) => {
                let file = &self.files[*id];
                node(file.kind, &file.attributes, file.content.clone(), names(*id))
            }
        };
        self.places.iter().map(|(path, place)| (bytes(path), node(path, place))).collect()
    }
}

fn attributes(step: &Step) -> Attributes {
    let xattrs = step.xattr.filter(|_| !(10..19).contains(&step.kind)).map(|value| ("user.x".to_owned(), vec![value]));
    let mode = if (10..13).contains(&step.kind) { 0o777 } else { step.mode };
    Attributes { mode, mtime: step.mtime, xattrs: xattrs.into_iter().collect() }
}

fn node(kind: char, attributes: &Attributes, content: Vec<u8>, names: BTreeSet<Vec<u8>>) -> Node {
    let Attributes { mode, mtime: (seconds, nanos), xattrs } = attributes.clone();
    Node { kind, mode, mtime: (seconds, nanos.into()), content, xattrs, names }
}

/// What differs, one line a path.
fn differences(got: &Listing, want: &Listing) -> Vec<String> {
    let paths: BTreeSet<_> = got.keys().chain(want.keys()).collect();
    let differ = paths.into_iter().filter(|path| got.get(*path) != want.get(*path));
    differ.map(|p| format!("{}: is {:?}, not {:?}", String::from_utf8_lossy(p), got.get(p), want.get(p))).collect()
}

fn check(case: &Case, stack: &[Vec<Step>], number: usize) -> Result<(), TestCaseError> {
    let packings = [Packing::Plain, Packing::Gzip, Packing::Zstd];
    let (mut model, mut image, mut refused) = (Model::new(), Image::empty(), false);
    for (n, steps) in stack.iter().enumerate() {
        let entries = model.apply(steps).unwrap_or_else(|(entries, Refused)| {
            refused = true;
            entries
        });
        image = image.packed(packings[n % 3], entries);
        if refused {
            break;
        }
    }
    let reference = oci(&layout(case, &format!("layout{number}"), &[&image]));
    let finished = verb(case, &["pull", "-q", "--store", text(&case.path("store")), &reference]).finish();
    if refused {
        prop_assert_eq!(finished.status, 125, "it is to be refused: {:?}", finished);
        return Ok(());
    }
    prop_assert_eq!((finished.status, finished.stderr.as_str()), (0, ""));
    let chain = chain_id(image.layers.iter().map(|layer| Digest::of(&layer.tar)));
    let got = list(&case.path("store/rootfs").join(chain.hex()).join("root"));
    let differences = differences(&got, &model.listing());
    prop_assert!(differences.is_empty(), "{differences:#?}");
    Ok(())
}

/// All images go into one store, so that many share layers.
#[test]
fn random_stacks_of_layers_are_what_the_specification_says() {
    let case = Case::new();
    let cases = std::env::var("GPURUN_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 500, ..Config::default() });
    let number = std::cell::Cell::new(0);
    let done = runner.run(&vec(vec(steps(), 0..9), 1..5), |stack| {
        number.set(number.get() + 1);
        check(&case, &stack, number.get())
    });
    done.unwrap_or_else(|error| panic!("{error}"));
}
