//! A report in sentences, as every renderer tells it. Texts from outside stand in them as they came:
//! the renderers escape.

use jiff::tz::TimeZone;

use crate::view::words::{number, plural, span};

use super::{Night, Report, ReportJob};

/// A report in sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it is a report of.
    pub title: String,
    /// The most important thing about it, in one sentence.
    pub headline: String,
    /// Whether nobody needs to do anything.
    pub is_good: bool,
    /// What is told of, and what there is to say.
    pub facts: Vec<(&'static str, String)>,
    /// What needs a person.
    pub attention: Vec<Item>,
    /// What is under way or waits.
    pub waiting: Vec<Item>,
    /// The days before and this time, the oldest first.
    pub nights: Vec<NightRow>,
}

/// A job that is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its file, and how it stands.
    pub what: String,
    /// Why, and what to do.
    pub why: String,
}

/// A night among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NightRow {
    /// The day it ended on, such as `Sat 11-21`.
    pub day: String,
    /// Files delivered.
    pub files: u64,
    /// Lines answered.
    pub answered: u64,
    /// Lines failed.
    pub failed: u64,
    /// Tokens.
    pub tokens: u64,
}

impl Report {
    /// The report in sentences, with its moments in this time zone.
    pub fn told(&self, zone: &TimeZone) -> Told {
        let (from, to) = (local(&self.from, zone, MINUTE), local(&self.to, zone, MINUTE));
        let mut facts = vec![("files", self.files_told()), ("lines", self.lines_told())];
        facts.extend(self.failures_told().map(|told| ("failed", told)));
        facts.extend(self.cost_told().map(|told| ("cost", told)));
        facts.extend(self.other_told().map(|told| ("besides", told)));
        if let Some(slowest) = &self.slowest {
            let (seconds, batch) = (span(slowest.seconds), &slowest.batch);
            let (file, model) = (&slowest.file, &slowest.model);
            facts.push(("slowest", format!("{seconds}: {batch} of {file}, {model}")));
        }
        facts.extend(self.deadlines_told(zone).map(|told| ("deadlines", told)));
        if self.attention_total + self.waiting_total > 0 {
            facts.push(("now", self.standing_told()));
        }
        facts.extend(self.trouble.iter().map(|why| ("trouble", why.clone())));
        let complaints = self.complaints();
        let this = NightRow {
            day: local(&self.to, zone, DAY),
            files: self.files.delivered,
            answered: self.lines.answered,
            failed: self.lines.failed,
            tokens: self.tokens.total,
        };
        let before = self.nights.iter().map(|night| row(night, zone));
        Told {
            title: format!("Report from {from} to {to}"),
            headline: self.headline(&complaints),
            is_good: complaints.is_empty(),
            facts,
            attention: items(&self.attention, self.attention_total),
            waiting: items(&self.waiting, self.waiting_total),
            nights: before.chain([this]).collect(),
        }
    }

    /// What went wrong, or still waits for somebody; nothing, after a good night.
    fn complaints(&self) -> Vec<String> {
        let mut parts = Vec::new();
        match self.attention_total {
            0 => {}
            1 => parts.push("1 file needs you".to_owned()),
            many => parts.push(format!("{} need you", plural(many, "file", "files"))),
        }
        if self.lines.failed > 0 {
            parts.push(format!("{} failed", plural(self.lines.failed, "line", "lines")));
        }
        if self.deadlines.missed > 0 {
            let missed = plural(self.deadlines.missed, "deadline was", "deadlines were");
            parts.push(format!("{missed} missed"));
        }
        if !self.trouble.is_empty() {
            parts.push("something is wrong".to_owned());
        }
        parts
    }

    fn headline(&self, complaints: &[String]) -> String {
        match (complaints.is_empty(), self.files.delivered) {
            (false, _) => sentence(&complaints.join(", ")),
            (true, 0) => {
                "All is well: there was nothing to deliver, and nothing needs you.".to_owned()
            }
            (true, _) => "All is well: every line is answered, and nothing needs you.".to_owned(),
        }
    }

    fn files_told(&self) -> String {
        let files = &self.files;
        let kinds = [
            (files.complete, "complete"),
            (files.partial, "partial"),
            (files.failed, "without any answer"),
            (files.cancelled, "cancelled"),
        ];
        let kinds: Vec<String> = kinds
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{} {word}", number(*count)))
            .collect();
        let kinds =
            if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        let refused = match files.refused {
            0 => String::new(),
            refused => format!(", {} refused", number(refused)),
        };
        let (arrived, delivered) = (number(files.arrived), number(files.delivered));
        format!("{arrived} came, {delivered} delivered{kinds}{refused}")
    }

