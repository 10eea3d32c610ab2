//! What is noted of a chunk whose rows are asked one by one.
//!
//! Two files of the attempt: in `.slices` stands which rows are about to be asked, synced before
//! they are; in `.rescue` the answers, as result lines, as they come. In the end the second becomes
//! the answers of the attempt, and is taken in like any other.
//!
//! Promises: no row is asked before that is durable. After a crash a row that was about to be asked
//! and has no answer is *uncertain*: counted, once, however often that happens to it. A line that a
//! crash tore is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::answer_lines::{AnswerLines, LINE_MAX};
use super::answers::{self, CollectError};
use super::judged::Judged;
use super::loose::cut;
use super::result_line::MESSAGE_MAX;
use super::{At, JobFolder, SpoolError, durable, moment};
use crate::engine::Which;
use crate::engine::event::Harvest;
use crate::engine::ids::{Attempt, Row};

/// The notes of an attempt under way.
pub struct RescueNotes {
    folder: JobFolder,
    which: Which,
    slices: Noted,
    answers: Noted,
    known: Known,
}

/// A file that only grows.
struct Noted {
    path: PathBuf,
    file: File,
}

/// What the notes say.
#[derive(Debug, Default)]
struct Known {
    /// Rows with an answer.
    answered: BTreeSet<Row>,
    /// Rows that were about to be asked, and of which nothing came back.
    open: BTreeSet<Row>,
    /// Rows of which nobody knew once whether they were asked.
    uncertain: BTreeSet<Row>,
    /// How often that was so, in all attempts at the chunk.
    lost: BTreeMap<Row, u32>,
}

impl RescueNotes {
    /// Goes on with what an earlier run of the attempt noted; `None` if it was taken in already.
    ///
    /// # Errors
    /// If files can not be read or written.
    pub fn open(folder: &JobFolder, which: &Which) -> Result<Option<RescueNotes>, SpoolError> {
        let kept = folder.answers(which.chunk, which.attempt);
        if fs::symlink_metadata(&kept).is_ok() {
            return Ok(None);
        }
        kept.parent().map_or(Ok(()), durable::make_folder)?;
        let mut known = Known::default();
        let mut notes = RescueNotes {
            slices: Noted::open(slices_of(&kept), |path| known.read_slices(path))?,
            answers: Noted::open(log_of(&kept), |path| known.read_answers(path))?,
            folder: folder.clone(),
            which: *which,
            known,
        };
        kept.parent().map_or(Ok(()), durable::sync_folder)?;
        let lost: Vec<Row> = notes.known.open.difference(&notes.known.answered).copied().collect();
        notes.known.open.clear();
        notes.uncertain(&lost)?;
        notes.known.lost = lost_before(folder, which)?;
        Ok(Some(notes))
    }

    /// Rows that have an answer already.
    pub fn answered(&self) -> &BTreeSet<Row> {
        &self.known.answered
    }

    /// How often each row was uncertain, in this attempt at the chunk and in all before it.
    pub fn lost(&self) -> &BTreeMap<Row, u32> {
        &self.known.lost
    }

    /// These rows are about to be asked: durable when this returns, with every answer so far.
    ///
    /// # Errors
    /// If it can not be written or synced; they must not be asked then.
    pub fn about_to_ask(&mut self, rows: &[Row]) -> Result<(), SpoolError> {
        self.answers.sync()?;
        self.slices.append(&note('S', rows))?;
        self.slices.sync()?;
        self.known.open.extend(rows);
        moment("rescue:intent", &self.slices.path)
    }

    /// These rows were not answered, and nothing is to be paid for them.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn turned_away(&mut self, rows: &[Row]) -> Result<(), SpoolError> {
        rows.iter().for_each(|row| {
            self.known.open.remove(row);
        });
        if rows.is_empty() { Ok(()) } else { self.slices.append(&note('N', rows)) }
    }

    /// Of these rows nobody knows whether they were answered.
    ///
    /// # Errors
    /// If it can not be written or synced.
    pub fn uncertain(&mut self, rows: &[Row]) -> Result<(), SpoolError> {
        if rows.is_empty() {
            return Ok(());
        }
        rows.iter().for_each(|row| {
            self.known.open.remove(row);
        });
        self.known.uncertain.extend(rows);
        self.slices.append(&note('U', rows))?;
        self.slices.sync()
    }

    /// Takes a row's answer: a response, on one line.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn answer(&mut self, row: Row, response: &[u8]) -> Result<(), SpoolError> {
        let mut line = format!("{{\"key\":\"{}\",\"response\":", row.0).into_bytes();
        line.extend_from_slice(response);
        self.take(row, line)
    }

    /// Takes why a row is not answered, and never will be.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn refuse(&mut self, row: Row, code: i32, message: &str) -> Result<(), SpoolError> {
        let message = serde_json::Value::from(cut(message, MESSAGE_MAX));
        let text =
            format!("{{\"key\":\"{}\",\"error\":{{\"code\":{code},\"message\":{message}}}", row.0);
        self.take(row, text.into_bytes())
    }

    fn take(&mut self, row: Row, mut line: Vec<u8>) -> Result<(), SpoolError> {
        line.extend_from_slice(b"}\n");
        // What could not be taken in must not be written: the row stays open.
        if line.len() > LINE_MAX || !self.known.answered.insert(row) {
            return Ok(());
        }
        self.known.open.remove(&row);
        self.answers.append(&line)?;
        moment("rescue:answered", &self.answers.path)
    }

    /// Ends the attempt: its answers are taken in. Tells how many of its rows were uncertain, too.
    ///
    /// # Errors
    /// If files can not be read, written or synced.
    pub fn finish(mut self) -> Result<(Harvest, u64), CollectError> {
        let left: Vec<Row> = self.known.open.iter().copied().collect();
        self.turned_away(&left)?;
        self.answers.sync()?;
        moment("rescue:synced", &self.answers.path)?;
        let kept = self.folder.answers(self.which.chunk, self.which.attempt);
        durable::rename(&self.answers.path, &kept)?;
        let harvest = answers::collect(&self.folder, &self.which, u64::MAX)?;
        Ok((harvest, self.known.uncertain.len() as u64))
    }
}

