//! A disk in memory: what a process sees of its files, and how much of that the disk has for sure.
//!
//! Everything since the last sync is kept as a list of single changes, so that any disk can be
//! made that a power cut may leave ([`super::models`]). What is durable, in the harshest reading:
//!
//! - **Bytes and length of a file**: what `fsync` or `fdatasync` of it covered, which is what had
//!   been written when it began. `sync_file_range` promises nothing.
//! - **A name**: what `fsync` of its folder covered. A new file's own `fsync` does not keep its
//!   name.
//! - **A rename within a folder** is one change. One between folders is two: the new name, kept by
//!   a sync of the new folder, and after it the loss of the old one, kept by a sync of the old
//!   folder; so a file may have both names, but it never has none.
//! - Changes of one name, and of the names of one file, are kept in their order. A folder is not
//!   removed before all that was done in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::trace::{Call, Place, Taken};

/// The number of a file or folder.
pub type Node = usize;
/// A name in a folder.
pub type Name = Vec<u8>;

/// The folder that is followed.
pub const ROOT: Node = 0;

/// The disk.
#[derive(Clone)]
pub struct Disk {
    /// The path of [`ROOT`], as the process calls it.
    root: Vec<u8>,
    nodes: Vec<Kind>,
    /// Changes of names that no sync covered yet, oldest first.
    unsynced: Vec<Renaming>,
    /// Numbers all changes.
    clock: u64,
    handles: HashMap<i32, Handle>,
    /// Syncs under way, by thread: of what, and the last change before.
    syncing: HashMap<u32, (Node, u64)>,
    /// The first thing the process said.
    pub first_said: Option<String>,
    /// The last thing it said.
    pub last_said: Option<String>,
}

#[derive(Clone)]
enum Kind {
    File(File),
    Folder(Folder),
}

/// A file.
#[derive(Clone, Default)]
pub struct File {
    /// What it holds for sure.
    pub durable: Arc<Vec<u8>>,
    /// What was done to it since, oldest first.
    pub edits: Vec<(u64, Edit)>,
    len: u64,
}

/// What is done to the bytes of a file.
#[derive(Clone)]
pub enum Edit {
    Write(u64, Arc<[u8]>),
    SetLen(u64),
}

/// A folder.
#[derive(Clone, Default)]
struct Folder {
    durable: BTreeMap<Name, Node>,
    now: BTreeMap<Name, Node>,
}

/// One change of names.
#[derive(Clone)]
pub struct Renaming {
    pub number: u64,
    slots: Vec<(Node, Name, Option<Node>)>,
    /// The changes without which this one is not kept.
    pub needs: Vec<u64>,
}

#[derive(Clone)]
struct Handle {
    node: Node,
    at: u64,
    append: bool,
}

impl Disk {
    /// A disk with everything that is below `root` now, all of it durable.
    pub fn of(root: &Path) -> Disk {
        let mut disk = Disk {
            root: root.as_os_str().as_encoded_bytes().to_vec(),
            nodes: vec![Kind::Folder(Folder::default())],
            unsynced: Vec::new(),
            clock: 0,
            handles: HashMap::new(),
            syncing: HashMap::new(),
            first_said: None,
            last_said: None,
        };
        disk.load(ROOT, root);
        disk
    }

    fn load(&mut self, folder: Node, path: &Path) {
        for entry in fs::read_dir(path).into_iter().flatten() {
            let entry = entry.expect("listed");
            let name = entry.file_name().as_encoded_bytes().to_vec();
            let node = self.nodes.len();
            if entry.path().is_dir() {
                self.nodes.push(Kind::Folder(Folder::default()));
                self.load(node, &entry.path());
            } else {
                let durable = fs::read(entry.path()).expect("read");
                let len = durable.len() as u64;
                let file = File { durable: Arc::new(durable), edits: Vec::new(), len };
                self.nodes.push(Kind::File(file));
            }
            let folder = self.folder(folder);
            folder.durable.insert(name.clone(), node);
            folder.now.insert(name, node);
        }
    }

