//! What is wrong with one row, in words with a place.
//!
//! Planning finds a problem and keeps only its kind; the words are found again from the input
//! when they are needed, so that a million bad lines cost no memory.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::forms::{self, Fault};
use super::index::{LineEntry, LineFate};
use super::plan::CutRules;
use super::source;
use super::{At, SpoolError};

/// What is wrong with one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// As in [`LineEntry::line`].
    pub line: u64,
    /// Column in characters, from 1; `None` where the row is not one line.
    pub column: Option<u64>,
    /// As [`LineFate::reason`].
    pub reason: &'static str,
    /// What happened and what to do about it.
    pub message: String,
}

impl Problem {
    /// A problem of a known kind.
    pub fn new(line: u64, column: Option<u64>, fate: LineFate, message: String) -> Problem {
        Problem { line, column, reason: fate.reason(), message }
    }

    /// Gives a fault its place: a column, or in a row over several lines the line within it.
    pub fn of(line: u64, bytes: &[u8], fault: &Fault) -> Problem {
        let Some(at) = fault.at else {
            return Problem::new(line, None, fault.fate, fault.message.clone());
        };
        let before = &bytes[..at.min(bytes.len())];
        let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        // Characters, as an editor counts: every byte but the later ones of a character.
        let column = before[start..].iter().filter(|byte| **byte & 0xc0 != 0x80).count() as u64 + 1;
        if start == 0 {
            return Problem::new(line, Some(column), fault.fate, fault.message.clone());
        }
        let inner = memchr::memchr_iter(b'\n', before).count() + 1;
        let message = format!("{} (line {inner}, column {column} of the request)", fault.message);
        Problem::new(line, None, fault.fate, message)
    }
}

/// Finds out again what is wrong with an invalid row, for an error that names the place.
///
/// # Errors
/// If the input can not be read.
pub fn explain(input: &Path, entry: &LineEntry, rules: &CutRules) -> Result<Problem, SpoolError> {
    let line = u64::from(entry.line);
    let problem = |message| Problem::new(line, None, entry.fate, message);
    if entry.fate == LineFate::TooLong || u64::from(entry.request_len) > rules.line_bytes_max {
        return Ok(problem(too_long(u64::from(entry.request_len), rules)));
    }
    let mut bytes = vec![0; entry.request_len as usize];
    let file = source::reopen(input).at("open", input)?;
    file.read_exact_at(&mut bytes, entry.request_start).at("read", input)?;
    Ok(match forms::examine(&bytes, rules.wanted()) {
        Err(fault) if fault.fate == entry.fate => Problem::of(line, &bytes, &fault),
        // The settings have changed since the row was judged.
        Err(_) | Ok(_) => problem(format!("the line was refused: {}", entry.fate.reason())),
    })
}

/// What is said of a row that is too long.
pub fn too_long(len: u64, rules: &CutRules) -> String {
    if len > rules.line_bytes_max {
        return format!(
            "the line has {len} bytes, more than the {} that one may have; \
             upload large parts as files and name them in the request",
            rules.line_bytes_max
        );
    }
    format!(
        "the request has {len} bytes, too many for one batch of {} bytes",
        rules.row_bytes_max.min(rules.batch_bytes_max)
    )
}
