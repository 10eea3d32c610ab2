//! What is remembered of complete jobs for people who plan: what each day brought, and how long
//! batches took lately.
//!
//! After a restart it is counted again from the jobs whose records are kept.

use std::collections::{BTreeMap, VecDeque};

use super::batch::RemoteState;
use super::budget;
use super::estimate::Habit;
use super::ids::Millis;
use super::job::{Delivery, Job};
use super::money::Amount;
use super::tally::Tokens;

/// What complete jobs tell of the past.
#[derive(Debug, Default)]
pub struct History {
    /// By days since 1970, UTC.
    days: BTreeMap<u32, Delivered>,
    /// The same of the latest days by spans of five minutes since 1970: nights begin and end where
    /// people live.
    spells: BTreeMap<u32, Delivered>,
    /// How long the latest batches took, by model, milliseconds; the newest last.
    spans: BTreeMap<Box<str>, VecDeque<u64>>,
    /// What was delivered since the start, by model.
    since_start: BTreeMap<Box<str>, Delivered>,
    /// What lines took, by model and queue, and by model with an empty queue.
    used: BTreeMap<(Box<str>, Box<str>), Used>,
}

/// What lines took of which it is known.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    lines: u64,
    /// Tokens of their answers, with thinking.
    output: u64,
    /// Prompt tokens as they were counted, and as they had been estimated.
    prompt: u64,
    estimated: u64,
}

/// What came of some jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// How many.
    pub jobs: u64,
    /// Their answered lines.
    pub answered: u64,
    /// Their failed lines.
    pub failed: u64,
    /// Tokens of their answers.
    pub tokens: Tokens,
    /// What they cost, as far as their models had a price.
    pub cost: Amount,
}

impl History {
    /// Takes in a complete job that was read from its record.
    pub fn recall(&mut self, job: &Job, delivery: &Delivery) {
        let day = History::day_of(delivery.delivered);
        self.days.entry(day).or_default().add(job, delivery);
        self.learn(job, delivery);
        if self.days.len() > DAYS_MAX {
            self.days.pop_first();
        }
        self.spells.entry(History::spell_of(delivery.delivered)).or_default().add(job, delivery);
        if self.spells.len() > SPELLS_MAX {
            self.spells.pop_first();
        }
        let model = job.head.queue.model.as_str();
        if !self.spans.contains_key(model) && self.spans.len() >= MODELS_MAX {
            return;
        }
        let batches = job.chunks.values().flat_map(|chunk| &chunk.batches);
        let spans = batches
            .filter(|batch| batch.state == RemoteState::Succeeded)
            .map(|batch| batch.ended.since(batch.created));
        for span in spans {
            let known = self.spans.entry(model.into()).or_default();
            known.push_back(span);
            if known.len() > SPANS_MAX {
                known.pop_front();
            }
        }
    }

    /// Takes in a job that has just become complete.
    pub(super) fn note(&mut self, job: &Job, delivery: &Delivery) {
        self.recall(job, delivery);
        let model = job.head.queue.model.as_str();
        let is_new = !self.since_start.contains_key(model);
        let model = if is_new && self.since_start.len() >= MODELS_MAX { OTHER } else { model };
        self.since_start.entry(model.into()).or_default().add(job, delivery);
    }

    /// Takes in what the lines of a complete job took.
    fn learn(&mut self, job: &Job, delivery: &Delivery) {
        let (tokens, lines) = (delivery.tally.tokens, delivery.tally.answered);
        if lines == 0 || tokens.total == 0 {
            return;
        }
        let mut estimated = 0_u64;
        for chunk in job.chunks.values() {
            let density = chunk.density.unwrap_or_default();
            for batch in chunk.batches.iter().filter(|batch| batch.lines > 0) {
                let all = u128::from(density.prompt(batch.bytes)) * u128::from(batch.answered);
                let answered = u64::try_from(all / u128::from(batch.lines)).unwrap_or(u64::MAX);
                estimated = estimated.saturating_add(answered);
            }
        }
        let output = tokens.output.saturating_add(tokens.thinking);
        // Without an estimate the prompts tell nothing.
        let prompt = if estimated > 0 { tokens.prompt } else { 0 };
        let used = Used { lines, output, prompt, estimated };
        let queue = &job.head.queue;
        for name in [queue.name.as_str(), ""] {
            let key = (queue.model.as_str().into(), name.into());
            if self.used.contains_key(&key) || self.used.len() < 2 * MODELS_MAX {
                self.used.entry(key).or_default().add(used);
            }
        }
    }