    /// Follows a call; `false` if it changed nothing that a power cut could keep or lose.
    pub fn follow(&mut self, call: &Call) -> bool {
        let before = self.clock;
        match call {
            Call::Open { handle, place, create, truncate, append, unnamed } => {
                self.handles.remove(handle);
                let Some((node, at)) = self.opened(place, *create, *unnamed) else { return false };
                self.handles.insert(*handle, Handle { node, at, append: *append });
                if *truncate && self.file(node).len > 0 {
                    self.edit(node, Edit::SetLen(0));
                }
            }
            Call::Close { handle } => drop(self.handles.remove(handle)),
            Call::Duplicate { from, to } => match self.handles.get(from).cloned() {
                Some(handle) => drop(self.handles.insert(*to, handle)),
                None => drop(self.handles.remove(to)),
            },
            Call::Seek { handle, to } => {
                if let Some(handle) = self.handles.get_mut(handle) {
                    handle.at = *to;
                }
            }
            Call::Write { handle, at, bytes } => self.write(*handle, *at, bytes),
            Call::Copy { from, to, len } => {
                let Some(source) = self.handles.get_mut(from) else { return false };
                let (node, start) = (source.node, source.at as usize);
                source.at += len;
                let bytes = self.file(node).content()[start..start + *len as usize].into();
                self.write(*to, None, &bytes);
            }
            Call::SetLen { handle, len } => {
                let Some(Handle { node, .. }) = self.handles.get(handle) else { return false };
                self.edit(*node, Edit::SetLen(*len));
            }
            Call::Allocate { handle, len } => {
                let Some(&Handle { node, .. }) = self.handles.get(handle) else { return false };
                if self.file(node).len < *len {
                    self.edit(node, Edit::SetLen(*len));
                }
            }
            Call::SyncBegins { thread, handle } => {
                let Some(Handle { node, .. }) = self.handles.get(handle) else { return false };
                self.syncing.insert(*thread, (*node, self.clock));
            }
            Call::SyncEnds { thread } => {
                let Some((node, until)) = self.syncing.remove(thread) else { return false };
                self.sync(node, until);
                return true;
            }
            Call::Rename { from, to, taken } => self.rename(from, to, *taken),
            Call::Link { from, to } => {
                if let (Some((_, _, Some(node))), Some((folder, name, _))) =
                    (self.look(from), self.look(to))
                {
                    self.change(vec![(folder, name, Some(node))]);
                }
            }
            Call::Unlink { place } => {
                if let Some((folder, name, _)) = self.look(place) {
                    self.change(vec![(folder, name, None)]);
                }
            }
            Call::MakeFolder { place } => {
                if let Some((folder, name, _)) = self.look(place) {
                    let node = self.nodes.len();
                    self.nodes.push(Kind::Folder(Folder::default()));
                    self.change(vec![(folder, name, Some(node))]);
                }
            }
            Call::Said(said) => {
                self.first_said.get_or_insert_with(|| said.clone());
                self.last_said = Some(said.clone());
            }
            Call::Ended => {
                self.handles.clear();
                self.syncing.clear();
            }
        }
        self.clock > before
    }

    fn opened(&mut self, place: &Place, create: bool, unnamed: bool) -> Option<(Node, u64)> {
        if unnamed {
            return None;
        }
        if let Some(folder) = self.itself(place) {
            return Some((folder, 0));
        }
        let (folder, name, node) = self.look(place)?;
        let node = node.unwrap_or_else(|| {
            assert!(create, "{} is opened, but was never made", name.escape_ascii());
            let node = self.nodes.len();
            self.nodes.push(Kind::File(File::default()));
            self.change(vec![(folder, name, Some(node))]);
            node
        });
        Some((node, 0))
    }

