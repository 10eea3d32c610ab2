//! Release windows: nothing of a job is sent before its moment.
//!
//! The moment is worked out by the shell when the file is claimed, from the cron line of its queue;
//! here it is only compared. The file is read and checked at once all the same. A window that has
//! opened stays open, whatever the clock says later: with the first attempt, or when an operator
//! releases the job, the moment is taken out of its record.

use super::effect::{Change, Turn};
use super::ids::{JobId, Millis};
use super::job::{Chunk, ChunkState, Head, Job, JobState, Moments};
use super::lanes::Unit;
use super::machine::Engine;

/// When the files of a queue are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// A cron line of five or six fields.
    pub release: String,
    /// The time zone it counts in, by its IANA name; empty: that of the machine.
    pub zone: String,
}

impl Engine {
    /// The moment a job waits for, before which nothing of it is sent; `None` if it waits for none.
    pub fn opens(&self, job: &Job) -> Option<Millis> {
        closed_until(&job.head).filter(|opens| *opens > self.latest)
    }

    /// Whether all that a planned job waits for is its moment.
    pub fn waits_for_its_window(&self, job: &Job) -> bool {
        matches!(job.head.state, JobState::Active(_)) && self.opens(job).is_some()
    }

    /// When a job goes on of which something is to be sent or looked for after a pause.
    pub fn wakes(&self, job: &Job) -> Option<Millis> {
        let pauses = |chunk: &&Chunk| {
            matches!(chunk.state, ChunkState::Waiting { .. } | ChunkState::Uncertain { .. })
        };
        let unit = |chunk: &Chunk| Unit { job: job.head.id, chunk: Some(chunk.no) };
        let paused = job.chunks.values().filter(pauses);
        let times = paused.filter_map(|chunk| self.lanes.time_of(unit(chunk)));
        times.filter(|at| *at > self.latest).min()
    }

    /// Jobs that were claimed later than it is now, and still wait for their moment: the clock was
    /// wrong then, and so is the moment.
    pub fn windows_in_doubt(&self, now: Millis) -> Vec<JobId> {
        let is_odd = |job: &&Job| {
            job.head.claimed.since(now) > CLOCK_OFF_MS
                && closed_until(&job.head).is_some_and(|opens| opens > now)
        };
        self.jobs.values().filter(is_odd).map(|job| job.head.id).collect()
    }

    /// A job that waits for its moment waits for another one from now on, if for any; its results
    /// are wanted by another one, too.
    pub fn set_moments(&mut self, id: JobId, moments: Moments, now: Millis) -> Turn {
        let mut turn = Turn::default();
        let closed = |job: &&mut Job| closed_until(&job.head).is_some();
        if let Some(job) = self.jobs.get_mut(&id).filter(closed) {
            job.head.queue.moments = moments;
            turn.save.push(Change::Head(Box::new(job.head.clone())));
            self.refile_job(id);
            self.pump(now, &mut turn);
        }
        turn
    }

    /// An operator does not want a job to wait for its moment. Answers whether it did.
    pub(super) fn open_window(&mut self, id: JobId, now: Millis, turn: &mut Turn) -> bool {
        let opens = self.jobs.get(&id).and_then(|job| closed_until(&job.head));
        let was_closed = opens.is_some_and(|opens| opens > now);
        if was_closed {
            self.forget_window(id, turn);
            self.refile_job(id);
        }
        was_closed
    }

    /// The first attempt of a job is begun: its window has opened, for good.
    pub(super) fn note_window_open(&mut self, id: JobId, turn: &mut Turn) {
        self.forget_window(id, turn);
    }

    /// Whether the window of a job lets something of it go to the API now.
    pub(super) fn is_window_open(&self, head: &Head) -> bool {
        closed_until(head).is_none_or(|opens| opens <= self.latest)
    }

    fn forget_window(&mut self, id: JobId, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.head.queue.moments.opens.take().is_some() {
            turn.save.push(Change::Head(Box::new(job.head.clone())));
        }
    }
}

/// When a chunk that waits may be sent: neither before its own time nor before its job's moment.
pub(super) fn not_before(head: &Head, not_before: Millis) -> Millis {
    closed_until(head).map_or(not_before, |opens| opens.max(not_before))
}

/// The moment of a job that may still send something; what is cancelled has nothing to send.
fn closed_until(head: &Head) -> Option<Millis> {
    let is_cancelled = matches!(&head.state, JobState::Active(plan) if plan.cancelled);
    head.queue.moments.opens.filter(|_| head.state.may_send() && !is_cancelled)
}

/// A file that was claimed so far in the future was claimed by a wrong clock, milliseconds.
const CLOCK_OFF_MS: u64 = 120_000;
