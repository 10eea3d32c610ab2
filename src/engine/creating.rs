//! The paid call: what follows when it worked, was refused, or got no answer.

use super::canary;
use super::effect::{Effect, Turn};
use super::event::{Failure, Objection, RemoteBatch};
use super::ids::{Attempt, BatchName, FileName, JobId, Millis, Stamp};
use super::job::{
    Batch, Chunk, ChunkState, Doubt, Family, Head, Input, Job, JobState, Refusal, RemoteError,
    RemoteState,
};
use super::lanes::{Lane, Unit};
use super::machine::{Engine, find, find_mut, salt};
use super::policy::{self, Uncertain};

/// A batch that exists.
pub(super) struct Made<'a> {
    pub(super) name: BatchName,
    pub(super) created: Millis,
    /// It was found, not told of.
    pub(super) adopted: bool,
    /// Fingerprint of the key it was made or found with.
    pub(super) print: Option<&'a str>,
}

impl Engine {
    pub(super) fn created(&mut self, unit: Unit, made: Made<'_>, now: Millis, turn: &mut Turn) {
        let Made { name, created, adopted, print } = made;
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        let input = match &chunk.state {
            ChunkState::Creating { input, .. } | ChunkState::Uncertain { input, .. } => {
                input.clone()
            }
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Rescuing { .. }
            | ChunkState::Polling(_)
            | ChunkState::Collecting { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => return,
        };
        let (remote, input_gone) = (RemoteState::Pending, false);
        let key_print = print.map(str::to_owned).or(chunk.key_print.clone()).unwrap_or_default();
        let (of_key, file) = (key_print.clone(), input.clone());
        let batch = Batch { name, input, created, adopted, remote, key_print, input_gone };
        // Of what was found after a loss, nothing may have been set aside.
        self.set_aside(unit, now);
        let state = ChunkState::Polling(batch);
        self.set_chunk(unit, state, turn);
        self.let_in(unit);
        let key = self.policy.keys.of_print(&of_key);
        if key.is_some() {
            self.bind(unit, &of_key, turn);
        }
        if let Input::File(file) = file
            && self.policy.remote_cleanup
            && self.is_read_at_create(unit.job)
        {
            self.drop_input(unit, file, key, turn);
        }
        let next = self.policy.next_poll(now, 0);
        self.polls.insert(unit, super::machine::PollNote { next, missed: 0 });
        self.change_plan(unit.job, turn, |plan| {
            let fresh = plan.first_create.is_none();
            plan.first_create.get_or_insert(now);
            fresh
        });
    }

    /// The API definitely did not create the batch, and never will from this request.
    pub(super) fn refused(
        &mut self,
        unit: Unit,
        error: RemoteError,
        to: Objection,
        now: Millis,
        turn: &mut Turn,
    ) {
        // Lines can be refused for the files that they name, before anything of them is sent.
        let is_lines = matches!(to, Objection::Lines { .. });
        if !self.is_in(unit, |state| match state {
            ChunkState::Creating { .. } => true,
            ChunkState::Uploading { .. } | ChunkState::Rescuing { .. } => is_lines,
            ChunkState::Waiting { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Polling(_)
            | ChunkState::Collecting { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => false,
        }) {
            return;
        }
        let (spent, creating) = (self.anything_spent(unit.job), self.creating_in(unit.job));
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        chunk.last_error = Some(error.clone());
        match to {
            Objection::Lines { rest, .. } => {
                chunk.rest = rest;
                self.send_rest(unit, now, turn);
            }
            Objection::File if chunk.tries + 1 < head.queue.attempts => {
                chunk.tries += 1;
                self.send_rest(unit, now, turn);
            }
            Objection::File => self.settle(unit, turn),
            // Siblings are told the same; the last of them refuses the file.
            Objection::Model if !spent && creating > 1 => {
                let not_before = now.plus(self.policy.backoff_ms(1, salt(unit)));
                self.send_rest(unit, not_before, turn);
            }
            Objection::Model if !spent => {
                let refusal = self.unknown_model(unit.job, &error);
                self.set_chunk(unit, ChunkState::Settled, turn);
                self.advance(unit.job, JobState::Refusing(refusal), turn);
            }
            Objection::Model => self.settle(unit, turn),
            Objection::Whole { rest } => {
                chunk.rest = rest;
                self.halve(unit, now, turn);
            }
        }
    }

    /// Whether any chunk of the job got as far as a batch; if none did, the file can still be
    /// refused whole.
    pub(super) fn anything_spent(&self, id: JobId) -> bool {
        let spent = |chunk: &Chunk| match &chunk.state {
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Creating { .. } => !chunk.batches.is_empty(),
            ChunkState::Uncertain { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Rescuing { .. }
            | ChunkState::Polling(_)
            | ChunkState::Collecting { .. }
            | ChunkState::Split { .. }
            | ChunkState::Settled => true,
        };
        self.jobs.get(&id).is_some_and(|job| job.chunks.values().any(spent))
    }

    pub(super) fn creating_in(&self, id: JobId) -> usize {
        let creating = |chunk: &&Chunk| matches!(chunk.state, ChunkState::Creating { .. });
        self.jobs.get(&id).map_or(0, |job| job.chunks.values().filter(creating).count())
    }

    pub(super) fn unknown_model(&self, id: JobId, error: &RemoteError) -> Refusal {
        let queue = self.jobs.get(&id).map(|job| &job.head.queue);
        let (name, model) = queue.map_or(("", ""), |queue| (&queue.name, &queue.model));
        Refusal {
            reason: "unknown_model".to_owned(),
            message: format!("the API does not know the model {model}: {}", error.message),
            remedy: format!(
                "set model under [queue.{name}] in the configuration to a model that supports \
                 batches, reload it, and move the file back into the inbox"
            ),
            line: None,
            column: None,
        }
    }

    pub(super) fn create_failed(
        &mut self,
        unit: Unit,
        input: Input,
        since: Millis,
        failure: &Failure,
        now: Millis,
        turn: &mut Turn,
    ) {
        let pause = self.troubles.get(&unit).map_or(now, |trouble| trouble.not_before);
        let state = match failure {
            // There is no batch, and nobody wants one any more.
            Failure::Transient(_)
            | Failure::Denied(_)
            | Failure::Barred(_)
            | Failure::Rejected(_)
            | Failure::Local(_)
                if self.is_cancelled(unit.job) =>
            {
                return self.settle(unit, turn);
            }
            // Not sent, not sent to its end, or refused for the key's sake: there is no batch.
            Failure::Transient(_)
            | Failure::Denied(_)
            | Failure::Barred(_)
            | Failure::Rejected(_)
            | Failure::Local(_) => ChunkState::Waiting { not_before: pause },
            Failure::RateLimited { retry_after_ms, .. } => {
                self.turned_away(unit, *retry_after_ms, now);
                let doubt = Doubt::RateLimited;
                ChunkState::Uncertain { input, since, next_probe: pause, until: pause, doubt }
            }
            Failure::Ambiguous(_)
            | Failure::Gone(_)
            | Failure::NotReady(_)
            | Failure::Damaged { .. }
            | Failure::Removed(_) => {
                let next_probe = now.plus(self.policy.probe_ms());
                let until = now.plus(self.policy.uncertain_window_ms);
                let doubt = Doubt::Lost;
                ChunkState::Uncertain { input, since, next_probe, until, doubt }
            }
        };
        self.set_chunk(unit, state, turn);
    }

    pub(super) fn upload_rejected(
        &mut self,
        unit: Unit,
        message: String,
        now: Millis,
        turn: &mut Turn,
    ) {
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        chunk.last_error = Some(RemoteError { code: 3, message });
        chunk.tries += 1;
        if chunk.tries < head.queue.attempts {
            self.send_rest(unit, now, turn);
        } else {
            self.settle(unit, turn);
        }
    }

    /// All pages were listed while looking for a batch that may exist.
    pub(super) fn found(
        &mut self,
        unit: Unit,
        batches: Vec<RemoteBatch>,
        print: Option<&str>,
        now: Millis,
        turn: &mut Turn,
    ) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        let ChunkState::Uncertain { input, since, until, doubt, .. } = chunk.state.clone() else {
            return;
        };
        let (attempt, key) = (chunk.attempt, self.key_of(job, chunk));
        let running = |batch: &&RemoteBatch| !batch.is_finished();
        let doubles: Vec<BatchName> =
            batches.iter().skip(1).filter(running).map(|batch| batch.name.clone()).collect();
        for batch in &doubles {
            let effect = Effect::CancelBatch { batch: batch.clone() };
            self.issue(Lane::Cancel, Vec::new(), effect, key, turn);
        }
        let patience = until.plus(self.policy.uncertain_window_ms);
        if !doubles.is_empty() && now < patience {
            // Only when they have stopped is the oldest taken up: a crash before that, or a cancel
            // that fails, finds them again and asks again.
            let next_probe = now.plus(self.policy.probe_ms());
            let state = ChunkState::Uncertain { input, since, next_probe, until, doubt };
            self.set_chunk(unit, state, turn);
            return;
        }
        let mut batches = batches.into_iter();
        if let Some(oldest) = batches.next() {
            let created = policy::plausible(oldest.created, since);
            let made = Made { name: oldest.name, created, adopted: true, print };
            self.created(unit, made, now, turn);
            for other in batches {
                self.warn(unit.job, turn, doubled(unit, attempt, &other.name));
            }
            return;
        }
        self.not_found(unit, self.policy.uncertain == Uncertain::Hold, now, turn);
    }

    /// There is no list to look in: what may exist can not be told from what does not, so only a
    /// person can say that it is to be sent again.
    pub(super) fn unlisted(&mut self, unit: Unit, why: String, now: Millis, turn: &mut Turn) {
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        chunk.last_error = Some(RemoteError { code: UNIMPLEMENTED, message: why });
        self.not_found(unit, true, now, turn);
    }

    /// The batch was not seen. It is looked for until the window is over; then it is sent again,
    /// unless it `waits` for a person.
    fn not_found(&mut self, unit: Unit, waits: bool, now: Millis, turn: &mut Turn) {
        let Some((_, chunk)) = find(&self.jobs, unit) else { return };
        let ChunkState::Uncertain { input, since, until, doubt, .. } = chunk.state.clone() else {
            return;
        };
        let attempt = chunk.attempt;
        let is_foreign = self.is_foreign(chunk);
        if now < until {
            let next_probe = now.plus(self.policy.probe_ms()).min(until);
            let state = ChunkState::Uncertain { input, since, next_probe, until, doubt };
            self.set_chunk(unit, state, turn);
        } else if self.is_cancelled(unit.job) {
            self.settle(unit, turn);
        } else if doubt == Doubt::Lost && (is_foreign || waits) {
            // With another key it could not be seen even if it were there.
            self.set_chunk(unit, ChunkState::Stuck { input, since }, turn);
        } else {
            if doubt == Doubt::Lost {
                self.warn(unit.job, turn, sent_again(unit, attempt));
            }
            match input {
                _ if doubt == Doubt::RateLimited && self.is_too_large(unit) => {
                    self.halve_for_room(unit, now, turn);
                }
                Input::File(file) if doubt == Doubt::RateLimited => {
                    self.try_again(unit, file, turn)
                }
                Input::File(_) | Input::Inline => self.send_rest(unit, now, turn),
            }
        }
    }

    /// A create was turned away for asking too much: the next attempt takes the file that is there
    /// already. The upload only makes sure of it.
    fn try_again(&mut self, unit: Unit, file: FileName, turn: &mut Turn) {
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        chunk.attempt = chunk.attempt.next();
        self.set_chunk(unit, ChunkState::Uploading { file }, turn);
    }

    /// Whether people are still to be told that something waits for them.
    pub fn has_news(&self) -> bool {
        let is_news = |job: &Job, chunk: &Chunk| {
            let unit = Unit { job: job.head.id, chunk: Some(chunk.no) };
            matches!(chunk.state, ChunkState::Stuck { .. }) && !self.told.contains(&unit)
        };
        self.jobs.values().any(|job| {
            let unit = Unit { job: job.head.id, chunk: None };
            canary::is_stopped(job) && !self.told.contains(&unit)
                || self.owes_note(job)
                || job.chunks.values().any(|chunk| is_news(job, chunk))
        })
    }

    /// A note was written. If a person decided while it was, it is taken back.
    pub(super) fn note_told(&mut self, unit: Unit, turn: &mut Turn) {
        // If one was taken back meanwhile, nobody knows which came last: it is written again.
        let is_crossed = self.crossed.remove(&unit);
        if unit.chunk.is_none() && self.stalled.note_told(unit.job) {
            if is_crossed {
                self.stalled.tell_again(unit.job);
            }
            return;
        }
        let Some(job) = self.jobs.get(&unit.job) else { return };
        let is_stuck = |chunk: &Chunk| matches!(chunk.state, ChunkState::Stuck { .. });
        if find(&self.jobs, unit).is_some_and(|(_, chunk)| is_stuck(chunk))
            || unit.chunk.is_none() && canary::is_stopped(job)
        {
            if !is_crossed {
                self.told.insert(unit);
            }
        } else {
            // What else the job waits for is told again when this note is gone.
            let head = Box::new(job.head.clone());
            self.issue(Lane::Move, Vec::new(), Effect::Withdraw { head }, None, turn);
        }
    }

    /// The note about a job is gone. A job has only one: what else it told of is told again.
    pub(super) fn withdrawn(&mut self, id: JobId) {
        self.told.retain(|unit| unit.job != id);
        self.stalled.tell_again(id);
        let moves = self.running.values().filter(|running| running.lane == Lane::Move);
        let under_way = moves.flat_map(|running| &running.units).filter(|unit| unit.job == id);
        self.crossed.extend(under_way);
        self.refile_job(id);
    }
}

/// The input file by which the batches of an attempt are known, where they bear no stamp.
pub(super) fn known_by(family: Family, input: &Input) -> Option<&FileName> {
    match (family, input) {
        (Family::OpenAi, Input::File(file)) => Some(file),
        (Family::OpenAi, Input::Inline) | (Family::Native, _) => None,
    }
}

/// What people are told of a chunk that waits for them; `is_foreign` says that it was sent with a
/// key that is not in use any more.
pub(super) fn uncertain(head: &Head, chunk: &Chunk, is_foreign: bool) -> Refusal {
    let (no, job) = (chunk.no.0, head.id);
    let input = match &chunk.state {
        ChunkState::Stuck { input, .. } => known_by(head.state.family(), input),
        ChunkState::Waiting { .. }
        | ChunkState::Uploading { .. }
        | ChunkState::Creating { .. }
        | ChunkState::Uncertain { .. }
        | ChunkState::Polling(_)
        | ChunkState::Collecting { .. }
        | ChunkState::Rescuing { .. }
        | ChunkState::Settled
        | ChunkState::Split { .. } => None,
    };
    let sought = match input {
        Some(file) => format!("no batch made from {}", file.0),
        None => format!("no batch named {}", Stamp::new(job, chunk.no, chunk.attempt).0),
    };
    let unlisted = chunk.last_error.as_ref().filter(|error| error.code == UNIMPLEMENTED);
    let (message, first) = match (is_foreign, unlisted.filter(|_| input.is_some())) {
        (false, None) => {
            (format!("chunk {no} was sent, no answer came, and {sought} was found"), "")
        }
        (false, Some(error)) => (
            format!(
                "chunk {no} was sent, no answer came, and there is no list in which its batch \
                 could be found: {}",
                error.message
            ),
            "",
        ),
        (true, _) => (
            format!(
                "chunk {no} was sent with another API key, no answer came, and with the key in use \
                 {sought} is to be seen"
            ),
            "to look for it once more: put the former key back first; ",
        ),
    };
    Refusal {
        reason: "uncertain".to_owned(),
        message,
        remedy: format!(
            "{first}to send it again unless it shows up, at the risk of paying twice: gemini-batchd \
             release {job}; to give up what is unanswered: gemini-batchd cancel {job}"
        ),
        line: None,
        column: None,
    }
}

fn sent_again(unit: Unit, attempt: Attempt) -> String {
    format!(
        "chunk {}: the create call of attempt {} got no answer and no batch of its name was \
         found within the settling window; it was sent again",
        unit.chunk.map_or(0, |no| no.0),
        attempt.0
    )
}

fn doubled(unit: Unit, attempt: Attempt, batch: &BatchName) -> String {
    format!(
        "chunk {}: attempt {} had made more than one batch; the oldest was kept and {} cancelled",
        unit.chunk.map_or(0, |no| no.0),
        attempt.0,
        batch.0
    )
}

/// The code of an error that says that something is not there to be asked for.
const UNIMPLEMENTED: i32 = 12;
