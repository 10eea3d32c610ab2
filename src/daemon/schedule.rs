//! When housekeeping is due.
//!
//! tokio-cron-scheduler only wakes us, once a minute; what a cron line means is decided here: the
//! last slot taken is kept in the store, so that a slot never runs twice and one that was missed
//! is caught up once, across restarts, clock jumps and daylight-saving changes.

use croner::parser::{CronParser, Seconds};
use jiff::tz::TimeZone;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::engine::Millis;
use crate::store::{JobStore, StoreError};

use super::{Handle, Message};

/// Wakes the daemon at the start of every minute.
///
/// # Errors
/// If the scheduler can not be started.
pub async fn wake_every_minute(handle: Handle) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let job = Job::new_async("0 * * * * *", move |_, _| {
        let handle = handle.clone();
        Box::pin(async move { handle.tell(Message::HousekeepingDue).await })
    })?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

/// What can go wrong with a schedule.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The cron line is not one.
    #[error("housekeeping.schedule {line:?} is not a cron line with seconds: {why}")]
    Line {
        /// The line.
        line: String,
        /// What is wrong with it.
        why: String,
    },
    /// The last slot can not be read or kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether a slot has come since the last one taken; if so, it is taken, durably. After a clock was
/// set back by up to a day, slots that were taken come again unnoticed; one that is further back
/// was wrong before, and its slots count anew.
///
/// # Errors
/// If the line is no schedule, or the store fails.
pub fn take_slot(line: &str, store: &mut dyn JobStore, now: Millis) -> Result<bool, ScheduleError> {
    let last = store.note(LAST_SLOT)?.and_then(|text| text.parse().ok()).map(Millis);
    let Some(last) = last else {
        // A new spool: the slots before it are not ours.
        store.set_note(LAST_SLOT, &now.0.to_string())?;
        return Ok(false);
    };
    let due = next_slot(line, last, &TimeZone::system())?.is_some_and(|slot| slot <= now);
    if due || now.plus(SET_BACK_MS) < last {
        store.set_note(LAST_SLOT, &now.0.to_string())?;
    }
    Ok(due)
}

/// The first slot after a moment.
///
/// # Errors
/// If the line is no schedule.
pub fn next_slot(
    line: &str,
    after: Millis,
    zone: &TimeZone,
) -> Result<Option<Millis>, ScheduleError> {
    let wrong = |why: String| ScheduleError::Line { line: line.to_owned(), why };
    let parser = CronParser::builder().seconds(Seconds::Required).build();
    let cron = parser.parse(line).map_err(|error| wrong(error.to_string()))?;
    let after = jiff::Timestamp::from_millisecond(i64::try_from(after.0).unwrap_or(i64::MAX))
        .map_err(|error| wrong(error.to_string()))?;
    let next = cron.find_next_occurrence(&after.to_zoned(zone.clone()), false);
    Ok(next.ok().map(|slot| Millis(slot.timestamp().as_millisecond().unsigned_abs())))
}

