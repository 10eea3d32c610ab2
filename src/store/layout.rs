//! Which record stands under which key, for every store alike.
//!
//! `job/<id>` is a job's head and `job/<id>/c0000000001` its first chunk, so that a job's records
//! are neighbours in the order of their numbers; `note/<name>` is a note. Here changes become
//! puts and removals of keys, and keys with values become jobs again. No store, no disk.

use std::collections::BTreeMap;

use super::StoreError;
use super::record::{self, Record};
use crate::engine::{Change, ChunkNo, Job, JobId};

/// What one save writes: the new value of each key, `None` where it is removed.
pub type Writes = BTreeMap<String, Option<Vec<u8>>>;

/// The key of a job's head; all its records begin with it.
pub fn head_key(id: JobId) -> String {
    format!("{JOBS}{id}")
}

/// The key of a chunk.
pub fn chunk_key(id: JobId, no: ChunkNo) -> String {
    format!("{JOBS}{id}/c{:010}", no.0)
}

/// The key of a note.
pub fn note_key(name: &str) -> String {
    format!("{NOTES}{name}")
}

/// Where the keys of jobs begin.
pub const JOBS: &str = "job/";

/// Where the keys of notes begin.
pub const NOTES: &str = "note/";

/// Turns changes into writes, in order. `stored` lists the keys with a prefix that are there now.
///
/// # Errors
/// [`StoreError::TooLarge`], and whatever `stored` fails with.
pub fn stage(
    changes: &[Change],
    mut stored: impl FnMut(&str) -> Result<Vec<String>, StoreError>,
) -> Result<Writes, StoreError> {
    let mut writes = Writes::new();
    for change in changes {
        match change {
            Change::Head(head) => {
                put(&mut writes, head_key(head.id), record::write_head(head))?;
            }
            Change::Chunk(id, chunk) => {
                put(&mut writes, chunk_key(*id, chunk.no), record::write_chunk(*id, chunk))?;
            }
            Change::Shed(id) => {
                let prefix = format!("{}/", head_key(*id));
                writes.retain(|key, _| !key.starts_with(&prefix));
                writes.extend(stored(&prefix)?.into_iter().map(|key| (key, None)));
            }
            Change::Forget(id) => {
                let prefix = head_key(*id);
                writes.retain(|key, _| !key.starts_with(&prefix));
                writes.extend(stored(&prefix)?.into_iter().map(|key| (key, None)));
            }
            Change::Note { name, value } => writes.extend(stage_note(name, value)?),
        }
    }
    Ok(writes)
}

/// Turns a note into a write; an empty value removes it.
///
/// # Errors
/// [`StoreError::TooLarge`].
pub fn stage_note(name: &str, value: &str) -> Result<Writes, StoreError> {
    let mut writes = Writes::new();
    if value.is_empty() {
        writes.insert(note_key(name), None);
    } else {
        put(&mut writes, note_key(name), record::write_note(name, value))?;
    }
    Ok(writes)
}

/// Puts jobs together from their records, which must come in the order of their keys, and hands
/// each over when it is whole.
///
/// # Errors
/// [`StoreError::Unreadable`] for a record that can not be understood, stands under a key that is
/// not its own, or is a chunk without its job; and whatever `records` fails with.
pub fn assemble<V: AsRef<[u8]>>(
    records: impl Iterator<Item = Result<(String, V), StoreError>>,
    take: &mut dyn FnMut(Job),
) -> Result<(), StoreError> {
    let mut current: Option<Job> = None;
    for entry in records {
        let (key, value) = entry?;
        match read(&key, value.as_ref())? {
            Record::Head(head) => {
                let next = Job { head: *head, chunks: BTreeMap::new() };
                if let Some(whole) = current.replace(next) {
                    take(whole);
                }
            }
            Record::Chunk(id, chunk) => match &mut current {
                Some(job) if job.head.id == id => {
                    job.chunks.insert(chunk.no, *chunk);
                }
                Some(_) | None => return Err(unreadable(&key, "its job has no record")),
            },
            Record::Note { .. } => return Err(unreadable(&key, "a note where jobs are kept")),
        }
    }
    if let Some(last) = current {
        take(last);
    }
    Ok(())
}

/// Reads the notes from their records.
///
/// # Errors
/// As for [`assemble`].
pub fn read_notes<V: AsRef<[u8]>>(
    records: impl Iterator<Item = Result<(String, V), StoreError>>,
) -> Result<BTreeMap<String, String>, StoreError> {
    let mut notes = BTreeMap::new();
    for entry in records {
        let (key, value) = entry?;
        match read(&key, value.as_ref())? {
            Record::Note { name, value } => {
                notes.insert(name, value);
            }
            Record::Head(_) | Record::Chunk(..) => {
                return Err(unreadable(&key, "a job where notes are kept"));
            }
        }
    }
    Ok(notes)
}

/// Reads one record and checks that it belongs under its key.
fn read(key: &str, value: &[u8]) -> Result<Record, StoreError> {
    let record = record::read(value).map_err(|reason| unreadable(key, &reason))?;
    let own = match &record {
        Record::Head(head) if key.strip_prefix(JOBS) == Some(head.id.as_str()) => {
            return Ok(record);
        }
        Record::Head(head) => head_key(head.id),
        Record::Chunk(id, chunk) => chunk_key(*id, chunk.no),
        Record::Note { name, .. } => note_key(name),
    };
    if own == key { Ok(record) } else { Err(unreadable(key, &format!("it is `{own}`"))) }
}

fn put(writes: &mut Writes, key: String, value: Vec<u8>) -> Result<(), StoreError> {
    if value.len() > record::BYTES_MAX {
        return Err(StoreError::TooLarge { key, bytes: value.len() });
    }
    writes.insert(key, Some(value));
    Ok(())
}

/// A key as a backend holds it; ours are text.
///
/// # Errors
/// [`StoreError::Unreadable`].
pub(super) fn text_key(key: Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(key).map_err(|error| StoreError::Unreadable {
        key: error.as_bytes().escape_ascii().to_string(),
        reason: "the key is not text".into(),
    })
}

/// A record that can not be read, under a key that may hold anything.
pub(super) fn unreadable(key: &str, reason: &str) -> StoreError {
    StoreError::Unreadable { key: key.escape_debug().to_string(), reason: reason.to_owned() }
}
