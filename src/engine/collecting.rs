//! From the first look at a batch to the end of its attempt, and what follows it.

use std::collections::HashMap;

use super::effect::Turn;
use super::event::{Failure, Harvest, Polled, RemoteBatch};
use super::ids::{BatchName, ChunkNo, Millis};
use super::job::{Batch, BatchRecord, ChunkState, Job, RemoteEnd, RemoteError, RemoteState, Rest};
use super::lanes::Unit;
use super::machine::{Engine, find, find_mut, salt};
use super::policy;

impl Engine {
    pub(super) fn polled(
        &mut self,
        units: &[Unit],
        seen: Vec<(BatchName, Polled)>,
        print: Option<&str>,
        now: Millis,
        turn: &mut Turn,
    ) {
        // What a key that was exchanged did not see says nothing about the one in use.
        let counts = print.is_some_and(|print| self.policy.keys.of_print(print).is_some());
        let seen: HashMap<BatchName, Polled> = seen.into_iter().collect();
        for &unit in units {
            let Some((_, chunk)) = find(&self.jobs, unit) else { continue };
            let ChunkState::Polling(batch) = chunk.state.clone() else { continue };
            let polled = seen.get(&batch.name);
            let age = now.since(batch.created);
            let mut note = self.polls.get(&unit).copied().unwrap_or_default();
            let is_soon = find(&self.jobs, unit).is_some_and(|(job, _)| self.is_rescuing(job));
            note.next = self.policy.next_poll(now, if is_soon { 0 } else { age });
            note.missed = match polled {
                Some(Polled::Gone) if counts => note.missed.saturating_add(1),
                Some(Polled::Seen(_)) => 0,
                Some(Polled::Gone) | None => note.missed,
            };
            self.polls.insert(unit, note);
            match polled {
                Some(Polled::Seen(remote)) => {
                    let now_seen = self.seen_with(batch.clone(), print);
                    let is_bound = now_seen.key_print != batch.key_print;
                    self.seen(unit, now_seen, remote, is_bound, now, turn);
                }
                Some(Polled::Gone) if note.missed >= policy::GONE_LOOKS => {
                    self.gone(unit, &batch, now, turn);
                }
                Some(Polled::Gone) | None => {}
            }
        }
    }

    pub(super) fn seen(
        &mut self,
        unit: Unit,
        batch: Batch,
        remote: &RemoteBatch,
        is_bound: bool,
        now: Millis,
        turn: &mut Turn,
    ) {
        let print = batch.key_print.clone();
        if remote.is_finished() {
            let ended = remote.ended.unwrap_or(now);
            let (state, error) = (remote.state.clone(), remote.error.clone());
            let end = RemoteEnd { state, ended, error };
            self.set_chunk(unit, ChunkState::Collecting { batch, end }, turn);
        } else if remote.state != batch.remote || is_bound {
            let batch = Batch { remote: remote.state.clone(), ..batch };
            self.set_chunk(unit, ChunkState::Polling(batch), turn);
        }
        self.watch_pending(unit, now, turn);
        if is_bound {
            self.bind(unit, &print, turn);
        }
    }

