//! Result lines read where the outcome index points, a window at a time.
//!
//! A result file is a sequence of runs, each ordered by row. Going through the rows reads all runs
//! at once, each from front to back: one window moves over each of them, and the system is told
//! what comes next. A line that continues nothing is read by itself, so that files in any order
//! cost no more than their lines. Memory is bounded by a budget or the longest line.

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};

use super::buffer::Buffer;
use super::index::OutcomeEntry;
use super::{At, JobFolder, SpoolError};
use crate::engine::ids::{Attempt, ChunkNo};

/// The result files of a job.
pub struct Windows {
    folder: JobFolder,
    /// A few open files, the one used last in front.
    files: Vec<(FileId, File)>,
    /// What is in memory, by file and offset.
    held: BTreeMap<(FileId, u64), Window>,
    /// Bytes of all windows.
    bytes: usize,
    /// Counts reads.
    now: u64,
}

type FileId = (ChunkNo, Attempt);

struct Window {
    bytes: Buffer,
    used: u64,
    /// Up to here the system was told that the file will be read.
    told: u64,
}

impl Windows {
    /// Reads the result files of a job.
    pub fn over(folder: &JobFolder) -> Windows {
        let (files, held) = (Vec::new(), BTreeMap::new());
        Windows { folder: folder.clone(), files, held, bytes: 0, now: 0 }
    }

    /// The result line of an outcome.
    ///
    /// # Errors
    /// If it can not be read.
    pub fn line(&mut self, outcome: &OutcomeEntry) -> Result<&[u8], SpoolError> {
        let id = (outcome.chunk, outcome.attempt);
        let (start, len) = (outcome.start, outcome.len as usize);
        self.now += 1;
        let before = self.held.range((id, 0)..=(id, start)).next_back();
        let found = before.map(|((_, at), window)| (*at, *at + window.bytes.len() as u64));
        let key = match found {
            Some((at, end)) if start + len as u64 <= end => (id, at),
            Some((at, end)) if start <= end + GAP_BYTES => {
                self.advance(id, at, start, len)?;
                (id, start)
            }
            Some(_) | None => {
                self.load(id, start, len, Buffer::default())?;
                (id, start)
            }
        };
        let window = self.held.get_mut(&key).expect("it was found or put there just now");
        window.used = self.now;
        let from = (start - key.1) as usize;
        // The path is only put together where it is needed: there are as many lines as rows.
        window.bytes.get(from..from + len).ok_or_else(|| SpoolError {
            action: "read",
            path: self.folder.answers(id.0, id.1),
            source: std::io::ErrorKind::UnexpectedEof.into(),
        })
    }

    /// Moves a window on to a line of `len` bytes at `start`.
    fn advance(&mut self, id: FileId, at: u64, start: u64, len: usize) -> Result<(), SpoolError> {
        let Some(Window { bytes, told, .. }) = self.held.remove(&(id, at)) else { return Ok(()) };
        self.bytes -= bytes.len();
        let share = BUDGET_BYTES / (self.held.len() + 1);
        let size = if share >= MOST_BYTES { MOST_BYTES } else { LEAST_BYTES };
        let size = len.max(size);
        self.load(id, start, size, bytes)?;
        let end = start + size as u64;
        // A line may be longer than what is told of in advance.
        let ahead = (AHEAD_BYTES / self.held.len() as u64).min(AHEAD_MOST_BYTES).max(size as u64);
        let Some(window) = self.held.get_mut(&(id, start)) else { return Ok(()) };
        window.told = told;
        if told < end + ahead / 2 {
            let from = told.max(end);
            window.told = end + ahead;
            if let Some((_, file)) = self.files.first() {
                // Advice: if it is not taken, reading is slower, and nothing else.
                let wanted = NonZeroU64::new(end + ahead - from);
                let _ = fadvise(file, from, wanted, Advice::WillNeed);
            }
        }
        Ok(())
    }

    /// Reads so many bytes, less at the end of the file.
    fn load(
        &mut self,
        id: FileId,
        start: u64,
        size: usize,
        mut buffer: Buffer,
    ) -> Result<(), SpoolError> {
        // Buffers from when there were few windows would add up.
        if buffer.capacity() > 2 * size {
            buffer = Buffer::default();
        }
        buffer.set_len(size);
        let path = self.folder.answers(id.0, id.1);
        let file = self.file(id)?;
        let mut filled = 0;
        while filled < size {
            match file.read_at(&mut buffer[filled..], start + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).at("read", &path),
            }
        }
        buffer.set_len(filled);
        self.bytes += filled;
        let window = Window { bytes: buffer, used: self.now, told: 0 };
        if let Some(before) = self.held.insert((id, start), window) {
            self.bytes -= before.bytes.len();
        }
        if self.bytes > BUDGET_BYTES || self.held.len() > WINDOWS_MAX {
            self.forget_half();
        }
        Ok(())
    }

    /// Forgets the windows that were not used for longest; never the one used now.
    fn forget_half(&mut self) {
        let mut used: Vec<u64> = self.held.values().map(|window| window.used).collect();
        let middle = used.len() / 2;
        let (_, oldest_kept, _) = used.select_nth_unstable(middle);
        let oldest_kept = *oldest_kept;
        self.held.retain(|_, window| window.used >= oldest_kept);
        self.bytes = self.held.values().map(|window| window.bytes.len()).sum();
    }

    fn file(&mut self, id: FileId) -> Result<&File, SpoolError> {
        match self.files.iter().position(|(other, _)| *other == id) {
            Some(0) => {}
            Some(at) => self.files[..=at].rotate_right(1),
            None => {
                let path = self.folder.answers(id.0, id.1);
                let file = File::open(&path).at("read", &path)?;
                self.files.truncate(FILES_MAX - 1);
                self.files.insert(0, (id, file));
            }
        }
        Ok(&self.files[0].1)
    }
}

/// Bytes of all windows, about.
const BUDGET_BYTES: usize = 20 * 1024 * 1024;

/// Windows held at once, at most.
const WINDOWS_MAX: usize = 1024;

/// Bytes of a window where there are many.
const LEAST_BYTES: usize = 64 * 1024;

/// Bytes of a window where there are few.
const MOST_BYTES: usize = 256 * 1024;

/// What the system is told of in advance, for all windows together and for one, bytes. It lies in
/// the page cache, not in our memory.
const AHEAD_BYTES: u64 = 64 * 1024 * 1024;
const AHEAD_MOST_BYTES: u64 = 2 * 1024 * 1024;

/// A line so far behind a window is still taken for the next one, bytes.
const GAP_BYTES: u64 = 4096;

/// Result files open at once.
const FILES_MAX: usize = 32;