/// A clock that is set back by more has been wrong, milliseconds; daylight saving counts as well.
const SET_BACK_MS: u64 = 25 * 3_600_000;
/// The note that keeps the last slot taken.
const LAST_SLOT: &str = "housekeeping.last_slot";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    const NIGHTLY: &str = "0 30 3 * * *";

    fn at(text: &str) -> Millis {
        let moment: jiff::Timestamp = text.parse().expect("a time stamp");
        Millis(u64::try_from(moment.as_millisecond()).expect("after 1970"))
    }

    /// Fault 78.
    #[test]
    fn a_slot_runs_once_and_a_missed_one_is_caught_up_once() {
        let mut store = MemoryStore::default();
        let mut take = |text| take_slot("0 0 0 1 * *", &mut store, at(text)).expect("a schedule");
        assert!(!take("2026-01-15T00:00:00Z"), "a new spool has missed nothing");
        assert!(!take("2026-01-15T00:01:00Z"));
        assert!(take("2026-04-20T12:00:00Z"), "three slots were missed");
        assert!(!take("2026-04-20T12:01:00Z"), "and are caught up once");
        assert!(!take("2026-03-20T12:00:00Z"), "a clock that goes back runs nothing");
    }

    /// Fault 75.
    #[test]
    fn a_slot_that_was_taken_is_not_taken_again_when_the_clock_is_set_back() {
        let mut store = MemoryStore::default();
        let mut take = |text| take_slot("0 30 * * * *", &mut store, at(text)).expect("a schedule");
        assert!(!take("2026-01-15T11:00:00Z"));
        assert!(take("2026-01-15T11:30:00Z"));
        assert!(!take("2026-01-15T12:00:00Z"));
        assert!(!take("2026-01-15T11:00:00Z"), "set back by an hour");
        assert!(!take("2026-01-15T11:30:00Z"), "this slot was taken");
        assert!(take("2026-01-15T12:30:00Z"));
    }

    /// Fault 76.
    #[test]
    fn a_clock_that_begins_in_1970_catches_up_once_when_it_is_set() {
        let mut store = MemoryStore::default();
        let mut take = |text| take_slot(NIGHTLY, &mut store, at(text)).expect("a schedule");
        assert!(!take("2026-01-15T12:00:00Z"));
        assert!(!take("1970-01-01T00:00:05Z"));
        assert!(take("2026-01-20T12:00:00Z"), "four nights were missed");
        assert!(!take("2026-01-20T12:01:00Z"), "and are caught up once");
        assert!(take("2036-01-20T12:00:00Z"), "ten years ahead, by mistake");
        assert!(!take("2026-01-20T12:02:00Z"));
        assert!(take("2026-01-21T12:00:00Z"), "the nights count again");
    }

    /// Fault 77.
    #[test]
    fn a_nightly_line_has_one_slot_a_day_in_every_zone_whatever_its_clocks_do() {
        for name in [
            "Europe/Berlin",
            "America/New_York",
            "America/Santiago",
            "Africa/Casablanca",
            "Asia/Kolkata",
            "Australia/Lord_Howe",
            "Pacific/Chatham",
            "UTC",
        ] {
            let zone = TimeZone::get(name).expect("a zone of the database");
            for line in ["0 30 2 * * *", "0 0 0 * * *", "0 15 3 * * *", "0 30 23 * * *"] {
                let mut last = at("2026-01-01T12:00:00Z");
                let end = at("2027-01-01T12:00:00Z");
                let mut slots = 0;
                while let Some(slot) = next_slot(line, last, &zone).expect("a schedule") {
                    assert!(slot > last, "{name} {line}: {last:?} then {slot:?}");
                    if slot > end {
                        break;
                    }
                    (last, slots) = (slot, slots + 1);
                }
                assert_eq!(slots, 365, "{name} {line}");
            }
        }
    }

    /// Fault 77.
    #[test]
    fn the_hour_that_daylight_saving_skips_or_repeats_has_one_slot_a_day() {
        let zone = TimeZone::get("Europe/Berlin").expect("a zone of the database");
        let line = "0 30 2 * * *";
        for (before, after) in [
            ("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"),
            ("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"),
        ] {
            let first = next_slot(line, at(before), &zone).expect("a schedule").expect("a slot");
            assert!(first < at(after), "{before}");
            let second = next_slot(line, first, &zone).expect("a schedule").expect("a slot");
            assert!(second > at(after), "{before}: {first:?} then {second:?}");
        }
    }

    /// Fault 81.
    #[test]
    fn a_line_without_seconds_is_refused() {
        let wrong = next_slot("30 3 * * *", at("2026-01-01T00:00:00Z"), &TimeZone::UTC);
        assert!(wrong.is_err());
        assert!(next_slot(NIGHTLY, at("2026-01-01T00:00:00Z"), &TimeZone::UTC).is_ok());
    }
}
