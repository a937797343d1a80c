//! What all layers of an image make together: [`Index`]es, lowest first, → [`Tree`] → [`Directory`] list.
//!
//! Pure and in memory: links are followed here, as the workload would see them, and nothing an image names is resolved
//! by the kernel. A layer's whiteouts come before its entries, whatever their order, since they concern only the layers
//! below (image-spec, layer.md, "Whiteouts"). A parent that no entry names is made, or found through the links that
//! are there.

use std::collections::{BTreeMap, HashSet};

use super::change::{Attributes, Change, Index, MAX_PATH, What, shown};
use crate::error::{Context, Error, Result};

/// Links that are followed in one path (as the kernel's MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// The most changes that all layers together may make: one that is small may come any number of times.
const MAX_CHANGES: usize = 10_000_000;

/// The most directories that no entry names: a path through links can ask for tens of thousands at once.
const MAX_IMPLICIT: usize = 1 << 18;

/// The most names that are walked: a path has thousands, behind links tens of thousands, and so can every other.
const MAX_WALKED: usize = 1 << 28;

/// The most bytes that the paths of all directories may have: a short name behind a link can have a long one.
const MAX_PATHS: usize = 256 << 20;

const ROOT: NodeId = 0;

type NodeId = usize;

/// The files and directories of a rootfs. What is large is borrowed from the indexes: a layer may come any number of times.
#[derive(Debug)]
pub struct Tree<'i> {
    nodes: Vec<Node<'i>>,
    /// Directories that were made because no entry named them.
    implicit: usize,
    /// Names that were walked, and may be.
    walked: usize,
    max_walked: usize,
}

#[derive(Debug)]
enum Node<'i> {
    Dir(Dir<'i>),
    File(Staged),
    Symlink(Staged, &'i [u8]),
    /// A device node, which links may name but nobody sees.
    Device,
}

#[derive(Debug, Default)]
struct Dir<'i> {
    attributes: Option<&'i Attributes>,
    children: BTreeMap<Vec<u8>, NodeId>,
}

/// A file in the stage of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Staged {
    /// Which layer, counted from the lowest.
    pub layer: usize,
    /// Its name there.
    pub number: u64,
}

/// One directory of a rootfs; its parent comes before it.
#[derive(Debug, PartialEq, Eq)]
pub struct Directory {
    /// Path below the root; empty for the root itself.
    pub path: Vec<u8>,
    /// What it gets when everything is in it.
    pub attributes: Attributes,
    /// What is in it, directories excepted.
    pub files: Vec<(Vec<u8>, Staged)>,
}

/// How a path is walked.
#[derive(Clone, Copy)]
enum Walk<'a> {
    /// Directories that are not there are made.
    Make,
    /// Nothing is made. These paths are directories of the layer itself, so a link below in their place is not followed.
    Below(&'a HashSet<&'a [u8]>),
}

impl<'i> Tree<'i> {
    /// The tree of these layers.
    pub fn of(layers: impl IntoIterator<Item = &'i Index>) -> Result<Self> {
        Self::within(layers, MAX_WALKED)
    }

    fn within(layers: impl IntoIterator<Item = &'i Index>, max_walked: usize) -> Result<Self> {
        let layers: Vec<_> = layers.into_iter().collect();
        if layers.iter().map(|layer| layer.changes.len()).sum::<usize>() > MAX_CHANGES {
            return Err(Error::new(format!("the image's layers have more than {MAX_CHANGES} entries")));
        }
        let mut tree = Self { nodes: vec![Node::Dir(Dir::default())], implicit: 0, walked: 0, max_walked };
        for (number, layer) in layers.into_iter().enumerate() {
            tree.apply(number, layer).context(|| format!("apply layer {}", number + 1))?;
        }
        Ok(tree)
    }

    fn apply(&mut self, layer: usize, index: &'i Index) -> Result<()> {
        let is_dir = |c: &&Change| matches!(c.what, What::Dir(_));
        let own: HashSet<&[u8]> = index.changes.iter().filter(is_dir).map(|c| c.path.as_slice()).collect();
        for change in &index.changes {
            match change.what {
                What::Whiteout => self.hide(&change.path, &own)?,
                What::Opaque => self.empty(&change.path, &own)?,
                _ => {}
            }
        }
        for change in &index.changes {
            self.put(layer, change).context(|| format!("put `{}`", shown(&change.path)))?;
        }
        Ok(())
    }

