//! The bytes of a chunk as they go out, spliced from the input: never a copy on disk.
//!
//! Sent are the rows that are valid and still open, in input order, each in its frame, and with a
//! higher limit if its answer was cut off. The same rows give the same bytes as long as no outcome
//! is written, so that an upload can go on at any byte. Memory is a few hundred kilobytes, whatever
//! the size of the chunk, and a little for each file that its rows name: the addresses of those are
//! put in on the way ([`Body::with`]). A request whose limit is raised is read whole, one at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{Frame, Piece};
use super::index::{IndexReader, LineEntry, LineFate, OutcomeEntry};
use super::marks::{Mark, Marks};
use super::media::addresses::Addresses;
use super::media::slots::{MediaId, Patch, Slots};
use super::raise::{self, Splice};
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
    tokens_max: u32,
    len: u64,
    count: u64,
    marks: Marks,
    addresses: Arc<Addresses>,
}

impl Body {
    /// Counts the open rows among `rows` of an input, or of its prepared lines. Limits of rows that
    /// were cut off are raised to `tokens_max` at most.
    ///
    /// # Errors
    /// If the indexes can not be read, or the input where it must be.
    pub fn open(
        folder: &JobFolder,
        input: PathBuf,
        rows: Rows,
        frame: Frame,
        tokens_max: u32,
    ) -> Result<Body, SpoolError> {
        let mut body = Body {
            input,
            folder: folder.clone(),
            rows,
            frame,
            tokens_max,
            len: 0,
            count: 0,
            marks: Marks::default(),
            addresses: Arc::default(),
        };
        let mut open = body.open_rows(rows)?;
        while let Some(OpenRow { row, request }) = open.next()? {
            body.marks.pass(body.count, Mark { row, offset: body.len });
            let frame = frame.for_row(request.entry.fate);
            body.len += frame.len(row, body.count == 0, request.len());
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
        let mut open = self.open_rows(self.rows)?;
        while let Some(OpenRow { row, request: Request { entry, .. } }) = open.next()? {
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
            open: self.open_rows(rows)?,
            frame: self.frame,
            window: Window::over(file),
            row: None,
            first: mark.offset == 0,
        };
        reader.window.patch =
            self.slots()?.map(|slots| Patch::new(slots, Arc::clone(&self.addresses)));
        let mut skip = offset - mark.offset;
        while let Some(next) = reader.open.next()? {
            let frame = self.frame.for_row(next.request.entry.fate);
            let len = frame.len(next.row, reader.first, next.request.len());
            if skip < len {
                reader.begin(next, skip);
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
        let mut open = self.open_rows(self.rows)?;
        let mut number = 0;
        while let Some(OpenRow { row, .. }) = open.next()? {
            number += 1;
            if number == position {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn open_rows(&self, rows: Rows) -> Result<OpenRows, SpoolError> {
        let (lines_path, outcomes_path) = (self.folder.lines(), self.folder.outcomes());
        Ok(OpenRows {
            lines: open_index(&lines_path)?,
            outcomes: Some(open_index(&outcomes_path)?),
            lines_path,
            outcomes_path,
            input: self.input.clone(),
            tokens_max: self.tokens_max,
            next: rows.first.0,
            last: rows.last.0,
        })
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
    request: Request,
    after: Piece,
    at: u64,
}

/// A request as it goes out.
struct Request {
    entry: LineEntry,
    /// What goes out otherwise than it was written.
    splice: Option<Splice>,
}

impl Request {
    /// Bytes that go out.
    fn len(&self) -> u32 {
        let len = self.entry.request_len;
        self.splice
            .as_ref()
            .map_or(len, |splice| len - splice.at.len() as u32 + splice.text.len() as u32)
    }

    /// Reads some of the bytes from `at` on, at least one.
    fn read(&self, at: u64, window: &mut Window, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(Splice { at: cut, text }) = &self.splice else {
            return self.read_written(at, u64::from(self.entry.request_len), window, buffer);
        };
        let (start, len) = (cut.start as u64, text.len() as u64);
        if at < start {
            self.read_written(at, start, window, buffer)
        } else if at < start + len {
            Ok(copy(&text.as_bytes()[(at - start) as usize..], buffer))
        } else {
            let at = at - start - len + cut.end as u64;
            self.read_written(at, u64::from(self.entry.request_len), window, buffer)
        }
    }

    /// Reads what stands in the input between two bytes of the request.
    fn read_written(
        &self,
        at: u64,
        end: u64,
        window: &mut Window,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let wanted = buffer.len().min((end - at) as usize);
        let taken = window.read(self.entry.request_start + at, &mut buffer[..wanted])?;
        blank_line_breaks(&mut buffer[..taken]);
        Ok(taken)
    }
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
            input: input.to_owned(),
            // Of what was never sent nothing was cut off.
            tokens_max: 0,
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

    fn begin(&mut self, OpenRow { row, request }: OpenRow, at: u64) {
        let frame = self.frame.for_row(request.entry.fate);
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
                && let Some(next) = self.open.next().map_err(io::Error::other)?
            {
                self.begin(next, 0);
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
        let request = u64::from(self.request.len());
        let taken = if self.at < before {
            copy(&self.before[self.at as usize..], buffer)
        } else if self.at < before + request {
            self.request.read(self.at - before, window, buffer)?
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
    input: PathBuf,
    tokens_max: u32,
    next: u64,
    last: u64,
}

/// A row that is to be sent.
struct OpenRow {
    row: Row,
    request: Request,
}

impl OpenRows {
    fn next(&mut self) -> Result<Option<OpenRow>, SpoolError> {
        while self.next <= self.last {
            let row = Row(self.next);
            self.next += 1;
            let mut times = 0;
            if let Some(outcomes) = &mut self.outcomes {
                let outcome = outcomes.get(row).at("read", &self.outcomes_path)?;
                if !outcome.verdict.is_open() {
                    continue;
                }
                times = outcome.raise.next();
            }
            let entry = self.lines.get(row).at("read", &self.lines_path)?;
            if entry.fate.is_sent() {
                // A line of the OpenAI batch format keeps the limit that it has.
                let raised = times > 0 && entry.fate == LineFate::Valid;
                let splice = if raised { self.splice(&entry, times)? } else { None };
                return Ok(Some(OpenRow { row, request: Request { entry, splice } }));
            }
        }
        Ok(None)
    }

    /// How the request of a row that was cut off is changed.
    fn splice(&self, entry: &LineEntry, times: u8) -> Result<Option<Splice>, SpoolError> {
        let request = source::request(&self.input, entry)?;
        Ok(raise::raised(&request, times, self.tokens_max))
    }
}

fn open_index<E: super::index::Entry>(path: &Path) -> Result<IndexReader<E>, SpoolError> {
    File::open(path).and_then(IndexReader::new).at("read", path)
}

/// Bytes read at once where rows follow one another.
const WINDOW_BYTES: usize = 256 * 1024;

/// A part of a row that is at least as long as this is not read along with its neighbours.
const LONG_BYTES: usize = 32 * 1024;

/// Bytes read at least for a row that stands alone.
const LONE_BYTES: usize = 8 * 1024;

/// Rows not further apart than this follow one another.
const NEAR_BYTES: u64 = 32 * 1024;
