//! Google's description of the API, and values held against it.
//!
//! `tests/fixtures/discovery.json` is the discovery document without its prose and without the
//! calls that have nothing to do with batches. It is read as it stands: nothing here is derived from
//! what the program itself believes.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Who wrote a value: a client may choose between spellings, the API may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    Client,
    Api,
}

/// The whole document.
pub fn document() -> &'static Value {
    &DOCUMENT
}

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../fixtures/discovery.json");
    let mut document: Value = serde_json::from_str(text).expect("the fixture is JSON");
    let added: Value = serde_json::from_str(ADDED).expect("this is JSON");
    for (message, fields) in added.as_object().expect("an object") {
        let schema = &mut document["schemas"][message];
        for (name, field) in fields.as_object().expect("an object") {
            assert!(schema["properties"][name].is_null(), "{message}.{name} is there already");
            schema["properties"][name] = field.clone();
        }
        schema["type"] = "object".into();
    }
    for name in SENT_ALL_THE_SAME {
        document["schemas"]["File"]["properties"][name]["readOnly"] = false.into();
    }
    document
});

/// Members of a file that only the API may set, though Google's own SDKs send them at the start of
/// each upload.
const SENT_ALL_THE_SAME: [&str; 2] = ["mimeType", "sizeBytes"];

/// What clients of the service saw, though this revision of the document does not have it.
const ADDED: &str = r##"{
    "GenerateContentBatch": {"webhookConfig": {"type": "object", "properties": {
        "uris": {"type": "array", "items": {"type": "string"}},
        "userMetadata": {"type": "object", "additionalProperties": {"type": "any"}}}}},
    "MediaResolution": {"level": {"type": "string", "enum": ["MEDIA_RESOLUTION_UNSPECIFIED",
        "MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_MEDIUM", "MEDIA_RESOLUTION_HIGH",
        "MEDIA_RESOLUTION_ULTRA_HIGH"]}},
    "UsageMetadata": {"serviceTier": {"type": "string"}},
    "EmbedContentRequest": {"embedContentConfig": {"type": "object", "properties": {
        "taskType": {"type": "string"}, "title": {"type": "string"},
        "outputDimensionality": {"type": "integer", "format": "int32"},
        "autoTruncate": {"type": "boolean"}, "documentOcr": {"type": "boolean"},
        "audioTrackExtraction": {"type": "boolean"}}}},
    "EmbedContentResponse": {"tokenCount": {"type": "string", "format": "int64"},
        "usageMetadata": {"type": "object", "properties": {
            "promptTokenCount": {"type": "integer", "format": "int32"},
            "promptTokenDetails": {"type": "array", "items": {"$ref": "ModalityTokenCount"}}}}}
}"##;

/// A method of the document, such as `batches.get`, by its verb and the path of a call.
pub fn method(verb: &str, path: &str) -> Option<(&'static str, &'static Value)> {
    let methods = document()["methods"].as_object().expect("methods");
    let found = methods.iter().find(|(_, method)| {
        let pattern = method["flatPath"].as_str().expect("a path");
        method["httpMethod"] == verb && matches(pattern, path)
    });
    found.map(|(name, method)| (name.trim_start_matches("generativelanguage."), method))
}

/// Whether a path such as `v1beta/batches/b1:cancel` is of the form
/// `v1beta/batches/{batchesId}:cancel`.
fn matches(pattern: &str, path: &str) -> bool {
    let (patterns, parts) = (pattern.split('/'), path.split('/'));
    patterns.clone().count() == parts.clone().count()
        && patterns.zip(parts).all(|(pattern, part)| match pattern.split_once('}') {
            None => pattern == part,
            Some((_, verb)) => part
                .strip_suffix(verb)
                .is_some_and(|id| !id.is_empty() && (!verb.is_empty() || !id.contains(':'))),
        })
}

/// Everything in which a value is not a message of this name; each with its place.
pub fn complaints(message: &str, value: &Value, writer: Writer) -> Vec<String> {
    let mut found = Vec::new();
    let mut path = message.to_owned();
    named(message, value, writer, &mut path, &mut found);
    found
}

