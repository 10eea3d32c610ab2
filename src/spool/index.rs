//! The two index files of a job: where each row stands in the input, and what came of it.
//!
//! Both hold one record of fixed size per row, so that row N is found by arithmetic and memory
//! does not grow with the input. `lines.idx` is written once while planning; `outcomes.idx` is
//! filled as results are collected. Together they cost 38 bytes a row.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use crate::engine::ids::{Attempt, ChunkNo, Row};
use crate::engine::job::Family;
use crate::engine::verdict::Verdict;

/// Where a row's request and key stand in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineEntry {
    /// Byte offset of the request; of the whole line, if the row is invalid.
    pub request_start: u64,
    /// Length of the request in bytes; of the whole line, if the row is invalid.
    pub request_len: u32,
    /// The user's key, as JSON text; `None` if the row has none.
    pub key: Option<KeySpan>,
    /// Number of the line in the input, from 1, blank lines counted. In a `.json` file that holds
    /// a list: the number of the request.
    pub line: u32,
    /// Whether the row can be sent.
    pub fate: LineFate,
}

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpan {
    /// Byte offset in the input.
    pub start: u64,
    /// Length in bytes, quotes included. A key beyond 65,534 bytes makes the row invalid.
    pub len: u16,
}

/// Whether a row can be sent, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LineFate {
    /// Goes out.
    Valid = 0,
    /// Not JSON.
    InvalidJson = 1,
    /// JSON, but no request: wrong type, or no form we know.
    NotARequest = 2,
    /// Longer than the limit for one line.
    TooLong = 3,
    /// Not UTF-8.
    InvalidUtf8 = 4,
    /// Names another model than the queue.
    OtherModel = 5,
    /// A key that is neither a string nor a number, or is too long.
    BadKey = 6,
    /// A form that belongs to another task, such as an embedding in a generate queue.
    OtherTask = 7,
    /// Names a file that is not there.
    MediaMissing = 8,
    /// Names a file outside of the folders that are allowed.
    MediaOutside = 9,
    /// Names a file that can not be sent.
    MediaUnusable = 10,
    /// Goes out as a chat of the OpenAI batch format.
    Chat = 11,
    /// Goes out as an embedding of the OpenAI batch format.
    Embeddings = 12,
}

impl LineFate {
    /// Whether the row goes out.
    pub fn is_sent(self) -> bool {
        matches!(self, LineFate::Valid | LineFate::Chat | LineFate::Embeddings)
    }

    /// Whose request a row is that goes out.
    pub fn family(self) -> Family {
        match self {
            LineFate::Chat | LineFate::Embeddings => Family::OpenAi,
            LineFate::Valid
            | LineFate::InvalidJson
            | LineFate::NotARequest
            | LineFate::TooLong
            | LineFate::InvalidUtf8
            | LineFate::OtherModel
            | LineFate::BadKey
            | LineFate::OtherTask
            | LineFate::MediaMissing
            | LineFate::MediaOutside
            | LineFate::MediaUnusable => Family::Native,
        }
    }

    /// The reason word used in errors and manifest.
    pub fn reason(self) -> &'static str {
        match self {
            LineFate::Valid | LineFate::Chat | LineFate::Embeddings => "valid",
            LineFate::InvalidJson => "invalid_json",
            LineFate::NotARequest => "invalid_request",
            LineFate::TooLong => "line_too_long",
            LineFate::InvalidUtf8 => "invalid_utf8",
            LineFate::OtherModel => "other_model",
            LineFate::BadKey => "invalid_key",
            LineFate::OtherTask => "other_task",
            LineFate::MediaMissing => "media_missing",
            LineFate::MediaOutside => "media_outside",
            LineFate::MediaUnusable => "media_unusable",
        }
    }

    /// The fate of a row that can not be sent, by its reason word.
    pub fn of_reason(word: &str) -> Option<LineFate> {
        let mut invalid = LineFate::ALL.iter().filter(|fate| !fate.is_sent());
        invalid.find(|fate| fate.reason() == word).copied()
    }

    fn from_u8(number: u8) -> Option<LineFate> {
        LineFate::ALL.get(usize::from(number)).copied()
    }

    /// Every fate, each at the place of its number.
    const ALL: &[LineFate] = &[
        LineFate::Valid,
        LineFate::InvalidJson,
        LineFate::NotARequest,
        LineFate::TooLong,
        LineFate::InvalidUtf8,
        LineFate::OtherModel,
        LineFate::BadKey,
        LineFate::OtherTask,
        LineFate::MediaMissing,
        LineFate::MediaOutside,
        LineFate::MediaUnusable,
        LineFate::Chat,
        LineFate::Embeddings,
    ];
}

