//! A part of the kept answers: a file that only grows, and a table in which they are found.
//!
//! A slot of the table holds eight bytes of a key and where its record begins. A record holds the
//! whole key, when it was kept, and a checksum over all of that and the answer, so that a slot that
//! points anywhere else, as after a power cut, is found out.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Key;
use crate::engine::ids::Millis;

/// One segment, open.
#[derive(Debug)]
pub struct Segment {
    number: u64,
    answers: (PathBuf, File),
    table: (PathBuf, File),
    /// Slots in which a key may be looked for first.
    slots: u64,
    /// Where the next record begins.
    end: u64,
    newest: Millis,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is kept.
    Kept,
    /// The table has no slot for it: a new segment is needed.
    Full,
}

impl Segment {
    /// Every segment of a folder that can be used, the oldest first; the others are removed if they
    /// are ours.
    pub fn all(folder: &Path, is_ours: bool) -> Vec<Segment> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let name = |path: PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let mut numbers: Vec<u64> = entries.filter_map(|entry| name(entry.path())).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let open = |number| Segment::open(folder, number, is_ours).ok();
        let mut segments = Vec::new();
        for number in numbers {
            match open(number) {
                Some(segment) => segments.push(segment),
                None if is_ours => remove(&paths(folder, number)),
                None => {}
            }
        }
        segments
    }

    /// A new one, for about so many bytes.
    pub fn create(folder: &Path, number: u64, bytes: u64) -> io::Result<Segment> {
        let (answers, table) = paths(folder, number);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let slots = (bytes / BYTES_A_SLOT).next_power_of_two().clamp(SLOTS_MIN, SLOTS_MAX);
        let file = options.open(&table)?;
        file.set_len((slots + PROBES) * SLOT_BYTES)?;
        let table = (table, file);
        let answers = (answers.clone(), options.open(&answers)?);
        Ok(Segment { number, answers, table, slots, end: 0, newest: Millis(0) })
    }

    fn open(folder: &Path, number: u64, is_ours: bool) -> io::Result<Segment> {
        let (answers, table) = paths(folder, number);
        let open = |path: &Path| File::options().read(true).write(is_ours).open(path);
        let table = (table.clone(), open(&table)?);
        let answers = (answers.clone(), open(&answers)?);
        let slots = (table.1.metadata()?.len() / SLOT_BYTES).saturating_sub(PROBES);
        if !slots.is_power_of_two() || !(SLOTS_MIN..=SLOTS_MAX).contains(&slots) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the table has no right size"));
        }
        let about = answers.1.metadata()?;
        let since = about.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let newest = Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Ok(Segment { number, answers, table, slots, end: about.len(), newest })
    }

    /// Its number: higher ones are newer.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of answers.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// When something was added last.
    pub fn newest(&self) -> Millis {
        self.newest
    }

    /// The newest answer under a key that is not too old.
    pub fn get(&self, key: &Key, age_ms: u64, now: Millis) -> Option<Vec<u8>> {
        let (mark, slots) = self.around(key)?;
        let starts = slots.chunks_exact(SLOT_BYTES as usize).map(slot);
        let found = starts.take_while(|(_, start)| *start > 0).filter(|(other, _)| *other == mark);
        let records = found.filter_map(|(_, start)| self.record(key, start - 1));
        let young = records.filter(|(kept, _)| now.since(*kept) <= age_ms);
        young.max_by_key(|(kept, _)| *kept).map(|(_, answer)| answer)
    }

    /// Adds an answer.
    pub fn put(&mut self, key: &Key, answer: &[u8], now: Millis) -> io::Result<Put> {
        let Some((mark, slots)) = self.around(key) else { return Ok(Put::Full) };
        let mut starts = slots.chunks_exact(SLOT_BYTES as usize).map(slot);
        let Some(free) = starts.position(|(_, start)| start == 0) else { return Ok(Put::Full) };
        let len = u32::try_from(answer.len()).map_err(io::Error::other)?;
        let mut record = Vec::with_capacity(HEAD_BYTES + answer.len());
        record.extend_from_slice(MAGIC);
        record.extend_from_slice(&len.to_le_bytes());
        record.extend_from_slice(&now.0.to_le_bytes());
        record.extend_from_slice(key);
        record.extend_from_slice(&sum(&record, answer));
        record.extend_from_slice(answer);
        self.answers.1.write_all_at(&record, self.end)?;
        let mut bytes = [0; SLOT_BYTES as usize];
        bytes[..8].copy_from_slice(&mark.to_le_bytes());
        bytes[8..].copy_from_slice(&(self.end + 1).to_le_bytes());
        let at = self.first_slot(mark) + free as u64;
        self.table.1.write_all_at(&bytes, at * SLOT_BYTES)?;
        self.end += record.len() as u64;
        self.newest = self.newest.max(now);
        Ok(Put::Kept)
    }

    /// Removes its files.
    pub fn remove(self) {
        remove(&(self.answers.0, self.table.0));
    }

    /// What a key is found by, and the slots in which it can be.
    fn around(&self, key: &Key) -> Option<(u64, Vec<u8>)> {
        let mark = u64::from_le_bytes(*key.first_chunk()?);
        let mut slots = vec![0; (PROBES * SLOT_BYTES) as usize];
        let at = self.first_slot(mark) * SLOT_BYTES;
        self.table.1.read_exact_at(&mut slots, at).ok()?;
        Some((mark, slots))
    }

    fn first_slot(&self, mark: u64) -> u64 {
        mark & (self.slots - 1)
    }

    /// The record at a place, if it is whole and of this key.
    fn record(&self, key: &Key, start: u64) -> Option<(Millis, Vec<u8>)> {
        let mut head = [0; HEAD_BYTES];
        self.answers.1.read_exact_at(&mut head, start).ok()?;
        let (told, checksum) = head.split_at(HEAD_BYTES - SUM_BYTES);
        let (magic, rest) = told.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (kept, of) = rest.split_first_chunk::<8>()?;
        let len = u64::from(u32::from_le_bytes(*len));
        let begins = start + HEAD_BYTES as u64;
        if magic != MAGIC || of != key || begins.checked_add(len)? > self.end {
            return None;
        }
        let mut answer = vec![0; len as usize];
        self.answers.1.read_exact_at(&mut answer, begins).ok()?;
        let is_whole = sum(told, &answer) == *checksum;
        is_whole.then(|| (Millis(u64::from_le_bytes(*kept)), answer))
    }
}