    fn write(&mut self, handle: i32, at: Option<u64>, bytes: &Arc<[u8]>) {
        let Some(Handle { node, at: mine, append }) = self.handles.get(&handle).cloned() else {
            return;
        };
        let start = match at {
            Some(at) => at,
            None if append => self.file(node).len,
            None => mine,
        };
        if at.is_none() {
            let end = start + bytes.len() as u64;
            self.handles.get_mut(&handle).expect("it was there").at = end;
        }
        if !bytes.is_empty() {
            self.edit(node, Edit::Write(start, Arc::clone(bytes)));
        }
    }

    fn edit(&mut self, node: Node, edit: Edit) {
        self.clock += 1;
        let clock = self.clock;
        let file = self.file(node);
        file.len = match &edit {
            Edit::Write(start, bytes) => file.len.max(start + bytes.len() as u64),
            Edit::SetLen(len) => *len,
        };
        file.edits.push((clock, edit));
    }

    fn rename(&mut self, from: &Place, to: &Place, taken: Taken) {
        let (Some((old, old_name, node)), Some((new, new_name, there))) =
            (self.look(from), self.look(to))
        else {
            assert!(self.look(from).is_none() && self.look(to).is_none(), "it stays on the disk");
            return;
        };
        assert!(node.is_some(), "{} is renamed, but is not there", old_name.escape_ascii());
        match taken {
            Taken::Exchanged => self.change(vec![(new, new_name, node), (old, old_name, there)]),
            Taken::Replaced if old == new => {
                self.change(vec![(new, new_name, node), (old, old_name, None)]);
            }
            Taken::Replaced => {
                self.change(vec![(new, new_name, node)]);
                let arrival = self.clock;
                self.change(vec![(old, old_name, None)]);
                self.unsynced.last_mut().expect("just made").needs.push(arrival);
            }
        }
    }

    /// Changes names for the process, and notes what the disk must keep before.
    fn change(&mut self, slots: Vec<(Node, Name, Option<Node>)>) {
        self.clock += 1;
        let mut touched: BTreeSet<(Node, &Name)> = BTreeSet::new();
        let mut named: BTreeSet<Node> = BTreeSet::new();
        let mut removed: BTreeSet<Node> = BTreeSet::new();
        for (folder, name, node) in &slots {
            touched.insert((*folder, name));
            named.extend(node);
            let Kind::Folder(now) = &self.nodes[*folder] else { panic!("names are in folders") };
            removed.extend(now.now.get(name).filter(|_| node.is_none()));
        }
        let needs = |earlier: &&Renaming| {
            earlier.slots.iter().any(|(folder, name, node)| {
                touched.contains(&(*folder, name))
                    || node.is_some_and(|node| named.contains(&node))
                    || removed.contains(folder)
            })
        };
        let needs = self.unsynced.iter().filter(needs).map(|earlier| earlier.number).collect();
        for (folder, name, node) in &slots {
            let now = &mut self.folder(*folder).now;
            match node {
                Some(node) => drop(now.insert(name.clone(), *node)),
                None => drop(now.remove(name)),
            }
        }
        self.unsynced.push(Renaming { number: self.clock, slots, needs });
    }

    fn sync(&mut self, node: Node, until: u64) {
        match &mut self.nodes[node] {
            Kind::File(file) => {
                let covered = file.edits.partition_point(|(number, _)| *number <= until);
                if covered > 0 {
                    let bytes = Arc::make_mut(&mut file.durable);
                    file.edits.drain(..covered).for_each(|(_, edit)| edit.apply(bytes));
                }
            }
            Kind::Folder(_) => {
                let mut kept = BTreeSet::new();
                for change in self.unsynced.iter().rev() {
                    let mine = change.slots.iter().any(|(folder, _, _)| *folder == node);
                    if (mine && change.number <= until) || kept.contains(&change.number) {
                        kept.insert(change.number);
                        kept.extend(&change.needs);
                    }
                }
                let (kept, left): (Vec<Renaming>, _) = std::mem::take(&mut self.unsynced)
                    .into_iter()
                    .partition(|change| kept.contains(&change.number));
                self.unsynced = left;
                for change in kept {
                    for (folder, name, node) in change.slots {
                        set(&mut self.folder(folder).durable, name, node);
                    }
                }
            }
        }
    }

