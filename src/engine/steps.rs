//! What each outcome and each failure means for the job or the chunk it belongs to.

use super::effect::{Change, Effect, Turn};
use super::event::{Failure, Harvest, Objection, Outcome, Polled, RemoteBatch};
use super::ids::{Attempt, BatchName, ChunkNo, JobId, Millis, Rows};
use super::job::{
    Batch, BatchRecord, Chunk, ChunkState, Delivery, Doubt, Input, JobState, Plan, Refusal,
    RemoteEnd, RemoteError, RemoteState, Rest, Share,
};
use super::lanes::{Lane, Unit};
use super::machine::{Engine, find, find_mut, salt};
use super::policy::{self, Duplicates, Uncertain};

impl Engine {
    /// An effect was done for these units. Outcomes that do not fit the state any more belong to
    /// something superseded and change nothing.
    pub(super) fn apply(&mut self, units: &[Unit], outcome: Outcome, now: Millis, turn: &mut Turn) {
        let Some(&unit) = units.first() else { return };
        let id = unit.job;
        match outcome {
            Outcome::Claimed => self.advance(id, JobState::Planning, turn),
            Outcome::Vanished => self.forget(id, turn),
            Outcome::Planned { plan, chunks } => {
                let chunks = chunks.iter().zip(1..).map(|(planned, no)| {
                    let rest = Rest { left: planned.left, right: planned.right };
                    Chunk::new(ChunkNo(no), ChunkNo(no), planned.rows, rest)
                });
                self.planned(id, plan, chunks.collect(), now, turn);
            }
            Outcome::Unusable(refusal) => self.advance(id, JobState::Refusing(refusal), turn),
            Outcome::Moved => self.moved(id, turn),
            Outcome::Uploaded { file } => {
                if self.is_in(unit, |state| matches!(state, ChunkState::Uploading { .. })) {
                    self.begin_create(unit, Input::File(file), now, turn);
                }
            }
            Outcome::Created { batch, created } => {
                self.created(unit, batch, created.unwrap_or(now), false, now, turn);
            }
            Outcome::Refused { error, to } => self.refused(unit, error, to, now, turn),
            Outcome::Found(batches) => self.found(unit, batches, now, turn),
            Outcome::Polled(seen) => self.polled(units, seen, now, turn),
            Outcome::Collected(harvest) => {
                self.collected(unit, &harvest, now, turn);
            }
            Outcome::Merged { tally, stem } => {
                if let Some(JobState::Merging(plan)) = self.state(id) {
                    let plan = plan.clone();
                    let delivery = Delivery { plan, tally, stem, delivered: now };
                    self.advance(id, JobState::Delivering(delivery), turn);
                }
            }
            Outcome::NameTaken { free } => {
                if let Some(JobState::Delivering(delivery)) = self.state(id) {
                    let delivery = Delivery { stem: free, ..delivery.clone() };
                    self.advance(id, JobState::Delivering(delivery), turn);
                }
            }
            Outcome::Delivered => {
                if let Some(JobState::Delivering(delivery)) = self.state(id) {
                    self.advance(id, JobState::Cleaning(delivery.clone()), turn);
                }
            }
            Outcome::Cleaned => {
                if let Some(JobState::Cleaning(delivery)) = self.state(id) {
                    self.advance(id, JobState::Done(delivery.clone()), turn);
                }
            }
            Outcome::Cancelled => {
                if let Some(batch) = self.batches_of(units).pop() {
                    self.stopping.insert(batch);
                }
            }
            Outcome::Discarded | Outcome::Told => {}
        }
    }

