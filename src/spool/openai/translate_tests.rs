//! Every row of the table in docs/openai.md, and what must be refused.

use serde_json::{Value, json};

use super::super::line::{CHAT, EMBEDDINGS};
use super::*;

const DOCUMENT: &str = include_str!("../../../docs/openai.md");

fn translated(url: &str, body: &Value) -> Result<Value, String> {
    let task = if url == CHAT { Task::Generate } else { Task::Embed };
    let original = json!({"custom_id": "i", "method": "POST", "url": url, "body": body});
    let mut out = Vec::new();
    line(original.to_string().as_bytes(), Wanted { model: "m", task }, &mut out)
        .map_err(|fault| fault.message)?;
    let native: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(native["key"], "i");
    // Whatever it is, it can be sent.
    let request = forms::examine(&out, Wanted { model: "m", task }).expect("a native request");
    assert_eq!(request.fate, LineFate::Valid);
    Ok(native["request"].clone())
}

fn chat_with(name: &str, value: &Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "u"}]});
    body[name] = value.clone();
    body
}

fn refused(name: &str, value: Value) -> String {
    translated(CHAT, &chat_with(name, &value)).expect_err(name)
}

/// The rows of the tables: member, example, what it becomes.
fn rows() -> Vec<(String, Value, Value)> {
    let code = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let member = cells.next()?.split('`').next()?.to_owned();
        let json = |cell: &str| {
            let cell = code(cell.trim_end_matches('|'));
            serde_json::from_str(&cell).unwrap_or_else(|error| panic!("{error}: {cell}"))
        };
        Some((member, json(cells.next()?), json(cells.next()?)))
    };
    DOCUMENT.lines().filter(|line| !line.contains("`body`")).filter_map(row).collect()
}

#[test]
fn every_row_of_the_table_is_true() {
    let rows = rows();
    assert!(rows.len() > 20, "{}", rows.len());
    for (member, example, becomes) in rows {
        let is_vector = ["input", "dimensions"].contains(&member.as_str());
        let (url, body, mut expected) = if is_vector {
            let mut body = json!({"model": "m", "input": "u"});
            body[&member] = example.clone();
            (EMBEDDINGS, body, json!({"content": {"parts": [{"text": "u"}]}}))
        } else {
            let contents = json!([{"role": "user", "parts": [{"text": "u"}]}]);
            (CHAT, chat_with(&member, &example), json!({"contents": contents}))
        };
        for (name, value) in becomes.as_object().expect("an object") {
            expected[name] = value.clone();
        }
        assert_eq!(translated(url, &body), Ok(expected), "{member}: {example}");
    }
}

#[test]
fn what_says_nothing_changes_nothing() {
    let plain = translated(CHAT, &chat_with("user", &Value::Null)).expect("translated");
    for (name, value) in [
        ("stream", json!(false)),
        ("store", json!(false)),
        ("parallel_tool_calls", json!(true)),
        ("logit_bias", json!(null)),
    ] {
        assert_eq!(translated(CHAT, &chat_with(name, &value)), Ok(plain.clone()), "{name}");
    }
    let body = json!({"model": "m", "input": ["u"], "encoding_format": "float", "user": null});
    let expected = json!({"content": {"parts": [{"text": "u"}]}});
    assert_eq!(translated(EMBEDDINGS, &body), Ok(expected));
}

