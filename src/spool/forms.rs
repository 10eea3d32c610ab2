//! The forms a request may be written in, and what is wrong with one that is in none.
//!
//! One piece of text in, the places of its request and its key out: nothing is copied, the
//! request goes out later byte for byte as it was written. A piece is judged alone, so a bad one
//! never holds its neighbours back. What only the API can know is left to the API.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::index::LineFate;
use super::openai::line;
use super::{fault_line, usual};
use crate::engine::job::{Family, Task};

/// Where the parts of a valid piece stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The `GenerateContentRequest` or `EmbedContentRequest`; the body of an OpenAI line.
    pub span: Range<usize>,
    /// The user's key, quotes included.
    pub key: Option<Range<usize>>,
    /// In which of the forms that can be sent it is.
    pub fate: LineFate,
}

/// What is wrong with a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of fault.
    pub fate: LineFate,
    /// Byte of the piece at which it was found.
    pub at: Option<usize>,
    /// What happened and what to do about it.
    pub message: String,
    /// The user's key, if it could be read all the same.
    pub key: Option<Range<usize>>,
    /// The piece ends in the middle of a value.
    pub cut_off: bool,
    /// Whose request it was meant to be, if that can be told.
    pub family: Option<Family>,
}

impl Fault {
    /// A fault of a piece whose key is not known.
    pub fn new(fate: LineFate, at: Option<usize>, message: impl Into<String>) -> Fault {
        Fault { fate, at, message: message.into(), key: None, cut_off: false, family: None }
    }
}

/// The longest key in bytes, quotes included.
pub const KEY_BYTES_MAX: usize = 65_534;

/// What the requests of a file have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The queue's model.
    pub model: &'a str,
    /// What its queue is for.
    pub task: Task,
}

/// Judges one piece: a line, or an element of a list.
///
/// # Errors
/// What is wrong with it.
pub fn examine(bytes: &[u8], wanted: Wanted<'_>) -> Result<Request, Fault> {
    if let Some(fault) = fault_line::read(bytes) {
        return Err(fault);
    }
    let usual = match wanted.task {
        Task::Generate => usual::request(bytes, wanted.model),
        Task::Embed => None,
    };
    match usual {
        Some(request) => Ok(request),
        None => examine_closely(bytes, wanted),
    }
}

/// As [`examine`], with the JSON reader that has the last word, for the usual piece too.
///
/// # Errors
/// What is wrong with it.
pub fn examine_closely(bytes: &[u8], wanted: Wanted<'_>) -> Result<Request, Fault> {
    let text = text(bytes)?;
    let outer = outer(text)?;
    let family = family(&outer);
    let key = key(text, &outer).map_err(|fault| Fault { family, ..fault })?;
    request(text, &outer, wanted)
        .map(|(span, fate)| Request { span, key: key.clone(), fate })
        .map_err(|fault| Fault { key, family, ..fault })
}

fn family(outer: &Outer<'_>) -> Option<Family> {
    let is_native = outer.request.is_some() || outer.contents.is_some() || outer.content.is_some();
    let is_openai = outer.custom_id.is_some() || outer.body.is_some();
    match (is_native, is_openai) {
        (true, _) => Some(Family::Native),
        (false, true) => Some(Family::OpenAi),
        (false, false) => None,
    }
}

/// Where the user's key stands in a piece, whatever else is wrong with it.
pub fn find_key(bytes: &[u8]) -> Option<Range<usize>> {
    let text = text(bytes).ok()?;
    key(text, &outer(text).ok()?).ok()?
}

/// Whether a piece is the body of a create call with a list of requests inside.
pub fn is_batch_body(bytes: &[u8]) -> bool {
    let outer = text(bytes).and_then(outer);
    outer.is_ok_and(|outer| {
        let is_bare = outer.contents.is_some() || outer.content.is_some();
        outer.batch.is_some() && outer.request.is_none() && !is_bare
    })
}

/// A model's name without `models/`.
pub fn model_name(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}

/// The members that tell the forms apart. A member that stands twice is an error, since nobody
/// could say which one was meant.
#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    contents: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    custom_id: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    batch: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    contents: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    key: Option<&'a RawValue>,
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let message = format!("byte 0x{:02x} is not UTF-8 text; save the file as UTF-8", bytes[at]);
        Fault::new(LineFate::InvalidUtf8, Some(at), message)
    })
}

fn outer(text: &str) -> Result<Outer<'_>, Fault> {
    if let Some(at) = memchr::memchr(0, text.as_bytes()) {
        let message = "a NUL byte stands here; the file was perhaps not written to its end";
        return Err(Fault::new(LineFate::InvalidJson, Some(at), message));
    }
    let found = match text.trim_start().bytes().next() {
        Some(b'{') => return serde_json::from_str(text).map_err(|error| json_fault(text, &error)),
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a truth value",
        Some(b'n') => "null",
        Some(_) | None => "a number",
    };
    match serde_json::from_str::<&RawValue>(text) {
        Err(error) => Err(json_fault(text, &error)),
        Ok(_) => {
            let message = format!(
                "{found} where a request object is expected, such as \
                 {{\"key\": \"1\", \"request\": {{\"contents\": […]}}}}"
            );
            Err(Fault::new(LineFate::NotARequest, Some(0), message))
        }
    }
}

