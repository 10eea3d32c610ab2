//! What is remembered of failures in a row. It is in memory only: after a restart all is tried anew.

use super::event::Failure;
use super::ids::Millis;

/// Failures in a row of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trouble {
    /// How many.
    pub failures: u32,
    /// How many of them were fetches of results that came damaged or short.
    pub damaged: u32,
    /// When results that are due were not shown for the first time.
    pub unready_since: Option<Millis>,
    /// Since when nothing else is told but that results are gone or will not be given.
    pub gone_since: Option<Millis>,
    /// The next try is not before this.
    pub not_before: Millis,
    /// What the last one said.
    pub message: String,
}

impl Trouble {
    /// The same with one failure more.
    pub(super) fn and(self, failure: &Failure, now: Millis, not_before: Millis) -> Trouble {
        let is_damaged = matches!(failure, Failure::Damaged(_));
        let is_unready = matches!(failure, Failure::NotReady(_));
        let is_gone = matches!(failure, Failure::Gone(_) | Failure::Rejected(_));
        Trouble {
            failures: self.failures.saturating_add(1),
            damaged: self.damaged.saturating_add(u32::from(is_damaged)),
            unready_since: self.unready_since.or(is_unready.then_some(now)),
            gone_since: is_gone.then(|| self.gone_since.unwrap_or(now)),
            not_before,
            message: failure.message().to_owned(),
        }
    }
}
