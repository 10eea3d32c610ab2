//! Lines asked one by one: what the daemon notes, what the API is paid for, and what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gemini_batchd::engine::effect::{Change, Which};
use gemini_batchd::engine::event::{Failure, Harvest, Outcome, Rescued};
use gemini_batchd::engine::ids::{BatchName, JobId, Millis};
use gemini_batchd::engine::job::{Chunk, ChunkState, Deadline, Job, Queue, Stuck, Tier, Tiers};

use super::disk::Fate;
use super::faults::{HOUR_MS, Tamper};
use super::files::Dropped;
use super::random::Random;
use super::world::{Halt, Step, World};

/// What is noted of an attempt at asking row by row.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// About to be asked, and nothing came back.
    pub open: BTreeSet<u64>,
    pub answered: BTreeMap<u64, Fate>,
    /// How often it was not known whether a row was asked.
    pub uncertain: BTreeMap<u64, u32>,
}

/// What a file's owner wants of its deadline.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Milliseconds after it was claimed.
    pub within: Option<u64>,
    pub rescue: Tiers,
    pub stuck: Stuck,
}

impl Wanted {
    pub fn draw(random: &mut Random) -> Wanted {
        let tiers = |flex, standard| Tiers { flex, standard };
        Wanted {
            within: random.pick(&[None, Some(HOUR_MS), Some(6 * HOUR_MS), Some(20 * HOUR_MS)]),
            rescue: random.pick(&[
                tiers(false, false),
                tiers(true, false),
                tiers(true, true),
                tiers(false, true),
            ]),
            stuck: random.pick(&[Stuck::Report, Stuck::Resubmit, Stuck::Split]),
        }
    }
}

impl Dropped {
    /// The queue of a file that is claimed at this moment.
    pub fn with_deadline(&self, mut queue: Queue, now: Millis) -> Queue {
        let Wanted { within, rescue, stuck } = self.wanted;
        queue.deadline = Some(Arc::new(Deadline { rescue, stuck, ..Deadline::USUAL }));
        let from = queue.moments.opens.map_or(now, |opens| opens.max(now));
        queue.moments.deliver_by = within.map(|within| from.plus(within));
        queue
    }
}

impl World {
    /// Asks for the open rows of an attempt, each after it was noted.
    pub fn rescue(
        &mut self,
        which: Which,
        tier: Tier,
        model: &str,
        until: Millis,
    ) -> Step<Result<Outcome, Failure>> {
        let place = (which.chunk, which.attempt);
        if !self.has_input(which.job) {
            return Ok(Err(Failure::Local("the working folder is not there".to_owned())));
        }
        if self.folder(which.job).answers.contains(&place) {
            return Ok(Ok(self.taken_in(which)));
        }
        self.step()?;
        if self.is_disk_full() {
            return Ok(Err(Failure::Local("no space left on device".to_owned())));
        }
        let notes = self.folder(which.job).notes.entry(place).or_default();
        for row in std::mem::take(&mut notes.open) {
            if !notes.answered.contains_key(&row) {
                *notes.uncertain.entry(row).or_default() += 1;
            }
        }
        self.sync();
        for (row, request) in self.rows_to_send(which) {
            if self.clock() >= until {
                break;
            }
            if self.folder(which.job).notes[&place].answered.contains_key(&row) {
                continue;
            }
            if self.is_disk_full() {
                return Ok(Err(Failure::Local("no space left on device".to_owned())));
            }
            if let Err(failure) = self.ask(which, row, &request, tier, model)? {
                return Ok(Err(failure));
            }
        }
        self.folder(which.job).notes.entry(place).or_default().open.clear();
        self.step()?;
        self.sync();
        self.folder(which.job).answers.insert(place);
        self.step()?;
        self.sync();
        Ok(Ok(self.taken_in(which)))
    }

