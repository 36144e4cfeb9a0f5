//! A model of a disk that loses power: what is durable, and what is only on its way.
//!
//! A file's content is on its way until its file is synced, in pages, each of which may have reached the disk at any time
//! since, or half of it. Entries of a directory are on their way until the directory is synced. The strictest that a
//! file system may do and still keep the promises of fsync(2).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::{
    random::Random,
    trace::{Call, Moment, Operation},
};

const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    /// By its place among the model's files.
    File(usize),
}

/// Names, by path.
type Names = BTreeMap<PathBuf, Node>;

/// The files of a tree, by path; directories have no content.
pub(super) type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Part of a change that is on its way.
#[derive(Clone, Debug)]
enum Patch {
    Write { offset: usize, bytes: Vec<u8> },
    Cut { length: usize },
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<(Moment, Patch)>,
}

/// Names that change together, in one directory.
#[derive(Debug)]
struct Renaming {
    at: Moment,
    directory: PathBuf,
    names: Vec<(PathBuf, Option<Node>)>,
}

/// The disk, and what the process sees of it.
#[derive(Debug)]
pub(super) struct Disk {
    contents: Vec<Content>,
    durable: Names,
    now: Names,
    pending: Vec<Renaming>,
}

/// How much of what is on its way reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Everything does: the process died, not the machine.
    Nothing,
    /// Nothing does.
    All,
    /// Some, in whatever order and shape.
    Some,
}

impl Disk {
    /// A disk on which all of this is durable.
    pub(super) fn new(tree: &Tree) -> Self {
        let mut contents = Vec::new();
        let mut names = Names::new();
        for (path, content) in tree {
            let node = match content {
                None => Node::Directory,
                Some(bytes) => {
                    contents.push(Content { durable: bytes.clone(), pending: Vec::new() });
                    Node::File(contents.len() - 1)
                }
            };
            names.insert(path.clone(), node);
        }
        Self { contents, durable: names.clone(), now: names, pending: Vec::new() }
    }

    /// Takes over a call that has ended.
    pub(super) fn apply(&mut self, operation: &Operation) {
        let at = operation.end.unwrap_or(operation.begin);
        match &operation.call {
            Call::Create { path, empties } => match (self.now.get(path), empties) {
                (Some(Node::File(file)), true) => {
                    self.contents[*file].pending.push((at, Patch::Cut { length: 0 }));
                }
                (Some(_), _) => {}
                (None, _) => {
                    self.contents.push(Content::default());
                    self.rename(at, vec![(path.clone(), Some(Node::File(self.contents.len() - 1)))]);
                }
            },
            Call::Write { path, offset, bytes } => {
                let patch = Patch::Write { offset: *offset as usize, bytes: bytes.clone() };
                self.file(path).pending.push((at, patch));
            }
            Call::Cut { path, length } => {
                self.file(path).pending.push((at, Patch::Cut { length: *length as usize }));
            }
            Call::Sync { path } => self.sync(path, operation.begin),
            Call::MakeDirectory { path } => self.rename(at, vec![(path.clone(), Some(Node::Directory))]),
            Call::Rename { from, to } => {
                assert_eq!(from.parent(), to.parent(), "the model knows renames within a directory");
                let node = *self.now.get(from).unwrap_or_else(|| panic!("{} is not there", from.display()));
                assert_ne!(node, Node::Directory, "the model knows renames of files");
                self.rename(at, vec![(from.clone(), None), (to.clone(), Some(node))]);
            }
            Call::Remove { path } => self.rename(at, vec![(path.clone(), None)]),
        }
    }

    fn file(&mut self, path: &Path) -> &mut Content {
        match self.now.get(path) {
            Some(Node::File(file)) => &mut self.contents[*file],
            other => panic!("{} is written and is {other:?}", path.display()),
        }
    }

    fn rename(&mut self, at: Moment, names: Vec<(PathBuf, Option<Node>)>) {
        let directory = names.first().and_then(|(path, _)| path.parent()).expect("below the root").to_owned();
        take_over(&mut self.now, &names);
        self.pending.push(Renaming { at, directory, names });
    }

