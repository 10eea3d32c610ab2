//! The results of one attempt, taken in while they arrive.
//!
//! Lines gather in memory until there are 8 MiB of them; then they are judged, noted and written,
//! sorted by row, as one *run*. So the file that grows is at each run's end a permutation of what
//! the server has sent, a broken download goes on from there, and the merge finds a few dozen
//! ordered runs instead of chaos. Results that come in order, or that fit in one run, lie there
//! exactly as they came.
//!
//! Promises: what is built on after a crash is the end of a run, or, as long as there was none,
//! any beginning of the stream; it is read and judged again from the first byte. Nothing has its
//! final name before it is synced together with its outcomes. Memory is bounded by a run or the
//! longest line.

use std::fs::{self, File};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::answer_lines::{AnswerLines, LINE_MAX, Shape, is_blank};
use super::answers::CollectError;
use super::buffer::Buffer;
use super::judged::Judged;
use super::register::{Noted, Register};
use super::steady::SteadyFile;
use super::{At, JobFolder, SpoolError, durable, moment};
use crate::engine::Which;
use crate::engine::event::Harvest;

/// Takes in the results of one attempt.
pub struct Receiver {
    /// Where they grow: [`JobFolder::download`].
    path: PathBuf,
    /// Where they lie in the end: [`JobFolder::answers`].
    kept: PathBuf,
    mark: Mark,
    /// So many rows may lack a line; if any may, damaged lines are accepted too.
    missing_max: u64,
    register: Register,
    file: Option<SteadyFile>,
    /// Bytes of the file that are written and noted.
    written: u64,
    /// Lines of the file.
    lines_written: u64,
    /// What is not written yet.
    arena: Buffer,
    /// The lines in it.
    lines: Vec<Held>,
    /// Where the line begins that is not complete.
    open_at: usize,
}

/// A line in the arena.
struct Held {
    /// Its row, if it is one of the chunk's; otherwise it is sorted behind all others.
    order: u64,
    start: usize,
    /// With its newline.
    end: usize,
    /// `None` for lines that say nothing: blank ones, and damaged ones that are accepted.
    judged: Option<Judged>,
}

impl Receiver {
    /// Opens the indexes; what an interrupted run noted of this attempt is taken back.
    ///
    /// # Errors
    /// If they can not be read or written.
    pub fn open(
        folder: &JobFolder,
        which: &Which,
        missing_max: u64,
    ) -> Result<Receiver, SpoolError> {
        let path = folder.download(which.chunk, which.attempt);
        Ok(Receiver {
            kept: folder.answers(which.chunk, which.attempt),
            mark: Mark::beside(&path),
            path,
            missing_max,
            register: Register::open(folder, which)?,
            file: None,
            written: 0,
            lines_written: 0,
            arena: Buffer::default(),
            lines: Vec::new(),
            open_at: 0,
        })
    }

    /// Takes in what an earlier try left and tells how many bytes of the stream that is. What is
    /// damaged is not built on: then it is nothing.
    ///
    /// # Errors
    /// If files can not be read or written.
    pub fn resume(&mut self) -> Result<u64, SpoolError> {
        match self.read_kept(true) {
            Ok(Some(len)) => Ok(len),
            Ok(None) | Err(CollectError::Torn { .. } | CollectError::Short { .. }) => {
                self.restart()?;
                Ok(0)
            }
            Err(CollectError::Spool(error)) => Err(error),
        }
    }

