//! Prices and budgets of a world, and its own account of what every create may cost.
//!
//! The account is kept beside the engine and its records: an entry for each create from the moment
//! that it begins. It goes when the API has definitely refused it, and becomes what the results
//! took when they are here. Whatever dies meanwhile, at every create the sum stays within budget.

use std::collections::{BTreeMap, BTreeSet};

use gemini_batchd::engine::budget::Periods;
use gemini_batchd::engine::canary;
use gemini_batchd::engine::effect::{Effect, Which};
use gemini_batchd::engine::event::{Failure, Harvest, Outcome};
use gemini_batchd::engine::ids::{JobId, Millis};
use gemini_batchd::engine::job::{Chunk, ChunkState, Cost, Job, JobState, Tokens};
use gemini_batchd::engine::money::{Amount, Means, Price, Tier};
use gemini_batchd::engine::policy::Policy;
use gemini_batchd::store::JobStore;

use super::faults::{DAY_MS, Tamper};
use super::random::Random;
use super::world::{Halt, Step, World};

/// What each create may cost, by stamp, and the queue it is of.
#[derive(Debug, Default)]
pub struct Account {
    creates: BTreeMap<String, (Cost, String)>,
    /// Jobs that ever waited for money, for room in a queue, or, after a bad canary, for a person: no promise holds for them.
    pub waited: BTreeSet<JobId>,
}

/// What may be spent and enqueued in a world, and how many tokens its API lets into a queue.
pub fn draw(seed: u64) -> (Means, u64) {
    // Numbers of their own, so that the rest of the world does not change with them.
    let mut random = Random::new(seed ^ 0x006d_6f6e_6579);
    let mut some = |choices: &[u64]| {
        let lines = random.pick(choices);
        (lines > 0).then_some(Amount(lines * LINE))
    };
    let night = some(&[0, 0, 20, 60]);
    let month = some(&[0, 0, 0, 150]);
    let queue = some(&[0, 0, 30]);
    let is_priced = night.is_some() || month.is_some() || queue.is_some();
    let models = ["gemini-2.5-flash", "gemini-0-flash"];
    let prices = models.iter().filter(|_| is_priced).map(|model| ((*model).to_owned(), PRICE));
    let means = Means {
        prices: prices.collect(),
        night,
        month,
        queues: queue.map(|amount| ("a".to_owned(), amount)).into_iter().collect(),
        tokens: random.pick(&[0, 0, 500]),
        halved_above: 100,
        ..Means::default()
    };
    (means, random.pick(&[0, 0, 700, 3000]))
}

/// What an answer took: some more than anybody would think, most less.
pub fn tokens_of(row: u64) -> Tokens {
    let output = if row.is_multiple_of(11) { 4_000 } else { 100 + row * 37 % 900 };
    Tokens { output, total: output, ..Tokens::default() }
}

/// The night and the month of a moment here: they last a day, and ten.
pub fn periods(at: Millis) -> Periods {
    let begin = |span: u64| Millis(at.0 - at.0 % span);
    let (night, month) = (begin(DAY_MS), begin(10 * DAY_MS));
    Periods { night, night_end: night.plus(DAY_MS), month, month_end: month.plus(10 * DAY_MS) }
}

impl World {
    /// The policy as the engine gets it.
    pub fn policy_in_force(&self) -> Policy {
        let mut policy = self.policy.clone();
        if self.tamper == Tamper::Overspend {
            let Means { night, month, queues, .. } = &mut policy.means;
            (*night, *month) = (None, None);
            queues.clear();
        }
        policy
    }

    /// What the store keeps beside jobs, as the engine gets it.
    pub fn saved_notes(&self) -> BTreeMap<String, String> {
        match self.tamper {
            Tamper::ForgetSpending => BTreeMap::new(),
            _ => self.store.notes().expect("the store opens"),
        }
    }