/// What came of a row, and where its result line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomeEntry {
    /// What it means.
    pub verdict: Verdict,
    /// The chunk whose result file holds the line.
    pub chunk: ChunkNo,
    /// The attempt whose result file holds the line.
    pub attempt: Attempt,
    /// Byte offset of the result line in that file.
    pub start: u64,
    /// Length of the result line without its newline; below 2^28.
    pub len: u32,
    /// Where in the line the response stands; `None` if the line has to be read to find out.
    pub within: Option<Within>,
    /// What became of the limit that its request sets.
    pub raise: Raise,
}

/// How far the token limit of a row's own request was raised, since its answers were cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Raise {
    /// How often the limit had been doubled when the row was sent, at most [`Raise::TIMES_MAX`].
    pub times: u8,
    /// That was too little: the next time it is doubled once more.
    pub due: bool,
}

impl Raise {
    /// What fits into a record.
    pub const TIMES_MAX: u8 = 7;

    /// How often the limit is doubled when the row is sent the next time.
    pub fn next(self) -> u8 {
        (self.times + u8::from(self.due)).min(Raise::TIMES_MAX)
    }
}

/// Where in a result line its response stands, if little stands around it. Such a line was read
/// whole once and has nothing unusual in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    /// Bytes of the line before the response; never 0.
    pub before: u8,
    /// Bytes of the line after the response, below [`Within::AFTER_END`].
    pub after: u8,
}

impl Within {
    /// What does not fit into a record.
    pub const AFTER_END: u8 = 32;
}

/// A record of fixed size.
pub trait Entry: Sized {
    /// Bytes of one record.
    const SIZE: usize;
    /// Writes the record; `out` has [`Entry::SIZE`] bytes.
    fn encode(&self, out: &mut [u8]);
    /// Reads the record back; `None` if the bytes are none of ours.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl Entry for LineEntry {
    const SIZE: usize = 22;

    fn encode(&self, out: &mut [u8]) {
        let (key_at, key_len) = match self.key {
            None => (0, NO_KEY),
            Some(key) => (key.start.wrapping_sub(self.request_start) as u32, key.len),
        };
        put(out, 0, 6, self.request_start);
        put(out, 6, 4, u64::from(self.request_len));
        put(out, 10, 4, u64::from(key_at));
        put(out, 14, 2, u64::from(key_len));
        put(out, 16, 5, u64::from(self.line));
        put(out, 21, 1, self.fate as u64);
    }

    fn decode(bytes: &[u8]) -> Option<LineEntry> {
        let request_start = get(bytes, 0, 6);
        let key_len = get(bytes, 14, 2) as u16;
        // The distance is signed: a key may stand before or after its request.
        let key_at = get(bytes, 10, 4) as u32 as i32;
        let key = (key_len != NO_KEY).then(|| KeySpan {
            start: request_start.wrapping_add_signed(i64::from(key_at)),
            len: key_len,
        });
        Some(LineEntry {
            request_start,
            request_len: get(bytes, 6, 4) as u32,
            key,
            line: get(bytes, 16, 5) as u32,
            fate: LineFate::from_u8(bytes[21])?,
        })
    }
}

impl Entry for OutcomeEntry {
    const SIZE: usize = 16;

