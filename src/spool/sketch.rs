//! A plan in the making: rows are put down in the indexes as they are found, and cut into
//! chunks.
//!
//! The index files are written aside, buffered, and named when they are whole and synced. What
//! is kept in memory is the first row of each chunk and a bounded number of key checksums.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::durable;
use super::forms::Request;
use super::frame::Frame;
use super::halves::{Growing, Grown};
use super::index::{Entry, IndexReader, KeySpan, LineEntry, LineFate, OutcomeEntry};
use super::keys::Keys;
use super::lines::Piece;
use super::outcomes::OPEN;
use super::pass::Content;
use super::plan::{CutRules, PlanError, Planned};
use super::problem::Problem;
use super::source::refusal;
use super::{At, SpoolError, moment};
use crate::engine::ids::Row;
use crate::engine::job::{Family, Refusal};
use crate::engine::verdict::Verdict;

/// Chunks a job may have: the record of each is kept for as long as the job lives.
pub const CHUNKS_MAX: usize = 65_000;

/// What is known of the first chunk while its input is being read: it may still grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Rows of it, sendable or not, that can be read from the index.
    pub rows: u64,
    /// Bytes of the sendable ones as lines of a file.
    pub bytes: u64,
}

/// Told now and then what is known.
pub type OnKnown<'a> = &'a dyn Fn(Known);

/// A plan in the making.
pub struct Sketch<'a> {
    rules: &'a CutRules,
    /// Until the first chunk is whole.
    on_known: Option<OnKnown<'a>>,
    /// Tell when so many bytes are known.
    tell_at: u64,
    lines: IndexFile,
    outcomes: IndexFile,
    rows: u64,
    invalid: u64,
    first_problem: Option<Problem>,
    chunks: Vec<Grown>,
    chunk: Growing,
    keys: Keys,
    family: Option<Family>,
}

impl<'a> Sketch<'a> {
    /// Begins both indexes anew. `on_known` is told of the first chunk while it grows, and when it
    /// is cut off.
    ///
    /// # Errors
    /// If the files can not be made.
    pub fn begin(
        lines: &Path,
        outcomes: &Path,
        rules: &'a CutRules,
        on_known: Option<OnKnown<'a>>,
    ) -> Result<Sketch<'a>, SpoolError> {
        Ok(Sketch {
            rules,
            on_known,
            tell_at: TOLD_BYTES,
            lines: IndexFile::create(lines)?,
            outcomes: IndexFile::create(outcomes)?,
            rows: 0,
            invalid: 0,
            first_problem: None,
            chunks: Vec::new(),
            chunk: Growing::begin(Row(1)),
            keys: Keys::default(),
            family: None,
        })
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows so far that can be sent.
    pub fn valid(&self) -> u64 {
        self.rows - self.invalid
    }

    /// The first row so far that can not be sent.
    pub fn first_problem(&self) -> Option<&Problem> {
        self.first_problem.as_ref()
    }

    /// Takes note of whose request a row is, or was meant to be: a file holds only one family.
    ///
    /// # Errors
    /// If it is another one than that of the rows before.
    pub fn meet(&mut self, family: Option<Family>, line: u64) -> Result<(), PlanError> {
        match (self.family, family) {
            (Some(known), Some(met)) if known != met => {
                Err(PlanError::Unusable(Refusal { line: Some(line), ..mixed(line, met) }))
            }
            (Some(_), _) | (None, None) => Ok(()),
            (None, met) => {
                self.family = met;
                Ok(())
            }
        }
    }

    /// Puts a row down that can be sent. Answers `false`, and puts nothing down, if it is too
    /// long for any chunk.
    ///
    /// # Errors
    /// If the index can not be written, or there are too many chunks.
    pub fn valid_row(
        &mut self,
        piece: &Piece<'_>,
        request: &Request,
        bytes: &[u8],
    ) -> Result<bool, PlanError> {
        let row = Row(self.rows + 1);
        let len = u32::try_from(request.span.len()).unwrap_or(u32::MAX);
        let on_file = Frame::on_file(request.fate).len(row, false, len);
        let longest = Frame::InlineItem.len(row, false, len).max(on_file);
        if longest >= self.rules.row_bytes_max || on_file > self.rules.batch_bytes_max {
            return Ok(false);
        }
        self.keys.note(request.key.as_ref().map(|key| &bytes[key.clone()]), piece.number);
        self.cut(on_file)?;
        let entry = LineEntry {
            request_start: piece.start + request.span.start as u64,
            request_len: len,
            key: key_span(piece, request.key.clone()),
            line: line_number(piece),
            fate: request.fate,
        };
        self.chunk.count(Some(on_file));
        self.chunk.gauge.show(&bytes[request.span.clone()], on_file);
        self.put(&entry, Verdict::Open)?;
        if self.chunk.all().bytes >= self.tell_at {
            self.tell()?;
        }
        Ok(true)
    }

    /// Puts a row down that can not be sent.
    ///
    /// # Errors
    /// If the index can not be written.
    pub fn invalid(
        &mut self,
        piece: &Piece<'_>,
        key: Option<Range<usize>>,
        fate: LineFate,
        problem: Problem,
    ) -> Result<(), PlanError> {
        let entry = LineEntry {
            request_start: piece.start,
            request_len: u32::try_from(piece.len).unwrap_or(u32::MAX),
            key: key_span(piece, key),
            line: line_number(piece),
            fate,
        };
        self.invalid += 1;
        self.first_problem.get_or_insert(problem);
        self.chunk.count(None);
        self.put(&entry, Verdict::Invalid)
    }

