//! The lines of a result file that lies on the disk.
//!
//! One at a time, so that memory is bounded by the longest line; one that is too long to be taken
//! in is passed over.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{At, SpoolError};

/// The lines of a file.
pub struct AnswerLines {
    path: PathBuf,
    file: BufReader<std::io::Take<File>>,
    /// The line read last, without its newline; its beginning only, if it is too long.
    pub line: Vec<u8>,
    /// Byte offset of that line.
    pub start: u64,
    /// Its number, from 1.
    pub number: u64,
    /// Where the next one begins.
    pub next_start: u64,
    /// Whether it ended with a newline.
    pub ended: bool,
}

/// What kind of line was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One with something in it.
    Whole,
    /// One without anything but blanks.
    Blank,
    /// One that is longer than [`LINE_MAX`].
    TooLong,
}

impl AnswerLines {
    /// Reads the first `len` bytes of a file.
    ///
    /// # Errors
    /// If it can not be opened.
    pub fn open(path: &Path, len: u64) -> Result<AnswerLines, SpoolError> {
        let file = File::open(path).at("read", path)?;
        let file = BufReader::with_capacity(READ_BYTES, file.take(len));
        let (line, path) = (Vec::new(), path.to_owned());
        Ok(AnswerLines { path, file, line, start: 0, number: 0, next_start: 0, ended: false })
    }

    /// Reads the next line; `None` at the end.
    ///
    /// # Errors
    /// If it can not be read.
    pub fn advance(&mut self) -> Result<Option<Shape>, SpoolError> {
        self.line.clear();
        self.line.shrink_to(4 * READ_BYTES);
        self.start = self.next_start;
        self.number += 1;
        self.ended = false;
        while !self.ended {
            let held = self.file.fill_buf().at("read", &self.path)?;
            if held.is_empty() {
                break;
            }
            let end = memchr::memchr(b'\n', held);
            let take = end.unwrap_or(held.len());
            let room = LINE_MAX + 1 - self.line.len().min(LINE_MAX + 1);
            self.line.extend_from_slice(&held[..take.min(room)]);
            let used = end.map_or(take, |end| end + 1);
            self.next_start += used as u64;
            self.file.consume(used);
            self.ended = end.is_some();
        }
        if self.next_start == self.start {
            return Ok(None);
        }
        if self.line.len() > LINE_MAX {
            self.line.truncate(STRAY_MAX);
            return Ok(Some(Shape::TooLong));
        }
        Ok(Some(if is_blank(&self.line) { Shape::Blank } else { Shape::Whole }))
    }
}

/// Whether there is nothing but blanks.
pub fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// Longest result line taken in, bytes.
pub const LINE_MAX: usize = 128 * 1024 * 1024;

/// What is kept of a line beyond that, bytes.
const STRAY_MAX: usize = 64 * 1024;
