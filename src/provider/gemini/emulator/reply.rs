//! What the server answers, before it becomes HTTP.

use serde_json::{Value, json};

/// The bytes of a file or of a batch's rows or results, kept outside the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub u64);

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// 200 with a JSON body.
    Json(Value),
    /// 200 with an operation whose results are spliced in wherever [`Reply::ITEMS`] stands.
    Spliced {
        /// The operation.
        operation: Value,
        /// Its result lines.
        items: StoreId,
    },
    /// 200 with the answer to a single request.
    Answer {
        /// JSON.
        text: String,
        /// The tier that served it.
        tier: String,
    },
    /// An error.
    Refused(Refusal),
    /// An answer of the upload protocol.
    Upload(UploadReply),
    /// Raw bytes of a file.
    Bytes(Download),
    /// The HTML page of a front end, 502.
    Html,
    /// The connection is cut without an answer.
    Dropped,
}

impl Reply {
    /// Stands for all items of a list. No client's text can be equal: display names have no NUL.
    pub const ITEMS: &str = "\u{0}\u{1}items\u{1}\u{0}";

    /// An error with a message.
    pub fn refused(http: u16, message: impl Into<String>) -> Reply {
        Reply::Refused(Refusal::new(http, message))
    }
}

/// An error of the service (API contract, 9.1).
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// HTTP status.
    pub http: u16,
    /// In words.
    pub message: String,
    /// `details`, if there are any.
    pub details: Option<Value>,
    /// Value of `x-goog-upload-status`, on upload answers.
    pub upload_status: Option<&'static str>,
}

impl Refusal {
    /// An error without details.
    pub fn new(http: u16, message: impl Into<String>) -> Refusal {
        Refusal { http, message: message.into(), details: None, upload_status: None }
    }

    /// The body, as an array of one if `array`.
    pub fn body(&self, array: bool) -> Value {
        let mut error =
            json!({"code": self.http, "message": self.message, "status": self.status()});
        if let Some(details) = &self.details {
            error["details"] = details.clone();
        }
        let body = json!({ "error": error });
        if array { json!([body]) } else { body }
    }

    /// The name of the status (API contract, 9.2).
    pub fn status(&self) -> &'static str {
        match self.http {
            400 | 416 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            409 => "ALREADY_EXISTS",
            429 => "RESOURCE_EXHAUSTED",
            501 => "UNIMPLEMENTED",
            503 => "UNAVAILABLE",
            _ => "INTERNAL",
        }
    }
}

/// See [`Reply::Upload`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UploadReply {
    /// Value of `x-goog-upload-status`; missing only by a fault.
    pub status: Option<&'static str>,
    /// The session to be announced, as value of `upload_id`, and its granularity in bytes.
    pub session: Option<(String, u64)>,
    /// Value of `x-goog-upload-size-received`.
    pub received: Option<u64>,
    /// The body; empty if missing.
    pub body: Option<Value>,
}

/// See [`Reply::Bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Download {
    /// Where the bytes are.
    pub store: StoreId,
    /// The first byte to send.
    pub from: u64,
    /// How many are sent.
    pub len: u64,
    /// Size of the whole, for `Content-Range`, if a range was asked for and is honoured.
    pub range_of: Option<u64>,
    /// Whether the connection is cut after them.
    pub cut: bool,
}
