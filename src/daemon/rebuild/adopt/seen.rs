//! What the API shows of ours, with every key in use.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::engine::event::{Failure, RemoteBatch};
use crate::engine::ids::{Attempt, ChunkNo, JobId};
use crate::provider::gemini::Described;

use crate::daemon::clients::Clients;

/// A batch that bears our stamp.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenBatch {
    /// Its job.
    pub job: JobId,
    /// The chunk it was made for.
    pub chunk: ChunkNo,
    /// The attempt it was made for.
    pub attempt: Attempt,
    /// The batch itself.
    pub remote: RemoteBatch,
    /// Its model, if it says so.
    pub model: String,
    /// How many requests it has, if it says so.
    pub rows: Option<u64>,
    /// Fingerprint of the key that it was seen with.
    pub key_print: String,
}

/// Everything of ours that the API shows.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    by_job: BTreeMap<JobId, Vec<SeenBatch>>,
}

impl Seen {
    /// The batches of a job, by chunk and attempt.
    pub fn of(&self, job: JobId) -> &[SeenBatch] {
        self.by_job.get(&job).map_or(&[], Vec::as_slice)
    }

    /// All of them, by job.
    pub fn all(&self) -> impl Iterator<Item = &SeenBatch> {
        self.by_job.values().flatten()
    }

    fn take(&mut self, batch: Described, key_print: &str) {
        let Some((job, chunk, attempt)) = batch.ours() else { return };
        let of_job = self.by_job.entry(job).or_default();
        // Two keys may be of one project.
        if of_job.iter().any(|known| known.remote.name == batch.remote.name) {
            return;
        }
        let Described { remote, model, counts } = batch;
        let (rows, key_print) = (counts.total, key_print.to_owned());
        of_job.push(SeenBatch { job, chunk, attempt, remote, model, rows, key_print });
        of_job.sort_by_key(|batch| (batch.chunk, batch.attempt));
    }
}

/// Reads all lists with every key. Where the OpenAI-compatible layer shows no list, its batches are
/// looked for by the daemon, one by one.
///
/// # Errors
/// If a list can not be read to its end: nothing may be decided then.
pub async fn look(clients: &Clients) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    for (print, client) in clients.each() {
        let mut take = |batch: Described| {
            seen.take(batch, print);
            ControlFlow::Continue(())
        };
        // What can not be read there is looked for by its stamp before anything is sent.
        client.each_batch(&mut take).await?;
        if let Err(why) = client.each_layer_batch(&mut take).await? {
            tracing::debug!(why, "there is no list of batches in the OpenAI format");
        }
    }
    Ok(seen)
}
