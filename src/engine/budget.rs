//! What may be spent, and what is gone of it.
//!
//! Before a batch is created, so much is set aside for it as it will hardly exceed; that is saved
//! with the intent. When its results are here, what they took is counted instead. What nobody can
//! tell counts as set aside: results that can not be had, and creates that may have made a batch
//! which was never found. So at every create all that is spent and set aside, with its own part,
//! stays within every budget, but for those jobs of which a person has said that they may go over.
//!
//! What was set aside stands in the records of chunks. What was spent is kept in a note by quarters
//! of an hour, which changes in the same step as those records, so that it outlives jobs that are
//! forgotten. It belongs to the night and the month in which it was set aside. A moment still to
//! come, by a clock that was set back, counts for now.

use super::effect::{Change, Turn};
use super::estimate::Forecast;
use super::event::{Harvest, Rescued};
use super::ids::Millis;
use super::job::{Chunk, ChunkState, Doubt, Head, Job};
use super::lanes::Unit;
use super::machine::{Engine, find, find_mut};
use super::money::{Amount, Cost, Funds, Price, Tier};
use super::spending::costs;

/// The night and the month that it is: the shell knows the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Periods {
    /// The noon at which the night began.
    pub night: Millis,
    /// The noon at which it ends.
    pub night_end: Millis,
    /// When the month began.
    pub month: Millis,
    /// When it ends.
    pub month_end: Millis,
}

impl Periods {
    /// Whether it is this night and this month at a moment.
    pub fn hold(&self, at: Millis) -> bool {
        (self.night..self.night_end).contains(&at) && (self.month..self.month_end).contains(&at)
    }
}

/// Whose money it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Budget {
    /// A single job's.
    Job,
    /// That of a queue, for a night.
    Queue(String),
    /// That of a night.
    Night,
    /// That of a month.
    Month,
}

/// A budget, and what is gone of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub budget: Budget,
    /// All of it; nothing, if there is no limit.
    pub limit: Option<Amount>,
    /// Spent.
    pub spent: Amount,
    /// Set aside for what is under way.
    pub held: Amount,
}

impl Standing {
    /// What is left.
    pub fn left(&self) -> Amount {
        self.limit.unwrap_or(Amount(u64::MAX)).minus(self.spent).minus(self.held)
    }
}

/// Why something can not be paid for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Short {
    /// Nobody knows what its model costs, and there is a budget.
    NoPrice,
    /// This is not enough for it.
    Of(Standing),
}

impl Engine {
    /// The night and the month that it is.
    pub fn periods(&self) -> Periods {
        self.spending.periods
    }

    pub(super) fn set_periods(&mut self, periods: Periods) {
        self.spending.periods = periods;
        self.spending.freed = true;
    }

    /// The budgets of all jobs together, and those of queues: what is spent and set aside.
    pub fn standings(&self) -> Vec<Standing> {
        let means = &self.policy.means;
        let mut all = vec![self.standing_of(Budget::Night), self.standing_of(Budget::Month)];
        let queues = means.queues.keys().map(|name| Budget::Queue(name.clone()));
        all.extend(queues.map(|budget| self.standing_of(budget)));
        all
    }

    fn standing_of(&self, budget: Budget) -> Standing {
        let (means, spending) = (&self.policy.means, &self.spending);
        let night = spending.periods.night;
        let (limit, (spent, held)) = match &budget {
            Budget::Job => (None, Default::default()),
            Budget::Queue(name) => {
                (means.queues.get(name).copied(), spending.since(night, Some(name)))
            }
            Budget::Night => (means.night, spending.since(night, None)),
            Budget::Month => (means.month, spending.since(spending.periods.month, None)),
        };
        Standing { budget, limit, spent, held }
    }

    /// What a job has cost so far, and what is set aside for it; `None` if nobody counts that.
    pub fn spent_for(&self, job: &Job) -> Option<(Amount, Amount)> {
        job.head.funds.as_ref()?;
        Some(spent_for(job))
    }

    /// Every budget that counts for a job.
    fn budgets_of(&self, head: &Head) -> impl Iterator<Item = Standing> {
        let means = &self.policy.means;
        let own = head.queue.budget.map(|limit| {
            let spent = self.spending.by_job.get(&head.id).copied().unwrap_or_default();
            Standing { budget: Budget::Job, limit: Some(limit), spent, held: Amount::default() }
        });
        let name = &head.queue.name;
        let queue = means.queues.contains_key(name).then(|| Budget::Queue(name.clone()));
        let night = means.night.is_some().then_some(Budget::Night);
        let month = means.month.is_some().then_some(Budget::Month);
        let shared = [queue, night, month].into_iter().flatten();
        own.into_iter().chain(shared.map(|budget| self.standing_of(budget)))
    }

