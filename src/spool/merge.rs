//! Line index, outcome index, answers and input become the results and errors of a job.
//!
//! One pass over the rows, in input order: each row ends in exactly one of the two files, with
//! its key as the user wrote it. Both are written aside in the working folder, synced and
//! renamed; running it again gives the same bytes. Nothing gets its name unless the lines add up.
//! Responses are copied as received, but for data that becomes files (`media`); requests as they
//! stand in the input. Memory is bounded by the longest result line.

mod input;

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::canary::rows_of;
use super::index::{IndexReader, LineEntry, OutcomeEntry};
use super::inspect::Inspector;
use super::media_out::{MediaFiles, Replaced};
use super::openai::usage;
use super::outcomes::{open_lines, open_outcomes};
use super::result_line::ResultLine;
use super::row_failure::RowFailure;
use super::steady::SteadyFile;
use super::usage::{plain_response, tokens_of};
use super::windows::Windows;
use super::{At, Folders, JobFolder, SpoolError, durable, moment, reuse};
use crate::engine::ids::{Row, Rows};
use crate::engine::job::{Chunk, Family, Job, Plan, Tally};
use crate::engine::verdict::Verdict;
use input::Input;

/// Writes [`JobFolder::merged_results`] and, if a line failed, [`JobFolder::merged_errors`]; before
/// them [`JobFolder::merged_media`], if the queue wants data of answers in files. These are named
/// by the `stem` that the outputs will have.
///
/// `explain` says what is wrong with a row that could not be sent.
///
/// # Errors
/// If a file can not be read or written, an index or a result line is damaged, or the lines do
/// not add up. No output has its name then.
pub fn merge(
    folders: &Folders,
    job: &Job,
    stem: &str,
    explain: &dyn Fn(&LineEntry) -> String,
) -> Result<Tally, SpoolError> {
    let folder = folders.job(job.head.id);
    let Some(plan) = job.head.state.plan() else {
        return Err(wrong("the job is not planned")).at("merge", &folder.path);
    };
    let mut pass = Pass::open(&folder, job, plan, explain)?;
    if job.head.queue.wants_media_files() {
        pass.media = Some(MediaFiles::begin(&folder, stem)?);
    }
    let tally = pass.run((1..=plan.rows).map(Row)).and_then(|()| pass.close());
    if tally.is_err() {
        // A full disk is not made fuller by what is written again anyway.
        pass.results.discard();
        pass.errors.discard();
        if let Some(media) = &pass.media {
            media.discard();
        }
    }
    tally
}

/// Writes the results and the errors of some rows of a job that is under way into these two files,
/// whole or not at all; what lay there is replaced.
///
/// # Errors
/// As [`merge`].
pub fn part(
    folders: &Folders,
    job: &Job,
    runs: &[Rows],
    [results, errors]: [PathBuf; 2],
    explain: &dyn Fn(&LineEntry) -> String,
) -> Result<(), SpoolError> {
    let folder = folders.job(job.head.id);
    let Some(plan) = job.head.state.plan() else {
        return Err(wrong("the job is not planned")).at("write a part of", &folder.path);
    };
    let mut pass = Pass::open(&folder, job, plan, explain)?;
    (pass.results, pass.errors) = (Output::new(results), Output::new(errors));
    let written = pass.run(rows_of(runs)).and_then(|()| {
        if pass.tally.failed > 0 {
            pass.errors.publish()?;
        }
        pass.results.publish()
    });
    if written.is_err() {
        pass.results.discard();
        pass.errors.discard();
    }
    written
}

/// One pass over all rows, or some.
struct Pass<'a> {
    job: &'a Job,
    plan: &'a Plan,
    folder: &'a JobFolder,
    explain: &'a dyn Fn(&LineEntry) -> String,
    lines: IndexReader<LineEntry>,
    outcomes: IndexReader<OutcomeEntry>,
    input: Input,
    answers: Windows,
    inspector: Inspector,
    media: Option<MediaFiles>,
    leaves: Vec<&'a Chunk>,
    results: Output,
    errors: Output,
    tally: Tally,
    key: Vec<u8>,
}

