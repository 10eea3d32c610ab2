//! A line in the OpenAI batch format: where its body stands, and what is wrong with it.
//!
//! Only what the layer would refuse whole, or what belongs elsewhere, is a fault here; the members
//! of the body are the layer's business, and go out byte for byte as they were written.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::forms::{Fault, Wanted, check_list, json_fault, model_name, span, within};
use super::super::index::LineFate;
use crate::engine::job::Task;

/// Finds the body of a line that has a `custom_id` or a `body`; what it may hold is its queue's
/// choice.
///
/// # Errors
/// What is wrong with it.
pub fn request(text: &str, wanted: Wanted<'_>) -> Result<(Range<usize>, LineFate), Fault> {
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| json_fault(text, &error))?;
    let fault = |at: Option<&RawValue>, fate, message: String| {
        let at = at.map_or(0, |value| span(text, value).start);
        Err(Fault::new(fate, Some(at), message))
    };
    let fate = match endpoint(line.url, wanted.task) {
        Ok(fate) => fate,
        Err((fate, message)) => return fault(line.url, fate, message),
    };
    if line.method.is_some_and(|method| plain(method).as_deref() != Some("POST")) {
        return fault(line.method, LineFate::NotARequest, "`method` is not \"POST\"".to_owned());
    }
    let Some(raw) = line.body.filter(|body| body.get().starts_with('{')) else {
        let message = format!("`body` is not an object such as {}", example(wanted));
        return fault(line.body, LineFate::NotARequest, message);
    };
    let place = span(text, raw);
    let body: Body<'_> = serde_json::from_str(raw.get())
        .map_err(|error| within(json_fault(raw.get(), &error), place.start))?;
    if let Err((fate, message)) = check_model(body.model, wanted.model) {
        return fault(body.model.or(Some(raw)), fate, message);
    }
    if body.stream.is_some_and(|stream| stream.get() == "true") {
        let message = "`stream` is true, but a batch can not be streamed; take it out".to_owned();
        return fault(body.stream, LineFate::NotARequest, message);
    }
    match (wanted.task, body.messages, body.input) {
        (Task::Generate, Some(messages), _) => check_list(text, messages, "messages")?,
        (Task::Embed, _, Some(input)) if is_filled(input) => {}
        (Task::Generate, None, _) | (Task::Embed, _, _) => {
            let message =
                format!("`body` asks for nothing; at least {} is needed", example(wanted));
            return fault(Some(raw), LineFate::NotARequest, message);
        }
    }
    Ok((place, fate))
}

/// The members of an invalid line that make it one in the OpenAI batch format, for those who drop
/// it back; also of one within a line that says that it could not be prepared.
pub fn members<'a>(line: &'a [u8]) -> impl Iterator<Item = (&'static str, &'a RawValue)> {
    let line: Option<Line<'_>> = serde_json::from_slice(line).ok();
    let inner = line.as_ref().and_then(|line| line.request);
    let line = inner.and_then(|inner| serde_json::from_str(inner.get()).ok()).or(line);
    let named = |it: Line<'a>| [("method", it.method), ("url", it.url), ("body", it.body)];
    line.map(named).into_iter().flatten().filter_map(|(name, raw)| Some((name, raw?)))
}

/// What a line with this URL is, in a queue with this task.
fn endpoint(url: Option<&RawValue>, task: Task) -> Result<LineFate, (LineFate, String)> {
    let url = url.and_then(plain).unwrap_or_default();
    match (url.as_ref(), task) {
        (CHAT, Task::Generate) => Ok(LineFate::Chat),
        (EMBEDDINGS, Task::Embed) => Ok(LineFate::Embeddings),
        (CHAT, Task::Embed) => Err((
            LineFate::OtherTask,
            format!("{CHAT} generates; this queue has task = \"embed\" and takes {EMBEDDINGS}"),
        )),
        (EMBEDDINGS, Task::Generate) => Err((
            LineFate::OtherTask,
            format!("{EMBEDDINGS} belongs into a queue with task = \"embed\""),
        )),
        (other, _) => {
            let other: String = other.chars().take(80).collect();
            let message = format!("`url` is {other:?}; the API takes {CHAT} and {EMBEDDINGS}");
            Err((LineFate::NotARequest, message))
        }
    }
}

/// Each body names its model, and a batch has one only: that of the queue.
fn check_model(named: Option<&RawValue>, model: &str) -> Result<(), (LineFate, String)> {
    let model = model_name(model);
    let Some(name) = named.and_then(plain) else {
        let message = format!("`body` names no model; write \"model\": {model:?} into it");
        return Err((LineFate::NotARequest, message));
    };
    if model_name(&name) == model {
        return Ok(());
    }
    let name: String = model_name(&name).chars().take(80).collect();
    Err((
        LineFate::OtherModel,
        format!(
            "the body names the model {name:?}, its queue uses {model:?}; write the queue's model \
             into the lines, or drop the file into a queue with that model"
        ),
    ))
}

