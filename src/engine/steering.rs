//! What operators hold back, try again, and forget.
//!
//! A job on hold, or of a queue that is paused, sends nothing new: its chunks stay where they wait.
//! What it has at the API already is followed to its end. An upload that ends meanwhile is put
//! back among what waits, under the same attempt, so that it takes no capacity from others; when it
//! is its turn again, the file is found there by its name.

use std::collections::BTreeSet;

use super::effect::{Change, Turn};
use super::ids::{ChunkNo, JobId, Millis};
use super::job::{Chunk, ChunkState, Delivery, Doubt, Head, Job, JobState};
use super::lanes::Unit;
use super::machine::{Engine, find};
use super::stalled::waits_for_budget;

/// The queues of which nothing new is taken in or sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses {
    /// All of them.
    pub all: bool,
    /// These, whatever holds for all.
    pub queues: BTreeSet<String>,
}

impl Pauses {
    /// Whether nothing new of a queue is taken in or sent.
    pub fn cover(&self, queue: &str) -> bool {
        self.all || self.queues.contains(queue)
    }

    /// Whether nothing is paused.
    pub fn is_empty(&self) -> bool {
        !self.all && self.queues.is_empty()
    }
}

/// What it takes to try a job again.
#[derive(Debug, Clone, PartialEq)]
pub enum Retry {
    /// It is under way, and nothing but this is needed.
    Now(Turn),
    /// It is delivered, and its failed lines are to be dropped once more.
    FailedLines(Box<Head>, Box<Delivery>),
    /// It was refused whole, and its input is to be dropped once more.
    Input(Box<Head>),
}

impl Engine {
    /// What is paused.
    pub fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    /// These are paused from now on, and no other. The caller has saved them.
    pub fn pause(&mut self, pauses: Pauses, now: Millis) -> Turn {
        let mut turn = Turn::default();
        self.pauses = pauses;
        self.park_all(&mut turn);
        self.refile_everything();
        self.pump(now, &mut turn);
        turn
    }

    /// Whether nothing new is taken in, so that the daemon ends when it has finished the rest.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Takes in nothing new from now on, or, if not `closing`, does so again.
    pub fn close(&mut self, closing: bool) {
        self.closing = closing;
    }