fn named(message: &str, value: &Value, writer: Writer, path: &mut String, found: &mut Vec<String>) {
    let schema = &document()["schemas"][message];
    if schema.is_null() {
        found.push(format!("{path}: the document has no {message}"));
        return;
    }
    check(schema, value, writer, path, found);
}

fn check(
    schema: &Value,
    value: &Value,
    writer: Writer,
    path: &mut String,
    found: &mut Vec<String>,
) {
    if value.is_null() && writer == Writer::Client {
        return;
    }
    if let Some(message) = schema["$ref"].as_str() {
        return named(message, value, writer, path, found);
    }
    let kind = schema["type"].as_str().expect("a type");
    match (kind, value) {
        ("any", _) => {}
        ("object", Value::Object(members)) => object(schema, members, writer, path, found),
        ("array", Value::Array(items)) => {
            for (n, item) in items.iter().enumerate() {
                let len = path.len();
                path.push_str(&format!("[{n}]"));
                check(&schema["items"], item, writer, path, found);
                path.truncate(len);
            }
        }
        _ => {
            let format = schema["format"].as_str().unwrap_or_default();
            let names = schema["enum"].as_array();
            if !fits(kind, format, value, writer) {
                found.push(format!("{path}: {} is no {kind} {format}", shortened(value)));
            } else if names.is_some_and(|names| !names.iter().any(|name| same(name, value, writer)))
            {
                found.push(format!("{path}: {value} is not one of its names"));
            }
        }
    }
}

fn object(
    schema: &Value,
    members: &Map<String, Value>,
    writer: Writer,
    path: &mut String,
    found: &mut Vec<String>,
) {
    let any = &schema["additionalProperties"];
    for (name, value) in members {
        let camel = if writer == Writer::Client { camel_case(name) } else { name.clone() };
        let field = &schema["properties"][&camel];
        let len = path.len();
        path.push('.');
        path.push_str(name);
        if !any.is_null() {
            check(any, value, writer, path, found);
        } else if field.is_null() {
            found.push(format!("{path}: no such member"));
        } else if field["readOnly"] == true && writer == Writer::Client {
            found.push(format!("{path}: only the API may set it"));
        } else {
            check(field, value, writer, path, found);
        }
        path.truncate(len);
    }
}

/// Whether a value that is no list and no object has the form of its type.
fn fits(kind: &str, format: &str, value: &Value, writer: Writer) -> bool {
    let client = writer == Writer::Client;
    match (kind, format, value) {
        ("string", "", Value::String(_)) | ("boolean", _, Value::Bool(_)) => true,
        ("string", "byte", Value::String(text)) => STANDARD.decode(text).is_ok(),
        ("string", "int64", Value::String(text)) => text.parse::<i64>().is_ok(),
        ("string", "int64", Value::Number(number)) => client && number.is_i64(),
        ("string", "google-datetime", Value::String(text)) => {
            text.parse::<jiff::Timestamp>().is_ok() && (client || text.ends_with('Z'))
        }
        ("string", "google-duration", Value::String(text)) => {
            text.strip_suffix('s').is_some_and(|seconds| seconds.parse::<f64>().is_ok())
        }
        ("integer", "int32", Value::Number(number)) => {
            let whole = number.as_f64().is_some_and(|number| number.fract() == 0.0);
            let small = number.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
            small || (client && whole)
        }
        ("integer", "int32", Value::String(text)) => client && text.parse::<i32>().is_ok(),
        ("number", _, Value::Number(_)) => true,
        ("number", _, Value::String(text)) => client && text.parse::<f64>().is_ok(),
        _ => false,
    }
}

fn same(name: &Value, value: &Value, writer: Writer) -> bool {
    match (name.as_str(), value.as_str()) {
        (Some(name), Some(value)) if writer == Writer::Client => name.eq_ignore_ascii_case(value),
        (name, value) => name == value,
    }
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| {
        let mut letters = part.chars();
        let head = letters.next().map(|letter| letter.to_ascii_uppercase());
        name + &head.into_iter().chain(letters).collect::<String>()
    })
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}
