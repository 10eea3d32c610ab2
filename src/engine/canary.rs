//! The canary: a few lines of a file go first, and the rest only if enough of them came back well.
//!
//! Planning cuts them out of the file as chunks of their own, so each line is sent and answered once.
//! As long as they are not judged, no other chunk of the job is sent. If too many of them are bad, the
//! job waits for a person: a release lets the rest go, a cancel gives it up.

use super::effect::{Effect, Turn};
use super::event::PlannedChunk;
use super::ids::{JobId, Millis, Rows};
use super::job::{Chunk, ChunkState, Head, Job, JobState, Plan, Refusal};
use super::lanes::{Lane, Unit};
use super::machine::Engine;

/// What a queue says about canaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// So many lines go first.
    pub lines: u64,
    /// So many of them may be bad.
    pub limit: Tolerance,
}

/// How many lines may be bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// So many in a hundred.
    Percent(u64),
    /// So many.
    Lines(u64),
}

/// The canary of one job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trial {
    /// The rows of it, in runs; each is a chunk of the plan.
    pub runs: Vec<Rows>,
    /// Lines of it that can be sent.
    pub lines: u64,
    /// How many of them are bad: not answered, cut off, or blocked; `None` until it is judged.
    pub bad: Option<u64>,
    /// There were too many, and nobody has decided yet.
    pub stopped: bool,
}

impl Tolerance {
    /// How many of so many lines may be bad.
    pub fn of(self, lines: u64) -> u64 {
        match self {
            Tolerance::Percent(percent) => {
                u64::try_from(u128::from(lines) * u128::from(percent) / 100).unwrap_or(u64::MAX)
            }
            Tolerance::Lines(lines) => lines,
        }
    }
}

impl Trial {
    /// A canary of chunks that planning has cut out.
    pub fn of(chunks: &[PlannedChunk]) -> Trial {
        let runs = chunks.iter().map(|chunk| chunk.rows).collect();
        let lines = chunks.iter().map(|chunk| chunk.left.rows + chunk.right.rows).sum();
        Trial { runs, lines, bad: None, stopped: false }
    }

    fn has(&self, chunk: &Chunk) -> bool {
        self.runs.iter().any(|run| run.contains(chunk.rows.first))
    }

    fn is_passed(&self) -> bool {
        self.bad.is_some() && !self.stopped
    }
}

impl Engine {
    /// The canary of a job has come back: so many of its lines are bad.
    pub(super) fn judged(&mut self, id: JobId, bad: u64, turn: &mut Turn) {
        let limit = self.jobs.get(&id).and_then(|job| job.head.queue.canary);
        self.change_plan(id, turn, |plan| {
            let is_cancelled = plan.cancelled;
            let Some(trial) = plan.canary.as_mut().filter(|trial| trial.bad.is_none()) else {
                return false;
            };
            trial.bad = Some(bad);
            let allowed = limit.map_or(u64::MAX, |canary| canary.limit.of(trial.lines));
            trial.stopped = bad > allowed && !is_cancelled;
            true
        });
        self.refile_job(id);
    }

    /// A person wants the rest sent although the canary came back badly. Answers whether it did.
    pub(super) fn pass_canary(&mut self, id: JobId, turn: &mut Turn) -> bool {
        let mut was_stopped = false;
        self.change_plan(id, turn, |plan| {
            if let Some(trial) = plan.canary.as_mut().filter(|trial| trial.stopped) {
                (trial.stopped, was_stopped) = (false, true);
            }
            was_stopped
        });
        if was_stopped {
            self.told.remove(&Unit { job: id, chunk: None });
            let bad = "the canary came back badly; an operator let the rest go".to_owned();
            self.warn(id, turn, bad);
            if let Some(job) = self.jobs.get(&id) {
                let head = Box::new(job.head.clone());
                self.issue(Lane::Move, Vec::new(), Effect::Withdraw { head }, None, turn);
            }
            self.refile_job(id);
        }
        was_stopped
    }

    /// What a job with a canary wants as a whole: to have it judged, or to tell people.
    pub(super) fn canary_wants(&self, job: &Job) -> Option<(Lane, Millis)> {
        let trial = trial_of(job)?;
        let is_told = self.told.contains(&Unit { job: job.head.id, chunk: None });
        match (trial.bad, trial.stopped) {
            (None, _) => is_back(job, trial).then_some((Lane::Merge, Millis(0))),
            (Some(_), true) if !is_told => Some((Lane::Move, Millis(0))),
            (Some(_), _) => None,
        }
    }
}

/// Whether a job waits for a person because of its canary.
pub fn is_stopped(job: &Job) -> bool {
    trial_of(job).is_some_and(|trial| trial.stopped)
}

/// What people are told of such a job.
pub fn told(job: &Job) -> Option<Refusal> {
    trial_of(job).filter(|trial| trial.stopped).map(|trial| refusal(&job.head, trial))
}

/// Whether a chunk must wait until the canary of its job is judged, and well.
pub(super) fn holds_back(job: &Job, chunk: &Chunk) -> bool {
    trial_of(job).is_some_and(|trial| !trial.is_passed() && !trial.has(chunk))
}

/// What a job with a canary wants done as a whole.
pub(super) fn effect(job: &Job) -> Option<Effect> {
    let trial = trial_of(job)?;
    match trial.stopped {
        true => {
            let refusal = refusal(&job.head, trial);
            Some(Effect::Notify { head: Box::new(job.head.clone()), refusal })
        }
        false => Some(Effect::Judge { head: Box::new(job.head.clone()) }),
    }
}

/// What people are told.
fn refusal(head: &Head, trial: &Trial) -> Refusal {
    let (id, bad, lines) = (head.id, trial.bad.unwrap_or_default(), trial.lines);
    let allowed = head.queue.canary.map_or(0, |canary| canary.limit.of(lines));
    Refusal {
        reason: CANARY.to_owned(),
        message: format!(
            "of the {lines} lines that went first, {bad} came back badly (not answered, cut off or \
             blocked), and {allowed} may; nothing else was sent"
        ),
        remedy: format!(
            "look at the answers beside this note; to send the rest all the same: gemini-batchd \
             release {id}; to give it up: gemini-batchd cancel {id}"
        ),
        line: None,
        column: None,
    }
}

/// The canary of a job that is under way and that nobody has cancelled.
fn trial_of(job: &Job) -> Option<&Trial> {
    match &job.head.state {
        JobState::Active(Plan { canary: Some(trial), cancelled: false, .. }) => Some(trial),
        JobState::Active(_)
        | JobState::Claiming
        | JobState::Planning
        | JobState::Merging(_)
        | JobState::Delivering(_)
        | JobState::Cleaning(_)
        | JobState::Done(_)
        | JobState::Refusing(_)
        | JobState::Failed(_)
        | JobState::Holding(_)
        | JobState::Held(_) => None,
    }
}

fn is_back(job: &Job, trial: &Trial) -> bool {
    let is_over =
        |chunk: &Chunk| matches!(chunk.state, ChunkState::Settled | ChunkState::Split { .. });
    job.chunks.values().filter(|chunk| trial.has(chunk)).all(is_over)
}

/// The reason of a job that waits because of its canary.
pub const CANARY: &str = "canary";
