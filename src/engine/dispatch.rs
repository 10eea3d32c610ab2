//! From what units want to effects: lanes, limits, and the order in which work is begun.

use std::collections::BTreeSet;

use super::canary;
use super::creating;
use super::effect::{Change, Effect, Issued, Turn, Which};
use super::ids::{BatchName, ChunkNo, JobId, Millis, Stamp, Ticket};
use super::job::{Batch, Chunk, ChunkState, Head, Input, Job, JobState, Plan, Terms};
use super::keys::KeyNo;
use super::lanes::{Lane, Queue, Size, Unit};
use super::machine::{Engine, Running, find, find_mut};
use super::policy;
use super::window;

impl Engine {
    pub(super) fn refile_all(&mut self, units: &[Unit]) {
        let ids: BTreeSet<JobId> = units.iter().map(|unit| unit.job).collect();
        if let ([unit], 1) = (units, ids.len()) {
            // A chunk's outcome rarely touches its siblings; a change of the job's state does.
            self.refile(Unit { job: unit.job, chunk: None });
            if unit.chunk.is_some() {
                self.refile(*unit);
            } else {
                self.refile_job(unit.job);
            }
            return;
        }
        for unit in units {
            self.refile(Unit { job: unit.job, chunk: None });
            self.refile(*unit);
        }
    }

    /// Puts a job and all its chunks where they belong.
    pub(super) fn refile_job(&mut self, id: JobId) {
        self.refile(Unit { job: id, chunk: None });
        let chunks: Vec<ChunkNo> =
            self.jobs.get(&id).map(|job| job.chunks.keys().copied().collect()).unwrap_or_default();
        for chunk in chunks {
            self.refile(Unit { job: id, chunk: Some(chunk) });
        }
    }

    /// Puts one unit where it belongs.
    pub(super) fn refile(&mut self, unit: Unit) {
        match unit.chunk {
            Some(_) => self.account(unit),
            None => self.watch_promise(unit.job),
        }
        let job = self.jobs.get(&unit.job);
        let want = job.filter(|_| !self.busy.contains(&unit)).and_then(|job| match unit.chunk {
            None if self.is_left_in_inbox(&job.head) => None,
            None if self.owes_note(job) => Some((Lane::Move, Millis(0), None)),
            None => {
                let lane = wants(&job.head.state).map(|lane| (lane, Millis(0)));
                lane.or_else(|| self.canary_wants(job)).map(|(lane, at)| (lane, at, None))
            }
            Some(no) => {
                let chunk = job.chunks.get(&no)?;
                let (lane, not_before) = self.chunk_wants(job, chunk)?;
                // What has no key at all waits until it has one.
                let key = if lane.is_remote() { Some(self.key_of(job, chunk)?) } else { None };
                Some((lane, not_before, key))
            }
        });
        let (Some((lane, not_before, key)), Some(job)) = (want, job) else {
            self.lanes.remove(unit);
            return;
        };
        let pause = self.troubles.get(&unit).map_or(Millis(0), |trouble| trouble.not_before);
        let size = policy::size_in(lane, job.head.source.bytes);
        let priority = job.head.queue.priority;
        self.lanes.put(unit, (lane, size, key), not_before.max(pause), priority);
    }

