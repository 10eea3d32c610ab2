//! By when the results of a file are wanted, worked out when it is claimed.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::engine::ids::Millis;
use crate::engine::job::{By, Queue};

/// The moment by which the results of a file are wanted that is claimed `now`, if its queue says.
/// A time of day is the next one after the file may go; where clocks skip it, it is as much later,
/// and of two it is the first.
pub(super) fn deliver_by(queue: &Queue, now: Millis) -> Option<Millis> {
    let deadline = queue.deadline.as_deref()?;
    let from = queue.moments.opens.map_or(now, |opens| opens.max(now));
    match deadline.by? {
        By::Within(span_ms) => Some(from.plus(span_ms)),
        By::At(minute) => {
            let named = deadline.zone.as_deref().map(TimeZone::get);
            // That there is such a zone was checked with the configuration; a machine may lose it.
            let zone = named.and_then(Result::ok).unwrap_or_else(TimeZone::system);
            next_at(minute, &zone, from)
        }
    }
}

fn next_at(minute: u16, zone: &TimeZone, from: Millis) -> Option<Millis> {
    let from = Timestamp::from_millisecond(i64::try_from(from.0).ok()?).ok()?;
    let today = from.to_zoned(zone.clone()).date();
    let (hour, minute) = (i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?);
    // A day can be skipped as a whole where a zone changes sides of the date line.
    (0..=3).find_map(|days| {
        let date = today.checked_add(Span::new().days(days)).ok()?;
        let at = date.at(hour, minute, 0, 0).to_zoned(zone.clone()).ok()?.timestamp();
        (at > from).then(|| Millis(at.as_millisecond().unsigned_abs()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        let moment: Timestamp = text.parse().expect("a time stamp");
        Millis(u64::try_from(moment.as_millisecond()).expect("after 1970"))
    }

    fn next(zone: &str, hour: u16, from: &str) -> String {
        let zone = TimeZone::get(zone).expect("a zone of the database");
        let next = next_at(hour * 60 + 30, &zone, at(from)).expect("a moment");
        Timestamp::from_millisecond(next.0 as i64).expect("a moment").to_string()
    }

    #[test]
    fn a_time_of_day_is_the_next_one_whatever_the_clocks_do() {
        let cases = [
            ("Europe/Berlin", 6, "2026-11-21T20:00:00Z", "2026-11-22T05:30:00Z"),
            ("Europe/Berlin", 6, "2026-11-22T05:30:00Z", "2026-11-23T05:30:00Z"),
            // 02:30 does not exist on this day, and comes twice on that one.
            ("Europe/Berlin", 2, "2026-03-28T23:00:00Z", "2026-03-29T01:30:00Z"),
            ("Europe/Berlin", 2, "2026-10-24T23:00:00Z", "2026-10-25T00:30:00Z"),
            ("America/New_York", 2, "2026-03-08T04:00:00Z", "2026-03-08T07:30:00Z"),
            // Here the clocks go from 02:00 to 02:30, and to nothing in between.
            ("Australia/Lord_Howe", 2, "2026-10-03T10:00:00Z", "2026-10-03T15:30:00Z"),
            ("Asia/Kathmandu", 6, "2026-01-01T00:00:00Z", "2026-01-01T00:45:00Z"),
            // The 30th of December 2011 was skipped there.
            ("Pacific/Apia", 6, "2011-12-29T17:00:00Z", "2011-12-30T16:30:00Z"),
        ];
        for (zone, hour, from, expected) in cases {
            assert_eq!(next(zone, hour, from), expected, "{zone} {from}");
        }
    }

    #[test]
    fn it_counts_from_when_the_file_may_go() {
        let queue = |by, opens: Option<&str>| {
            let deadline = crate::engine::job::Deadline {
                by: Some(by),
                zone: Some("UTC".into()),
                ..crate::engine::job::Deadline::USUAL
            };
            let mut queue = Queue { deadline: Some(deadline.into()), ..Queue::default() };
            queue.moments.opens = opens.map(at);
            queue
        };
        let now = at("2026-11-21T12:00:00Z");
        let span = By::Within(3_600_000);
        assert_eq!(deliver_by(&Queue::default(), now), None);
        assert_eq!(deliver_by(&queue(span, None), now), Some(at("2026-11-21T13:00:00Z")));
        let opens = Some("2026-11-21T22:00:00Z");
        assert_eq!(deliver_by(&queue(span, opens), now), Some(at("2026-11-21T23:00:00Z")));
        let six = By::At(360);
        assert_eq!(deliver_by(&queue(six, opens), now), Some(at("2026-11-22T06:00:00Z")));
        let evening = By::At(18 * 60);
        assert_eq!(deliver_by(&queue(evening, opens), now), Some(at("2026-11-22T18:00:00Z")));
    }
}
