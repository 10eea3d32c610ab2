//! By when the results of a job are wanted, and whether they will be there.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::deadline::expected_of;
use crate::engine::ids::Millis;
use crate::engine::job::{Job, JobState};
use crate::engine::rescue::not_for;

use super::moment;

/// The deadline of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadlineView {
    /// When the results are wanted, RFC 3339.
    pub by: String,
    /// `open`, `danger`, `rescuing`, `missed`, or, for a job that is delivered, `met` or `late`.
    pub state: String,
    /// When they are expected, RFC 3339; missing as long as nobody knows.
    pub expected: Option<String>,
    /// So many seconds later than wanted they came, or are expected; missing if in time.
    pub late_s: Option<u64>,
    /// Lines that were answered one by one.
    pub rescued: u64,
    /// Of these, those through the flex tier.
    pub flex: u64,
    /// Calls of which nobody knows whether they were answered and paid for.
    pub uncertain: u64,
    /// Answers that came after their lines had been rescued.
    pub wasted: u64,
    /// Why nothing is rescued although that was asked for.
    pub not_rescued: Option<String>,
}

impl DeadlineView {
    /// What is to be seen of a job's deadline, if it has one; what is expected is only known at a
    /// moment.
    pub(super) fn of(
        job: &Job,
        now: Option<Millis>,
        typical_ms: Option<u64>,
    ) -> Option<DeadlineView> {
        let by = job.head.queue.moments.deliver_by?;
        let promise = job.head.state.plan().and_then(|plan| plan.promise.as_deref());
        let promise = promise.cloned().unwrap_or_default();
        let delivered = super::delivery(job).map(|delivery| delivery.delivered);
        let expected = now.and_then(|now| expected_of(job, typical_ms, now));
        let end = delivered.or(expected);
        let late_s = end.map(|end| end.since(by) / 1000).filter(|late| *late > 0);
        let is_ahead = now.is_none_or(|now| now < by);
        let state = match &job.head.state {
            JobState::Failed(_) | JobState::Held(_) => return None,
            _ if delivered.is_some_and(|delivered| delivered <= by) => "met",
            _ if delivered.is_some() => "late",
            _ if !is_ahead || promise.missed.is_some() => "missed",
            _ if promise.rescue.is_some() => "rescuing",
            _ if promise.danger.is_some() => "danger",
            _ => "open",
        };
        Some(DeadlineView {
            by: moment(by),
            state: state.to_owned(),
            expected: expected.map(moment),
            late_s,
            rescued: promise.flex + promise.standard,
            flex: promise.flex,
            uncertain: promise.uncertain,
            wasted: promise.wasted + super::delivery(job).map_or(0, |it| it.tally.wasted),
            not_rescued: not_for(&job.head).map(str::to_owned),
        })
    }
}
