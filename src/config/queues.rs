//! Queues: the settings that a sub-folder of the inbox gives to the files dropped in it.
//!
//! What a queue does not say comes from the default queue. Each is checked on its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::job::{Accept, Queue, Task, Transport};
use crate::spool::defaults::known as known_member;

use super::layers::{Layers, Origin, Value, nearest};
use super::settings::QUEUE;

/// The queue for files in no other.
pub(super) const DEFAULT: &str = "default";

/// Reads all queues, noting what is wrong.
pub(super) fn read(layers: &mut Layers) -> BTreeMap<String, Queue> {
    let names = layers.queues();
    let default = format!("{QUEUE}.{DEFAULT}");
    let one = |name: String| {
        let section = format!("{QUEUE}.{name}");
        (name.clone(), read_one(layers, &section, name, &default))
    };
    names.into_iter().map(one).collect()
}

/// Whether a name can be that of a sub-folder.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    if name.split('/').all(plain) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!(
        "queue name `{}` can name no sub-folder of the inbox; write it like \"reviews\" or \
         \"reviews/german\"",
        name.escape_debug()
    ))
}

/// Reads one section as a queue of this name. What it does not say comes from section `above`.
pub(super) fn read_one(layers: &mut Layers, section: &str, name: String, above: &str) -> Queue {
    let task = task(layers, section);
    let model = model(layers, section, task, above);
    let transport = match layers.text(section, "transport").as_str() {
        "inline" => Transport::Inline,
        "file" => Transport::File,
        _ => Transport::Auto,
    };
    Queue {
        name,
        model,
        task,
        transport,
        lines_per_batch: layers.integer(section, "lines_per_batch", 0, i64::MAX),
        priority: priority(layers, section),
        attempts: layers.integer(section, "attempts", 1, 100),
        accept: Accept {
            truncated: layers.flag(section, "accept_truncated"),
            blocked: layers.flag(section, "accept_blocked"),
            empty: layers.flag(section, "accept_empty"),
        },
        defaults: defaults(layers, section, task),
        wrong: None,
    }
}

fn task(layers: &Layers, section: &str) -> Task {
    match layers.text(section, "task").as_str() {
        "embed" => Task::Embed,
        _ => Task::Generate,
    }
}

/// The model. One that is inherited from a queue with another task is hardly meant.
fn model(layers: &mut Layers, section: &str, of: Task, above: &str) -> String {
    let placed = &layers.get(section, "model").origin;
    let is_own = section == above || *placed != layers.get(above, "model").origin;
    let is_meant = match placed {
        Origin::Default => of == Task::Generate,
        Origin::File { .. } | Origin::Environment(_) | Origin::Flag(_) => {
            is_own || task(layers, above) == of
        }
    };
    if !is_meant {
        let (word, model) = match of {
            Task::Generate => ("generate", "gemini-2.5-flash"),
            Task::Embed => ("embed", "gemini-embedding-001"),
        };
        let origin = layers.get(section, "task").origin.clone();
        let why = format!(
            "{section}.task is {word:?}, and its model is for another task; add one of its own, such \
             as model = {model:?}"
        );
        layers.problem(&origin, why);
    }
    let text = layers.text(section, "model");
    let bare = text.strip_prefix("models/").unwrap_or(&text).to_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if bare.is_empty() || bare.starts_with('.') || bare.len() > 100 || !bare.chars().all(plain) {
        let origin: Origin = layers.get(section, "model").origin.clone();
        let why = format!(
            "{section}.model is {text:?}, which is no model name; write one like \
             \"gemini-2.5-flash\""
        );
        layers.problem(&origin, why);
    }
    bare
}

/// Members for every request. What a request of the task can not hold is a problem.
fn defaults(layers: &mut Layers, section: &str, task: Task) -> Option<Arc<str>> {
    let text = layers.text(section, "defaults");
    if text.is_empty() {
        return None;
    }
    let origin = layers.get(section, "defaults").origin.clone();
    let (known, own) = match task {
        Task::Generate => (GENERATE, "contents"),
        Task::Embed => (EMBED, "content"),
    };
    // What is kept has been read as an object before.
    let members: serde_json::Map<_, _> = serde_json::from_str(&text).unwrap_or_default();
    for name in members.keys() {
        let member = known_member(name);
        let why = if known.contains(&member.as_str()) {
            continue;
        } else if member == own {
            "every request has its own".to_owned()
        } else if member == "model" {
            format!("write {section}.model")
        } else if GENERATE.contains(&member.as_str()) || EMBED.contains(&member.as_str()) {
            let (word, other) = match task {
                Task::Generate => ("generate", "embed"),
                Task::Embed => ("embed", "generate"),
            };
            format!(
                "it belongs to requests of task = {other:?}, and {section}.task is {word:?}; give \
                 this queue defaults of its own, or defaults = \"\""
            )
        } else {
            nearest(&member, known)
        };
        let name = name.escape_debug();
        layers.problem(&origin, format!("{section}.defaults has `{name}`: {why}"));
    }
    let saved = serde_json::Value::from(text.as_str()).to_string().len();
    if saved > DEFAULTS_BYTES_MAX {
        let why = format!(
            "{section}.defaults takes {saved} bytes, more than the {DEFAULTS_BYTES_MAX} that are \
             saved with each job"
        );
        layers.problem(&origin, why);
    }
    Some(text.into())
}

fn priority(layers: &Layers, section: &str) -> i64 {
    let Value::Integer(number) = layers.get(section, "priority").value else {
        unreachable!("{section}.priority is a number by the table")
    };
    number
}

/// What a request to generate can hold besides `contents` and `model`.
const GENERATE: &[&str] = &[
    "systemInstruction",
    "generationConfig",
    "safetySettings",
    "tools",
    "toolConfig",
    "cachedContent",
    "serviceTier",
    "store",
];

/// What a request for an embedding can hold besides `content` and `model`.
const EMBED: &[&str] = &["taskType", "title", "outputDimensionality", "embedContentConfig"];

/// The record of a job may have 64 KiB; this leaves room for the rest.
const DEFAULTS_BYTES_MAX: usize = 40 * 1024;
