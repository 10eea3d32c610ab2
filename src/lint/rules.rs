//! What fits the types and still goes wrong: the API takes the line, and the answer is an error, or
//! comes from less than was meant.
//!
//! Only what is known for sure from the request itself is spoken of.

use super::Kind;
use super::mend::Mend;
use super::path::Place;
use super::tree::Node;
use super::walk::Walk;
use super::{schemas, thinking};
use crate::engine::job::Task;

/// Looks at a request whose types have been compared.
pub fn apply(walk: &mut Walk<'_>) {
    let (request, root) = (walk.node(), walk.place());
    match walk.asked().task {
        Task::Generate => {
            if let Some((written, contents)) = request.find("contents") {
                let place = Place::Member(&root, written);
                for (index, item) in contents.items().iter().enumerate() {
                    content(walk, item, &Place::Item(&place, index), true);
                }
            }
            if let Some((written, node)) = request.find("systemInstruction") {
                content(walk, node, &Place::Member(&root, written), false);
            }
            if let Some((written, config)) = request.find("generationConfig") {
                let place = Place::Member(&root, written);
                ranges(walk, config, &place, &GENERATION_RANGES);
                thinking::apply(walk, config, &place);
                schemas::apply(walk, config, &place);
            }
            tools(walk, request, &root);
            cached(walk, request, &root);
        }
        Task::Embed => {
            if let Some((written, node)) = request.find("content") {
                let place = Place::Member(&root, written);
                content(walk, node, &place, false);
                embedded(walk, node, &place);
            }
            ranges(walk, request, &root, &EMBEDDING_RANGES);
        }
    }
}

/// A content; `spoken` if it has a role in the conversation.
fn content(walk: &mut Walk<'_>, node: &Node<'_>, place: &Place<'_>, spoken: bool) {
    if !node.is_object() {
        return;
    }
    if let Some((written, value)) = node.find("role").filter(|_| spoken)
        && let Some(role) = value.as_str()
    {
        self::role(walk, &role, &Place::Member(place, written));
    }
    let (written, parts) = match node.find("parts") {
        Some((written, Node::List(parts))) if !parts.is_empty() => (written, parts),
        Some((_, Node::Object(_) | Node::Text(_))) => return,
        Some((_, Node::List(_))) | None => {
            let message = "contents without parts: the API answers the line with an error";
            return walk.add(Kind::Empty, place.path(), message, "give it parts", None);
        }
    };
    let parts_place = Place::Member(place, written);
    for (index, part) in parts.iter().enumerate() {
        self::part(walk, part, &Place::Item(&parts_place, index));
    }
}

fn role(walk: &mut Walk<'_>, role: &str, place: &Place<'_>) {
    if ["", "user", "model", "function", "tool"].contains(&role) {
        return;
    }
    let path = place.path();
    let shown: String = role.chars().take(40).collect();
    let message = format!("the API knows no role {shown:?} and answers the line with an error");
    let (remedy, mend) = match role {
        "assistant" => {
            let text = "\"model\"".to_owned();
            let mend = Mend::Replace { path: path.clone(), name: None, text };
            ("write \"model\", which is its word for it", Some(mend))
        }
        "system" | "developer" => ("put its parts into `systemInstruction`", None),
        _ => ("write \"user\" or \"model\"", None),
    };
    walk.add(Kind::Role, path, message, remedy, mend);
}

fn part(walk: &mut Walk<'_>, part: &Node<'_>, place: &Place<'_>) {
    let Node::Object(members) = part else { return };
    if members.iter().all(|(_, value)| value.is_null()) {
        let message = "a part with nothing in it: the API answers the line with an error";
        walk.add(Kind::Empty, place.path(), message, "give it a text, or take it out", None);
    }
    if let Some((written, data)) = part.find("inlineData")
        && data.is_object()
        && data.get("mimeType").is_none()
    {
        let message = "data without a media type: the API answers the line with an error";
        let remedy = "add `mimeType`, such as \"image/png\"";
        walk.add(Kind::MimeType, Place::Member(place, written).path(), message, remedy, None);
    }
    if let Some((written, data)) = part.find("fileData")
        && let Some((inner, uri)) = data.find("fileUri")
        && let Some(uri) = uri.as_str()
    {
        file_uri(walk, &uri, &Place::Member(&Place::Member(place, written), inner));
    }
}

/// What can be told of a file by its address alone.
fn file_uri(walk: &mut Walk<'_>, uri: &str, place: &Place<'_>) {
    let api = "https://generativelanguage.googleapis.com/";
    let stored = uri.strip_prefix(api).is_some_and(|rest| rest.contains("/files/"));
    let (message, remedy) = if stored || uri.starts_with("files/") {
        (
            "a file at the API can be read only with the key of the project that uploaded it, and \
             is gone 48 hours after that; a batch may wait as long",
            "upload it right before the line is sent, or name it by an https:// address of your own",
        )
    } else if uri.starts_with("file:") || uri.starts_with("https://") {
        return;
    } else if uri.starts_with("gs://") {
        (
            "the API reads objects of Cloud Storage only if they are registered with its Files API",
            "register it, or sign an https:// address for more than 48 hours",
        )
    } else if uri.starts_with("data:") {
        (
            "the API does not read data URLs: it answers the line with an error",
            "put the base64 into `inlineData`: {\"mimeType\": …, \"data\": …}",
        )
    } else {
        (
            "the API can not reach this: it answers the line with an error",
            "write an https:// address, or the uri of a file that was uploaded",
        )
    };
    walk.add(Kind::FileUri, place.path(), message, remedy, None);
}

