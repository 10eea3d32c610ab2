//! Numbers for those who watch many daemons at once.
//!
//! No names of files, no ids: what is counted apart is bounded by the configuration.

use std::collections::BTreeMap;

use crate::engine::budget::{Budget, Standing};
use crate::engine::history::Delivered;
use crate::engine::job::{ChunkState, Job, RemoteState};
use crate::engine::quota::QueueRoom;
use crate::engine::{Engine, History};

use super::QueueView;

/// All figures of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// When the daemon started, seconds since 1970.
    pub started_s: u64,
    /// Whether nothing is sent at present.
    pub paused: bool,
    /// Whether something is wrong on this machine or on the way.
    pub trouble: bool,
    /// Whether the daemon ends when all is done.
    pub draining: bool,
    /// Jobs by state.
    pub jobs: BTreeMap<String, u64>,
    /// Jobs by queue.
    pub queues: Vec<QueueView>,
    /// Batches at the API, and those whose results are being fetched, by state.
    pub batches: BTreeMap<&'static str, u64>,
    /// Lines that are planned and neither answered nor failed.
    pub open_lines: u64,
    /// What was delivered since the start, by model.
    pub delivered: Vec<(String, Delivered)>,
    /// How long batches took lately, by model, milliseconds.
    pub typical_ms: Vec<(String, u64)>,
    /// What is spent this night, this month, and of queues that have a budget.
    pub standings: Vec<Standing>,
    /// What is enqueued at the API, by model.
    pub rooms: Vec<QueueRoom>,
    /// Events since the records of events began.
    pub events: u64,
    /// What came of notices that batches have ended.
    pub wakeups: Wakeups,
    /// What became of what hooks told.
    pub hooks: HookCounts,
}

/// Notices that batches have ended, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wakeups {
    /// Believed.
    pub taken: u64,
    /// Heard before.
    pub repeated: u64,
    /// Not believed.
    pub refused: u64,
}

/// What hooks told, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HookCounts {
    /// Events that were taken.
    pub taken: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Events that nobody has taken yet.
    pub waiting: u64,
}

impl Figures {
    /// Counts the batches and lines of a job that is not over.
    pub fn count(&mut self, job: &Job) {
        for chunk in job.chunks.values() {
            let state = match &chunk.state {
                ChunkState::Polling(batch) => match &batch.remote {
                    RemoteState::Pending => "pending",
                    RemoteState::Running => "running",
                    RemoteState::Succeeded
                    | RemoteState::Failed
                    | RemoteState::Cancelled
                    | RemoteState::Expired
                    | RemoteState::Unknown(_) => "other",
                },
                ChunkState::Collecting { .. } => "collecting",
                ChunkState::Settled | ChunkState::Split { .. } => continue,
                ChunkState::Waiting { .. }
                | ChunkState::Uploading { .. }
                | ChunkState::Creating { .. }
                | ChunkState::Uncertain { .. }
                | ChunkState::Stuck { .. }
                | ChunkState::Rescuing { .. } => {
                    self.open_lines += chunk.rest.rows();
                    continue;
                }
            };
            self.open_lines += chunk.rest.rows();
            *self.batches.entry(state).or_default() += 1;
        }
    }

    /// Takes over what is spent and enqueued.
    pub fn count_means(&mut self, engine: &Engine) {
        let is_counted = !engine.policy().means.prices.is_empty();
        let is_shared = |it: &Standing| is_counted && it.budget != Budget::Job;
        self.standings = engine.standings().into_iter().filter(is_shared).collect();
        self.rooms = engine.queue_rooms();
    }

    /// Takes over what the past tells.
    pub fn recall(&mut self, history: &History) {
        let delivered = history.since_start();
        self.delivered = delivered.map(|(model, it)| (model.to_owned(), it)).collect();
        let models = history.models();
        self.typical_ms = models
            .filter_map(|model| Some((model.to_owned(), history.typical_ms(model)?)))
            .collect();
    }
}
