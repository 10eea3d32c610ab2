//! Rescue: lines whose batch would not answer in time are asked one by one instead.
//!
//! It begins when what is left of the time is what it needs. From then on nothing of the job goes
//! into a batch: what waits is asked at once, what is at the API is stopped and collected first, and
//! a batch that does not end is left to itself and looked at once more when nothing else is to be
//! done. When the deadline has passed, what is left goes on as a batch again.

use super::deadline::{Promise, promise, rows_left};
use super::effect::{Change, Effect, Turn};
use super::event::Rescued;
use super::ids::{JobId, Millis};
use super::job::{Aid, Batch, BatchRecord, ChunkState, Family, Head, Job, JobState, Queue, Task};
use super::keys::KeyNo;
use super::lanes::{Lane, Unit};
use super::machine::{Engine, find, find_mut, salt};

/// A tier of the API's synchronous call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// At the price of a batch, and turned away when there is no room.
    Flex,
    /// At twice that price, and answered at once.
    Standard,
}

impl Tier {
    /// Its word, here and at the API.
    pub fn word(self) -> &'static str {
        match self {
            Tier::Flex => "flex",
            Tier::Standard => "standard",
        }
    }
}

/// The tiers that a rescue may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tiers {
    /// Flex.
    pub flex: bool,
    /// Standard: alone, or for what flex has not answered.
    pub standard: bool,
}

impl Tiers {
    /// Whether there is none.
    pub fn are_none(self) -> bool {
        !self.flex && !self.standard
    }
}

/// How fast a rescue is thought to be, and how patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RescuePace {
    /// Calls at a time.
    pub parallel: u64,
    /// What one call takes, as long as nothing else is known, milliseconds.
    pub call_ms: u64,
    /// How long a batch that was asked to stop is waited for, milliseconds.
    pub patience_ms: u64,
    /// What is kept for the rest: fetching, writing, delivering; milliseconds.
    pub margin_ms: u64,
}

impl Default for RescuePace {
    fn default() -> RescuePace {
        RescuePace { parallel: 16, call_ms: 20_000, patience_ms: 120_000, margin_ms: 600_000 }
    }
}

impl RescuePace {
    /// How long it takes to rescue so many rows, milliseconds.
    pub fn need_ms(self, rows: u64, tiers: Tiers) -> u64 {
        self.calls_ms(rows, tiers).saturating_add(self.around_ms())
    }

    /// How long the calls alone take. Where another tier is to follow, the last quarter is kept for
    /// it.
    fn calls_ms(self, rows: u64, tiers: Tiers) -> u64 {
        let calls = rows.saturating_mul(self.call_ms) / self.parallel.max(1);
        let calls = calls.saturating_add(self.call_ms);
        match tiers.flex && tiers.standard {
            true => calls.saturating_add(calls / 3),
            false => calls,
        }
    }

    /// How long everything else takes, milliseconds.
    fn around_ms(self) -> u64 {
        self.patience_ms.saturating_add(self.margin_ms)
    }
}

/// The tier that is right at a moment, and until when.
pub fn tier_at(
    queue: &Queue,
    promise: &Promise,
    deliver_by: Millis,
    now: Millis,
) -> Option<(Tier, Millis)> {
    let tiers = queue.rescue();
    // No other tier is documented for embeddings.
    let flex = tiers.flex && !promise.no_flex && queue.task == Task::Generate;
    let standard = tiers.standard && !promise.no_standard;
    let begun = promise.rescue.unwrap_or(now).min(deliver_by);
    let turn = Millis(deliver_by.0 - deliver_by.since(begun) / 4);
    match (flex, standard) {
        (true, true) if now < turn => Some((Tier::Flex, turn)),
        (_, true) => Some((Tier::Standard, deliver_by)),
        (true, false) => Some((Tier::Flex, deliver_by)),
        (false, false) => None,
    }
}

impl Queue {
    /// The tiers that a rescue of its files may use.
    pub fn rescue(&self) -> Tiers {
        self.deadline.as_ref().map_or_else(Tiers::default, |deadline| deadline.rescue)
    }
}

