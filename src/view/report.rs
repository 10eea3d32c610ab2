//! The morning report: what came of a night, and what waits for somebody.
//!
//! Made from records alone, so that the same records give the same report, before a restart and
//! after it. How it is told is written in `told.rs`, once for all renderers.

pub mod html;
pub mod markdown;
pub mod told;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::History;
use crate::engine::budget::spent_for;
use crate::engine::ids::{JobId, Millis};
use crate::engine::job::{Amount, Delivery, Job, JobState, Tokens};

use super::lists::TokensView;
use super::money::SpendingView;
use super::overview::needs_a_person;
use super::{JobView, VERSION, delivery, file_of, moment};

/// What happened in a span of time, and how things stand at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// The version of this interface: [`super::VERSION`].
    pub version: u32,
    /// The first moment it is about, RFC 3339.
    pub from: String,
    /// The moment it was made, RFC 3339; what is delivered from then on is in the next one.
    pub to: String,
    /// Files.
    pub files: ReportFiles,
    /// Lines of the files that were delivered.
    pub lines: ReportLines,
    /// Why lines failed, the most frequent reason first.
    pub failures: Vec<ReportFailure>,
    /// Tokens of the answers that were delivered.
    pub tokens: TokensView,
    /// What they cost, by currency, where their models had prices; of nights with more than a
    /// thousand jobs, that of the newest thousand.
    pub cost: BTreeMap<String, String>,
    /// How the budgets and the API's queues stand, where any is known.
    pub spending: Option<SpendingView>,
    /// Lines that did not come from batches alone.
    pub other: ReportOther,
    /// The seven days before, each of 24 hours, the oldest first.
    pub nights: Vec<Night>,
    /// The batch that took longest of those that ended.
    pub slowest: Option<SlowestBatch>,
    /// Deadlines that fell due, kept and missed.
    pub deadlines: ReportDeadlines,
    /// What needs a person, at most fifty jobs.
    pub attention: Vec<ReportJob>,
    /// How many there are of those.
    pub attention_total: u64,
    /// What is under way or waits for its time, at most fifty jobs.
    pub waiting: Vec<ReportJob>,
    /// How many there are of those.
    pub waiting_total: u64,
    /// Why nothing is sent, and what goes wrong, if so.
    pub trouble: Vec<String>,
}

/// Files, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportFiles {
    /// Taken out of the inbox.
    pub arrived: u64,
    /// Whose outputs were put into the outbox.
    pub delivered: u64,
    /// Of these, with every line answered.
    pub complete: u64,
    /// With some lines answered.
    pub partial: u64,
    /// With none.
    pub failed: u64,
    /// Stopped by a person.
    pub cancelled: u64,
    /// Taken, and refused whole; they lie in `failed/`.
    pub refused: u64,
}

/// Lines, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportLines {
    /// All.
    pub total: u64,
    /// With an answer.
    pub answered: u64,
    /// Without one.
    pub failed: u64,
    /// Of those with one, cut off.
    pub truncated: u64,
}

/// Lines that did not come from batches alone, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportOther {
    /// Answered before, and used again.
    pub reused: u64,
    /// Rescued through the flex tier.
    pub flex: u64,
    /// Rescued through the standard tier.
    pub standard: u64,
    /// Calls of which nobody knows whether they were answered, and paid for.
    pub uncertain: u64,
    /// Answers of batches to lines that had been rescued.
    pub wasted: u64,
}

/// A reason for which lines failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportFailure {
    /// The word for it, as in the errors file.
    pub reason: String,
    /// How many lines.
    pub lines: u64,
}

/// What 24 hours brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Night {
    /// From this moment on, RFC 3339.
    pub from: String,
    /// Before this one.
    pub to: String,
    /// Jobs delivered.
    pub jobs: u64,
    /// Their answered lines.
    pub answered: u64,
    /// Their failed lines.
    pub failed: u64,
    /// Tokens of their answers.
    pub tokens: u64,
}

/// A batch that took long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SlowestBatch {
    /// Its name at the API.
    pub batch: String,
    /// Its job.
    pub job: String,
    /// The job's file.
    pub file: String,
    /// The model.
    pub model: String,
    /// From its creation to its end, seconds.
    pub seconds: u64,
}

/// Deadlines that fell due.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportDeadlines {
    /// Kept.
    pub met: u64,
    /// How many were not.
    pub missed: u64,
    /// Those, at most fifty.
    pub late: Vec<MissedDeadline>,
}