/// How often rows of a chunk were uncertain so far.
fn lost_before(folder: &JobFolder, which: &Which) -> Result<BTreeMap<Row, u32>, SpoolError> {
    let mut lost = BTreeMap::new();
    for attempt in (1..=which.attempt.0).map(Attempt) {
        let slices = slices_of(&folder.answers(which.chunk, attempt));
        let text = match fs::read_to_string(&slices) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).at("read", &slices),
        };
        let noted = text.lines().filter_map(|line| line.strip_prefix("U "));
        for row in noted.flat_map(|rows| rows.split(' ')).filter_map(|row| row.parse().ok()) {
            *lost.entry(Row(row)).or_default() += 1;
        }
    }
    Ok(lost)
}

/// Takes in again what an attempt brought, and how many of its rows were uncertain.
///
/// # Errors
/// If files can not be read or written.
pub fn taken_in(folder: &JobFolder, which: &Which) -> Result<(Harvest, u64), CollectError> {
    let kept = folder.answers(which.chunk, which.attempt);
    let mut known = Known::default();
    let slices = slices_of(&kept);
    if fs::symlink_metadata(&slices).is_ok() {
        known.read_slices(&slices)?;
    }
    Ok((answers::collect(folder, which, u64::MAX)?, known.uncertain.len() as u64))
}

impl Known {
    /// Answers how many bytes of the file are whole lines.
    fn read_slices(&mut self, path: &Path) -> Result<u64, SpoolError> {
        let text = fs::read(path).at("read", path)?;
        let whole = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
        for line in String::from_utf8_lossy(&text[..whole]).lines() {
            let mut words = line.split(' ');
            let kind = words.next();
            let rows = words.filter_map(|word| word.parse().ok().map(Row));
            match kind {
                Some("S") => self.open.extend(rows),
                Some("N") => rows.for_each(|row| _ = self.open.remove(&row)),
                Some("U") => rows.for_each(|row| {
                    self.open.remove(&row);
                    self.uncertain.insert(row);
                }),
                Some(_) | None => {}
            }
        }
        Ok(whole as u64)
    }

    /// The same for answers.
    fn read_answers(&mut self, path: &Path) -> Result<u64, SpoolError> {
        let mut lines = AnswerLines::open(path, u64::MAX)?;
        let mut whole = 0;
        while lines.advance()?.is_some() {
            // What a power cut left behind is no answer, and what follows it is not trusted.
            let Some(row) = Judged::read(&lines.line).and_then(|judged| judged.row) else { break };
            if !lines.ended {
                break;
            }
            self.answered.insert(row);
            whole = lines.next_start;
        }
        Ok(whole)
    }
}

impl Noted {
    /// Opens a file for more; `read` tells how much of it is whole, and the rest is dropped.
    fn open(
        path: PathBuf,
        read: impl FnOnce(&Path) -> Result<u64, SpoolError>,
    ) -> Result<Noted, SpoolError> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&path).at("open", &path)?;
        let whole = read(&path)?;
        if file.metadata().at("read", &path)?.len() > whole {
            file.set_len(whole).at("cut", &path)?;
        }
        Ok(Noted { path, file })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let len = self.file.metadata().at("read", &self.path)?.len();
        let written = self.file.write_all(bytes);
        if written.is_err() {
            // Half a line would spoil the next one; if this fails too, the next start cuts it.
            let _ = self.file.set_len(len);
        }
        written.at("write", &self.path)
    }

    fn sync(&mut self) -> Result<(), SpoolError> {
        self.file.sync_data().at("sync", &self.path)
    }
}

fn note(kind: char, rows: &[Row]) -> Vec<u8> {
    let mut text = String::from(kind);
    for row in rows {
        text.push(' ');
        text.push_str(&row.0.to_string());
    }
    text.push('\n');
    text.into_bytes()
}

fn slices_of(kept: &Path) -> PathBuf {
    kept.with_extension("slices")
}

fn log_of(kept: &Path) -> PathBuf {
    kept.with_extension("rescue")
}

/// The row and the request of a line as it would stand in an input file.
///
/// # Errors
/// If it is none.
pub fn request_of(line: &[u8]) -> io::Result<(Row, &[u8])> {
    let read = || {
        let rest = line.strip_prefix(b"{\"key\":\"")?;
        let end = memchr::memchr(b'"', rest)?;
        let row = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        let request = rest[end..].strip_prefix(b"\",\"request\":")?;
        Some((Row(row), request.strip_suffix(b"}\n")?))
    };
    read()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a row is not framed as it was"))
}
