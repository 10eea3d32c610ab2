//! Reads an input once: checks every line, writes the line index, cuts it into chunks.
//!
//! Holds a few blocks and one line; a bad line becomes an invalid row and never holds
//! the others back. The indexes get their names only when they are whole and synced. An input
//! without a single valid line is refused, with the first problem named by line and column.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::convert;
use super::document::{Broken, Document};
use super::forms::{self, Fault, Wanted};
use super::index::LineFate;
use super::lines::{Lines, Piece};
use super::media::parts::Named;
use super::pass::{self, Content};
use super::prepare::Prepared;
use super::problem::{Problem, too_long};
use super::shape::{self, Beginning, Shape};
use super::sketch::{OnKnown, Sketch, no_valid_row};
use super::source::{self, Opened, refusal};
use super::{At, JobFolder, SpoolError};
use crate::engine::event::PlannedChunk;
use crate::engine::job::{Family, Refusal, Task, Trial};
use crate::lint::Asked;
use crate::lint::report::Sample;

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

    /// The same, for `lint`.
    pub fn asked(&self) -> Asked<'_> {
        Asked { model: &self.model, task: self.task }
    }

    /// Bytes that a line may have, as far as an index can tell.
    pub fn line_limit(&self) -> usize {
        // The index counts the length of a row, and its distance to its key, in 31 bits.
        self.line_bytes_max.min(1 << 30) as usize
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
    /// Whose requests they are.
    pub family: Family,
    /// The indexes are about prepared lines.
    pub prepared: bool,
    /// Lines of it name files, which were taken.
    pub media: bool,
    /// The canary, once one was cut out of the chunks.
    pub canary: Option<Trial>,
    /// Rows that are answered already: from the cache.
    pub reused: u64,
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
    /// Lines of it seem to name files, which have to be taken first: prepare it.
    #[error("the input names files that have to be taken first")]
    NamesFiles,
}

/// Plans a job: reads `name` in its working folder and writes both indexes there. An input whose
/// lines name files has to be prepared first.
///
/// # Errors
/// See [`PlanError`]. `progress` is told the bytes read so far.
pub fn plan(
    folder: &JobFolder,
    name: &str,
    rules: &CutRules,
    progress: &dyn Fn(u64),
) -> Result<Planned, PlanError> {
    let from = Reads { input: &folder.input(name), prepared: None, stops_at_files: true };
    plan_in(folder, from, rules, progress, None)
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
    let from = Reads { input: &folder.input(name), prepared: None, stops_at_files: true };
    plan_in(folder, from, rules, &|_| {}, Some(on_known))
}

/// Plans a job from the lines that were prepared of its input: the indexes are about these, size
/// and checksum those of the input. `on_known` as for [`plan_telling`].
///
/// # Errors
/// As [`plan`].
pub fn plan_prepared(
    folder: &JobFolder,
    prepared: &Prepared,
    rules: &CutRules,
    on_known: Option<OnKnown<'_>>,
) -> Result<Planned, PlanError> {
    plan_in(folder, Reads::prepared(prepared), rules, &|_| {}, on_known)
}

fn plan_in(
    folder: &JobFolder,
    from: Reads<'_>,
    rules: &CutRules,
    progress: &dyn Fn(u64),
    on_known: Option<OnKnown<'_>>,
) -> Result<Planned, PlanError> {
    let (lines, outcomes) = (folder.lines(), folder.outcomes());
    let sample = RefCell::new(Sample::of(rules.asked()));
    let on_row = |piece: &Piece<'_>, fate| {
        if let (Some(bytes), LineFate::Valid) = (piece.bytes, fate) {
            sample.borrow_mut().show(piece.number, bytes);
        }
    };
    let told = Told { progress, on_known, on_row: &on_row };
    let mut planned = plan_at(from, &lines, &outcomes, rules, told);
    match &mut planned {
        Ok(planned) => {
            let found = sample.into_inner().report();
            planned.warnings.extend(found.warnings(planned.rows - planned.invalid));
        }
        Err(PlanError::Unusable(_)) => {
            // The whole working folder goes away next; this is only tidiness.
            for index in [lines, outcomes] {
                drop(fs::remove_file(index));
            }
        }
        Err(PlanError::Spool(_) | PlanError::NamesFiles) => {}
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
    told: Told<'_>,
) -> Result<Planned, PlanError> {
    plan_at(Reads { input, prepared: None, stops_at_files: false }, lines, outcomes, rules, told)
}