    /// Whether any budget counts for a job.
    pub(super) fn has_budget(&self, head: &Head) -> bool {
        let means = &self.policy.means;
        head.queue.budget.is_some()
            || means.night.is_some()
            || means.month.is_some()
            || means.queues.contains_key(&head.queue.name)
    }

    /// Which budget does not allow that a job spends so much now, if any; `others` says whether
    /// what is set aside for others counts, of which some will come back.
    pub(super) fn short_of(
        &self,
        head: &Head,
        need: Option<Amount>,
        others: bool,
    ) -> Option<Short> {
        let over = head.funds.as_ref().is_some_and(|funds| funds.over);
        if over || !self.has_budget(head) {
            return None;
        }
        let Some(need) = need else { return Some(Short::NoPrice) };
        let is_short = |standing: &Standing| {
            let held = if others { standing.held } else { Amount::default() };
            let gone = standing.spent.plus(held).plus(need);
            standing.limit.is_some_and(|limit| gone > limit)
        };
        self.budgets_of(head).find(is_short).map(Short::Of)
    }

    /// What the model of a job costs.
    pub fn price_of(&self, head: &Head) -> Option<&Price> {
        self.policy.means.prices.get(&head.queue.model)
    }

    /// What the rows of a chunk will take.
    pub fn forecast(&self, head: &Head, chunk: &Chunk) -> Forecast {
        let queue = &head.queue;
        let habit = self.past.history().habit(&queue.model, &queue.name);
        Forecast::of(chunk.density.unwrap_or_default(), chunk.rest, queue.task, habit)
    }

    /// What an attempt of a chunk will hardly exceed; `None` if its model has no price.
    pub(super) fn need_of(&self, head: &Head, chunk: &Chunk) -> Option<Amount> {
        self.need_for(head, chunk, Tier::Batch)
    }

    /// The same for rows that are answered in another way.
    pub(super) fn need_for(&self, head: &Head, chunk: &Chunk, tier: Tier) -> Option<Amount> {
        self.price_of(head).map(|price| price.most(&self.forecast(head, chunk), tier))
    }

