//! When the slots of a cron line are, in a time zone, across daylight saving.
//!
//! A slot that the clocks skip is at the moment they jump to; one that they show twice is the first
//! of both. Nothing here reads a clock.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;

use crate::engine::Millis;

/// The slots of a cron line.
#[derive(Debug, Clone)]
pub struct Slots {
    cron: Cron,
    zone: TimeZone,
}

/// Why a line has no slots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotsError {
    /// The line is none.
    #[error("{0}")]
    Line(String),
    /// It is one, but of a day that no year has.
    #[error("that time never comes")]
    Never,
    /// The time zone is not known on this machine.
    #[error("{0}")]
    Zone(String),
}

impl Slots {
    /// The slots of a line with five fields, or six with seconds first, in the time zone of an IANA
    /// name; empty: that of this machine.
    ///
    /// # Errors
    /// If the line or the zone is none, or no slot ever comes.
    pub fn parse(line: &str, zone: &str) -> Result<Slots, SlotsError> {
        let zone = zone_of(zone)?;
        let parser =
            CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(line).map_err(|error| SlotsError::Line(error.to_string()))?;
        let from = jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        cron.find_next_occurrence(&from, false).map_err(|_| SlotsError::Never)?;
        Ok(Slots { cron, zone })
    }

    /// The first slot after a moment; `None` if there is none as far as calendars go.
    pub fn after(&self, moment: Millis) -> Option<Millis> {
        let moment = i64::try_from(moment.0).ok()?;
        let moment = jiff::Timestamp::from_millisecond(moment).ok()?.to_zoned(self.zone.clone());
        let slot = self.cron.find_next_occurrence(&moment, false).ok()?;
        u64::try_from(slot.timestamp().as_millisecond()).ok().map(Millis)
    }
}

/// The time zone of an IANA name; empty: that of this machine.
///
/// # Errors
/// If this machine does not know it.
pub fn zone_of(name: &str) -> Result<TimeZone, SlotsError> {
    if name.is_empty() {
        return Ok(TimeZone::system());
    }
    TimeZone::get(name).map_err(|error| SlotsError::Zone(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        let moment: jiff::Timestamp = text.parse().expect("a time stamp");
        Millis(u64::try_from(moment.as_millisecond()).expect("after 1970"))
    }

    /// The slots of a line from one moment to another, as local times.
    fn slots(line: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
        let slots = Slots::parse(line, zone).expect("a line");
        let zone = zone_of(zone).expect("a zone");
        let (mut last, mut found) = (at(from), Vec::new());
        while let Some(slot) = slots.after(last).filter(|slot| *slot <= at(to)) {
            assert!(slot > last, "{line}: {last:?}, then {slot:?}");
            last = slot;
            let time = jiff::Timestamp::from_millisecond(slot.0 as i64).expect("a moment");
            found.push(time.to_zoned(zone.clone()).strftime("%m-%d %H:%M:%S %:z").to_string());
        }
        found
    }

    #[test]
    fn a_window_whose_hour_is_skipped_opens_when_the_clocks_have_jumped() {
        for (line, zone, from, to, slot) in [
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T12:00:00Z",
                "2026-03-29T12:00:00Z",
                "03-29 03:00:00 +02:00",
            ),
            (
                "0 30 2 * * *",
                "America/New_York",
                "2026-03-07T12:00:00Z",
                "2026-03-08T12:00:00Z",
                "03-08 03:00:00 -04:00",
            ),
            (
                "15 2 * * *",
                "Australia/Lord_Howe",
                "2026-10-03T03:00:00Z",
                "2026-10-04T03:00:00Z",
                "10-04 02:30:00 +11:00",
            ),
            (
                // Midnight itself was skipped.
                "0 0 * * *",
                "America/Sao_Paulo",
                "2018-11-03T12:00:00Z",
                "2018-11-04T12:00:00Z",
                "11-04 01:00:00 -02:00",
            ),
        ] {
            assert_eq!(slots(line, zone, from, to), [slot], "{zone}");
        }
    }

    #[test]
    fn a_window_whose_hour_comes_twice_opens_with_the_first() {
        for (line, zone, from, to, slot) in [
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-10-24T12:00:00Z",
                "2026-10-25T12:00:00Z",
                "10-25 02:30:00 +02:00",
            ),
            (
                "0 30 1 * * *",
                "America/New_York",
                "2026-10-31T12:00:00Z",
                "2026-11-01T12:00:00Z",
                "11-01 01:30:00 -04:00",
            ),
            (
                "45 1 * * *",
                "Australia/Lord_Howe",
                "2026-04-04T03:00:00Z",
                "2026-04-05T03:00:00Z",
                "04-05 01:45:00 +11:00",
            ),
        ] {
            assert_eq!(slots(line, zone, from, to), [slot], "{zone}");
        }
    }

    #[test]
    fn the_slot_of_a_day_that_an_island_skipped_comes_as_that_day_is_over() {
        let apia =
            slots("0 22 * * *", "Pacific/Apia", "2011-12-28T12:00:00Z", "2012-01-01T12:00:00Z");
        assert_eq!(
            apia,
            [
                "12-28 22:00:00 -10:00",
                "12-29 22:00:00 -10:00",
                "12-31 00:00:00 +14:00",
                "12-31 22:00:00 +14:00",
                "01-01 22:00:00 +14:00"
            ]
        );
    }

    #[test]
    fn an_offset_that_is_no_whole_hour_is_no_matter() {
        let kathmandu =
            slots("0 22 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", "2026-01-02T23:00:00Z");
        assert_eq!(kathmandu, ["01-01 22:00:00 +05:45", "01-02 22:00:00 +05:45"]);
    }

    #[test]
    fn a_year_of_nights_has_a_slot_for_each_in_every_zone_whether_with_seconds_or_without() {
        for zone in [
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
            "Asia/Kathmandu",
            "America/Sao_Paulo",
            "Pacific/Apia",
        ] {
            for line in ["0 22 * * *", "0 0 22 * * *", "15 2 * * *", "45 1 * * *", "0 0 0 * * *"] {
                let all = slots(line, zone, "2026-01-01T12:00:00Z", "2027-01-01T12:00:00Z");
                assert_eq!(all.len(), 365, "{zone} {line}");
            }
        }
    }

    #[test]
    fn what_is_no_line_or_no_zone_is_told_apart() {
        let wrong = |line, zone| Slots::parse(line, zone).expect_err(line);
        for line in ["", "22:00", "0 25 * * *", "* * * *", "0 0 22 * * * 2027", "0 22 * * XYZ"] {
            assert!(matches!(wrong(line, ""), SlotsError::Line(_)), "{line}");
        }
        assert_eq!(wrong("0 22 30 2 *", "UTC"), SlotsError::Never);
        assert!(matches!(wrong("0 22 * * *", "Europe/Berlim"), SlotsError::Zone(_)));
        assert!(matches!(wrong("0 22 * * *", "../etc/passwd"), SlotsError::Zone(_)));
    }
}