    fn hide(&mut self, path: &[u8], own: &HashSet<&[u8]>) -> Result<()> {
        let (parent, name) = split(path);
        if let Some(parent) = self.walk(parent, Walk::Below(own))? {
            self.dir_mut(parent).children.remove(name);
        }
        Ok(())
    }

    fn empty(&mut self, path: &[u8], own: &HashSet<&[u8]>) -> Result<()> {
        if let Some(dir) = self.walk(path, Walk::Below(own))? {
            self.dir_mut(dir).children.clear();
        }
        Ok(())
    }

    fn put(&mut self, layer: usize, change: &'i Change) -> Result<()> {
        let staged = |number: &u64| Staged { layer, number: *number };
        match &change.what {
            What::Whiteout | What::Opaque => Ok(()),
            What::Dir(attributes) => self.put_dir(&change.path, attributes),
            What::File { number } => self.put_node(&change.path, Node::File(staged(number))),
            What::Symlink { number, target } => self.put_node(&change.path, Node::Symlink(staged(number), target)),
            What::HardLink { target } => self.put_link(&change.path, target),
            What::Device => self.put_node(&change.path, Node::Device),
        }
    }

    /// A directory over a directory keeps what is in it; over anything else, a link too, it takes its place (layer.md,
    /// "Change Types").
    fn put_dir(&mut self, path: &[u8], attributes: &'i Attributes) -> Result<()> {
        let dir = if path.is_empty() {
            ROOT
        } else {
            let (parent, name) = self.parent_of(path)?;
            match self.child(parent, name) {
                Some(id) if matches!(self.nodes[id], Node::Dir(_)) => id,
                _ => self.insert(parent, name, Node::Dir(Dir::default())),
            }
        };
        self.dir_mut(dir).attributes = Some(attributes);
        Ok(())
    }

    fn put_node(&mut self, path: &[u8], node: Node<'i>) -> Result<()> {
        let (parent, name) = self.parent_of(path)?;
        self.insert(parent, name, node);
        Ok(())
    }