    fn lines_told(&self) -> String {
        let lines = &self.lines;
        let failed = match lines.failed {
            0 => "none failed".to_owned(),
            failed => format!("{} failed", number(failed)),
        };
        let cut = match lines.truncated {
            0 => String::new(),
            cut => format!(", {} cut off", number(cut)),
        };
        let tokens = match self.tokens.total {
            0 => String::new(),
            tokens => format!("; {}", plural(tokens, "token", "tokens")),
        };
        match lines.total {
            0 => "none".to_owned(),
            _ => format!("{} answered, {failed}{cut}{tokens}", number(lines.answered)),
        }
    }

    fn failures_told(&self) -> Option<String> {
        let told = self.failures.iter().filter(|failure| failure.lines > 0);
        let told: Vec<String> =
            told.map(|failure| format!("{} {}", number(failure.lines), failure.reason)).collect();
        (!told.is_empty()).then(|| format!("{}; see NAME.errors.jsonl", told.join(", ")))
    }

    fn cost_told(&self) -> Option<String> {
        let mut told: Vec<String> =
            self.cost.iter().map(|(currency, cost)| format!("{cost} {currency}")).collect();
        for budget in self.spending.iter().flat_map(|spending| &spending.budgets) {
            if let Some(limit) = &budget.limit {
                let of = match &budget.queue {
                    Some(queue) => format!("queue {queue}"),
                    None => format!("this {}", budget.period),
                };
                told.push(format!("{} of {limit} spent {of}", budget.spent));
            }
        }
        (!told.is_empty()).then(|| told.join("; "))
    }

    fn other_told(&self) -> Option<String> {
        let other = &self.other;
        let parts = [
            (other.reused, "answered before and used again"),
            (other.flex, "rescued through flex"),
            (other.standard, "rescued through standard"),
            (other.uncertain, "calls nobody knows the end of"),
            (other.wasted, "answers that came twice"),
        ];
        let told: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", number(*count)))
            .collect();
        (!told.is_empty()).then(|| told.join(", "))
    }

    fn deadlines_told(&self, zone: &TimeZone) -> Option<String> {
        let deadlines = &self.deadlines;
        if deadlines.met + deadlines.missed == 0 {
            return None;
        }
        let mut told =
            format!("{} kept, {} missed", number(deadlines.met), number(deadlines.missed));
        for late in &deadlines.late {
            let by = local(&late.deliver_by, zone, MINUTE);
            let came = match &late.delivered {
                Some(at) => format!("came {}", local(at, zone, MINUTE)),
                None => "is not there yet".to_owned(),
            };
            told.push_str(&format!("; {} was wanted by {by} and {came}", late.file));
        }
        Some(told)
    }

    fn standing_told(&self) -> String {
        let waits = match self.attention_total {
            0 => "nothing waits for you".to_owned(),
            1 => "1 file waits for you".to_owned(),
            many => format!("{} wait for you", plural(many, "file", "files")),
        };
        match self.waiting_total {
            0 => format!("{waits}, nothing is under way"),
            1 => format!("{waits}, 1 file is under way"),
            many => format!("{waits}, {} are under way", plural(many, "file", "files")),
        }
    }
}

fn items(jobs: &[ReportJob], total: u64) -> Vec<Item> {
    let told = |job: &ReportJob| Item {
        what: format!("{} ({}, {})", job.file, job.state, job.job),
        why: job.why.clone(),
    };
    let left = total.saturating_sub(jobs.len() as u64);
    let more = (left > 0).then(|| Item {
        what: format!("{} more", number(left)),
        why: "`gemini-batchd list` shows them".to_owned(),
    });
    jobs.iter().map(told).chain(more).collect()
}

fn row(night: &Night, zone: &TimeZone) -> NightRow {
    NightRow {
        day: local(&night.to, zone, DAY),
        files: night.jobs,
        answered: night.answered,
        failed: night.failed,
        tokens: night.tokens,
    }
}

/// The day that a report is of: the one on which it was made, in this time zone.
pub fn day_of(report: &Report, zone: &TimeZone) -> String {
    local(&report.to, zone, "%Y-%m-%d")
}

fn local(moment: &str, zone: &TimeZone, form: &str) -> String {
    match moment.parse::<jiff::Timestamp>() {
        Ok(at) => at.to_zoned(zone.clone()).strftime(form).to_string(),
        Err(_) => moment.to_owned(),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}

const MINUTE: &str = "%Y-%m-%d %H:%M";
const DAY: &str = "%a %m-%d";