    /// The tampering of [`Tamper::ForgetSpending`].
    pub fn forget_spending(&self, job: &mut Job) {
        if self.tamper != Tamper::ForgetSpending {
            return;
        }
        for chunk in job.chunks.values_mut() {
            chunk.purse = None;
            chunk.batches.iter_mut().for_each(|batch| batch.cost = None);
        }
    }

    /// The engine is told when it is another night by its clock.
    pub fn look_at_the_calendar(&mut self) -> Step {
        let waits = |job: &&Job| {
            let is_stopped = canary::is_stopped(job);
            is_stopped || self.engine.waits_for_means(job).is_some() || self.is_short(job)
        };
        let waiting: Vec<JobId> =
            self.engine.unfinished().filter(waits).map(|job| job.head.id).collect();
        self.account.waited.extend(waiting);
        let now = self.clock();
        if self.engine.periods().hold(now) {
            return Ok(());
        }
        self.tell(gemini_batchd::engine::Event::Periods(periods(now)))
    }

    /// When the night is over, if anybody waits for that; in the end, people decide at once.
    pub fn end_of_the_night(&self) -> Option<Millis> {
        let end = self.engine.periods().night_end.0.saturating_add_signed(-self.ahead);
        let waits = self.is_faulty() && self.engine.unfinished().any(|job| self.is_short(job));
        waits.then(|| Millis(end).max(self.now))
    }

    fn is_short(&self, job: &Job) -> bool {
        match &job.head.state {
            JobState::Held(refusal) => refusal.reason == "budget",
            _ => self.engine.waits_for_means(job).is_some_and(|why| why.contains("budget")),
        }
    }

    /// When nothing else happens, somebody lets what waits for money go over its budget, or gives it
    /// up: `false` if nothing does.
    pub fn let_money_go(&mut self) -> Step<bool> {
        let short = self.engine.unfinished().find(|job| self.is_short(job));
        let Some((id, is_held)) = short.map(|job| (job.head.id, job.is_over())) else {
            return Ok(false);
        };
        let now = self.clock();
        let turn = match !is_held && self.random.chance(300) {
            true => self.engine.cancel(id, now),
            false => self.engine.release(id, now),
        };
        self.told.on_hold.remove(&id);
        self.note(format!("somebody decides about the money for {id}"));
        self.consume(turn.expect("what waits for money can be cancelled or released"))?;
        Ok(true)
    }

    /// Somebody raises the budgets.
    pub fn raise_budgets(&mut self) -> Step {
        let Means { night, month, queues, .. } = &mut self.policy.means;
        for budget in [night, month].into_iter().flatten().chain(queues.values_mut()) {
            *budget = budget.plus(Amount(10 * LINE));
        }
        self.note("the budgets are raised".to_owned());
        let turn = self.engine.adopt(self.policy_in_force(), self.clock());
        self.consume(turn)
    }

    /// A create begins: it is written down, and must be within every budget and the queue.
    pub fn check_means(&mut self, effect: &Effect) -> Step {
        let Effect::Create { which, .. } = effect else { return Ok(()) };
        let jobs = self.store.load().map_err(|error| Halt::Violation(error.to_string()))?;
        let Some(job) = jobs.iter().find(|job| job.head.id == which.job) else { return Ok(()) };
        self.check_queue(job, which, &jobs)?;
        let held = job.chunks.get(&which.chunk).and_then(|chunk| chunk.purse.as_ref()?.held);
        if self.policy.means.prices.is_empty() {
            return Ok(());
        }
        let stamp = which.stamp().0;
        let Some(held) = held else {
            return match self.tamper {
                Tamper::ActBeforeSave | Tamper::SaveWithoutSync => Ok(()),
                _ => Err(Halt::Violation(format!("{stamp} begins with nothing set aside"))),
            };
        };
        self.account.creates.insert(stamp.clone(), (held, job.head.queue.name.clone()));
        if job.head.funds.as_ref().is_some_and(|funds| funds.over) {
            return Ok(());
        }
        let periods = periods(self.clock());
        let means = &self.policy.means;
        let of_queue = means.queues.get(&job.head.queue.name);
        let budgets = [
            (means.night, periods.night, None),
            (means.month, periods.month, None),
            (of_queue.copied(), periods.night, Some(job.head.queue.name.as_str())),
        ];
        for (limit, from, queue) in budgets {
            let Some(limit) = limit else { continue };
            let all = self.account.creates.values();
            let counts = |(cost, of): &&(Cost, String)| {
                cost.at >= from && queue.is_none_or(|queue| queue == of)
            };
            let sum = all.filter(counts).fold(Amount(0), |sum, (cost, _)| sum.plus(cost.amount));
            if sum > limit {
                let problem = format!("{stamp} is over the budget: {sum} of {limit} in {queue:?}");
                return Err(Halt::Violation(problem));
            }
        }
        Ok(())
    }

