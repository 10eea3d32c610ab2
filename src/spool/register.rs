//! The lines of one attempt on their way into the outcome index.
//!
//! Whatever order lines come in, the first one of a row counts, and a row that an earlier attempt
//! settled is never reopened. What an interrupted run of the same attempt noted is taken back
//! first, so that running again gives the same outcomes. Nothing is durable before
//! [`Register::sync`]; whoever gives up calls [`Register::take_back`]. What the queue asks of
//! answers is looked after by `inspect`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use super::frame::Frame;
use super::index::{IndexReader, LineEntry, OutcomeEntry, Raise};
use super::inspect::Inspector;
use super::judged::Judged;
use super::outcomes::{OPEN, Outcomes, open_lines};
use super::usage::tokens_in;
use super::{At, JobFolder, SpoolError};
use crate::engine::Which;
use crate::engine::event::Harvest;
use crate::engine::ids::Row;
use crate::engine::job::{Rest, Share, Tokens};
use crate::engine::verdict::Verdict;

/// Where the result lines of one attempt are noted.
pub struct Register {
    folder: JobFolder,
    which: Which,
    lines: IndexReader<LineEntry>,
    outcomes: Outcomes,
    inspector: Inspector,
    /// Rows that were open before the first line.
    open_before: u64,
    harvest: Harvest,
    strays: Option<BufWriter<File>>,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is the outcome of its row.
    Taken,
    /// Its row had a line of this attempt already.
    Repeated,
    /// It belongs to no row that was sent.
    Stray,
}

impl Register {
    /// Opens the indexes and takes back what an interrupted run noted.
    ///
    /// # Errors
    /// If they can not be read or written.
    pub fn open(folder: &JobFolder, which: &Which) -> Result<Register, SpoolError> {
        let mut register = Register {
            folder: folder.clone(),
            which: *which,
            lines: open_lines(folder)?,
            outcomes: Outcomes::open(folder, which.rows)?,
            inspector: Inspector::new(folder, which.terms, which.prepared),
            open_before: 0,
            harvest: Harvest::default(),
            strays: None,
        };
        register.take_back()?;
        Ok(register)
    }

    /// Opens the rows that this attempt noted anything of, and closes those that can not be sent;
    /// durable at once if anything changed.
    ///
    /// # Errors
    /// If the indexes can not be read or written.
    pub fn take_back(&mut self) -> Result<(), SpoolError> {
        self.harvest = Harvest::default();
        self.open_before = 0;
        if self.strays.take().is_some() {
            // The next run writes its own.
            drop(fs::remove_file(self.strays_path()));
        }
        let lines = self.folder.lines();
        for row in self.rows() {
            let mut entry = self.outcomes.get(row)?;
            let before = entry;
            if self.is_mine(&entry) {
                // It was sent with the limit as it had been raised before.
                entry = OutcomeEntry { raise: Raise { due: false, ..entry.raise }, ..OPEN };
            }
            if entry.verdict.is_open() {
                let fate = self.lines.get(row).at("read", &lines)?.fate;
                if !fate.is_sent() {
                    entry = OutcomeEntry { verdict: Verdict::Invalid, ..OPEN };
                }
            }
            if entry != before {
                self.outcomes.set(row, &entry)?;
            }
            self.open_before += u64::from(entry.verdict.is_open());
        }
        self.outcomes.sync()
    }

    /// Whether a row is one of this attempt's chunk.
    pub fn concerns(&self, row: Row) -> bool {
        self.which.rows.contains(row)
    }

