//! Reads an input once: checks every line, writes the line index, cuts it into chunks.
//!
//! Holds a few blocks and one line; a bad line becomes an invalid row and never holds
//! the others back. The indexes get their names only when they are whole and synced. An input
//! without a single valid line is refused, with the first problem named by line and column.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::document::{Broken, Document, Whole};
use super::forms::{self, Fault, Wanted};
use super::index::LineFate;
use super::lines::{Lines, Piece, is_blank};
use super::pass::{self, Content};
use super::problem::{Problem, too_long};
use super::sketch::{OnKnown, Sketch};
use super::source::{self, Ending, Opened, refusal};
use super::{At, JobFolder, SpoolError};
use crate::engine::event::PlannedChunk;
use crate::engine::job::{Refusal, Task};

/// The limits of one plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutRules {
    /// All rows of a chunk as lines of an input file: at most so many bytes.
    pub batch_bytes_max: u64,
    /// At most so many sendable rows in a chunk; 0: no limit.
    pub rows_max: u64,
    /// One row in its frame must have fewer bytes.
    pub row_bytes_max: u64,
    /// A line, or an element of a list, may have so many bytes.
    pub line_bytes_max: u64,
    /// The queue's model, with or without `models/`.
    pub model: String,
    /// What its queue is for.
    pub task: Task,
}

impl CutRules {
    /// What requests have to be.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted { model: &self.model, task: self.task }
    }
}

/// What reading an input told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Requests, valid or not.
    pub rows: u64,
    /// Of these, rows that can not be sent.
    pub invalid: u64,
    /// Bytes of the input.
    pub bytes: u64,
    /// SHA-256 of the input, lower-case hexadecimal.
    pub sha256: String,
    /// The chunks in input order; together they have every row.
    pub chunks: Vec<PlannedChunk>,
    /// What the user should know although it is no failure.
    pub warnings: Vec<String>,
    /// The first invalid row.
    pub first_problem: Option<Problem>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The input can never be sent.
    #[error("{}", .0.message)]
    Unusable(Refusal),
    /// It could not be read, or the indexes not be written; trying again may help.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Plans a job: reads `name` in its working folder and writes both indexes there.
///
/// # Errors
/// See [`PlanError`]. `progress` is told the bytes read so far.
pub fn plan(
    folder: &JobFolder,
    name: &str,
    rules: &CutRules,
    progress: &dyn Fn(u64),
) -> Result<Planned, PlanError> {
    plan_in(folder, name, rules, progress, None)
}

/// The same; `on_known` is told how far the first chunk is, which can be read as
/// [`BodyReader::growing`](super::body::BodyReader::growing). If there is no plan in the end, that
/// was all in vain.
///
/// # Errors
/// As [`plan`].
pub fn plan_telling(
    folder: &JobFolder,
    name: &str,
    rules: &CutRules,
    on_known: OnKnown<'_>,
) -> Result<Planned, PlanError> {
    plan_in(folder, name, rules, &|_| {}, Some(on_known))
}

fn plan_in(
    folder: &JobFolder,
    name: &str,
    rules: &CutRules,
    progress: &dyn Fn(u64),
    on_known: Option<OnKnown<'_>>,
) -> Result<Planned, PlanError> {
    let (input, lines, outcomes) = (folder.input(name), folder.lines(), folder.outcomes());
    let planned = plan_at(&input, &lines, &outcomes, rules, progress, on_known);
    if let Err(PlanError::Unusable(_)) = &planned {
        // The whole working folder goes away next; this is only tidiness.
        for index in [lines, outcomes] {
            drop(fs::remove_file(index));
        }
    }
    planned
}

/// Plans any file, with the indexes wherever they are wanted; they are also there if no line of
/// it is valid, to tell what is wrong with each.
///
/// # Errors
/// As [`plan`].
pub fn plan_file(
    input: &Path,
    lines: &Path,
    outcomes: &Path,
    rules: &CutRules,
    progress: &dyn Fn(u64),
) -> Result<Planned, PlanError> {
    plan_at(input, lines, outcomes, rules, progress, None)
}

