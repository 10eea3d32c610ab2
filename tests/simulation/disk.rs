//! The spool as the engine's effects see it: what lies in which folder, and what came of each row.
//!
//! A rename is one step. What was not synced may be gone after a power cut, but never after a
//! mere `kill`; whoever changes the disk says where it is synced.

use std::collections::{BTreeMap, BTreeSet};

use gemini_batchd::engine::ids::{Attempt, BatchName, ChunkNo, JobId, Row, Rows};
use gemini_batchd::engine::job::{Rest, Share};

use super::rescuing::Notes;

/// All folders of a spool.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Files by name, by their numbers.
    pub inbox: BTreeMap<String, u64>,
    pub working: BTreeMap<JobId, Folder>,
    pub outbox: BTreeMap<String, Output>,
    pub archive: BTreeSet<u64>,
    pub failed: BTreeSet<u64>,
    pub held: BTreeSet<u64>,
    /// Jobs that people were told of.
    pub notices: BTreeSet<JobId>,
}

/// The working folder of a job.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    /// The input, by its number.
    pub input: Option<u64>,
    /// What came of the rows so far; a row that is not here is open.
    pub outcomes: BTreeMap<u64, Fate>,
    /// Rows that were answered from the cache.
    pub reused: BTreeSet<u64>,
    /// Attempts whose results lie here whole.
    pub answers: BTreeSet<(ChunkNo, Attempt)>,
    /// What is noted of attempts at asking row by row.
    pub notes: BTreeMap<(ChunkNo, Attempt), Notes>,
    /// Addresses of upload sessions.
    pub sessions: BTreeMap<(ChunkNo, Attempt), String>,
    /// Outputs that are not moved yet.
    pub results: Option<BTreeMap<u64, String>>,
    pub errors: Option<BTreeSet<u64>>,
}

/// What came of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing that counts: it is to be sent again. By this attempt.
    Retryable(ChunkNo, Attempt),
    /// Answered with this text, by this attempt.
    Answered(ChunkNo, Attempt, BatchName, String),
    /// Failed for good in this attempt.
    Failed(ChunkNo, Attempt),
    /// It was never valid.
    Invalid,
}

/// A file in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Results(JobId, BTreeMap<u64, String>),
    Errors(JobId, BTreeSet<u64>),
    /// Of this job, for this file.
    Manifest(JobId, u64),
    /// Put there by somebody else.
    Foreign,
}

impl Fate {
    /// Whether it came from this attempt.
    pub fn is_of(&self, chunk: ChunkNo, attempt: Attempt) -> bool {
        match self {
            Fate::Retryable(no, of) | Fate::Failed(no, of) | Fate::Answered(no, of, ..) => {
                (*no, *of) == (chunk, attempt)
            }
            Fate::Invalid => false,
        }
    }
}

impl Folder {
    /// The rows that want an answer.
    pub fn open_rows(&self, rows: Rows) -> Vec<u64> {
        let open = |row: &u64| match self.outcomes.get(row) {
            None | Some(Fate::Retryable(..)) => true,
            Some(Fate::Answered(..) | Fate::Failed(..) | Fate::Invalid) => false,
        };
        (rows.first.0..=rows.last.0).filter(open).collect()
    }

    /// The same, counted in two halves.
    pub fn rest(&self, rows: Rows, bytes_of: impl Fn(u64) -> u64) -> Rest {
        let mut rest = Rest::default();
        for row in self.open_rows(rows) {
            let share = if Row(row) <= rows.middle() { &mut rest.left } else { &mut rest.right };
            *share = Share { rows: share.rows + 1, bytes: share.bytes + bytes_of(row) };
        }
        rest
    }
}

/// The names of a job's outputs.
pub fn names(stem: &str) -> [String; 3] {
    ["results.jsonl", "errors.jsonl", "manifest.json"].map(|end| format!("{stem}.{end}"))
}

impl Disk {
    /// A stem whose names are all free.
    pub fn free_stem(&self, name: &str) -> String {
        let plain = name.strip_suffix(".jsonl").unwrap_or(name);
        let tries = (1..).map(|number| match number {
            1 => plain.to_owned(),
            more => format!("{plain}~{more}"),
        });
        let is_free = |stem: &String| names(stem).iter().all(|n| !self.outbox.contains_key(n));
        tries.into_iter().find(is_free).expect("there are numbers enough")
    }
}