fn key(text: &str, outer: &Outer<'_>) -> Result<Option<Range<usize>>, Fault> {
    let inner = match outer.metadata {
        Some(metadata) if outer.key.is_none() && metadata.get().starts_with('{') => {
            let start = span(text, metadata).start;
            serde_json::from_str::<Metadata<'_>>(metadata.get())
                .map_err(|error| within(json_fault(metadata.get(), &error), start))?
                .key
        }
        Some(_) | None => None,
    };
    // In a line of the OpenAI batch format.
    let custom = outer.custom_id.filter(|_| outer.request.is_none());
    let Some(key) = outer.key.or(inner).or(custom) else { return Ok(None) };
    let place = span(text, key);
    let bad = |message| Err(Fault::new(LineFate::BadKey, Some(place.start), message));
    match key.get().as_bytes()[0] {
        b'"' | b'-' | b'0'..=b'9' if place.len() > KEY_BYTES_MAX => {
            bad("the key is longer than 65,534 bytes; use a shorter one")
        }
        b'"' | b'-' | b'0'..=b'9' => Ok(Some(place)),
        b'{' => bad("the key is an object; use a string or a number"),
        b'[' => bad("the key is a list; use a string or a number"),
        _ => bad("the key is true or false; use a string or a number"),
    }
}

/// Finds the request and checks what can be checked without the API.
fn request(
    text: &str,
    outer: &Outer<'_>,
    wanted: Wanted<'_>,
) -> Result<(Range<usize>, LineFate), Fault> {
    // Beside the request a model has no effect at the API, but it says what its writer expects.
    check_model(text, outer.model, wanted.model)?;
    if let Some(request) = outer.request {
        let place = span(text, request);
        if !request.get().starts_with('{') {
            let message = "`request` is not an object such as {\"contents\": […]}";
            return Err(Fault::new(LineFate::NotARequest, Some(place.start), message));
        }
        let inner: Inner<'_> = serde_json::from_str(request.get())
            .map_err(|error| within(json_fault(request.get(), &error), place.start))?;
        check_model(text, inner.model, wanted.model)?;
        if check_matter(text, wanted.task, inner.contents, inner.content)? {
            return Ok((place, LineFate::Valid));
        }
        let message = match wanted.task {
            Task::Generate => {
                "`request` has no `contents`; at least \
                 {\"contents\": [{\"parts\": [{\"text\": \"…\"}]}]} is needed"
            }
            Task::Embed => {
                "`request` has no `content`; at least \
                 {\"content\": {\"parts\": [{\"text\": \"…\"}]}} is needed"
            }
        };
        return Err(Fault::new(LineFate::NotARequest, Some(place.start), message));
    }
    if family(outer) == Some(Family::OpenAi) {
        return line::request(text, wanted);
    }
    bare(text, outer, wanted.task).map(|span| (span, LineFate::Valid))
}

/// Checks what is to be answered or embedded; `false` if there is no such thing.
fn check_matter(
    text: &str,
    task: Task,
    contents: Option<&RawValue>,
    content: Option<&RawValue>,
) -> Result<bool, Fault> {
    match (task, contents, content) {
        (Task::Generate, Some(contents), _) => check_contents(text, contents).map(|()| true),
        (Task::Embed, None, Some(content)) => check_content(text, content).map(|()| true),
        (_, None, None) => Ok(false),
        (Task::Generate, None, Some(stray)) => Err(other_task(
            text,
            stray,
            "`content` belongs to an embedding; a request to generate has `contents`, a list; \
             files of embeddings go into a queue with task = \"embed\"",
        )),
        (Task::Embed, Some(stray), _) => Err(other_task(
            text,
            stray,
            "`contents` belongs to a request to generate; this queue has task = \"embed\", and an \
             embedding has `content`, an object",
        )),
    }
}

/// A request without a wrapper: its members are those of the request itself.
fn bare(text: &str, outer: &Outer<'_>, task: Task) -> Result<Range<usize>, Fault> {
    let not_a_request = |at: Option<&RawValue>, message: &str| {
        let at = at.map_or(0, |value| span(text, value).start);
        Err(Fault::new(LineFate::NotARequest, Some(at), message))
    };
    if check_matter(text, task, outer.contents, outer.content)? {
        if let Some(stray) = outer.key.or(outer.metadata) {
            let message = match task {
                Task::Generate => {
                    "`contents` stands beside the key; write {\"key\": …, \"request\": \
                     {\"contents\": […]}}, with all settings inside `request`"
                }
                Task::Embed => {
                    "`content` stands beside the key; write {\"key\": …, \"request\": \
                     {\"content\": {…}}}, with all settings inside `request`"
                }
            };
            return not_a_request(Some(stray), message);
        }
        let start = text.len() - text.trim_start().len();
        return Ok(start..text.trim_end().len());
    }
    if outer.batch.is_some() {
        let message = "the body of a create call must be the only thing in a file whose name \
                       ends in .json";
        return not_a_request(outer.batch, message);
    }
    not_a_request(
        None,
        match task {
            Task::Generate => "neither `request` nor `contents` is there, or it is null",
            Task::Embed => "neither `request` nor `content` is there, or it is null",
        },
    )
}

