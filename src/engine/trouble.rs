//! What is remembered of failures in a row. It is in memory only: after a restart all is tried anew.

use super::event::Failure;
use super::ids::Millis;
use super::policy;

/// Failures in a row of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trouble {
    /// How many.
    pub failures: u32,
    /// How many of them were fetches of results that came damaged or short.
    pub damaged: u32,
    /// When the first of those was.
    pub damaged_since: Option<Millis>,
    /// The fewest rows without a line that any of those had.
    pub fewest_missing: Option<u64>,
    /// When results that are due were not shown for the first time.
    pub unready_since: Option<Millis>,
    /// Since when nothing else is told but that results are gone or will not be given.
    pub gone_since: Option<Millis>,
    /// How often in a row that was told.
    pub gone: u32,
    /// Whether the last one was that too much was asked.
    pub limited: bool,
    /// The next try is not before this.
    pub not_before: Millis,
    /// What the last one said.
    pub message: String,
}

impl Trouble {
    /// The same with one failure more.
    pub(super) fn and(self, failure: &Failure, now: Millis, not_before: Millis) -> Trouble {
        let is_damaged = matches!(failure, Failure::Damaged { .. });
        let is_unready = matches!(failure, Failure::NotReady(_));
        let is_gone = matches!(failure, Failure::Gone(_) | Failure::Rejected(_));
        let missing = failure.missing();
        Trouble {
            failures: self.failures.saturating_add(1),
            damaged: self.damaged.saturating_add(u32::from(is_damaged)),
            damaged_since: self.damaged_since.or(is_damaged.then_some(now)),
            fewest_missing: self.fewest_missing.into_iter().chain(missing).min(),
            unready_since: self.unready_since.or(is_unready.then_some(now)),
            gone_since: is_gone.then(|| self.gone_since.unwrap_or(now)),
            gone: if is_gone { self.gone.saturating_add(1) } else { 0 },
            limited: matches!(failure, Failure::RateLimited { .. }),
            not_before,
            message: failure.message().to_owned(),
        }
    }

    /// How many rows may be missing in the next fetch, when the API settles within the given time,
    /// milliseconds: none until results came short several times, and late; then as many as in the
    /// best of those fetches, and in the end any number.
    pub(super) fn missing_believed(&self, settles_in_ms: u64, now: Millis) -> u64 {
        let is_settled = self.damaged_since.is_some_and(|since| now >= since.plus(settles_in_ms));
        if self.damaged < policy::SHORT_FETCHES || !is_settled {
            return 0;
        }
        match self.fewest_missing {
            Some(fewest) if self.damaged < policy::SHORT_FETCHES_MAX => fewest,
            Some(_) | None => u64::MAX,
        }
    }

    /// The same, waiting for the API to settle once results came short often enough to be believed
    /// after that: results that come late are not fetched in vain many times.
    pub(super) fn patient(mut self, settles_in_ms: u64) -> Trouble {
        if let Some(since) = self.damaged_since.filter(|_| self.damaged >= policy::SHORT_FETCHES) {
            self.not_before = self.not_before.max(since.plus(settles_in_ms));
        }
        self
    }
}