/// A deadline that was missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissedDeadline {
    /// The job.
    pub job: String,
    /// Its file.
    pub file: String,
    /// When its results were wanted, RFC 3339.
    pub deliver_by: String,
    /// When they came, if they did.
    pub delivered: Option<String>,
}

/// A job that is not over, or that nobody could do anything for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportJob {
    /// Its id.
    pub job: String,
    /// Its file.
    pub file: String,
    /// Its state, as `status` has it.
    pub state: String,
    /// What it does or waits for, and the command that helps, in words.
    pub why: String,
}

/// What a report is asked about, as it stands in a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportQuery {
    /// Since a moment (RFC 3339), a day, or a span that ends now.
    pub since: Option<String>,
}

/// A report while it is made.
#[derive(Debug)]
pub struct Gathering {
    from: Millis,
    to: Millis,
    files: ReportFiles,
    lines: ReportLines,
    failures: BTreeMap<String, u64>,
    tokens: Tokens,
    cost: BTreeMap<String, Amount>,
    other: ReportOther,
    slowest: Option<SlowestBatch>,
    deadlines: ReportDeadlines,
    attention: Vec<(JobId, ReportJob)>,
    waiting: Vec<(JobId, ReportJob)>,
}

impl ReportQuery {
    /// The moment as it was asked.
    pub fn since(&self) -> Option<&str> {
        self.since.as_deref()
    }
}