impl Engine {
    /// Whether lines of the job are asked one by one now, so that nothing goes into a batch.
    pub fn is_rescuing(&self, job: &Job) -> bool {
        let begun = promise(&job.head).and_then(|promise| promise.rescue);
        let is_ahead = |by: Millis| self.latest < by;
        begun.is_some()
            && job.head.queue.moments.deliver_by.is_some_and(is_ahead)
            && self.can_rescue(job, self.latest)
    }

    /// Whether a rescue would be allowed, and could work, at a moment.
    pub(super) fn can_rescue(&self, job: &Job, now: Millis) -> bool {
        let JobState::Active(plan) = &job.head.state else { return false };
        let Some(deliver_by) = job.head.queue.moments.deliver_by else { return false };
        let usual = Promise::default();
        let promise = plan.promise.as_deref().unwrap_or(&usual);
        !plan.cancelled
            && plan.family == Family::Native
            && job.head.queue.moments.opens.is_none_or(|opens| opens <= now)
            && tier_at(&job.head.queue, promise, deliver_by, now).is_some()
            && self.may_send(&job.head)
    }

    /// The tier that is right for a job now.
    pub(super) fn rescue_tier(&self, job: &Job, now: Millis) -> Option<Tier> {
        let usual = Promise::default();
        let promise = promise(&job.head).unwrap_or(&usual);
        let deliver_by = job.head.queue.moments.deliver_by?;
        tier_at(&job.head.queue, promise, deliver_by, now).map(|(tier, _)| tier)
    }

    /// When the rescue of a job has to begin: it shares its calls with all jobs that are wanted
    /// before it.
    pub(super) fn rescue_begins(&self, job: &Job, deliver_by: Millis) -> Millis {
        let before = |id: JobId| {
            let other = self.jobs.get(&id).filter(|other| other.head.id != job.head.id)?;
            let by = other.head.queue.moments.deliver_by?;
            (by <= deliver_by && !other.head.queue.rescue().are_none()).then(|| rows_left(other))
        };
        let tiers = job.head.queue.rescue();
        let others: u64 = match tiers.are_none() {
            true => 0,
            false => self.watch.jobs().filter_map(before).sum(),
        };
        let rows = rows_left(job).saturating_add(others);
        // However many lines there are, their batches get half of the time.
        let first_create = job.head.state.plan().and_then(|plan| plan.first_create);
        let from = job.head.queue.moments.opens.or(first_create).unwrap_or(job.head.claimed);
        let pace = self.rescue_pace();
        let calls = pace.calls_ms(rows, tiers).min(deliver_by.since(from) / 2);
        Millis(deliver_by.0.saturating_sub(calls.saturating_add(pace.around_ms())))
    }

    /// The pace with what was learned since the start.
    pub(super) fn rescue_pace(&self) -> RescuePace {
        let usual = self.policy.rescue;
        RescuePace { call_ms: self.call_ms.unwrap_or(usual.call_ms), ..usual }
    }

    /// The rescue of a job begins: what waits or is at the API changes its lane.
    pub(super) fn begin_rescues(&mut self, id: JobId, now: Millis, turn: &mut Turn) {
        let units = self.units_of(id);
        let soon = now.plus(self.policy.poll_min_ms);
        for unit in &units {
            if let Some(note) = self.polls.get_mut(unit) {
                note.next = note.next.min(soon);
            }
        }
        self.park_units(&units, turn);
        self.refile_job(id);
    }

