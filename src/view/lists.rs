//! Lists over all jobs, page by page, and what was asked for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::History;
use crate::engine::ids::{JobId, Millis};
use crate::engine::job::{Job, Tokens};

use super::{JobView, STATES, VERSION, file_of, state_word};

/// Which jobs are asked for, as it stands in a URL. What is left out does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// States, with commas between them.
    pub state: Option<String>,
    /// The name of a queue.
    pub queue: Option<String>,
    /// A part of the file's path; upper and lower case are the same.
    pub file: Option<String>,
    /// Claimed at this moment (RFC 3339, or a day) or within this span (`2h`, `7d`), or later.
    pub since: Option<String>,
    /// `newest` first, or `oldest`.
    pub order: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Those that come after this id.
    pub after: Option<String>,
}

/// Which batches are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchQuery {
    /// At most so many.
    pub limit: Option<usize>,
    /// Open, or ended at this moment or within this span, or later.
    pub since: Option<String>,
}

/// How many days are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayQuery {
    /// So many, up to today; 30 unless said.
    pub days: Option<usize>,
}

/// A question that can not be answered: why, and what to ask instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadQuery(pub String);

/// Which jobs are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFilter {
    states: Vec<String>,
    queue: Option<String>,
    file: Option<String>,
    since: Option<Millis>,
    oldest_first: bool,
    limit: usize,
    after: Option<JobId>,
}

/// The jobs of one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Their ids, in order.
    pub ids: Vec<JobId>,
    /// How many match, on all pages.
    pub total: u64,
    /// What to give as `after` for the next page, if there is one.
    pub next: Option<JobId>,
}

/// One page of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// The version of this interface: [`super::VERSION`].
    pub version: u32,
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// How many match, on all pages, among those that are kept as they are.
    pub total: u64,
    /// What to give as `after` for the next page, if there is one.
    pub next: Option<String>,
}

/// What came of one day, UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayView {
    /// The day, such as `2026-11-21`.
    pub day: String,
    /// Jobs delivered.
    pub jobs: u64,
    /// Their lines.
    pub lines: u64,
    /// Of these, answered.
    pub answered: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Tokens of their answers.
    pub tokens: TokensView,
}

/// The last days, oldest first, those without any job too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayList {
    /// The version of this interface: [`super::VERSION`].
    pub version: u32,
    /// The days; the last one is today.
    pub days: Vec<DayView>,
}

/// Tokens as the API counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokensView {
    /// Of the prompts.
    pub prompt: u64,
    /// Of the answers.
    pub output: u64,
    /// Spent on thinking.
    pub thinking: u64,
    /// Of the prompts, those that came from a cache.
    pub cached: u64,
    /// All.
    pub total: u64,
}

impl JobFilter {
    /// Understands a question asked at the moment `now`.
    ///
    /// # Errors
    /// If a state, a moment, an order, a limit or an id is none.
    pub fn read(query: &JobQuery, now: Millis) -> Result<JobFilter, BadQuery> {
        let states = query.state.iter().flat_map(|states| states.split(','));
        let states: Vec<String> = states
            .map(|state| state.trim().to_ascii_lowercase())
            .filter(|state| !state.is_empty())
            .collect();
        if let Some(odd) = states.iter().find(|state| !STATES.contains(&state.as_str())) {
            let known = STATES.join(", ");
            return Err(BadQuery(format!("{odd:?} is no state; there are {known}")));
        }
        let oldest_first = match query.order.as_deref() {
            None | Some("newest") => false,
            Some("oldest") => true,
            Some(odd) => return Err(BadQuery(format!("order is {odd:?}; write newest or oldest"))),
        };
        let after = query.after.as_deref().map(|after| {
            let id = after.to_ascii_uppercase().parse::<JobId>();
            id.map_err(|error| BadQuery(format!("after is {after:?}: {error}")))
        });
        Ok(JobFilter {
            states,
            queue: query.queue.clone(),
            file: query.file.as_ref().map(|part| part.to_lowercase()),
            since: query.since.as_deref().map(|text| read_moment(text, now)).transpose()?,
            oldest_first,
            limit: read_limit(query.limit, JOBS_USUAL)?,
            after: after.transpose()?,
        })
    }

    /// One page of these jobs.
    pub fn page<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>) -> Page {
        let wanted = jobs.into_iter().filter(|job| self.wants(job)).map(|job| job.head.id);
        let mut ids: Vec<JobId> = wanted.collect();
        // They come as two runs, each in order; this sort knows how to use that.
        ids.sort();
        if !self.oldest_first {
            ids.reverse();
        }
        let total = ids.len() as u64;
        let is_before = |id: &JobId| {
            self.after.is_some_and(|after| match self.oldest_first {
                true => *id <= after,
                false => *id >= after,
            })
        };
        ids.drain(..ids.partition_point(is_before));
        let more = ids.len() > self.limit;
        ids.truncate(self.limit);
        Page { total, next: ids.last().copied().filter(|_| more), ids }
    }

    fn wants(&self, job: &Job) -> bool {
        let source = &job.head.source;
        let has_part = |part: &String| match source.folder.is_empty() {
            true => source.name.to_lowercase().contains(part),
            false => file_of(source).to_lowercase().contains(part),
        };
        self.queue.as_ref().is_none_or(|queue| *queue == job.head.queue.name)
            && self.since.is_none_or(|since| job.head.claimed >= since)
            && (self.states.is_empty() || self.states.iter().any(|word| word == state_word(job)))
            && self.file.as_ref().is_none_or(has_part)
    }
}