fn plan_at(
    input: &Path,
    lines: &Path,
    outcomes: &Path,
    rules: &CutRules,
    progress: &dyn Fn(u64),
    on_known: Option<OnKnown<'_>>,
) -> Result<Planned, PlanError> {
    let file = open(input)?;
    let before = identity(&file, input)?;
    let job = Job { input, lines, outcomes, rules, progress, on_known, file: &file };
    let planned = job.plan()?;
    if identity(&file, input)? != before {
        let error = io::Error::other("it was changed while it was being read; try again");
        return Err(error).at("plan", input)?;
    }
    Ok(planned)
}

struct Job<'a> {
    input: &'a Path,
    lines: &'a Path,
    outcomes: &'a Path,
    rules: &'a CutRules,
    progress: &'a dyn Fn(u64),
    on_known: Option<OnKnown<'a>>,
    file: &'a File,
}

impl Job<'_> {
    fn plan(&self) -> Result<Planned, PlanError> {
        let start = self.check_head()?;
        let name = self.input.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let shape = match (source::ending(&name), self.shape(start)?) {
            // Whoever names it JSON Lines mostly means it; a document there is told by what cannot
            // be anything else.
            (Ending::Lines, Shape::Listed) => Shape::Unclear,
            (Ending::Lines, Shape::Long) => Shape::Lines,
            (Ending::Document, Shape::Listed) => Shape::Document,
            (Ending::Document, Shape::Long) => Shape::Unclear,
            (Ending::Lines | Ending::Document, shape) => shape,
            (Ending::Compressed | Ending::Unknown, _) => Shape::Lines,
        };
        let mut sketch = self.sketch()?;
        if shape == Shape::Lines {
            return self.as_lines(start, sketch);
        }
        let (content, warnings) = match self.as_document(start, &mut sketch) {
            Ok(read) => read,
            // With a list begun it can be nothing else. Otherwise it may still be JSON Lines
            // whose first line is broken.
            Err(PlanError::Unusable(refusal)) if shape == Shape::Unclear && sketch.rows() == 0 => {
                drop(sketch);
                let sketch = self.sketch()?;
                return self.as_lines(start, sketch).map_err(|error| match error {
                    PlanError::Unusable(_) => PlanError::Unusable(refusal),
                    PlanError::Spool(error) => PlanError::Spool(error),
                });
            }
            Err(error) => return Err(error),
        };
        if sketch.rows() == 0 {
            let message = "the list of requests is empty".to_owned();
            return Err(PlanError::Unusable(refusal("empty", message, "Put requests in it.")));
        }
        if sketch.valid() == 0 {
            let refusal = no_valid_row(&sketch, "request", false);
            sketch.finish(content, Vec::new())?;
            return Err(PlanError::Unusable(refusal));
        }
        sketch.finish(content, warnings)
    }

    fn sketch(&self) -> Result<Sketch<'_>, SpoolError> {
        Sketch::begin(self.lines, self.outcomes, self.rules, self.on_known)
    }

    /// Looks at the first bytes; answers with the offset after a byte order mark.
    fn check_head(&self) -> Result<u64, PlanError> {
        let mut head = [0; 4];
        let mut len = 0;
        while len < head.len() {
            match self.file.read_at(&mut head[len..], len as u64).at("read", self.input)? {
                0 => break,
                more => len += more,
            }
        }
        let unusable = |reason, message: &str, remedy| {
            Err(PlanError::Unusable(refusal(reason, message.to_owned(), remedy)))
        };
        match &head[..len] {
            [] => unusable("empty", "the file is empty", "Write one JSON request a line into it."),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                unusable("utf16", "the file is UTF-16 text", "Save it as UTF-8.")
            }
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] => unusable(
                "compressed",
                "compressed input is not supported yet",
                "Decompress it and drop it again.",
            ),
            [0xef, 0xbb, 0xbf, ..] => Ok(3),
            [..] => Ok(0),
        }
    }

    /// What the first line says of a file.
    fn shape(&self, start: u64) -> Result<Shape, PlanError> {
        let mut reader = BufReader::new(Positioned { file: self.file, at: start });
        let limit = SNIFF_BYTES.min(self.rules.line_bytes_max);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read =
                io::BufRead::read_until(&mut Read::take(&mut reader, limit), b'\n', &mut line)
                    .at("read", self.input)?;
            if read == 0 {
                return Ok(Shape::Lines);
            }
            if !is_blank(&line) {
                break;
            }
        }
        if line.trim_ascii_start().starts_with(b"[") {
            return Ok(Shape::Listed);
        }
        if line.len() as u64 == limit && !line.ends_with(b"\n") {
            return Ok(Shape::Long);
        }
        if forms::is_batch_body(&line) {
            return Ok(Shape::Document);
        }
        let cut_off = forms::examine(&line, self.rules.wanted()).is_err_and(|fault| fault.cut_off);
        Ok(if cut_off { Shape::Unclear } else { Shape::Lines })
    }

    fn as_lines(&self, start: u64, mut sketch: Sketch<'_>) -> Result<Planned, PlanError> {
        let mut lines = Lines::new(start, self.line_limit());
        let mut cut_off = false;
        let mut sink = |piece: Piece<'_>| {
            let fault = self.judge(&mut sketch, piece)?;
            cut_off |= piece.number == 1 && fault.is_some_and(|fault| fault.cut_off);
            Ok::<(), PlanError>(())
        };
        let content = self.read(start, |block| lines.feed(block, &mut sink))?;
        lines.finish(&mut sink)?;
        if sketch.rows() == 0 {
            return Err(unusable_blank());
        }
        if sketch.valid() == 0 {
            let refusal = no_valid_row(&sketch, "line", cut_off);
            sketch.finish(content, Vec::new())?;
            return Err(PlanError::Unusable(refusal));
        }
        sketch.finish(content, Vec::new())
    }

    /// Puts down the rows of a document; answers with what it is and with warnings.
    fn as_document(
        &self,
        start: u64,
        sketch: &mut Sketch<'_>,
    ) -> Result<(Content, Vec<String>), PlanError> {
        let mut document = Document::new(start, self.line_limit());
        let mut sink = |piece: Piece<'_>| self.judge(sketch, piece).map(drop);
        let content = self.read(start, |block| document.feed(block, &mut sink))?;
        let mut warnings = Vec::new();
        match document.finish()? {
            Whole::List { model, unused } => {
                if let Some(model) = model {
                    check_body_model(&model, &self.rules.model)?;
                }
                if !unused.is_empty() {
                    warnings.push(format!("not used from the body: {}", unused.join(", ")));
                }
            }
            Whole::Single(start, bytes) => {
                if forms::is_batch_body(&bytes) {
                    return Err(body_without_list());
                }
                let len = bytes.len() as u64;
                let piece = Piece { start, len, number: 1, bytes: Some(&bytes) };
                self.judge(sketch, piece)?;
            }
        }
        Ok((content, warnings))
    }

    /// Puts a row down, valid or not.
    fn judge(&self, sketch: &mut Sketch<'_>, piece: Piece<'_>) -> Result<Option<Fault>, PlanError> {
        let Some(bytes) = piece.bytes else {
            let message = too_long(piece.len, self.rules);
            let problem = Problem::new(piece.number, None, LineFate::TooLong, message);
            sketch.invalid(&piece, None, LineFate::TooLong, problem)?;
            return Ok(None);
        };
        match forms::examine(bytes, self.rules.wanted()) {
            Ok(request) => {
                if !sketch.valid_row(&piece, &request, bytes)? {
                    let len = request.span.len() as u64;
                    let message = too_long(len, self.rules);
                    let problem = Problem::new(piece.number, None, LineFate::TooLong, message);
                    sketch.invalid(&piece, request.key, LineFate::TooLong, problem)?;
                }
                Ok(None)
            }
            Err(fault) => {
                let problem = Problem::of(piece.number, bytes, &fault);
                sketch.invalid(&piece, fault.key.clone(), fault.fate, problem)?;
                Ok(Some(fault))
            }
        }
    }

    /// Reads the file through once. Bytes before `start` count for the checksum only.
    fn read(
        &self,
        start: u64,
        mut feed: impl FnMut(&[u8]) -> Result<(), PlanError>,
    ) -> Result<Content, PlanError> {
        pass::through(self.file, self.input, |offset, block| {
            let skip = start.saturating_sub(offset).min(block.len() as u64) as usize;
            feed(&block[skip..])?;
            (self.progress)(offset + block.len() as u64);
            Ok(())
        })
    }

    fn line_limit(&self) -> usize {
        // The index counts the length of a row, and its distance to its key, in 31 bits.
        self.rules.line_bytes_max.min(1 << 30) as usize
    }
}

