//! What an answer that is no success means, and so what is to be done about it.
//!
//! Error bodies are untrusted and come in many shapes (API contract, 9.1): an object, a list
//! around it, HTML, plain text, or cut off. Every message is shortened, freed of control
//! characters and of the key. A refused create is sorted further, down to single rows (3.6).

use std::collections::BTreeMap;

use serde_json::Value;

use super::create::RefusedKind;
use super::key::ApiKey;
use super::wire::{MESSAGE_CHARS, duration_ms, http_date, plain};
use crate::engine::event::Failure;
use crate::engine::job::RemoteError;

/// An answer that is no success, read.
#[derive(Debug, Clone, Default)]
pub struct ErrorAnswer {
    /// HTTP status.
    pub http: u16,
    /// `status` of the body, such as `INVALID_ARGUMENT`; empty if it has none.
    pub status: String,
    /// What it says, line breaks kept; the whole body if it is not of the API's shape.
    pub message: String,
    /// Reasons of the `ErrorInfo` details.
    reasons: Vec<String>,
    /// Fields and what is wrong with them, of the `BadRequest` details.
    violations: Vec<(String, String)>,
    /// The pause the server asks for.
    pub retry_after_ms: Option<u64>,
    /// Whether the body has the shape of the API at all.
    pub from_api: bool,
    /// Whether the body was longer than what is read of it.
    cut: bool,
}

/// What of the headers matters for an error.
#[derive(Debug, Clone, Default)]
pub struct ErrorHead {
    /// HTTP status.
    pub http: u16,
    /// `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// `Date`, as it came: the clock that a date in `Retry-After` belongs to.
    pub date: Option<String>,
}

impl ErrorAnswer {
    /// Reads a body; `cut` says that it was longer than this.
    pub fn read(head: &ErrorHead, body: &[u8], cut: bool, key: &ApiKey) -> ErrorAnswer {
        let text = key.scrub(String::from_utf8_lossy(body).into_owned());
        let mut answer = ErrorAnswer {
            http: head.http,
            retry_after_ms: retry_after(head),
            cut,
            ..ErrorAnswer::default()
        };
        let value: Option<Value> = serde_json::from_str(&text).ok();
        let value = value.as_ref().map(|value| value.get(0).unwrap_or(value));
        match value.and_then(|value| value.get("error")) {
            Some(error) => answer.take(error, key),
            None => match torn_message(&text) {
                Some(message) => {
                    answer.from_api = true;
                    answer.message = key.scrub(message);
                }
                None => answer.message = text,
            },
        }
        answer
    }

