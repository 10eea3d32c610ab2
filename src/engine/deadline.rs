//! Promises: by when the results of a file are wanted, whether they will be there, and who is told.
//!
//! The moment itself is worked out by the shell when a file is claimed. Here it is compared with
//! what is known: looked at now and then while there is time, at once when a rescue has to begin,
//! and once more when the moment has come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::effect::Turn;
use super::ids::{ChunkNo, JobId, Millis};
use super::job::{Chunk, ChunkState, Head, Job, JobState, Plan};
use super::lanes::Unit;
use super::machine::Engine;
use super::rescue::{self, Tiers};
use super::stuck::Stuck;

/// What a queue wants done so that results are there in time. Most queues want nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deadline {
    /// By when the results of a file are wanted.
    pub by: Option<By>,
    /// The time zone that a time of day is meant in, an IANA name; `None`: the machine's.
    pub zone: Option<Arc<str>>,
    /// What lines may be sent through that would not be answered in time otherwise.
    pub rescue: Tiers,
    /// What is done about a batch that does not begin.
    pub stuck: Stuck,
    /// After so many milliseconds a batch that has not begun counts as stuck; `None`: when that is
    /// far beyond what its model usually takes.
    pub stuck_after: Option<u64>,
}

impl Deadline {
    /// What holds for queues that say nothing.
    pub const USUAL: Deadline = Deadline {
        by: None,
        zone: None,
        rescue: Tiers { flex: false, standard: false },
        stuck: Stuck::Report,
        stuck_after: None,
    };
}

/// By when results are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The next time it is so many minutes after midnight.
    At(u16),
    /// So many milliseconds after the file may go.
    Within(u64),
}

/// What became of a deadline so far. Saved with the plan of a job that has one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Promise {
    /// When it first seemed that it would not be kept.
    pub danger: Option<Millis>,
    /// When it was seen that it was not kept.
    pub missed: Option<Millis>,
    /// When the rescue began.
    pub rescue: Option<Millis>,
    /// Lines answered through the flex tier.
    pub flex: u64,
    /// Lines answered through the standard tier.
    pub standard: u64,
    /// Calls of which nobody knows whether they were answered, and paid for.
    pub uncertain: u64,
    /// Answers of batches to lines that a rescue had answered before.
    pub wasted: u64,
    /// The API does not take the flex tier for these requests.
    pub no_flex: bool,
    /// Nor the standard one.
    pub no_standard: bool,
}

/// When the promises of jobs are looked at next.
#[derive(Debug, Default)]
pub(super) struct Watch {
    next: BTreeMap<JobId, Millis>,
    order: BTreeSet<(Millis, JobId)>,
}

impl Watch {
    fn put(&mut self, id: JobId, at: Millis) {
        self.remove(id);
        self.next.insert(id, at);
        self.order.insert((at, id));
    }

    fn remove(&mut self, id: JobId) {
        if let Some(at) = self.next.remove(&id) {
            self.order.remove(&(at, id));
        }
    }

    pub(super) fn clear(&mut self) {
        (self.next, self.order) = Default::default();
    }

    /// When the next of them is due.
    pub(super) fn next(&self) -> Option<Millis> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The jobs that are watched.
    pub(super) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.next.keys().copied()
    }
}

impl Engine {
    /// Watches a job from now on if there is a promise to keep, or not any more.
    pub(super) fn watch_promise(&mut self, id: JobId) {
        let is_wanted = self.jobs.get(&id).is_some_and(|job| {
            let is_active = matches!(job.head.state, JobState::Active(_));
            let is_missed = promise(&job.head).is_some_and(|promise| promise.missed.is_some());
            is_active && job.head.queue.moments.deliver_by.is_some() && !is_missed
        });
        match is_wanted {
            true if self.watch.next.contains_key(&id) => {}
            true => self.watch.put(id, Millis(0)),
            false => self.watch.remove(id),
        }
    }

    /// Looks at every promise that is due to be looked at.
    pub(super) fn keep_promises(&mut self, now: Millis, turn: &mut Turn) {
        while let Some((at, id)) = self.watch.order.first().copied() {
            if at > now {
                return;
            }
            self.watch.remove(id);
            if let Some(next) = self.look_at_promise(id, now, turn) {
                self.watch.put(id, next.max(now.plus(1)));
            }
        }
    }