    /// The API does not know the batch any more.
    pub(super) fn gone(&mut self, unit: Unit, batch: &Batch, now: Millis, turn: &mut Turn) {
        if self.waits_for_its_key(unit, batch, now) {
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

    pub(super) fn collected(
        &mut self,
        unit: Unit,
        harvest: &Harvest,
        print: Option<&str>,
        now: Millis,
        turn: &mut Turn,
    ) {
        let Some((_, chunk)) = find(&self.jobs, unit) else { return };
        let ChunkState::Collecting { batch, end } = chunk.state.clone() else { return };
        let batch = self.seen_with(batch, print);
        self.settle_up(unit, harvest);
        self.conclude(unit, &batch, &end, harvest.answered, harvest.rest, now, turn);
        if let Some((_, chunk)) = find_mut(&mut self.jobs, unit)
            && let Some(record) = chunk.batches.last_mut()
        {
            record.result_bytes = harvest.bytes;
        }
        let was_left = self.count_waste(unit, &batch, harvest.unknown, turn);
        let unknown = if was_left { 0 } else { harvest.unknown };
        for warning in oddities(unit, &Harvest { unknown, ..harvest.clone() }) {
            self.warn(unit.job, turn, warning);
        }
        if self.send_again_if_stuck(unit, &batch, &end, now, turn) {
            return;
        }
        let nothing = harvest.answered + harvest.failed + harvest.retryable == 0;
        if end.state == RemoteState::Failed && nothing {
            self.failed_whole(unit, &end, now, turn);
        } else {
            self.after_attempt(unit, now, turn);
        }
    }

    /// The batch failed and answered nothing at all.
    pub(super) fn failed_whole(
        &mut self,
        unit: Unit,
        end: &RemoteEnd,
        now: Millis,
        turn: &mut Turn,
    ) {
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
    pub(super) fn conclude(
        &mut self,
        unit: Unit,
        batch: &Batch,
        end: &RemoteEnd,
        answered: u64,
        rest: Rest,
        now: Millis,
        turn: &mut Turn,
    ) {
        // What we stopped had no fair try.
        let is_ours = end.state == RemoteState::Cancelled
            && find(&self.jobs, unit).is_some_and(|(job, chunk)| {
                self.is_rescuing(job) || self.is_to_be_sent_again(job, chunk, batch)
            });
        let cost = self.spend_held(unit);
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
            collected: Some(now),
            adopted: batch.adopted,
            error: end.error.clone(),
            key_print: Some(batch.key_print.clone()),
            input_gone: batch.input_gone,
            result_bytes: 0,
            cost,
        });
        chunk.rest = rest;
        chunk.tries += u16::from(!is_ours);
        chunk.last_error = end.error.clone();
        self.polls.remove(&unit);
        self.change_plan(unit.job, turn, |plan| {
            plan.last_result = Some(now);
            true
        });
    }

    /// What follows an attempt that came to its end: nothing, or the unanswered rest.
    pub(super) fn after_attempt(&mut self, unit: Unit, now: Millis, turn: &mut Turn) {
        let Some((head, chunk)) = find(&self.jobs, unit) else { return };
        if chunk.tries < head.head.queue.attempts || self.is_rescuing(head) {
            let tries = u32::from(chunk.tries);
            let hurries = self.is_rescuing(head);
            let pause = if hurries { 0 } else { self.policy.backoff_ms(tries, salt(unit)) };
            self.send_rest(unit, now.plus(pause), turn);
        } else {
            self.settle(unit, turn);
        }
    }

    pub(super) fn collect_failed(
        &mut self,
        unit: Unit,
        batch: &Batch,
        end: &RemoteEnd,
        failure: &Failure,
        now: Millis,
        turn: &mut Turn,
    ) {
        let is_gone = matches!(failure, Failure::Gone(_) | Failure::Rejected(_));
        if is_gone && self.waits_for_its_key(unit, batch, now) {
            return;
        }
        let Some(trouble) = self.troubles.get(&unit) else { return };
        let is_foreign = self.policy.keys.of_print(&batch.key_print).is_none();
        let longer_than = |since: Option<Millis>, span_ms| {
            since.is_some_and(|since| policy::is_older_than(since, span_ms, now))
        };
        let why = match failure {
            Failure::Gone(message) | Failure::Rejected(message)
                if is_foreign
                    || longer_than(trouble.gone_since, policy::RESULTS_GONE_MS)
                        && trouble.gone >= policy::RESULTS_GONE_LOOKS =>
            {
                message.clone()
            }
            Failure::NotReady(message)
                if longer_than(trouble.unready_since, policy::NOT_READY_MAX_MS) =>
            {
                message.clone()
            }
            Failure::Gone(_)
            | Failure::Rejected(_)
            | Failure::NotReady(_)
            | Failure::Damaged { .. }
            | Failure::Transient(_)
            | Failure::RateLimited { .. }
            | Failure::Ambiguous(_)
            | Failure::Denied(_)
            | Failure::Barred(_)
            | Failure::Local(_)
            | Failure::Removed(_) => return,
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
    pub(super) fn send_rest(&mut self, unit: Unit, not_before: Millis, turn: &mut Turn) {
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
    pub(super) fn halve(&mut self, unit: Unit, now: Millis, turn: &mut Turn) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        if chunk.rest.rows() <= 1 || self.is_cancelled(unit.job) || hunt_is_vain(job, chunk.root) {
            self.settle(unit, turn);
            return;
        }
        self.cut_in_two(unit, now, turn);
    }
}

/// Whether a family of chunks has been refused so often, without any success, that it can not be
/// a matter of single lines.
fn hunt_is_vain(job: &Job, root: ChunkNo) -> bool {
    let family = || job.chunks.values().filter(|chunk| chunk.root == root);
    let splits = family().filter(|chunk| matches!(chunk.state, ChunkState::Split { .. })).count();
    let worked = family().any(|chunk| {
        matches!(chunk.state, ChunkState::Polling(_) | ChunkState::Collecting { .. })
            || chunk.batches.iter().any(|batch| batch.answered > 0)
    });
    !worked && splits as u64 > policy::POISON_HUNT_MAX
}

/// What was odd about a batch's results, in words.
pub(super) fn oddities(unit: Unit, harvest: &Harvest) -> Vec<String> {
    let chunk = unit.chunk.map_or(0, |no| no.0);
    let told = [
        (harvest.unknown, "result lines for rows that were not sent; they were kept aside"),
        (harvest.repeated, "result lines for rows that had one already; the first was kept"),
        (harvest.missing, "rows without a result line"),
        (
            harvest.unchecked,
            "answers were taken as they came: their requests' schemas can not be used",
        ),
    ];
    told.iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("chunk {chunk}: {count} {what}"))
        .collect()
}