    /// Makes durable what had ended before the sync began.
    fn sync(&mut self, path: &Path, begin: Moment) {
        match self.now.get(path) {
            Some(Node::File(file)) => {
                let content = &mut self.contents[*file];
                for (at, patch) in std::mem::take(&mut content.pending) {
                    // Of what overlaps a sync, the order would have to be known: it stays behind with all after it.
                    match at < begin && content.pending.is_empty() {
                        true => patch.apply(&mut content.durable),
                        false => content.pending.push((at, patch)),
                    }
                }
            }
            Some(Node::Directory) => {
                let (synced, rest) = std::mem::take(&mut self.pending)
                    .into_iter()
                    .partition(|renaming| renaming.directory == path && renaming.at < begin);
                self.pending = rest;
                let synced: Vec<Renaming> = synced;
                synced.iter().for_each(|renaming| take_over(&mut self.durable, &renaming.names));
            }
            // A descriptor of a file that was removed meanwhile.
            None => {}
        }
    }

    /// What the process sees.
    pub(super) fn seen(&self) -> Tree {
        self.tree(&self.now, |content| {
            let mut bytes = content.durable.clone();
            content.pending.iter().for_each(|(_, patch)| patch.apply(&mut bytes));
            bytes
        })
    }

    /// What a restart may find after the power failed now, while `under_way` had begun and not ended.
    pub(super) fn after_power_loss(&self, under_way: &[&Operation], loss: Loss, random: &mut Random) -> Tree {
        if loss == Loss::Nothing {
            return self.seen();
        }
        let mut names = self.durable.clone();
        let kept = random.below(self.pending.len() + 1);
        let in_order = random.one_in(2);
        for (at, renaming) in self.pending.iter().enumerate() {
            if loss == Loss::Some && if in_order { at < kept } else { random.one_in(2) } {
                take_over(&mut names, &renaming.names);
            }
        }
        let files: BTreeSet<usize> =
            names.values().filter_map(|node| if let Node::File(file) = node { Some(*file) } else { None }).collect();
        let mut contents = BTreeMap::new();
        for file in files {
            let content = &self.contents[file];
            let mut patches: Vec<_> = content.pending.iter().map(|(_, patch)| patch.clone()).collect();
            for operation in under_way {
                let is_this = operation.call.paths().first().and_then(|path| self.now.get(*path));
                if is_this == Some(&Node::File(file)) {
                    patches.extend(Patch::of(&operation.call));
                }
            }
            let bytes = match loss {
                Loss::Some => torn(&content.durable, &patches, random),
                Loss::All | Loss::Nothing => content.durable.clone(),
            };
            contents.insert(file, bytes);
        }
        let whole = |path: &Path| path.ancestors().skip(1).all(|above| self.root(above) || names.contains_key(above));
        let paths = names.iter().filter(|(path, _)| whole(path));
        paths
            .map(|(path, node)| match node {
                Node::Directory => (path.clone(), None),
                Node::File(file) => (path.clone(), contents.get(file).cloned()),
            })
            .collect()
    }

    /// Whether a directory lies above everything that the model holds.
    fn root(&self, path: &Path) -> bool {
        !self.now.contains_key(path) && self.now.keys().next().is_some_and(|first| first.starts_with(path))
    }

    fn tree(&self, names: &Names, bytes: impl Fn(&Content) -> Vec<u8>) -> Tree {
        let content = |node: &Node| match node {
            Node::Directory => None,
            Node::File(file) => Some(bytes(&self.contents[*file])),
        };
        names.iter().map(|(path, node)| (path.clone(), content(node))).collect()
    }

    /// Makes what the process sees the real tree, where a call that the process died in explains the difference.
    pub(super) fn settle(&mut self, real: &Tree, unfinished: &[Operation], now: Moment) {
        for operation in unfinished {
            let is_name = !matches!(operation.call, Call::Write { .. } | Call::Cut { .. } | Call::Sync { .. });
            let done = match &operation.call {
                Call::Create { path, .. } | Call::MakeDirectory { path } => real.contains_key(path),
                Call::Rename { from, .. } | Call::Remove { path: from } => !real.contains_key(from),
                _ => false,
            };
            if is_name && done {
                self.apply(&Operation { begin: now, end: Some(now), call: operation.call.clone() });
            }
        }
        let seen = self.seen();
        let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&seen), names(real), "the recording misses a change of a directory");
        for (path, (was, is)) in seen.iter().zip(real.values()).map(|((path, was), is)| (path, (was, is))) {
            let (Some(was), Some(is)) = (was, is) else { continue };
            if was == is {
                continue;
            }
            let ranges = || unfinished.iter().filter(|o| o.call.paths().contains(&path.as_path()));
            let explained = |at: u64| ranges().filter_map(|o| o.call.range()).any(|range| range.contains(&at));
            let common = was.iter().zip(is).take_while(|(was, is)| was == is).count();
            assert!(explained(common as u64), "{}: the recording misses a change at {common}", path.display());
            let patches =
                [Patch::Cut { length: common }, Patch::Write { offset: common, bytes: is[common..].to_vec() }];
            self.file(path).pending.extend(patches.map(|patch| (now, patch)));
        }
    }
}