/// The two files of a segment: its answers and its table.
fn paths(folder: &Path, number: u64) -> (PathBuf, PathBuf) {
    (folder.join(format!("{number:08}.answers")), folder.join(format!("{number:08}.table")))
}

fn remove((answers, table): &(PathBuf, PathBuf)) {
    // What stays is found again and removed at the next start.
    drop(fs::remove_file(answers));
    drop(fs::remove_file(table));
}

/// Key and place of a slot; the place is one more than where the record begins, 0 if it is free.
fn slot(bytes: &[u8]) -> (u64, u64) {
    let number = |from: usize| bytes[from..].first_chunk().map_or(0, |it| u64::from_le_bytes(*it));
    (number(0), number(8))
}

fn sum(told: &[u8], answer: &[u8]) -> [u8; SUM_BYTES] {
    let whole = Sha256::new().chain_update(told).chain_update(answer).finalize();
    *whole.first_chunk().expect("a sum has 32 bytes")
}

const MAGIC: &[u8; 4] = b"gba1";
/// Bytes of a checksum.
const SUM_BYTES: usize = 16;
/// Magic, length, time, key and checksum.
const HEAD_BYTES: usize = 4 + 4 + 8 + 32 + SUM_BYTES;
const SLOT_BYTES: u64 = 16;
/// Slots in which a key can be.
const PROBES: u64 = 64;
/// Bytes of answers for which there is a slot.
const BYTES_A_SLOT: u64 = 256;
const SLOTS_MIN: u64 = 256;
const SLOTS_MAX: u64 = 1 << 22;