    /// One more name for a file of this layer or of one below. A link there is not followed: it gets the name itself.
    fn put_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let missing = || format!("a hard link to `{}`, which is not there", shown(target));
        let (parent, name) = split(target);
        let nothing = HashSet::new();
        let parent = self.walk(parent, Walk::Below(&nothing))?.context(missing)?;
        let id = self.child(parent, name).context(missing)?;
        if matches!(self.nodes[id], Node::Dir(_)) {
            return Err(Error::new(format!("a hard link to the directory `{}`", shown(target))));
        }
        let (parent, name) = self.parent_of(path)?;
        self.dir_mut(parent).children.insert(name.to_vec(), id);
        Ok(())
    }

    fn parent_of<'p>(&mut self, path: &'p [u8]) -> Result<(NodeId, &'p [u8])> {
        let (parent, name) = split(path);
        if matches!(name, b"" | b"..") {
            return Err(Error::new("it has no name"));
        }
        let parent = self.walk(parent, Walk::Make)?.context(|| "its parent cannot be made")?;
        Ok((parent, name))
    }

    fn insert(&mut self, parent: NodeId, name: &[u8], node: Node<'i>) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(node);
        self.dir_mut(parent).children.insert(name.to_vec(), id);
        id
    }

    /// A directory that no entry names, so far at least.
    fn make(&mut self, parent: NodeId, name: &[u8]) -> Result<NodeId> {
        self.implicit += 1;
        match self.implicit > MAX_IMPLICIT {
            true => Err(Error::new(format!("the image has more than {MAX_IMPLICIT} directories that no entry names"))),
            false => Ok(self.insert(parent, name, Node::Dir(Dir::default()))),
        }
    }

    /// The directory at `path`, with every link followed in the root, and `..` never above it.
    fn walk(&mut self, path: &[u8], how: Walk) -> Result<Option<NodeId>> {
        let mut rest = path.to_vec();
        let (mut trail, mut at, mut links) = (vec![ROOT], 0, 0);
        while let Some(name) = next_name(&rest, &mut at) {
            self.walked += 1;
            if self.walked > self.max_walked {
                return Err(Error::new(format!("more than {} names are to be walked", self.max_walked)));
            }
            let dir = *trail.last().unwrap_or(&ROOT);
            match name {
                b"." => {}
                b".." => trail.truncate((trail.len() - 1).max(1)),
                _ => match (self.child(dir, name), how) {
                    (Some(id), _) if matches!(self.nodes[id], Node::Dir(_)) => trail.push(id),
                    (Some(id), how) if self.follows(id, how, &rest[..at], links) => {
                        links += 1;
                        let Node::Symlink(_, target) = self.nodes[id] else { return Ok(None) };
                        if target.starts_with(b"/") {
                            trail.truncate(1);
                        }
                        rest = [target, b"/", &rest[at..]].concat();
                        at = 0;
                    }
                    (_, Walk::Below(_)) => return Ok(None),
                    // What is in the way of a parent gives way, as it does in an overlay's upper layer.
                    (_, Walk::Make) => trail.push(self.make(dir, name)?),
                },
            }
            if links > MAX_LINKS {
                return Err(Error::new(format!("`{}` leads through more than {MAX_LINKS} links", shown(path))));
            }
        }
        Ok(trail.last().copied())
    }

    /// Whether a link is followed at `prefix`, which is spelled as in the layer as long as no link came before.
    fn follows(&self, id: NodeId, how: Walk, prefix: &[u8], links: usize) -> bool {
        let own = matches!(how, Walk::Below(own) if links == 0 && own.contains(prefix));
        matches!(self.nodes[id], Node::Symlink(..)) && !own
    }

    fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.nodes[dir] {
            Node::Dir(dir) => dir.children.get(name).copied(),
            _ => None,
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> &mut Dir<'i> {
        match &mut self.nodes[id] {
            Node::Dir(dir) => dir,
            other => unreachable!("node {id} is {other:?}, and only directories are walked to"),
        }
    }

    /// Every directory, parents first, with the files in it. A path that no program could name is an error.
    pub fn directories(self) -> Result<Vec<Directory>> {
        self.directories_within(MAX_PATHS)
    }

    fn directories_within(self, max_paths: usize) -> Result<Vec<Directory>> {
        let (mut all, mut waiting, mut paths) = (Vec::new(), vec![(Vec::new(), ROOT)], 0);
        while let Some((path, id)) = waiting.pop() {
            let Node::Dir(dir) = &self.nodes[id] else { continue };
            let mut files = Vec::new();
            for (name, &child) in &dir.children {
                match &self.nodes[child] {
                    Node::Dir(_) => {
                        let path = join(&path, name)?;
                        paths += path.len();
                        if paths > max_paths {
                            return Err(Error::new(format!("its directories' paths have more than {max_paths} bytes")));
                        }
                        waiting.push((path, child));
                    }
                    Node::File(staged) | Node::Symlink(staged, _) => files.push((name.clone(), *staged)),
                    Node::Device => {}
                }
            }
            let attributes = dir.attributes.cloned().unwrap_or_else(Attributes::implicit);
            all.push(Directory { path, attributes, files });
        }
        Ok(all)
    }
}

fn join(dir: &[u8], name: &[u8]) -> Result<Vec<u8>> {
    let path = if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() };
    match path.len() <= MAX_PATH {
        true => Ok(path),
        false => Err(Error::new(format!("a path of more than {MAX_PATH} bytes, below `{}`", shown(&path[..64])))),
    }
}

