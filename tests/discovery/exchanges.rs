//! Calls and answers in their order: each held against the document, with what was learnt from
//! those before it, such as which file holds which rows and which batch has which task.

use std::collections::HashMap;

use gemini_batchd::provider::gemini::emulator::Exchange;
use serde_json::{Map, Value};

use super::document::{self, Writer, document, method};

/// Everything in which these exchanges are not as the API is described.
pub fn complaints(exchanges: &[Exchange]) -> Vec<String> {
    let mut judge = Judge::default();
    for exchange in exchanges {
        let before = judge.found.len();
        judge.exchange(exchange);
        for complaint in &mut judge.found[before..] {
            let Exchange { method, path, status, .. } = exchange;
            *complaint = format!("{method} {path} ({status}): {complaint}");
        }
    }
    judge.found
}

#[derive(Default)]
struct Judge {
    /// The bytes of upload sessions, by their ids; `None` if some of them were not recorded.
    sessions: HashMap<String, Option<Vec<u8>>>,
    /// The bytes of uploaded files, by their names.
    files: HashMap<String, Vec<u8>>,
    /// What the rows of batches answer, by the names of the batches.
    answers: HashMap<String, &'static str>,
    found: Vec<String>,
}

impl Judge {
    fn exchange(&mut self, exchange: &Exchange) {
        let path = exchange.path.replace("%3A", ":");
        // The emulator's own calls, and a layer that Google does not describe there.
        if path.starts_with("/emulator/") || path.contains("/openai/") {
            return;
        }
        if exchange.status >= 400 {
            return self.refusal(exchange);
        }
        let path = path.trim_start_matches('/');
        if path.starts_with("upload/") {
            return self.upload(exchange);
        }
        let path = path.strip_prefix("download/").unwrap_or(path);
        let path = match path.split_once('/') {
            Some(("v1", rest)) => format!("v1beta/{rest}"),
            Some(_) | None => path.to_owned(),
        };
        if let Some(file) = path.strip_prefix("v1beta/").and_then(|p| p.strip_suffix(":download")) {
            return self.download(file, exchange);
        }
        let Some((_, method)) = method(&exchange.method, &path) else {
            return self.complain("the document knows no such call");
        };
        self.query(exchange, &method["parameters"]);
        if let Some(sent) = &exchange.sent {
            match method["request"]["$ref"].as_str() {
                Some(message) => self.request(message, sent),
                None if sent.iter().all(|b| b"{} \n".contains(b)) => {}
                None => self.complain("it takes no body"),
            }
        }
        let message = method["response"]["$ref"].as_str().expect("a response");
        if let Some(answered) = self.json(exchange) {
            self.response(message, &answered, exchange);
        }
    }

    fn complain(&mut self, what: impl Into<String>) {
        self.found.push(what.into());
    }

    fn hold(&mut self, message: &str, value: &Value, writer: Writer) {
        self.found.extend(document::complaints(message, value, writer));
    }

    fn query(&mut self, exchange: &Exchange, parameters: &Value) {
        for (name, _) in &exchange.query {
            let known = !parameters[name].is_null() || !document()["parameters"][name].is_null();
            if !known && name != "$alt" {
                self.complain(format!("no such parameter: {name}"));
            }
        }
    }

    /// The body of an answer; `None` if it did not come whole.
    fn json(&mut self, exchange: &Exchange) -> Option<Value> {
        let answered = exchange.answered.as_ref()?;
        if !exchange.media_type.starts_with("application/json") {
            self.complain(format!("answered as {:?}", exchange.media_type));
        }
        let value = serde_json::from_slice(answered);
        value.map_err(|error| self.complain(format!("the answer is no JSON: {error}"))).ok()
    }

    fn request(&mut self, message: &str, sent: &[u8]) {
        match serde_json::from_slice(sent) {
            Ok(value) => self.hold(message, &value, Writer::Client),
            Err(error) => self.complain(format!("the body is no JSON: {error}")),
        }
    }