impl<'a> Pass<'a> {
    fn open(
        folder: &'a JobFolder,
        job: &'a Job,
        plan: &'a Plan,
        explain: &'a dyn Fn(&LineEntry) -> String,
    ) -> Result<Pass<'a>, SpoolError> {
        let lines = open_lines(folder)?;
        if lines.rows() != plan.rows {
            let text = format!("it has {} rows, the plan {}", lines.rows(), plan.rows);
            return Err(wrong(&text)).at("use", &folder.lines());
        }
        folder.merged_results().parent().map_or(Ok(()), durable::make_folder)?;
        Ok(Pass {
            job,
            plan,
            folder,
            explain,
            lines,
            outcomes: open_outcomes(folder, plan.rows)?,
            input: Input::open(folder.requests(&job.head.source.name, plan.prepared))?,
            answers: Windows::over(folder),
            inspector: Inspector::new(folder, job.head.queue.terms(), plan.prepared),
            media: None,
            leaves: job.leaves().collect(),
            results: Output::new(folder.merged_results()),
            errors: Output::new(folder.merged_errors()),
            tally: Tally::default(),
            key: Vec::new(),
        })
    }

    fn run(&mut self, rows: impl Iterator<Item = Row>) -> Result<(), SpoolError> {
        let accept = self.job.head.queue.accept;
        let (lines, outcomes) = (self.folder.lines(), self.folder.outcomes());
        for row in rows {
            let entry = self.lines.get(row).at("read", &lines)?;
            let outcome = self.outcomes.get(row).at("read", &outcomes)?;
            self.input.key(&entry, &mut self.key)?;
            let is_answered = entry.fate.is_sent() && outcome.verdict.is_answer(accept);
            if is_answered && entry.fate.family() == Family::OpenAi {
                self.answered_as_openai(&entry, &outcome)?;
            } else if is_answered {
                self.answered(&entry, &outcome)?;
            } else {
                let failure = self.failure(row, &entry, &outcome)?;
                self.failed(&entry, &failure)?;
            }
        }
        Ok(())
    }

    fn answered(&mut self, entry: &LineEntry, outcome: &OutcomeEntry) -> Result<(), SpoolError> {
        let line = self.answers.line(outcome)?;
        let response = match outcome.within {
            Some(within) => plain_response(line, within),
            None => ResultLine::parse(line).map(|line| line.response.unwrap_or("null").as_bytes()),
        };
        let Some(response) = response else { return Err(self.no_line(outcome)) };
        let replaced = match &mut self.media {
            Some(media) => media.take_out(entry.line, response)?,
            None => Vec::new(),
        };
        self.results.write(&[b"{\"key\":", &self.key, b",\"response\":"])?;
        let left = write_replaced(&mut self.results, response, &replaced)?;
        self.results.write(&[left, b"}\n"])?;
        // Those of an answer that is used again were paid for before.
        if outcome.chunk != reuse::CHUNK {
            self.tally.tokens.add(tokens_of(response));
        }
        self.tally.answered += 1;
        self.tally.truncated += u64::from(outcome.verdict == Verdict::Truncated);
        self.tally.raised += u64::from(outcome.raise.times > 0);
        Ok(())
    }

    /// The same for a result of the OpenAI-compatible layer, which stays one: with the user's own
    /// id, and with counts under the names they should have.
    fn answered_as_openai(
        &mut self,
        entry: &LineEntry,
        outcome: &OutcomeEntry,
    ) -> Result<(), SpoolError> {
        let Some(line) = ResultLine::parse(self.answers.line(outcome)?) else {
            return Err(self.no_line(outcome));
        };
        let made_up = format!("\"line-{}\"", entry.line);
        let id = line.id.unwrap_or(&made_up).as_bytes();
        let response = line.response.map_or(Cow::Borrowed("null"), usage::repaired);
        self.results.write(&[b"{\"id\":", id, b",\"custom_id\":", &self.key])?;
        self.results.write(&[b",\"response\":", response.as_bytes(), b",\"error\":null}\n"])?;
        self.tally.tokens.add(line.answer().unwrap_or_default().tokens);
        self.tally.answered += 1;
        self.tally.truncated += u64::from(outcome.verdict == Verdict::Truncated);
        Ok(())
    }

    /// Why a row that is not answered failed.
    fn failure(
        &mut self,
        row: Row,
        entry: &LineEntry,
        outcome: &OutcomeEntry,
    ) -> Result<RowFailure, SpoolError> {
        if !entry.fate.is_sent() {
            return Ok(RowFailure::invalid(entry.fate, (self.explain)(entry)));
        }
        match outcome.verdict {
            Verdict::Open | Verdict::Invalid => {
                let leaf = self.leaves.partition_point(|chunk| chunk.rows.last < row);
                let leaf = self.leaves.get(leaf).filter(|chunk| chunk.rows.contains(row)).copied();
                Ok(RowFailure::unanswered(self.plan.cancelled, leaf))
            }
            Verdict::Answered
            | Verdict::Truncated
            | Verdict::Blocked
            | Verdict::Empty
            | Verdict::Failed
            | Verdict::Retryable => {
                let Some(line) = ResultLine::parse(self.answers.line(outcome)?) else {
                    return Err(self.no_line(outcome));
                };
                let Some(response) = line.response.filter(|_| outcome.verdict.is_open()) else {
                    return Ok(RowFailure::of_line(outcome.verdict, &line));
                };
                // An answer that was not taken, to which no better one came.
                match line.verdict() {
                    Verdict::Answered => {
                        let misfit = self.inspector.misfit(response, entry)?;
                        Ok(RowFailure::misfit(misfit.as_deref().unwrap_or("nobody can tell where")))
                    }
                    verdict => Ok(RowFailure::of_line(verdict, &line)),
                }
            }
        }
    }

    fn no_line(&self, outcome: &OutcomeEntry) -> SpoolError {
        SpoolError {
            action: "use",
            path: self.folder.answers(outcome.chunk, outcome.attempt),
            source: wrong(&format!("no result line stands at byte {}", outcome.start)),
        }
    }

    fn failed(&mut self, entry: &LineEntry, failure: &RowFailure) -> Result<(), SpoolError> {
        let error = failure.json();
        let line = entry.line.to_string();
        if self.plan.family == Family::OpenAi {
            self.errors.write(&[b"{\"custom_id\":", &self.key[..], b",\"error\":"])?;
            self.errors.write(&[error.as_bytes(), b",\"line\":", line.as_bytes()])?;
            self.input.copy_openai(entry, &mut self.errors)?;
            return self.count_failed(failure);
        }
        self.errors.write(&[b"{\"key\":", &self.key[..], b",\"error\":", error.as_bytes()])?;
        self.errors.write(&[b",\"line\":", line.as_bytes(), b",\"request\":"])?;
        self.input.copy_request(entry, &mut self.errors)?;
        self.errors.write(&[b"}\n"])?;
        self.count_failed(failure)
    }

    fn count_failed(&mut self, failure: &RowFailure) -> Result<(), SpoolError> {
        self.tally.failed += 1;
        *self.tally.failures.entry(failure.reason.clone()).or_default() += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<Tally, SpoolError> {
        moment("merge:written", &self.folder.path)?;
        if let Some(media) = &self.media {
            self.tally.media = media.finish()?;
        }
        let (answered, failed) = (self.tally.answered, self.tally.failed);
        if answered + failed != self.plan.rows {
            let text = format!("{answered} answered and {failed} failed of {}", self.plan.rows);
            return Err(wrong(&text)).at("merge", &self.folder.path);
        }
        if failed > 0 {
            self.errors.publish()?;
        } else {
            self.errors.discard();
            // What an earlier merge left would be delivered as this one's.
            let path = self.folder.merged_errors();
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).at("remove", &path);
                }
                Ok(()) | Err(_) => {}
            }
        }
        moment("merge:errors", &self.folder.path)?;
        self.results.publish()?;
        Ok(self.tally.clone())
    }
}

