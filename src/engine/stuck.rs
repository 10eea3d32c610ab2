//! Batches that do not begin: far beyond what their model usually takes they are still waiting.
//!
//! They are told of, or, where the queue wants that, stopped, collected and sent again, whole or in
//! two halves; at most twice for the same rows. None of that counts as a try.

use super::effect::Turn;
use super::ids::{BatchName, Millis};
use super::job::{Batch, Chunk, ChunkState, Deadline, Job, RemoteEnd, RemoteState};
use super::lanes::Unit;
use super::machine::{Engine, find, find_mut};

/// What is done about a batch that does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stuck {
    /// People are told.
    #[default]
    Report,
    /// It is stopped, and what it did not answer is sent again.
    Resubmit,
    /// The same in two halves.
    Split,
}

impl Engine {
    /// Takes note if the batch of a chunk does not begin.
    pub(super) fn watch_pending(&mut self, unit: Unit, now: Millis, turn: &mut Turn) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        let ChunkState::Polling(batch) = &chunk.state else { return };
        let is_pending = batch.remote == RemoteState::Pending;
        let is_known = stuck(chunk) == Some(&batch.name);
        if !is_pending || is_known || now.since(batch.created) <= self.stuck_after_ms(job) {
            return;
        }
        let (name, state) = (batch.name.clone(), chunk.state.clone());
        if let Some((_, chunk)) = find_mut(&mut self.jobs, unit) {
            chunk.aid.get_or_insert_default().stuck = Some(name);
        }
        self.set_chunk(unit, state, turn);
    }

    /// After how long a batch of the job counts as stuck, milliseconds.
    pub fn stuck_after_ms(&self, job: &Job) -> u64 {
        let set = job.head.queue.deadline.as_ref().and_then(|deadline| deadline.stuck_after);
        let typical = self.past.history().typical_ms(&job.head.queue.model).unwrap_or(0);
        set.unwrap_or_else(|| AUTO_MIN_MS.max(typical.saturating_mul(AUTO_TIMES)))
    }

    /// Whether a batch is to be stopped because it does not begin.
    pub(super) fn is_to_be_sent_again(&self, job: &Job, chunk: &Chunk, batch: &Batch) -> bool {
        let usual = Deadline::USUAL;
        let policy = job.head.queue.deadline.as_deref().unwrap_or(&usual).stuck;
        policy != Stuck::Report
            && stuck(chunk) == Some(&batch.name)
            && chunk.aid.as_ref().is_none_or(|aid| aid.resent < RESENT_MAX)
            && self.may_send(&job.head)
    }

    /// What follows the end of a batch that was stopped because it did not begin. Answers whether it
    /// was one.
    pub(super) fn send_again_if_stuck(
        &mut self,
        unit: Unit,
        batch: &Batch,
        end: &RemoteEnd,
        now: Millis,
        turn: &mut Turn,
    ) -> bool {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return false };
        let is_ours = end.state == RemoteState::Cancelled
            && self.is_to_be_sent_again(job, chunk, batch)
            && !self.is_rescuing(job)
            && chunk.rest.rows() > 0;
        if !is_ours {
            return false;
        }
        let usual = Deadline::USUAL;
        let policy = job.head.queue.deadline.as_deref().unwrap_or(&usual).stuck;
        let split = policy == Stuck::Split && chunk.rest.rows() > 1;
        if let Some((_, chunk)) = find_mut(&mut self.jobs, unit) {
            let aid = chunk.aid.get_or_insert_default();
            aid.resent = aid.resent.saturating_add(1);
        }
        match split {
            true => self.halve(unit, now, turn),
            false => self.send_rest(unit, now, turn),
        }
        true
    }
}

/// The batch of a chunk that was found not to begin.
pub fn stuck(chunk: &Chunk) -> Option<&BatchName> {
    chunk.aid.as_deref().and_then(|aid| aid.stuck.as_ref())
}

/// A batch that waits for less is never stuck unless its queue says so, milliseconds.
const AUTO_MIN_MS: u64 = 6 * 3_600_000;
/// It is stuck after so many times what its model usually takes.
const AUTO_TIMES: u64 = 4;
/// The same rows are sent again so often at most.
const RESENT_MAX: u8 = 2;