    fn response(&mut self, message: &str, answered: &Value, exchange: &Exchange) {
        match message {
            "Operation" => {
                self.operation(answered);
                self.created(exchange, answered);
            }
            "ListOperationsResponse" => {
                let mut list = answered.clone();
                let operations = list.as_object_mut().and_then(|list| list.remove("operations"));
                let operations = operations.unwrap_or(Value::Array(Vec::new()));
                for operation in operations.as_array().into_iter().flatten() {
                    self.operation(operation);
                }
                self.hold(message, &list, Writer::Api);
            }
            _ => self.hold(message, answered, Writer::Api),
        }
    }

    /// An operation, and the messages inside it that name their type themselves.
    fn operation(&mut self, operation: &Value) {
        self.hold("Operation", operation, Writer::Api);
        for member in ["metadata", "response"] {
            let Some(Value::Object(inner)) = operation.get(member) else { continue };
            let mut inner = inner.clone();
            let Some(Value::String(url)) = inner.remove("@type") else {
                self.complain(format!("{member} has no @type"));
                continue;
            };
            let Some(message) = url.strip_prefix(TYPES) else {
                self.complain(format!("{member} is a {url}"));
                continue;
            };
            if member == "metadata" {
                let name = operation["name"].as_str().unwrap_or_default().to_owned();
                self.answers.insert(name, answer_of(message));
            }
            self.hold(message, &Value::Object(inner), Writer::Api);
        }
        let (done, error) = (operation.get("done"), operation.get("error"));
        if done == Some(&Value::Bool(false)) {
            self.complain("done is told though it is false");
        }
        if error.is_some() && operation.get("response").is_some() {
            self.complain("an operation has either a response or an error");
        }
        if done.is_none() && (error.is_some() || operation.get("response").is_some()) {
            self.complain("an operation that is not done has a result");
        }
    }

    /// The rows of the file that a batch was made of.
    fn created(&mut self, exchange: &Exchange, answered: &Value) {
        if exchange.method != "POST" {
            return;
        }
        let file = answered["metadata"]["inputConfig"]["fileName"].as_str();
        let rows = file.and_then(|file| self.files.get(file)).cloned();
        let embeds = exchange.path.ends_with("asyncBatchEmbedContent");
        let message = if embeds { "EmbedContentRequest" } else { "GenerateContentRequest" };
        for row in rows.unwrap_or_default().split(|b| *b == b'\n') {
            match serde_json::from_slice::<Map<String, Value>>(row) {
                Ok(row) => match row.get("request") {
                    Some(request) => self.hold(message, request, Writer::Client),
                    None => self.hold(message, &Value::Object(row), Writer::Client),
                },
                Err(_) if row.iter().all(u8::is_ascii_whitespace) => {}
                Err(error) => self.complain(format!("a row is no JSON object: {error}")),
            }
        }
    }

    /// A session of an upload is not described; the file that comes of it is.
    fn upload(&mut self, exchange: &Exchange) {
        let session = exchange.query.iter().find(|(name, _)| name == "upload_id");
        let Some((_, session)) = session else {
            // With a body, it is an error in the clothes of a success.
            let empty = exchange.answered.as_ref().is_none_or(Vec::is_empty);
            if let Some(sent) = exchange.sent.as_ref().filter(|sent| empty && !sent.is_empty()) {
                self.request("CreateFileRequest", sent);
            }
            return;
        };
        let command = exchange.command.as_deref().unwrap_or_default();
        if command.starts_with("upload") {
            let bytes = self.sessions.entry(session.clone()).or_insert_with(|| Some(Vec::new()));
            let offset = exchange.offset.and_then(|offset| usize::try_from(offset).ok());
            *bytes = match (bytes.take(), &exchange.sent, offset) {
                (Some(mut bytes), Some(sent), Some(offset)) if offset <= bytes.len() => {
                    bytes.truncate(offset);
                    bytes.extend_from_slice(sent);
                    Some(bytes)
                }
                _ => None,
            };
        }
        if exchange.answered.as_ref().is_none_or(Vec::is_empty) {
            return;
        }
        if let Some(answered) = self.json(exchange) {
            self.hold("CreateFileResponse", &answered, Writer::Api);
            let name = answered["file"]["name"].as_str().unwrap_or_default().to_owned();
            let bytes = self.sessions.get(session).cloned().flatten();
            self.files.extend(bytes.map(|bytes| (name, bytes)));
        }
    }