    /// Forgets everything, on the disk too.
    ///
    /// # Errors
    /// If files can not be removed or the notes not taken back.
    pub fn restart(&mut self) -> Result<(), SpoolError> {
        self.file = None;
        // In this order: a mark without results counts for nothing.
        remove(&self.path)?;
        self.mark.remove()?;
        (self.written, self.lines_written) = (0, 0);
        self.forget_held();
        self.register.take_back()
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`CollectError::Torn`] for a line that is not JSON, unless damage is accepted.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), CollectError> {
        let mut from = self.arena.len();
        self.arena.extend_from_slice(bytes);
        while let Some(distance) = memchr::memchr(b'\n', &self.arena[from..]) {
            from += distance + 1;
            self.line(from)?;
        }
        if self.open_at >= RUN_BYTES || self.lines.len() >= RUN_LINES {
            self.mark.put(self.written)?;
            self.sort_held();
            self.write_run()?;
            self.mark.put(self.written)?;
        }
        Ok(())
    }

    /// Whether the stream may end here: not within a line, unless that is whole JSON.
    pub fn is_whole(&self) -> bool {
        let tail = &self.arena[self.open_at..];
        is_blank(tail) || serde_json::from_slice::<serde::de::IgnoredAny>(tail).is_ok()
    }

    /// Gives up for now: what has come is kept for a later try, nothing of it stays noted.
    ///
    /// # Errors
    /// If it can not be written or the notes not taken back.
    pub fn pause(&mut self) -> Result<(), SpoolError> {
        // As it came, so that also the beginning of a line can be built on.
        let written = match self.arena.is_empty() {
            true => Ok(()),
            false => self.write_as_it_came(),
        };
        let settled = self.file.take().map_or(Ok(()), |mut file| file.settle());
        if settled.is_err() {
            self.restart()?;
            return settled.at("sync", &self.path);
        }
        self.forget_held();
        self.register.take_back()?;
        written
    }

    /// Takes the results for whole: they are synced with their outcomes and get their final name.
    ///
    /// # Errors
    /// [`CollectError::Short`] if rows are missing, unless that is accepted. The caller calls
    /// [`Receiver::give_up`] after any error.
    pub fn finish(&mut self) -> Result<Harvest, CollectError> {
        if self.open_at < self.arena.len() {
            self.arena.extend_from_slice(b"\n");
            self.line(self.arena.len())?;
        }
        if self.mark.is_put() {
            self.mark.put(self.written)?;
            self.sort_held();
        }
        self.write_run()?;
        let harvest = self.register.harvest()?;
        if harvest.missing > self.missing_max {
            return Err(CollectError::Short { missing: harvest.missing });
        }
        moment("collect:written", &self.path)?;
        let synced = self.open_file()?.sync().at("sync", &self.path);
        if let Err(error) = synced.and_then(|()| self.register.sync()) {
            // A second sync would tell nothing of what the first could not write.
            self.restart()?;
            return Err(error.into());
        }
        moment("collect:synced", &self.path)?;
        self.register.keep_strays()?;
        durable::rename(&self.path, &self.kept)?;
        self.mark.remove()?;
        Ok(harvest)
    }

    /// Takes back whatever was noted; files stay as they are.
    ///
    /// # Errors
    /// If the outcomes can not be written.
    pub fn give_up(&mut self) -> Result<(), SpoolError> {
        self.register.take_back()
    }

    /// Reads the file of an earlier try: its length in the stream, or `None` if it is not to be
    /// built on. With `distrust`, that is so for zero bytes, which a power cut leaves behind.
    pub(super) fn read_kept(&mut self, distrust: bool) -> Result<Option<u64>, CollectError> {
        let len = match fs::metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && distrust => return Ok(None),
            Err(error) => return Err(error).at("read", &self.path).map_err(CollectError::from),
        };
        let len = match self.mark.get()? {
            Some(marked) if marked <= len => marked,
            Some(_) => return Ok(None),
            None => len,
        };
        let mut input = AnswerLines::open(&self.path, len)?;
        while let Some(shape) = input.advance()? {
            if distrust && memchr::memchr(0, &input.line).is_some() {
                return Ok(None);
            }
            if !input.ended && shape != Shape::TooLong {
                // Its end is still to come, and it is written again together with that.
                self.arena.extend_from_slice(&input.line);
                self.written = input.start;
                return Ok(Some(len));
            }
            self.read_again(&input, shape)?;
            (self.written, self.lines_written) = (input.next_start, input.number);
        }
        Ok(Some(len))
    }

    /// Notes a line that lies in the file already.
    fn read_again(&mut self, input: &AnswerLines, shape: Shape) -> Result<(), CollectError> {
        note_line(&mut self.register, input, shape, self.missing_max > 0, &self.path, true)
    }

    /// A line of the arena is complete; the next one begins at `end`.
    fn line(&mut self, end: usize) -> Result<(), CollectError> {
        let start = std::mem::replace(&mut self.open_at, end);
        let text = &self.arena[start..end - 1];
        let judged = if text.len() > LINE_MAX { None } else { Judged::read(text) };
        let is_told = judged.is_none() && !is_blank(text);
        if is_told && self.missing_max == 0 {
            return Err(CollectError::Torn {
                path: self.path.clone(),
                line: self.lines_written + self.lines.len() as u64 + 1,
                start: self.written + start as u64,
                problem: NO_OBJECT,
            });
        }
        let row = judged.and_then(|judged| judged.row);
        let row = row.filter(|row| self.register.concerns(*row));
        self.lines.push(Held { order: row.map_or(u64::MAX, |row| row.0), start, end, judged });
        Ok(())
    }

    /// Writes the lines of the arena as they are ordered and notes them where they come to lie.
    fn write_run(&mut self) -> Result<(), CollectError> {
        let lines = std::mem::take(&mut self.lines);
        let mut spans: Vec<Range<usize>> = Vec::new();
        let mut strays = Vec::new();
        let mut at = self.written;
        for line in &lines {
            let text = line.start..line.end - 1;
            let noted = match &line.judged {
                Some(judged) => self.register.note(judged, at, &self.arena[text.clone()])?,
                None if is_blank(&self.arena[text.clone()]) => Noted::Taken,
                None => {
                    self.register.count_unreadable();
                    Noted::Stray
                }
            };
            if noted == Noted::Stray {
                strays.push(text);
            }
            at += (line.end - line.start) as u64;
            match spans.last_mut() {
                Some(span) if span.end == line.start => span.end = line.end,
                Some(_) | None => spans.push(line.start..line.end),
            }
        }
        strays.sort_by_key(|text| text.start);
        for text in strays {
            self.register.keep_aside(&self.arena[text])?;
        }
        self.open_file()?;
        let file = self.file.as_mut().expect("it was opened just now");
        write_spans(file, &self.arena, &spans).at("write", &self.path)?;
        self.written = at;
        self.lines_written += lines.len() as u64;
        self.arena.drop_front(self.open_at, 2 * RUN_BYTES);
        self.open_at = 0;
        // Its room is used again.
        self.lines = lines;
        self.lines.clear();
        Ok(())
    }

    /// Orders the lines by row; the first of a row's lines stays the first.
    fn sort_held(&mut self) {
        if !self.lines.is_sorted_by_key(|line| line.order) {
            self.lines.sort_by_key(|line| line.order);
        }
    }

    fn write_as_it_came(&mut self) -> Result<(), SpoolError> {
        if self.mark.is_put() {
            self.mark.put(self.written)?;
        }
        let arena = std::mem::take(&mut self.arena);
        self.open_file()?.write_all(&arena).at("write", &self.path)?;
        self.written += arena.len() as u64;
        if self.mark.is_put() {
            self.mark.put(self.written)?;
        }
        Ok(())
    }

    /// The file, cut or continued where the last run ended.
    fn open_file(&mut self) -> Result<&mut SteadyFile, SpoolError> {
        if self.file.is_none() {
            let mut options = File::options();
            let file = options.create(true).write(true).truncate(false).open(&self.path);
            let mut file = file.at("write", &self.path)?;
            // Without a mark the file must stay a beginning of the stream, whenever we die.
            file.set_len(self.written).at("cut", &self.path)?;
            file.seek(SeekFrom::Start(self.written)).at("write", &self.path)?;
            self.file = Some(SteadyFile::new(file));
        }
        Ok(self.file.as_mut().expect("it is there by now"))
    }

    fn forget_held(&mut self) {
        self.arena = Buffer::default();
        self.lines.clear();
        self.open_at = 0;
    }
}