/// The parent's path and the last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The next name of a path from `at`, which moves behind it.
fn next_name<'p>(path: &'p [u8], at: &mut usize) -> Option<&'p [u8]> {
    let start = *at + path[*at..].iter().position(|&b| b != b'/')?;
    let length = path[start..].iter().position(|&b| b == b'/').unwrap_or(path.len() - start);
    *at = start + length;
    Some(&path[start..*at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::change::Name;
    use crate::layer::tar::Time;

    /// A layer from lines such as `d a`, `f a/b`, `l a/c -> b`, `h a/d -> a/b`, `w a/b`, `o a`.
    fn layer(lines: &[&str]) -> Index {
        let change = |(number, line): (usize, &&str)| {
            let number = number as u64;
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (path, target) = rest.split_once(" -> ").unwrap_or((rest, ""));
            let what = match kind {
                "d" => What::Dir(Attributes { mode: 0o700, mtime: Time::default(), xattrs: Vec::new() }),
                "f" => What::File { number },
                "l" => What::Symlink { number, target: target.into() },
                "h" => What::HardLink { target: target.into() },
                "w" => What::Whiteout,
                "o" => What::Opaque,
                _ => What::Device,
            };
            let Name::Plain(path) = Name::parse(path.as_bytes()).unwrap() else { panic!("{path}") };
            Change { path, what }
        };
        Index { changes: lines.iter().enumerate().map(change).collect(), bytes: 0 }
    }

    /// `path` of directories, with `+` if an entry named them, and `path=LAYER.NUMBER` of files, sorted.
    fn listed(layers: &[&[&str]]) -> Result<Vec<String>> {
        let indexes: Vec<_> = layers.iter().map(|lines| layer(lines)).collect();
        let mut all = Vec::new();
        for dir in Tree::of(&indexes)?.directories()? {
            let path = String::from_utf8(dir.path).unwrap();
            for (name, staged) in dir.files {
                let name = String::from_utf8(name).unwrap();
                let joined = if path.is_empty() { name } else { format!("{path}/{name}") };
                all.push(format!("{joined}={}.{}", staged.layer, staged.number));
            }
            all.push(if dir.attributes.mode == 0o700 { format!("{path}+") } else { path });
        }
        all.sort();
        Ok(all)
    }

    #[track_caller]
    fn check(layers: &[&[&str]], want: &[&str]) {
        let mut want = want.to_vec();
        want.sort_unstable();
        assert_eq!(listed(layers).unwrap(), want);
    }

    #[test]
    fn later_layers_add_and_replace() {
        check(
            &[&["d a", "f a/x", "f a/y"], &["f a/y", "f b/c/z"]],
            &["", "a+", "a/x=0.1", "a/y=1.0", "b", "b/c", "b/c/z=1.1"],
        );
    }

    #[test]
    fn whiteouts_concern_only_what_is_below_wherever_they_stand() {
        check(&[&["f a/x", "f b"], &["f a/new", "w a", "w b", "w never"]], &["", "a", "a/new=1.0"]);
        check(&[&["f a/x"], &["d a", "f a/y", "o a"]], &["", "a+", "a/y=1.1"]);
        check(&[&["f a/x", "f y"], &["o ", "f z"]], &["", "z=1.1"]);
    }

    #[test]
    fn types_change() {
        check(&[&["f a", "d b", "f b/x"], &["d a", "f b"]], &["", "a+", "b=1.1"]);
        check(&[&["l a -> b", "d b", "f b/x"], &["d a", "f a/y"]], &["", "a+", "a/y=1.1", "b+", "b/x=0.2"]);
        check(&[&["d a", "f a/x"], &["l a -> b"]], &["", "a=1.0"]);
        check(&[&["f a"], &["n a"]], &[""]);
        check(&[&["n a", "h b -> a"], &["f a", "h c -> b", "f b/d"]], &["", "a=1.0", "b", "b/d=1.2"]);
    }

    #[test]
    fn parents_are_found_through_links_and_never_outside() {
        let below: &[&str] = &["d real", "l rel -> real", "l abs -> /real", "l up -> ../../real", "l far -> rel"];
        let links = ["abs=0.2", "far=0.4", "rel=0.1", "up=0.3"];
        let with = |names: &[&'static str]| [&links[..], &["", "real+"], names].concat();
        check(
            &[below, &["f rel/a", "f abs/b", "f up/c", "f far/d"]],
            &with(&["real/a=1.0", "real/b=1.1", "real/c=1.2", "real/d=1.3"]),
        );
        check(&[below, &["f ../../x", "f real/../y", "f abs/../z"]], &with(&["x=1.0", "y=1.1", "z=1.2"]));
        check(&[&["l gone -> no/where"], &["f gone/x"]], &["", "gone=0.0", "no", "no/where", "no/where/x=1.0"]);
    }

    #[test]
    fn whiteouts_follow_links_but_not_through_a_directory_of_their_own_layer() {
        check(&[&["f real/x", "l a -> real"], &["w a/x"]], &["", "real", "a=0.1"]);
        check(&[&["f real/x", "l a -> real"], &["d a", "w a/x", "o a"]], &["", "a+", "real", "real/x=0.0"]);
    }

    #[test]
    fn hard_links_share_one_file_even_when_its_first_name_goes() {
        check(&[&["f a", "h b -> a"], &["w a", "h c -> b"]], &["", "b=0.0", "c=0.0"]);
        check(&[&["l s -> x", "h t -> s"]], &["", "s=0.0", "t=0.0"]);
        check(&[&["f a", "h b -> a", "f a"]], &["", "a=0.2", "b=0.0"]);
        for bad in [&["h b -> a"][..], &["d a", "h b -> a"], &["h b -> ../etc/shadow"]] {
            assert!(listed(&[bad]).is_err(), "{bad:?}");
        }
        assert!(listed(&[&["f a"], &["w a", "h b -> a"]]).is_err());
    }

    #[test]
    fn loops_and_paths_without_end_are_refused() {
        assert!(listed(&[&["l a -> b", "l b -> a", "f a/x"]]).is_err());
        let deep = "n/".repeat(2000);
        assert!(listed(&[&[&format!("d {deep}"), &format!("l s -> {deep}"), &format!("d s/{deep}")]]).is_err());
        assert!(listed(&[&["f .."]]).is_err());
    }

    /// 40 links, each to the next at the end of a path of its own.
    #[test]
    fn directories_that_nobody_named_are_counted() {
        let entries = |n: usize| {
            let link = |at: usize| {
                format!("l {n}.{at} -> {}{}{n}.{}", format!("{n}.{at}d/").repeat(400), "../".repeat(400), at + 1)
            };
            (0..39).map(link).chain([format!("f {n}.0/x")]).collect::<Vec<_>>()
        };
        let of = |many: usize| {
            let lines: Vec<_> = (0..many).flat_map(entries).collect();
            let layer = layer(&lines.iter().map(String::as_str).collect::<Vec<_>>());
            Tree::of([&layer]).map(|tree| tree.implicit)
        };
        assert!(of(1).unwrap() > 15_000);
        let error = format!("{:#}", of(20).unwrap_err());
        assert!(error.contains("more than 262144 directories that no entry names"), "{error}");
    }

    #[test]
    fn names_that_are_walked_are_counted_behind_links_and_without_any() {
        let within = |way: &str, max_walked| {
            let files: Vec<_> = (0..100).map(|n| format!("f {way}/{n}")).collect();
            let link = format!("l l -> {}d", "d/../".repeat(100));
            let layer =
                layer(&[&["d d", link.as_str()], &files.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
            Tree::within([&layer; 10], max_walked).map(|_| ()).map_err(|error| format!("{error:#}"))
        };
        for (way, names) in [("l", 1 + 201), ("d", 1), ("d/../d/../d", 5)] {
            let all = 10 * 100 * names;
            assert_eq!(within(way, all), Ok(()));
            let error = format!("apply layer 10: put `{way}/99`: more than {} names are to be walked", all - 1);
            assert_eq!(within(way, all - 1), Err(error));
        }
    }

    #[test]
    fn long_paths_behind_links_are_counted() {
        let lines: Vec<_> = (0..100).map(|n| format!("d l/{n}")).collect();
        let deep = format!("l l -> {}", "deep/".repeat(200));
        let layer = layer(&[&[deep.as_str()], &lines.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
        let tree = || Tree::of([&layer]).unwrap();
        let all: usize = tree().directories().unwrap().iter().map(|d| d.path.len()).sum();
        assert!(all > 200_000 && tree().directories_within(all).is_ok());
        let error = tree().directories_within(all - 1).unwrap_err();
        assert!(error.to_string().contains("paths have more than"), "{error}");
    }

    #[test]
    fn a_layer_may_come_twice() {
        let a: &[&str] = &["f x"];
        check(&[a, &["w x"], a], &["", "x=2.0"]);
        let one = layer(&["f x"; 1000]);
        let error = Tree::of(vec![&one; 10_001]).unwrap_err();
        assert_eq!(error.to_string(), "the image's layers have more than 10000000 entries");
    }
}
