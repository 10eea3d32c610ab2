//! What each outcome and each failure means for the job or the chunk it belongs to.

use super::creating::Made;
use super::effect::{Change, Turn};
use super::event::{Failure, Outcome, PlannedChunk};
use super::ids::{JobId, Millis};
use super::job::{
    Chunk, ChunkState, Delivery, Input, JobState, Plan, Refusal, RemoteEnd, RemoteError,
};
use super::lanes::{Lane, Unit};
use super::machine::{Engine, Running, find, find_mut};
use super::policy::{self, Duplicates};
use super::records::DUPLICATE;

impl Engine {
    /// An effect was done for these units. Outcomes that do not fit the state any more belong to
    /// something superseded and change nothing.
    pub(super) fn apply(
        &mut self,
        running: &Running,
        outcome: Outcome,
        now: Millis,
        turn: &mut Turn,
    ) {
        let (units, print) = (&running.units, running.print.as_deref());
        if let Outcome::Withdrawn(id) = outcome {
            return self.withdrawn(id);
        }
        let Some(&unit) = units.first() else { return };
        let id = unit.job;
        match outcome {
            Outcome::Claimed => self.advance(id, JobState::Planning, turn),
            Outcome::Vanished => self.forget(id, turn),
            Outcome::Planned { plan, chunks } => {
                self.planned(id, plan, PlannedChunk::numbered(&chunks), now, turn);
            }
            Outcome::Unusable(refusal) => self.advance(id, JobState::Refusing(refusal), turn),
            Outcome::Moved => self.moved(id, turn),
            // The file stays at the API, and the next start finds it there.
            Outcome::Uploaded { .. } if self.draining => {}
            Outcome::Uploaded { file } => {
                if self.is_in(unit, |state| matches!(state, ChunkState::Uploading { .. })) {
                    // What was uploaded with another key is uploaded anew: it can not be seen.
                    let key =
                        find(&self.jobs, unit).and_then(|(job, chunk)| self.key_of(job, chunk));
                    let may = self.jobs.get(&id).is_some_and(|job| !self.is_withheld(job));
                    if let Some(key) = key.filter(|key| may && self.key_in(running) == Some(*key)) {
                        match self.may_create(unit, key) {
                            true => self.begin_create(unit, Input::File(file), key, now, turn),
                            // When it may, the file is found there by its name.
                            false => {
                                let not_before = Millis(0);
                                self.set_chunk(unit, ChunkState::Waiting { not_before }, turn);
                            }
                        }
                    }
                }
            }
            Outcome::Created { batch, created } => {
                let (created, adopted) = (policy::plausible(created, now), false);
                let made = Made { name: batch, created, adopted, print };
                self.created(unit, made, now, turn);
            }
            Outcome::Refused { error, to } => self.refused(unit, error, to, now, turn),
            Outcome::Found(batches) => self.found(unit, batches, print, now, turn),
            Outcome::Unlisted(why) => self.unlisted(unit, why, now, turn),
            Outcome::Polled(seen) => self.polled(units, seen, print, now, turn),
            Outcome::Collected(harvest) => {
                self.collected(unit, &harvest, print, now, turn);
            }
            Outcome::Judged { bad } => self.judged(id, bad, turn),
            Outcome::Rescued(rescued) => self.rescued(unit, &rescued, now, turn),
            Outcome::Merged { tally, stem } => {
                if let Some(JobState::Merging(plan)) = self.state(id) {
                    let plan = plan.clone();
                    let delivery = Delivery { plan, tally, stem, delivered: now };
                    self.advance(id, JobState::Delivering(delivery), turn);
                }
            }
            Outcome::NameTaken { free } => {
                if let Some(JobState::Delivering(delivery)) = self.state(id) {
                    let next = match delivery.tally.media.files {
                        0 => JobState::Delivering(Delivery { stem: free, ..delivery.clone() }),
                        // The results name their files by the stem: they are written anew.
                        _ => JobState::Merging(delivery.plan.clone()),
                    };
                    self.advance(id, next, turn);
                }
            }
            Outcome::Delivered => {
                if let Some(JobState::Delivering(delivery)) = self.state(id) {
                    self.advance(id, JobState::Cleaning(delivery.clone()), turn);
                }
            }
            Outcome::Cleaned => {
                if let Some(JobState::Cleaning(delivery)) = self.state(id) {
                    let delivery = delivery.clone();
                    self.complete(id, delivery, turn);
                }
            }
            Outcome::Cancelled => {
                if let Some(batch) = self.batches_of(units).pop() {
                    self.stopping.insert(batch);
                }
            }
            Outcome::Told => self.note_told(unit, turn),
            Outcome::Withdrawn(_) | Outcome::Discarded => {}
        }
    }

