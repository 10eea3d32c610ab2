//! The moments at which release windows open: worked out when a file is found, and once more when
//! the clock turns out to have been wrong then.

use std::sync::Arc;

use crate::config::Config;
use crate::engine::Window;
use crate::engine::effect::Turn;
use crate::engine::ids::Millis;
use crate::engine::job::Queue;
use crate::slots::Slots;
use crate::view::schedule::Timetable;

use super::deadlines::deliver_by;
use super::{Daemon, add, lock};

/// Works out moments; many files of one queue cost little more than one.
#[derive(Debug, Default)]
pub struct Openings {
    latest: Option<(Arc<Window>, Option<Slots>)>,
}

impl Openings {
    /// When a file may be sent that came at this moment: the first slot after that, so that one that
    /// was missed is caught up at once. `None`: there is no window, so at once. A moment that lies
    /// in the future is not believed.
    pub fn of(&mut self, queue: &Queue, came: Millis, now: Millis) -> Option<Millis> {
        let window = queue.window.as_ref()?;
        if self.latest.as_ref().is_none_or(|(latest, _)| latest != window) {
            let slots = Slots::parse(&window.release, &window.zone);
            if let Err(error) = &slots {
                // The configuration was checked: the time zones of this machine have changed.
                let (release, zone) = (&window.release, &window.zone);
                tracing::error!(release, zone, %error, "a release window can not be told");
            }
            self.latest = Some((Arc::clone(window), slots.ok()));
        }
        let slots = self.latest.as_ref().and_then(|(_, slots)| slots.as_ref())?;
        slots.after(came.min(now))
    }
}

impl Daemon {
    /// Files that were claimed by a clock that was ahead do not wait for what it said then: the next
    /// slot counts.
    pub(super) fn mend_windows(&mut self, turn: &mut Turn, now: Millis) {
        let mut engine = lock(&self.engine);
        let mut openings = Openings::default();
        for id in engine.windows_in_doubt(now) {
            let queue = engine.job(id).map(|job| job.head.queue.clone());
            if let Some(mut queue) = queue {
                queue.moments.opens = openings.of(&queue, now, now);
                queue.moments.deliver_by = deliver_by(&queue, now);
                let more = engine.set_moments(id, queue.moments, now);
                add(turn, more);
            }
        }
    }
}

/// What a configuration says about moments to come.
pub fn timetable(config: &Config) -> Timetable {
    let windows = config
        .queues
        .iter()
        .filter_map(|(name, queue)| Some((name.clone(), queue.window.as_deref()?.clone())));
    Timetable {
        housekeeping: config.housekeeping.schedule.clone(),
        report: config.report.schedule.clone(),
        windows: windows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        let moment: jiff::Timestamp = text.parse().expect("a time stamp");
        Millis(u64::try_from(moment.as_millisecond()).expect("after 1970"))
    }

    fn opens(came: &str, now: &str) -> Option<Millis> {
        let window = Window { release: "0 22 * * *".to_owned(), zone: "Europe/Berlin".to_owned() };
        let queue = Queue { window: Some(Arc::new(window)), ..Queue::default() };
        Openings::default().of(&queue, at(came), at(now))
    }

    #[test]
    fn a_file_waits_for_the_first_slot_after_it_came_and_a_missed_one_counts() {
        let evening = "2026-11-21T21:00:00Z";
        let noon = "2026-11-21T11:00:00Z";
        assert_eq!(opens(noon, noon), Some(at(evening)));
        // The daemon was not there at 22:00.
        assert_eq!(opens(noon, "2026-11-22T08:00:00Z"), Some(at(evening)));
        assert_eq!(opens(evening, evening), Some(at("2026-11-22T21:00:00Z")));
    }

    #[test]
    fn a_time_in_the_future_is_not_believed() {
        let noon = "2026-11-21T11:00:00Z";
        assert_eq!(opens("2036-01-01T00:00:00Z", noon), Some(at("2026-11-21T21:00:00Z")));
    }

    #[test]
    fn without_a_window_there_is_nothing_to_wait_for() {
        assert_eq!(Openings::default().of(&Queue::default(), Millis(0), Millis(1)), None);
    }
}
