//! Mends a line: the changes that keep its meaning, and nothing else.
//!
//! A mended line is checked again, since one mend may show what another has to do, until there is
//! nothing left that can be mended. Members that no mend touches keep their text.

use std::borrow::Cow;

use super::homes::{home, request_type};
use super::path::{Path, Step};
use super::tree::{Members, Node, is_named};
use super::{Asked, Finding, check_node};
use crate::engine::job::Task;
use crate::schema::MESSAGES;

/// A change to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// A member is moved; objects on the way are made. Not over one that is there.
    Move {
        /// Where it is.
        from: Path,
        /// Where it belongs.
        to: Path,
    },
    /// A member is taken out.
    Remove(Path),
    /// A member gets another name.
    Rename {
        /// The member.
        path: Path,
        /// The name.
        name: String,
    },
    /// A value gets another text, and perhaps its member another name.
    Replace {
        /// The value.
        path: Path,
        /// The name of its member; `None`: as it was.
        name: Option<String>,
        /// JSON.
        text: String,
    },
    /// A member is put in. Not over one that is there.
    Put {
        /// The member.
        path: Path,
        /// JSON.
        text: String,
    },
    /// What belongs to a request of this task is put into a member `request`.
    Wrap(Task),
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mended {
    /// The line as it is now, without line breaks; `None` if nothing was changed.
    pub line: Option<String>,
    /// What was mended.
    pub done: Vec<Finding>,
    /// What there still is to say about it.
    pub left: Vec<Finding>,
}

/// Mends a line as far as that keeps its meaning.
pub fn mend(line: &str, asked: Asked<'_>) -> Mended {
    let mut mended = Mended::default();
    for _ in 0..ROUNDS_MAX {
        let text = mended.line.as_deref().unwrap_or(line);
        let Ok(mut node) = Node::read(text) else { return mended };
        mended.left = check_node(&node, asked);
        let mut done = Vec::new();
        for finding in &mended.left {
            if finding.mend.as_ref().and_then(|mend| apply(&mut node, mend)).is_some() {
                done.push(finding.clone());
            }
        }
        if done.is_empty() {
            break;
        }
        let written = node.to_string();
        mended.done.extend(done);
        mended.line = Some(written);
    }
    mended
}

/// Makes a change, or leaves everything as it was and answers `None`.
fn apply<'a>(line: &mut Node<'a>, mend: &'a Mend) -> Option<()> {
    match mend {
        Mend::Move { from, to } => {
            let free = can_put(line, &to.0);
            let (_, value) = free.then(|| take(line, &from.0)).flatten()?;
            put(line, &to.0, value)?;
            if let [before @ .., Step::Member(last), _] = from.0.as_slice() {
                let emptied: Vec<Step> =
                    before.iter().cloned().chain([Step::Member(last.clone())]).collect();
                if is_named(last, "config") && find(line, &emptied)?.is_empty() {
                    take(line, &emptied)?;
                }
            }
            Some(())
        }
        Mend::Remove(path) => take(line, &path.0).map(drop),
        Mend::Rename { path, name } => rename(line, &path.0, name),
        Mend::Replace { path, name, text } => {
            *find(line, &path.0)? = Node::read(text).ok()?;
            name.as_ref().map_or(Some(()), |name| rename(line, &path.0, name))
        }
        Mend::Put { path, text } => {
            let value = Node::read(text).ok()?;
            can_put(line, &path.0).then(|| put(line, &path.0, value)).flatten()
        }
        Mend::Wrap(task) => wrap(line, *task),
    }
}

fn wrap(line: &mut Node<'_>, task: Task) -> Option<()> {
    let Node::Object(members) = line else { return None };
    let fields = MESSAGES.get(request_type(task))?;
    let (mut outer, mut inner) = (Vec::new(), Vec::new());
    for (name, value) in members.drain(..) {
        // A number may well be called `seed`: only what the API takes goes along.
        let is_asked = fields.contains_key(&*name) || home(task, &name).is_some();
        if is_asked { inner.push((name, value)) } else { outer.push((name, value)) }
    }
    outer.push((Cow::Borrowed("request"), Node::Object(inner)));
    *members = outer;
    Some(())
}

fn find<'n, 'a>(node: &'n mut Node<'a>, path: &[Step]) -> Option<&'n mut Node<'a>> {
    let Some((step, rest)) = path.split_first() else { return Some(node) };
    let inner = match (step, node) {
        (Step::Item(index), Node::List(items)) => items.get_mut(*index)?,
        (Step::Member(wanted), Node::Object(members)) => {
            &mut members.iter_mut().find(|(name, _)| name == wanted)?.1
        }
        (Step::Item(_) | Step::Member(_), Node::List(_) | Node::Object(_) | Node::Text(_)) => {
            return None;
        }
    };
    find(inner, rest)
}

/// The members of the object that has the last step as a member.
fn around<'n, 'a>(node: &'n mut Node<'a>, path: &[Step]) -> Option<(&'n mut Members<'a>, usize)> {
    let (Step::Member(last), before) = path.split_last()? else { return None };
    match find(node, before)? {
        Node::Object(members) => {
            let at = members.iter().position(|(name, _)| name == last)?;
            Some((members, at))
        }
        Node::List(_) | Node::Text(_) => None,
    }
}

fn rename<'a>(node: &mut Node<'a>, path: &[Step], name: &'a str) -> Option<()> {
    let (members, at) = around(node, path)?;
    members[at].0 = Cow::Borrowed(name);
    // A `null` of that name says no more than nothing.
    let mut index = 0;
    members.retain(|(other, value)| {
        index += 1;
        index == at + 1 || !(is_named(other, name) && value.is_null())
    });
    Some(())
}

fn take<'a>(node: &mut Node<'a>, path: &[Step]) -> Option<(Cow<'a, str>, Node<'a>)> {
    around(node, path).map(|(members, at)| members.remove(at))
}

/// Whether nothing stands at a path of members, and all on the way to it can hold it.
fn can_put(node: &Node<'_>, path: &[Step]) -> bool {
    let mut there = node;
    for step in path {
        let Step::Member(wanted) = step else { return false };
        if !there.is_object() {
            return false;
        }
        match there.get(wanted) {
            Some(inner) => there = inner,
            None => return true,
        }
    }
    false
}

/// Puts a value where [`can_put`] said that it can be put.
fn put<'a>(node: &mut Node<'a>, path: &'a [Step], value: Node<'a>) -> Option<()> {
    let (Step::Member(wanted), rest) = path.split_first()? else { return None };
    let Node::Object(members) = node else { return None };
    let there = members.iter().position(|(name, inner)| is_named(name, wanted) && !inner.is_null());
    let at = match there {
        Some(at) => at,
        None => {
            members.retain(|(name, _)| !is_named(name, wanted));
            members.push((Cow::Borrowed(wanted), Node::Object(Vec::new())));
            members.len() - 1
        }
    };
    if rest.is_empty() {
        members[at].1 = value;
        return Some(());
    }
    put(&mut members[at].1, rest, value)
}

/// Each mend takes something away that could be mended, and few lie below one another.
const ROUNDS_MAX: usize = 10;