    /// Names the indexes and counts the chunks.
    ///
    /// # Errors
    /// If the indexes can not be written, or read again.
    pub fn finish(
        mut self,
        content: Content,
        mut warnings: Vec<String>,
    ) -> Result<Planned, PlanError> {
        self.chunks.push(self.chunk.end());
        let path = self.lines.take_name()?;
        moment("plan:lines", &path)?;
        self.outcomes.take_name()?;
        path.parent().map_or(Ok(()), durable::sync_folder)?;
        warnings.extend(self.keys.warnings(self.rows - self.invalid));
        let mut index = File::open(&path).and_then(IndexReader::new).at("read", &path)?;
        let chunks = self.chunks.iter().map(|chunk| chunk.finish(&mut index).at("read", &path));
        Ok(Planned {
            rows: self.rows,
            invalid: self.invalid,
            bytes: content.bytes,
            sha256: content.sha256,
            chunks: chunks.collect::<Result<_, _>>()?,
            family: self.family.unwrap_or_default(),
            warnings,
            first_problem: self.first_problem,
            prepared: false,
            media: false,
            canary: None,
            reused: 0,
        })
    }

    /// Begins a new chunk with the next row, of so many bytes, if it does not fit into the last
    /// one.
    fn cut(&mut self, bytes: u64) -> Result<(), PlanError> {
        let chunk = self.chunk.all();
        let too_many = self.rules.rows_max > 0 && chunk.rows >= self.rules.rows_max;
        let too_big = chunk.bytes + bytes > self.rules.batch_bytes_max;
        if chunk.rows > 0 && (too_many || too_big) {
            if self.chunks.len() + 1 >= CHUNKS_MAX {
                let message = format!("line by line this makes more than {CHUNKS_MAX} batches");
                let remedy = "Raise lines_per_batch in the queue's settings, or split the file.";
                return Err(PlanError::Unusable(refusal("too_many_batches", message, remedy)));
            }
            self.tell()?;
            self.on_known = None;
            self.tell_at = u64::MAX;
            self.chunks.push(self.chunk.end());
        }
        Ok(())
    }

    /// Tells how far the first chunk is, if anybody wants to know and this is still the first.
    fn tell(&mut self) -> Result<(), PlanError> {
        let Some(on_known) = self.on_known else {
            self.tell_at = u64::MAX;
            return Ok(());
        };
        // What is told can be read.
        self.lines.write()?;
        let bytes = self.chunk.all().bytes;
        on_known(Known { rows: self.rows, bytes });
        self.tell_at = bytes + TOLD_BYTES;
        Ok(())
    }

    fn put(&mut self, entry: &LineEntry, verdict: Verdict) -> Result<(), PlanError> {
        self.rows += 1;
        self.lines.append(entry)?;
        let outcome = OutcomeEntry { verdict, ..OPEN };
        self.outcomes.append(&outcome)?;
        Ok(())
    }
}

fn mixed(line: u64, met: Family) -> Refusal {
    let (this, others) = match met {
        Family::OpenAi => ("in the OpenAI batch format", "native requests"),
        Family::Native => ("a native request", "in the OpenAI batch format"),
    };
    let message = format!(
        "line {line} is {this}, those before it are {others}; a batch takes either, so a file may \
         hold only one of them"
    );
    let remedy = "Put the two kinds into files of their own, or set openai = \"translate\" for the \
                  queue.";
    refusal("mixed_forms", message, remedy)
}

fn key_span(piece: &Piece<'_>, key: Option<Range<usize>>) -> Option<KeySpan> {
    let key = key?;
    let len = u16::try_from(key.len()).ok()?;
    Some(KeySpan { start: piece.start + key.start as u64, len })
}

fn line_number(piece: &Piece<'_>) -> u32 {
    u32::try_from(piece.number).unwrap_or(u32::MAX)
}

/// An index being written aside. Dropped before it is whole, it leaves nothing behind.
#[derive(Debug)]
struct IndexFile {
    path: PathBuf,
    aside: PathBuf,
    file: File,
    /// What has not been written yet.
    buffer: Vec<u8>,
    whole: bool,
}

impl IndexFile {
    fn create(path: &Path) -> Result<IndexFile, SpoolError> {
        let aside = durable::aside(path);
        let file = File::create(&aside).at("write", &aside)?;
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Ok(IndexFile { path: path.to_owned(), aside, file, buffer, whole: false })
    }

    fn append<E: Entry>(&mut self, entry: &E) -> Result<(), SpoolError> {
        let at = self.buffer.len();
        if at + E::SIZE > BUFFER_BYTES {
            self.write()?;
            return self.append(entry);
        }
        self.buffer.resize(at + E::SIZE, 0);
        entry.encode(&mut self.buffer[at..]);
        Ok(())
    }

    fn write(&mut self) -> Result<(), SpoolError> {
        self.file.write_all(&self.buffer).at("write", &self.aside)?;
        self.buffer.clear();
        Ok(())
    }

    /// The name is durable when the folder has been synced, once for both indexes.
    fn take_name(mut self) -> Result<PathBuf, SpoolError> {
        self.write()?;
        durable::sync_file(&self.aside)?;
        durable::rename_unsynced(&self.aside, &self.path)?;
        self.whole = true;
        Ok(self.path.clone())
    }
}

impl Drop for IndexFile {
    fn drop(&mut self) {
        if !self.whole {
            // Only tidiness: what is left would be overwritten by the next plan.
            let _ = fs::remove_file(&self.aside);
        }
    }
}

/// Bytes of an index written at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// What is known is told again after so many bytes more.
const TOLD_BYTES: u64 = 1 << 20;

/// What is said of an input none of whose rows can be sent.
pub(super) fn no_valid_row(sketch: &Sketch<'_>, what: &str, cut_off: bool) -> Refusal {
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