    pub(super) fn chunk_wants(&self, job: &Job, chunk: &Chunk) -> Option<(Lane, Millis)> {
        let JobState::Active(plan) = &job.head.state else { return None };
        let unit = Unit { job: job.head.id, chunk: Some(chunk.no) };
        match &chunk.state {
            ChunkState::Waiting { .. } if !self.may_send(&job.head) => None,
            ChunkState::Waiting { .. } if canary::holds_back(job, chunk) => None,
            ChunkState::Waiting { .. } if self.is_rescuing(job) && self.is_short(unit.job) => None,
            ChunkState::Waiting { not_before } if self.is_rescuing(job) => {
                Some((Lane::Rescue, *not_before))
            }
            ChunkState::Rescuing { .. } => Some((Lane::Rescue, Millis(0))),
            ChunkState::Waiting { .. } if self.stalled.has(unit.job) => None,
            ChunkState::Waiting { not_before } => {
                Some((Lane::Send, window::not_before(&job.head, *not_before)))
            }
            ChunkState::Uploading { .. } => Some((Lane::Upload, Millis(0))),
            ChunkState::Uncertain { next_probe, .. } => Some((Lane::Find, *next_probe)),
            ChunkState::Polling(batch) if self.is_to_be_stopped(job, plan, chunk, batch) => {
                Some((Lane::Cancel, Millis(0)))
            }
            ChunkState::Polling(_) => {
                let next = self.polls.get(&unit).map_or(Millis(0), |note| note.next);
                Some((Lane::Poll, next))
            }
            ChunkState::Collecting { .. } => Some((Lane::Collect, Millis(0))),
            // An intent that is saved has its effect under way, or was turned into a probe.
            ChunkState::Creating { .. } => None,
            ChunkState::Stuck { .. } if self.told.contains(&unit) => None,
            ChunkState::Stuck { .. } => Some((Lane::Move, Millis(0))),
            ChunkState::Settled | ChunkState::Split { .. } => None,
        }
    }

    /// Whether a batch is still to be asked to stop.
    fn is_to_be_stopped(&self, job: &Job, plan: &Plan, chunk: &Chunk, batch: &Batch) -> bool {
        !self.stopping.contains(&batch.name)
            && (plan.cancelled
                || self.is_rescuing(job)
                || self.is_to_be_sent_again(job, chunk, batch))
    }

    /// Begins whatever is ready and fits within the limits.
    pub(super) fn pump(&mut self, now: Millis, turn: &mut Turn) {
        if !self.draining {
            self.keep_promises(now, turn);
            self.look_at_stalled(now, turn);
            self.lanes.ripen(now);
            for lane in Lane::ALL {
                while let Some((unit, queue)) = self.take(lane, now) {
                    self.begin(unit, queue, now, turn);
                }
            }
            self.judge_stalled(now, turn);
            self.make_room_at_the_api(now, turn);
        }
        self.note_spending(turn);
        self.note_ceilings(turn);
    }

    /// The next unit of a lane for which there is room.
    pub(super) fn take(&mut self, lane: Lane, now: Millis) -> Option<(Unit, Queue)> {
        loop {
            let stalls = self.stalled.count();
            let taken = self.take_first(lane, now);
            // Those that have turned out to wait for something no longer stand before the others.
            if taken.is_some() || self.stalled.count() == stalls {
                return taken;
            }
        }
    }

    fn take_first(&mut self, lane: Lane, now: Millis) -> Option<(Unit, Queue)> {
        let mut lanes = std::mem::take(&mut self.lanes);
        let mut stalls = Vec::new();
        let has_room = |queue: Queue| {
            let under_way = self.under_way.get(&queue).copied().unwrap_or(0);
            under_way < policy::at_a_time(lane, queue.1) && self.is_open(lane, queue.2, now)
        };
        let fits = |unit, (_, size, key): Queue| {
            if lane == Lane::Rescue {
                let short = self.rescue_is_short(unit, now);
                stalls.extend(short.clone().map(|short| (unit, short)));
                return short.is_none();
            }
            let Some(key) = key.filter(|_| lane == Lane::Send) else { return true };
            let why = self.why_stalled(unit, size, key);
            stalls.extend(why.clone().map(|why| (unit, why)));
            why.is_none() && self.obstacle(unit, size, key).is_none()
        };
        let taken = lanes.take(lane, has_room, fits);
        self.lanes = lanes;
        for (unit, why) in stalls {
            self.stall(unit, why);
        }
        taken
    }