    /// Answers when to look again, if ever.
    fn look_at_promise(&mut self, id: JobId, now: Millis, turn: &mut Turn) -> Option<Millis> {
        let job = self.jobs.get(&id)?;
        let JobState::Active(plan) = &job.head.state else { return None };
        let deliver_by = job.head.queue.moments.deliver_by?;
        if now >= deliver_by {
            self.change_promise(id, turn, |promise| {
                promise.missed.get_or_insert(now);
            });
            // What is left goes on as usual, and at another price.
            self.spending.freed = true;
            self.refile_job(id);
            return None;
        }
        let promise = plan.promise.as_deref().cloned().unwrap_or_default();
        let begins = self.rescue_begins(job, deliver_by);
        let expected = self.expected_end(job, now);
        let is_late = now >= begins || expected.is_some_and(|end| end > deliver_by);
        let begin = now >= begins && promise.rescue.is_none() && self.can_rescue(job, now);
        if is_late && promise.danger.is_none() || begin {
            self.change_promise(id, turn, |promise| {
                promise.danger.get_or_insert(now);
                promise.rescue = promise.rescue.or(begin.then_some(now));
            });
        }
        if begin {
            self.begin_rescues(id, now, turn);
        }
        if begin || promise.rescue.is_some() {
            let leave = self.leave_what_does_not_end(id, now, turn);
            return Some(leave.map_or(deliver_by, |leave| leave.min(deliver_by)));
        }
        let step = (deliver_by.since(now) / 16).clamp(LOOK_MIN_MS, LOOK_MAX_MS);
        let next = if begins > now { begins.min(now.plus(step)) } else { now.plus(step) };
        Some(next.min(deliver_by))
    }

    /// When the last results of a job are expected, from what its model's batches took lately;
    /// `None` if nothing is known of those, or nothing is under way.
    pub fn expected_end(&self, job: &Job, now: Millis) -> Option<Millis> {
        expected_of(job, self.past.history().typical_ms(&job.head.queue.model), now)
    }

    pub(super) fn change_promise(
        &mut self,
        id: JobId,
        turn: &mut Turn,
        change: impl FnOnce(&mut Promise),
    ) {
        self.change_plan(id, turn, |plan| {
            let before = plan.promise.clone();
            change(plan.promise.get_or_insert_default());
            plan.promise != before
        });
    }

    /// The chunks of a job as units.
    pub(super) fn units_of(&self, id: JobId) -> Vec<Unit> {
        let chunks = self.jobs.get(&id).into_iter().flat_map(|job| job.chunks.keys());
        chunks.map(|no: &ChunkNo| Unit { job: id, chunk: Some(*no) }).collect()
    }
}

/// When the last results of a job are expected, whose model's batches took `typical_ms` lately;
/// `None` if nothing is known of those, or nothing is under way. Of a rescue it is not told.
pub fn expected_of(job: &Job, typical_ms: Option<u64>, now: Millis) -> Option<Millis> {
    let JobState::Active(plan) = &job.head.state else { return None };
    let is_rescued = plan.promise.as_ref().is_some_and(|promise| promise.rescue.is_some());
    if is_rescued && job.head.queue.moments.deliver_by.is_some_and(|by| now < by) {
        return None;
    }
    let opens = job.head.queue.moments.opens.unwrap_or(now);
    job.leaves().filter_map(|chunk| chunk_ends(chunk, typical_ms, opens, now)).max()
}

/// What became of the deadline of a job that is planned.
pub(super) fn promise(head: &Head) -> Option<&Promise> {
    head.state.plan().and_then(|plan: &Plan| plan.promise.as_deref())
}

/// Rows of a job that wait for an answer.
pub(super) fn rows_left(job: &Job) -> u64 {
    let open = job.leaves().filter(|chunk| chunk.state != ChunkState::Settled);
    open.map(|chunk| chunk.rest.rows()).sum()
}

fn chunk_ends(chunk: &Chunk, typical: Option<u64>, opens: Millis, now: Millis) -> Option<Millis> {
    match &chunk.state {
        ChunkState::Settled | ChunkState::Split { .. } => None,
        ChunkState::Collecting { .. } | ChunkState::Rescuing { .. } => Some(now),
        ChunkState::Polling(batch) => Some(batch.created.plus(typical?).max(now)),
        ChunkState::Waiting { not_before } => {
            Some((*not_before).max(now).max(opens).plus(typical?))
        }
        ChunkState::Uploading { .. }
        | ChunkState::Creating { .. }
        | ChunkState::Uncertain { .. }
        | ChunkState::Stuck { .. } => Some(now.plus(typical?)),
    }
}

/// A promise is looked at no more often than this, milliseconds.
const LOOK_MIN_MS: u64 = 1_000;
/// And at least so often.
const LOOK_MAX_MS: u64 = rescue::LOOK_MAX_MS;