    /// The changes of names that no sync covered, oldest first.
    pub fn unsynced(&self) -> &[Renaming] {
        &self.unsynced
    }

    /// All names by folder: the durable ones, changed by those of the others that are kept.
    pub fn names(&self, kept: impl Fn(u64) -> bool) -> BTreeMap<Node, BTreeMap<Name, Node>> {
        let folders = self.nodes.iter().enumerate().filter_map(|(node, kind)| match kind {
            Kind::Folder(folder) => Some((node, folder.durable.clone())),
            Kind::File(_) => None,
        });
        let mut names: BTreeMap<Node, BTreeMap<Name, Node>> = folders.collect();
        for change in self.unsynced.iter().filter(|change| kept(change.number)) {
            for (folder, name, node) in &change.slots {
                set(names.get_mut(folder).expect("all are there"), name.clone(), *node);
            }
        }
        names
    }

    /// The file of a number; `None` for a folder.
    pub fn file_at(&self, node: Node) -> Option<&File> {
        match &self.nodes[node] {
            Kind::File(file) => Some(file),
            Kind::Folder(_) => None,
        }
    }

    fn file(&mut self, node: Node) -> &mut File {
        match &mut self.nodes[node] {
            Kind::File(file) => file,
            Kind::Folder(_) => panic!("a folder is used as a file"),
        }
    }

    fn folder(&mut self, node: Node) -> &mut Folder {
        match &mut self.nodes[node] {
            Kind::Folder(folder) => folder,
            Kind::File(_) => panic!("a file is used as a folder"),
        }
    }

    /// The folder that a place without a name means: the root, or that of the handle.
    fn itself(&self, place: &Place) -> Option<Node> {
        match place.folder {
            Some(handle) if place.path == b"." => Some(self.handles.get(&handle)?.node),
            Some(_) => None,
            None => (as_folder(&place.path) == self.root).then_some(ROOT),
        }
    }

    /// The folder of a place, its name there, and what has that name; `None` outside of the disk.
    fn look(&self, place: &Place) -> Option<(Node, Name, Option<Node>)> {
        let (mut folder, path) = match place.folder {
            Some(handle) if !place.path.starts_with(b"/") => {
                (self.handles.get(&handle)?.node, &place.path[..])
            }
            Some(_) | None => {
                (ROOT, as_folder(&place.path).strip_prefix(&self.root[..])?.strip_prefix(b"/")?)
            }
        };
        let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        let mut name = parts.next()?;
        for next in parts {
            let Kind::Folder(now) = &self.nodes[folder] else { panic!("a file within a file") };
            folder = *now.now.get(name)?;
            name = next;
        }
        let Kind::Folder(now) = &self.nodes[folder] else { panic!("a file within a file") };
        Some((folder, name.to_vec(), now.now.get(name).copied()))
    }
}

impl File {
    /// What the process sees.
    pub fn content(&self) -> Vec<u8> {
        let mut bytes = self.durable.to_vec();
        self.edits.iter().for_each(|(_, edit)| edit.apply(&mut bytes));
        bytes
    }
}

impl Edit {
    /// Does it to these bytes.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Edit::SetLen(len) => bytes.resize(*len as usize, 0),
            Edit::Write(start, written) => {
                let (start, end) = (*start as usize, *start as usize + written.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(written);
            }
        }
    }
}

/// A path without what says only that it is a folder's.
fn as_folder(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/.").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}

fn set(names: &mut BTreeMap<Name, Node>, name: Name, node: Option<Node>) {
    match node {
        Some(node) => drop(names.insert(name, node)),
        None => drop(names.remove(&name)),
    }
}
