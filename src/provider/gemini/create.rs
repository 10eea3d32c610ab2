//! Creates a batch: the one call that must never be sent twice (API contract, 3.8).
//!
//! It goes out once, on a connection of its own, and its outcome is one of: it exists; it was
//! definitely refused; it did not leave; or nobody knows.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response};

use super::classify::Verdict;
use super::client::{Client, ERROR_BYTES_MAX};
use super::operation::Operation;
use super::transfer::{Incoming, Payload, TransferError, send_stream};
use super::wire::{batch_name, file_name, millis, model_path, plain};
use crate::engine::event::Failure;
use crate::engine::ids::{BatchName, FileName, Millis, Stamp};
use crate::engine::job::{RemoteError, Task};

/// Where the requests of a batch come from.
#[derive(Debug, Clone)]
pub enum CreateInput {
    /// They travel along: items `{"request":…,"metadata":{…}}`, joined by commas.
    Inline(Payload),
    /// An uploaded file.
    File(FileName),
}

/// A batch that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its name.
    pub batch: BatchName,
    /// When it was created, by the API's clock.
    pub created: Option<Millis>,
}

/// Why there is no batch, or why nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateFailure {
    /// The API definitely refused it; it does not exist.
    Refused {
        /// What it said.
        error: RemoteError,
        /// What it objected to.
        kind: RefusedKind,
    },
    /// Anything else; only `Ambiguous` leaves open whether it exists.
    Failure(Failure),
}

/// What a create was refused for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusedKind {
    /// Single rows: their position among the rows sent, from 1, ascending, and what is wrong with
    /// each. The positions come from the server: check them against the number of rows sent.
    Lines(Vec<(u64, String)>),
    /// The model does not exist or can not be batched.
    Model,
    /// The input file is gone or belongs to another project.
    File,
    /// The request as a whole, without saying where.
    Whole,
}

impl Client {
    /// Creates a batch of `model` (`x`, `models/x` or `tunedModels/x`) with the stamp as its
    /// display name. Never sends anything twice.
    ///
    /// # Errors
    /// See [`CreateFailure`].
    pub async fn create(
        &self,
        model: &str,
        task: Task,
        stamp: &Stamp,
        priority: i64,
        input: CreateInput,
    ) -> Result<Created, CreateFailure> {
        let Some(model) = model_path(model) else {
            let message = format!("{:?} cannot be the name of a model", plain(model, 80));
            let error = RemoteError { code: 3, message };
            return Err(CreateFailure::Refused { error, kind: RefusedKind::Model });
        };
        let version = &self.inner.settings.version;
        let method = match task {
            Task::Generate => "batchGenerateContent",
            Task::Embed => "asyncBatchEmbedContent",
        };
        let request = self
            .fresh_request(Method::POST, &format!("/{version}/{model}:{method}"))
            .header(CONTENT_TYPE, "application/json");
        let file = match &input {
            CreateInput::Inline(_) => None,
            CreateInput::File(name) => Some(file_name(&name.0).map_err(|error| {
                let error = RemoteError { code: 3, message: error.to_string() };
                CreateFailure::Refused { error, kind: RefusedKind::File }
            })?),
        };
        let (body, len) = body(stamp, priority, input);
        let response = send_stream(request, body, len, self.pace()).await.map_err(sort)?;
        self.note_clock(&response);
        if response.status().is_success() {
            return self.read_created(response).await;
        }
        let answer = self.read_error(response).await;
        Err(match answer.refusal(file.as_ref().map(|name| name.0.as_str())) {
            Verdict::Refused(error, kind) => CreateFailure::Refused { error, kind },
            Verdict::Failure(failure) => CreateFailure::Failure(failure),
        })
    }