    /// Issues the effect a unit is ready for.
    pub(super) fn begin(&mut self, unit: Unit, queue: Queue, now: Millis, turn: &mut Turn) {
        let (lane, _, key) = queue;
        if let (Lane::Send, Some(key)) = (lane, key) {
            self.begin_attempt(unit, key, now, turn);
            return;
        }
        if let (Lane::Rescue, Some(key)) = (lane, key) {
            self.begin_rescue(unit, key, now, turn);
            return;
        }
        let mut units = vec![unit];
        if lane == Lane::Poll {
            let is_same = |(_, _, of): Queue| of == key;
            while let Some((other, _)) = self.lanes.take(Lane::Poll, is_same, |_, _| true) {
                units.push(other);
            }
        }
        // Work on this machine may end or begin something at the API.
        let key = key.or_else(|| self.key_of_job(self.jobs.get(&unit.job)?));
        if let Some(effect) = self.effect_for(lane, &units, key) {
            self.issue(lane, units, effect, key, turn);
        }
    }

    pub(super) fn begin_attempt(&mut self, unit: Unit, key: KeyNo, now: Millis, turn: &mut Turn) {
        // Records of an earlier version may still hold such a chunk.
        if self.is_cancelled(unit.job) {
            return self.settle(unit, turn);
        }
        if self.take_up_what_was_left(unit, turn) {
            return;
        }
        self.note_window_open(unit.job, turn);
        let policy = &self.policy;
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        if policy.goes_inline(&head.queue, chunk.rest) {
            self.begin_create(unit, Input::Inline, key, now, turn);
            return;
        }
        let file = Stamp::file(head.id, chunk.no, chunk.attempt);
        chunk.state = ChunkState::Uploading { file };
        self.set_aside(unit, now);
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        turn.save.push(Change::Chunk(head.id, Box::new(chunk.clone())));
        self.account(unit);
        if let Some(effect) = self.effect_for(Lane::Upload, &[unit], Some(key)) {
            self.issue(Lane::Upload, vec![unit], effect, Some(key), turn);
        }
    }

    /// Saves the intent, then creates: the order the whole promise rests on.
    pub(super) fn begin_create(
        &mut self,
        unit: Unit,
        input: Input,
        key: KeyNo,
        now: Millis,
        turn: &mut Turn,
    ) {
        let print = self.policy.keys.print(key).map(str::to_owned);
        self.set_aside(unit, now);
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        if head.key_print != print {
            head.key_print = print.clone();
            turn.save.push(Change::Head(Box::new(head.clone())));
        }
        chunk.key_print = print;
        chunk.state = ChunkState::Creating { input: input.clone(), since: now };
        turn.save.push(Change::Chunk(head.id, Box::new(chunk.clone())));
        let effect = Effect::Create {
            which: which(head, chunk),
            input,
            model: head.queue.model.clone(),
            task: head.queue.task,
            family: head.state.family(),
            priority: head.queue.priority,
        };
        self.account(unit);
        self.issue(Lane::Send, vec![unit], effect, Some(key), turn);
    }

    pub(super) fn effect_for(
        &self,
        lane: Lane,
        units: &[Unit],
        key: Option<KeyNo>,
    ) -> Option<Effect> {
        let unit = *units.first()?;
        let job = self.jobs.get(&unit.job)?;
        match (unit.chunk, lane) {
            (_, Lane::Poll) => Some(Effect::Poll { batches: self.batches_of(units) }),
            (None, Lane::Move) if self.owes_note(job) => self.note_of_stall(job),
            (None, _) => {
                job_effect(job, || key.is_some_and(|key| self.welcomes_early(&job.head, key)))
            }
            (Some(no), _) => {
                let missing_max = self.troubles.get(&unit).map_or(0, |trouble| {
                    trouble.missing_believed(self.policy.uncertain_window_ms, self.latest)
                });
                let chunk = job.chunks.get(&no)?;
                chunk_effect(job, chunk, missing_max, self.is_foreign(chunk))
            }
        }
    }