    /// No more tokens are enqueued than configured, but for a tenth that is kept for small jobs,
    /// and for what goes alone: each of small and other jobs may have one chunk in the queue,
    /// whatever else is there.
    fn check_queue(&self, job: &Job, which: &Which, jobs: &[Job]) -> Step {
        let limit = self.policy.means.tokens;
        if limit == 0 || self.tamper != Tamper::None {
            return Ok(());
        }
        let tokens = |chunk: &Chunk| chunk.density.unwrap_or_default().prompt(chunk.rest.bytes());
        let is_small = |job: &Job| job.head.source.bytes <= 1 << 20;
        // Of the jobs of its size, and of others. All that was decided is there, also what was
        // decided after this one and before it begins.
        let (mut same, mut others) = (Vec::new(), Vec::new());
        let counts = |of: &&Job| !of.is_over() && of.head.queue.model == job.head.queue.model;
        for of in jobs.iter().filter(counts) {
            let kin = if is_small(of) == is_small(job) { &mut same } else { &mut others };
            kin.extend(of.chunks.values().filter(|chunk| is_enqueued(chunk)).map(tokens));
        }
        let sum = |of: &[u64]| of.iter().sum::<u64>();
        let most = limit + limit / 10;
        let counted = if others.len() > 1 { sum(&same) + sum(&others) } else { sum(&same) };
        match same.len() <= 1 || counted <= most {
            true => Ok(()),
            false => {
                let stamp = which.stamp().0;
                Err(Halt::Violation(format!("{stamp}: {same:?} and {others:?} tokens of {limit}")))
            }
        }
    }

    /// A create has come to an end of which somebody is told.
    pub fn account_create(&mut self, which: &Which, done: &Result<Outcome, Failure>) {
        let refused = match done {
            Ok(Outcome::Refused { .. }) => true,
            Ok(_) => false,
            Err(
                Failure::Transient(_)
                | Failure::RateLimited { .. }
                | Failure::Denied(_)
                | Failure::Barred(_)
                | Failure::Rejected(_)
                | Failure::Local(_),
            ) => true,
            Err(_) => false,
        };
        if refused {
            self.account.creates.remove(&which.stamp().0);
        }
    }

    /// Results were taken in.
    pub fn account_results(&mut self, which: &Which, harvest: &Harvest) {
        if let Some((cost, _)) = self.account.creates.get_mut(&which.stamp().0) {
            cost.amount = PRICE.cost(harvest.tokens, harvest.answered, Tier::Batch);
        }
    }

    /// Whether a file may lie in `held/` for ever: its job was forgotten there.
    pub fn is_given_up(&self, number: u64) -> bool {
        let is_of = |id: &JobId| self.origins.get(id) == Some(&number);
        self.disk.held.contains(&number) && self.told.forgotten.keys().any(is_of)
    }
}

fn is_enqueued(chunk: &Chunk) -> bool {
    matches!(
        chunk.state,
        ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Polling(_)
    )
}

/// What every model costs.
const PRICE: Price =
    Price { input: 0, output: 2_000_000, cached: 0, image: None, batch_factor: 500_000 };
/// What is set aside for a line of which nothing is known.
const LINE: u64 = 1_500_000;
