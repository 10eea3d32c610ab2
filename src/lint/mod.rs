//! What is wrong with a request, as far as that can be known before it is sent.
//!
//! A line of an input goes in, findings come out: where, what the API would make of it, how to
//! mend it, and, where no meaning is lost, the mend itself. It knows the message types of the API
//! and the habits of its batches that cost people a night. It never refuses a line: whether it can
//! be read at all is judged where it is read, and what is sent is judged by the API.
//!
//! Reading order: `tree` and `path` (a line), `walk` (the types), `homes` (where a setting
//! belongs), `shapes` (one shape in the place of another), `rules`, `thinking` and `schemas`
//! (habits), `mend`, `report` (many lines).

pub mod homes;
pub mod mend;
pub mod path;
pub mod report;
pub mod rules;
pub mod schemas;
pub mod shapes;
pub mod thinking;
pub mod tree;
pub mod walk;

use self::mend::Mend;
use self::path::Path;
use self::tree::Node;
use self::walk::Walk;
use crate::engine::job::Task;

/// What the requests of a file are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The task of the queue.
    pub task: Task,
    /// Its model, with or without `models/`.
    pub model: &'a str,
}

/// Something in a line that its writer should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// Where in the line.
    pub path: Path,
    /// What happens at the API.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The same as a change, where it keeps the meaning.
    pub mend: Option<Mend>,
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `contents` beside the key, without a `request` around them.
    Unwrapped,
    /// A setting that belongs to another place of the request.
    Misplaced,
    /// `systemInstruction` is no object with parts.
    SystemInstruction,
    /// A name that the API does not know.
    UnknownField,
    /// A value of another type than the field's.
    WrongType,
    /// A word that is not among those of the field.
    UnknownValue,
    /// A setting beside the request, where the API ignores it.
    Ignored,
    /// A member that stands twice.
    Twice,
    /// `responseJsonSchema`, which does not work in batches.
    ResponseJsonSchema,
    /// A schema for the answer without the media type that it needs.
    ResponseMimeType,
    /// Thinking may leave no tokens for the answer.
    MaxTokens,
    /// A setting of thinking that the model does not have.
    Thinking,
    /// A file that may be gone, or not be readable, when the line is answered.
    FileUri,
    /// Data without their media type.
    MimeType,
    /// Settings for tools that are not there.
    ToolConfig,
    /// What can not stand beside cached content.
    CachedContent,
    /// A role that the API does not know.
    Role,
    /// Contents without parts, or a part without anything in it.
    Empty,
    /// A number out of its range.
    OutOfRange,
    /// What an embedding model does not look at.
    NotEmbedded,
}

impl Kind {
    /// The word in reports, warnings and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Unwrapped => "unwrapped",
            Kind::Misplaced => "misplaced",
            Kind::SystemInstruction => "system_instruction",
            Kind::UnknownField => "unknown_field",
            Kind::WrongType => "wrong_type",
            Kind::UnknownValue => "unknown_value",
            Kind::Ignored => "ignored",
            Kind::Twice => "twice",
            Kind::ResponseJsonSchema => "response_json_schema",
            Kind::ResponseMimeType => "response_mime_type",
            Kind::MaxTokens => "max_tokens",
            Kind::Thinking => "thinking",
            Kind::FileUri => "file_uri",
            Kind::MimeType => "mime_type",
            Kind::ToolConfig => "tool_config",
            Kind::CachedContent => "cached_content",
            Kind::Role => "role",
            Kind::Empty => "empty",
            Kind::OutOfRange => "out_of_range",
            Kind::NotEmbedded => "not_embedded",
        }
    }

    /// Whether the API refuses to take the line at all. Otherwise it takes it, but the answer is an
    /// error, or not what was meant.
    pub fn is_error(self) -> bool {
        match self {
            Kind::Unwrapped
            | Kind::Misplaced
            | Kind::SystemInstruction
            | Kind::UnknownField
            | Kind::WrongType
            | Kind::UnknownValue => true,
            Kind::Ignored
            | Kind::Twice
            | Kind::ResponseJsonSchema
            | Kind::ResponseMimeType
            | Kind::MaxTokens
            | Kind::Thinking
            | Kind::FileUri
            | Kind::MimeType
            | Kind::ToolConfig
            | Kind::CachedContent
            | Kind::Role
            | Kind::Empty
            | Kind::OutOfRange
            | Kind::NotEmbedded => false,
        }
    }

    /// `error` or `warning`.
    pub fn severity(self) -> &'static str {
        if self.is_error() { "error" } else { "warning" }
    }
}

/// What there is to say about a line, or an element of a list: nothing if it is no JSON, or not
/// meant for the API in this form.
pub fn check(line: &str, asked: Asked<'_>) -> Vec<Finding> {
    Node::read(line).map(|line| check_node(&line, asked)).unwrap_or_default()
}

/// The same for a line that has been read.
pub fn check_node(line: &Node<'_>, asked: Asked<'_>) -> Vec<Finding> {
    let has = |names: &[&str]| names.iter().any(|name| line.get(name).is_some());
    if let Some(request) = line.get("request") {
        let mut walk = Walk::of(request, Some("request"), asked);
        homes::beside(line, &mut walk);
        walk.request();
        return walk.end();
    }
    let elsewhere = has(&["custom_id", "body", "batch"]);
    if elsewhere || !has(&["contents", "content"]) {
        return Vec::new();
    }
    let mut walk = Walk::of(line, None, asked);
    if has(&["key", "metadata"]) {
        walk.add(
            Kind::Unwrapped,
            Path::default(),
            "what is asked stands beside the key; the API looks for it in `request`",
            "put all of it but the key into `request`",
            Some(Mend::Wrap(asked.task)),
        );
    } else {
        walk.request();
    }
    walk.end()
}
