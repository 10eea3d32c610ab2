//! Why a line failed, as told in the errors file.
//!
//! Every failed line carries a gRPC code with its name, a reason word for scripts, and a message
//! for people. The words are part of the contract with users and never change.

use super::index::LineFate;
use super::loose::cut;
use super::response::Answer;
use super::result_line::{MESSAGE_MAX, ResultLine, RowError};
use crate::engine::job::{Chunk, RemoteState};
use crate::engine::verdict::Verdict;

/// Why one line failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFailure {
    /// gRPC code.
    pub code: i32,
    /// What happened.
    pub message: String,
    /// A word for scripts; also counted in the manifest.
    pub reason: String,
}

impl RowFailure {
    /// A row that could not be sent.
    pub fn invalid(fate: LineFate, message: String) -> RowFailure {
        RowFailure::new(3, fate.reason(), message)
    }

    /// A row with a result line that is not an answer, or not one that the queue accepts.
    pub fn of_line(verdict: Verdict, line: &ResultLine<'_>) -> RowFailure {
        if let Some(error) = &line.error {
            return RowFailure::of_error(verdict, error);
        }
        let answer = line.answer();
        let why = answer.as_ref().map_or_else(String::new, why);
        match verdict {
            Verdict::Blocked => {
                let prompt = answer.is_some_and(|answer| answer.block_reason.is_some());
                let what = if prompt { "prompt" } else { "answer" };
                RowFailure::new(3, "blocked", format!("the {what} was blocked by a filter{why}"))
            }
            Verdict::Truncated => {
                let message = format!("the answer was cut off at the token limit{why}");
                RowFailure::new(11, "truncated", message)
            }
            Verdict::Empty if line.response.is_none() => {
                let message = "the result line holds neither a response nor an error".to_owned();
                RowFailure::new(2, "empty", message)
            }
            Verdict::Empty => {
                let message = format!("the API answered without any content{why}");
                RowFailure::new(2, "empty", message)
            }
            Verdict::Open
            | Verdict::Answered
            | Verdict::Failed
            | Verdict::Retryable
            | Verdict::Invalid => {
                let message = "the result line does not say why the row failed".to_owned();
                RowFailure::new(2, "api_error", message)
            }
        }
    }

    /// A row whose answers did not fit the schema that its request asks for; `what` says where.
    pub fn misfit(what: &str) -> RowFailure {
        let message =
            format!("the answer does not fit the schema that the request asks for: {what}");
        RowFailure::new(11, "schema_mismatch", message)
    }

    /// A row that no result line was ever received for; `chunk` is the one that answers for it.
    pub fn unanswered(cancelled: bool, chunk: Option<&Chunk>) -> RowFailure {
        if cancelled {
            let message = "the job was cancelled before this line was answered".to_owned();
            return RowFailure::new(1, "cancelled", message);
        }
        if let Some(error) = chunk.and_then(|chunk| chunk.last_error.as_ref()) {
            let message = match error.message.as_str() {
                "" => "the API refused or failed the whole batch without a message",
                said => cut(said, MESSAGE_MAX),
            };
            return RowFailure::new(error.code, "batch_failed", message.to_owned());
        }
        let last = chunk.and_then(|chunk| chunk.batches.last()).map(|batch| &batch.state);
        let (code, reason, message) = match last {
            Some(RemoteState::Expired) => {
                (4, "expired", "the batch expired at the API before this line was answered")
            }
            Some(RemoteState::Cancelled) => {
                (1, "cancelled", "the batch was cancelled at the API before this line was answered")
            }
            Some(RemoteState::Failed) => {
                (2, "batch_failed", "the API failed the whole batch without saying why")
            }
            Some(
                RemoteState::Pending
                | RemoteState::Running
                | RemoteState::Succeeded
                | RemoteState::Unknown(_),
            )
            | None => (2, "no_result", "the API returned no result for this line"),
        };
        RowFailure::new(code, reason, message.to_owned())
    }

    /// The `error` object of the errors file.
    pub fn json(&self) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        format!(
            "{{\"code\":{},\"status\":\"{}\",\"message\":{},\"reason\":{}}}",
            self.code,
            status_name(self.code),
            text(&self.message),
            text(&self.reason),
        )
    }

    fn of_error(verdict: Verdict, error: &RowError) -> RowFailure {
        let reason =
            if verdict == Verdict::Retryable { transient(error.code) } else { "api_error" };
        let unsaid = || match error.code {
            1 => "the line was cancelled at the API before it was answered".to_owned(),
            code => format!("the API reported {} without a message", status_name(code)),
        };
        RowFailure::new(error.code, reason, error.message.clone().unwrap_or_else(unsaid))
    }

    fn new(code: i32, reason: &str, message: String) -> RowFailure {
        RowFailure { code, message, reason: reason.to_owned() }
    }
}

/// The reason of an error that did not pass although the line was sent again.
fn transient(code: i32) -> &'static str {
    match code {
        1 => "cancelled",
        4 => "deadline",
        8 => "quota",
        10 => "aborted",
        13 => "internal",
        14 => "unavailable",
        _ => "unknown",
    }
}

/// The name of a gRPC code.
pub fn status_name(code: i32) -> &'static str {
    match code {
        0 => "OK",
        1 => "CANCELLED",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

fn why(answer: &Answer) -> String {
    match (&answer.block_reason, &answer.finish_reason) {
        (Some(reason), _) => format!(" (blockReason {reason})"),
        (None, Some(reason)) => format!(" (finishReason {reason})"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(verdict: Verdict, line: &str) -> RowFailure {
        RowFailure::of_line(verdict, &ResultLine::parse(line.as_bytes()).expect("an object"))
    }

    #[test]
    fn a_blocked_prompt_and_a_blocked_answer_name_their_reason() {
        let prompt = r#"{"response":{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"}}}"#;
        let answer = r#"{"response":{"candidates":[{"finishReason":"SAFETY"}]}}"#;
        let (prompt, answer) =
            (failure(Verdict::Blocked, prompt), failure(Verdict::Blocked, answer));
        assert_eq!(prompt.reason, "blocked");
        assert!(prompt.message.contains("prompt") && prompt.message.contains("PROHIBITED_CONTENT"));
        assert!(answer.message.contains("answer") && answer.message.contains("SAFETY"));
    }

    #[test]
    fn an_error_without_a_message_gets_one() {
        let failure = failure(Verdict::Retryable, r#"{"error":{"code":1}}"#);
        assert_eq!((failure.code, failure.reason.as_str()), (1, "cancelled"));
        assert!(!failure.message.is_empty());
    }

    #[test]
    fn a_hostile_message_stays_within_its_string() {
        let line = r#"{"error":{"code":3,"message":"\"},\n\u001b[31m"}}"#;
        let json = failure(Verdict::Failed, line).json();
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["message"], "\"},\n\u{1b}[31m");
        assert_eq!(value["status"], "INVALID_ARGUMENT");
        assert!(!json.contains('\n'));
    }
}