    /// Reads the operation out of a success. What can not be read may well exist.
    async fn read_created(&self, response: Response) -> Result<Created, CreateFailure> {
        let unknown = |reason: String| {
            CreateFailure::Failure(Failure::Ambiguous(format!(
                "create batch: accepted, but the answer cannot be read: {}",
                self.told(&reason)
            )))
        };
        let (body, cut) = Incoming::new(response, self.pace(), ERROR_BYTES_MAX).start().await;
        if cut {
            return Err(unknown("it broke off or is too long".to_owned()));
        }
        let text = String::from_utf8(body).map_err(|error| unknown(error.to_string()))?;
        let operation = Operation::from_text(&text).map_err(|error| unknown(error.to_string()))?;
        let batch = batch_name(&operation.name).map_err(|error| unknown(error.to_string()))?;
        Ok(Created { batch, created: millis(&operation.create_time) })
    }
}

/// The whole body and its length in bytes (3.2 to 3.4).
fn body(
    stamp: &Stamp,
    priority: i64,
    input: CreateInput,
) -> (BoxStream<'static, std::io::Result<Bytes>>, u64) {
    let name = serde_json::Value::from(stamp.0.as_str());
    let mut head = format!("{{\"batch\":{{\"displayName\":{name},");
    if priority != 0 {
        head.push_str(&format!("\"priority\":\"{priority}\","));
    }
    head.push_str("\"inputConfig\":{");
    match input {
        CreateInput::File(file) => {
            let file = serde_json::Value::from(file.0);
            head.push_str(&format!("\"fileName\":{file}}}}}}}"));
            let len = head.len() as u64;
            (stream::iter([Ok(Bytes::from(head))]).boxed(), len)
        }
        CreateInput::Inline(payload) => {
            head.push_str("\"requests\":{\"requests\":[");
            let len = head.len() as u64 + payload.len + INLINE_TAIL.len() as u64;
            let items = (payload.open)(0, payload.len);
            let head = stream::iter([Ok(Bytes::from(head))]);
            let tail = stream::iter([Ok(Bytes::from_static(INLINE_TAIL.as_bytes()))]);
            (head.chain(items).chain(tail).boxed(), len)
        }
    }
}

/// Closes the list of requests and everything around it.
const INLINE_TAIL: &str = "]}}}}";

pub(super) fn sort(error: TransferError) -> CreateFailure {
    let message = format!("create batch: {error}");
    CreateFailure::Failure(match error {
        TransferError::NotSent(_) => Failure::Transient(message),
        TransferError::Barred(_) => Failure::Barred(message),
        // The closing braces never went out: what arrived is no request.
        TransferError::Payload(_) => Failure::Local(message),
        TransferError::Broken(_) | TransferError::TooSlow(_) | TransferError::TooLong(_) => {
            Failure::Ambiguous(message)
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The names in `value` that the schema does not know.
    fn unknown(schemas: &Value, schema: &Value, value: &Value) -> Vec<String> {
        let schema = schema["$ref"].as_str().map_or(schema, |name| &schemas[name]);
        match value {
            Value::Object(members) => members
                .iter()
                .flat_map(|(name, value)| match schema["properties"].get(name) {
                    None => vec![name.clone()],
                    Some(inner) => unknown(schemas, inner, value),
                })
                .collect(),
            Value::Array(items) => {
                items.iter().flat_map(|item| unknown(schemas, &schema["items"], item)).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        }
    }

    #[tokio::test]
    async fn every_member_we_send_has_the_name_of_the_discovery_document() {
        let document = include_str!("../../../tests/fixtures/discovery-batch.json");
        let document: Value = serde_json::from_str(document).expect("a fixture");
        let schemas = &document["schemas"];
        let schema = &schemas["BatchGenerateContentRequest"];
        let items = Payload::from_bytes(Bytes::from_static(b"{},{}"));
        let file = FileName("files/a".to_owned());
        for input in [CreateInput::Inline(items), CreateInput::File(file)] {
            let (stream, len) = body(&Stamp("s\"\\".to_owned()), 5, input);
            let parts: Vec<_> = stream.map(|part| part.expect("in memory")).collect().await;
            let bytes = parts.concat();
            assert_eq!(bytes.len() as u64, len);
            let value: Value = serde_json::from_slice(&bytes).expect("JSON");
            assert_eq!(value["batch"]["displayName"], "s\"\\");
            assert_eq!(unknown(schemas, schema, &value), Vec::<String>::new());
        }
    }
}