    fn encode(&self, out: &mut [u8]) {
        let (before, after) = self.within.map_or((0, 0), |at| (at.before, at.after));
        put(out, 0, 5, self.start);
        out[5] = before;
        let raise = u64::from(self.raise.times) << LEN_BITS | u64::from(self.raise.due) << DUE_BIT;
        put(out, 6, 4, u64::from(self.len) | raise);
        put(out, 10, 3, u64::from(self.chunk.0));
        put(out, 13, 2, u64::from(self.attempt.0));
        out[15] = self.verdict as u8 | after << VERDICT_BITS;
    }

    fn decode(bytes: &[u8]) -> Option<OutcomeEntry> {
        // Older records have zeroes in place of both: no result file is as long as a terabyte.
        let (before, after) = (bytes[5], bytes[15] >> VERDICT_BITS);
        // Nor is a line as long as to need all bits of its length.
        let len = get(bytes, 6, 4);
        let times = (len >> LEN_BITS) as u8 & Raise::TIMES_MAX;
        Some(OutcomeEntry {
            start: get(bytes, 0, 5),
            len: (len & ((1 << LEN_BITS) - 1)) as u32,
            chunk: ChunkNo(get(bytes, 10, 3) as u32),
            attempt: Attempt(get(bytes, 13, 2) as u16),
            verdict: Verdict::from_u8(bytes[15] & ((1 << VERDICT_BITS) - 1))?,
            within: (before > 0).then_some(Within { before, after }),
            raise: Raise { times, due: len >> DUE_BIT == 1 },
        })
    }
}

/// Reads records of one index file, one after the other or anywhere.
pub struct IndexReader<E> {
    file: File,
    count: u64,
    window: Vec<u8>,
    window_first: u64,
    entry: std::marker::PhantomData<E>,
}

impl<E: Entry> IndexReader<E> {
    /// Reads from an open index file.
    ///
    /// # Errors
    /// If the size of the file can not be told.
    pub fn new(file: File) -> io::Result<IndexReader<E>> {
        let count = file.metadata()?.len() / E::SIZE as u64;
        Ok(IndexReader { count, ..IndexReader::growing(file) })
    }

    /// Reads from a file that is still being written: nothing, until [`IndexReader::grow`] tells how
    /// far it is.
    pub fn growing(file: File) -> IndexReader<E> {
        IndexReader {
            file,
            count: 0,
            window: Vec::new(),
            window_first: 0,
            entry: std::marker::PhantomData,
        }
    }

    /// The file has so many rows now, which can be read by anybody.
    pub fn grow(&mut self, rows: u64) {
        self.count = self.count.max(rows);
    }

    /// How many rows the file has.
    pub fn rows(&self) -> u64 {
        self.count
    }

    /// The record of a row. Neighbours are read along with it, so going through rows in
    /// ascending order is cheap.
    ///
    /// # Errors
    /// If the row is not in the file, or what stands there is not a record of ours.
    pub fn get(&mut self, row: Row) -> io::Result<E> {
        let at = row.0.checked_sub(1).filter(|at| *at < self.count).ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("row {} is not indexed", row.0))
        })?;
        let held = (self.window.len() / E::SIZE) as u64;
        if at < self.window_first || at >= self.window_first + held {
            let fill = (self.count - at).min(WINDOW_ROWS);
            self.window.resize(fill as usize * E::SIZE, 0);
            self.window_first = at;
            if let Err(error) = self.file.read_exact_at(&mut self.window, at * E::SIZE as u64) {
                self.window.clear();
                return Err(error);
            }
        }
        let from = (at - self.window_first) as usize * E::SIZE;
        E::decode(&self.window[from..from + E::SIZE]).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("record of row {} is damaged", row.0),
            )
        })
    }
}

/// Appends a record to a buffered writer.
///
/// # Errors
/// As the writer's.
pub fn append<E: Entry>(writer: &mut impl Write, entry: &E) -> io::Result<()> {
    let mut record = [0_u8; 32];
    entry.encode(&mut record[..E::SIZE]);
    writer.write_all(&record[..E::SIZE])
}

/// Writes the record of one row in place.
///
/// # Errors
/// As the file's.
pub fn write_at<E: Entry>(file: &File, row: Row, entry: &E) -> io::Result<()> {
    let mut record = [0_u8; 32];
    entry.encode(&mut record[..E::SIZE]);
    file.write_all_at(&record[..E::SIZE], (row.0 - 1) * E::SIZE as u64)
}

