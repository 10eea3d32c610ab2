//! A plan in the making: rows are put down in the indexes as they are found, and cut into
//! chunks.
//!
//! The index files are written aside, buffered, and named when they are whole and synced. What
//! is kept in memory is the first row of each chunk and a bounded number of key checksums.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::BufWriter;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::durable;
use super::forms::Request;
use super::frame::Frame;
use super::index::{self, Entry, IndexReader, KeySpan, LineEntry, LineFate, OutcomeEntry};
use super::lines::Piece;
use super::plan::{CutRules, PlanError, Planned};
use super::problem::Problem;
use super::source::{refusal, spoken};
use super::{At, SpoolError};
use crate::engine::event::PlannedChunk;
use crate::engine::ids::{Attempt, ChunkNo, Row, Rows};
use crate::engine::job::Share;
use crate::engine::verdict::Verdict;

/// Chunks a job may have: the record of each is kept for as long as the job lives.
pub const CHUNKS_MAX: usize = 65_000;

/// A plan in the making.
#[derive(Debug)]
pub struct Sketch<'a> {
    rules: &'a CutRules,
    lines: IndexFile,
    outcomes: IndexFile,
    rows: u64,
    invalid: u64,
    first_problem: Option<Problem>,
    /// First rows of the chunks.
    cuts: Vec<Row>,
    chunk_rows: u64,
    chunk_bytes: u64,
    keys: Keys,
}

impl<'a> Sketch<'a> {
    /// Begins both indexes anew.
    ///
    /// # Errors
    /// If the files can not be made.
    pub fn begin(
        lines: &Path,
        outcomes: &Path,
        rules: &'a CutRules,
    ) -> Result<Sketch<'a>, SpoolError> {
        Ok(Sketch {
            rules,
            lines: IndexFile::create(lines)?,
            outcomes: IndexFile::create(outcomes)?,
            rows: 0,
            invalid: 0,
            first_problem: None,
            cuts: vec![Row(1)],
            chunk_rows: 0,
            chunk_bytes: 0,
            keys: Keys::default(),
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
        let on_file = Frame::FileLine.len(row, false, len);
        let longest = Frame::InlineItem.len(row, false, len).max(on_file);
        if longest >= self.rules.row_bytes_max || on_file > self.rules.batch_bytes_max {
            return Ok(false);
        }
        self.keys.note(request.key.as_ref().map(|key| &bytes[key.clone()]), piece.number);
        self.cut(row, on_file)?;
        let entry = LineEntry {
            request_start: piece.start + request.span.start as u64,
            request_len: len,
            key: key_span(piece, request.key.clone()),
            line: line_number(piece),
            fate: LineFate::Valid,
        };
        self.put(&entry, Verdict::Open)?;
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
        self.put(&entry, Verdict::Invalid)
    }

    /// Names the indexes and counts the chunks.
    ///
    /// # Errors
    /// If the indexes can not be written, or read again.
    pub fn finish(
        self,
        sha256: String,
        bytes: u64,
        mut warnings: Vec<String>,
    ) -> Result<Planned, PlanError> {
        let path = self.lines.commit()?;
        self.outcomes.commit()?;
        warnings.extend(self.keys.warnings(self.rows - self.invalid));
        let mut index = File::open(&path).and_then(IndexReader::new).at("read", &path)?;
        let mut chunks = Vec::with_capacity(self.cuts.len());
        for (n, first) in self.cuts.iter().enumerate() {
            let last = self.cuts.get(n + 1).map_or(Row(self.rows), |next| Row(next.0 - 1));
            let rows = Rows { first: *first, last };
            chunks.push(count(rows, &mut index).at("read", &path)?);
        }
        Ok(Planned {
            rows: self.rows,
            invalid: self.invalid,
            bytes,
            sha256,
            chunks,
            warnings,
            first_problem: self.first_problem,
        })
    }

    /// Begins a new chunk with `row` if it does not fit into the last one.
    fn cut(&mut self, row: Row, bytes: u64) -> Result<(), PlanError> {
        let too_many = self.rules.rows_max > 0 && self.chunk_rows >= self.rules.rows_max;
        let too_big = self.chunk_bytes + bytes > self.rules.batch_bytes_max;
        if self.chunk_rows > 0 && (too_many || too_big) {
            if self.cuts.len() >= CHUNKS_MAX {
                let message = format!("line by line this makes more than {CHUNKS_MAX} batches");
                let remedy = "Raise lines_per_batch in the queue's settings, or split the file.";
                return Err(PlanError::Unusable(refusal("too_many_batches", message, remedy)));
            }
            self.cuts.push(row);
            (self.chunk_rows, self.chunk_bytes) = (0, 0);
        }
        self.chunk_rows += 1;
        self.chunk_bytes += bytes;
        Ok(())
    }

    fn put(&mut self, entry: &LineEntry, verdict: Verdict) -> Result<(), PlanError> {
        self.rows += 1;
        self.lines.append(entry)?;
        let outcome = OutcomeEntry {
            verdict,
            chunk: ChunkNo(0),
            attempt: Attempt(0),
            start: 0,
            len: 0,
            within: None,
        };
        self.outcomes.append(&outcome)?;
        Ok(())
    }
}

/// Counts the sendable rows of a chunk in two halves.
fn count(rows: Rows, index: &mut IndexReader<LineEntry>) -> std::io::Result<PlannedChunk> {
    let mut chunk = PlannedChunk { rows, left: Share::default(), right: Share::default() };
    for number in rows.first.0..=rows.last.0 {
        let row = Row(number);
        let entry = index.get(row)?;
        if entry.fate != LineFate::Valid {
            continue;
        }
        let share = if row <= rows.middle() { &mut chunk.left } else { &mut chunk.right };
        share.rows += 1;
        share.bytes += Frame::FileLine.len(row, false, entry.request_len);
    }
    Ok(chunk)
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
    writer: BufWriter<File>,
    whole: bool,
}

impl IndexFile {
    fn create(path: &Path) -> Result<IndexFile, SpoolError> {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let aside = path.with_file_name(format!(".{name}.aside"));
        let file = File::create(&aside).at("write", &aside)?;
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(IndexFile { path: path.to_owned(), aside, writer, whole: false })
    }

