//! Downloaded result lines become outcomes of rows.
//!
//! [`collect`] reads the lines of one attempt once, in whatever order they come, and notes for
//! each row what its line says and where it stands. Running it again gives the same outcomes: it
//! first takes back what an earlier, interrupted run of the same attempt noted. A row that an
//! earlier attempt settled is never reopened, lines for rows that were not sent are kept aside,
//! and a download that is damaged or short is not accepted until the caller says so. Memory is
//! bounded by the longest line.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::frame::Frame;
use super::index::{IndexReader, LineEntry, LineFate, OutcomeEntry};
use super::loose::cut;
use super::outcomes::{Outcomes, open_lines, open_outcomes};
use super::result_line::{MESSAGE_MAX, ResultLine};
use super::{At, JobFolder, SpoolError, durable};
use crate::engine::Which;
use crate::engine::event::Harvest;
use crate::engine::ids::{Attempt, ChunkNo, Row, Rows};
use crate::engine::job::{Rest, Share};
use crate::engine::verdict::Verdict;

/// Why downloaded results were not taken in.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A line is not a JSON object: the download is damaged or cut off. Fetch it again.
    #[error(
        "line {line} of {} (byte {start}) {problem}; it must be downloaded again",
        path.display()
    )]
    Torn {
        /// The downloaded file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// Byte offset of the line.
        start: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Rows that were sent have no result line. Fetch again, then accept it.
    #[error("{missing} of the rows sent have no result line; the results must be downloaded again")]
    Short {
        /// How many rows.
        missing: u64,
    },
    /// This machine could not.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Takes in the result lines that lie in [`JobFolder::download`], synced; afterwards they lie in
/// [`JobFolder::answers`]. If they lie there already, they are taken in again from there.
///
/// In the harvest, answers that were cut off count as answered, blocked and empty ones as failed:
/// the queue's own choice is only applied when answers are merged.
///
/// # Errors
/// [`CollectError::Torn`] and [`CollectError::Short`] only without `accept_missing`; with it,
/// unreadable lines are kept aside and missing rows stay open. Nothing of the attempt is noted
/// after an error.
pub fn collect(
    folder: &JobFolder,
    which: &Which,
    accept_missing: bool,
) -> Result<Harvest, CollectError> {
    let kept = folder.answers(which.chunk, which.attempt);
    let fresh = folder.download(which.chunk, which.attempt);
    // What was renamed had been accepted as it was.
    let again = fs::symlink_metadata(&kept).is_ok();
    let mut intake = Intake::open(folder, which)?;
    intake.keeps_strays = !again;
    let taken = match again {
        true => intake.read(&kept, true),
        false => intake.read(&fresh, accept_missing),
    };
    let harvest = match taken {
        Ok(harvest) => harvest,
        Err(error) => {
            intake.take_back()?;
            return Err(error);
        }
    };
    intake.outcomes.sync()?;
    if !again {
        intake.keep_strays()?;
        durable::sync_file(&fresh)?;
        durable::rename(&fresh, &kept)?;
    }
    Ok(harvest)
}

/// Fails the rows that the API named when it refused the create request of an attempt, and tells
/// what is left. The errors are written as result lines to [`JobFolder::answers`].
///
/// Rows that were not sent are passed over. Can be repeated.
///
/// # Errors
/// If files can not be read or written.
pub fn reject(
    folder: &JobFolder,
    which: &Which,
    named: &[(Row, String)],
    code: i32,
) -> Result<Rest, SpoolError> {
    let mut intake = Intake::open(folder, which)?;
    let mut text = Vec::new();
    let mut entries = Vec::new();
    for (row, message) in named {
        let start = text.len();
        let message = serde_json::Value::from(cut(message, MESSAGE_MAX));
        let error = format!("{{\"code\":{code},\"message\":{message}}}");
        text.extend_from_slice(format!("{{\"key\":\"{}\",\"error\":{error}}}", row.0).as_bytes());
        entries.push((*row, intake.entry(Verdict::Failed, start as u64, text.len() - start)));
        text.push(b'\n');
    }
    let path = folder.answers(which.chunk, which.attempt);
    path.parent().map_or(Ok(()), durable::make_folder)?;
    durable::replace(&path, &text)?;
    for (row, entry) in entries {
        if which.rows.contains(row) && intake.outcomes.get(row)?.verdict.is_open() {
            intake.outcomes.set(row, &entry)?;
        }
    }
    intake.outcomes.sync()?;
    rest(folder, which.rows)
}

/// What is still unanswered of `rows`, in two halves; bytes as lines of an input file.
///
/// # Errors
/// If the indexes can not be read.
pub fn rest(folder: &JobFolder, rows: Rows) -> Result<Rest, SpoolError> {
    let mut lines = open_lines(folder)?;
    let mut outcomes = open_outcomes(folder, lines.rows())?;
    let mut rest = Rest::default();
    for row in (rows.first.0..=rows.last.0).map(Row) {
        let line = lines.get(row).at("read", &folder.lines())?;
        let outcome = outcomes.get(row).at("read", &folder.outcomes())?;
        if line.fate == LineFate::Valid && outcome.verdict.is_open() {
            add(&mut rest, rows.middle(), row, &line);
        }
    }
    Ok(rest)
}

/// The result lines of one attempt on their way into the outcome index.
struct Intake<'a> {
    folder: &'a JobFolder,
    which: &'a Which,
    lines: IndexReader<LineEntry>,
    outcomes: Outcomes,
    strays: Option<BufWriter<File>>,
    keeps_strays: bool,
}

