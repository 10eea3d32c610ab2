//! The outcome index while the results of one chunk are taken in.
//!
//! Result lines may come in any order, so records are read and written in place, through a small
//! cache of pages (4 MiB at most, whatever the number of rows). Only records of the chunk's own
//! rows are ever written: other chunks of the job may be collected at the same time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::index::{Entry, IndexReader, LineEntry, OutcomeEntry, Raise};
use super::{At, JobFolder, SpoolError};
use crate::engine::ids::{Attempt, ChunkNo, Row, Rows};
use crate::engine::verdict::Verdict;

/// The outcomes of one run of rows, opened for change.
pub struct Outcomes {
    file: File,
    path: PathBuf,
    rows: Rows,
    slots: Vec<Option<Page>>,
    /// Something was written since the last sync.
    unsynced: bool,
}

struct Page {
    no: u64,
    bytes: Vec<u8>,
    dirty: bool,
}

impl Outcomes {
    /// Opens the outcomes of `rows`; the file is made or extended if planning left it short.
    ///
    /// # Errors
    /// If it can not be opened, or the rows are not indexed.
    pub fn open(folder: &JobFolder, rows: Rows) -> Result<Outcomes, SpoolError> {
        let path = folder.outcomes();
        let indexed = open_lines(folder)?.rows();
        if rows.first.0 == 0 || rows.last.0 > indexed {
            let text = format!("rows {} to {} of {indexed}", rows.first.0, rows.last.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text)).at("index", &path);
        }
        let file = open_file(folder, indexed)?;
        let slots = (0..SLOTS).map(|_| None).collect();
        Ok(Outcomes { file, path, rows, slots, unsynced: false })
    }

    /// What is known of a row.
    ///
    /// # Errors
    /// If it can not be read, or what stands there is not a record of ours.
    pub fn get(&mut self, row: Row) -> Result<OutcomeEntry, SpoolError> {
        let (page, at) = self.page(row)?;
        let entry = OutcomeEntry::decode(&page.bytes[at..at + OutcomeEntry::SIZE]);
        let damaged = || io::Error::other(format!("record of row {} is damaged", row.0));
        entry.ok_or_else(damaged).at("read", &self.path)
    }

    /// Changes what is known of a row; durable after [`Outcomes::sync`].
    ///
    /// # Errors
    /// If the file can not be read or written.
    pub fn set(&mut self, row: Row, entry: &OutcomeEntry) -> Result<(), SpoolError> {
        let (page, at) = self.page(row)?;
        entry.encode(&mut page.bytes[at..at + OutcomeEntry::SIZE]);
        page.dirty = true;
        self.unsynced = true;
        Ok(())
    }

    /// Makes every change durable; without one there is nothing to do.
    ///
    /// # Errors
    /// If the file can not be written or synced.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        for slot in 0..self.slots.len() {
            self.write_back(slot)?;
        }
        if self.unsynced {
            self.file.sync_data().at("sync", &self.path)?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn page(&mut self, row: Row) -> Result<(&mut Page, usize), SpoolError> {
        debug_assert!(self.rows.contains(row), "only rows of the chunk are looked up");
        let distance = row.0 - self.rows.first.0;
        let no = distance / PAGE_ROWS;
        let slot = (no % SLOTS) as usize;
        if self.slots[slot].as_ref().is_none_or(|page| page.no != no) {
            self.write_back(slot)?;
            let count = PAGE_ROWS.min(self.rows.len() - no * PAGE_ROWS);
            let mut bytes = vec![0; count as usize * OutcomeEntry::SIZE];
            self.file.read_exact_at(&mut bytes, self.offset(no)).at("read", &self.path)?;
            self.slots[slot] = Some(Page { no, bytes, dirty: false });
        }
        let page = self.slots[slot].as_mut().expect("the page was put there just now");
        Ok((page, (distance % PAGE_ROWS) as usize * OutcomeEntry::SIZE))
    }

    fn write_back(&mut self, slot: usize) -> Result<(), SpoolError> {
        if let Some(page) = self.slots[slot].as_ref().filter(|page| page.dirty) {
            self.file.write_all_at(&page.bytes, self.offset(page.no)).at("write", &self.path)?;
        }
        if let Some(page) = &mut self.slots[slot] {
            page.dirty = false;
        }
        Ok(())
    }

    fn offset(&self, page: u64) -> u64 {
        (self.rows.first.0 - 1 + page * PAGE_ROWS) * OutcomeEntry::SIZE as u64
    }
}

