//! Inputs that can not be sent as they stand become lines that can: `prepared.jsonl` in the working
//! folder, which plan, bodies and merge then read in place of the input.
//!
//! One pass: the input's bytes go through a chain of readers ([`Recipe::open`]) until they are
//! lines or a document, and each request through a chain of mappers ([`Recipe::mappers`]). Line N
//! of the result stands for line N of the input; what is no request is a blank line, and one that
//! can not be prepared a fault line, of which planning makes an invalid row. The same input gives
//! the same bytes. The result is written aside, synced, and named when it is whole. Inputs that
//! need none of this never come here.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::body::blank_line_breaks;
use super::convert;
use super::defaults::Defaults;
use super::document::Document;
use super::forms::{self, Fault};
use super::index::LineFate;
use super::lines::{Lines, Piece};
use super::media::take::{Places, Take, TakeError};
use super::openai::translate::Translate;
use super::pass::Content;
use super::plan::{self, CutRules, PlanError, Positioned};
use super::problem::{Problem, too_long};
use super::shape::{self, Beginning, Shape};
use super::source::{self, Ending};
use super::steady::SteadyFile;
use super::{At, JobFolder, SpoolError, durable, fault_line, moment};
use crate::engine::job::{OpenAiLines, Queue};

/// Lines that were prepared, whole and synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Where they lie.
    pub path: PathBuf,
    /// What the input is that they were made of.
    pub content: Content,
    /// What the user should know although it is no failure.
    pub warnings: Vec<String>,
    /// Lines of it name files, which were taken.
    pub media: bool,
}

/// What has to be done to an input.
#[derive(Debug, Clone)]
pub struct Recipe<'a> {
    /// The name of the input.
    name: &'a str,
    /// The settings it is answered with.
    queue: &'a Queue,
    /// Where the files are that its lines name, if these are to be taken.
    media: Option<&'a Places>,
}

/// One step of what is done to each request.
pub trait Mapper {
    /// Writes what becomes of a line to `out`, which is empty; line breaks in it become blanks. A
    /// line that is no request of its kind is handed on as it is: planning says what is wrong with
    /// it.
    ///
    /// # Errors
    /// If this line can not be prepared, or nothing can.
    fn map(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), Unmapped>;
}

/// Why a line was not mapped.
#[derive(Debug)]
pub enum Unmapped {
    /// The line becomes an invalid row. Only fate and message count.
    Fault(Fault),
    /// Trying again may help.
    Spool(SpoolError),
}

impl<'a> Recipe<'a> {
    /// What has to be done to an input; `None` if it can be sent as it stands.
    pub fn of(name: &'a str, queue: &'a Queue) -> Option<Recipe<'a>> {
        let is_changed = queue.defaults.is_some() || queue.openai == OpenAiLines::Translate;
        let needed = is_changed || convert::is_needed(name);
        needed.then_some(Recipe { name, queue, media: None })
    }

    /// The same, or at least that files are taken which its lines name.
    pub fn taking(name: &'a str, queue: &'a Queue, media: &'a Places) -> Recipe<'a> {
        Recipe { name, queue, media: Some(media) }
    }

    /// The last step: files that lines name are taken. `target` is where the lines are written.
    fn take(&self, target: &Path) -> Result<Option<Take>, SpoolError> {
        let Some((places, folder)) = self.media.zip(target.parent()) else { return Ok(None) };
        Take::begin(&JobFolder { path: folder.to_owned() }, places).map(Some)
    }

    /// The bytes of the input as lines, or as a document.
    fn open<'f>(&self, input: impl Read + 'f, rules: &CutRules) -> io::Result<Box<dyn Read + 'f>> {
        let conversion = self.queue.conversion();
        let Queue { task, .. } = *self.queue;
        let line_bytes_max = rules.line_limit();
        convert::open(input, self.name, convert::Rules { conversion, task, line_bytes_max })
    }

    /// What the name of the input says of what [`Recipe::open`] gives.
    fn ending(&self) -> Ending {
        match source::ending(self.name) {
            Ending::Text | Ending::Table => Ending::Lines,
            ending @ (Ending::Lines | Ending::Document | Ending::Unknown) => ending,
        }
    }

    /// The steps for each request, in order.
    fn mappers(&self) -> Vec<Box<dyn Mapper>> {
        let mut mappers: Vec<Box<dyn Mapper>> = Vec::new();
        let Queue { model, task, .. } = self.queue;
        if self.queue.openai == OpenAiLines::Translate {
            mappers.push(Box::new(Translate::new(model, *task)));
        }
        if let Some(defaults) = &self.queue.defaults {
            mappers.push(Box::new(Defaults::new(defaults, model, *task)));
        }
        mappers
    }
}