    /// A result file: one line for each row.
    fn download(&mut self, file: &str, exchange: &Exchange) {
        self.query(exchange, &Value::Null);
        let batch = file.replacen("files/batch-", "batches/", 1);
        let message = self.answers.get(&batch).copied();
        let Some(answered) = &exchange.answered else { return };
        // The first line of a range, and the last one of a file cut short, need not be whole.
        let first = usize::from(exchange.status == 206);
        let whole = answered.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        for line in answered[..whole].split(|b| *b == b'\n').skip(first) {
            match serde_json::from_slice::<Map<String, Value>>(line) {
                // A result of the layer that Google does not describe there.
                Ok(line) if message.is_none() && line.contains_key("custom_id") => {}
                Ok(line) => match message {
                    Some(message) => self.result(message, &line),
                    None => {
                        self.complain(format!("a result of {batch}, of which nothing was told"))
                    }
                },
                Err(_) if line.is_empty() => {}
                Err(error) => self.complain(format!("a result is no JSON object: {error}")),
            }
        }
    }

    fn result(&mut self, message: &str, line: &Map<String, Value>) {
        for (name, value) in line {
            match name.as_str() {
                "response" => self.hold(message, value, Writer::Api),
                "error" => self.hold("Status", value, Writer::Api),
                "key" if value.is_string() => {}
                "metadata" if value.is_object() => {}
                _ => self.complain(format!("a result has a member {name}")),
            }
        }
        if line.contains_key("response") == line.contains_key("error") {
            self.complain("a result has either a response or an error");
        }
    }

    /// The form of all errors.
    fn refusal(&mut self, exchange: &Exchange) {
        // The page of a front end.
        if exchange.status == 502 && exchange.media_type.starts_with("text/html") {
            return;
        }
        let Some(mut answered) = self.json(exchange) else { return };
        // Now and then an error comes in a list of one.
        if let Value::Array(errors) = &mut answered
            && errors.len() == 1
        {
            answered = errors.remove(0);
        }
        let members = answered.as_object().map_or(0, Map::len);
        let Some(Value::Object(error)) = answered.get("error").filter(|_| members == 1) else {
            return self.complain("an error without `error`, or with more than that");
        };
        let mut error = error.clone();
        if error.get("code") != Some(&Value::from(exchange.status)) {
            self.complain("the code of the error is not that of the answer");
        }
        let status = error.remove("status");
        let status = status.as_ref().and_then(Value::as_str).unwrap_or_default();
        if !STATUSES.contains(&status) {
            self.complain(format!("an error with the status {status:?}"));
        }
        if error.get("message").and_then(Value::as_str).is_none_or(str::is_empty) {
            self.complain("an error without a message");
        }
        self.hold("Status", &Value::Object(error), Writer::Api);
    }
}

/// What the rows of a batch of this type answer.
fn answer_of(batch: &str) -> &'static str {
    if batch == "EmbedContentBatch" { "EmbedContentResponse" } else { "GenerateContentResponse" }
}

const TYPES: &str = "type.googleapis.com/google.ai.generativelanguage.v1main.";

/// The names of the codes of RPCs.
const STATUSES: &[&str] = &[
    "ABORTED",
    "ALREADY_EXISTS",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
];
