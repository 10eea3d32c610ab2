//! What is remembered of complete jobs for people who plan: what each day brought, and how long
//! batches took lately.
//!
//! After a restart it is counted again from the jobs whose records are kept.

use std::collections::{BTreeMap, VecDeque};

use super::batch::RemoteState;
use super::ids::Millis;
use super::job::{Delivery, Job};
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
}

impl History {
    /// Takes in a complete job that was read from its record.
    pub fn recall(&mut self, job: &Job, delivery: &Delivery) {
        let day = History::day_of(delivery.delivered);
        self.days.entry(day).or_default().add(delivery);
        if self.days.len() > DAYS_MAX {
            self.days.pop_first();
        }
        self.spells.entry(History::spell_of(delivery.delivered)).or_default().add(delivery);
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
        self.since_start.entry(model.into()).or_default().add(delivery);
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

impl Delivered {
    fn add(&mut self, delivery: &Delivery) {
        let tally = &delivery.tally;
        self.jobs += 1;
        self.answered = self.answered.saturating_add(tally.answered);
        self.failed = self.failed.saturating_add(tally.failed);
        self.tokens.add(tally.tokens);
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