    /// Why nothing new is taken in because an operator wants it so, and what to do.
    pub fn kept_from_new(&self) -> Option<&'static str> {
        match (self.pauses.all, self.closing) {
            (true, _) => Some("paused by an operator: `gemini-batchd resume` lets it go on"),
            (false, true) => Some(
                "draining: nothing new is taken in, and the daemon ends when it has finished the \
                 rest; `gemini-batchd resume` takes that back",
            ),
            (false, false) => None,
        }
    }

    /// Sends nothing new of a job until it is released. Asking twice changes nothing.
    ///
    /// # Errors
    /// In words, if nothing of it is going to be sent.
    pub fn hold(&mut self, id: JobId, now: Millis) -> Result<Turn, String> {
        match self.state(id) {
            Some(JobState::Claiming | JobState::Planning) => {}
            Some(JobState::Active(plan)) if !plan.cancelled => {}
            Some(JobState::Active(_)) => {
                return Err(format!("job {id} is being cancelled: nothing more of it is sent"));
            }
            // Such a file comes back as soon as there is enough for it.
            Some(state) if waits_for_budget(state) => {}
            Some(JobState::Holding(_) | JobState::Held(_)) => {
                return Err(format!(
                    "job {id} waits for a person already: `gemini-batchd status {id}` says for what"
                ));
            }
            Some(
                JobState::Merging(_)
                | JobState::Delivering(_)
                | JobState::Cleaning(_)
                | JobState::Done(_)
                | JobState::Refusing(_)
                | JobState::Failed(_),
            ) => return Err(format!("job {id} has nothing left to send")),
            None => return Err(self.not_under_way(id, "has nothing left to send")),
        }
        let mut turn = Turn::default();
        self.set_on_hold(id, true, &mut turn);
        self.park(id, &mut turn);
        self.refile_job(id);
        self.pump(now, &mut turn);
        Ok(turn)
    }

    /// What it takes to try a job again. If it is under way, whatever of it waits after an error
    /// does not wait any longer.
    ///
    /// # Errors
    /// In words, if nothing of it failed, or nothing waits after an error.
    pub fn retry(&mut self, id: JobId, now: Millis) -> Result<Retry, String> {
        let done = self.past.get(id).map(|job| (&job.head, &job.head.state));
        if let Some((head, JobState::Done(delivery))) = done {
            return match delivery.tally.failed {
                0 => Err(format!("job {id} has no failed lines: all of them are answered")),
                _ => Ok(Retry::FailedLines(Box::new(head.clone()), Box::new(delivery.clone()))),
            };
        }
        let Some(job) = self.jobs.get(&id) else {
            let what =
                "is too old to be tried again from here: drop its errors.jsonl into the inbox";
            return Err(self.not_under_way(id, what));
        };
        match &job.head.state {
            JobState::Failed(_) => return Ok(Retry::Input(Box::new(job.head.clone()))),
            JobState::Held(_) => {
                return Err(format!(
                    "job {id} did not fail, it waits for a person: `gemini-batchd status {id}` says \
                     for what"
                ));
            }
            JobState::Refusing(_) | JobState::Holding(_) => {
                return Err(format!("job {id} is being put aside; ask again in a moment"));
            }
            JobState::Claiming
            | JobState::Planning
            | JobState::Active(_)
            | JobState::Merging(_)
            | JobState::Delivering(_)
            | JobState::Cleaning(_)
            | JobState::Done(_) => {}
        }
        let mut turn = Turn::default();
        if !self.hurry(id, now, &mut turn) {
            let job = self.jobs.get(&id);
            return Err(match job.and_then(|job| self.held_back(job)) {
                Some(why) => format!("nothing of job {id} waits after an error; {why}"),
                None => format!("nothing of job {id} waits after an error"),
            });
        }
        self.pump(now, &mut turn);
        Ok(Retry::Now(turn))
    }

    /// Forgets the record of a job that is over. Its content is not known any more after that.
    ///
    /// # Errors
    /// In words, if it is under way, or there is none.
    pub fn delete(&mut self, id: JobId) -> Result<Turn, String> {
        let mut turn = Turn::default();
        match self.state(id) {
            Some(JobState::Failed(_) | JobState::Held(_) | JobState::Done(_)) => {
                self.forget(id, &mut turn);
            }
            Some(
                JobState::Merging(_)
                | JobState::Delivering(_)
                | JobState::Cleaning(_)
                | JobState::Refusing(_)
                | JobState::Holding(_),
            ) => return Err(format!("job {id} is about to end; ask again in a moment")),
            Some(JobState::Active(plan)) if plan.cancelled => {
                return Err(format!("job {id} is being cancelled; ask again when it is over"));
            }
            Some(JobState::Claiming | JobState::Planning | JobState::Active(_)) => {
                return Err(format!(
                    "job {id} is under way: cancel it first, `gemini-batchd cancel {id}`"
                ));
            }
            None => match self.past.forget(id) {
                true => turn.save.push(Change::Forget(id)),
                false => return Err(format!("there is no job {id}")),
            },
        }
        self.contents.retain(|(_, of)| *of != id);
        Ok(turn)
    }

    /// Why nothing new of a job is sent because an operator wants it so, and what to do.
    pub fn held_back(&self, job: &Job) -> Option<String> {
        let (id, queue) = (job.head.id, job.head.queue.name.as_str());
        let is_cancelled = matches!(&job.head.state, JobState::Active(plan) if plan.cancelled);
        let is_planned = matches!(job.head.state, JobState::Active(_));
        let waits = job.head.state.may_send()
            && !is_cancelled
            && (!is_planned || job.chunks.values().any(is_to_be_sent));
        if job.head.on_hold {
            return Some(format!(
                "nothing new of it is sent until `gemini-batchd release {id}` lets it go on"
            ));
        }
        if waits && self.pauses.all {
            return Some("the daemon is paused: `gemini-batchd resume` lets it go on".to_owned());
        }
        (waits && self.pauses.queues.contains(queue)).then(|| {
            let queue = as_argument(queue);
            format!("the queue {queue} is paused: `gemini-batchd resume {queue}` lets it go on")
        })
    }

    /// Whether something new of a job may go to the API. A cancelled one has nothing to send, and
    /// must come to its end.
    pub(super) fn may_send(&self, head: &Head) -> bool {
        let is_cancelled = matches!(&head.state, JobState::Active(plan) if plan.cancelled);
        is_cancelled || !head.on_hold && !self.pauses.cover(&head.queue.name)
    }

    /// Whether a job's file stays in the inbox because its queue is paused.
    pub(super) fn is_left_in_inbox(&self, head: &Head) -> bool {
        head.state == JobState::Claiming && self.pauses.cover(&head.queue.name)
    }

    /// Puts a job on hold, or ends that. Answers whether it was otherwise before.
    pub(super) fn set_on_hold(&mut self, id: JobId, on_hold: bool, turn: &mut Turn) -> bool {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.head.on_hold != on_hold) else {
            return false;
        };
        job.head.on_hold = on_hold;
        turn.save.push(Change::Head(Box::new(job.head.clone())));
        true
    }

    /// Puts uploads that are not under way, and that must not go on, back among what waits.
    pub(super) fn park_all(&mut self, turn: &mut Turn) {
        let held = self.jobs.values().filter(|job| !self.may_send(&job.head));
        let ids: Vec<JobId> = held.map(|job| job.head.id).collect();
        for id in ids {
            self.park(id, turn);
        }
    }

    fn park(&mut self, id: JobId, turn: &mut Turn) {
        let chunks = self.jobs.get(&id).into_iter().flat_map(|job| job.chunks.keys());
        let units: Vec<Unit> = chunks.map(|no| Unit { job: id, chunk: Some(*no) }).collect();
        self.park_units(&units, turn);
    }

    /// The same for these chunks alone.
    pub(super) fn park_units(&mut self, units: &[Unit], turn: &mut Turn) {
        for &unit in units {
            let is_parked = find(&self.jobs, unit).is_some_and(|(job, chunk)| {
                matches!(
                    (&job.head.state, &chunk.state),
                    (JobState::Active(_), ChunkState::Uploading { .. })
                ) && self.is_withheld(job)
                    && !self.busy.contains(&unit)
            });
            if is_parked {
                self.set_chunk(unit, ChunkState::Waiting { not_before: Millis(0) }, turn);
            }
        }
    }

    /// Lets nothing of a job wait any longer that waits after an error. Answers whether anything
    /// did.
    fn hurry(&mut self, id: JobId, now: Millis, turn: &mut Turn) -> bool {
        let mut hurried = false;
        for (_, trouble) in self.troubles.iter_mut().filter(|(unit, _)| unit.job == id) {
            hurried |= trouble.not_before > now;
            trouble.not_before = trouble.not_before.min(now);
        }
        let chunks = self.jobs.get(&id).into_iter().flat_map(|job| job.chunks.values());
        let sooner: Vec<(ChunkNo, ChunkState)> = chunks
            .filter_map(|chunk| Some((chunk.no, without_pause(&chunk.state, now)?)))
            .collect();
        for (no, state) in sooner {
            hurried = true;
            self.set_chunk(Unit { job: id, chunk: Some(no) }, state, turn);
        }
        let key = self.jobs.get(&id).and_then(|job| self.key_of_job(job));
        if let Some(gate) = key.and_then(|key| self.gates.get_mut(&key))
            && gate.until > now
        {
            hurried = true;
            gate.until = now;
        }
        self.refile_job(id);
        hurried
    }

    /// What is said of a job that is not among those under way.
    pub(super) fn not_under_way(&self, id: JobId, otherwise: &str) -> String {
        match self.past.known(id) {
            Some(_) => format!("job {id} {otherwise}"),
            None => format!("there is no job {id}"),
        }
    }
}

