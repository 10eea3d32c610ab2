//! The input of a merge: keys and requests as the user wrote them.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde_json::value::RawValue;

use super::{Member, Output, PIECE_BYTES};
use crate::spool::body::blank_line_breaks;
use crate::spool::index::{LineEntry, LineFate};
use crate::spool::openai::line;
use crate::spool::{At, SpoolError, source};

/// The input of the job, read where the line index points.
pub struct Input {
    path: PathBuf,
    file: File,
    piece: Vec<u8>,
    /// A stretch of the input in which the next keys are, where rows are short.
    window: Vec<u8>,
    window_start: u64,
}

impl Input {
    pub fn open(path: PathBuf) -> Result<Input, SpoolError> {
        let file = File::open(&path).at("read", &path)?;
        Ok(Input { path, file, piece: Vec::new(), window: Vec::new(), window_start: 0 })
    }

    /// The user's key as written; `"line-N"` if the row has none.
    pub fn key(&mut self, entry: &LineEntry, key: &mut Vec<u8>) -> Result<(), SpoolError> {
        key.clear();
        let Some(span) = entry.key else {
            return write!(key, "\"line-{}\"", entry.line).at("read", &self.path);
        };
        let len = usize::from(span.len);
        if u64::from(entry.request_len) > SPARSE_BYTES {
            key.resize(len, 0);
            return self.file.read_exact_at(key, span.start).at("read", &self.path);
        }
        let end = self.window_start + self.window.len() as u64;
        if span.start < self.window_start || span.start + len as u64 > end {
            let size = len.max(WINDOW_BYTES) as u64;
            self.window.clear();
            self.window_start = span.start;
            self.window.resize(size as usize, 0);
            let count = source::fill(&self.file, &mut self.window, span.start);
            self.window.truncate(count.at("read", &self.path)?);
        }
        let from = (span.start - self.window_start) as usize;
        let found = self.window.get(from..from + len);
        let missing = || io::Error::from(io::ErrorKind::UnexpectedEof);
        key.extend_from_slice(found.ok_or_else(missing).at("read", &self.path)?);
        Ok(())
    }

    /// Writes the request of a failed row on one line; `null` if there is no telling that it is
    /// JSON.
    pub fn copy_request(&mut self, entry: &LineEntry, to: &mut Output) -> Result<(), SpoolError> {
        let (start, left) = match entry.fate {
            LineFate::InvalidJson | LineFate::TooLong | LineFate::InvalidUtf8 => {
                return to.write(&[b"null"]);
            }
            LineFate::Valid | LineFate::Chat | LineFate::Embeddings => {
                (entry.request_start, u64::from(entry.request_len))
            }
            LineFate::NotARequest
            | LineFate::OtherModel
            | LineFate::BadKey
            | LineFate::OtherTask
            | LineFate::MediaMissing
            | LineFate::MediaOutside
            | LineFate::MediaUnusable => self.request_within(entry)?,
        };
        self.copy(start, left, to)
    }

    /// Writes what an OpenAI line holds beside its id, and the end of the line: so it can be dropped
    /// into the inbox again.
    pub fn copy_openai(&mut self, entry: &LineEntry, to: &mut Output) -> Result<(), SpoolError> {
        let url = match entry.fate {
            LineFate::Chat => line::CHAT,
            LineFate::Embeddings => line::EMBEDDINGS,
            LineFate::InvalidJson | LineFate::TooLong | LineFate::InvalidUtf8 => {
                return to.write(&[b",\"body\":null}\n"]);
            }
            LineFate::Valid
            | LineFate::NotARequest
            | LineFate::OtherModel
            | LineFate::BadKey
            | LineFate::OtherTask
            | LineFate::MediaMissing
            | LineFate::MediaOutside
            | LineFate::MediaUnusable => {
                for (name, (start, left)) in self.openai_members(entry)? {
                    to.write(&[b",\"", name.as_bytes(), b"\":"])?;
                    self.copy(start, left, to)?;
                }
                return to.write(&[b"}\n"]);
            }
        };
        to.write(&[b",\"method\":\"POST\",\"url\":\"", url.as_bytes(), b"\",\"body\":"])?;
        self.copy(entry.request_start, u64::from(entry.request_len), to)?;
        to.write(&[b"}\n"])
    }

    /// Where the members of an invalid line stand that make it one in the OpenAI batch format; the
    /// whole line as its `body`, if it has none of them.
    pub fn openai_members(&mut self, entry: &LineEntry) -> Result<Vec<Member>, SpoolError> {
        let mut line = vec![0; entry.request_len as usize];
        self.file.read_exact_at(&mut line, entry.request_start).at("read", &self.path)?;
        let place = |raw: &RawValue| {
            let distance = raw.get().as_ptr().addr() - line.as_ptr().addr();
            (entry.request_start + distance as u64, raw.get().len() as u64)
        };
        let mut found: Vec<Member> =
            line::members(&line).map(|(name, raw)| (name, place(raw))).collect();
        if found.is_empty() {
            found.push(("body", (entry.request_start, u64::from(entry.request_len))));
        }
        Ok(found)
    }

    /// Copies a stretch of the input, on one line.
    pub fn copy(
        &mut self,
        mut start: u64,
        mut left: u64,
        to: &mut Output,
    ) -> Result<(), SpoolError> {
        while left > 0 {
            let size = left.min(PIECE_BYTES as u64) as usize;
            self.piece.resize(size, 0);
            self.file.read_exact_at(&mut self.piece, start).at("read", &self.path)?;
            blank_line_breaks(&mut self.piece);
            to.write(&[&self.piece])?;
            start += size as u64;
            left -= size as u64;
        }
        Ok(())
    }

    /// Where in the whole line of an invalid row its `request` stands, so that the errors can be
    /// dropped into the inbox again; the whole line, if there is none in it.
    pub fn request_within(&mut self, entry: &LineEntry) -> Result<(u64, u64), SpoolError> {
        #[derive(serde::Deserialize)]
        struct Line<'a> {
            #[serde(borrow)]
            request: &'a serde_json::value::RawValue,
        }
        let mut line = vec![0; entry.request_len as usize];
        self.file.read_exact_at(&mut line, entry.request_start).at("read", &self.path)?;
        let whole = (entry.request_start, u64::from(entry.request_len));
        let Ok(Line { request }) = serde_json::from_slice::<Line<'_>>(&line) else {
            return Ok(whole);
        };
        let request = request.get();
        let distance = request.as_ptr().addr() - line.as_ptr().addr();
        Ok((entry.request_start + distance as u64, request.len() as u64))
    }
}

/// Bytes of the input in which keys are looked up at once.
const WINDOW_BYTES: usize = 64 * 1024;

/// Beyond so many bytes of a request its key is read by itself, since little else of the stretch
/// would be used.
const SPARSE_BYTES: u64 = 2048;
