//! Queues: the settings that a sub-folder of the inbox gives to the files dropped in it.
//!
//! What a queue does not say comes from the default queue. Each is checked on its own.

use std::collections::BTreeMap;

use crate::engine::job::{Accept, Queue, Transport};

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
    let model = model(layers, &section);
    let transport = match layers.text(&section, "transport").as_str() {
        "inline" => Transport::Inline,
        "file" => Transport::File,
        _ => Transport::Auto,
    };
    Queue {
        name,
        model,
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

fn model(layers: &mut Layers, section: &str) -> String {
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