/// A queue's name as it can stand on a command line.
pub fn as_argument(queue: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    match queue.chars().all(is_plain) && !queue.starts_with('-') {
        true => queue.to_owned(),
        false => format!("'{}'", queue.replace('\'', "'\\''")),
    }
}

/// Whether some of a chunk's rows are to be sent, and not on their way yet.
fn is_to_be_sent(chunk: &Chunk) -> bool {
    matches!(chunk.state, ChunkState::Waiting { .. } | ChunkState::Uploading { .. })
}

/// The same state without the pause after an error, if there is one.
fn without_pause(state: &ChunkState, now: Millis) -> Option<ChunkState> {
    match state {
        ChunkState::Waiting { not_before } if *not_before > now => {
            Some(ChunkState::Waiting { not_before: now })
        }
        ChunkState::Uncertain { input, since, until, doubt: Doubt::RateLimited, .. }
            if *until > now =>
        {
            let (input, since, doubt) = (input.clone(), *since, Doubt::RateLimited);
            Some(ChunkState::Uncertain { input, since, next_probe: now, until: now, doubt })
        }
        ChunkState::Waiting { .. }
        | ChunkState::Uncertain { .. }
        | ChunkState::Uploading { .. }
        | ChunkState::Creating { .. }
        | ChunkState::Stuck { .. }
        | ChunkState::Polling(_)
        | ChunkState::Collecting { .. }
        | ChunkState::Rescuing { .. }
        | ChunkState::Settled
        | ChunkState::Split { .. } => None,
    }
}
