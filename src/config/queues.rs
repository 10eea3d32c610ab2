//! Queues: the settings that a sub-folder of the inbox gives to the files dropped in it.
//!
//! What a queue does not say comes from the default queue. Each is checked on its own.

use std::collections::BTreeMap;

use crate::engine::job::{Accept, Queue, Task, Transport};

use super::layers::{Layers, Origin, Value};
use super::settings::QUEUE;

/// The queue for files in no other.
pub(super) const DEFAULT: &str = "default";

/// Reads all queues, noting what is wrong.
pub(super) fn read(layers: &mut Layers) -> BTreeMap<String, Queue> {
    let names = layers.queues();
    names.into_iter().map(|name| (name.clone(), read_one(layers, name))).collect()
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

fn read_one(layers: &mut Layers, name: String) -> Queue {
    let section = format!("{QUEUE}.{name}");
    let task = task(layers, &section);
    let model = model(layers, &section, task);
    let transport = match layers.text(&section, "transport").as_str() {
        "inline" => Transport::Inline,
        "file" => Transport::File,
        _ => Transport::Auto,
    };
    Queue {
        name,
        model,
        task,
        transport,
        lines_per_batch: layers.integer(&section, "lines_per_batch", 0, i64::MAX),
        priority: priority(layers, &section),
        attempts: layers.integer(&section, "attempts", 1, 100),
        accept: Accept {
            truncated: layers.flag(&section, "accept_truncated"),
            blocked: layers.flag(&section, "accept_blocked"),
            empty: layers.flag(&section, "accept_empty"),
        },
    }
}

fn task(layers: &Layers, section: &str) -> Task {
    match layers.text(section, "task").as_str() {
        "embed" => Task::Embed,
        _ => Task::Generate,
    }
}

/// The model. One that is inherited from a queue with another task is hardly meant.
fn model(layers: &mut Layers, section: &str, of: Task) -> String {
    let default = format!("{QUEUE}.{DEFAULT}");
    let placed = &layers.get(section, "model").origin;
    let is_own = section == default || *placed != layers.get(&default, "model").origin;
    let is_meant = match placed {
        Origin::Default => of == Task::Generate,
        Origin::File { .. } | Origin::Environment(_) | Origin::Flag(_) => {
            is_own || task(layers, &default) == of
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

fn priority(layers: &Layers, section: &str) -> i64 {
    let Value::Integer(number) = layers.get(section, "priority").value else {
        unreachable!("{section}.priority is a number by the table")
    };
    number
}