    fn append<E: Entry>(&mut self, entry: &E) -> Result<(), SpoolError> {
        index::append(&mut self.writer, entry).at("write", &self.aside)
    }

    fn commit(mut self) -> Result<PathBuf, SpoolError> {
        std::io::Write::flush(&mut self.writer).at("write", &self.aside)?;
        durable::sync_file(&self.aside)?;
        durable::rename(&self.aside, &self.path)?;
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

/// Looks out for keys that are missing or stand twice. Neither is an error, since answers find
/// their way by the number of the row; but who did not mean it should be told.
#[derive(Debug, Default)]
struct Keys {
    seen: HashMap<u64, u64>,
    missing: u64,
    first_missing: u64,
    repeated: u64,
    first_repeated: Option<(String, u64, u64)>,
    unchecked: u64,
}

impl Keys {
    fn note(&mut self, key: Option<&[u8]>, line: u64) {
        let Some(key) = key else {
            self.missing += 1;
            if self.missing == 1 {
                self.first_missing = line;
            }
            return;
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        let hash = hasher.finish();
        if let Some(before) = self.seen.get(&hash) {
            self.repeated += 1;
            if self.first_repeated.is_none() {
                let key = String::from_utf8_lossy(&key[..key.len().min(60)]);
                self.first_repeated = Some((spoken(key.as_ref().as_ref()), *before, line));
            }
        } else if self.seen.len() < KEYS_MAX {
            self.seen.insert(hash, line);
        } else {
            self.unchecked += 1;
        }
    }

    fn warnings(&self, valid: u64) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.missing == valid && valid > 0 {
            warnings.push(
                "no request has a key; their answers are named after their lines: \"line-N\""
                    .to_owned(),
            );
        } else if self.missing > 0 {
            warnings.push(format!(
                "{} of {valid} request(s) have no key, the first on line {}; their answers are \
                 named after their lines: \"line-N\"",
                self.missing, self.first_missing
            ));
        }
        if let Some((key, before, line)) = &self.first_repeated {
            let mut text = format!(
                "{} request(s) with a key that was used before, the first on line {line}: {key}, as \
                 on line {before}; all are answered, in input order",
                self.repeated
            );
            if self.unchecked > 0 {
                text.push_str(&format!(" (only the first {KEYS_MAX} keys were compared)"));
            }
            warnings.push(text);
        }
        warnings
    }
}

/// Key checksums kept: about 4 MB.
const KEYS_MAX: usize = 200_000;

/// Bytes of an index written at once.
const BUFFER_BYTES: usize = 256 * 1024;