    fn take(&mut self, error: &Value, key: &ApiKey) {
        // Once more: it may have been written with escapes.
        let text = |value: &Value, name: &str| {
            key.scrub(value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned())
        };
        self.from_api = error.is_object();
        self.status = plain(&text(error, "status"), 64);
        self.message = error
            .as_str()
            .map_or_else(|| text(error, "message"), |said| key.scrub(said.to_owned()));
        for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
            let reason = text(detail, "reason");
            if !reason.is_empty() {
                self.reasons.push(reason);
            }
            if let Some(pause) = duration_ms(&text(detail, "retryDelay")) {
                self.retry_after_ms = Some(self.retry_after_ms.unwrap_or(0).max(pause));
            }
            let fields = detail.get("fieldViolations").and_then(Value::as_array);
            for field in fields.into_iter().flatten() {
                self.violations.push((text(field, "field"), text(field, "description")));
            }
        }
        self.retry_after_ms = self.retry_after_ms.map(|pause| pause.min(RETRY_AFTER_MAX_MS));
    }

    /// One line for people: what was tried, the status, what the server said.
    pub fn describe(&self, action: &str) -> String {
        let said = plain(&self.message, if self.from_api { MESSAGE_CHARS } else { 200 });
        let status = if self.status.is_empty() { "" } else { self.status.as_str() };
        let source = if self.from_api { "" } else { " (not an answer in the API's format)" };
        let head = format!("{action}: HTTP {} {status}", self.http);
        let head = head.trim_end();
        if said.is_empty() { format!("{head}{source}") } else { format!("{head}{source}: {said}") }
    }

    /// Sorts the answer to any call but a create, which has [`ErrorAnswer::refusal`].
    pub fn failure(&self, action: &str) -> Failure {
        let message = self.describe(action);
        match self.http {
            300..=399 => Failure::Barred(format!(
                "{message}; redirects are not followed: check api.base_url and the proxy"
            )),
            407 | 511 => Failure::Barred(format!(
                "{message}; the proxy or the network wants credentials: check https_proxy"
            )),
            _ if self.is_denied() => Failure::Denied(self.with_remedy(message)),
            404 | 410 if self.from_api => Failure::Gone(message),
            // A proxy, or a server that is not the API, knows nothing of what the API has.
            404 | 410 => Failure::Transient(format!(
                "{message}; check api.base_url, api.version and the proxy"
            )),
            429 => Failure::RateLimited { retry_after_ms: self.retry_after_ms, message },
            408 | 409 | 425 | 499 => Failure::Transient(message),
            400..=499 | 501 if self.from_api || self.http == 413 => Failure::Rejected(message),
            // Also what somebody else says in the API's place, and what is no status at all.
            _ => Failure::Transient(message),
        }
    }

    /// Whether the key, or what may be done with it, is the trouble.
    fn is_denied(&self) -> bool {
        let key_reasons = ["API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED"];
        match self.http {
            401 | 403 => true,
            // A bad key is a 400 (1); so are a location and a project without billing (9.2).
            400 => {
                self.status == "FAILED_PRECONDITION"
                    || self.reasons.iter().any(|reason| key_reasons.contains(&reason.as_str()))
                    || self.message.starts_with("API key not valid")
                    || self.message.starts_with("API key expired")
            }
            _ => false,
        }
    }

    fn with_remedy(&self, message: String) -> String {
        let remedy = match self.status.as_str() {
            "FAILED_PRECONDITION" => "check the billing and the location of the key's project",
            _ if self.from_api => "check the API key and its restrictions",
            _ => "check the API key and its restrictions, and the proxy",
        };
        format!("{message}; {remedy}")
    }

    /// Sorts the answer to a create. `input_file` is the file it was for, if any.
    pub fn refusal(&self, input_file: Option<&str>) -> Verdict {
        let message = self.describe("create batch");
        match self.http {
            300..=399 | 407 => Verdict::Failure(self.failure("create batch")),
            // 409 and 499 say that something was begun; 408 and 5xx say nothing (3.8).
            408 | 409 | 499 | 500..=599 => Verdict::Failure(Failure::Ambiguous(message)),
            425 => Verdict::Failure(Failure::Transient(message)),
            429 => Verdict::Failure(self.failure("create batch")),
            400 | 403 | 404 | 412 if input_file.is_some_and(|file| self.is_about_file(file)) => {
                Verdict::Refused(self.error(), RefusedKind::File)
            }
            _ if self.is_denied() => Verdict::Failure(self.failure("create batch")),
            // Another server, or another version, would know the path: no row is to blame.
            404 | 405 if !self.from_api => Verdict::Failure(Failure::Rejected(format!(
                "{message}; check api.base_url and api.version"
            ))),
            404 => Verdict::Refused(self.error(), RefusedKind::Model),
            400 => {
                let lines = self.lines();
                let kind =
                    if lines.is_empty() { RefusedKind::Whole } else { RefusedKind::Lines(lines) };
                Verdict::Refused(self.error(), kind)
            }
            401..=498 => Verdict::Refused(self.error(), RefusedKind::Whole),
            _ => Verdict::Failure(Failure::Ambiguous(message)),
        }
    }

    /// Whether the input file is what is missing (1, 9.2).
    fn is_about_file(&self, file: &str) -> bool {
        let id = file.strip_prefix("files/").unwrap_or(file);
        let said = &self.message;
        let named = said.contains(file)
            || said.contains(&format!("File {id}"))
            || said.contains("access the File");
        match self.http {
            404 => named || (!said.contains("odel") && said.contains("entity was not found")),
            400 | 412 => self.status == "FAILED_PRECONDITION" && named,
            _ => named,
        }
    }

    fn error(&self) -> RemoteError {
        let code = match (self.status.as_str(), self.http) {
            ("FAILED_PRECONDITION", _) => 9,
            ("OUT_OF_RANGE", _) => 11,
            (_, 403) => 7,
            (_, 404) => 5,
            (_, _) => 3,
        };
        RemoteError { code, message: self.describe("create batch") }
    }

    /// The rows it objects to, with what it says of each; the first word on a row counts.
    fn lines(&self) -> Vec<(u64, String)> {
        let mut named = BTreeMap::new();
        let mut sentences: Vec<&str> = self.message.lines().collect();
        if self.cut && sentences.len() > 1 {
            // The last one may be torn inside its number.
            sentences.pop();
        }
        for sentence in sentences {
            if let Some(row) = file_line(sentence).or_else(|| inline_item(sentence)) {
                named.entry(row).or_insert_with(|| plain(sentence, LINE_CHARS));
            }
        }
        for (field, description) in &self.violations {
            if let Some(row) = item_number(field) {
                named.entry(row).or_insert_with(|| plain(description, LINE_CHARS));
            }
        }
        named.into_iter().collect()
    }
}

