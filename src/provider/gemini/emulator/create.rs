//! The body of a create: checked as a whole, then reduced to what a batch needs (API contract,
//! 3.2, 3.3 and 3.6). Inline requests become rows, one a line, like those of an input file.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::reply::Refusal;
use super::schema::{self, Offence};
use crate::engine::job::Task;

/// What a create asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// The display name; may be empty.
    pub display_name: String,
    /// The priority.
    pub priority: i64,
    /// The requests.
    pub input: CreateInput,
}

/// Where the requests of a create are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateInput {
    /// In this file, `files/…`.
    File(String),
    /// Here, one JSON object a line, with `request` and perhaps `metadata`.
    Rows(Vec<u8>),
}

impl Create {
    /// Reads the body of a create.
    ///
    /// # Errors
    /// What the service answers to such a body.
    pub fn read(body: &[u8], task: Task) -> Result<Create, Refusal> {
        let message = match task {
            Task::Generate => "BatchGenerateContentRequest",
            Task::Embed => "AsyncBatchEmbedContentRequest",
        };
        check(message, body)?;
        let refused = |message: &str| Refusal::new(400, message);
        let envelope: Envelope<'_> =
            serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        let Some(batch) = envelope.batch else {
            return Err(refused(&format!("* {message}.batch: batch is required\n")));
        };
        let display_name = batch.display_name.unwrap_or_default();
        if display_name.contains('\0') {
            return Err(refused("batch.display_name must not contain NUL"));
        }
        let input = batch.input_config.unwrap_or_default();
        let input = match (input.file_name, input.requests) {
            (Some(file), None) => CreateInput::File(file),
            (None, Some(list)) if !list.requests.is_empty() => {
                CreateInput::Rows(rows(&list.requests))
            }
            (Some(_), Some(_)) => {
                return Err(refused("oneof field 'source' is already set. Cannot set 'requests'"));
            }
            (None, _) => return Err(refused("Batch input_config is empty: it has no requests.")),
        };
        Ok(Create { display_name, priority: integer(&batch.priority), input })
    }
}

/// Checks a body against a message type.
///
/// # Errors
/// An answer that names all offences (API contract, 3.6).
pub fn check(message: &str, body: &[u8]) -> Result<(), Refusal> {
    let found = schema::offences(message, body).map_err(|error| unreadable(&error))?;
    if found.is_empty() {
        return Ok(());
    }
    let sentences: Vec<&str> = found.iter().map(|offence| offence.sentence.as_str()).collect();
    let mut refusal = Refusal::new(400, sentences.join("\n"));
    let violation = |Offence { path, sentence }: &Offence| {
        if path.is_empty() {
            json!({ "description": sentence })
        } else {
            json!({ "field": path, "description": sentence })
        }
    };
    refusal.details = Some(json!([{
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": found.iter().map(violation).collect::<Vec<Value>>(),
    }]));
    Err(refusal)
}

fn unreadable(error: &serde_json::Error) -> Refusal {
    Refusal::new(400, format!("Invalid JSON payload received. {error}"))
}

fn rows(requests: &[InlineRequest<'_>]) -> Vec<u8> {
    let mut rows = Vec::new();
    for item in requests {
        rows.extend_from_slice(b"{\"request\":");
        one_line(item.request.map_or("{}", RawValue::get), &mut rows);
        if let Some(metadata) = item.metadata {
            rows.extend_from_slice(b",\"metadata\":");
            one_line(metadata.get(), &mut rows);
        }
        rows.extend_from_slice(b"}\n");
    }
    rows
}

/// Line breaks stand only between the tokens of JSON, never in its strings.
fn one_line(json: &str, out: &mut Vec<u8>) {
    out.extend(json.bytes().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
}

fn integer(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    batch: Option<Batch<'a>>,
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(alias = "display_name", rename = "displayName")]
    display_name: Option<String>,
    #[serde(default)]
    priority: Value,
    #[serde(borrow, alias = "input_config", rename = "inputConfig")]
    input_config: Option<InputConfig<'a>>,
}

#[derive(Deserialize, Default)]
struct InputConfig<'a> {
    #[serde(alias = "file_name", rename = "fileName")]
    file_name: Option<String>,
    #[serde(borrow)]
    requests: Option<RequestList<'a>>,
}

#[derive(Deserialize)]
struct RequestList<'a> {
    #[serde(borrow, default)]
    requests: Vec<InlineRequest<'a>>,
}

#[derive(Deserialize)]
struct InlineRequest<'a> {
    #[serde(borrow)]
    request: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Result<Create, Refusal> {
        Create::read(body, Task::Generate)
    }

    #[test]
    fn inline_requests_become_rows_of_one_line() {
        let body = b"{\"batch\":{\"display_name\":\"d\",\"priority\":\"-3\",\"input_config\":{\"requests\":{\"requests\":[
            {\"request\":{\"contents\":[\n{\"parts\":[{\"text\":\"a\\nb\"}]}]},\"metadata\":{\"key\":\"1\"}}]}}}}";
        let create = read(body).expect("accepted");
        assert_eq!((create.display_name.as_str(), create.priority), ("d", -3));
        let CreateInput::Rows(rows) = create.input else { panic!("inline") };
        let rows = String::from_utf8(rows).expect("UTF-8");
        assert_eq!(rows.lines().count(), 1);
        let row: Value = serde_json::from_str(&rows).expect("JSON");
        assert_eq!(row["request"]["contents"][0]["parts"][0]["text"], "a\nb");
    }

    #[test]
    fn a_refusal_carries_one_violation_for_each_offence() {
        let refusal = read(br#"{"batch":{"foo":1,"bar":2,"inputConfig":{"fileName":"files/x"}}}"#)
            .expect_err("refused");
        assert_eq!(refusal.http, 400);
        assert_eq!(refusal.message.lines().count(), 2);
        let details = refusal.details.expect("details");
        let violations = details[0]["fieldViolations"].as_array().expect("a list");
        assert_eq!(violations.len(), 2);
        assert_eq!(violations[0]["field"], "batch");
        assert!(read(b"{'batch':{}}").is_err());
        assert!(read(b"{}").is_err());
    }
}