    /// What is known of the money for a job with these chunks, if its model has a price.
    pub(super) fn funds_for<'a>(
        &self,
        head: &Head,
        chunks: impl Iterator<Item = &'a Chunk>,
    ) -> Option<Box<Funds>> {
        let before = head.funds.as_deref().cloned().unwrap_or_default();
        let Some(price) = self.price_of(head) else {
            return head.funds.clone().filter(|funds| funds.over);
        };
        let sum = |(likely, most): (Amount, Amount), chunk: &Chunk| {
            let forecast = self.forecast(head, chunk);
            (likely.plus(price.likely(&forecast)), most.plus(price.most(&forecast, Tier::Batch)))
        };
        let (likely, most) = chunks.fold(Default::default(), sum);
        let currency = self.policy.means.currency.clone();
        Some(Box::new(Funds { likely, most, currency, ..before }))
    }

    /// Sets aside what an attempt will hardly exceed; the caller saves the chunk.
    pub(super) fn set_aside(&mut self, unit: Unit, now: Millis) {
        self.set_aside_for(unit, Tier::Batch, now);
    }

    /// The same for rows that are answered in another way.
    pub(super) fn set_aside_for(&mut self, unit: Unit, tier: Tier, now: Millis) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        if chunk.purse.as_ref().is_some_and(|purse| purse.held.is_some()) {
            return;
        }
        let Some(amount) = self.need_for(&job.head, chunk, tier) else { return };
        if let Some((_, chunk)) = find_mut(&mut self.jobs, unit) {
            chunk.purse.get_or_insert_default().held = Some(Cost { amount, at: now });
        }
    }

    /// The results of an attempt are here: what they took counts, not what was set aside.
    pub(super) fn settle_up(&mut self, unit: Unit, harvest: &Harvest) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        let held = chunk.purse.as_ref().and_then(|purse| purse.held);
        let (Some(held), Some(price)) = (held, self.price_of(&job.head)) else { return };
        let counted = harvest.answered.saturating_sub(harvest.uncounted);
        let told = price.cost(harvest.tokens, counted, Tier::Batch);
        // Answers that do not say what they took are taken to be as large as was expected.
        let untold = held.amount.part(harvest.uncounted.min(chunk.rest.rows()), chunk.rest.rows());
        if let Some((_, chunk)) = find_mut(&mut self.jobs, unit)
            && let Some(purse) = &mut chunk.purse
        {
            purse.held = Some(Cost { amount: told.plus(untold), ..held });
        }
    }

    /// Takes what is set aside for an attempt that is over as spent; the caller saves the chunk.
    pub(super) fn spend_held(&mut self, unit: Unit) -> Option<Cost> {
        let (head, chunk) = find_mut(&mut self.jobs, unit)?;
        let cost = chunk.purse.as_mut()?.held.take()?;
        tidy(chunk);
        self.spending.spend(&head.queue.name, cost);
        Some(cost)
    }

    /// Takes what lines that were asked one by one have cost, and may have cost, as spent; the caller
    /// saves the chunk.
    pub(super) fn spend_rescued(&mut self, unit: Unit, it: &Rescued, tier: impl Into<Tier>) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        let Some(held) = chunk.purse.as_ref().and_then(|purse| purse.held) else { return };
        let (harvest, rows) = (&it.harvest, chunk.rest.rows());
        let counted = harvest.answered.saturating_sub(harvest.uncounted);
        let price = self.price_of(&job.head);
        let told = price.map(|price| price.cost(harvest.tokens, counted, tier.into()));
        let untold = harvest.uncounted.saturating_add(it.uncertain).min(rows);
        let amount = match told {
            Some(told) => told.plus(held.amount.part(untold, rows)),
            None => held.amount,
        };
        self.spend_apart(unit, Cost { amount, ..held });
    }

    /// What is set aside for an attempt that nobody waits for any more counts as spent; the caller
    /// saves the chunk.
    pub(super) fn doubt_held(&mut self, unit: Unit) {
        let held = find(&self.jobs, unit).and_then(|(_, chunk)| chunk.purse.as_ref()?.held);
        if let Some(held) = held {
            self.spend_apart(unit, held);
        }
    }

    fn spend_apart(&mut self, unit: Unit, cost: Cost) {
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        if let Some(purse) = &mut chunk.purse {
            purse.held = None;
            purse.doubtful.push(cost);
        }
        self.spending.spend(&head.queue.name, cost);
    }

    /// A chunk has left a state: what was set aside for its attempt is free again, unless nobody
    /// knows whether that was paid for. The caller saves the chunk.
    pub(super) fn let_go(&mut self, unit: Unit, before: &ChunkState) {
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        let is_over = match &chunk.state {
            ChunkState::Waiting { .. } | ChunkState::Settled | ChunkState::Split { .. } => true,
            ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Polling(_)
            | ChunkState::Collecting { .. }
            | ChunkState::Rescuing { .. } => false,
        };
        let Some(purse) = chunk.purse.as_mut().filter(|_| is_over) else { return };
        if let Some(held) = purse.held.take()
            && is_in_doubt(before)
        {
            purse.doubtful.push(held);
            self.spending.spend(&head.queue.name, held);
        }
        tidy(chunk);
    }

    /// Keeps the count of what a chunk has of the money.
    pub(super) fn account_money(&mut self, unit: Unit) {
        let of = find(&self.jobs, unit).filter(|(job, _)| !job.is_over());
        self.spending.account(unit, of);
    }

    /// Saves what is spent, if that has changed.
    pub(super) fn note_spending(&mut self, turn: &mut Turn) {
        let value = self.spending.note(self.latest);
        turn.save.extend(value.map(|value| Change::Note { name: NOTE, value }));
    }
}

/// What a job has cost, and what is set aside for it.
pub fn spent_for(job: &Job) -> (Amount, Amount) {
    let chunks = || job.chunks.values();
    let spent = chunks().flat_map(costs).fold(Amount::default(), |sum, it| sum.plus(it.amount));
    let held = chunks().filter_map(|chunk| chunk.purse.as_ref()?.held);
    (spent, held.fold(Amount::default(), |sum, it| sum.plus(it.amount)))
}

fn tidy(chunk: &mut Chunk) {
    chunk.purse = chunk.purse.take().filter(|purse| **purse != Default::default());
}

/// Whether a create was sent, and nobody knows what came of it.
fn is_in_doubt(state: &ChunkState) -> bool {
    match state {
        ChunkState::Uncertain { doubt: Doubt::Lost | Doubt::Released, .. }
        | ChunkState::Stuck { .. } => true,
        ChunkState::Uncertain { doubt: Doubt::RateLimited, .. }
        | ChunkState::Waiting { .. }
        | ChunkState::Uploading { .. }
        | ChunkState::Creating { .. }
        | ChunkState::Polling(_)
        | ChunkState::Collecting { .. }
        | ChunkState::Rescuing { .. }
        | ChunkState::Settled
        | ChunkState::Split { .. } => false,
    }
}

/// The note that says what was spent, and when.
pub const NOTE: &str = "spent";