    /// Goes on without batches that were asked to stop and do not end, as long as a rescue is under
    /// way. Answers when to look again, if there are others.
    pub(super) fn leave_what_does_not_end(
        &mut self,
        id: JobId,
        now: Millis,
        turn: &mut Turn,
    ) -> Option<Millis> {
        let mut next = None;
        for unit in self.units_of(id) {
            let Some((job, chunk)) = find(&self.jobs, unit) else { continue };
            let begun = promise(&job.head).and_then(|promise| promise.rescue);
            let (ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. }) = &chunk.state
            else {
                continue;
            };
            let begun = begun.filter(|_| self.is_rescuing(job))?;
            let leave = begun.max(batch.created).plus(self.policy.rescue.patience_ms);
            if now < leave || self.busy.contains(&unit) {
                let again = leave.max(now.plus(self.policy.poll_min_ms.max(1)));
                next = Some(next.map_or(again, |next: Millis| next.min(again)));
                continue;
            }
            let is_fetched = matches!(chunk.state, ChunkState::Collecting { .. });
            if is_fetched && !self.troubles.contains_key(&unit) {
                continue;
            }
            let mut batch = batch.clone();
            if let ChunkState::Collecting { end, .. } = &chunk.state {
                batch.remote = end.state.clone();
            }
            self.leave(unit, batch, now, turn);
        }
        next
    }

    fn leave(&mut self, unit: Unit, batch: Batch, now: Millis, turn: &mut Turn) {
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        // Only one can be remembered; of another that does not end nothing is known yet.
        if chunk.aid.as_ref().is_some_and(|aid| aid.left.is_some()) {
            return;
        }
        chunk.aid.get_or_insert_default().left = Some(batch);
        chunk.attempt = chunk.attempt.next();
        // It may answer, and be paid for, all the same.
        self.doubt_held(unit);
        self.polls.remove(&unit);
        self.troubles.remove(&unit);
        self.set_chunk(unit, ChunkState::Waiting { not_before: now }, turn);
    }

    /// Saves the intent, then asks: the order that holds for everything that is paid for.
    pub(super) fn begin_rescue(&mut self, unit: Unit, key: KeyNo, now: Millis, turn: &mut Turn) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        let Some(deliver_by) = job.head.queue.moments.deliver_by else { return };
        let usual = Promise::default();
        let promise = promise(&job.head).unwrap_or(&usual);
        let right = tier_at(&job.head.queue, promise, deliver_by, now);
        let begun = match &chunk.state {
            ChunkState::Rescuing { tier, .. } => Some(*tier),
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Polling(_)
            | ChunkState::Collecting { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => None,
        };
        let may = self.is_rescuing(job);
        let (tier, until) = match (begun, right) {
            // What was begun is taken in, whatever holds by now.
            (Some(tier), Some((right, until))) if tier == right && may => (tier, until),
            (Some(tier), _) => (tier, now),
            (None, Some(right)) if may => right,
            (None, _) => return self.refile(unit),
        };
        if begun.is_none() {
            self.note_window_open(unit.job, turn);
        }
        let print = self.policy.keys.print(key).map(str::to_owned);
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        if begun.is_none() {
            if head.key_print != print {
                head.key_print = print;
                turn.save.push(Change::Head(Box::new(head.clone())));
            }
            chunk.state = ChunkState::Rescuing { tier, since: now };
            self.set_aside_for(unit, tier.into(), now);
            let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
            turn.save.push(Change::Chunk(head.id, Box::new(chunk.clone())));
        }
        let Some((head, chunk)) = find(&self.jobs, unit).map(|(job, chunk)| (&job.head, chunk))
        else {
            return;
        };
        let which = super::dispatch::which(head, chunk);
        let (model, task) = (head.queue.model.clone(), head.queue.task);
        let effect = Effect::Rescue { which, tier, model, task, until };
        self.account(unit);
        self.issue(Lane::Rescue, vec![unit], effect, Some(key), turn);
    }

    /// What came of asking for the rows of a chunk.
    pub(super) fn rescued(&mut self, unit: Unit, it: &Rescued, now: Millis, turn: &mut Turn) {
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        let ChunkState::Rescuing { tier, .. } = chunk.state else { return };
        let attempts = head.queue.attempts;
        self.spend_rescued(unit, it, tier);
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        chunk.rest = it.harvest.rest;
        chunk.tries = chunk.tries.saturating_add(u16::from(it.harvest.retryable > 0));
        let is_spent = chunk.tries >= attempts && it.harvest.missing == 0;
        self.call_ms = match (self.call_ms, it.call_ms) {
            (Some(before), Some(now)) => Some((before * 3 + now) / 4),
            (before, now) => now.or(before),
        };
        let (answered, refused) = (it.harvest.answered, it.refused.is_some());
        self.change_plan(unit.job, turn, |plan| {
            let promise = plan.promise.get_or_insert_default();
            match tier {
                Tier::Flex => promise.flex += answered,
                Tier::Standard => promise.standard += answered,
            }
            promise.uncertain += it.uncertain;
            promise.no_flex |= refused && tier == Tier::Flex;
            promise.no_standard |= refused && tier == Tier::Standard;
            if answered + it.harvest.failed > 0 {
                plan.last_result = Some(now);
            }
            true
        });
        if it.uncertain > 0 {
            let (no, count) = (unit.chunk.map_or(0, |no| no.0), it.uncertain);
            self.warn(
                unit.job,
                turn,
                format!(
                    "chunk {no}: of {count} calls to the {} tier nobody knows whether they were \
                 answered and paid for; their lines were asked again as long as there was time",
                    tier.word()
                ),
            );
        }
        if let Some(why) = &it.refused {
            let word = tier.word();
            self.warn(unit.job, turn, format!("the API does not take the {word} tier: {why}"));
            self.refile_job(unit.job);
        }
        for warning in super::collecting::oddities(unit, &it.harvest.without_missing()) {
            self.warn(unit.job, turn, warning);
        }
        if is_spent {
            return self.settle(unit, turn);
        }
        // A run that brought nothing is not followed by the next one at once.
        let is_vain = answered + it.harvest.failed == 0 && !refused;
        let pause = if is_vain { self.policy.backoff_ms(VAIN_AS, salt(unit)) } else { 0 };
        self.send_rest(unit, now.plus(pause.max(it.pause_ms)), turn);
    }

    /// Takes up a batch again that was left to itself, if there is one: what it answers is not sent
    /// again. With nothing left to answer it is only written down. Answers whether it goes on.
    pub(super) fn take_up_what_was_left(&mut self, unit: Unit, turn: &mut Turn) -> bool {
        let now = self.latest;
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return false };
        let Some(aid) = chunk.aid.as_deref_mut() else { return false };
        let Some(batch) = aid.left.clone().filter(|batch| aid.back.as_ref() != Some(&batch.name))
        else {
            return false;
        };
        aid.back = Some(batch.name.clone());
        if chunk.rest.rows() > 0 {
            aid.left = None;
            chunk.attempt = chunk.attempt.next();
            self.set_chunk(unit, ChunkState::Polling(batch), turn);
            return true;
        }
        chunk.batches.push(written_down(&batch, chunk.attempt, now));
        false
    }

    /// Counts answers of a batch that had been left to itself to lines that were rescued.
    pub(super) fn count_waste(
        &mut self,
        unit: Unit,
        batch: &Batch,
        unknown: u64,
        turn: &mut Turn,
    ) -> bool {
        let was_left = find(&self.jobs, unit)
            .and_then(|(_, chunk)| chunk.aid.as_deref())
            .is_some_and(|aid: &Aid| aid.back.as_ref() == Some(&batch.name));
        if was_left && unknown > 0 {
            self.change_promise(unit.job, turn, |promise| promise.wasted += unknown);
        }
        was_left
    }

    /// Whether an upload of the job is not to go on: somebody holds it back, or its lines are asked
    /// one by one.
    pub(super) fn is_withheld(&self, job: &Job) -> bool {
        !self.may_send(&job.head) || self.is_rescuing(job)
    }
}

