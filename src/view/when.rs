//! Moments to come, as people say them: `22:00`, `Saturday 22:00`, `2026-12-24 22:00`.

use jiff::Zoned;
use jiff::tz::TimeZone;

use crate::engine::ids::Millis;
use crate::engine::job::{Job, Queue};
use crate::slots::zone_of;

/// A moment to come, in the time zone of an IANA name, which is told then; empty: in that of this
/// machine. Within a day the time is enough, within a week the day's name.
pub fn upcoming(at: Millis, now: Millis, zone: &str) -> String {
    let (zone, named) = match zone_of(zone) {
        Ok(found) if !zone.is_empty() => (found, format!(" {zone}")),
        Ok(found) => (found, String::new()),
        Err(_) => (TimeZone::system(), String::new()),
    };
    let time = zoned(at, &zone);
    let clock = if time.second() == 0 { "%H:%M" } else { "%H:%M:%S" };
    let day = match at.since(now) {
        0..DAY_MS => "",
        DAY_MS..WEEK_MS => "%A ",
        WEEK_MS.. => "%Y-%m-%d ",
    };
    format!("{}{named}", time.strftime(&format!("{day}{clock}")))
}

/// Until when nothing of a job is sent, in words, if it waits for that; see
/// [`Engine::opens`](crate::engine::Engine::opens).
pub fn waits_until(job: &Job, now: Millis) -> Option<String> {
    let opens = job.head.queue.moments.opens.filter(|opens| *opens > now)?;
    let is_cancelled = job.head.state.plan().is_some_and(|plan| plan.cancelled);
    let waits = job.head.state.may_send() && !is_cancelled;
    waits.then(|| upcoming(opens, now, zone_name(&job.head.queue)))
}

/// The time zone that a queue names.
pub fn zone_name(queue: &Queue) -> &str {
    queue.window.as_ref().map_or("", |window| &window.zone)
}

/// A moment in a time zone.
pub fn zoned(at: Millis, zone: &TimeZone) -> Zoned {
    let at = i64::try_from(at.0).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::MAX);
    at.to_zoned(zone.clone())
}

const DAY_MS: u64 = 86_400_000;
const WEEK_MS: u64 = 7 * DAY_MS;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        let moment: jiff::Timestamp = text.parse().expect("a time stamp");
        Millis(u64::try_from(moment.as_millisecond()).expect("after 1970"))
    }

    #[test]
    fn a_moment_is_told_as_shortly_as_it_can_be_understood() {
        let now = at("2026-11-21T11:00:00Z");
        let told = |moment, zone| upcoming(at(moment), now, zone);
        assert_eq!(told("2026-11-21T21:00:00Z", "Europe/Berlin"), "22:00 Europe/Berlin");
        assert_eq!(told("2026-11-22T01:00:30Z", "UTC"), "01:00:30 UTC");
        assert_eq!(told("2026-11-23T21:00:00Z", "UTC"), "Monday 21:00 UTC");
        assert_eq!(told("2026-12-24T21:00:00Z", "UTC"), "2026-12-24 21:00 UTC");
        assert!(!told("2026-11-21T21:00:00Z", "").contains(' '), "the zone is this machine's");
    }
}