/// A member of a line and where it stands: its first byte, and how many it has.
type Member = (&'static str, (u64, u64));

/// Writes a response up to its last replaced stretch, and answers with what is left of it.
fn write_replaced<'r>(
    to: &mut Output,
    response: &'r [u8],
    replaced: &[Replaced],
) -> Result<&'r [u8], SpoolError> {
    let mut at = 0;
    for (stretch, text) in replaced {
        to.write(&[&response[at..stretch.start], text.as_bytes()])?;
        at = stretch.end;
    }
    Ok(&response[at..])
}

/// An output file while it is written aside. It comes into being with the first bytes: most jobs
/// have no errors.
struct Output {
    path: PathBuf,
    aside: PathBuf,
    writer: Option<BufWriter<SteadyFile>>,
}

impl Output {
    fn new(path: PathBuf) -> Output {
        let aside = path.with_extension("aside");
        Output { path, aside, writer: None }
    }

    fn writer(&mut self) -> Result<&mut BufWriter<SteadyFile>, SpoolError> {
        match &mut self.writer {
            Some(writer) => Ok(writer),
            none => {
                let file = SteadyFile::new(File::create(&self.aside).at("write", &self.aside)?);
                Ok(none.insert(BufWriter::with_capacity(PIECE_BYTES, file)))
            }
        }
    }

    fn write(&mut self, parts: &[&[u8]]) -> Result<(), SpoolError> {
        let writer = self.writer()?;
        let written = parts.iter().try_for_each(|part| writer.write_all(part));
        written.at("write", &self.aside)
    }

    fn publish(&mut self) -> Result<(), SpoolError> {
        self.writer()?.flush().at("write", &self.aside)?;
        self.writer()?.get_mut().sync().at("sync", &self.aside)?;
        durable::rename(&self.aside, &self.path)
    }

    fn discard(&self) {
        remove_quietly(&self.aside);
    }
}

fn remove_quietly(path: &Path) {
    // The next merge writes over it; there is nothing to tell anybody.
    drop(fs::remove_file(path));
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Bytes read or written at once.
const PIECE_BYTES: usize = 256 * 1024;
