//! Where a setting belongs, and where people put it instead.
//!
//! In the REST form, which batches take, all settings stand in the request, most of them in its
//! `generationConfig`. Other forms are about: the SDKs have a `config` beside the contents, and
//! older samples have everything in one object. What is found elsewhere is moved, if its place is
//! free.

use super::Kind;
use super::mend::Mend;
use super::path::{Path, Step};
use super::tree::{Node, is_named};
use super::walk::{Walk, task_of};
use crate::engine::job::Task;
use crate::schema::MESSAGES;

/// The message type of a request.
pub fn request_type(task: Task) -> &'static str {
    match task {
        Task::Generate => "GenerateContentRequest",
        Task::Embed => "EmbedContentRequest",
    }
}

/// The names from a request to the place of a setting; `None` for what is no setting.
pub fn home(task: Task, written: &str) -> Option<Vec<&'static str>> {
    // What is asked is not a setting, and a model is spoken of where forms are told apart.
    if ["contents", "content", "model"].contains(&written) {
        return None;
    }
    let ways: &[(&str, &'static [&'static str])] = match task {
        Task::Generate => &[
            ("GenerateContentRequest", &[]),
            ("GenerationConfig", &["generationConfig"]),
            ("ThinkingConfig", &["generationConfig", "thinkingConfig"]),
        ],
        Task::Embed => {
            &[("EmbedContentRequest", &[]), ("EmbedContentConfig", &["embedContentConfig"])]
        }
    };
    ways.iter().find_map(|(message, way)| {
        let field = MESSAGES.get(*message)?.get(written)?;
        Some(way.iter().copied().chain([field.camel.as_str()]).collect())
    })
}

/// Looks at what stands beside a request in its line. Most of it is the user's own business; only
/// what looks like a setting is spoken of.
pub fn beside(line: &Node<'_>, walk: &mut Walk<'_>) {
    for (written, value) in line.members() {
        let path = Path::of(None, &[&**written]);
        if is_named(written, "request") || is_own(written) || value.is_null() {
            continue;
        }
        if is_config(written) && value.is_object() {
            config(walk, Kind::Ignored, value, &path);
        } else if let Some(home) = home(walk.asked().task, written) {
            moved(walk, Kind::Ignored, value, path, &home);
        }
    }
}

/// Looks at a name that its message does not have; answers whether it was put down as a setting
/// that belongs elsewhere.
pub fn misplaced(
    walk: &mut Walk<'_>,
    message: &str,
    written: &str,
    value: &Node<'_>,
    path: Path,
) -> bool {
    let task = walk.asked().task;
    if task_of(message) != Some(task) {
        return false;
    }
    if message == request_type(task) && is_config(written) && value.is_object() {
        config(walk, Kind::Misplaced, value, &path);
        return true;
    }
    match home(task, written) {
        Some(home) => moved(walk, Kind::Misplaced, value, path, &home),
        None => return false,
    }
    true
}

/// Another word for a field, from other APIs; by its folded name.
pub fn other_word(folded: &str) -> Option<&'static str> {
    Some(match folded {
        "maxtokens" | "maxcompletiontokens" => "generationConfig.maxOutputTokens",
        "messages" | "prompt" | "input" => "contents",
        "n" => "generationConfig.candidateCount",
        "stop" => "generationConfig.stopSequences",
        "system" | "systemprompt" => "systemInstruction",
        "responseformat" => "generationConfig.responseSchema",
        "reasoningeffort" => "generationConfig.thinkingConfig",
        "dimensions" => "outputDimensionality",
        _ => return None,
    })
}

/// The members of an object in the form of the SDKs.
fn config(walk: &mut Walk<'_>, kind: Kind, config: &Node<'_>, path: &Path) {
    let task = walk.asked().task;
    if config.is_empty() {
        let mend = Some(Mend::Remove(path.clone()));
        walk.add(kind, path.clone(), effect(kind), "take it out: it is empty", mend);
    }
    for (written, value) in config.members() {
        let mut path = path.clone();
        path.0.push(Step::Member(written.clone().into_owned()));
        match home(task, written) {
            Some(home) => moved(walk, kind, value, path, &home),
            None => walk.add(
                kind,
                path,
                format!("{}; and a request has no place for it", effect(kind)),
                "take it out, or find its name in the REST reference: `config` is the SDKs' form",
                None,
            ),
        }
    }
}

/// Puts down that a setting belongs to its home, with the move if that is free.
fn moved(walk: &mut Walk<'_>, kind: Kind, value: &Node<'_>, from: Path, home: &[&str]) {
    let to = walk.path(home);
    let mut there = Some(walk.node());
    let mut is_blocked = false;
    for name in home {
        is_blocked |= there.is_some_and(|node| !node.is_object());
        there = there.and_then(|node| node.get(name));
    }
    let (remedy, mend) = match there {
        None if is_blocked => (format!("move it to {to}, when that can hold it"), None),
        None => (format!("move it to {to}"), Some(Mend::Move { from: from.clone(), to })),
        Some(there) if there == value => {
            (format!("take it out: {to} says the same"), Some(Mend::Remove(from.clone())))
        }
        Some(_) => (format!("decide between it and {to}, which is there too"), None),
    };
    walk.add(kind, from, effect(kind), remedy, mend);
}

fn effect(kind: Kind) -> &'static str {
    if kind.is_error() {
        "the API has no such field here and refuses the line"
    } else {
        "the API ignores what stands beside `request`: the answer comes without it"
    }
}

fn is_config(written: &str) -> bool {
    ["config", "generateContentConfig", "embedContentConfig"]
        .iter()
        .any(|name| is_named(written, name))
}

/// Members beside a request that have a meaning, or that nobody takes for a setting.
fn is_own(written: &str) -> bool {
    ["key", "metadata", "model", "title", "error", "line", "store"].contains(&written)
}
