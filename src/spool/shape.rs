//! How the requests of an input stand in it: one a line, or in one document.
//!
//! The name decides where it can; else the first line is looked at. Nothing is kept of what is read
//! here.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::document::{Document, Whole};
use super::forms;
use super::lines::{Piece, is_blank};
use super::plan::{self, CutRules, PlanError};
use super::source::{Ending, refusal};

/// How the requests stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One a line.
    Lines,
    /// In one document.
    Document,
    /// The first line is cut off: a document over several lines, or a broken first line.
    Unclear,
}

/// What the beginning of an input tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    /// Bytes of a byte order mark.
    pub start: u64,
    /// How its requests stand.
    pub shape: Shape,
}

/// Looks at the beginning of `input`, which was opened at `path`; `ending` is that of its name.
///
/// # Errors
/// If it can not be read, or can never be sent.
pub(super) fn look(
    mut input: impl Read,
    path: &Path,
    ending: Ending,
    rules: &CutRules,
) -> Result<Beginning, PlanError> {
    let unread = |error| plan::unread(error, path);
    let mut head = Vec::with_capacity(HEAD_BYTES);
    (&mut input).take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(unread)?;
    let start = check_head(&head)?;
    let rest = head[start as usize..].chain(input);
    let shape = match (ending, first_line(rest, rules).map_err(unread)?) {
        // Whoever names it JSON Lines mostly means it; a document there is told by what cannot
        // be anything else.
        (Ending::Lines, FirstLine::Listed) | (Ending::Document, FirstLine::Long) => Shape::Unclear,
        (Ending::Lines, FirstLine::Long) => Shape::Lines,
        (Ending::Document, FirstLine::Listed) => Shape::Document,
        (Ending::Lines | Ending::Document, FirstLine::Body) => Shape::Document,
        (Ending::Lines | Ending::Document, FirstLine::CutOff) => Shape::Unclear,
        (Ending::Lines | Ending::Document, FirstLine::Other) => Shape::Lines,
        (Ending::Text | Ending::Table | Ending::Unknown, _) => Shape::Lines,
    };
    Ok(Beginning { start, shape })
}

/// What follows the last block of a document: a single request is handed on now. Answers with
/// warnings.
///
/// # Errors
/// If the document is broken or can not be sent, or that of `sink`.
pub(super) fn end_document(
    document: Document,
    rules: &CutRules,
    sink: &mut impl FnMut(Piece<'_>) -> Result<(), PlanError>,
) -> Result<Vec<String>, PlanError> {
    match document.finish()? {
        Whole::List { model, unused } => {
            if let Some(model) = model {
                check_body_model(&model, &rules.model)?;
            }
            if unused.is_empty() {
                return Ok(Vec::new());
            }
            Ok(vec![format!("not used from the body: {}", unused.join(", "))])
        }
        Whole::Single(start, bytes) => {
            if forms::is_batch_body(&bytes) {
                return Err(body_without_list());
            }
            let len = bytes.len() as u64;
            sink(Piece { start, len, number: 1, bytes: Some(&bytes) })?;
            Ok(Vec::new())
        }
    }
}

/// The refusal of a list without requests.
pub(super) fn empty_list() -> PlanError {
    let message = "the list of requests is empty".to_owned();
    PlanError::Unusable(refusal("empty", message, "Put requests in it."))
}

/// Looks at the first bytes; answers with the length of a byte order mark.
fn check_head(head: &[u8]) -> Result<u64, PlanError> {
    let unusable = |reason, message: &str, remedy| {
        Err(PlanError::Unusable(refusal(reason, message.to_owned(), remedy)))
    };
    match head {
        [] => unusable("empty", "the file is empty", "Write one JSON request a line into it."),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            unusable("utf16", "the file is UTF-16 text", "Save it as UTF-8.")
        }
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] => unusable(
            "compressed",
            "the file is compressed, and its name does not say so",
            "Name it .jsonl.gz or .jsonl.zst, after what it is, and drop it again.",
        ),
        [0xef, 0xbb, 0xbf, ..] => Ok(3),
        [..] => Ok(0),
    }
}

/// What the first line that is not blank says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstLine {
    /// It is the body of a create call.
    Body,
    /// It is cut off.
    CutOff,
    /// It begins a list.
    Listed,
    /// It is too long to judge by its beginning.
    Long,
    /// None of these.
    Other,
}

fn first_line(input: impl Read, rules: &CutRules) -> io::Result<FirstLine> {
    let mut reader = BufReader::new(input);
    let limit = SNIFF_BYTES.min(rules.line_bytes_max);
    let mut line = Vec::new();
    loop {
        line.clear();
        if Read::take(&mut reader, limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(FirstLine::Other);
        }
        if !is_blank(&line) {
            break;
        }
    }
    if line.trim_ascii_start().starts_with(b"[") {
        return Ok(FirstLine::Listed);
    }
    if line.len() as u64 == limit && !line.ends_with(b"\n") {
        return Ok(FirstLine::Long);
    }
    if forms::is_batch_body(&line) {
        return Ok(FirstLine::Body);
    }
    let cut_off = forms::examine(&line, rules.wanted()).is_err_and(|fault| fault.cut_off);
    Ok(if cut_off { FirstLine::CutOff } else { FirstLine::Other })
}

fn body_without_list() -> PlanError {
    let message = "the body has no list at batch.input_config.requests.requests".to_owned();
    let remedy = "Put the requests themselves there; a file at the API can not be named here.";
    PlanError::Unusable(refusal("no_requests", message, remedy))
}

fn check_body_model(named: &str, model: &str) -> Result<(), PlanError> {
    if forms::model_name(named) == forms::model_name(model) {
        return Ok(());
    }
    let named: String = named.chars().take(80).collect();
    let message = format!(
        "the body names the model {named:?}, its queue uses {:?}",
        forms::model_name(model)
    );
    let remedy = "Take `model` out, or drop the file into a queue with that model.";
    Err(PlanError::Unusable(refusal("other_model", message, remedy)))
}

/// So many bytes tell what a file is not.
const HEAD_BYTES: usize = 4;

/// So much of a first line is looked at to tell a document from lines.
const SNIFF_BYTES: u64 = 1 << 20;
