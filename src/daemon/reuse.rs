//! Answers are used again where a queue wants that, and kept for the next time.
//!
//! Used: when a file is planned, before anything of it is sent. Kept: when its results lie in the
//! outbox. Neither holds a job up: what does not work is told in the log and done without.

use std::sync::Arc;

use crate::engine::ids::Millis;
use crate::engine::job::{Head, Job};
use crate::spool::cache::Cache;
use crate::spool::plan::{CutRules, PlanError, Planned};
use crate::spool::{Folders, JobFolder, canary, reuse};

use super::perform::Performer;

/// The cache, at a moment.
pub(super) struct Reusing {
    cache: Arc<Cache>,
    free_bytes: u64,
    now: Millis,
}

impl Performer {
    /// The cache as it is now.
    pub(super) fn reusing(&self) -> Reusing {
        let (cache, now) = (Arc::clone(&self.cache), self.clock.now());
        Reusing { cache, free_bytes: self.free_bytes, now }
    }
}

impl Reusing {
    /// Answers what can be answered of a plan, and cuts out its canary, if its queue wants that.
    pub(super) fn apply(
        &self,
        folder: &JobFolder,
        head: &Head,
        rules: &CutRules,
        planned: Result<Planned, PlanError>,
    ) -> Result<Planned, PlanError> {
        let (mut planned, queue, name) = (planned?, &head.queue, &head.source.name);
        if queue.cache_ms > 0 {
            planned = reuse::answer(folder, name, queue, rules, &self.cache, self.now, planned)
                .map_err(PlanError::Spool)?;
        }
        if let Some(wanted) = queue.canary {
            let cut = canary::cut(folder, &mut planned.chunks, wanted.lines);
            planned.canary = cut.map_err(PlanError::Spool)?;
        }
        Ok(planned)
    }

    /// Keeps the answers of a delivered job, if its queue wants that and the disk has room.
    pub(super) fn keep(&self, folders: &Folders, job: &Job) {
        if job.head.queue.cache_ms == 0 || !self.cache.has_room(self.free_bytes.saturating_mul(2)) {
            return;
        }
        match reuse::keep(&folders.job(job.head.id), job, &self.cache, self.now) {
            Ok(kept) => tracing::debug!(kept, "answers are kept to be used again"),
            Err(error) => tracing::warn!(%error, "not all answers were kept to be used again"),
        }
    }
}