/// Prepares the input of a job, anew if that was done before.
///
/// # Errors
/// See [`PlanError`].
pub fn prepare(
    folder: &JobFolder,
    recipe: &Recipe<'_>,
    rules: &CutRules,
) -> Result<Prepared, PlanError> {
    prepare_file(&folder.input(recipe.name), &folder.prepared(), recipe, rules)
}

/// Prepares any file, with the result wherever it is wanted.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_file(
    input: &Path,
    target: &Path,
    recipe: &Recipe<'_>,
    rules: &CutRules,
) -> Result<Prepared, PlanError> {
    let file = plan::open(input)?;
    let before = plan::identity(&file, input)?;
    let Done { content, warnings, media } =
        Work { input, target, recipe, rules, file: &file }.run()?;
    if plan::identity(&file, input)? != before {
        let error = io::Error::other("it was changed while it was being read; try again");
        return Err(error).at("prepare", input)?;
    }
    Ok(Prepared { path: target.to_owned(), content, warnings, media })
}

struct Work<'a> {
    input: &'a Path,
    target: &'a Path,
    recipe: &'a Recipe<'a>,
    rules: &'a CutRules,
    file: &'a File,
}

/// What came of it.
struct Done {
    content: Content,
    warnings: Vec<String>,
    media: bool,
}

impl Work<'_> {
    fn run(&self) -> Result<Done, PlanError> {
        let beginning = self.recipe.open(Positioned { file: self.file, at: 0 }, self.rules);
        let beginning = beginning.map_err(|error| plan::unread(error, self.input))?;
        let Beginning { start, shape } =
            shape::look(beginning, self.input, self.recipe.ending(), self.rules)?;
        if shape == Shape::Lines {
            return self.as_lines(start);
        }
        let mut writer = self.writer()?;
        match self.as_document(start, &mut writer) {
            Ok(_) if writer.line == 0 => Err(shape::empty_list()),
            Ok((content, warnings)) => {
                let media = writer.finish()?;
                Ok(Done { content, warnings, media })
            }
            // With a list begun it can be nothing else. Otherwise it may still be JSON Lines whose
            // first line is broken.
            Err(PlanError::Unusable(refusal)) if shape == Shape::Unclear && writer.line == 0 => {
                drop(writer);
                self.as_lines(start).map_err(|error| match error {
                    PlanError::Unusable(_) => PlanError::Unusable(refusal),
                    PlanError::Spool(_) | PlanError::NamesFiles => error,
                })
            }
            Err(error) => Err(error),
        }
    }

    fn as_lines(&self, start: u64) -> Result<Done, PlanError> {
        let mut writer = self.writer()?;
        let mut lines = Lines::new(start, self.rules.line_limit());
        let mut sink = |piece: Piece<'_>| writer.put(piece);
        let content = self.read(start, |block| lines.feed(block, &mut sink))?;
        lines.finish(&mut sink)?;
        let media = writer.finish()?;
        Ok(Done { content, warnings: Vec::new(), media })
    }

    fn as_document(
        &self,
        start: u64,
        writer: &mut Writer<'_>,
    ) -> Result<(Content, Vec<String>), PlanError> {
        let mut document = Document::new(start, self.rules.line_limit());
        let mut sink = |piece: Piece<'_>| writer.put(piece);
        let content = self.read(start, |block| document.feed(block, &mut sink))?;
        let warnings = shape::end_document(document, self.rules, &mut sink)?;
        Ok((content, warnings))
    }

    fn writer(&self) -> Result<Writer<'_>, SpoolError> {
        let take = self.recipe.take(self.target)?;
        Writer::create(self.target, self.recipe.mappers(), take, self.rules)
    }

    /// Reads the input through the chain, but for `start` bytes; answers with what the input is.
    fn read(
        &self,
        start: u64,
        mut feed: impl FnMut(&[u8]) -> Result<(), PlanError>,
    ) -> Result<Content, PlanError> {
        let mut summed =
            Summed { input: Positioned { file: self.file, at: 0 }, hash: Sha256::new(), bytes: 0 };
        let unread = |error| plan::unread(error, self.input);
        let mut chain = self.recipe.open(&mut summed, self.rules).map_err(unread)?;
        let mut block = vec![0; BLOCK_BYTES];
        let mut skip = start as usize;
        loop {
            let len = match chain.read(&mut block) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unread(error)),
            };
            let skipped = skip.min(len);
            skip -= skipped;
            feed(&block[skipped..len])?;
        }
        drop(chain);
        // Whatever the chain did not want is part of the file all the same.
        io::copy(&mut summed, &mut io::sink()).at("read", self.input)?;
        let sha256 = summed.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Content { sha256, bytes: summed.bytes })
    }
}

/// Reads an input and sums up what it reads.
struct Summed<'a> {
    input: Positioned<'a>,
    hash: Sha256,
    bytes: u64,
}

