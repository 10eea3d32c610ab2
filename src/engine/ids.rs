//! The names and units the engine counts in.
//!
//! Newtypes keep ids, counts and units from being swapped for one another. Nothing here
//! reads a clock or draws a random number: the shell hands those in.

use std::fmt;
use std::str::FromStr;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The instant `span_ms` milliseconds later.
    pub fn plus(self, span_ms: u64) -> Millis {
        Millis(self.0.saturating_add(span_ms))
    }

    /// Milliseconds from `earlier` to `self`; zero when the clock went back.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A job's id: the 26 characters of a ULID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId([u8; 26]);

impl JobId {
    /// No id is smaller.
    pub const MIN: JobId = JobId([b'0'; 26]);

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a JobId is made of ASCII letters and digits only")
    }
}

/// What [`JobId::from_str`] answers for a text that is no ULID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAJobId;

impl fmt::Display for NotAJobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job id has 26 characters out of 0-9 and A-Z")
    }
}

impl std::error::Error for NotAJobId {}

impl FromStr for JobId {
    type Err = NotAJobId;

    fn from_str(text: &str) -> Result<JobId, NotAJobId> {
        let bytes: [u8; 26] = text.as_bytes().try_into().map_err(|_| NotAJobId)?;
        let plain = |b: &u8| b.is_ascii_digit() || b.is_ascii_uppercase();
        if bytes.iter().all(plain) { Ok(JobId(bytes)) } else { Err(NotAJobId) }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Number of a chunk within its job, from 1. A chunk that is halved gives two new numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkNo(pub u32);

/// Number of an attempt within its chunk, from 1. Never used twice: it is part of the stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u16);

impl Attempt {
    /// The attempt after this one.
    pub fn next(self) -> Attempt {
        Attempt(self.0.saturating_add(1))
    }
}

/// Position of a request in its input, from 1, blank lines not counted. It is the key that
/// goes over the wire; the user's own key comes back from the input when answers are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub u64);

/// A run of rows, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// The first row.
    pub first: Row,
    /// The last row.
    pub last: Row,
}

impl Rows {
    /// How many rows the run spans.
    pub fn len(self) -> u64 {
        (self.last.0 + 1).saturating_sub(self.first.0)
    }

    /// Whether the run spans no row at all.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The last row of the first half.
    pub fn middle(self) -> Row {
        Row(self.first.0 + self.len().saturating_sub(1) / 2)
    }

    /// Whether `row` lies in the run.
    pub fn contains(self, row: Row) -> bool {
        self.first <= row && row <= self.last
    }
}

/// A batch at the API: `batches/…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchName(pub String);

/// A file at the API: `files/…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(pub String);

/// The mark that finds an attempt's batch again: it is the batch's display name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub String);

impl Stamp {
    /// What every stamp of this program starts with.
    pub const PREFIX: &'static str = "gemini-batchd/";

    /// The stamp of one attempt.
    pub fn new(job: JobId, chunk: ChunkNo, attempt: Attempt) -> Stamp {
        Stamp(format!("{}{job}/c{}/a{}", Stamp::PREFIX, chunk.0, attempt.0))
    }

    /// Whose stamp a text is; `None` for anything that is not exactly one.
    pub fn parse(text: &str) -> Option<(JobId, ChunkNo, Attempt)> {
        let mut parts = text.strip_prefix(Stamp::PREFIX)?.split('/');
        let job = parts.next()?.parse().ok()?;
        let chunk = ChunkNo(parts.next()?.strip_prefix('c')?.parse().ok()?);
        let attempt = Attempt(parts.next()?.strip_prefix('a')?.parse().ok()?);
        (Stamp::new(job, chunk, attempt).0 == text).then_some((job, chunk, attempt))
    }

    /// The id that the attempt's input file is given at the API: lower-case letters, digits
    /// and dashes, at most 40 characters (API contract, 7.1).
    pub fn file(job: JobId, chunk: ChunkNo, attempt: Attempt) -> FileName {
        let job = job.as_str().to_ascii_lowercase();
        FileName(format!("files/{job}-{:x}-{:x}", chunk.0, attempt.0))
    }

    /// Whose input file a file at the API is, by its name; `None` for anything that is not exactly
    /// one.
    pub fn parse_file(file: &FileName) -> Option<(JobId, ChunkNo, Attempt)> {
        let mut parts = file.0.strip_prefix("files/")?.split('-');
        let job = parts.next()?.to_ascii_uppercase().parse().ok()?;
        let chunk = ChunkNo(u32::from_str_radix(parts.next()?, 16).ok()?);
        let attempt = Attempt(u16::from_str_radix(parts.next()?, 16).ok()?);
        (Stamp::file(job, chunk, attempt) == *file).then_some((job, chunk, attempt))
    }
}

/// Ties an effect that was begun to the outcome that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);