    /// One row; only what keeps all others from being asked is a failure.
    fn ask(
        &mut self,
        which: Which,
        row: u64,
        request: &str,
        tier: Tier,
        model: &str,
    ) -> Step<Result<(), Failure>> {
        let place = (which.chunk, which.attempt);
        if self.tamper != Tamper::AskBeforeNote {
            self.folder(which.job).notes.entry(place).or_default().open.insert(row);
            self.sync();
        }
        self.step()?;
        if let Some(answer) = self.turned_away() {
            let notes = self.folder(which.job).notes.entry(place).or_default();
            match answer.status {
                403 => {
                    notes.open.remove(&row);
                    return Ok(Err(Failure::Denied("403".to_owned())));
                }
                502 => self.is_uncertain(which, row),
                _ => drop(notes.open.remove(&row)),
            }
            return Ok(Ok(()));
        }
        let lost = self.unlucky();
        if lost && self.random.chance(500) {
            self.is_uncertain(which, row);
            return Ok(Ok(()));
        }
        let body = format!("{{\"serviceTier\":\"{}\",{}", tier.word(), &request[1..]);
        let (answer, is_paid) = self.api.ask(model, body.as_bytes(), self.now);
        if is_paid {
            self.check_asked(which, row)?;
        }
        // Between a call and its note a process dies as easily as anywhere else.
        let often = if self.tamper == Tamper::AskBeforeNote { 100 } else { 0 };
        if self.is_faulty() && self.random.chance(often) {
            return Err(Halt::Crash("after asking"));
        }
        self.step()?;
        if lost {
            self.is_uncertain(which, row);
            return Ok(Ok(()));
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let fate = match answer.status {
            200 => {
                let line = format!("{{\"key\":\"{row}\",\"response\":{text}}}");
                let line = serde_json::from_str(&line).expect("the API writes JSON");
                let batch = BatchName("asked".to_owned());
                self.judge(which, &batch, row, &line)?
            }
            400 => Fate::Failed(which.chunk, which.attempt),
            _ => return Ok(Ok(())),
        };
        let notes = self.folder(which.job).notes.entry(place).or_default();
        notes.open.remove(&row);
        notes.answered.insert(row, fate);
        self.step()?;
        Ok(Ok(()))
    }

    fn is_uncertain(&mut self, which: Which, row: u64) {
        let notes = self.folder(which.job).notes.entry((which.chunk, which.attempt)).or_default();
        notes.open.remove(&row);
        *notes.uncertain.entry(row).or_default() += 1;
        self.sync();
    }

    fn taken_in(&mut self, which: Which) -> Outcome {
        let folder = self.folder(which.job);
        let notes = folder.notes.get(&(which.chunk, which.attempt)).cloned().unwrap_or_default();
        folder.outcomes.retain(|_, fate| !fate.is_of(which.chunk, which.attempt));
        folder.outcomes.extend(notes.answered);
        let harvest = self.harvest(which, 0, 0);
        let missing = harvest.rest.rows() - harvest.retryable;
        let harvest = Harvest { missing, ..harvest };
        let uncertain = notes.uncertain.len() as u64;
        Outcome::Rescued(Box::new(Rescued { harvest, uncertain, ..Rescued::default() }))
    }

    /// A row was answered and is paid for: it must have been meant, and nobody may have known that
    /// it was answered before.
    fn check_asked(&mut self, which: Which, row: u64) -> Step {
        let Which { job, chunk, attempt, .. } = which;
        let broken = |problem: String| Err(Halt::Violation(problem));
        let Some(saved) = self.saved(job) else {
            return broken(format!("row {row} was asked before its job was saved"));
        };
        let is_meant = saved.chunks.get(&chunk).is_some_and(|it| {
            it.attempt == attempt && matches!(it.state, ChunkState::Rescuing { .. })
        });
        if !is_meant {
            return broken(format!("row {row} of {job} was asked, and no record says so"));
        }
        let folder = self.folder(job);
        if matches!(folder.outcomes.get(&row), Some(Fate::Answered(..) | Fate::Failed(..))) {
            return broken(format!("row {row} of {job} is settled and asked again"));
        }
        let uncertain: u32 =
            folder.notes.values().filter_map(|notes| notes.uncertain.get(&row)).sum();
        let asked = self.asked.entry((job, row)).or_default();
        *asked += 1;
        if *asked > uncertain + 1 {
            return broken(format!(
                "row {row} of {job} was paid {asked} times, and nobody says so"
            ));
        }
        let concluded = |name: &str| {
            saved.chunks.values().flat_map(|it| &it.batches).any(|batch| batch.name.0 == *name)
        };
        let left = |name: &str| {
            let aids = saved.chunks.values().filter_map(|it| it.aid.as_ref());
            aids.filter_map(|aid| aid.left.as_ref()).any(|batch| batch.name.0 == *name)
        };
        let holders: Vec<(String, bool)> = self
            .api
            .batches
            .iter()
            .filter(|(_, paid)| paid.job == job && paid.rows.contains(&row))
            .map(|(name, paid)| (name.clone(), paid.answered.contains(&row) && !paid.taken_away))
            .collect();
        for (name, is_answered) in holders {
            if left(&name) {
                continue;
            }
            if !concluded(&name) && self.api.has(&name, self.now) {
                return broken(format!("row {row} is in {name}, which nobody left, and asked"));
            }
            if is_answered {
                return broken(format!("row {row} is answered in {name}, and asked again"));
            }
        }
        Ok(())
    }

    /// Takes note of rescues that begin when nothing is in their way any more.
    pub fn note_rescues(&mut self, saved: &[Change]) {
        for change in saved {
            let Change::Head(head) = change else { continue };
            let promise = head.state.plan().and_then(|plan| plan.promise.as_ref());
            if promise.is_none_or(|promise| promise.rescue.is_none())
                || self.rescues.contains_key(&head.id)
            {
                continue;
            }
            let is_doubtful = |chunk: &Chunk| {
                matches!(
                    chunk.state,
                    ChunkState::Creating { .. }
                        | ChunkState::Uncertain { .. }
                        | ChunkState::Stuck { .. }
                )
            };
            let job = self.engine.job(head.id);
            let is_clear = job.is_some_and(|job| !job.chunks.values().any(is_doubtful));
            // The last bad weather may outlast the faults.
            let is_fair = self.weather.until == Millis(u64::MAX);
            let is_calm = is_fair && self.now >= self.faults_until.plus(HOUR_MS) && self.ahead == 0;
            self.rescues.insert(head.id, is_clear && is_calm);
        }
    }

    /// A job is delivered: in time, if its rescue had nothing in its way.
    pub fn check_in_time(&mut self, job: &Job) -> Step {
        let Some(by) = job.head.queue.moments.deliver_by else { return Ok(()) };
        self.wanted.insert(job.head.id, self.clock() <= by);
        let waited = self.account.waited.contains(&job.head.id);
        let could_be_met = !waited && self.rescues.get(&job.head.id) == Some(&true);
        match could_be_met && self.clock() > by {
            true => {
                Err(Halt::Violation(format!("{} is late although it could be met", job.head.id)))
            }
            false => Ok(()),
        }
    }
}

/// How often rows were asked and answered.
pub type Asked = BTreeMap<(JobId, u64), u32>;