impl Patch {
    fn of(call: &Call) -> Option<Self> {
        match call {
            Call::Write { offset, bytes, .. } => Some(Patch::Write { offset: *offset as usize, bytes: bytes.clone() }),
            Call::Cut { length, .. } => Some(Patch::Cut { length: *length as usize }),
            _ => None,
        }
    }

    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Patch::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
            Patch::Cut { length } => to.resize(*length, 0),
        }
    }

    /// The length of a file of this length afterwards.
    fn length(&self, before: usize) -> usize {
        match self {
            Patch::Write { offset, bytes } => before.max(offset + bytes.len()),
            Patch::Cut { length } => *length,
        }
    }
}

fn take_over(names: &mut Names, changes: &[(PathBuf, Option<Node>)]) {
    for (path, node) in changes {
        match node {
            Some(node) => drop(names.insert(path.clone(), *node)),
            None => drop(names.remove(path)),
        }
    }
}

/// How far each page of a file has come, in patches; a torn one has come further in its sectors from `split` on.
#[derive(Clone, Copy)]
struct Reached {
    patches: usize,
    split: usize,
    beyond: usize,
}

/// A file whose pages have each reached the disk at a time of their own, and its length at one, too.
fn torn(durable: &[u8], patches: &[Patch], random: &mut Random) -> Vec<u8> {
    if patches.is_empty() {
        return durable.to_vec();
    }
    let lengths = patches.iter().scan(durable.len(), |length, patch| {
        *length = patch.length(*length);
        Some(*length)
    });
    let lengths: Vec<usize> = [durable.len()].into_iter().chain(lengths).collect();
    let longest = lengths.iter().max().copied().unwrap_or_default();
    let likely = [0, 10, 50, 90, 100][random.below(5)];
    let mut reach = || if random.below(100) < likely { patches.len() } else { random.below(patches.len() + 1) };
    let pages = longest.div_ceil(PAGE_BYTES);
    let mut reached = Vec::with_capacity(pages);
    for _ in 0..pages {
        let patches = if likely == 0 { 0 } else { reach() };
        reached.push(Reached { patches, split: PAGE_BYTES, beyond: patches });
    }
    for page in &mut reached {
        if likely != 0 && random.one_in(8) {
            page.split = random.below(PAGE_BYTES / SECTOR_BYTES) * SECTOR_BYTES;
            page.beyond = random.below(patches.len() + 1);
        }
    }
    let mut bytes = durable.to_vec();
    bytes.resize(longest, 0);
    for (at, patch) in patches.iter().enumerate() {
        let (begin, new) = match patch {
            Patch::Write { offset, bytes } => (*offset, Some(bytes)),
            Patch::Cut { length } => (*length, None),
        };
        let end = new.map_or(longest, |new| begin + new.len());
        let touched = begin / PAGE_BYTES..end.div_ceil(PAGE_BYTES).max(begin / PAGE_BYTES);
        for (page, Reached { patches, split, beyond }) in touched.clone().zip(reached[touched].iter().copied()) {
            let start = page * PAGE_BYTES;
            for (from, to, reach) in [(start, start + split, patches), (start + split, start + PAGE_BYTES, beyond)] {
                let (from, to) = (from.max(begin), to.min(end));
                if at < reach && from < to {
                    match new {
                        Some(new) => bytes[from..to].copy_from_slice(&new[from - begin..to - begin]),
                        None => bytes[from..to].fill(0),
                    }
                }
            }
        }
    }
    bytes.truncate(lengths[if likely == 0 { 0 } else { random.below(lengths.len()) }]);
    bytes
}

/// Reads a directory with everything below it.
pub(super) fn read_tree(directory: &Path) -> Tree {
    let mut tree = Tree::from([(directory.to_owned(), None)]);
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => tree.extend(read_tree(&path)),
            false => drop(tree.insert(path.clone(), Some(fs::read(&path).expect("readable")))),
        }
    }
    tree
}

/// Writes what lies below `root` to a directory, which is made.
pub(super) fn write_tree(tree: &Tree, root: &Path, to: &Path) {
    for (path, content) in tree {
        let path = to.join(path.strip_prefix(root).expect("below the root"));
        match content {
            None => fs::create_dir_all(&path).expect("writable"),
            Some(bytes) => fs::write(&path, bytes).expect("writable"),
        }
    }
}
