//! The nights and months of budgets, by the clocks of this machine's zone.
//!
//! A night lasts from noon to noon, so that what runs past midnight is one night; a month is that of
//! the calendar. The engine is told when another one begins, or when the clock is set to another.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::engine::budget::Periods;
use crate::engine::event::Event;
use crate::engine::ids::Millis;

use super::{Daemon, DaemonError, lock};

impl Daemon {
    /// Tells the engine when it is another night or month than before.
    pub(super) fn look_at_the_calendar(&mut self) -> Result<(), DaemonError> {
        let now = self.clock.now();
        if lock(&self.engine).periods().hold(now) {
            return Ok(());
        }
        let event = Event::Periods(periods(now, &TimeZone::system()));
        let turn = lock(&self.engine).handle(event, now);
        self.consume(turn)
    }
}

/// The night and the month of a moment.
pub fn periods(now: Millis, zone: &TimeZone) -> Periods {
    let at = i64::try_from(now.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let local = at.unwrap_or(Timestamp::MAX).to_zoned(zone.clone());
    let today = local.date();
    let begun = if local.hour() >= 12 { today } else { today.saturating_sub(1.day()) };
    let month = today.first_of_month();
    Periods {
        night: moment(begun, 12, zone),
        night_end: moment(begun.saturating_add(1.day()), 12, zone),
        month: moment(month, 0, zone),
        month_end: moment(month.saturating_add(1.month()), 0, zone),
    }
}

/// An hour of a day; one that the clocks skip is the first after it.
fn moment(day: Date, hour: i8, zone: &TimeZone) -> Millis {
    let at = day.at(hour, 0, 0, 0).to_zoned(zone.clone()).map(|at| at.timestamp());
    let at = at.unwrap_or(Timestamp::MAX).as_millisecond();
    Millis(u64::try_from(at).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        let moment: Timestamp = text.parse().expect("a time stamp");
        Millis(u64::try_from(moment.as_millisecond()).expect("after 1970"))
    }

    fn of(text: &str, zone: &str) -> Periods {
        periods(at(text), &TimeZone::get(zone).expect("a zone of the database"))
    }

    #[test]
    fn a_night_lasts_from_noon_to_noon_and_a_month_begins_at_midnight() {
        let periods = of("2026-11-22T02:00:00Z", "Europe/Berlin");
        assert_eq!(periods.night, at("2026-11-21T11:00:00Z"));
        assert_eq!(periods.night_end, at("2026-11-22T11:00:00Z"));
        assert_eq!(periods.month, at("2026-10-31T23:00:00Z"));
        assert_eq!(periods.month_end, at("2026-11-30T23:00:00Z"));
    }

    /// Fault 77.
    #[test]
    fn every_moment_lies_in_its_own_night_and_month_in_every_zone_whatever_its_clocks_do() {
        for name in [
            "Europe/Berlin",
            "America/New_York",
            "America/Santiago",
            "Africa/Casablanca",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
            "Pacific/Chatham",
            "Africa/Cairo",
            "UTC",
        ] {
            let zone = TimeZone::get(name).expect("a zone of the database");
            let mut now = at("2025-12-31T00:00:00Z");
            let (mut nights, mut months) = (0, 0);
            let mut before = Periods::default();
            while now < at("2027-01-01T00:00:00Z") {
                let it = periods(now, &zone);
                assert!(it.hold(now), "{name} {now:?}: {it:?}");
                assert!(before.night_end <= it.night || before.night == it.night, "{name} {now:?}");
                assert_eq!(it.night.0 % 900_000, 0, "{name}: counted by quarters of an hour");
                assert_eq!(it.month.0 % 900_000, 0, "{name}");
                nights += u32::from(it.night != before.night);
                months += u32::from(it.month != before.month);
                before = it;
                now = now.plus(1_700_000);
            }
            assert!((366..=367).contains(&nights), "{name}: {nights}");
            assert!((13..=14).contains(&months), "{name}: {months}");
        }
    }

    /// Fault 76.
    #[test]
    fn clocks_that_show_nonsense_have_a_night_too() {
        for now in [Millis(0), Millis(u64::MAX)] {
            let _ = periods(now, &TimeZone::UTC);
        }
        assert!(periods(Millis(5_000), &TimeZone::UTC).hold(Millis(5_000)));
    }
}
