//! Jobs whose chunks wait for money, or for room in the API's queue, and what people are told.
//!
//! They leave the lanes, so that they do not stand before others that could go on, and come back
//! when there may be enough again. A file of which nothing was sent, and for which no budget will
//! do as it stands, moves to `held/` whole; it comes back by itself when one does. Of one that was
//! sent in part, people are told how much of it.

use std::collections::{BTreeMap, BTreeSet};

use super::budget::{Budget, Short, Standing};
use super::effect::{Change, Effect, Turn};
use super::ids::{ChunkNo, JobId, Millis};
use super::job::{Chunk, ChunkState, Head, Job, JobState, Refusal};
use super::keys::KeyNo;
use super::lanes::{Lane, Size, Unit};
use super::machine::{Engine, find};
use super::money::{Amount, Funds, Tier};
use super::steering::as_argument;

/// Jobs that wait for money or for room in the API's queue.
#[derive(Debug, Default)]
pub(super) struct Stalled {
    jobs: BTreeMap<JobId, (Unit, Why)>,
    /// Of these people have been told.
    told: BTreeSet<JobId>,
    /// Of these it is still to be decided what follows.
    fresh: BTreeSet<JobId>,
}

/// What a chunk waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// A budget does not allow it.
    Short(Short),
    /// The API's queue of its model is full.
    Queue,
}

impl Stalled {
    /// How many jobs.
    pub(super) fn count(&self) -> usize {
        self.jobs.len()
    }

    /// Whether a job is among them.
    pub(super) fn has(&self, id: JobId) -> bool {
        self.jobs.contains_key(&id)
    }

    /// A job does not send anything any more.
    pub(super) fn forget(&mut self, id: JobId) {
        self.jobs.remove(&id);
        self.told.remove(&id);
        self.fresh.remove(&id);
    }

    /// A note about a job is gone.
    pub(super) fn tell_again(&mut self, id: JobId) {
        self.told.remove(&id);
    }

    /// A note about a job was written; answers whether it was one of ours.
    pub(super) fn note_told(&mut self, id: JobId) -> bool {
        self.has(id) && self.told.insert(id)
    }
}

impl Engine {
    /// What keeps a chunk that is ready from being sent, if it is money or room in the queue.
    pub(super) fn why_stalled(&self, unit: Unit, size: Size, key: KeyNo) -> Option<Why> {
        let (job, chunk) = find(&self.jobs, unit)?;
        let is_paid = chunk.purse.as_ref().is_some_and(|purse| purse.held.is_some());
        let short = match is_paid {
            // While it was uploaded, others may have taken more than was set aside for them, or
            // were let go over the budget.
            true => self.short_of(&job.head, Some(Amount::default()), true),
            false => self.short_of(&job.head, self.need_of(&job.head, chunk), true),
        };
        // A file is not begun before there is enough for all of it.
        let most = || job.head.funds.as_ref().map(|funds| funds.most);
        let short = match short {
            None if !is_paid && self.has_budget(&job.head) && is_untouched(job) => {
                self.short_of(&job.head, most(), true)
            }
            short => short,
        };
        let full = || (!self.has_room_for(unit, size, key)).then_some(Why::Queue);
        short.map(Why::Short).or_else(full)
    }

    /// What keeps lines of a chunk from being asked one by one, if it is money.
    pub(super) fn rescue_is_short(&self, unit: Unit, now: Millis) -> Option<Why> {
        let (job, chunk) = find(&self.jobs, unit)?;
        // What was begun has its money.
        let is_begun = matches!(chunk.state, ChunkState::Rescuing { .. });
        let tier = self.rescue_tier(job, now).filter(|_| !is_begun)?;
        let need = self.need_for(&job.head, chunk, tier.into());
        self.short_of(&job.head, need, true).map(Why::Short)
    }

    /// Whether the batch of a chunk that is uploaded may be created now.
    pub(super) fn may_create(&self, unit: Unit, key: KeyNo) -> bool {
        self.why_stalled(unit, self.size(unit.job), key).is_none()
    }