/// A text that is not empty, or a list that is not.
fn is_filled(input: &RawValue) -> bool {
    let text = input.get();
    let inside = text.get(1..text.len() - 1).unwrap_or_default();
    text.starts_with(['"', '[']) && !inside.trim_ascii().is_empty()
}

fn example(wanted: Wanted<'_>) -> String {
    let model = model_name(wanted.model);
    match wanted.task {
        Task::Generate => format!(
            "{{\"model\": {model:?}, \"messages\": [{{\"role\": \"user\", \"content\": \"…\"}}]}}"
        ),
        Task::Embed => format!("{{\"model\": {model:?}, \"input\": \"…\"}}"),
    }
}

fn plain(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str(raw.get()).ok()
}

/// A member that stands twice is an error, since nobody could say which one was meant.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
}

/// The endpoint of chats.
pub const CHAT: &str = "/v1/chat/completions";
/// The endpoint of embeddings.
pub const EMBEDDINGS: &str = "/v1/embeddings";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::forms::examine;
    use super::*;

    const GENERATE: Wanted<'_> = Wanted { model: "m", task: Task::Generate };
    const EMBED: Wanted<'_> = Wanted { model: "models/m", task: Task::Embed };

    fn chat() -> Value {
        json!({"custom_id": "a", "method": "POST", "url": CHAT,
            "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}})
    }

    fn vector() -> Value {
        json!({"custom_id": 7, "url": EMBEDDINGS, "body": {"model": "models/m", "input": ["x"]}})
    }

    #[test]
    fn the_body_is_found_with_its_id_as_written() {
        for (line, wanted, fate, id) in [
            (chat(), GENERATE, LineFate::Chat, "\"a\""),
            (vector(), EMBED, LineFate::Embeddings, "7"),
        ] {
            let text = format!("  {line} ");
            let found = examine(text.as_bytes(), wanted).expect("a request");
            assert_eq!(found.fate, fate);
            assert_eq!(&text[found.key.expect("an id")], id);
            let body: Value = serde_json::from_str(&text[found.span]).expect("JSON");
            assert_eq!(body, line["body"]);
        }
    }

    #[test]
    fn a_line_of_our_errors_is_a_request_again() {
        let mut line = chat();
        line["error"] = json!({"code": 3});
        line["line"] = json!(9);
        assert!(examine(line.to_string().as_bytes(), GENERATE).is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_do() {
        let cases = [
            ("/url", json!(null), LineFate::NotARequest, CHAT),
            ("/url", json!("/v1/responses"), LineFate::NotARequest, "/v1/responses"),
            ("/url", json!(EMBEDDINGS), LineFate::OtherTask, "task = \"embed\""),
            ("/method", json!("GET"), LineFate::NotARequest, "POST"),
            ("/body", json!(null), LineFate::NotARequest, "`body` is not an object"),
            ("/body", json!([]), LineFate::NotARequest, "`body` is not an object"),
            ("/body/model", json!(null), LineFate::NotARequest, "\"model\": \"m\""),
            ("/body/model", json!("gpt-4o"), LineFate::OtherModel, "gpt-4o"),
            ("/body/messages", json!([]), LineFate::NotARequest, "empty list"),
            ("/body/messages", json!("hi"), LineFate::NotARequest, "not a list"),
            ("/body/messages", json!(null), LineFate::NotARequest, "asks for nothing"),
            ("/custom_id", json!({}), LineFate::BadKey, "key"),
        ];
        for (place, value, fate, hint) in cases {
            let mut line = chat();
            *line.pointer_mut(place).expect("a member") = value;
            let fault = examine(line.to_string().as_bytes(), GENERATE).expect_err(place);
            assert_eq!(fault.fate, fate, "{line}: {}", fault.message);
            assert!(fault.message.contains(hint), "{line}: {}", fault.message);
        }
        let mut line = chat();
        line["body"]["stream"] = json!(true);
        assert!(examine(line.to_string().as_bytes(), GENERATE).is_err());
        for input in [json!(""), json!([]), json!(null), json!(7)] {
            let mut line = vector();
            line["body"]["input"] = input;
            assert!(examine(line.to_string().as_bytes(), EMBED).is_err(), "{line}");
        }
        let fault = examine(chat().to_string().as_bytes(), EMBED).expect_err("another task");
        assert_eq!(fault.fate, LineFate::OtherTask);
    }
}