/// What a refused or failed create means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The batch does not exist, and why.
    Refused(RemoteError, RefusedKind),
    /// Something else.
    Failure(Failure),
}

/// `Error on line 7: …`, at the beginning: further on it could be the user's own text.
fn file_line(sentence: &str) -> Option<u64> {
    let rest = sentence.trim_start().strip_prefix("Error on line ")?;
    number(rest).filter(|line| *line > 0)
}

/// `… at 'batch.input_config.requests.requests[6].…'`. An unknown name, the user's own text, is
/// quoted before the path; a wrong value after it.
fn inline_item(sentence: &str) -> Option<u64> {
    match sentence.strip_prefix("Invalid value at '") {
        Some(path) => item_number(path),
        None => item_number(sentence.rsplit_once(" at '")?.1),
    }
}

/// The row, from 1, of `batch.input_config.requests.requests[6].…`, which counts from 0.
fn item_number(path: &str) -> Option<u64> {
    let head = path.strip_prefix("batch.input")?;
    let (config, rest) = head.split_once("requests[")?;
    let plain = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '.');
    if !config.chars().all(plain) {
        return None;
    }
    number(rest)?.checked_add(1)
}

fn number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// The message of an error body that was cut off before its end.
fn torn_message(text: &str) -> Option<String> {
    let (head, rest) = text.split_once("\"message\"")?;
    if !head.trim_start().starts_with(['{', '[']) || !head.contains("\"error\"") {
        return None;
    }
    let inside = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let mut escaped = false;
    let end = inside.find(|c| {
        let quote = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        quote
    });
    let mut inside = inside.get(..end.unwrap_or(inside.len()))?;
    // A torn escape at the end has at most six characters.
    for _ in 0..=6 {
        if let Ok(message) = serde_json::from_str::<String>(&format!("\"{inside}\"")) {
            return Some(message);
        }
        let (last, _) = inside.char_indices().next_back()?;
        inside = inside.get(..last)?;
    }
    None
}

/// `Retry-After` in seconds or as a date (9.3), with an absurd one cut down.
fn retry_after(head: &ErrorHead) -> Option<u64> {
    let text = head.retry_after.as_deref()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1000),
        Err(_) => http_date(text)?.since(http_date(head.date.as_deref()?)?),
    };
    Some(pause.min(RETRY_AFTER_MAX_MS))
}

/// The longest pause that a server can ask for, milliseconds: one hour.
pub const RETRY_AFTER_MAX_MS: u64 = 3_600_000;

/// Characters kept of what is said of a single row.
const LINE_CHARS: usize = 500;

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
