//! A batch at the API: what is known of it while it runs, and what is kept of it afterwards.

use super::ids::{Attempt, BatchName, FileName, Millis};
use super::money::Cost;

/// How an attempt's requests reach the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Inside the create request.
    Inline,
    /// As an uploaded file.
    File(FileName),
}

/// A batch that exists at the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its name.
    pub name: BatchName,
    /// How its requests got there.
    pub input: Input,
    /// When it was created.
    pub created: Millis,
    /// Whether it was found again after a lost reply.
    pub adopted: bool,
    /// The last state heard of it.
    pub remote: RemoteState,
    /// Fingerprint of the API key it was made with, or was seen with since.
    pub key_print: String,
    /// Its input file was removed at the API, which has read it.
    pub input_gone: bool,
}

/// What was done for a chunk because a batch of it took too long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aid {
    /// A batch that was left to itself when it was stopped and did not end: its lines were asked
    /// one by one.
    pub left: Option<Batch>,
    /// The one that was, and is looked after again or written down.
    pub back: Option<BatchName>,
    /// The one that was found not to begin.
    pub stuck: Option<BatchName>,
    /// How often rows were sent again for that.
    pub resent: u8,
}

/// The state of a batch as the API names it. States we do not know are kept as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteState {
    /// Waits at the API.
    Pending,
    /// Is being worked on.
    Running,
    /// Ended; single rows may have failed.
    Succeeded,
    /// Ended as a whole.
    Failed,
    /// Was cancelled.
    Cancelled,
    /// Waited too long at the API.
    Expired,
    /// Something we have no name for.
    Unknown(String),
}

impl RemoteState {
    /// The last part of the wire's name, such as `SUCCEEDED`.
    pub fn as_str(&self) -> &str {
        match self {
            RemoteState::Pending => "PENDING",
            RemoteState::Running => "RUNNING",
            RemoteState::Succeeded => "SUCCEEDED",
            RemoteState::Failed => "FAILED",
            RemoteState::Cancelled => "CANCELLED",
            RemoteState::Expired => "EXPIRED",
            RemoteState::Unknown(name) => name,
        }
    }

    /// Reads `BATCH_STATE_X`, `JOB_STATE_X` or `X` (API contract, 4.3).
    pub fn parse(text: &str) -> RemoteState {
        let bare = text.strip_prefix("BATCH_STATE_").or(text.strip_prefix("JOB_STATE_"));
        match bare.unwrap_or(text) {
            "PENDING" => RemoteState::Pending,
            "RUNNING" => RemoteState::Running,
            "SUCCEEDED" => RemoteState::Succeeded,
            "FAILED" => RemoteState::Failed,
            "CANCELLED" => RemoteState::Cancelled,
            "EXPIRED" => RemoteState::Expired,
            other => RemoteState::Unknown(other.to_owned()),
        }
    }

    /// Whether no further change is to be expected.
    pub fn is_terminal(&self) -> bool {
        match self {
            RemoteState::Succeeded
            | RemoteState::Failed
            | RemoteState::Cancelled
            | RemoteState::Expired => true,
            RemoteState::Pending | RemoteState::Running | RemoteState::Unknown(_) => false,
        }
    }
}

/// How a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEnd {
    /// A terminal state, or an unknown one with `done` set.
    pub state: RemoteState,
    /// When, by the API's clock if it said so.
    pub ended: Millis,
    /// The error of the whole batch, if any.
    pub error: Option<RemoteError>,
}

/// An error as the API told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteError {
    /// gRPC code (API contract, 9.2).
    pub code: i32,
    /// What it said.
    pub message: String,
}

/// A batch that came to an end, for the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRecord {
    /// Its name.
    pub name: BatchName,
    /// The attempt it was made for.
    pub attempt: Attempt,
    /// How its requests got there.
    pub input: Input,
    /// Its last state.
    pub state: RemoteState,
    /// Rows sent.
    pub lines: u64,
    /// Bytes sent, as an input file has them.
    pub bytes: u64,
    /// Rows it answered.
    pub answered: u64,
    /// When it was created.
    pub created: Millis,
    /// When it ended.
    pub ended: Millis,
    /// When its results were here; records of earlier versions do not have it.
    pub collected: Option<Millis>,
    /// Whether it was found again after a lost reply.
    pub adopted: bool,
    /// The error of the whole batch, if any.
    pub error: Option<RemoteError>,
    /// Fingerprint of the API key it was made with; records of earlier versions do not have it.
    pub key_print: Option<String>,
    /// Its input file was removed at the API.
    pub input_gone: bool,
    /// Bytes of its results, as far as they lie in a file at the API.
    pub result_bytes: u64,
    /// What it cost, if its model had a price.
    pub cost: Option<Cost>,
}