impl Gathering {
    /// Nothing is known yet of the time from one moment on and before another.
    pub fn new(from: Millis, to: Millis) -> Gathering {
        Gathering {
            from: from.min(to),
            to,
            files: ReportFiles::default(),
            lines: ReportLines::default(),
            failures: BTreeMap::new(),
            tokens: Tokens::default(),
            cost: BTreeMap::new(),
            other: ReportOther::default(),
            slowest: None,
            deadlines: ReportDeadlines::default(),
            attention: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Takes in a job, whatever has become of it; each only once.
    pub fn take_in(&mut self, job: &Job) {
        self.files.arrived += u64::from(self.covers(job.head.claimed));
        let refused = matches!(job.head.state, JobState::Refusing(_) | JobState::Failed(_));
        self.files.refused += u64::from(refused && self.covers(job.head.claimed));
        if let Some(delivery) = delivery(job).filter(|it| self.covers(it.delivered)) {
            self.take_in_delivery(delivery);
            if let Some(funds) = &job.head.funds {
                let cost = self.cost.entry(funds.currency.clone()).or_default();
                *cost = cost.plus(spent_for(job).0);
            }
        }
        self.take_in_batches(job);
        self.take_in_deadline(job);
    }

    /// Takes in how a job that is not complete stands; `view` is what an operator sees of it.
    pub fn take_in_open(&mut self, job: &Job, view: &JobView) {
        let is_failed = matches!(job.head.state, JobState::Failed(_));
        if is_failed && !self.covers(job.head.claimed) {
            return;
        }
        let why = match &view.reason {
            Some(reason) if is_failed || view.state == "held" => reason.clone(),
            Some(reason) => format!("{}; {reason}", view.phase),
            None => view.phase.clone(),
        };
        let (id, file) = (job.head.id, view.file.clone());
        let entry = ReportJob { job: id.to_string(), file, state: view.state.clone(), why };
        match is_failed || needs_a_person(job) || view.on_hold {
            true => self.attention.push((id, entry)),
            false => self.waiting.push((id, entry)),
        }
    }

    /// The report, beside what the days before brought, and how money stands.
    pub fn finish(
        self,
        history: &History,
        spending: Option<SpendingView>,
        trouble: Vec<String>,
    ) -> Report {
        let nights = (1..=NIGHTS).rev().map(|back| {
            let from = Millis(self.from.0.saturating_sub(back * DAY_MS));
            let to = from.plus(DAY_MS);
            let came = history.between(from, to);
            let (jobs, answered, failed) = (came.jobs, came.answered, came.failed);
            let tokens = came.tokens.total;
            Night { from: moment(from), to: moment(to), jobs, answered, failed, tokens }
        });
        let failures = self.failures.into_iter();
        let mut failures: Vec<ReportFailure> =
            failures.map(|(reason, lines)| ReportFailure { reason, lines }).collect();
        failures.sort_by(|a, b| b.lines.cmp(&a.lines).then_with(|| a.reason.cmp(&b.reason)));
        failures.truncate(REASONS_MAX);
        let (attention_total, attention) = first(self.attention);
        let (waiting_total, waiting) = first(self.waiting);
        Report {
            version: VERSION,
            from: moment(self.from),
            to: moment(self.to),
            files: self.files,
            lines: self.lines,
            failures,
            tokens: self.tokens.into(),
            cost: self.cost.into_iter().map(|(currency, cost)| (currency, cost.told())).collect(),
            spending,
            other: self.other,
            nights: nights.collect(),
            slowest: self.slowest,
            deadlines: self.deadlines,
            attention,
            attention_total,
            waiting,
            waiting_total,
            trouble,
        }
    }

    fn covers(&self, at: Millis) -> bool {
        self.from <= at && at < self.to
    }

    fn take_in_delivery(&mut self, delivery: &Delivery) {
        let tally = &delivery.tally;
        self.files.delivered += 1;
        let kind = match (tally.failed, tally.answered) {
            (0, _) => &mut self.files.complete,
            (_, _) if delivery.plan.cancelled => &mut self.files.cancelled,
            (_, 0) => &mut self.files.failed,
            (_, _) => &mut self.files.partial,
        };
        *kind += 1;
        self.lines.total = self.lines.total.saturating_add(tally.answered + tally.failed);
        self.lines.answered = self.lines.answered.saturating_add(tally.answered);
        self.lines.failed = self.lines.failed.saturating_add(tally.failed);
        self.lines.truncated = self.lines.truncated.saturating_add(tally.truncated);
        for (reason, lines) in &tally.failures {
            let known = self.failures.entry(reason.clone()).or_default();
            *known = known.saturating_add(*lines);
        }
        self.tokens.add(tally.tokens);
        let (other, promise) = (&mut self.other, delivery.plan.promise.as_deref());
        let promise = promise.cloned().unwrap_or_default();
        other.reused = other.reused.saturating_add(delivery.plan.reused);
        other.flex = other.flex.saturating_add(promise.flex);
        other.standard = other.standard.saturating_add(promise.standard);
        other.uncertain = other.uncertain.saturating_add(promise.uncertain);
        other.wasted = other.wasted.saturating_add(promise.wasted.saturating_add(tally.wasted));
    }

    fn take_in_batches(&mut self, job: &Job) {
        for batch in job.chunks.values().flat_map(|chunk| &chunk.batches) {
            let seconds = batch.ended.since(batch.created) / 1000;
            let is_slower = self.slowest.as_ref().is_none_or(|slowest| {
                let job = job.head.id.to_string();
                (seconds, &job, &batch.name.0) > (slowest.seconds, &slowest.job, &slowest.batch)
            });
            if self.covers(batch.ended) && is_slower {
                self.slowest = Some(SlowestBatch {
                    batch: batch.name.0.clone(),
                    job: job.head.id.to_string(),
                    file: file_of(&job.head.source),
                    model: job.head.queue.model.clone(),
                    seconds,
                });
            }
        }
    }

    /// A deadline counts on the night on which it fell due.
    fn take_in_deadline(&mut self, job: &Job) {
        let Some(by) = job.head.queue.moments.deliver_by.filter(|by| self.covers(*by)) else {
            return;
        };
        let delivered = delivery(job).map(|it| it.delivered);
        if delivered.is_some_and(|at| at <= by) {
            self.deadlines.met += 1;
            return;
        }
        self.deadlines.missed += 1;
        if self.deadlines.late.len() < JOBS_MAX {
            self.deadlines.late.push(MissedDeadline {
                job: job.head.id.to_string(),
                file: file_of(&job.head.source),
                deliver_by: moment(by),
                delivered: delivered.map(moment),
            });
        }
    }
}

fn first(mut jobs: Vec<(JobId, ReportJob)>) -> (u64, Vec<ReportJob>) {
    let total = jobs.len() as u64;
    jobs.sort_by_key(|(id, _)| *id);
    jobs.truncate(JOBS_MAX);
    (total, jobs.into_iter().map(|(_, job)| job).collect())
}

/// Days that stand beside it.
const NIGHTS: u64 = 7;
/// Reasons of failures that are named.
const REASONS_MAX: usize = 10;
/// Jobs that are named, of each kind.
const JOBS_MAX: usize = 50;
const DAY_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests;