    /// What lines of a model took lately: those of a queue, or else those of all.
    pub fn habit(&self, model: &str, queue: &str) -> Option<Habit> {
        let of = |queue: &str| self.used.get(&(model.into(), queue.into()));
        of(queue).or_else(|| of("")).map(Used::habit)
    }

    /// The day of a moment: days since 1970, UTC.
    pub fn day_of(at: Millis) -> u32 {
        u32::try_from(at.0 / DAY_MS).unwrap_or(u32::MAX)
    }

    /// What was delivered on a day.
    pub fn day(&self, day: u32) -> Delivered {
        self.days.get(&day).copied().unwrap_or_default()
    }

    /// What was delivered from one moment on and before another, both to five minutes, within the
    /// last days.
    pub fn between(&self, from: Millis, to: Millis) -> Delivered {
        let mut all = Delivered::default();
        for (_, some) in self.spells.range(History::spell_of(from)..History::spell_of(to)) {
            all.jobs += some.jobs;
            all.answered = all.answered.saturating_add(some.answered);
            all.failed = all.failed.saturating_add(some.failed);
            all.tokens.add(some.tokens);
        }
        all
    }

    fn spell_of(at: Millis) -> u32 {
        u32::try_from(at.0 / SPELL_MS).unwrap_or(u32::MAX)
    }

    /// How long batches of a model took lately: the median, milliseconds.
    pub fn typical_ms(&self, model: &str) -> Option<u64> {
        let mut spans: Vec<u64> = self.spans.get(model)?.iter().copied().collect();
        spans.sort_unstable();
        spans.get(spans.len() / 2).copied()
    }

    /// The models of which it is known how long their batches took; a hundred at most.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.spans.keys().map(Box::as_ref)
    }

    /// What was delivered since the start, by model; those beyond a hundred are `other`.
    pub fn since_start(&self) -> impl Iterator<Item = (&str, Delivered)> {
        self.since_start.iter().map(|(model, delivered)| (model.as_ref(), *delivered))
    }
}

impl Used {
    fn add(&mut self, more: Used) {
        // What was long ago counts less and less.
        while self.lines > LINES_LEARNED {
            let Used { lines, output, prompt, estimated } = *self;
            *self = Used {
                lines: lines / 2,
                output: output / 2,
                prompt: prompt / 2,
                estimated: estimated / 2,
            };
        }
        self.lines = self.lines.saturating_add(more.lines);
        self.output = self.output.saturating_add(more.output);
        self.prompt = self.prompt.saturating_add(more.prompt);
        self.estimated = self.estimated.saturating_add(more.estimated);
    }

    fn habit(&self) -> Habit {
        let prompt = match self.estimated {
            0 => 1000,
            estimated => {
                let part = u128::from(self.prompt) * 1000 / u128::from(estimated);
                u64::try_from(part).unwrap_or(u64::MAX).clamp(200, 5000)
            }
        };
        Habit { output: self.output.div_ceil(self.lines.max(1)), prompt }
    }
}

impl Delivered {
    fn add(&mut self, job: &Job, delivery: &Delivery) {
        let tally = &delivery.tally;
        self.jobs += 1;
        self.answered = self.answered.saturating_add(tally.answered);
        self.failed = self.failed.saturating_add(tally.failed);
        self.tokens.add(tally.tokens);
        self.cost = self.cost.plus(budget::spent_for(job).0);
    }
}

/// Batches of a model that are remembered.
const SPANS_MAX: usize = 50;
/// Models that are remembered.
const MODELS_MAX: usize = 100;
/// Days that are remembered.
const DAYS_MAX: usize = 400;
/// Spans of time in which something was delivered that are remembered: those of nine days at least.
const SPELLS_MAX: usize = 9 * 288;
const SPELL_MS: u64 = 300_000;
/// Stands for the models beyond those that are remembered.
const OTHER: &str = "other";
const DAY_MS: u64 = 86_400_000;
/// Lines after which those before count half.
const LINES_LEARNED: u64 = 100_000;