impl<'a> Intake<'a> {
    /// Opens the indexes and takes back what an interrupted run noted.
    fn open(folder: &'a JobFolder, which: &'a Which) -> Result<Intake<'a>, SpoolError> {
        let lines = open_lines(folder)?;
        let outcomes = Outcomes::open(folder, which.rows)?;
        let mut intake =
            Intake { folder, which, lines, outcomes, strays: None, keeps_strays: false };
        intake.take_back()?;
        Ok(intake)
    }

    /// Opens the rows that this attempt noted anything of, and closes those that can not be sent.
    fn take_back(&mut self) -> Result<(), SpoolError> {
        if self.strays.take().is_some() {
            // The next run writes its own.
            drop(fs::remove_file(self.strays_path()));
        }
        for row in self.rows() {
            let mut entry = self.outcomes.get(row)?;
            let before = entry;
            if self.is_mine(&entry) {
                entry = OPEN;
            }
            let fate = self.lines.get(row).at("read", &self.folder.lines())?.fate;
            if fate != LineFate::Valid && entry.verdict.is_open() {
                entry = OutcomeEntry { verdict: Verdict::Invalid, ..OPEN };
            }
            if entry != before {
                self.outcomes.set(row, &entry)?;
            }
        }
        self.outcomes.sync()
    }

    fn read(&mut self, path: &Path, accept_missing: bool) -> Result<Harvest, CollectError> {
        let mut harvest = Harvest::default();
        let mut input = Lines::open(path)?;
        while let Some(shape) = input.next()? {
            let problem = match (shape, ResultLine::parse(&input.line)) {
                (Shape::Blank, _) => continue,
                (Shape::TooLong, _) => "is longer than 128 MiB",
                (Shape::Whole, Some(line)) => {
                    let entry = self.entry(line.verdict(), input.start, input.line.len());
                    self.note(line.row, &entry, &input.line, &mut harvest)?;
                    continue;
                }
                (Shape::Whole, None) => "is not a whole JSON object",
            };
            if !accept_missing {
                let (line, start) = (input.number, input.start);
                return Err(CollectError::Torn { path: path.to_owned(), line, start, problem });
            }
            harvest.unknown += 1;
            self.stray(&input.line)?;
        }
        self.count(&mut harvest)?;
        match harvest.missing {
            0 => Ok(harvest),
            _ if accept_missing => Ok(harvest),
            missing => Err(CollectError::Short { missing }),
        }
    }

    fn note(
        &mut self,
        row: Option<Row>,
        entry: &OutcomeEntry,
        line: &[u8],
        harvest: &mut Harvest,
    ) -> Result<(), SpoolError> {
        if let Some(row) = row.filter(|row| self.which.rows.contains(*row)) {
            let known = self.outcomes.get(row)?;
            if self.is_mine(&known) {
                harvest.repeated += 1;
                return Ok(());
            }
            if known.verdict.is_open() {
                return self.outcomes.set(row, entry);
            }
        }
        harvest.unknown += 1;
        self.stray(line)
    }

    fn count(&mut self, harvest: &mut Harvest) -> Result<(), SpoolError> {
        for row in self.rows() {
            let entry = self.outcomes.get(row)?;
            let place = match entry.verdict {
                Verdict::Answered | Verdict::Truncated => Some(&mut harvest.answered),
                Verdict::Blocked | Verdict::Empty | Verdict::Failed => Some(&mut harvest.failed),
                Verdict::Retryable => Some(&mut harvest.retryable),
                Verdict::Open | Verdict::Invalid => None,
            };
            match place.filter(|_| self.is_mine(&entry)) {
                Some(place) => *place += 1,
                None => harvest.missing += u64::from(entry.verdict.is_open()),
            }
            if entry.verdict.is_open() {
                let line = self.lines.get(row).at("read", &self.folder.lines())?;
                add(&mut harvest.rest, self.which.middle, row, &line);
            }
        }
        Ok(())
    }

    /// Keeps a line aside, in a file of this attempt until the attempt is accepted, so that a
    /// download that is fetched again leaves nothing behind.
    fn stray(&mut self, line: &[u8]) -> Result<(), SpoolError> {
        if !self.keeps_strays {
            return Ok(());
        }
        let path = self.strays_path();
        let mut strays = match self.strays.take() {
            Some(strays) => strays,
            None => BufWriter::new(File::create(&path).at("write", &path)?),
        };
        strays.write_all(line).and_then(|()| strays.write_all(b"\n")).at("write", &path)?;
        self.strays = Some(strays);
        Ok(())
    }

    /// Adds this attempt's strays to those of the job. A crash right after may add them twice.
    fn keep_strays(&mut self) -> Result<(), SpoolError> {
        let (aside, kept) = (self.strays_path(), self.folder.strays());
        let Some(mut strays) = self.strays.take() else {
            return Ok(());
        };
        strays.flush().at("write", &aside)?;
        let mut from = File::open(&aside).at("read", &aside)?;
        let mut to = File::options().append(true).create(true).open(&kept).at("open", &kept)?;
        io::copy(&mut from, &mut to).and_then(|_| to.sync_all()).at("write", &kept)?;
        fs::remove_file(&aside).at("remove", &aside)
    }

    fn strays_path(&self) -> PathBuf {
        self.folder.answers(self.which.chunk, self.which.attempt).with_extension("strays")
    }

    fn entry(&self, verdict: Verdict, start: u64, len: usize) -> OutcomeEntry {
        let len = u32::try_from(len).expect("a line has at most 128 MiB");
        let Which { chunk, attempt, .. } = *self.which;
        OutcomeEntry { verdict, chunk, attempt, start, len }
    }

    fn is_mine(&self, entry: &OutcomeEntry) -> bool {
        (entry.chunk, entry.attempt) == (self.which.chunk, self.which.attempt)
    }

    fn rows(&self) -> impl Iterator<Item = Row> + use<> {
        (self.which.rows.first.0..=self.which.rows.last.0).map(Row)
    }
}