    /// Notes a line that stands at `start` of the attempt's result file. A stray is only counted:
    /// the caller hands it to [`Register::keep_aside`].
    ///
    /// # Errors
    /// If the outcomes can not be read or written, or the row's request not be read.
    pub fn note(&mut self, judged: &Judged, start: u64, line: &[u8]) -> Result<Noted, SpoolError> {
        if let Some(row) = judged.row.filter(|row| self.which.rows.contains(*row)) {
            let known = self.outcomes.get(row)?;
            if self.is_mine(&known) {
                self.harvest.repeated += 1;
                return Ok(Noted::Repeated);
            }
            if known.verdict.is_open() {
                let times = known.raise.next();
                let (lines, folder) = (&mut self.lines, &self.folder);
                let entry = || lines.get(row).at("read", &folder.lines());
                let found = self.inspector.inspect(judged.verdict, line, times, entry)?;
                let judged = Judged { verdict: found.verdict, ..*judged };
                let raise = Raise { times, due: found.raise };
                self.outcomes.set(row, &self.entry(&judged, start, line.len(), raise))?;
                self.harvest.unchecked += u64::from(found.unchecked);
                if self.which.terms.counts {
                    self.count_tokens(&judged, line);
                }
                match found.verdict {
                    Verdict::Answered | Verdict::Truncated => self.harvest.answered += 1,
                    Verdict::Blocked | Verdict::Empty | Verdict::Failed => self.harvest.failed += 1,
                    Verdict::Retryable => self.harvest.retryable += 1,
                    Verdict::Open | Verdict::Invalid => {}
                }
                return Ok(Noted::Taken);
            }
        }
        self.harvest.unknown += 1;
        Ok(Noted::Stray)
    }

    /// Adds what an answer took. One that did not answer may have been paid for as well.
    fn count_tokens(&mut self, judged: &Judged, line: &[u8]) {
        let tokens = tokens_in(line, judged.within);
        let is_answer = matches!(judged.verdict, Verdict::Answered | Verdict::Truncated);
        self.harvest.uncounted += u64::from(is_answer && tokens == Tokens::default());
        self.harvest.tokens.add(tokens);
    }

    /// Counts a line that is none.
    pub fn count_unreadable(&mut self) {
        self.harvest.unknown += 1;
    }

    /// Fails a row that is still open; any other row is passed over.
    ///
    /// # Errors
    /// If the outcomes can not be read or written.
    pub fn fail(&mut self, row: Row, start: u64, len: usize) -> Result<(), SpoolError> {
        if self.concerns(row) && self.outcomes.get(row)?.verdict.is_open() {
            let judged = Judged { row: Some(row), verdict: Verdict::Failed, within: None };
            self.outcomes.set(row, &self.entry(&judged, start, len, Raise::default()))?;
        }
        Ok(())
    }

    /// What came of the attempt, all lines being noted.
    ///
    /// # Errors
    /// If the indexes can not be read.
    pub fn harvest(&mut self) -> Result<Harvest, SpoolError> {
        let settled = self.harvest.answered + self.harvest.failed;
        let mut harvest = self.harvest.clone();
        harvest.missing = self.open_before - settled - harvest.retryable;
        // Most of the time nothing is left.
        if self.open_before == settled {
            return Ok(harvest);
        }
        let lines = self.folder.lines();
        for row in self.rows() {
            if self.outcomes.get(row)?.verdict.is_open() {
                let line = self.lines.get(row).at("read", &lines)?;
                add(&mut harvest.rest, self.which.middle, row, &line);
            }
        }
        Ok(harvest)
    }

    /// Makes every note durable.
    ///
    /// # Errors
    /// If the outcomes can not be written or synced.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        self.outcomes.sync()
    }

    /// Keeps a line aside, in a file of this attempt until the attempt is accepted, so that a
    /// download that is fetched again leaves nothing behind.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn keep_aside(&mut self, line: &[u8]) -> Result<(), SpoolError> {
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
    ///
    /// # Errors
    /// If they can not be written or synced.
    pub fn keep_strays(&mut self) -> Result<(), SpoolError> {
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

    fn entry(&self, judged: &Judged, start: u64, len: usize, raise: Raise) -> OutcomeEntry {
        let len = u32::try_from(len).expect("a line has at most 128 MiB");
        let Which { chunk, attempt, .. } = self.which;
        let Judged { verdict, within, .. } = *judged;
        OutcomeEntry { verdict, chunk, attempt, start, len, within, raise }
    }

    fn is_mine(&self, entry: &OutcomeEntry) -> bool {
        (entry.chunk, entry.attempt) == (self.which.chunk, self.which.attempt)
    }

    fn rows(&self) -> impl Iterator<Item = Row> + use<> {
        (self.which.rows.first.0..=self.which.rows.last.0).map(Row)
    }
}

/// Counts a row that is still to be answered.
pub fn add(rest: &mut Rest, middle: Row, row: Row, line: &LineEntry) {
    let half: &mut Share = if row <= middle { &mut rest.left } else { &mut rest.right };
    half.rows += 1;
    half.bytes += Frame::on_file(line.fate).len(row, false, line.request_len);
}