impl Read for Summed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        self.hash.update(&buffer[..len]);
        self.bytes += len as u64;
        Ok(len)
    }
}

/// The prepared lines while they are written aside. Dropped before they are whole, they leave
/// nothing behind.
struct Writer<'a> {
    target: &'a Path,
    aside: PathBuf,
    file: BufWriter<SteadyFile>,
    mappers: Vec<Box<dyn Mapper>>,
    take: Option<Take>,
    rules: &'a CutRules,
    /// Lines so far, and bytes.
    line: u64,
    bytes: u64,
    /// The line under way, and what the next mapper makes of it.
    now: Vec<u8>,
    next: Vec<u8>,
    whole: bool,
}

impl<'a> Writer<'a> {
    fn create(
        target: &'a Path,
        mappers: Vec<Box<dyn Mapper>>,
        take: Option<Take>,
        rules: &'a CutRules,
    ) -> Result<Writer<'a>, SpoolError> {
        let aside = durable::aside(target);
        let file = SteadyFile::new(File::create(&aside).at("write", &aside)?);
        let file = BufWriter::with_capacity(BLOCK_BYTES, file);
        let (now, next, line, bytes) = (Vec::new(), Vec::new(), 0, 0);
        let whole = false;
        Ok(Writer { target, aside, file, mappers, take, rules, line, bytes, now, next, whole })
    }

    /// Writes what becomes of a request.
    fn put(&mut self, piece: Piece<'_>) -> Result<(), PlanError> {
        let blank = piece.number.saturating_sub(self.line + 1);
        self.bytes += blank;
        match piece.bytes {
            Some(bytes) => match self.map(bytes, piece.number) {
                Ok(()) => {}
                Err(Unmapped::Fault(fault)) => self.fault(bytes, fault.fate, &fault.message),
                Err(Unmapped::Spool(error)) => return Err(error.into()),
            },
            None => self.fault(b"", LineFate::TooLong, &too_long(piece.len, self.rules)),
        }
        blank_line_breaks(&mut self.now);
        io::copy(&mut io::repeat(b'\n').take(blank), &mut self.file)
            .and_then(|_| self.file.write_all(&self.now))
            .and_then(|()| self.file.write_all(b"\n"))
            .at("write", &self.aside)?;
        self.line = piece.number;
        self.bytes += self.now.len() as u64 + 1;
        for buffer in [&mut self.now, &mut self.next] {
            // One long line must not cost its memory for the rest of the file.
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES);
        }
        Ok(())
    }

    fn map(&mut self, bytes: &[u8], number: u64) -> Result<(), Unmapped> {
        let breaks = memchr::memchr2(b'\n', b'\r', bytes).is_some();
        if breaks && serde_json::from_slice::<&RawValue>(bytes).is_err() {
            // As a blank, a line break within a string would no longer be a fault.
            if let Err(fault) = forms::examine(bytes, self.rules.wanted()) {
                let message = Problem::of(number, bytes, &fault).message;
                return Err(Unmapped::Fault(Fault { message, ..fault }));
            }
        }
        self.now.extend_from_slice(bytes);
        for mapper in &mut self.mappers {
            self.next.clear();
            mapper.map(&self.now, &mut self.next)?;
            std::mem::swap(&mut self.now, &mut self.next);
        }
        if let Some(take) = &mut self.take {
            self.next.clear();
            take.line(&self.now, self.bytes, &mut self.next).map_err(|error| match error {
                TakeError::Line { fate, message } => {
                    Unmapped::Fault(Fault::new(fate, None, message))
                }
                TakeError::Spool(error) => Unmapped::Spool(error),
            })?;
            std::mem::swap(&mut self.now, &mut self.next);
        }
        Ok(())
    }

    fn fault(&mut self, original: &[u8], fate: LineFate, message: &str) {
        self.now.clear();
        fault_line::write(original, fate, message, &mut self.now);
    }

    /// Syncs the lines and gives them their name; before that, the files that they name are where
    /// they are to be. Tells whether there are any.
    fn finish(mut self) -> Result<bool, SpoolError> {
        let media = self.take.take().map(Take::finish).transpose()?.unwrap_or(false);
        self.file.flush().at("write", &self.aside)?;
        self.file.get_mut().sync().at("sync", &self.aside)?;
        moment("prepare:written", self.target)?;
        durable::rename(&self.aside, self.target)?;
        self.whole = true;
        moment("prepare:named", self.target)?;
        Ok(media)
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if !self.whole {
            // Only tidiness, and room on a full disk: it would be written anew.
            drop(fs::remove_file(&self.aside));
        }
    }
}

impl From<SpoolError> for Unmapped {
    fn from(error: SpoolError) -> Unmapped {
        Unmapped::Spool(error)
    }
}

/// Bytes read or written at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// Bytes of a line's buffer that are kept from line to line.
const KEPT_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