/// Opens the line index for reading.
///
/// # Errors
/// If it can not be opened.
pub fn open_lines(folder: &JobFolder) -> Result<IndexReader<LineEntry>, SpoolError> {
    let path = folder.lines();
    File::open(&path).and_then(IndexReader::new).at("read", &path)
}

/// Opens the outcome index for reading, all rows of it. It is made or extended if planning left
/// it short: rows nothing is known of are open.
///
/// # Errors
/// If it can not be opened or extended.
pub fn open_outcomes(
    folder: &JobFolder,
    rows: u64,
) -> Result<IndexReader<OutcomeEntry>, SpoolError> {
    IndexReader::new(open_file(folder, rows)?).at("read", &folder.outcomes())
}

fn open_file(folder: &JobFolder, rows: u64) -> Result<File, SpoolError> {
    let path = folder.outcomes();
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.at("open", &path)?;
    let size = rows * OutcomeEntry::SIZE as u64;
    if file.metadata().at("read", &path)?.len() < size {
        file.set_len(size).at("extend", &path)?;
    }
    Ok(file)
}

/// A row that nothing is known of.
pub const OPEN: OutcomeEntry = OutcomeEntry {
    verdict: Verdict::Open,
    chunk: ChunkNo(0),
    attempt: Attempt(0),
    start: 0,
    len: 0,
    within: None,
    raise: Raise { times: 0, due: false },
};

/// Rows of a page: 4 KiB.
const PAGE_ROWS: u64 = 256;

/// Pages held at once.
const SLOTS: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::index::{LineFate, append};

    fn folder_of(rows: u64) -> (tempfile::TempDir, JobFolder) {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = JobFolder { path: temp.path().to_owned() };
        let mut file = std::io::BufWriter::new(File::create(folder.lines()).expect("created"));
        let line = LineEntry {
            request_start: 0,
            request_len: 2,
            key: None,
            line: 1,
            fate: LineFate::Valid,
        };
        (0..rows).for_each(|_| append(&mut file, &line).expect("written"));
        drop(file.into_inner().expect("flushed"));
        (temp, folder)
    }

    fn entry(start: u64) -> OutcomeEntry {
        let (chunk, attempt) = (ChunkNo(1), Attempt(1));
        OutcomeEntry { verdict: Verdict::Answered, chunk, attempt, start, len: 1, ..OPEN }
    }

    #[test]
    fn more_pages_than_are_held_come_back_as_written() {
        // Stepping over more pages than there are slots pushes each out many times.
        let count = PAGE_ROWS * (SLOTS + 3);
        let (_temp, folder) = folder_of(count);
        let mut outcomes =
            Outcomes::open(&folder, Rows { first: Row(1), last: Row(count) }).expect("opened");
        let step = PAGE_ROWS * SLOTS;
        for first in 1..=PAGE_ROWS {
            for row in (first..=count).step_by(step as usize) {
                outcomes.set(Row(row), &entry(row)).expect("set");
            }
        }
        outcomes.sync().expect("synced");
        let mut reader = open_outcomes(&folder, count).expect("opened");
        assert_eq!(reader.get(Row(7)).expect("there"), entry(7));
        assert_eq!(reader.get(Row(7 + step)).expect("there"), entry(7 + step));
        assert_eq!(reader.get(Row(PAGE_ROWS + 7)).expect("there").verdict, Verdict::Open);
    }

    #[test]
    fn rows_of_a_neighbour_are_never_written() {
        let (_temp, folder) = folder_of(600);
        let open = |first, last| {
            Outcomes::open(&folder, Rows { first: Row(first), last: Row(last) }).expect("opened")
        };
        let (mut left, mut right) = (open(1, 300), open(301, 600));
        left.get(Row(300)).expect("read");
        right.set(Row(301), &entry(9)).expect("set");
        right.sync().expect("synced");
        left.set(Row(300), &entry(8)).expect("set");
        left.sync().expect("synced");
        let mut reader = open_outcomes(&folder, 600).expect("opened");
        assert_eq!(reader.get(Row(301)).expect("there"), entry(9));
        assert_eq!(reader.get(Row(300)).expect("there"), entry(8));
    }

    #[test]
    fn rows_that_are_not_indexed_are_refused() {
        let (_temp, folder) = folder_of(3);
        assert!(Outcomes::open(&folder, Rows { first: Row(1), last: Row(4) }).is_err());
    }
}