    /// Takes a job out of the lanes, as far as it has not been sent.
    pub(super) fn stall(&mut self, unit: Unit, why: Why) {
        if self.stalled.jobs.insert(unit.job, (unit, why)).is_none() {
            self.stalled.fresh.insert(unit.job);
            self.refile_job(unit.job);
        }
    }

    /// When there may be more money or room than before, lets go on what can.
    pub(super) fn look_at_stalled(&mut self, now: Millis, turn: &mut Turn) {
        self.forget_ceilings(now);
        let freed = std::mem::take(&mut self.spending.freed);
        if !(freed | std::mem::take(&mut self.quota.freed)) {
            return;
        }
        let stalled: Vec<(JobId, Unit)> =
            self.stalled.jobs.iter().map(|(id, (unit, _))| (*id, *unit)).collect();
        for (id, unit) in stalled {
            match self.still_stalled(id, unit) {
                Some(why) => {
                    self.stalled.fresh.insert(id);
                    self.stalled.jobs.insert(id, (unit, why));
                }
                None => self.let_go_on(id, turn),
            }
        }
        if freed {
            self.fetch_back_what_fits(turn);
        }
    }

    fn still_stalled(&self, id: JobId, unit: Unit) -> Option<Why> {
        let (job, chunk) = find(&self.jobs, unit)?;
        let waits = matches!(chunk.state, ChunkState::Waiting { .. });
        let key = self.key_of(job, chunk).filter(|_| waits && !self.is_cancelled(id))?;
        if self.is_rescuing(job) {
            return self.rescue_is_short(unit, self.latest);
        }
        self.why_stalled(unit, self.size(id), key)
    }

    fn let_go_on(&mut self, id: JobId, turn: &mut Turn) {
        let was_told = self.stalled.told.contains(&id);
        self.stalled.forget(id);
        if was_told && let Some(job) = self.jobs.get(&id) {
            let head = Box::new(job.head.clone());
            self.issue(Lane::Move, Vec::new(), Effect::Withdraw { head }, None, turn);
        }
        self.refile_job(id);
    }

    /// Held files for which the budgets have become enough are claimed again.
    fn fetch_back_what_fits(&mut self, turn: &mut Turn) {
        let wants = |job: &&Job| {
            matches!(job.head.state, JobState::Held(_)) && waits_for_budget(&job.head.state)
        };
        let held: Vec<JobId> = self.jobs.values().filter(wants).map(|job| job.head.id).collect();
        if held.is_empty() {
            return;
        }
        // Those that are on their way back have nothing set aside yet.
        let returns =
            |job: &&Job| matches!(job.head.state, JobState::Claiming | JobState::Planning);
        let returning =
            self.jobs.values().filter(returns).filter_map(|job| job.head.funds.as_ref());
        let mut coming = returning.fold(Amount::default(), |sum, funds| sum.plus(funds.most));
        for id in held {
            let Some(head) = self.jobs.get(&id).map(|job| &job.head) else { continue };
            let most = head.funds.as_ref().map(|funds| funds.most);
            let need = self.price_of(head).map(|_| most.unwrap_or_default());
            let is_short = match head.queue.budget {
                // Its own budget has nothing to do with the others.
                Some(limit) if need.is_some_and(|need| need > limit) => true,
                Some(_) | None => {
                    self.short_of(head, need.map(|need| need.plus(coming)), true).is_some()
                }
            };
            if !is_short {
                coming = coming.plus(most.unwrap_or_default());
                self.fetch_back(id, turn);
            }
        }
    }

    /// Decides what follows for jobs that have come to wait: files of which nothing was sent, and
    /// that no budget will do for as it stands, are held; of others people are told.
    pub(super) fn judge_stalled(&mut self, now: Millis, turn: &mut Turn) {
        let fresh = std::mem::take(&mut self.stalled.fresh);
        if fresh.is_empty() {
            return;
        }
        for id in fresh {
            let Some((_, Why::Short(_))) = self.stalled.jobs.get(&id) else { continue };
            let Some(job) = self.jobs.get(&id) else { continue };
            let rows = job.head.state.plan().map_or(0, |plan| plan.rows);
            if !is_untouched(job) {
                self.refile(Unit { job: id, chunk: None });
            } else if let Some(refusal) = self.too_dear(id, rows) {
                self.hold_whole(id, refusal, turn);
            }
        }
        self.lanes.ripen(now);
        while let Some((unit, queue)) = self.take(Lane::Move, now) {
            self.begin(unit, queue, now, turn);
        }
    }