/// Notes a line of a result file, or says why it can not be accepted.
pub(super) fn note_line(
    register: &mut Register,
    input: &AnswerLines,
    shape: Shape,
    accept: bool,
    path: &Path,
    keeps_strays: bool,
) -> Result<(), CollectError> {
    let judged = match shape {
        Shape::Blank => return Ok(()),
        Shape::TooLong => None,
        Shape::Whole => Judged::read(&input.line),
    };
    let noted = match judged {
        Some(judged) => register.note(&judged, input.start, &input.line)?,
        None if accept => {
            register.count_unreadable();
            Noted::Stray
        }
        None => {
            let (line, start) = (input.number, input.start);
            let problem = if shape == Shape::TooLong { TOO_LONG } else { NO_OBJECT };
            return Err(CollectError::Torn { path: path.to_owned(), line, start, problem });
        }
    };
    if noted == Noted::Stray && keeps_strays {
        register.keep_aside(&input.line)?;
    }
    Ok(())
}

/// How much of a file of runs can be built on, in a small file beside it. Without one, all of it.
struct Mark {
    path: PathBuf,
    file: Option<File>,
}

impl Mark {
    fn beside(download: &Path) -> Mark {
        Mark { path: download.with_extension("resume"), file: None }
    }

    fn is_put(&self) -> bool {
        self.file.is_some()
    }