/// The lines of a downloaded file, one at a time.
struct Lines<'a> {
    path: &'a Path,
    file: BufReader<File>,
    /// The line read last, without its newline; its beginning only, if it is too long.
    line: Vec<u8>,
    /// Where it begins.
    start: u64,
    /// Its number, from 1.
    number: u64,
    next_start: u64,
}

enum Shape {
    Whole,
    Blank,
    TooLong,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Lines<'a>, SpoolError> {
        let file = File::open(path).at("read", path)?;
        let file = BufReader::with_capacity(READ_BYTES, file);
        Ok(Lines { path, file, line: Vec::new(), start: 0, number: 0, next_start: 0 })
    }

    fn next(&mut self) -> Result<Option<Shape>, SpoolError> {
        self.line.clear();
        self.line.shrink_to(4 * READ_BYTES);
        self.start = self.next_start;
        self.number += 1;
        loop {
            let held = self.file.fill_buf().at("read", self.path)?;
            if held.is_empty() {
                break;
            }
            let end = memchr::memchr(b'\n', held);
            let take = end.unwrap_or(held.len());
            let room = LINE_MAX + 1 - self.line.len().min(LINE_MAX + 1);
            self.line.extend_from_slice(&held[..take.min(room)]);
            let used = end.map_or(take, |end| end + 1);
            self.next_start += used as u64;
            self.file.consume(used);
            if end.is_some() {
                break;
            }
        }
        if self.next_start == self.start {
            return Ok(None);
        }
        if self.line.len() > LINE_MAX {
            self.line.truncate(STRAY_MAX);
            return Ok(Some(Shape::TooLong));
        }
        match self.line.iter().all(u8::is_ascii_whitespace) {
            true => Ok(Some(Shape::Blank)),
            false => Ok(Some(Shape::Whole)),
        }
    }
}

fn add(rest: &mut Rest, middle: Row, row: Row, line: &LineEntry) {
    let half: &mut Share = if row <= middle { &mut rest.left } else { &mut rest.right };
    half.rows += 1;
    half.bytes += Frame::FileLine.len(row, false, line.request_len);
}

/// A row that nothing is known of.
const OPEN: OutcomeEntry = OutcomeEntry {
    verdict: Verdict::Open,
    chunk: ChunkNo(0),
    attempt: Attempt(0),
    start: 0,
    len: 0,
};

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// Longest result line taken in, bytes.
const LINE_MAX: usize = 128 * 1024 * 1024;

/// What is kept of a line beyond that, bytes.
const STRAY_MAX: usize = 64 * 1024;