    /// A file of which nothing was sent moves to `held/`; when it comes back it is read anew.
    fn hold_whole(&mut self, id: JobId, refusal: Refusal, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let chunks: Vec<ChunkNo> = std::mem::take(&mut job.chunks).into_keys().collect();
        turn.save.push(Change::Shed(id));
        for no in chunks {
            self.refile(Unit { job: id, chunk: Some(no) });
        }
        let content = self.jobs.get(&id).and_then(|job| job.head.state.plan());
        if let Some(sha256) = content.map(|plan| plan.sha256.as_str().into()) {
            self.contents.remove(&(sha256, id));
        }
        self.advance(id, JobState::Holding(refusal), turn);
    }

    /// Takes note of what a job that is being planned will cost; the caller saves its head.
    pub(super) fn fund(&mut self, id: JobId, chunks: &[Chunk]) {
        let Some(job) = self.jobs.get(&id) else { return };
        let funds = self.funds_for(&job.head, chunks.iter());
        if let Some(job) = self.jobs.get_mut(&id) {
            job.head.funds = funds;
        }
    }

    /// Why a file of which nothing was sent is not begun: as a whole it costs more than a budget
    /// allows, whatever comes back of what is set aside for others.
    pub(super) fn too_dear(&self, id: JobId, rows: u64) -> Option<Refusal> {
        let head = &self.jobs.get(&id)?.head;
        let need = self.price_of(head).and(head.funds.as_ref()).map(|funds| funds.most);
        let short = self.short_of(head, need, false)?;
        let message =
            format!("none of its {rows} lines was sent: {}", self.says(head, need, &short));
        Some(refusal(message, remedy(head, &short)))
    }

    /// A person lets a job go over its budgets. Answers whether it waited for that.
    pub(super) fn release_stalled(&mut self, id: JobId, turn: &mut Turn) -> bool {
        let is_short = self.is_short(id);
        if is_short {
            self.allow_over(id, turn);
            self.warn(id, turn, "an operator let it go over its budget".to_owned());
            self.let_go_on(id, turn);
        }
        is_short
    }

    /// Saves that a job may go over every budget.
    pub(super) fn allow_over(&mut self, id: JobId, turn: &mut Turn) {
        let currency = self.policy.means.currency.clone();
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let funds = Funds { currency, ..Funds::default() };
        job.head.funds.get_or_insert(Box::new(funds)).over = true;
        turn.save.push(Change::Head(Box::new(job.head.clone())));
    }

    /// Whether a job waits for money.
    pub(super) fn is_short(&self, id: JobId) -> bool {
        matches!(self.stalled.jobs.get(&id), Some((_, Why::Short(_))))
    }

    /// Whether people are still to be told that a job that was sent in part waits for money.
    pub(super) fn owes_note(&self, job: &Job) -> bool {
        let id = job.head.id;
        matches!(job.head.state, JobState::Active(_))
            && self.is_short(id)
            && !self.stalled.told.contains(&id)
            && !is_untouched(job)
    }

    /// What people are told of it.
    pub(super) fn note_of_stall(&self, job: &Job) -> Option<Effect> {
        let (unit, Why::Short(short)) = self.stalled.jobs.get(&job.head.id)? else { return None };
        let head = &job.head;
        let waiting =
            job.leaves().filter(|chunk| matches!(chunk.state, ChunkState::Waiting { .. }));
        let waiting: u64 = waiting.map(|chunk| chunk.rest.rows()).sum();
        let rows = head.state.plan().map_or(0, |plan| plan.rows);
        let asks = self.is_rescuing(job).then(|| self.rescue_tier(job, self.latest)).flatten();
        let tier = asks.map_or(Tier::Batch, Tier::from);
        let need = find(&self.jobs, *unit).and_then(|(_, chunk)| self.need_for(head, chunk, tier));
        let sent = rows.saturating_sub(waiting);
        let says = self.says(head, need, short);
        let message = format!("{sent} of {rows} lines are sent, {waiting} wait: {says}");
        let head = Box::new(head.clone());
        Some(Effect::Notify { refusal: refusal(message, remedy(&head, short)), head })
    }