    pub(super) fn batches_of(&self, units: &[Unit]) -> Vec<BatchName> {
        let name = |unit: &Unit| match &find(&self.jobs, *unit)?.1.state {
            ChunkState::Polling(batch) => Some(batch.name.clone()),
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Collecting { .. }
            | ChunkState::Rescuing { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => None,
        };
        units.iter().filter_map(name).collect()
    }

    pub(super) fn issue(
        &mut self,
        lane: Lane,
        units: Vec<Unit>,
        effect: Effect,
        key: Option<KeyNo>,
        turn: &mut Turn,
    ) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        for unit in &units {
            self.lanes.remove(*unit);
            self.busy.insert(*unit);
        }
        let bytes = units.first().and_then(|unit| self.jobs.get(&unit.job));
        let size = policy::size_in(lane, bytes.map_or(0, |job| job.head.source.bytes));
        let print = key.and_then(|key| self.policy.keys.print(key)).map(str::to_owned);
        let early = matches!(effect, Effect::Plan { early: true, .. });
        self.early_uploads += usize::from(early);
        let running = Running { lane, size, units, early, print: print.clone() };
        *self.under_way.entry(self.queue_of(&running)).or_default() += 1;
        self.running.insert(ticket, running);
        turn.then.push(Issued { ticket, effect, key: print });
    }
}

/// What a job as a whole wants: a function of its state alone.
pub fn wants(state: &JobState) -> Option<Lane> {
    match state {
        JobState::Claiming => Some(Lane::Claim),
        JobState::Planning => Some(Lane::Plan),
        JobState::Merging(_) => Some(Lane::Merge),
        JobState::Delivering(_)
        | JobState::Cleaning(_)
        | JobState::Refusing(_)
        | JobState::Holding(_) => Some(Lane::Move),
        JobState::Active(_) | JobState::Done(_) | JobState::Failed(_) | JobState::Held(_) => None,
    }
}

fn job_effect(job: &Job, early: impl Fn() -> bool) -> Option<Effect> {
    let head = || Box::new(job.head.clone());
    let whole = || Box::new(job.clone());
    match &job.head.state {
        JobState::Claiming => {
            let plan = policy::size_of(job.head.source.bytes) == Size::Small;
            Some(Effect::Claim { head: head(), plan })
        }
        JobState::Planning => Some(Effect::Plan { head: head(), early: early() }),
        JobState::Merging(_) => Some(Effect::Merge { job: whole() }),
        JobState::Delivering(_) => Some(Effect::Deliver { job: whole() }),
        JobState::Cleaning(_) => Some(Effect::Clean { job: whole() }),
        JobState::Refusing(refusal) => {
            Some(Effect::Refuse { head: head(), refusal: refusal.clone() })
        }
        JobState::Holding(refusal) => Some(Effect::Hold { head: head(), refusal: refusal.clone() }),
        JobState::Active(_) => canary::effect(job),
        JobState::Done(_) | JobState::Failed(_) | JobState::Held(_) => None,
    }
}

fn chunk_effect(job: &Job, chunk: &Chunk, missing_max: u64, is_foreign: bool) -> Option<Effect> {
    let which = which(&job.head, chunk);
    match &chunk.state {
        ChunkState::Uploading { file } => Some(Effect::Upload { which, file: file.clone() }),
        ChunkState::Uncertain { input, .. } => {
            let file = creating::known_by(job.head.state.family(), input).cloned();
            Some(Effect::Find { which, file })
        }
        ChunkState::Polling(batch) => Some(Effect::CancelBatch { batch: batch.name.clone() }),
        ChunkState::Collecting { batch, end } => Some(Effect::Collect {
            which,
            batch: batch.name.clone(),
            end: end.clone(),
            missing_max,
        }),
        ChunkState::Stuck { .. } => {
            let refusal = creating::uncertain(&job.head, chunk, is_foreign);
            Some(Effect::Notify { head: Box::new(job.head.clone()), refusal })
        }
        ChunkState::Waiting { .. }
        | ChunkState::Creating { .. }
        | ChunkState::Rescuing { .. }
        | ChunkState::Settled
        | ChunkState::Split { .. } => None,
    }
}

pub(super) fn which(head: &Head, chunk: &Chunk) -> Which {
    Which {
        job: head.id,
        chunk: chunk.no,
        attempt: chunk.attempt,
        rows: chunk.rows,
        middle: chunk.middle(),
        terms: Terms { counts: chunk.purse.is_some(), ..head.queue.terms() },
        prepared: head.state.plan().is_some_and(|plan| plan.prepared),
    }
}