    /// An effect could not be done. Most failures only mean: the same again, later.
    pub(super) fn apply_failure(
        &mut self,
        running: &Running,
        failure: Failure,
        now: Millis,
        turn: &mut Turn,
    ) {
        let Some(&unit) = running.units.first() else { return };
        if let Failure::Removed(message) = failure {
            self.removed(unit, message, now, turn);
            return;
        }
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
                // What a key that was exchanged did not see says nothing about the one in use.
                if self.key_in(running).is_some() {
                    self.collect_failed(unit, &batch, &end, &failure, now, turn);
                }
            }
            ChunkState::Polling(batch) if running.lane == Lane::Cancel => {
                // A batch that can not be stopped any more is polled to its end.
                if matches!(failure, Failure::Gone(_) | Failure::Rejected(_)) {
                    self.stopping.insert(batch.name);
                }
            }
            ChunkState::Uncertain { .. }
            | ChunkState::Polling(_)
            | ChunkState::Rescuing { .. }
            | ChunkState::Waiting { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => {}
        }
    }

    /// A file of the job is gone, and with it what this unit could still do. A batch under way is
    /// waited for all the same: what it answers is paid for. The job as a whole ends when its
    /// chunks have.
    fn removed(&mut self, unit: Unit, message: String, now: Millis, turn: &mut Turn) {
        let Some((_, chunk)) = find(&self.jobs, unit) else {
            if let Some(JobState::Merging(_)) = self.state(unit.job) {
                self.advance(unit.job, JobState::Refusing(removed(message)), turn);
            }
            return;
        };
        let rest = chunk.rest;
        match chunk.state.clone() {
            ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Rescuing { .. } => {
                if let Some((_, chunk)) = find_mut(&mut self.jobs, unit) {
                    chunk.last_error = Some(RemoteError { code: 5, message });
                }
                self.settle(unit, turn);
            }
            ChunkState::Collecting { batch, end } => {
                let error = Some(RemoteError { code: 5, message });
                self.conclude(unit, &batch, &RemoteEnd { error, ..end }, 0, rest, now, turn);
                self.settle(unit, turn);
            }
            ChunkState::Waiting { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Polling(_)
            | ChunkState::Settled
            | ChunkState::Split { .. } => {}
        }
    }

    pub(super) fn planned(
        &mut self,
        id: JobId,
        plan: Plan,
        chunks: Vec<Chunk>,
        now: Millis,
        turn: &mut Turn,
    ) {
        if !matches!(self.state(id), Some(JobState::Claiming | JobState::Planning)) {
            return;
        }
        if let Some(refusal) = self.duplicate_of(id, &plan, now) {
            self.advance(id, JobState::Holding(refusal), turn);
            return;
        }
        self.fund(id, &chunks);
        if let Some(refusal) = self.too_dear(id, plan.rows) {
            self.advance(id, JobState::Holding(refusal), turn);
            return;
        }
        self.contents.insert((plan.sha256.as_str().into(), id));
        if let Some(job) = self.jobs.get_mut(&id) {
            job.head.queue.fit_to(&plan);
        }
        self.advance(id, JobState::Active(plan), turn);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        for mut chunk in chunks {
            if chunk.rest.rows() == 0 {
                // All its rows were answered before.
                chunk.state = ChunkState::Settled;
            }
            turn.save.push(Change::Chunk(id, Box::new(chunk.clone())));
            job.chunks.insert(chunk.no, chunk);
        }
        self.merge_when_settled(id, turn);
    }

    /// Why the content was seen before, if it was and that matters. Asked of another model, or in
    /// other words, it is something else.
    pub(super) fn duplicate_of(&self, id: JobId, plan: &Plan, now: Millis) -> Option<Refusal> {
        let sha256 = plan.sha256.as_str();
        let is_same = |asks: Option<u64>| asks.zip(plan.asks).is_none_or(|(one, two)| one == two);
        let released = self.jobs.get(&id).is_some_and(|job| job.head.released);
        if released || self.policy.duplicates == Duplicates::Process {
            return None;
        }
        let from = (sha256.into(), JobId::MIN);
        let same = self.contents.range(from..).take_while(|(content, _)| **content == *sha256);
        let (first, name) = same.map(|(_, other)| *other).filter(|other| *other != id).find_map(
            |other| match self.past.known(other) {
                // What was not answered can be dropped again.
                Some(known) => {
                    let window = self.policy.duplicate_window_ms;
                    let recent = !policy::is_older_than(known.delivered, window, now);
                    let same = recent && is_same(known.asks);
                    (known.answered && same).then_some((other, known.name))
                }
                None => {
                    let job = self.jobs.get(&other).filter(|job| !job.is_over())?;
                    is_same(job.head.state.plan().and_then(|plan| plan.asks)).then_some(())?;
                    Some((other, job.head.source.name.as_str()))
                }
            },
        )?;
        Some(Refusal {
            reason: DUPLICATE.to_owned(),
            message: format!("the same content was dropped before as {name} (job {first})"),
            remedy: format!(
                "delete this file if that was a mistake; to process it anyway: gemini-batchd \
                 release {id}"
            ),
            line: None,
            column: None,
        })
    }

    pub(super) fn moved(&mut self, id: JobId, turn: &mut Turn) {
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
}

fn removed(message: String) -> Refusal {
    Refusal {
        reason: "removed".to_owned(),
        message,
        remedy: "files in working/ must be left alone until their job is over; drop the file into \
                 the inbox again"
            .to_owned(),
        line: None,
        column: None,
    }
}