/// The same from lines that were prepared of a file.
///
/// # Errors
/// As [`plan`].
pub fn plan_prepared_file(
    prepared: &Prepared,
    lines: &Path,
    outcomes: &Path,
    rules: &CutRules,
    told: Told<'_>,
) -> Result<Planned, PlanError> {
    plan_at(Reads::prepared(prepared), lines, outcomes, rules, told)
}

/// Who hears of what while an input is read.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// Of the bytes read so far.
    pub progress: &'a dyn Fn(u64),
    /// Of the first chunk.
    pub on_known: Option<OnKnown<'a>>,
    /// Of each row.
    pub on_row: OnRow<'a>,
}

/// Told of a row, in their order, and what is to become of it.
pub type OnRow<'a> = &'a dyn Fn(&Piece<'_>, LineFate);

impl Told<'static> {
    /// Nobody hears of anything.
    pub fn nobody() -> Told<'static> {
        Told { progress: &|_| {}, on_known: None, on_row: &|_, _| {} }
    }
}

/// What is read.
#[derive(Clone, Copy)]
struct Reads<'a> {
    input: &'a Path,
    /// What it was made of, if these are prepared lines.
    prepared: Option<&'a Prepared>,
    /// Whether a line that seems to name a file ends the plan.
    stops_at_files: bool,
}