#[test]
fn what_is_not_translated_is_refused_by_its_name_and_never_dropped() {
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let image = |image: Value| user(json!([{"type": "image_url", "image_url": image}]));
    let after = json!([{"role": "user", "content": "u"}, {"role": "system", "content": "s"}]);
    let orphan = json!([{"role": "user", "content": "u"}, {"role": "tool", "tool_call_id": "x", "content": "s"}]);
    let strict = json!([{"type": "function", "function": {"name": "f", "strict": true}}]);
    let schema = |schema: Value| json!({"type": "json_schema", "json_schema": {"schema": schema}});
    for (name, value, place) in [
        ("user", json!("u"), "body.user"),
        ("metadata", json!({}), "body.metadata"),
        ("logit_bias", json!({}), "body.logit_bias"),
        ("reasoning_effort", json!("low"), "body.reasoning_effort"),
        ("store", json!(true), "body.store"),
        ("parallel_tool_calls", json!(false), "body.parallel_tool_calls"),
        ("temperature", json!("hot"), "body.temperature"),
        ("stop", json!(5), "body.stop"),
        ("tools", json!([{"type": "web_search"}]), "body.tools[0].type"),
        ("tools", strict, "body.tools[0].function.strict"),
        ("tool_choice", json!("maybe"), "body.tool_choice"),
        ("response_format", json!({"type": "xml"}), "body.response_format.type"),
        ("response_format", schema(json!({"$ref": "x"})), "json_schema.schema.$ref"),
        ("messages", json!([{"role": "user", "content": "u", "name": "x"}]), "messages[0].name"),
        ("messages", json!([{"role": "system", "content": "u"}]), "body.messages"),
        ("messages", json!([{"role": "critic", "content": "u"}]), "messages[0].role"),
        ("messages", json!([{"role": "user"}]), "messages[0]"),
        ("messages", after, "messages[1]"),
        ("messages", orphan, "messages[1].tool_call_id"),
        ("messages", image(json!({"url": "https://x/y.png"})), "content[0].image_url.url"),
        ("messages", image(json!({"url": "data:a;base64,", "detail": "low"})), "image_url.detail"),
        ("messages", user(json!([{"type": "file", "file": {}}])), "content[0].type"),
    ] {
        let message = refused(name, value);
        assert!(message.contains(place), "{place}: {message}");
    }
    let limits = json!({"model": "m", "messages": [{"role": "user", "content": "u"}],
        "max_tokens": 1, "max_completion_tokens": 2});
    assert!(translated(CHAT, &limits).expect_err("two limits").contains("body.max_"));
    for (name, value) in [
        ("input", json!(["a", "b"])),
        ("input", json!([[1, 2]])),
        ("encoding_format", json!("base64")),
        ("user", json!("u")),
    ] {
        let mut body = json!({"model": "m", "input": "u"});
        body[name] = value;
        assert!(translated(EMBEDDINGS, &body).expect_err(name).contains(name));
    }
}

#[test]
fn a_line_that_can_not_be_sent_anyway_says_so_and_others_are_left_alone() {
    let other = json!({"custom_id": 1, "url": CHAT, "body": {"model": "gpt-4o", "messages": [{}]}});
    let wanted = Wanted { model: "m", task: Task::Generate };
    let mut out = Vec::new();
    let fault = line(other.to_string().as_bytes(), wanted, &mut out).expect_err("another model");
    assert_eq!(fault.fate, LineFate::OtherModel);
    for text in [r#" {"contents": [{}]} "#, "not json", r#"{"request": {"contents": [{}]}}"#] {
        out.clear();
        line(text.as_bytes(), wanted, &mut out).expect("left alone");
        assert_eq!(out, text.as_bytes());
    }
}

#[test]
fn what_is_said_is_copied_as_it_was_written() {
    let text = r#"{"custom_id": 1e3, "url": "/v1/chat/completions", "body": {"model": "m", "temperature": 1.0e-1, "messages": [{"role": "user", "content": "\u00e9\ud800"}]}}"#;
    let mut out = Vec::new();
    line(text.as_bytes(), Wanted { model: "m", task: Task::Generate }, &mut out).expect("done");
    let out = String::from_utf8(out).expect("UTF-8");
    assert!(out.contains(r#""text":"\u00e9\ud800""#), "{out}");
    assert!(out.contains(r#""temperature":1.0e-1"#) && out.contains(r#""key":1e3"#), "{out}");
}
