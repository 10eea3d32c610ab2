//! The engine: all jobs, and the one place where it is decided what happens next.
//!
//! [`Engine::handle`] takes an event and answers with a [`Turn`]. What a unit wants is a function
//! of its saved state ([`wants`]); what is kept beside it in memory (failures in a row, the time
//! of the next poll) only delays things and is lost in a restart without harm.

use std::collections::{BTreeMap, BTreeSet};

use super::deadline::Watch;
use super::effect::{Change, Turn};
use super::event::{Event, Failure, Outcome};
use super::gates::Gate;
use super::ids::{BatchName, ChunkNo, JobId, Millis, Ticket};
use super::job::{Chunk, ChunkState, Head, Job, JobState, Queue, Source};
use super::keys::KeyNo;
use super::lanes::{Lane, Lanes, Queue as Place, Size, Unit};
use super::ledger::{Removal, Usage};
use super::past::Past;
use super::policy::{self, Policy};
use super::quota::Quota;
use super::recollection::Recollection;
use super::spending::Spending;
use super::stalled::Stalled;
use super::steering::Pauses;
use super::trouble::Trouble;

/// All jobs and what is under way for them.
#[derive(Debug)]
pub struct Engine {
    pub(super) policy: Policy,
    /// The jobs that are not complete.
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) past: Past,
    pub(super) lanes: Lanes,
    pub(super) running: BTreeMap<Ticket, Running>,
    pub(super) busy: BTreeSet<Unit>,
    pub(super) troubles: BTreeMap<Unit, Trouble>,
    pub(super) polls: BTreeMap<Unit, PollNote>,
    pub(super) stopping: BTreeSet<BatchName>,
    /// Chunks that wait for people who were told so.
    pub(super) told: BTreeSet<Unit>,
    /// Whose notes are being written while one was taken back.
    pub(super) crossed: BTreeSet<Unit>,
    pub(super) discarded: BTreeSet<BatchName>,
    /// Removals under way at the API, and what they remove.
    pub(super) removing: BTreeMap<Ticket, Removal>,
    /// Why no room is made at the API for a while, by key.
    pub(super) no_room: BTreeMap<KeyNo, Trouble>,
    /// Chunks whose batches the key in use can not see.
    pub(super) unseen: BTreeSet<Unit>,
    pub(super) claiming: BTreeSet<(String, String)>,
    /// Which jobs have which content, by its SHA-256.
    pub(super) contents: BTreeSet<(Box<str>, JobId)>,
    pub(super) takings: BTreeMap<Unit, (Option<KeyNo>, Usage)>,
    /// What small jobs take at the API, and what the others do, by key.
    pub(super) small_usage: BTreeMap<Option<KeyNo>, Usage>,
    pub(super) other_usage: BTreeMap<Option<KeyNo>, Usage>,
    /// Effects under way, by where their units stood.
    pub(super) under_way: BTreeMap<Place, usize>,
    /// Plans under way beside which an upload may go on.
    pub(super) early_uploads: usize,
    /// The first chunk of a job that may not be settled yet.
    pub(super) unsettled: BTreeMap<JobId, ChunkNo>,
    pub(super) gates: BTreeMap<KeyNo, Gate>,
    /// Why nothing is taken on that needs room on the disk, if so.
    pub(super) full: Option<String>,
    /// What operators have paused.
    pub(super) pauses: Pauses,
    /// When promises are looked at next.
    pub(super) watch: Watch,
    /// What one call of a rescue took lately, milliseconds.
    pub(super) call_ms: Option<u64>,
    pub(super) spending: Spending,
    pub(super) quota: Quota,
    pub(super) stalled: Stalled,
    /// Nothing new is taken in.
    pub(super) closing: bool,
    pub(super) next_ticket: u64,
    /// The first ticket under the settings in force.
    pub(super) adopted: Ticket,
    pub(super) draining: bool,
    /// The latest moment seen; a clock that is set back shows by it.
    pub(super) latest: Millis,
}

