//! What jobs left at the API is found and removed: after the start, and with each housekeeping.
//!
//! Several daemons may share a key, and people upload files by hand. So a batch or a file goes only
//! if it bears exactly a stamp of ours, or the mark of a file that lines name, its job is one that
//! this store knows, nothing needs it any more, and it is not young. What bears the stamp of a job nobody here knows stays, and is counted.
//! Removing what is gone is no failure, so a sweep that was cut short does no harm.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::Instrument;

use crate::engine::Engine;
use crate::engine::event::Failure;
use crate::engine::ids::{FileName, JobId, Millis, Stamp};
use crate::engine::job::{Chunk, ChunkState, Input, JobState};
use crate::provider::gemini::Client;
use crate::spool::media::addresses;

use super::ending::was_there;
use super::perform::Performer;
use super::{Daemon, lock, spawn};

/// What this store knows of its jobs.
#[derive(Debug, Default)]
pub struct Known {
    /// Complete or refused: nothing at the API is needed any more.
    over: HashSet<JobId>,
    /// Still under way.
    under_way: HashSet<JobId>,
    /// Files of those that are, or will be, the input of a batch.
    in_use: HashSet<FileName>,
}

/// What a sweep came upon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Removed.
    pub removed: u64,
    /// Left, since no job here has their stamps.
    pub strangers: u64,
}

impl Daemon {
    /// Sweeps once after the start: what a crash left may lie there since.
    pub(super) fn sweep_after_start(&mut self) {
        if self.swept || !self.performer.remote_cleanup {
            return;
        }
        self.swept = true;
        let (performer, known) = (Arc::clone(&self.performer), Known::of(&lock(&self.engine)));
        let work = async move { sweep(&performer, &known).await };
        spawn(work.instrument(tracing::info_span!("sweep")));
    }
}

impl Known {
    /// What an engine knows.
    pub fn of(engine: &Engine) -> Known {
        let mut known = Known { over: engine.past().ids().collect(), ..Known::default() };
        for job in engine.unfinished() {
            match job.head.state {
                JobState::Failed(_) => known.over.insert(job.head.id),
                JobState::Claiming
                | JobState::Planning
                | JobState::Active(_)
                | JobState::Merging(_)
                | JobState::Delivering(_)
                | JobState::Cleaning(_)
                | JobState::Done(_)
                | JobState::Refusing(_)
                | JobState::Holding(_)
                | JobState::Held(_) => known.under_way.insert(job.head.id),
            };
            known.in_use.extend(job.chunks.values().filter_map(file_of).cloned());
        }
        known
    }

    fn knows(&self, job: JobId) -> bool {
        self.over.contains(&job) || self.under_way.contains(&job)
    }
}

/// Sweeps what lies at the API for each key; tells what came of it.
pub async fn sweep(performer: &Performer, known: &Known) {
    for client in performer.clients.all() {
        match sweep_one(client, known, performer.clock.now()).await {
            Ok(Swept { removed, strangers }) => {
                tracing::info!(
                    removed,
                    left_of_unknown_jobs = strangers,
                    "remains at the API were removed"
                );
            }
            Err(failure) => {
                let why = failure.message();
                tracing::warn!(why, "remains at the API were not all removed");
            }
        }
    }
}

async fn sweep_one(client: &Client, known: &Known, now: Millis) -> Result<Swept, Failure> {
    let mut swept = Swept::default();
    let batches = client.list_batches().await?;
    // Moments of the API are compared with its own clock, which the list has just told.
    let skew_ms = client.server_time_skew(now).unwrap_or(0);
    let there = Millis(now.0.saturating_add_signed(skew_ms));
    let is_old = |at: Option<Millis>| at.is_some_and(|at| there.since(at) >= SAFE_AGE_MS);
    for batch in batches {
        let Some((job, _, _)) = Stamp::parse(&batch.display_name) else { continue };
        if !known.knows(job) {
            swept.strangers += 1;
        } else if known.over.contains(&job) && batch.is_finished() && is_old(batch.created) {
            swept.removed += u64::from(was_there(client.delete_batch(&batch.name).await)?);
        }
    }
    for file in client.list_files().await? {
        if let Some(job) = addresses::job_of(&file.display_name) {
            // A file that lines of a job name. As long as that is under way, they may need it.
            if !known.knows(job) {
                swept.strangers += 1;
            } else if known.over.contains(&job) && is_old(file.created) {
                swept.removed += u64::from(was_there(client.delete_file(&file.name).await)?);
            }
            continue;
        }
        let Some((job, chunk, attempt)) = Stamp::parse(&file.display_name) else { continue };
        // A file of ours has the name that goes with its stamp.
        if file.name != Stamp::file(job, chunk, attempt) {
            continue;
        }
        if !known.knows(job) {
            swept.strangers += 1;
        } else if !known.in_use.contains(&file.name) && is_old(file.created) {
            swept.removed += u64::from(was_there(client.delete_file(&file.name).await)?);
        }
    }
    Ok(swept)
}

/// The file that an attempt at a chunk needs, or may still need.
fn file_of(chunk: &Chunk) -> Option<&FileName> {
    let input = match &chunk.state {
        ChunkState::Uploading { file } => return Some(file),
        ChunkState::Creating { input, .. }
        | ChunkState::Uncertain { input, .. }
        | ChunkState::Stuck { input, .. } => input,
        ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. } => &batch.input,
        ChunkState::Waiting { .. }
        | ChunkState::Rescuing { .. }
        | ChunkState::Settled
        | ChunkState::Split { .. } => return None,
    };
    match input {
        Input::File(file) => Some(file),
        Input::Inline => None,
    }
}

/// What is younger may have been made by something that is still under way, milliseconds.
const SAFE_AGE_MS: u64 = 3_600_000;