/// A member of an object with a number in it, and the least and the largest it may be.
type Range = (&'static str, f64, f64);

fn ranges(walk: &mut Walk<'_>, node: &Node<'_>, place: &Place<'_>, ranges: &[Range]) {
    for (name, least, most) in ranges {
        let Some((written, value)) = node.find(name) else { continue };
        let Some(number) = value.as_number() else { continue };
        if *least <= number && number <= *most {
            continue;
        }
        let message = format!("{number} is out of range: the API answers the line with an error");
        let remedy = match *most < f64::MAX {
            true => format!("write a number from {least} to {most}"),
            false => format!("write {least} or more"),
        };
        walk.add(Kind::OutOfRange, Place::Member(place, written).path(), message, remedy, None);
    }
}

fn tools(walk: &mut Walk<'_>, request: &Node<'_>, root: &Place<'_>) {
    // The tools may lie in the cache.
    let Some((written, config)) =
        request.find("toolConfig").filter(|_| request.get("cachedContent").is_none())
    else {
        return;
    };
    let place = Place::Member(root, written);
    let tools = request.get("tools").map(Node::items).unwrap_or_default();
    if tools.is_empty() {
        let message = "`toolConfig` without `tools`: the API answers the line with an error, or \
                       ignores it";
        let remedy = "add `tools` to the request, or take `toolConfig` out";
        return walk.add(Kind::ToolConfig, place.path(), message, remedy, None);
    }
    let Some((written, calling)) = config.find("functionCallingConfig") else { return };
    let place = Place::Member(&place, written);
    let lists = tools.iter().filter_map(|tool| tool.get("functionDeclarations"));
    let declared: Vec<_> =
        lists.flat_map(Node::items).filter_map(|it| it.get("name")?.as_str()).collect();
    let allowed = calling.get("allowedFunctionNames").map(Node::items).unwrap_or_default();
    let mode = calling.get("mode").and_then(Node::as_str).unwrap_or_default();
    let is_forced = ["any", "validated"].iter().any(|forced| mode.eq_ignore_ascii_case(forced));
    let strange = allowed.iter().filter_map(Node::as_str).find(|name| !declared.contains(name));
    let (message, remedy) = if declared.is_empty() && (is_forced || !allowed.is_empty()) {
        ("no tool declares a function".to_owned(), "add `functionDeclarations` to a tool")
    } else if let Some(name) = strange {
        let name: String = name.chars().take(60).collect();
        (format!("no tool declares the function {name:?}"), "declare it, or do not allow it")
    } else if !allowed.is_empty() && !is_forced {
        let message = "`allowedFunctionNames` needs the mode ANY or VALIDATED".to_owned();
        (message, "set `mode` to \"ANY\", or allow all")
    } else {
        return;
    };
    let message = format!("{message}: the API answers the line with an error");
    walk.add(Kind::ToolConfig, place.path(), message, remedy, None);
}

fn cached(walk: &mut Walk<'_>, request: &Node<'_>, root: &Place<'_>) {
    if request.get("cachedContent").is_none() {
        return;
    }
    for name in ["systemInstruction", "tools", "toolConfig"] {
        if let Some((written, _)) = request.find(name) {
            let message = "it can not stand beside `cachedContent`: the API answers the line with \
                           an error";
            let remedy = "put it into the cache, or do without the cache";
            let path = Place::Member(root, written).path();
            walk.add(Kind::CachedContent, path, message, remedy, None);
        }
    }
}

/// Models of the first generations read text only, and say nothing about the rest.
fn embedded(walk: &mut Walk<'_>, content: &Node<'_>, place: &Place<'_>) {
    let model = walk.asked().model;
    let model = model.strip_prefix("models/").unwrap_or(model);
    let text_only = ["gemini-embedding-001", "text-embedding-", "embedding-001"];
    if !text_only.iter().any(|name| model.starts_with(name)) {
        return;
    }
    let Some((written, parts)) = content.find("parts") else { return };
    let parts_place = Place::Member(place, written);
    for (index, part) in parts.items().iter().enumerate() {
        if part.get("inlineData").is_some() || part.get("fileData").is_some() {
            let message = format!("{model} embeds text only; this part does not count");
            let remedy = "take it out, or use a model that embeds media";
            let path = Place::Item(&parts_place, index).path();
            walk.add(Kind::NotEmbedded, path, message, remedy, None);
        }
    }
}

const GENERATION_RANGES: [Range; 5] = [
    ("temperature", 0.0, 2.0),
    ("topP", 0.0, 1.0),
    ("topK", 1.0, f64::MAX),
    ("maxOutputTokens", 1.0, f64::MAX),
    ("candidateCount", 1.0, 8.0),
];

const EMBEDDING_RANGES: [Range; 1] = [("outputDimensionality", 1.0, 3072.0)];
