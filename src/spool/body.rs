//! The bytes of a chunk as they go out, spliced from the input: never a copy on disk.
//!
//! Sent are the rows that are valid and still open, in input order, each in its frame. The same
//! rows give the same bytes as long as no outcome is written, so that an upload can go on at any
//! byte. Memory is a few hundred kilobytes, whatever the size of the chunk, and a little for each
//! file that its rows name: the addresses of those are put in on the way ([`Body::with`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{Frame, Piece};
use super::index::{IndexReader, LineEntry, OutcomeEntry};
use super::media::addresses::Addresses;
use super::media::slots::{MediaId, Patch, Slots};
use super::source;
use super::{At, JobFolder, SpoolError, durable};
use crate::engine::ids::{Row, Rows};

/// The open rows of a chunk, ready to be read as often as needed.
#[derive(Debug, Clone)]
pub struct Body {
    input: PathBuf,
    folder: JobFolder,
    rows: Rows,
    frame: Frame,
    len: u64,
    count: u64,
    marks: Marks,
    addresses: Arc<Addresses>,
}

impl Body {
    /// Counts the open rows among `rows` of an input, or of its prepared lines.
    ///
    /// # Errors
    /// If the indexes can not be read.
    pub fn open(
        folder: &JobFolder,
        input: PathBuf,
        rows: Rows,
        frame: Frame,
    ) -> Result<Body, SpoolError> {
        let mut body = Body {
            input,
            folder: folder.clone(),
            rows,
            frame,
            len: 0,
            count: 0,
            marks: Marks::default(),
            addresses: Arc::default(),
        };
        let mut open = OpenRows::new(folder, rows)?;
        while let Some((row, entry)) = open.next()? {
            body.marks.pass(body.count, Mark { row, offset: body.len });
            let frame = frame.for_row(entry.fate);
            body.len += frame.len(row, body.count == 0, entry.request_len);
            body.count += 1;
        }
        Ok(body)
    }

    /// The same rows, with the addresses of the files that they name. Without them such rows can
    /// not be read.
    pub fn with(&self, addresses: Arc<Addresses>) -> Body {
        Body { addresses, ..self.clone() }
    }

    /// The files that the rows name, each with the first row that does.
    ///
    /// # Errors
    /// If the indexes can not be read.
    pub fn media(&self) -> Result<BTreeMap<MediaId, Row>, SpoolError> {
        let mut named = BTreeMap::new();
        self.each_named(|media, row| {
            named.entry(media).or_insert(row);
        })?;
        Ok(named)
    }

    /// Calls `each` with every file that a row names, and the row.
    ///
    /// # Errors
    /// If the indexes can not be read.
    pub fn each_named(&self, mut each: impl FnMut(MediaId, Row)) -> Result<(), SpoolError> {
        let Some(mut slots) = self.slots()? else { return Ok(()) };
        let mut open = OpenRows::new(&self.folder, self.rows)?;
        while let Some((row, entry)) = open.next()? {
            let end = entry.request_start + u64::from(entry.request_len);
            slots.within(entry.request_start, end, |slot| each(slot.media, row))?;
        }
        Ok(())
    }

    /// Bytes on the wire.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no row is open.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Open rows.
    pub fn rows(&self) -> u64 {
        self.count
    }

    /// Reads from any byte on, without reading the input up to there.
    ///
    /// # Errors
    /// If the input or the indexes can not be opened.
    pub fn reader(&self, offset: u64) -> Result<BodyReader, SpoolError> {
        let file = source::reopen(&self.input).at("open", &self.input)?;
        let mark = self.marks.before(offset).unwrap_or(Mark { row: self.rows.first, offset: 0 });
        let rows = Rows { first: mark.row, ..self.rows };
        let mut reader = BodyReader {
            open: OpenRows::new(&self.folder, rows)?,
            frame: self.frame,
            window: Window::over(file),
            row: None,
            first: mark.offset == 0,
        };
        reader.window.patch =
            self.slots()?.map(|slots| Patch::new(slots, Arc::clone(&self.addresses)));
        let mut skip = offset - mark.offset;
        while let Some((row, entry)) = reader.open.next()? {
            let frame = self.frame.for_row(entry.fate);
            let len = frame.len(row, reader.first, entry.request_len);
            if skip < len {
                reader.begin(row, entry, skip);
                break;
            }
            skip -= len;
            reader.first = false;
        }
        Ok(reader)
    }

    fn slots(&self) -> Result<Option<Slots>, SpoolError> {
        let is_prepared = self.input == self.folder.prepared();
        if is_prepared { Slots::open(&self.folder.slots()) } else { Ok(None) }
    }