fn check_contents(text: &str, contents: &RawValue) -> Result<(), Fault> {
    check_list(text, contents, "contents")
}

/// Checks the list of what is said, `contents` or `messages`.
pub(super) fn check_list(text: &str, contents: &RawValue, name: &str) -> Result<(), Fault> {
    let fault = |message: String| {
        Err(Fault::new(LineFate::NotARequest, Some(span(text, contents).start), message))
    };
    let example = match name {
        "contents" => "{\"parts\": [{\"text\": \"…\"}]}",
        _ => "{\"role\": \"user\", \"content\": \"…\"}",
    };
    if !contents.get().starts_with('[') {
        return fault(format!("`{name}` is not a list such as [{example}]"));
    }
    match serde_json::from_str::<Contents>(contents.get()) {
        Ok(Contents { count: 0, .. }) => fault(format!("`{name}` is an empty list")),
        Ok(Contents { objects: true, .. }) => Ok(()),
        Ok(Contents { objects: false, .. }) => {
            fault(format!("`{name}` holds something else than objects such as {example}"))
        }
        Err(error) => Err(within(json_fault(contents.get(), &error), span(text, contents).start)),
    }
}

/// What is embedded: one object, not a list.
fn check_content(text: &str, content: &RawValue) -> Result<(), Fault> {
    if content.get().starts_with('{') {
        return Ok(());
    }
    let message = "`content` is not an object such as {\"parts\": [{\"text\": \"…\"}]}";
    Err(Fault::new(LineFate::NotARequest, Some(span(text, content).start), message))
}

fn check_model(text: &str, named: Option<&RawValue>, model: &str) -> Result<(), Fault> {
    let Some(named) = named else { return Ok(()) };
    let at = Some(span(text, named).start);
    let Ok(name) = serde_json::from_str::<Cow<'_, str>>(named.get()) else {
        return Err(Fault::new(LineFate::NotARequest, at, "`model` is not a string"));
    };
    if model_name(&name) == model_name(model) {
        return Ok(());
    }
    let name: String = model_name(&name).chars().take(80).collect();
    let message = format!(
        "the request names the model {name:?}, its queue uses {:?}; all requests of a batch go to \
         one model: take `model` out, or drop the file into a queue with that model",
        model_name(model)
    );
    Err(Fault::new(LineFate::OtherModel, at, message))
}

fn other_task(text: &str, stray: &RawValue, message: &str) -> Fault {
    Fault::new(LineFate::OtherTask, Some(span(text, stray).start), message)
}

/// What the JSON reader found wrong, in words for somebody who did not write the reader.
pub(super) fn json_fault(text: &str, error: &serde_json::Error) -> Fault {
    let at = offset(text.as_bytes(), error.line(), error.column());
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
    let (fate, message) = match error.classify() {
        serde_json::error::Category::Eof => (
            LineFate::InvalidJson,
            format!("the JSON ends too early ({said}), as if it was cut off"),
        ),
        serde_json::error::Category::Data => {
            let said = said.replace("duplicate field", "this member stands twice:");
            (LineFate::NotARequest, said)
        }
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
            let hint = if said == "trailing characters" {
                "more text after the end of the request; one request a line".to_owned()
            } else {
                format!("not valid JSON: {said}")
            };
            (LineFate::InvalidJson, hint)
        }
    };
    let cut_off = error.is_eof();
    Fault { cut_off, ..Fault::new(fate, Some(at), message) }
}

/// Moves a fault found in a part to its place in the whole.
pub(super) fn within(fault: Fault, start: usize) -> Fault {
    Fault { at: fault.at.map(|at| at + start), ..fault }
}

/// The byte at a line and column as the JSON reader counts them.
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let start = match line.checked_sub(2) {
        None => 0,
        Some(newline) => memchr::memchr_iter(b'\n', bytes).nth(newline).map_or(0, |at| at + 1),
    };
    (start + column.saturating_sub(1)).min(bytes.len())
}

/// Where a borrowed value stands in the text it was borrowed from.
pub(super) fn span(text: &str, value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + value.get().len()
}

/// The elements of `contents`, counted without keeping them.
struct Contents {
    count: usize,
    objects: bool,
}

impl<'de> Deserialize<'de> for Contents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Contents, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Contents;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Contents, A::Error> {
                let mut contents = Contents { count: 0, objects: true };
                while let Some(item) = list.next_element::<&RawValue>()? {
                    contents.count += 1;
                    contents.objects &= item.get().starts_with('{');
                }
                Ok(contents)
            }
        }
        de::Deserializer::deserialize_seq(deserializer, Count)
    }
}

#[cfg(test)]
mod tests;
