//! A batch as the OpenAI-compatible layer describes it (API contract, section 11).
//!
//! Read leniently: the layer has been seen to mix the two ways of writing names, its ids are not
//! documented, and members that we do not need may be anything. What goes into a path is checked.

use serde::Deserialize;
use serde_json::Value;

use super::wire::{self, Int64, MESSAGE_CHARS, WireError, file_name, plain};
use crate::engine::event::RemoteBatch;
use crate::engine::ids::{BatchName, FileName, Millis};
use crate::engine::job::{RemoteError, RemoteState};

/// Where batches of the layer are, below the version. Their names begin like this, so that every
/// later call knows by the name alone where it has to go.
pub const BATCHES: &str = "openai/batches";

/// Whether a batch is one of the layer's.
pub fn is_of_layer(name: &BatchName) -> bool {
    name.0.starts_with("openai/")
}

/// The name that we keep of a batch with this id: the path that leads to it.
///
/// # Errors
/// If the id could change a path it is put into.
pub fn layer_name(id: &str) -> Result<BatchName, WireError> {
    let is_plain = !id.is_empty() && id.split('/').count() <= 2;
    match is_plain && id.split('/').all(wire::is_id) {
        true => Ok(BatchName(format!("{BATCHES}/{id}"))),
        false => Err(WireError::BadName { kind: "batch", name: plain(id, 80) }),
    }
}

/// A batch.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct LayerBatch {
    id: Value,
    status: Value,
    errors: Value,
    #[serde(alias = "inputFileId")]
    input_file_id: Value,
    #[serde(alias = "outputFileId")]
    output_file_id: Value,
    #[serde(alias = "errorFileId")]
    error_file_id: Value,
    #[serde(alias = "createdAt")]
    created_at: Value,
    #[serde(alias = "completedAt")]
    completed_at: Value,
    #[serde(alias = "failedAt")]
    failed_at: Value,
    #[serde(alias = "expiredAt")]
    expired_at: Value,
    #[serde(alias = "cancelledAt")]
    cancelled_at: Value,
    #[serde(alias = "requestCounts")]
    request_counts: Value,
}

/// A page of the list, newest first.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LayerPage {
    /// The entries.
    pub data: Vec<LayerBatch>,
    /// Whether another page follows.
    #[serde(alias = "hasMore")]
    pub has_more: bool,
}

impl LayerPage {
    /// After which entry the next page begins.
    pub fn last(&self) -> Option<String> {
        self.data.last().map(|batch| text(&batch.id).to_owned()).filter(|id| !id.is_empty())
    }
}

impl LayerBatch {
    /// The name that we keep: the path that leads to it.
    ///
    /// # Errors
    /// If its id could change a path it is put into.
    pub fn name(&self) -> Result<BatchName, WireError> {
        layer_name(text(&self.id))
    }

    /// When it was created.
    pub fn created(&self) -> Option<Millis> {
        moment(&self.created_at)
    }

    /// The file it was made from.
    pub fn input_file(&self) -> Option<FileName> {
        file(&self.input_file_id).ok().flatten()
    }

    /// The files with its results: answered lines, then failed ones where they lie apart.
    ///
    /// # Errors
    /// If one of them has a name that can not be used.
    pub fn result_files(&self) -> Result<Vec<FileName>, WireError> {
        let files = [file(&self.output_file_id)?, file(&self.error_file_id)?];
        Ok(files.into_iter().flatten().collect())
    }

    /// How many requests it has.
    pub fn request_count(&self) -> Option<u64> {
        self.counts().0
    }

    /// How many requests it has, how many of them are answered, and how many failed.
    pub fn counts(&self) -> (Option<u64>, Option<u64>, Option<u64>) {
        let count = |name: &str| {
            let count = self.request_counts.get(name).and_then(number)?;
            u64::try_from(count).ok()
        };
        (count("total"), count("completed"), count("failed"))
    }

    /// What the engine wants to know of it.
    ///
    /// # Errors
    /// If one of the names in it can not be used.
    pub fn into_batch(self) -> Result<RemoteBatch, WireError> {
        let ended = [&self.completed_at, &self.failed_at, &self.expired_at, &self.cancelled_at];
        Ok(RemoteBatch {
            name: self.name()?,
            display_name: String::new(),
            state: state(text(&self.status)),
            done: false,
            error: error(&self.errors),
            created: self.created(),
            ended: ended.into_iter().find_map(moment),
            input_file: self.input_file(),
            output_file: file(&self.output_file_id)?,
        })
    }
}

