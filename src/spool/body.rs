//! The bytes of a chunk as they go out, spliced from the input: never a copy on disk.
//!
//! Sent are the rows that are valid and still open, in input order, each in its frame. The same
//! rows give the same bytes as long as no outcome is written, so that an upload can go on at any
//! byte. Memory is a few hundred kilobytes, whatever the size of the chunk.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::frame::Frame;
use super::index::{IndexReader, LineEntry, LineFate, OutcomeEntry};
use super::source;
use super::{At, JobFolder, SpoolError};
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
}

impl Body {
    /// Counts the open rows among `rows` of the input `name`.
    ///
    /// # Errors
    /// If the indexes can not be read.
    pub fn open(
        folder: &JobFolder,
        name: &str,
        rows: Rows,
        frame: Frame,
    ) -> Result<Body, SpoolError> {
        let mut body = Body {
            input: folder.input(name),
            folder: folder.clone(),
            rows,
            frame,
            len: 0,
            count: 0,
        };
        let mut open = OpenRows::new(folder, rows)?;
        while let Some((row, entry)) = open.next()? {
            body.len += frame.len(row, body.count == 0, entry.request_len);
            body.count += 1;
        }
        Ok(body)
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
        let mut reader = BodyReader {
            open: OpenRows::new(&self.folder, self.rows)?,
            frame: self.frame,
            window: Window { file, start: 0, bytes: Vec::new() },
            row: None,
            first: true,
        };
        let mut skip = offset;
        while let Some((row, entry)) = reader.open.next()? {
            let len = self.frame.len(row, reader.first, entry.request_len);
            if skip < len {
                reader.begin(row, entry, skip);
                break;
            }
            skip -= len;
            reader.first = false;
        }
        Ok(reader)
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
    before: String,
    request: LineEntry,
    after: String,
    at: u64,
}

impl BodyReader {
    fn begin(&mut self, row: Row, request: LineEntry, at: u64) {
        let before = self.frame.before(row, self.first);
        self.row = Some(Framed { before, request, after: self.frame.after(row), at });
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
            copy(&self.before.as_bytes()[self.at as usize..], buffer)
        } else if self.at < before + request {
            let inside = self.at - before;
            let bytes =
                window.at(self.request.request_start + inside, (request - inside) as usize)?;
            let taken = copy(bytes, buffer);
            // Between the tokens of JSON a line break is a blank; inside a string none can be.
            for byte in &mut buffer[..taken] {
                if matches!(byte, b'\n' | b'\r') {
                    *byte = b' ';
                }
            }
            taken
        } else {
            let inside = (self.at - before - request) as usize;
            copy(&self.after.as_bytes()[inside..], buffer)
        };
        self.at += taken as u64;
        Ok(taken)
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
    bytes: Vec<u8>,
}

impl Window {
    /// Some of the `wanted` bytes at `start`, at least one.
    fn at(&mut self, start: u64, wanted: usize) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if start < self.start || start >= end {
            // Rows that follow one another are read in one go; a lone row costs little more
            // than itself.
            let near = start >= self.start && start - end.min(start) < NEAR_BYTES;
            let fill = if near { WINDOW_BYTES } else { wanted.clamp(LONE_BYTES, WINDOW_BYTES) };
            self.start = start;
            self.bytes.resize(fill, 0);
            let mut got = 0;
            while got < fill {
                match self.file.read_at(&mut self.bytes[got..], start + got as u64) {
                    Ok(0) => break,
                    Ok(more) => got += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        self.bytes.clear();
                        return Err(error);
                    }
                }
            }
            self.bytes.truncate(got);
            if got == 0 {
                let text = format!("the input ends before byte {start}: it was changed meanwhile");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
        }
        let from = (start - self.start) as usize;
        let to = from.saturating_add(wanted).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }
}

/// Goes through the rows that are to be sent.
struct OpenRows {
    lines: IndexReader<LineEntry>,
    outcomes: IndexReader<OutcomeEntry>,
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
            outcomes: open_index(&outcomes_path)?,
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
            let outcome = self.outcomes.get(row).at("read", &self.outcomes_path)?;
            if !outcome.verdict.is_open() {
                continue;
            }
            let entry = self.lines.get(row).at("read", &self.lines_path)?;
            if entry.fate == LineFate::Valid {
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

/// Bytes read at least for a row that stands alone.
const LONE_BYTES: usize = 8 * 1024;

/// Rows not further apart than this follow one another.
const NEAR_BYTES: u64 = 32 * 1024;