impl DayList {
    /// The last `days` days up to the one of `now`.
    pub fn of(history: &History, now: Millis, days: u32) -> DayList {
        let today = History::day_of(now);
        let days = (today.saturating_sub(days.saturating_sub(1))..=today).map(|day| {
            let came = history.day(day);
            DayView {
                day: super::moment(Millis(u64::from(day) * DAY_MS)).chars().take(10).collect(),
                jobs: came.jobs,
                lines: came.answered.saturating_add(came.failed),
                answered: came.answered,
                failed: came.failed,
                tokens: came.tokens.into(),
            }
        });
        DayList { version: VERSION, days: days.collect() }
    }
}

impl From<Tokens> for TokensView {
    fn from(tokens: Tokens) -> TokensView {
        let Tokens { prompt, output, thinking, cached, total } = tokens;
        TokensView { prompt, output, thinking, cached, total }
    }
}

/// Understands a moment, a day, or a span that ends now.
///
/// # Errors
/// If it is none of them.
pub fn read_moment(text: &str, now: Millis) -> Result<Millis, BadQuery> {
    let of_second = |second: i64| Millis(u64::try_from(second).unwrap_or(0).saturating_mul(1000));
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(of_second(time.as_second()));
    }
    if let Ok(day) = text.parse::<jiff::civil::Date>()
        && let Ok(midnight) = day.to_zoned(jiff::tz::TimeZone::UTC)
    {
        return Ok(of_second(midnight.timestamp().as_second()));
    }
    let day = jiff::SpanRelativeTo::days_are_24_hours();
    let span = text.parse::<jiff::Span>().and_then(|span| span.to_duration(day));
    match span {
        Ok(span) => {
            let ms = u64::try_from(span.abs().as_millis()).unwrap_or(u64::MAX);
            Ok(Millis(now.0.saturating_sub(ms)))
        }
        Err(_) => Err(BadQuery(format!(
            "{text:?} is no moment; write one like 2026-11-21T08:00:00Z, a day, or a span like 2h"
        ))),
    }
}

/// A number of things asked for, or the usual one.
///
/// # Errors
/// If it is none, or too many.
pub fn read_limit(limit: Option<usize>, usual: usize) -> Result<usize, BadQuery> {
    match limit {
        None => Ok(usual),
        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        Some(odd) => Err(BadQuery(format!("limit is {odd}; it must be between 1 and {LIMIT_MAX}"))),
    }
}

/// Jobs on a page, unless said otherwise.
const JOBS_USUAL: usize = 100;
/// Nobody gets more at once; the next page is asked for with `after`.
pub const LIMIT_MAX: usize = 1000;
const DAY_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);

    #[test]
    fn moments_are_read_in_every_form() {
        let read = |text| read_moment(text, NOW).expect(text).0;
        assert_eq!(read("2h"), NOW.0 - 7_200_000);
        assert_eq!(read("1h30m"), NOW.0 - 5_400_000);
        assert_eq!(read("7d"), NOW.0 - 7 * DAY_MS);
        assert_eq!(read("2023-11-14T22:13:20Z"), NOW.0);
        assert_eq!(read("2023-11-14"), 1_699_920_000_000);
        for odd in ["", "yesterday", "5", "2023-99-01"] {
            assert!(read_moment(odd, NOW).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_question_that_makes_no_sense_is_told_what_would() {
        let ask = |query: JobQuery| JobFilter::read(&query, NOW).expect_err("none").to_string();
        let word = |text: &str| Some(text.to_owned());
        let said = ask(JobQuery { state: word("done,lost"), ..JobQuery::default() });
        assert!(said.contains("\"lost\"") && said.contains("cancelled"), "{said}");
        let said = ask(JobQuery { order: word("best"), ..JobQuery::default() });
        assert!(said.contains("newest or oldest"), "{said}");
        let said = ask(JobQuery { limit: Some(5000), ..JobQuery::default() });
        assert!(said.contains("1000"), "{said}");
        let said = ask(JobQuery { after: word("x"), ..JobQuery::default() });
        assert!(said.contains("26 characters"), "{said}");
    }

    #[test]
    fn days_without_a_job_are_there_too() {
        let list = DayList::of(&History::default(), NOW, 3);
        let days: Vec<&str> = list.days.iter().map(|day| day.day.as_str()).collect();
        assert_eq!(days, ["2023-11-12", "2023-11-13", "2023-11-14"]);
    }
}