    /// The row at a position among the open ones, from 1: what the API means by a line number.
    ///
    /// # Errors
    /// If the indexes can not be read.
    pub fn row_at(&self, position: u64) -> Result<Option<Row>, SpoolError> {
        let mut open = OpenRows::new(&self.folder, self.rows)?;
        let mut number = 0;
        while let Some((row, _)) = open.next()? {
            number += 1;
            if number == position {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}

/// Reads a body. An error says that the input is not what it was when it was planned.
pub struct BodyReader {
    open: OpenRows,
    frame: Frame,
    window: Window,
    row: Option<Framed>,
    first: bool,
}

/// A row under way.
struct Framed {
    before: Piece,
    request: LineEntry,
    after: Piece,
    at: u64,
}

impl BodyReader {
    /// Reads the first chunk of an input that is still being planned, as lines of a file; as far as
    /// [`BodyReader::grow`] tells. It reads what [`Body::reader`] reads once the plan is there,
    /// whatever else that finds.
    ///
    /// # Errors
    /// If the input or its index can not be opened.
    pub fn growing(folder: &JobFolder, input: &Path) -> Result<BodyReader, SpoolError> {
        let lines = durable::aside(&folder.lines());
        let file = source::reopen(input).at("open", input)?;
        let index = File::open(&lines).at("open", &lines)?;
        let open = OpenRows {
            lines: IndexReader::growing(index),
            outcomes: None,
            lines_path: lines,
            outcomes_path: folder.outcomes(),
            next: 1,
            last: 0,
        };
        let window = Window::over(file);
        Ok(BodyReader { open, frame: Frame::FileLine, window, row: None, first: true })
    }

    /// The rows up to this one are part of the chunk. Whoever has read to the end before can read
    /// on.
    pub fn grow(&mut self, last: Row) {
        self.open.lines.grow(last.0);
        self.open.last = self.open.last.max(last.0);
    }

    fn begin(&mut self, row: Row, request: LineEntry, at: u64) {
        let frame = self.frame.for_row(request.fate);
        let before = frame.before(row, self.first);
        self.row = Some(Framed { before, request, after: frame.after(row), at });
        self.first = false;
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.row.is_none()
                && let Some((row, entry)) = self.open.next().map_err(io::Error::other)?
            {
                self.begin(row, entry, 0);
            }
            let Some(row) = &mut self.row else { break };
            let taken = row.read(&mut self.window, &mut buffer[filled..])?;
            filled += taken;
            if taken == 0 {
                self.row = None;
            }
        }
        Ok(filled)
    }
}

impl Framed {
    /// Reads on in this row; 0 at its end.
    fn read(&mut self, window: &mut Window, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.before.len() as u64;
        let request = u64::from(self.request.request_len);
        let taken = if self.at < before {
            copy(&self.before[self.at as usize..], buffer)
        } else if self.at < before + request {
            let inside = self.at - before;
            let wanted = buffer.len().min((request - inside) as usize);
            let taken = window.read(self.request.request_start + inside, &mut buffer[..wanted])?;
            blank_line_breaks(&mut buffer[..taken]);
            taken
        } else {
            let inside = (self.at - before - request) as usize;
            copy(&self.after[inside..], buffer)
        };
        self.at += taken as u64;
        Ok(taken)
    }
}

/// Between the tokens of JSON a line break is a blank; inside a string none can be. Most inputs
/// have none within a request.
pub(super) fn blank_line_breaks(bytes: &mut [u8]) {
    let Some(first) = memchr::memchr2(b'\n', b'\r', bytes) else { return };
    for byte in &mut bytes[first..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

/// Places in a body from which it can be read on: a bounded number, whatever its length.
#[derive(Debug, Clone)]
struct Marks {
    kept: Vec<Mark>,
    /// Rows from mark to mark.
    step: u64,
}

/// Where a row stands in a body.
#[derive(Debug, Clone, Copy)]
struct Mark {
    row: Row,
    offset: u64,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks { kept: Vec::new(), step: 256 }
    }
}

impl Marks {
    /// Keeps the place of a row, with `passed` rows before it, if it is its turn.
    fn pass(&mut self, passed: u64, mark: Mark) {
        if passed < self.kept.len() as u64 * self.step {
            return;
        }
        self.kept.push(mark);
        if self.kept.len() == MARKS_MAX {
            // Every second one stays, the first among them.
            let mut stays = false;
            self.kept.retain(|_| {
                stays = !stays;
                stays
            });
            self.step *= 2;
        }
    }

    /// The last one at or before a byte.
    fn before(&self, offset: u64) -> Option<Mark> {
        let after = self.kept.partition_point(|mark| mark.offset <= offset);
        self.kept.get(after.checked_sub(1)?).copied()
    }
}

/// A part of the input in memory.
struct Window {
    file: File,
    start: u64,
    bytes: Box<[u8]>,
    /// So many of them are part of the input.
    len: usize,
    /// Where the last read ended.
    last: u64,
    /// Puts addresses in, if lines name files.
    patch: Option<Patch>,
}

impl Window {
    fn over(file: File) -> Window {
        Window { file, start: 0, bytes: Box::default(), len: 0, last: 0, patch: None }
    }

    /// Reads some of the bytes at `start`, at least one, unless `buffer` is empty.
    fn read(&mut self, start: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let near = start.checked_sub(self.last).is_some_and(|gap| gap < NEAR_BYTES);
        let held = start.checked_sub(self.start).filter(|at| *at < self.len as u64);
        let taken = match held {
            Some(at) => copy(&self.bytes[at as usize..self.len], buffer),
            // Long rows go where they are wanted, without a stop in between.
            None if buffer.len() >= LONG_BYTES => source::fill(&self.file, buffer, start)?,
            None => {
                if self.bytes.is_empty() {
                    self.bytes = vec![0; WINDOW_BYTES].into_boxed_slice();
                }
                // Rows that follow one another are read in one go; a lone row costs little more
                // than itself.
                let size = if near { WINDOW_BYTES } else { buffer.len().max(LONE_BYTES) };
                (self.start, self.len) = (start, 0);
                self.len =
                    source::fill(&self.file, &mut self.bytes[..size.min(WINDOW_BYTES)], start)?;
                copy(&self.bytes[..self.len], buffer)
            }
        };
        if taken == 0 {
            let text = format!("the input ends before byte {start}: it was changed meanwhile");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.last = start + taken as u64;
        if let Some(patch) = &mut self.patch {
            patch.apply(start, &mut buffer[..taken]).map_err(io::Error::other)?;
        }
        Ok(taken)
    }
}

/// Goes through the rows that are to be sent.
struct OpenRows {
    lines: IndexReader<LineEntry>,
    /// Without it every row is open that can be sent.
    outcomes: Option<IndexReader<OutcomeEntry>>,
    lines_path: PathBuf,
    outcomes_path: PathBuf,
    next: u64,
    last: u64,
}

impl OpenRows {
    fn new(folder: &JobFolder, rows: Rows) -> Result<OpenRows, SpoolError> {
        let (lines_path, outcomes_path) = (folder.lines(), folder.outcomes());
        Ok(OpenRows {
            lines: open_index(&lines_path)?,
            outcomes: Some(open_index(&outcomes_path)?),
            lines_path,
            outcomes_path,
            next: rows.first.0,
            last: rows.last.0,
        })
    }

    fn next(&mut self) -> Result<Option<(Row, LineEntry)>, SpoolError> {
        while self.next <= self.last {
            let row = Row(self.next);
            self.next += 1;
            if let Some(outcomes) = &mut self.outcomes
                && !outcomes.get(row).at("read", &self.outcomes_path)?.verdict.is_open()
            {
                continue;
            }
            let entry = self.lines.get(row).at("read", &self.lines_path)?;
            if entry.fate.is_sent() {
                return Ok(Some((row, entry)));
            }
        }
        Ok(None)
    }
}

fn open_index<E: super::index::Entry>(path: &Path) -> Result<IndexReader<E>, SpoolError> {
    File::open(path).and_then(IndexReader::new).at("read", path)
}

/// Bytes read at once where rows follow one another.
const WINDOW_BYTES: usize = 256 * 1024;

/// A part of a row that is at least as long as this is not read along with its neighbours.
const LONG_BYTES: usize = 32 * 1024;

/// Places kept for reading on, at most.
const MARKS_MAX: usize = 1024;

/// Bytes read at least for a row that stands alone.
const LONE_BYTES: usize = 8 * 1024;

/// Rows not further apart than this follow one another.
const NEAR_BYTES: u64 = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stay_few_and_the_nearest_one_before_a_byte_is_found() {
        let mut marks = Marks::default();
        let rows = 3_000_000;
        for row in 0..rows {
            marks.pass(row, Mark { row: Row(row + 5), offset: row * 10 });
            assert!(marks.kept.len() < MARKS_MAX);
        }
        for offset in [0, 9, 10, 12_345_678, rows * 10 - 1, rows * 20] {
            let mark = marks.before(offset).expect("the first row is marked");
            assert_eq!(mark.offset, (mark.row.0 - 5) * 10);
            assert!(mark.offset <= offset);
            let near = offset.min(rows * 10) - mark.offset;
            assert!(near <= marks.step * 10, "{near} bytes before {offset}");
        }
        assert!(Marks::default().before(7).is_none());
    }
}
