//! Downloaded result lines become outcomes of rows.
//!
//! [`collect`] takes in the results of one attempt that lie on the disk, wherever an earlier run
//! stopped; while they arrive, `receiver` does. A download that is damaged or short is not
//! accepted until the caller says so. Running either again gives the same outcomes.

use std::fs;
use std::path::{Path, PathBuf};

use super::answer_lines::AnswerLines;
use super::loose::cut;
use super::outcomes::{open_lines, open_outcomes};
use super::receiver::{Receiver, note_line};
use super::register::{Register, add};
use super::result_line::MESSAGE_MAX;
use super::{At, JobFolder, SpoolError, durable};
use crate::engine::Which;
use crate::engine::event::Harvest;
use crate::engine::ids::{Row, Rows};
use crate::engine::job::Rest;

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

/// Takes in the result lines that lie in [`JobFolder::download`]; afterwards they lie in
/// [`JobFolder::answers`]. If they lie there already, they are taken in again from there.
///
/// In the harvest, answers that were cut off and are not asked for again count as answered, blocked
/// and empty ones as failed: the queue's own choice is only applied when answers are merged.
///
/// # Errors
/// [`CollectError::Torn`] and [`CollectError::Short`] unless rows may be missing; if some may,
/// unreadable lines are kept aside and missing rows stay open. Nothing of the attempt is noted
/// after an error.
pub fn collect(
    folder: &JobFolder,
    which: &Which,
    missing_max: u64,
) -> Result<Harvest, CollectError> {
    let kept = folder.answers(which.chunk, which.attempt);
    if fs::symlink_metadata(&kept).is_ok() {
        return again(folder, which, &kept);
    }
    let mut receiver = Receiver::open(folder, which, missing_max)?;
    let harvest = receiver.read_kept(false).and_then(|_| receiver.finish());
    if harvest.is_err() {
        receiver.give_up()?;
    }
    harvest
}

/// Takes in what was accepted as it is, and whose strays were kept.
fn again(folder: &JobFolder, which: &Which, kept: &Path) -> Result<Harvest, CollectError> {
    let mut register = Register::open(folder, which)?;
    let mut input = AnswerLines::open(kept, u64::MAX)?;
    while let Some(shape) = input.advance()? {
        note_line(&mut register, &input, shape, true, kept, false)?;
    }
    let harvest = register.harvest()?;
    register.sync()?;
    // They have their name, but perhaps only until the next power cut.
    kept.parent().map_or(Ok(()), durable::sync_folder)?;
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
    let mut register = Register::open(folder, which)?;
    let mut text = Vec::new();
    let mut entries = Vec::new();
    for (row, message) in named {
        let start = text.len();
        let message = serde_json::Value::from(cut(message, MESSAGE_MAX));
        let error = format!("{{\"code\":{code},\"message\":{message}}}");
        text.extend_from_slice(format!("{{\"key\":\"{}\",\"error\":{error}}}", row.0).as_bytes());
        entries.push((*row, start as u64, text.len() - start));
        text.push(b'\n');
    }
    let path = folder.answers(which.chunk, which.attempt);
    path.parent().map_or(Ok(()), durable::make_folder)?;
    durable::replace(&path, &text)?;
    for (row, start, len) in entries {
        register.fail(row, start, len)?;
    }
    register.sync()?;
    rest(folder, which.rows)
}

/// What is still unanswered of `rows`, in two halves; bytes as lines of an input file.
///
/// # Errors
/// If the indexes can not be read.
pub fn rest(folder: &JobFolder, rows: Rows) -> Result<Rest, SpoolError> {
    let mut lines = open_lines(folder)?;
    let mut outcomes = open_outcomes(folder, lines.rows())?;
    let (lines_path, outcomes_path) = (folder.lines(), folder.outcomes());
    let mut rest = Rest::default();
    for row in (rows.first.0..=rows.last.0).map(Row) {
        let line = lines.get(row).at("read", &lines_path)?;
        let outcome = outcomes.get(row).at("read", &outcomes_path)?;
        if line.fate.is_sent() && outcome.verdict.is_open() {
            add(&mut rest, rows.middle(), row, &line);
        }
    }
    Ok(rest)
}
