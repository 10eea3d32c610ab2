//! All records as JSON Lines: what any other store, or a person, can read.
//!
//! An export holds every job, its chunks right after its head, and every note, in the saved form
//! ([`record`]). An import checks the whole export before it changes anything and never overwrites:
//! a job that is there already must be the same to the last byte, and is left as it is.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};

use super::record::{self, Record};
use super::{JobStore, NOTE_QUARANTINED, StoreError};
use crate::engine::{Change, Chunk, ChunkNo, Head, Job, JobId};

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// Jobs that are new in the store.
    pub jobs: u64,
    /// Jobs that were there already, just the same.
    pub present: u64,
    /// Notes that are new in the store; those that it has keep their value.
    pub notes: u64,
}

/// Writes every record as a line. Returns how many lines it wrote.
///
/// # Errors
/// As for [`JobStore::load`], or if `out` can not be written.
pub fn export(store: &dyn JobStore, out: &mut impl Write) -> Result<u64, StoreError> {
    let mut lines = 0;
    let mut put = |mut record: Vec<u8>| {
        record.push(b'\n');
        lines += 1;
        out.write_all(&record).map_err(write_error)
    };
    let mut wrote = Ok(());
    store.each_job(&mut |job| {
        if wrote.is_ok() {
            wrote = put(record::write_head(&job.head));
        }
        for chunk in job.chunks.values() {
            if wrote.is_ok() {
                wrote = put(record::write_chunk(job.head.id, chunk));
            }
        }
    })?;
    wrote?;
    for (name, value) in store.notes()? {
        put(record::write_note(&name, &value))?;
    }
    out.flush().map_err(write_error)?;
    Ok(lines)
}

/// Takes in an export, all of it or nothing of it as far as its content goes. When the store
/// fails half-way, importing the same export again completes it.
///
/// # Errors
/// [`StoreError::Import`] names the line that is wrong; otherwise as for [`JobStore::save`].
pub fn import(reader: impl BufRead, store: &mut dyn JobStore) -> Result<Imported, StoreError> {
    let content = read(reader)?;
    let present: BTreeMap<JobId, Job> =
        store.load()?.into_iter().map(|job| (job.head.id, job)).collect();
    let mut done = Imported::default();
    let mut fresh = Vec::new();
    for (id, (line, job)) in content.jobs {
        match present.get(&id) {
            None => fresh.push(job),
            Some(same) if *same == job => done.present += 1,
            Some(_) => {
                let reason = format!(
                    "job {id} is in the store already and differs; an import never overwrites"
                );
                return Err(StoreError::Import { line, reason });
            }
        }
    }
    for some in fresh.chunks(JOBS_PER_SAVE) {
        store.save(&some.iter().flat_map(changes).collect::<Vec<_>>())?;
        done.jobs += some.len() as u64;
    }
    let kept = store.notes()?;
    for (name, value) in content.notes {
        if !kept.contains_key(&name) && name != NOTE_QUARANTINED {
            store.set_note(&name, &value)?;
            done.notes += 1;
        }
    }
    Ok(done)
}

/// The changes that save a whole job.
pub fn changes(job: &Job) -> Vec<Change> {
    let id = job.head.id;
    let chunks = job.chunks.values().map(|chunk| Change::Chunk(id, Box::new(chunk.clone())));
    std::iter::once(Change::Head(Box::new(job.head.clone()))).chain(chunks).collect()
}

/// An export, read and checked.
struct Content {
    /// With the line of each job's head.
    jobs: BTreeMap<JobId, (u64, Job)>,
    notes: BTreeMap<String, String>,
}

fn read(mut reader: impl BufRead) -> Result<Content, StoreError> {
    let mut heads: BTreeMap<JobId, (u64, Head)> = BTreeMap::new();
    let mut chunks: BTreeMap<(JobId, ChunkNo), (u64, Chunk)> = BTreeMap::new();
    let mut notes = BTreeMap::new();
    let mut line = 0;
    while let Some(bytes) = next_line(&mut reader, line + 1)? {
        line += 1;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let wrong = |reason| StoreError::Import { line, reason };
        let twice = |what: String, first: u64| {
            wrong(format!("{what} is on line {first} already; remove one of the two"))
        };
        let record = record::read(&bytes).map_err(wrong)?;
        // Written out it may be longer than it came; no save may fail half-way for that.
        if record.write().len() > record::BYTES_MAX {
            return Err(wrong(format!("it takes more than {} bytes", record::BYTES_MAX)));
        }
        match record {
            Record::Head(head) => {
                let id = head.id;
                if let Some((first, _)) = heads.insert(id, (line, *head)) {
                    return Err(twice(format!("job {id}"), first));
                }
            }
            Record::Chunk(id, chunk) => {
                let no = chunk.no;
                if let Some((first, _)) = chunks.insert((id, no), (line, *chunk)) {
                    return Err(twice(format!("chunk {} of job {id}", no.0), first));
                }
            }
            Record::Note { name, value } => {
                notes.insert(name, value);
            }
        }
    }
    let with_no_chunk = |(line, head)| (line, Job { head, chunks: BTreeMap::new() });
    let mut jobs: BTreeMap<JobId, (u64, Job)> =
        heads.into_iter().map(|(id, entry)| (id, with_no_chunk(entry))).collect();
    for ((id, no), (line, chunk)) in chunks {
        let Some((_, job)) = jobs.get_mut(&id) else {
            let reason = format!("job {id} has no head in this export; export it again, whole");
            return Err(StoreError::Import { line, reason });
        };
        job.chunks.insert(no, chunk);
    }
    Ok(Content { jobs, notes })
}

/// The next line without its end; `None` after the last one.
fn next_line(reader: &mut impl BufRead, line: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let wrong = |reason| StoreError::Import { line, reason };
    let mut bytes = Vec::new();
    let limit = record::BYTES_MAX as u64 + 2;
    let read = reader
        .take(limit)
        .read_until(b'\n', &mut bytes)
        .map_err(|error| wrong(format!("it can not be read: {error}")))?;
    if bytes.last() != Some(&b'\n') && read as u64 == limit {
        return Err(wrong(format!("it is longer than {} bytes, so no record", record::BYTES_MAX)));
    }
    Ok((read > 0).then_some(bytes))
}

fn write_error(source: io::Error) -> StoreError {
    StoreError::Io { action: "write", path: "the export".into(), source }
}

/// Jobs saved in one step: enough to be quick, few enough for memory.
const JOBS_PER_SAVE: usize = 64;