    fn says(&self, head: &Head, need: Option<Amount>, short: &Short) -> String {
        let currency = &self.policy.means.currency;
        let model = &head.queue.model;
        match (short, need) {
            (Short::Of(standing), need) => {
                let Standing { limit, spent, held, .. } = standing;
                let (need, limit) = (need.unwrap_or_default(), limit.unwrap_or_default());
                let aside = match *held {
                    Amount(0) => String::new(),
                    held => format!(", {} are set aside for what is under way", held.told()),
                };
                format!(
                    "up to {} {currency} are needed, and of {}, {} {currency}, {} are spent{aside}",
                    need.told(),
                    told(&standing.budget),
                    limit.told(),
                    spent.told()
                )
            }
            (Short::NoPrice, _) => {
                format!("there is a budget, and no price for the model {model}")
            }
        }
    }

    /// What a job waits for, if it is money or room in the API's queue, in words.
    pub fn waits_for_means(&self, job: &Job) -> Option<String> {
        let (_, why) = self.stalled.jobs.get(&job.head.id)?;
        Some(match why {
            Why::Queue => format!("waits for room in the queue of {}", job.head.queue.model),
            Why::Short(Short::NoPrice) => format!("waits for a price of {}", job.head.queue.model),
            Why::Short(short @ Short::Of(standing)) => {
                let (budget, remedy) = (told(&standing.budget), remedy(&job.head, short));
                format!("waits for {budget}: {remedy}")
            }
        })
    }
}

/// Whether nothing of a job was ever sent.
fn is_untouched(job: &Job) -> bool {
    let is_fresh = |chunk: &Chunk| {
        let is_first = chunk.attempt.0 == 1 && chunk.tries == 0 && chunk.batches.is_empty();
        is_first && chunk.purse.is_none() && matches!(chunk.state, ChunkState::Waiting { .. })
    };
    job.chunks.values().all(is_fresh)
}

fn told(budget: &Budget) -> String {
    match budget {
        Budget::Job => "its own budget".to_owned(),
        Budget::Queue(name) => format!("the night's budget of the queue {}", as_argument(name)),
        Budget::Night => "the night's budget".to_owned(),
        Budget::Month => "the month's budget".to_owned(),
    }
}

/// What to do about a budget that is not enough.
fn remedy(head: &Head, short: &Short) -> String {
    let Head { id, queue, .. } = head;
    let raise = match short {
        Short::NoPrice => {
            let model = &queue.model;
            return format!(
                "add [price.{model:?}] to the configuration and reload; to send it without counting: \
                 gemini-batchd release {id}"
            );
        }
        Short::Of(standing) => match &standing.budget {
            Budget::Job => {
                let name = &queue.name;
                format!(
                    "raise budget under [queue.{name:?}], or beside the file, and drop it again"
                )
            }
            Budget::Queue(name) => {
                format!("raise [budgets.queue] {name:?} and reload, or wait for noon")
            }
            Budget::Night => "raise [budgets] night and reload, or wait for noon".to_owned(),
            Budget::Month => {
                "raise [budgets] month and reload, or wait for the next month".to_owned()
            }
        },
    };
    format!("to let it go over: gemini-batchd release {id}; else {raise}")
}

fn refusal(message: String, remedy: String) -> Refusal {
    Refusal { reason: BUDGET.to_owned(), message, remedy, line: None, column: None }
}

/// Whether a file is held, or about to be, until a budget is enough for it.
pub(super) fn waits_for_budget(state: &JobState) -> bool {
    matches!(state, JobState::Holding(why) | JobState::Held(why) if why.reason == BUDGET)
}

/// The reason of a file that is held because a budget is not enough.
pub(super) const BUDGET: &str = "budget";
