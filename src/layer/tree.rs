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

const ROOT: NodeId = 0;

type NodeId = usize;

/// The files and directories of a rootfs.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Dir(Dir),
    File(Staged),
    Symlink(Staged, Vec<u8>),
}

#[derive(Debug, Default)]
struct Dir {
    attributes: Option<Attributes>,
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

impl Tree {
    /// The tree of these layers.
    pub fn of<'i>(layers: impl IntoIterator<Item = &'i Index>) -> Result<Self> {
        let mut tree = Self { nodes: vec![Node::Dir(Dir::default())] };
        for (number, layer) in layers.into_iter().enumerate() {
            tree.apply(number, layer).context(|| format!("apply layer {}", number + 1))?;
        }
        Ok(tree)
    }

    fn apply(&mut self, layer: usize, index: &Index) -> Result<()> {
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

    fn put(&mut self, layer: usize, change: &Change) -> Result<()> {
        let staged = |number: &u64| Staged { layer, number: *number };
        match &change.what {
            What::Whiteout | What::Opaque => Ok(()),
            What::Dir(attributes) => self.put_dir(&change.path, attributes),
            What::File { number } => self.put_node(&change.path, Node::File(staged(number))),
            What::Symlink { number, target } => {
                self.put_node(&change.path, Node::Symlink(staged(number), target.clone()))
            }
            What::HardLink { target } => self.put_link(&change.path, target),
            What::Device => self.parent_of(&change.path).map(|(parent, name)| {
                self.dir_mut(parent).children.remove(name);
            }),
        }
    }

    /// A directory over a directory keeps what is in it; over anything else, a link too, it takes its place (layer.md,
    /// "Change Types").
    fn put_dir(&mut self, path: &[u8], attributes: &Attributes) -> Result<()> {
        let dir = if path.is_empty() {
            ROOT
        } else {
            let (parent, name) = self.parent_of(path)?;
            match self.child(parent, name) {
                Some(id) if matches!(self.nodes[id], Node::Dir(_)) => id,
                _ => self.insert(parent, name, Node::Dir(Dir::default())),
            }
        };
        self.dir_mut(dir).attributes = Some(attributes.clone());
        Ok(())
    }

    fn put_node(&mut self, path: &[u8], node: Node) -> Result<()> {
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

    fn insert(&mut self, parent: NodeId, name: &[u8], node: Node) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(node);
        self.dir_mut(parent).children.insert(name.to_vec(), id);
        id
    }

    /// The directory at `path`, with every link followed in the root, and `..` never above it.
    fn walk(&mut self, path: &[u8], how: Walk) -> Result<Option<NodeId>> {
        let mut rest = path.to_vec();
        let (mut trail, mut at, mut links) = (vec![ROOT], 0, 0);
        while let Some(name) = next_name(&rest, &mut at) {
            let dir = *trail.last().unwrap_or(&ROOT);
            match name {
                b"." => {}
                b".." => trail.truncate((trail.len() - 1).max(1)),
                _ => match (self.child(dir, name), how) {
                    (Some(id), _) if matches!(self.nodes[id], Node::Dir(_)) => trail.push(id),
                    (Some(id), how) if self.follows(id, how, &rest[..at], links) => {
                        links += 1;
                        let Node::Symlink(_, target) = &self.nodes[id] else { return Ok(None) };
                        if target.starts_with(b"/") {
                            trail.truncate(1);
                        }
                        rest = [target, b"/".as_slice(), &rest[at..]].concat();
                        at = 0;
                    }
                    (_, Walk::Below(_)) => return Ok(None),
                    // What is in the way of a parent gives way, as it does in an overlay's upper layer.
                    (_, Walk::Make) => trail.push(self.insert(dir, name, Node::Dir(Dir::default()))),
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

    fn dir_mut(&mut self, id: NodeId) -> &mut Dir {
        match &mut self.nodes[id] {
            Node::Dir(dir) => dir,
            other => unreachable!("node {id} is {other:?}, and only directories are walked to"),
        }
    }

    /// Every directory, parents first, with the files in it. A path that no program could name is an error.
    pub fn directories(self) -> Result<Vec<Directory>> {
        let (mut all, mut waiting) = (Vec::new(), vec![(Vec::new(), ROOT)]);
        while let Some((path, id)) = waiting.pop() {
            let Node::Dir(dir) = &self.nodes[id] else { continue };
            let mut files = Vec::new();
            for (name, &child) in &dir.children {
                match &self.nodes[child] {
                    Node::Dir(_) => waiting.push((join(&path, name)?, child)),
                    Node::File(staged) | Node::Symlink(staged, _) => files.push((name.clone(), *staged)),
                }
            }
            let attributes = dir.attributes.clone().unwrap_or_else(Attributes::implicit);
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