/// An effect under way.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) lane: Lane,
    pub(super) size: Size,
    pub(super) units: Vec<Unit>,
    /// Whether an upload may go on beside it.
    pub(super) early: bool,
    /// Fingerprint of the API key it is done with, which may not be in use any more.
    pub(super) print: Option<String>,
}

/// What is remembered of a batch between two looks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PollNote {
    pub(super) next: Millis,
    pub(super) missed: u32,
}

impl Engine {
    /// An engine over the saved jobs. Everything under way is asked for again as it stands, except
    /// that a create that may have been sent is looked for first.
    pub fn resume(jobs: Vec<Job>, policy: Policy, now: Millis) -> (Engine, Turn) {
        let mut recollection = Recollection::default();
        jobs.into_iter().for_each(|job| recollection.take_in(job));
        recollection.resume(policy, now)
    }

    /// Finds out again what is remembered of a job beside its record.
    pub(super) fn recall(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        // What was released does not lie in the inbox.
        if job.head.state == JobState::Claiming && !job.head.released {
            let source = &job.head.source;
            self.claiming.insert((source.folder.clone(), source.name.clone()));
        }
    }

    /// Takes in what happened and says what to save and what to do.
    pub fn handle(&mut self, event: Event, now: Millis) -> Turn {
        let mut turn = Turn::default();
        if now.plus(SET_BACK_MS) < self.latest {
            self.set_back(now);
        }
        let unseen_ms = now.since(self.latest);
        if unseen_ms > UNSEEN_MS {
            self.lengthen_windows(unseen_ms);
        }
        self.latest = now;
        match event {
            Event::Arrived { id, source, queue } => self.arrived(id, source, queue, now, &mut turn),
            Event::Done { ticket, outcome } => {
                self.removed_at_the_api(ticket, &mut turn);
                if let Some(running) = self.finish(ticket) {
                    self.succeeded(&running, &outcome);
                    self.apply(&running, outcome, now, &mut turn);
                    self.park_units(&running.units, &mut turn);
                    self.refile_all(&running.units);
                }
            }
            Event::Failed { ticket, failure } => {
                self.not_removed_at_the_api(ticket, &failure, now);
                if let Some(running) = self.finish(ticket) {
                    // That a key was refused, or a way barred, before the settings were changed
                    // says nothing about those in force.
                    if ticket >= self.adopted || !failure.is_of_settings() {
                        self.note_failure(&running, &failure, now);
                    }
                    self.apply_failure(&running, failure, now, &mut turn);
                    self.park_units(&running.units, &mut turn);
                    self.refile_all(&running.units);
                }
            }
            Event::Tick => {}
            Event::Noticed(batch) => self.noticed(batch.as_ref(), now),
            Event::Housekeeping => self.forget_old(now, &mut turn),
            Event::Room(full) => self.room(full, now),
            Event::Periods(periods) => self.set_periods(periods),
        }
        self.pump(now, &mut turn);
        turn
    }

    /// Other numbers from now on, and perhaps another key. Whatever pauses after a failure is tried
    /// again at once: it may have been for what was mended.
    pub fn adopt(&mut self, policy: Policy, now: Millis) -> Turn {
        self.policy = policy;
        self.adopted = Ticket(self.next_ticket);
        self.troubles.clear();
        self.polls.clear();
        self.gates.clear();
        self.no_room.clear();
        self.unseen.clear();
        for chunk in self.jobs.values_mut().flat_map(|job| job.chunks.values_mut()) {
            if let ChunkState::Waiting { not_before } = &mut chunk.state {
                *not_before = now.min(*not_before);
            }
        }
        self.count_anew();
        self.spending.freed = true;
        self.refile_everything();
        let mut turn = Turn::default();
        self.pump(now, &mut turn);
        turn
    }