/// A batch that was left to itself, for the manifest: it had not ended.
fn written_down(batch: &Batch, attempt: super::ids::Attempt, now: Millis) -> BatchRecord {
    BatchRecord {
        name: batch.name.clone(),
        attempt,
        input: batch.input.clone(),
        state: batch.remote.clone(),
        lines: 0,
        bytes: 0,
        answered: 0,
        created: batch.created,
        ended: now,
        collected: None,
        adopted: batch.adopted,
        error: None,
        key_print: Some(batch.key_print.clone()),
        input_gone: batch.input_gone,
        result_bytes: 0,
        cost: None,
    }
}

/// Why no line of a job is going to be rescued although its queue wants that, in words.
pub fn not_for(head: &Head) -> Option<&'static str> {
    let tiers = head.queue.rescue();
    if tiers.are_none() {
        return None;
    }
    if head.state.family() == Family::OpenAi {
        return Some("lines of the OpenAI-compatible layer can not be rescued");
    }
    (head.queue.task == Task::Embed && !tiers.standard)
        .then_some("embeddings can only be rescued through the standard tier")
}

/// A run of calls that brought nothing is like so many failures in a row.
const VAIN_AS: u32 = 7;
/// Promises are looked at so often at least, milliseconds.
pub(super) const LOOK_MAX_MS: u64 = 600_000;