/// How the requests of a file stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One a line.
    Lines,
    /// In one document.
    Document,
    /// The first line is cut off: a document over several lines, or a broken first line.
    Unclear,
    /// The first line begins a list.
    Listed,
    /// The first line is too long to judge by its beginning.
    Long,
}

/// Reads a shared file from a place of its own.
struct Positioned<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(buffer, self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl From<Broken> for PlanError {
    fn from(broken: Broken) -> PlanError {
        PlanError::Unusable(Refusal {
            reason: "invalid_json".to_owned(),
            message: format!("line {}, column {}: {}", broken.line, broken.column, broken.message),
            remedy: "Mend the file there, or write one request a line and name it .jsonl."
                .to_owned(),
            line: Some(broken.line),
            column: Some(broken.column),
        })
    }
}

fn open(input: &Path) -> Result<File, PlanError> {
    let (reason, message, remedy) = match source::open(input).at("open", input)? {
        Opened::File(file) => return Ok(file),
        Opened::Special(kind) => {
            ("special_file", format!("the input is a {kind}"), "Drop the file itself.")
        }
        Opened::Unreadable => (
            "unreadable",
            "the input can not be read by this user".to_owned(),
            "Give that user the right to read it.",
        ),
        Opened::Missing => {
            ("missing", "the input is gone".to_owned(), "Somebody took it away; drop it again.")
        }
    };
    Err(PlanError::Unusable(refusal(reason, message, remedy)))
}

fn identity(file: &File, path: &Path) -> Result<(u64, i64, i64), SpoolError> {
    let found = file.metadata().at("look at", path)?;
    Ok((found.len(), found.mtime(), found.mtime_nsec()))
}

fn no_valid_row(sketch: &Sketch<'_>, what: &str, cut_off: bool) -> Refusal {
    let (line, column, said) = match sketch.first_problem() {
        Some(problem) => (Some(problem.line), problem.column, problem.message.as_str()),
        None => (None, None, ""),
    };
    let place = match (line, column) {
        (Some(line), Some(column)) => format!("{what} {line}, column {column}: "),
        (Some(line), None) => format!("{what} {line}: "),
        (None, _) => String::new(),
    };
    let remedy = if cut_off {
        "If the file is one JSON document over several lines, give it a name that ends in .json; \
         otherwise write one request a line."
    } else {
        "Mend the file and drop it again; `gemini-batchd lint FILE` names every bad line."
    };
    Refusal {
        reason: "no_valid_line".to_owned(),
        message: format!("no {what} is a valid request; {place}{said}"),
        remedy: remedy.to_owned(),
        line,
        column,
    }
}

fn unusable_blank() -> PlanError {
    let message = "the file has only blank lines".to_owned();
    PlanError::Unusable(refusal("empty", message, "Write one JSON request a line into it."))
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

/// So much of a first line is looked at to tell a document from lines.
const SNIFF_BYTES: u64 = 1 << 20;