fn put(out: &mut [u8], at: usize, len: usize, value: u64) {
    out[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
}

fn get(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut wide = [0_u8; 8];
    wide[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(wide)
}

/// Bits of the last byte of an outcome that hold the verdict.
const VERDICT_BITS: u32 = 3;

/// Bits of the length of a line that hold it; those above hold [`Raise::times`].
const LEN_BITS: u32 = 28;

/// The bit above them all, for [`Raise::due`].
const DUE_BIT: u32 = 31;

/// Rows read at once by [`IndexReader::get`].
const WINDOW_ROWS: u64 = 4096;

/// Key length that says: no key.
const NO_KEY: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_entry_comes_back_as_written_with_its_key_on_either_side() {
        for key_start in [90_u64, 7_000_000_000_000] {
            let entry = LineEntry {
                request_start: 7_000_000_000_100,
                request_len: 64_000_000,
                key: Some(KeySpan { start: key_start.max(7_000_000_000_000), len: 12 }),
                line: 4_000_000_000,
                fate: LineFate::Valid,
            };
            let mut bytes = [0_u8; LineEntry::SIZE];
            entry.encode(&mut bytes);
            assert_eq!(LineEntry::decode(&bytes), Some(entry));
        }
    }

    #[test]
    fn an_outcome_comes_back_as_written_whatever_its_verdict() {
        let places = [
            None,
            Some(Within { before: 1, after: 0 }),
            Some(Within { before: 255, after: Within::AFTER_END - 1 }),
        ];
        for (number, within) in (0..=7).flat_map(|number| places.map(|place| (number, place))) {
            let verdict = Verdict::from_u8(number).expect("0 to 7 are verdicts");
            let (chunk, attempt) = (ChunkNo(0xff_ffff), Attempt(u16::MAX));
            let (start, len) = ((1 << 40) - 1, (1 << LEN_BITS) - 1);
            let raise = Raise { times: number, due: number.is_multiple_of(2) };
            let entry = OutcomeEntry { verdict, chunk, attempt, start, len, within, raise };
            let mut bytes = [0_u8; OutcomeEntry::SIZE];
            entry.encode(&mut bytes);
            assert_eq!(OutcomeEntry::decode(&bytes), Some(entry));
        }
    }

    #[test]
    fn outcomes_of_older_versions_are_read() {
        let bytes = [1, 2, 3, 4, 0, 0, 9, 0, 0, 0, 7, 0, 0, 2, 0, 6];
        let entry = OutcomeEntry::decode(&bytes).expect("a record");
        assert_eq!((entry.start, entry.len, entry.within), (0x0403_0201, 9, None));
        assert_eq!(entry.raise, Raise::default());
        assert_eq!((entry.chunk, entry.attempt), (ChunkNo(7), Attempt(2)));
        assert_eq!(entry.verdict, Verdict::Retryable);
    }

    #[test]
    fn an_unwritten_outcome_reads_as_open() {
        let entry = OutcomeEntry::decode(&[0; OutcomeEntry::SIZE]).expect("zeroes are a record");
        assert_eq!(entry.verdict, Verdict::Open);
    }

    #[test]
    fn rows_are_found_in_any_order() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        let count = WINDOW_ROWS * 2 + 10;
        for n in 1..=count {
            let entry = OutcomeEntry {
                verdict: Verdict::Answered,
                chunk: ChunkNo(3),
                attempt: Attempt(2),
                start: n * 10,
                len: 9,
                within: None,
                raise: Raise::default(),
            };
            append(&mut file, &entry).expect("written");
        }
        let mut reader = IndexReader::<OutcomeEntry>::new(file).expect("opened");
        for n in [1, count, WINDOW_ROWS, WINDOW_ROWS + 1, 5] {
            assert_eq!(reader.get(Row(n)).expect("indexed").start, n * 10);
        }
        assert!(reader.get(Row(count + 1)).is_err());
        assert!(reader.get(Row(0)).is_err());
    }
}