impl<'a> Reads<'a> {
    fn prepared(prepared: &'a Prepared) -> Reads<'a> {
        Reads { input: &prepared.path, prepared: Some(prepared), stops_at_files: false }
    }
}

fn plan_at(
    Reads { input, prepared, stops_at_files }: Reads<'_>,
    lines: &Path,
    outcomes: &Path,
    rules: &CutRules,
    told: Told<'_>,
) -> Result<Planned, PlanError> {
    let file = open(input)?;
    let before = identity(&file, input)?;
    let file = &file;
    let job = Job { input, lines, outcomes, rules, told, file, prepared, stops_at_files };
    let media = prepared.is_some_and(|prepared| prepared.media);
    let planned = Planned { prepared: prepared.is_some(), media, ..job.plan()? };
    if identity(file, input)? != before {
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
    told: Told<'a>,
    file: &'a File,
    /// What is read are prepared lines.
    prepared: Option<&'a Prepared>,
    stops_at_files: bool,
}

impl Job<'_> {
    fn plan(&self) -> Result<Planned, PlanError> {
        if self.prepared.is_some() {
            return self.as_lines(0, self.sketch()?);
        }
        let name = self.input.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let beginning = Positioned { file: self.file, at: 0 };
        let Beginning { start, shape } =
            shape::look(beginning, self.input, source::ending(&name), self.rules)?;
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
                    PlanError::Spool(_) | PlanError::NamesFiles => error,
                });
            }
            Err(error) => return Err(error),
        };
        if sketch.rows() == 0 {
            return Err(shape::empty_list());
        }
        if sketch.valid() == 0 {
            let refusal = no_valid_row(&sketch, "request", false);
            sketch.finish(content, Vec::new())?;
            return Err(PlanError::Unusable(refusal));
        }
        sketch.finish(content, warnings)
    }

    fn sketch(&self) -> Result<Sketch<'_>, SpoolError> {
        Sketch::begin(self.lines, self.outcomes, self.rules, self.told.on_known)
    }

    fn as_lines(&self, start: u64, mut sketch: Sketch<'_>) -> Result<Planned, PlanError> {
        let mut lines = Lines::new(start, self.rules.line_limit());
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
        let warnings = self.prepared.map_or_else(Vec::new, |prepared| prepared.warnings.clone());
        sketch.finish(content, warnings)
    }

    /// Puts down the rows of a document; answers with what it is and with warnings.
    fn as_document(
        &self,
        start: u64,
        sketch: &mut Sketch<'_>,
    ) -> Result<(Content, Vec<String>), PlanError> {
        let mut document = Document::new(start, self.rules.line_limit());
        let mut sink = |piece: Piece<'_>| self.judge(sketch, piece).map(drop);
        let content = self.read(start, |block| document.feed(block, &mut sink))?;
        let warnings = shape::end_document(document, self.rules, &mut sink)?;
        Ok((content, warnings))
    }

    /// Puts a row down, valid or not.
    fn judge(&self, sketch: &mut Sketch<'_>, piece: Piece<'_>) -> Result<Option<Fault>, PlanError> {
        let (fate, fault) = self.put_down(sketch, &piece)?;
        (self.told.on_row)(&piece, fate);
        Ok(fault)
    }

    fn put_down(
        &self,
        sketch: &mut Sketch<'_>,
        piece: &Piece<'_>,
    ) -> Result<(LineFate, Option<Fault>), PlanError> {
        let examined = piece.bytes.map(|it| (it, forms::examine(it, self.rules.wanted())));
        let family = examined.as_ref().and_then(|(_, examined)| match examined {
            Ok(request) => Some(request.fate.family()),
            Err(fault) => fault.family,
        });
        sketch.meet(family, piece.number)?;
        let (key, len) = match examined {
            None => (None, piece.len),
            Some((bytes, Ok(request))) => {
                if sketch.valid_row(piece, &request, bytes)? {
                    return Ok((request.fate, None));
                }
                (request.key, request.span.len() as u64)
            }
            Some((bytes, Err(fault))) => {
                let problem = Problem::of(piece.number, bytes, &fault);
                sketch.invalid(piece, fault.key.clone(), fault.fate, problem)?;
                return Ok((fault.fate, Some(fault)));
            }
        };
        let fate = LineFate::TooLong;
        let problem = Problem::new(piece.number, None, fate, too_long(len, self.rules));
        sketch.invalid(piece, key, fate, problem)?;
        Ok((fate, None))
    }

    /// Reads the file through once. Bytes before `start` count for the checksum only.
    fn read(
        &self,
        start: u64,
        mut feed: impl FnMut(&[u8]) -> Result<(), PlanError>,
    ) -> Result<Content, PlanError> {
        let mut named = Named::default();
        let each = |offset: u64, block: &[u8]| {
            if self.stops_at_files && named.seen_in(block) {
                return Err(PlanError::NamesFiles);
            }
            let skip = start.saturating_sub(offset).min(block.len() as u64) as usize;
            feed(&block[skip..])?;
            (self.told.progress)(offset + block.len() as u64);
            Ok(())
        };
        match self.prepared {
            None => pass::through(self.file, self.input, each),
            Some(prepared) => {
                pass::unsummed(self.file, self.input, each).map(|()| prepared.content.clone())
            }
        }
    }
}

/// Reads a shared file from a place of its own.
pub(super) struct Positioned<'a> {
    pub file: &'a File,
    /// The byte that is read next.
    pub at: u64,
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

/// What it means that an input could not be read any further.
pub(super) fn unread(error: io::Error, input: &Path) -> PlanError {
    match convert::refusal_of(&error) {
        Some(refusal) => PlanError::Unusable(refusal.clone()),
        None => SpoolError { action: "read", path: input.to_owned(), source: error }.into(),
    }
}

/// Opens an input; what can not be read as one is refused.
pub(super) fn open(input: &Path) -> Result<File, PlanError> {
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

/// What changes when a file does: its size and the time of its last change.
pub(super) fn identity(file: &File, path: &Path) -> Result<(u64, i64, i64), SpoolError> {
    let found = file.metadata().at("look at", path)?;
    Ok((found.len(), found.mtime(), found.mtime_nsec()))
}

fn unusable_blank() -> PlanError {
    let message = "the file has only blank lines".to_owned();
    PlanError::Unusable(refusal("empty", message, "Write one JSON request a line into it."))
}