/// The state that a status of the layer stands for.
fn state(status: &str) -> RemoteState {
    match status {
        "validating" => RemoteState::Pending,
        "in_progress" | "finalizing" | "cancelling" => RemoteState::Running,
        "completed" => RemoteState::Succeeded,
        "failed" => RemoteState::Failed,
        "cancelled" => RemoteState::Cancelled,
        "expired" => RemoteState::Expired,
        // The API's own words, should they come through.
        other => RemoteState::parse(&plain(other, 64)),
    }
}

/// What is told of a batch that failed: the first of its errors, with the line it names.
fn error(errors: &Value) -> Option<RemoteError> {
    let first = errors.get("data").unwrap_or(errors).get(0)?;
    let said = first.get("message").and_then(Value::as_str).unwrap_or_default();
    let line = first.get("line").and_then(number).map(|line| format!("line {line}: "));
    let message = plain(&format!("{}{said}", line.unwrap_or_default()), MESSAGE_CHARS);
    // The layer fails a batch as a whole for what stands in its file.
    let code = first.get("code").and_then(number).and_then(|code| i32::try_from(code).ok());
    Some(RemoteError { code: code.filter(|code| (1..=16).contains(code)).unwrap_or(3), message })
}

/// A file, with or without `files/`; `None` if there is none.
fn file(value: &Value) -> Result<Option<FileName>, WireError> {
    match text(value) {
        "" => Ok(None),
        name if name.contains('/') => file_name(name).map(Some),
        id => file_name(&format!("files/{id}")).map(Some),
    }
}

/// Seconds since 1970, or RFC 3339.
fn moment(value: &Value) -> Option<Millis> {
    match number(value) {
        Some(seconds) => u64::try_from(seconds).ok()?.checked_mul(1000).map(Millis),
        None => wire::millis(text(value)),
    }
}

fn number(value: &Value) -> Option<i64> {
    serde_json::from_value::<Int64>(value.clone()).ok().map(|number| number.0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> LayerBatch {
        serde_json::from_value(value).expect("a batch")
    }

    #[test]
    fn a_batch_is_read_in_either_way_of_writing() {
        for value in [
            json!({"id": "batches/abc", "status": "completed", "input_file_id": "files/in",
                "output_file_id": "files/batch-abc", "error_file_id": null, "created_at": 5,
                "completed_at": 9, "request_counts": {"total": 3}}),
            json!({"id": "batches/abc", "status": "completed", "inputFileId": "in",
                "outputFileId": "batch-abc", "createdAt": "5", "completedAt": "1970-01-01T00:00:09Z",
                "requestCounts": {"total": "3"}, "more": [1]}),
        ] {
            let batch = read(value);
            assert_eq!(batch.request_count(), Some(3));
            let files = batch.result_files().expect("names");
            let batch = batch.into_batch().expect("names");
            assert_eq!(batch.name.0, "openai/batches/batches/abc");
            assert!(is_of_layer(&batch.name));
            assert_eq!(batch.state, RemoteState::Succeeded);
            assert_eq!((batch.created, batch.ended), (Some(Millis(5000)), Some(Millis(9000))));
            assert_eq!(batch.input_file.map(|file| file.0).as_deref(), Some("files/in"));
            assert_eq!(files, [FileName("files/batch-abc".to_owned())]);
        }
    }

    #[test]
    fn a_failed_batch_tells_its_first_error() {
        let errors = json!({"object": "list", "data": [{"code": "invalid_json_line", "line": 3,
            "message": "not\nJSON"}]});
        let batch = read(json!({"id": "batch_1", "status": "failed", "errors": errors}));
        let error = batch.into_batch().expect("a name").error.expect("an error");
        assert_eq!((error.code, error.message.as_str()), (3, "line 3: not JSON"));
    }

    /// Fault 62.
    #[test]
    fn an_id_that_would_change_the_path_is_refused() {
        for id in ["", "a/b/c", "../x", "a?b", "a b", "batches/", "é"] {
            assert!(read(json!({"id": id})).name().is_err(), "{id}");
        }
        for id in ["batch_abc", "batches/abc", "abc"] {
            assert!(read(json!({"id": id})).name().is_ok(), "{id}");
        }
        assert!(read(json!({"id": "a", "output_file_id": "files/../x"})).result_files().is_err());
    }
}