    /// What it says; 0 if it was left unfinished.
    fn get(&mut self) -> Result<Option<u64>, SpoolError> {
        let file = match File::options().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("open", &self.path),
        };
        let mut bytes = [0; 8];
        let read = file.read_at(&mut bytes, 0).at("read", &self.path)?;
        self.file = Some(file);
        Ok(Some(if read == bytes.len() { u64::from_le_bytes(bytes) } else { 0 }))
    }

    fn put(&mut self, len: u64) -> Result<(), SpoolError> {
        let made = self.file.is_none();
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut options = File::options();
                let file = options.create(true).truncate(true).read(true).write(true);
                file.open(&self.path).at("write", &self.path)?
            }
        };
        file.write_all_at(&len.to_le_bytes(), 0).at("write", &self.path)?;
        if made {
            // A power cut must not leave runs that look like the plain beginning of a stream.
            file.sync_all().at("sync", &self.path)?;
            self.path.parent().map_or(Ok(()), durable::sync_folder)?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn remove(&mut self) -> Result<(), SpoolError> {
        self.file = None;
        remove(&self.path)
    }
}

/// Writes pieces of a text one after the other, many at a time.
fn write_spans(file: &mut SteadyFile, text: &[u8], spans: &[Range<usize>]) -> io::Result<()> {
    for some in spans.chunks(SPANS_AT_ONCE) {
        let bytes: usize = some.iter().map(Range::len).sum();
        let pieces = some.iter().map(|span| &text[span.clone()]);
        if bytes / some.len() < SMALL_BYTES {
            // For the system each piece is work; copying these together is less.
            file.write_all(&pieces.collect::<Vec<_>>().concat())?;
            continue;
        }
        let mut slices: Vec<IoSlice<'_>> = pieces.map(IoSlice::new).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut left, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), SpoolError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at("remove", path),
    }
}

const NO_OBJECT: &str = "is not a whole JSON object";
const TOO_LONG: &str = "is longer than 128 MiB";

/// Bytes of a run, about.
const RUN_BYTES: usize = 8 * 1024 * 1024;

/// Lines of a run, at most.
const RUN_LINES: usize = 64 * 1024;

/// Pieces written at once; the system takes no more.
const SPANS_AT_ONCE: usize = 1024;

/// Pieces below this size are copied together before they are written, bytes.
const SMALL_BYTES: usize = 1024;