    /// Begins no new effects from now on; what is under way may end.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// When to send the next [`Event::Tick`], if nothing happens before.
    pub fn next_wakeup(&self) -> Option<Millis> {
        if self.draining {
            return None;
        }
        let remote = || Lane::ALL.iter().filter(|lane| lane.is_remote());
        let gated = |key| remote().any(|lane| self.lanes.any_ready(*lane, Some(key)));
        // A gate that is open in time waits for the one request under way, not for a moment.
        let is_ahead = |at: &Millis| *at > self.latest;
        let gates = self.gates.iter().filter(|(_, gate)| is_ahead(&gate.until));
        let gate = gates.filter(|(key, _)| gated(**key)).map(|(_, gate)| gate.until).min();
        let room = self.no_room.values().map(|trouble| trouble.not_before).filter(is_ahead).min();
        let ceiling = self.next_ceiling().filter(|at| self.stalled.count() > 0 && is_ahead(at));
        let moments = [self.lanes.next_time(), gate, room, ceiling, self.watch.next()];
        moments.into_iter().flatten().min()
    }

    /// The newest complete jobs, then every other one, each oldest first.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.past.recent().chain(self.unfinished())
    }

    /// Every job that is not complete, oldest first.
    pub fn unfinished(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// Every job that is complete.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// One job; of complete ones only the newest are there.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id).or_else(|| self.past.get(id))
    }

    /// Files that lie in the inbox and are going to be claimed, those left out that are paused.
    pub fn claims_waiting(&self) -> usize {
        if self.pauses.is_empty() {
            return self.claiming.len();
        }
        let is_left = |job: &&Job| !job.head.released && self.is_left_in_inbox(&job.head);
        self.claiming.len().saturating_sub(self.jobs.values().filter(is_left).count())
    }

    /// Whether any effect is under way.
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether lines are asked one by one.
    pub fn is_asking(&self) -> bool {
        self.running.values().any(|running| running.lane == Lane::Rescue)
    }

    /// The settings in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Why nothing is taken on that needs room on this machine's disk, if so.
    pub fn full(&self) -> Option<&str> {
        self.full.as_deref()
    }

    /// The failures in a row of a job or a chunk.
    pub fn trouble(&self, job: JobId, chunk: Option<ChunkNo>) -> Option<&Trouble> {
        self.troubles.get(&Unit { job, chunk })
    }

    /// The failure that anybody met most recently and that is not overcome.
    pub fn latest_trouble(&self) -> Option<&Trouble> {
        self.troubles.values().max_by_key(|trouble| trouble.not_before)
    }

    fn arrived(&mut self, id: JobId, source: Source, queue: Queue, now: Millis, turn: &mut Turn) {
        if self.closing || self.pauses.cover(&queue.name) {
            return;
        }
        // The same file can be seen twice before its claim is done.
        if self.draining || !self.claiming.insert((source.folder.clone(), source.name.clone())) {
            return;
        }
        let state = JobState::Claiming;
        let (released, on_hold, key_print) = (false, false, None);
        let claimed = now;
        let funds = None;
        let head = Head { id, source, queue, claimed, released, on_hold, key_print, funds, state };
        turn.save.push(Change::Head(Box::new(head.clone())));
        self.jobs.insert(id, Job { head, chunks: BTreeMap::new() });
        self.refile_job(id);
    }

    fn finish(&mut self, ticket: Ticket) -> Option<Running> {
        let running = self.running.remove(&ticket)?;
        let place = self.queue_of(&running);
        if let Some(count) = self.under_way.get_mut(&place) {
            *count -= 1;
        }
        self.early_uploads -= usize::from(running.early);
        for unit in &running.units {
            self.busy.remove(unit);
        }
        Some(running)
    }

    fn succeeded(&mut self, running: &Running, outcome: &Outcome) {
        self.reopen(running);
        // A look that only makes sure before a create is sent again, and its file that is there
        // already, say nothing about the create.
        let is_look = matches!(outcome, Outcome::Found(_) | Outcome::Unlisted(_));
        let is_upload = matches!(outcome, Outcome::Uploaded { .. });
        for unit in &running.units {
            let is_limited = || self.troubles.get(unit).is_some_and(|trouble| trouble.limited);
            if !(is_look || is_upload && is_limited()) {
                self.troubles.remove(unit);
            }
        }
    }

    /// Remembers a failure: the units wait, and if the API as a whole seems ill, everybody does.
    fn note_failure(&mut self, running: &Running, failure: &Failure, now: Millis) {
        for unit in &running.units {
            if !self.is_wanted(*unit) {
                continue;
            }
            let before = self.troubles.remove(unit).unwrap_or_default();
            let mut pause = self.policy.backoff_ms(before.failures + 1, salt(*unit));
            if let Failure::RateLimited { retry_after_ms, .. } = failure {
                pause = pause.max(self.policy.honoured_ms(*retry_after_ms));
            }
            let trouble = before.and(failure, now, now.plus(pause));
            self.troubles.insert(*unit, trouble.patient(self.policy.uncertain_window_ms));
        }
        self.shut(running, failure, now);
    }

    /// Takes note of the room on the disk. When there is some again, nobody waits any longer for
    /// what failed for want of it.
    fn room(&mut self, full: Option<String>, now: Millis) {
        let is_back = self.full.is_some() && full.is_none();
        self.full = full;
        if !is_back {
            return;
        }
        let on_disk = |unit: &Unit| match find(&self.jobs, *unit) {
            Some((_, chunk)) => matches!(chunk.state, ChunkState::Collecting { .. }),
            None => true,
        };
        let units: Vec<Unit> = self.troubles.keys().copied().filter(on_disk).collect();
        for unit in units {
            if let Some(trouble) = self.troubles.get_mut(&unit) {
                trouble.not_before = trouble.not_before.min(now);
            }
            self.refile(unit);
        }
    }

    /// Whether anything is still to be done for a unit; what was given up may fail in peace.
    fn is_wanted(&self, unit: Unit) -> bool {
        match unit.chunk {
            None => self.jobs.get(&unit.job).is_some_and(|job| !job.is_over()),
            Some(_) => find(&self.jobs, unit).is_some_and(|(job, chunk)| {
                let is_settled =
                    matches!(chunk.state, ChunkState::Settled | ChunkState::Split { .. });
                !job.is_over() && !is_settled
            }),
        }
    }

    fn forget_old(&mut self, now: Millis, turn: &mut Turn) {
        let keep = self.policy.records_keep_ms;
        let old = |job: &&Job| job.is_over() && policy::is_older_than(job.head.claimed, keep, now);
        let ids: Vec<JobId> = self.jobs.values().filter(old).map(|job| job.head.id).collect();
        for id in ids {
            self.forget(id, turn);
        }
        for id in self.past.older_than(keep, now) {
            self.past.forget(id);
            turn.save.push(Change::Forget(id));
        }
        let (jobs, past) = (&self.jobs, &self.past);
        self.contents.retain(|(_, id)| jobs.contains_key(id) || past.known(*id).is_some());
        // What came from an older store has the rest of its records; a night takes some.
        turn.save.extend(self.past.shed(SHED_A_NIGHT).into_iter().map(Change::Shed));
    }
}

pub(super) fn find(jobs: &BTreeMap<JobId, Job>, unit: Unit) -> Option<(&Job, &Chunk)> {
    let job = jobs.get(&unit.job)?;
    Some((job, job.chunks.get(&unit.chunk?)?))
}

pub(super) fn find_mut(
    jobs: &mut BTreeMap<JobId, Job>,
    unit: Unit,
) -> Option<(&mut Head, &mut Chunk)> {
    let job = jobs.get_mut(&unit.job)?;
    Some((&mut job.head, job.chunks.get_mut(&unit.chunk?)?))
}

/// A number that differs from unit to unit, for spreading delays.
pub(super) fn salt(unit: Unit) -> u64 {
    let job = unit
        .job
        .as_str()
        .bytes()
        .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    job ^ unit.chunk.map_or(0, |chunk| u64::from(chunk.0) << 32)
}

/// A clock that goes back by less is only being adjusted, milliseconds.
const SET_BACK_MS: u64 = 5_000;
/// The daemon looks up every few seconds; a longer time unseen is no time passed, milliseconds.
const UNSEEN_MS: u64 = 120_000;
/// Complete jobs that lose the records of their chunks in one housekeeping round, at most.
const SHED_A_NIGHT: usize = 10_000;
