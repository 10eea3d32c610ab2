//! Queues: the settings that a sub-folder of the inbox gives to the files dropped in it.
//!
//! What a queue does not say comes from the default queue. Each is checked on its own.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

use crate::engine::job::{
    Accept, Answers, Conversion, Media, Moments, OpenAiLines, Queue, Task, Transport,
};
use crate::spool::convert::Template;
use crate::spool::defaults::known as known_member;

use super::layers::{Layers, Origin, Value, nearest};
use super::money;
use super::settings::QUEUE;
use super::window::{canary, window};
use super::{credentials, deadlines, units};

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
    money::check_price(layers, section, &name, &model);
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
        answers: Answers {
            check_schema: layers.flag(section, "check_schema"),
            tokens_max: layers.integer(section, "max_output_tokens", 1, i64::from(i32::MAX)),
            media: match layers.text(section, "media").as_str() {
                "files" => Media::Files,
                "inline" => Media::Inline,
                _ => Media::Auto,
            },
        },
        media_root: media_root(layers, section),
        credential: credentials::of_queue(layers, section),
        openai: match layers.text(section, "openai").as_str() {
            "translate" => OpenAiLines::Translate,
            _ => OpenAiLines::Layer,
        },
        defaults: defaults(layers, section, task),
        conversion: conversion(layers, section),
        deadline: deadlines::of_queue(layers, section),
        window: window(layers, section),
        canary: canary(layers, section),
        moments: Moments::default(),
        cache_ms: cache_ms(layers, section),
        budget: money::budget(layers, section, "budget"),
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
    if check_model(&bare).is_err() {
        let origin: Origin = layers.get(section, "model").origin.clone();
        let why = format!(
            "{section}.model is {text:?}, which is no model name; write one like \
             \"gemini-2.5-flash\""
        );
        layers.problem(&origin, why);
    }
    bare
}

/// Whether a text can be the name of a model, without `models/`.
pub(super) fn check_model(bare: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if bare.is_empty() || bare.starts_with('.') || bare.len() > 100 || !bare.chars().all(plain) {
        let bare = bare.escape_debug();
        return Err(format!("`{bare}` is no model name; write one like \"gemini-2.5-flash\""));
    }
    Ok(())
}

/// How packed inputs, texts and tables are converted; `None` if all of it is as usual.
fn conversion(layers: &mut Layers, section: &str) -> Option<Arc<Conversion>> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let template = some(layers.text(section, "template"));
    if let Some(text) = &template
        && let Err(what) = Template::parse(text)
    {
        let origin = layers.get(section, "template").origin.clone();
        layers.problem(&origin, format!("{section}.template: {what}"));
    }
    let conversion = Conversion {
        template,
        key_column: some(layers.text(section, "key_column")),
        csv_delimiter: delimiter(layers, section),
        emit_csv: layers.flag(section, "emit_csv"),
        unpacked_bytes: packed(layers, "unpacked_bytes"),
        unpacked_ratio: packed(layers, "unpacked_ratio"),
    };
    let saved = [&conversion.template, &conversion.key_column].into_iter().flatten();
    if saved.map(String::len).sum::<usize>() > TEMPLATE_BYTES_MAX {
        let origin = layers.get(section, "template").origin.clone();
        let why = format!(
            "{section}.template and {section}.key_column take more than the {TEMPLATE_BYTES_MAX} \
             bytes that are saved with each job; what all prompts share can stand in \
             {section}.defaults as systemInstruction"
        );
        layers.problem(&origin, why);
    }
    (conversion != Conversion::USUAL).then(|| Arc::new(conversion))
}

/// A limit of what is packed; that it is one is checked with its section.
fn packed(layers: &Layers, key: &'static str) -> u64 {
    match layers.get("intake", key).value {
        Value::Size(bytes) => bytes,
        Value::Integer(number) => u64::try_from(number).unwrap_or(1),
        Value::Text(_) | Value::Duration(_) | Value::Flag(_) | Value::List(_) => {
            unreachable!("intake.{key} is a number by the table")
        }
    }
}

fn delimiter(layers: &mut Layers, section: &str) -> Option<char> {
    let text = layers.text(section, "csv_delimiter");
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (None, _) => None,
        (Some(one), None) if one.is_ascii() && !"\"\r\n\0".contains(one) => Some(one),
        _ if text == "tab" => Some('\t'),
        _ => {
            let origin = layers.get(section, "csv_delimiter").origin.clone();
            let why = format!(
                "{section}.csv_delimiter is {text:?}; write one plain character such as \";\", or \
                 \"tab\""
            );
            layers.problem(&origin, why);
            None
        }
    }
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

/// The folder of which lines may name files. It has to be whole, since everything below it can be
/// sent away by whoever may drop files.
fn media_root(layers: &mut Layers, section: &str) -> Option<Arc<str>> {
    let text = layers.text(section, "media_root");
    if text.is_empty() {
        return None;
    }
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let path = Path::new(&text);
    if !path.is_absolute() || path == Path::new("/") || !path.components().all(is_plain) {
        let origin = layers.get(section, "media_root").origin.clone();
        let why = format!(
            "{section}.media_root is {text:?}; write the whole path of a folder, such as \
             \"/data/pictures\""
        );
        layers.problem(&origin, why);
    }
    Some(text.into())
}

/// How long answers are used again, milliseconds; 0 if they are not.
fn cache_ms(layers: &mut Layers, section: &str) -> u64 {
    let text = layers.text(section, "cache");
    if text.is_empty() || text == "off" {
        return 0;
    }
    match units::duration(&text) {
        Ok(span) => u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
        Err(why) => {
            let origin = layers.get(section, "cache").origin.clone();
            layers.problem(&origin, format!("{section}.cache {why}; or write \"off\""));
            0
        }
    }
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

/// Of those 64 KiB this is for the template, whose characters may be written with six each.
const TEMPLATE_BYTES_MAX: usize = 2 * 1024;