    /// An effect could not be done. Most failures only mean: the same again, later.
    pub(super) fn apply_failure(
        &mut self,
        units: &[Unit],
        lane: Lane,
        failure: Failure,
        now: Millis,
        turn: &mut Turn,
    ) {
        let Some(&unit) = units.first() else { return };
        let Some((_, chunk)) = find(&self.jobs, unit) else { return };
        match chunk.state.clone() {
            ChunkState::Creating { input, since } => {
                self.create_failed(unit, input, since, &failure, now, turn);
            }
            ChunkState::Uploading { .. } => {
                if let Failure::Rejected(message) = failure {
                    self.upload_rejected(unit, message, now, turn);
                }
            }
            ChunkState::Collecting { batch, end } => {
                self.collect_failed(unit, &batch, &end, &failure, now, turn);
            }
            ChunkState::Polling(batch) if lane == Lane::Cancel => {
                // A batch that can not be stopped any more is polled to its end.
                if matches!(failure, Failure::Gone(_) | Failure::Rejected(_)) {
                    self.stopping.insert(batch.name);
                }
            }
            ChunkState::Uncertain { .. }
            | ChunkState::Polling(_)
            | ChunkState::Waiting { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => {}
        }
    }

    fn planned(&mut self, id: JobId, plan: Plan, chunks: Vec<Chunk>, now: Millis, turn: &mut Turn) {
        if self.state(id) != Some(&JobState::Planning) {
            return;
        }
        if let Some(refusal) = self.duplicate_of(id, &plan.sha256, now) {
            self.advance(id, JobState::Holding(refusal), turn);
            return;
        }
        self.contents.entry(plan.sha256.clone()).or_default().push(id);
        self.advance(id, JobState::Active(plan), turn);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        for chunk in chunks {
            turn.save.push(Change::Chunk(id, chunk.clone()));
            job.chunks.insert(chunk.no, chunk);
        }
        self.merge_when_settled(id, turn);
    }

    /// Why the content was seen before, if it was and that matters.
    fn duplicate_of(&self, id: JobId, sha256: &str, now: Millis) -> Option<Refusal> {
        if self.policy.duplicates == Duplicates::Process {
            return None;
        }
        let first = self.contents.get(sha256)?.iter().find(|other| {
            let state = self.state(**other);
            **other != id
                && match state {
                    Some(JobState::Done(delivery)) => {
                        let window = self.policy.duplicate_window_ms;
                        !policy::is_older_than(delivery.delivered, window, now)
                    }
                    Some(JobState::Failed(_) | JobState::Held(_)) | None => false,
                    Some(_) => true,
                }
        })?;
        let name = self.jobs.get(first).map(|job| job.head.source.name.as_str())?;
        Some(Refusal {
            reason: "duplicate".to_owned(),
            message: format!("the same content was dropped before as {name} (job {first})"),
            remedy: "delete this file if that was a mistake; to process it anyway, set \
                     intake.duplicates = \"process\" and move it back into the inbox"
                .to_owned(),
            line: None,
            column: None,
        })
    }

    fn moved(&mut self, id: JobId, turn: &mut Turn) {
        match self.state(id) {
            Some(JobState::Refusing(refusal)) => {
                self.advance(id, JobState::Failed(refusal.clone()), turn);
            }
            Some(JobState::Holding(refusal)) => {
                self.advance(id, JobState::Held(refusal.clone()), turn);
            }
            Some(_) | None => {}
        }
    }

    fn created(
        &mut self,
        unit: Unit,
        name: BatchName,
        created: Millis,
        adopted: bool,
        now: Millis,
        turn: &mut Turn,
    ) {
        let key_print = self.policy.key_print.clone();
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        let input = match &chunk.state {
            ChunkState::Creating { input, .. } | ChunkState::Uncertain { input, .. } => {
                input.clone()
            }
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Polling(_)
            | ChunkState::Collecting { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => return,
        };
        let remote = RemoteState::Pending;
        let batch = Batch { name, input, created, adopted, remote, key_print };
        let state = ChunkState::Polling(batch);
        self.set_chunk(unit, state, turn);
        let next = now.plus(self.policy.poll_ms(0, salt(unit)));
        self.polls.insert(unit, super::machine::PollNote { next, missed: 0 });
        self.change_plan(unit.job, turn, |plan| {
            let fresh = plan.first_create.is_none();
            plan.first_create.get_or_insert(now);
            fresh
        });
    }

    /// The API definitely did not create the batch, and never will from this request.
    fn refused(
        &mut self,
        unit: Unit,
        error: RemoteError,
        to: Objection,
        now: Millis,
        turn: &mut Turn,
    ) {
        if !self.is_in(unit, |state| matches!(state, ChunkState::Creating { .. })) {
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
    fn anything_spent(&self, id: JobId) -> bool {
        let spent = |chunk: &Chunk| match &chunk.state {
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Creating { .. } => !chunk.batches.is_empty(),
            ChunkState::Uncertain { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Polling(_)
            | ChunkState::Collecting { .. }
            | ChunkState::Split { .. }
            | ChunkState::Settled => true,
        };
        self.jobs.get(&id).is_some_and(|job| job.chunks.values().any(spent))
    }

    fn creating_in(&self, id: JobId) -> usize {
        let creating = |chunk: &&Chunk| matches!(chunk.state, ChunkState::Creating { .. });
        self.jobs.get(&id).map_or(0, |job| job.chunks.values().filter(creating).count())
    }

    fn unknown_model(&self, id: JobId, error: &RemoteError) -> Refusal {
        let queue = self.jobs.get(&id).map(|job| &job.head.queue);
        let (name, model) = queue.map_or(("", ""), |queue| (&queue.name, &queue.model));
        Refusal {
            reason: "unknown_model".to_owned(),
            message: format!("the API does not know the model {model}: {}", error.message),
            remedy: format!(
                "set model under [queue.{name}] in the configuration to a model that supports \
                 batches, restart, and move the file back into the inbox"
            ),
            line: None,
            column: None,
        }
    }

    fn create_failed(
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
            // Not sent, or refused for the key's sake: there is no batch.
            Failure::Transient(_) | Failure::Denied(_) | Failure::Rejected(_) => {
                ChunkState::Waiting { not_before: pause }
            }
            Failure::RateLimited { .. } => {
                let doubt = Doubt::RateLimited;
                ChunkState::Uncertain { input, since, next_probe: pause, until: pause, doubt }
            }
            Failure::Ambiguous(_) | Failure::Gone(_) | Failure::NotReady(_) | Failure::Local(_) => {
                let next_probe = now.plus(self.policy.probe_ms());
                let until = now.plus(self.policy.uncertain_window_ms);
                let doubt = Doubt::Lost;
                ChunkState::Uncertain { input, since, next_probe, until, doubt }
            }
        };
        self.set_chunk(unit, state, turn);
    }

    fn upload_rejected(&mut self, unit: Unit, message: String, now: Millis, turn: &mut Turn) {
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
    fn found(&mut self, unit: Unit, batches: Vec<RemoteBatch>, now: Millis, turn: &mut Turn) {
        let Some((head, chunk)) = find(&self.jobs, unit) else { return };
        let ChunkState::Uncertain { input, since, until, doubt, .. } = chunk.state.clone() else {
            return;
        };
        let cancelled = self.is_cancelled(head.head.id);
        let attempt = chunk.attempt;
        let mut batches = batches.into_iter();
        if let Some(oldest) = batches.next() {
            self.created(unit, oldest.name, oldest.created.unwrap_or(since), true, now, turn);
            for other in batches {
                self.warn(unit.job, turn, doubled(unit, attempt, &other.name));
                let effect = Effect::CancelBatch { batch: other.name };
                self.issue(Lane::Cancel, Vec::new(), effect, turn);
            }
            return;
        }
        if now < until {
            let next_probe = now.plus(self.policy.probe_ms()).min(until);
            let state = ChunkState::Uncertain { input, since, next_probe, until, doubt };
            self.set_chunk(unit, state, turn);
        } else if cancelled {
            self.settle(unit, turn);
        } else if doubt == Doubt::Lost && self.policy.uncertain == Uncertain::Hold {
            self.set_chunk(unit, ChunkState::Stuck { input, since }, turn);
            self.tell_stuck(unit, attempt, turn);
        } else {
            if doubt == Doubt::Lost {
                self.warn(unit.job, turn, sent_again(unit, attempt));
            }
            self.send_rest(unit, now, turn);
        }
    }

    fn tell_stuck(&mut self, unit: Unit, attempt: Attempt, turn: &mut Turn) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        let refusal = Refusal {
            reason: "uncertain".to_owned(),
            message: format!(
                "chunk {} was sent, no answer came, and no batch named {} was found",
                chunk.no.0,
                super::ids::Stamp::new(job.head.id, chunk.no, attempt).0
            ),
            remedy: format!(
                "to send it again, at the risk of paying twice: gemini-batchd release {}; to \
                 give up what is unanswered: gemini-batchd cancel {0}",
                job.head.id
            ),
            line: None,
            column: None,
        };
        let effect = Effect::Notify { head: Box::new(job.head.clone()), refusal };
        self.issue(Lane::Move, Vec::new(), effect, turn);
    }

    fn polled(
        &mut self,
        units: &[Unit],
        seen: Vec<(BatchName, Polled)>,
        now: Millis,
        turn: &mut Turn,
    ) {
        for &unit in units {
            let Some((_, chunk)) = find(&self.jobs, unit) else { continue };
            let ChunkState::Polling(batch) = chunk.state.clone() else { continue };
            let polled = seen.iter().find(|(name, _)| *name == batch.name);
            let age = now.since(batch.created);
            let mut note = self.polls.get(&unit).copied().unwrap_or_default();
            note.next = now.plus(self.policy.poll_ms(age, salt(unit)));
            note.missed = match polled {
                Some((_, Polled::Gone)) => note.missed.saturating_add(1),
                Some((_, Polled::Seen(_))) | None => 0,
            };
            self.polls.insert(unit, note);
            match polled {
                Some((_, Polled::Seen(remote))) => self.seen(unit, batch, remote, now, turn),
                Some((_, Polled::Gone)) if note.missed >= policy::GONE_LOOKS => {
                    self.gone(unit, &batch, now, turn);
                }
                Some((_, Polled::Gone)) | None => {}
            }
        }
    }

    fn seen(
        &mut self,
        unit: Unit,
        batch: Batch,
        remote: &RemoteBatch,
        now: Millis,
        turn: &mut Turn,
    ) {
        if remote.is_finished() {
            let ended = remote.ended.unwrap_or(now);
            let (state, error) = (remote.state.clone(), remote.error.clone());
            let end = RemoteEnd { state, ended, error };
            self.set_chunk(unit, ChunkState::Collecting { batch, end }, turn);
        } else if remote.state != batch.remote {
            let batch = Batch { remote: remote.state.clone(), ..batch };
            self.set_chunk(unit, ChunkState::Polling(batch), turn);
        }
    }

    /// The API does not know the batch any more.
    fn gone(&mut self, unit: Unit, batch: &Batch, now: Millis, turn: &mut Turn) {
        if batch.key_print != self.policy.key_print {
            let message = format!(
                "{} was made with another API key and can not be seen with this one; \
                 put the former key back, or cancel the job",
                batch.name.0
            );
            let not_before = now.plus(self.policy.poll_max_ms);
            let trouble = super::machine::Trouble { failures: 1, first: now, not_before, message };
            self.troubles.insert(unit, trouble);
            return;
        }
        if now.since(batch.created) <= self.policy.uncertain_window_ms {
            return;
        }
        let error = RemoteError { code: 5, message: "the batch vanished at the API".to_owned() };
        let state = RemoteState::Unknown("GONE".to_owned());
        let end = RemoteEnd { state, ended: now, error: Some(error) };
        let rest = find(&self.jobs, unit).map(|(_, chunk)| chunk.rest).unwrap_or_default();
        self.conclude(unit, batch, &end, 0, rest, now, turn);
        self.after_attempt(unit, now, turn);
    }

    fn collected(&mut self, unit: Unit, harvest: &Harvest, now: Millis, turn: &mut Turn) {
        let Some((_, chunk)) = find(&self.jobs, unit) else { return };
        let ChunkState::Collecting { batch, end } = chunk.state.clone() else { return };
        self.conclude(unit, &batch, &end, harvest.answered, harvest.rest, now, turn);
        for warning in oddities(unit, harvest) {
            self.warn(unit.job, turn, warning);
        }
        let nothing = harvest.answered + harvest.failed + harvest.retryable == 0;
        if end.state == RemoteState::Failed && nothing {
            self.failed_whole(unit, &end, now, turn);
        } else {
            self.after_attempt(unit, now, turn);
        }
    }

    /// The batch failed and answered nothing at all.
    fn failed_whole(&mut self, unit: Unit, end: &RemoteEnd, now: Millis, turn: &mut Turn) {
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        let code = end.error.as_ref().map_or(13, |error| error.code);
        let again = chunk
            .batches
            .iter()
            .rev()
            .nth(1)
            .is_some_and(|before| before.state == RemoteState::Failed && before.answered == 0);
        if chunk.is_single() && !policy::blames_content(code) {
            self.after_attempt(unit, now, turn);
        } else if policy::blames_content(code) || again {
            self.halve(unit, now, turn);
        } else {
            self.after_attempt(unit, now, turn);
        }
    }

    /// Writes the batch down as over.
    #[expect(clippy::too_many_arguments, reason = "each is one plain fact of the batch's end")]
    fn conclude(
        &mut self,
        unit: Unit,
        batch: &Batch,
        end: &RemoteEnd,
        answered: u64,
        rest: Rest,
        now: Millis,
        turn: &mut Turn,
    ) {
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        chunk.batches.push(BatchRecord {
            name: batch.name.clone(),
            attempt: chunk.attempt,
            input: batch.input.clone(),
            state: end.state.clone(),
            lines: chunk.rest.rows(),
            bytes: chunk.rest.bytes(),
            answered,
            created: batch.created,
            ended: end.ended,
            adopted: batch.adopted,
            error: end.error.clone(),
        });
        chunk.rest = rest;
        chunk.tries += 1;
        chunk.last_error = end.error.clone();
        self.polls.remove(&unit);
        self.change_plan(unit.job, turn, |plan| {
            plan.last_result = Some(now);
            true
        });
    }

    /// What follows an attempt that came to its end: nothing, or the unanswered rest.
    fn after_attempt(&mut self, unit: Unit, now: Millis, turn: &mut Turn) {
        let Some((head, chunk)) = find(&self.jobs, unit) else { return };
        let tries_left = chunk.tries < head.head.queue.attempts;
        if chunk.rest.rows() > 0 && tries_left {
            let tries = u32::from(chunk.tries);
            let not_before = now.plus(self.policy.backoff_ms(tries, salt(unit)));
            self.send_rest(unit, not_before, turn);
        } else {
            self.settle(unit, turn);
        }
    }

    fn collect_failed(
        &mut self,
        unit: Unit,
        batch: &Batch,
        end: &RemoteEnd,
        failure: &Failure,
        now: Millis,
        turn: &mut Turn,
    ) {
        let first = self.troubles.get(&unit).map_or(now, |trouble| trouble.first);
        let why = match failure {
            Failure::Gone(message) | Failure::Rejected(message) => message.clone(),
            Failure::NotReady(message) if now.since(first) > policy::NOT_READY_MAX_MS => {
                message.clone()
            }
            Failure::NotReady(_)
            | Failure::Transient(_)
            | Failure::RateLimited { .. }
            | Failure::Ambiguous(_)
            | Failure::Denied(_)
            | Failure::Local(_) => return,
        };
        // The work was done and paid for; sending it again by itself would pay twice.
        let message = format!("the results of {} can not be had: {why}", batch.name.0);
        let error = Some(RemoteError { code: 5, message });
        let end = RemoteEnd { error, ..end.clone() };
        let rest = find(&self.jobs, unit).map(|(_, chunk)| chunk.rest).unwrap_or_default();
        self.conclude(unit, batch, &end, 0, rest, now, turn);
        self.settle(unit, turn);
    }

    /// Sends what is unanswered as a new attempt, not before the given time.
    fn send_rest(&mut self, unit: Unit, not_before: Millis, turn: &mut Turn) {
        let stop = self.is_cancelled(unit.job);
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        if chunk.rest.rows() == 0 || stop {
            self.settle(unit, turn);
            return;
        }
        chunk.attempt = chunk.attempt.next();
        self.set_chunk(unit, ChunkState::Waiting { not_before }, turn);
    }

    /// Cuts a chunk in two that was refused or failed as a whole, until the line that does it
    /// stands alone; that one is then settled as failed.
    fn halve(&mut self, unit: Unit, now: Millis, turn: &mut Turn) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        if chunk.rest.rows() <= 1 || self.is_cancelled(unit.job) || hunt_is_vain(job, chunk.root) {
            self.settle(unit, turn);
            return;
        }
        let highest = job.chunks.keys().next_back().map_or(0, |no| no.0);
        let (left, right) = (ChunkNo(highest + 1), ChunkNo(highest + 2));
        let (rows, rest, middle) = (chunk.rows, chunk.rest, chunk.middle());
        let (root, error) = (chunk.root, chunk.last_error.clone());
        self.set_chunk(unit, ChunkState::Split { left, right }, turn);
        let second = super::ids::Row(middle.0 + 1);
        let halves = [
            (left, Rows { first: rows.first, last: middle }, rest.left),
            (right, Rows { first: second, last: rows.last }, rest.right),
        ];
        for (no, rows, share) in halves {
            // Its own halves are counted when it comes to its own end.
            let rest = Rest { left: share, right: Share::default() };
            let mut child = Chunk::new(no, root, rows, rest);
            child.last_error = error.clone();
            child.state = match share.rows {
                0 => ChunkState::Settled,
                _ => ChunkState::Waiting { not_before: now },
            };
            self.add_chunk(unit.job, child, turn);
        }
        self.merge_when_settled(unit.job, turn);
    }
}

/// Whether a family of chunks has been refused so often, without any success, that it can not be
/// a matter of single lines.
fn hunt_is_vain(job: &super::job::Job, root: ChunkNo) -> bool {
    let family = || job.chunks.values().filter(|chunk| chunk.root == root);
    let splits = family().filter(|chunk| matches!(chunk.state, ChunkState::Split { .. })).count();
    let worked = family().any(|chunk| {
        matches!(chunk.state, ChunkState::Polling(_) | ChunkState::Collecting { .. })
            || chunk.batches.iter().any(|batch| batch.answered > 0)
    });
    !worked && splits as u64 > policy::POISON_HUNT_MAX
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

/// What was odd about a batch's results, in words.
fn oddities(unit: Unit, harvest: &Harvest) -> Vec<String> {
    let chunk = unit.chunk.map_or(0, |no| no.0);
    let told = [
        (harvest.unknown, "result lines for rows that were not sent; they were kept aside"),
        (harvest.repeated, "result lines for rows that had one already; the first was kept"),
        (harvest.missing, "rows without a result line"),
    ];
    told.iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("chunk {chunk}: {count} {what}"))
        .collect()
}
