//! One shape in the place of another: a string where an object is expected, one where a list is.
//!
//! The SDKs accept many shapes and turn them into the one of the API; in a batch nobody does. Where
//! they are all agreed on what a shape means, it is mended in the same way.

use std::borrow::Cow;

use super::Kind;
use super::mend::Mend;
use super::path::{Path, Step};
use super::tree::Node;
use super::walk::{Walk, fold, nearest};
use crate::schema;

/// Puts down that a value is not what its field takes.
pub fn wrong(walk: &mut Walk<'_>, expected: &schema::Kind, node: &Node<'_>, path: Path) {
    let is_system = path.0.last().is_some_and(|step| match step {
        Step::Member(name) => fold(name) == "systeminstruction",
        Step::Item(_) => false,
    });
    if let (schema::Kind::Enum(names), Some(word)) = (expected, node.as_str()) {
        return unknown_value(walk, names, &word, path);
    }
    let kind = if is_system { Kind::SystemInstruction } else { Kind::WrongType };
    let message = format!(
        "{} stands where the API expects {}; it refuses the line",
        described(node),
        wanted(expected)
    );
    let mend = reshaped(expected, node).map(|node| node.to_string());
    let remedy = match &mend {
        Some(text) if text.len() <= SHOWN_BYTES => format!("write {text}"),
        Some(_) => format!("write it as {}", wanted(expected)),
        None => format!("put {} there, or take it out", wanted(expected)),
    };
    let mend = mend.map(|text| Mend::Replace { path: path.clone(), name: None, text });
    walk.add(kind, path, message, remedy, mend);
}

/// What a shape means, where that is agreed on.
fn reshaped<'a>(expected: &schema::Kind, node: &Node<'a>) -> Option<Node<'a>> {
    let is_string = matches!(node, Node::Text(text) if text.starts_with('"'));
    match expected {
        schema::Kind::Message(name) if name == "Part" && is_string => {
            Some(object("text", node.clone()))
        }
        schema::Kind::Message(name) if name == "Content" => match node {
            Node::Text(_) if is_string => {
                Some(object("parts", Node::List(vec![object("text", node.clone())])))
            }
            Node::List(items) => match items.as_slice() {
                [] => None,
                [content] if content.get("parts").is_some() => Some(content.clone()),
                parts if parts.iter().all(is_part) => Some(object("parts", node.clone())),
                _ => None,
            },
            Node::Text(_) | Node::Object(_) => None,
        },
        schema::Kind::List(item) => {
            let fits = match &**item {
                schema::Kind::Message(name) => {
                    node.is_object() || is_string && ["Part", "Content"].contains(&name.as_str())
                }
                schema::Kind::Text | schema::Kind::Enum(_) => is_string,
                schema::Kind::Bool
                | schema::Kind::Int32
                | schema::Kind::Int64
                | schema::Kind::Number
                | schema::Kind::Bytes
                | schema::Kind::Time
                | schema::Kind::Duration
                | schema::Kind::Any
                | schema::Kind::Struct
                | schema::Kind::List(_)
                | schema::Kind::Map(_) => false,
            };
            fits.then(|| Node::List(vec![node.clone()]))
        }
        schema::Kind::Bool => match node.as_str().as_deref() {
            Some(word @ ("true" | "false")) => Some(Node::Text(Cow::Owned(word.to_owned()))),
            Some(_) | None => None,
        },
        schema::Kind::Message(_)
        | schema::Kind::Text
        | schema::Kind::Int32
        | schema::Kind::Int64
        | schema::Kind::Number
        | schema::Kind::Bytes
        | schema::Kind::Time
        | schema::Kind::Duration
        | schema::Kind::Any
        | schema::Kind::Struct
        | schema::Kind::Enum(_)
        | schema::Kind::Map(_) => None,
    }
}

fn is_part(node: &Node<'_>) -> bool {
    let is_string = matches!(node, Node::Text(text) if text.starts_with('"'));
    is_string || node.is_object() && node.get("parts").is_none() && node.get("role").is_none()
}

fn object<'a>(name: &'static str, value: Node<'a>) -> Node<'a> {
    Node::Object(vec![(Cow::Borrowed(name), value)])
}

fn unknown_value(walk: &mut Walk<'_>, names: &[String], word: &str, path: Path) {
    let shown: String = word.chars().take(60).collect();
    let folded = fold(word);
    let inside = names.iter().find(|name| !folded.is_empty() && fold(name).ends_with(&folded));
    let like = inside.map(String::as_str);
    let like = like.or_else(|| nearest(&folded, names.iter().map(String::as_str)));
    let remedy = match like {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("write one of {}", listed(names)),
    };
    let message = format!("the API knows no value {shown:?} here and refuses the line");
    walk.add(Kind::UnknownValue, path, message, remedy, None);
}

/// What stands there, in words.
fn described(node: &Node<'_>) -> &'static str {
    match node {
        Node::Object(_) => "an object",
        Node::List(_) => "a list",
        Node::Text(text) => match text.as_bytes().first() {
            Some(b'"') if text.starts_with("\"data:") => "a data URL",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "true or false",
            Some(_) | None => "a number",
        },
    }
}

/// What is expected, in words.
fn wanted(kind: &schema::Kind) -> String {
    match kind {
        schema::Kind::Text => "a string".to_owned(),
        schema::Kind::Bool => "true or false".to_owned(),
        schema::Kind::Int32 | schema::Kind::Int64 => "a whole number".to_owned(),
        schema::Kind::Number => "a number".to_owned(),
        schema::Kind::Bytes => "base64 and nothing else".to_owned(),
        schema::Kind::Time => "a time such as \"2026-01-31T12:00:00Z\"".to_owned(),
        schema::Kind::Duration => "seconds such as \"3.5s\"".to_owned(),
        schema::Kind::Any => "any value".to_owned(),
        schema::Kind::Struct | schema::Kind::Map(_) => "an object".to_owned(),
        schema::Kind::Enum(names) => format!("one of {}", listed(names)),
        schema::Kind::Message(name) if name == "Content" => {
            "an object such as {\"parts\": [{\"text\": \"…\"}]}".to_owned()
        }
        schema::Kind::Message(name) if name == "Part" => {
            "an object such as {\"text\": \"…\"}".to_owned()
        }
        schema::Kind::Message(_) => "an object".to_owned(),
        schema::Kind::List(item) => match &**item {
            schema::Kind::Message(_) => "a list of objects".to_owned(),
            item => format!("a list, each element {}", wanted(item)),
        },
    }
}

/// The words of a field, without the one that stands for none.
fn listed(names: &[String]) -> String {
    let named = names.iter().filter(|name| !name.to_ascii_uppercase().ends_with("UNSPECIFIED"));
    named.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A mended value up to so many bytes is shown.
const SHOWN_BYTES: usize = 120;
