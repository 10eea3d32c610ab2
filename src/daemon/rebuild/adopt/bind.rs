//! The keys of a job whose fingerprints nobody can read any more, as the salt they were made with is
//! gone.
//!
//! A batch that is seen with a key proves that the fingerprint it was noted with stands for that
//! key's project. Nothing else does: what no batch proves stays as it is, and a person is asked.

use std::collections::BTreeMap;

use crate::engine::Keys;
use crate::engine::job::{ChunkState, Job};

use super::seen::SeenBatch;

/// Puts the fingerprints of today in the place of those that the batches seen prove to be the same.
pub(super) fn bind(job: &mut Job, seen: &[SeenBatch], keys: &Keys) {
    let mut same: BTreeMap<String, String> = BTreeMap::new();
    for batch in seen {
        for former in noted(job, batch) {
            if keys.of_print(&former).is_none() {
                same.insert(former, batch.key_print.clone());
            }
        }
    }
    let renew = |print: &mut String| {
        if let Some(own) = same.get(print.as_str()) {
            own.clone_into(print);
        }
    };
    job.head.key_print.iter_mut().for_each(renew);
    for chunk in job.chunks.values_mut() {
        chunk.key_print.iter_mut().for_each(renew);
        for ended in &mut chunk.batches {
            ended.key_print.iter_mut().for_each(renew);
        }
        match &mut chunk.state {
            ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. } => {
                renew(&mut batch.key_print);
            }
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Rescuing { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => {}
        }
    }
}

/// The fingerprints that the job noted for a batch that was seen.
fn noted(job: &Job, seen: &SeenBatch) -> Vec<String> {
    let Some(chunk) = job.chunks.get(&seen.chunk) else { return Vec::new() };
    let ended = chunk.batches.iter().filter(|ended| ended.name == seen.remote.name);
    let mut prints: Vec<String> = ended.filter_map(|ended| ended.key_print.clone()).collect();
    if let ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. } = &chunk.state
        && batch.name == seen.remote.name
    {
        prints.push(batch.key_print.clone());
    }
    if chunk.attempt == seen.attempt {
        prints.extend(chunk.key_print.clone());
    }
    prints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::RemoteBatch;
    use crate::engine::ids::{Attempt, BatchName, ChunkNo, Millis, Row, Rows};
    use crate::engine::job::{
        Batch, Chunk, Head, Input, JobState, Plan, Queue, RemoteState, Rest, Source,
    };

    fn batch(print: &str) -> Batch {
        Batch {
            name: BatchName("batches/x".to_owned()),
            input: Input::Inline,
            created: Millis(1),
            adopted: false,
            remote: RemoteState::Running,
            key_print: print.to_owned(),
            input_gone: false,
        }
    }

    #[test]
    fn only_a_batch_that_is_seen_proves_whose_a_fingerprint_is() {
        let id: crate::engine::JobId = "01JD0000000000000000000001".parse().expect("an id");
        let rows = Rows { first: Row(1), last: Row(2) };
        let chunk = |no| Chunk {
            key_print: Some("former".to_owned()),
            ..Chunk::new(ChunkNo(no), ChunkNo(no), rows, Rest::default())
        };
        let polled = Chunk { state: ChunkState::Polling(batch("former")), ..chunk(1) };
        let other = Chunk { key_print: Some("third".to_owned()), ..chunk(2) };
        let source =
            Source { folder: String::new(), name: "a.jsonl".to_owned(), bytes: 1, sidecar: None };
        let head = Head {
            id,
            source,
            queue: Queue::default(),
            claimed: Millis(1),
            released: false,
            on_hold: false,
            key_print: Some("former".to_owned()),
            funds: None,
            state: JobState::Active(Plan::default()),
        };
        let chunks = [polled, other].into_iter().map(|chunk| (chunk.no, chunk)).collect();
        let mut job = Job { head, chunks };
        let before = job.clone();
        let keys = Keys::one("own");
        bind(&mut job, &[], &keys);
        assert_eq!(job, before);
        let remote = RemoteBatch {
            name: BatchName("batches/x".to_owned()),
            display_name: String::new(),
            state: RemoteState::Running,
            done: false,
            error: None,
            created: None,
            ended: None,
            input_file: None,
            output_file: None,
        };
        let seen = SeenBatch {
            job: id,
            chunk: ChunkNo(1),
            attempt: Attempt(1),
            remote,
            model: String::new(),
            rows: Some(2),
            key_print: "own".to_owned(),
        };
        bind(&mut job, &[seen], &keys);
        assert_eq!(job.head.key_print.as_deref(), Some("own"));
        assert_eq!(job.chunks[&ChunkNo(1)].state, ChunkState::Polling(batch("own")));
        assert_eq!(
            job.chunks[&ChunkNo(2)].key_print.as_deref(),
            Some("third"),
            "nothing proves it"
        );
    }
}
