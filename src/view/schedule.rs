//! What comes next, and when: windows, deadlines, the morning report, housekeeping, and jobs that
//! wait for a moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::ids::Millis;
use crate::engine::job::Job;
use crate::engine::{Engine, Window};
use crate::slots::Slots;

use super::when::{upcoming, waits_until};
use super::words::plural;
use super::{VERSION, file_of, moment};

/// What the configuration says about moments to come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timetable {
    /// The cron line of housekeeping.
    pub housekeeping: String,
    /// The cron line of the morning report; empty: there is none.
    pub report: String,
    /// The queues that have a window.
    pub windows: Vec<(String, Window)>,
}

/// Moments to come, the next one first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Schedule {
    /// The version of this interface: [`super::VERSION`].
    pub version: u32,
    /// The moment it was made, RFC 3339.
    pub now: String,
    /// What comes; of deadlines and of jobs that wait, at most a hundred each.
    pub entries: Vec<Slot>,
}

/// One moment to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Slot {
    /// When, RFC 3339.
    pub at: String,
    /// `window`, `deadline`, `wakeup`, `report` or `housekeeping`.
    pub kind: String,
    /// The queue of a window.
    pub queue: Option<String>,
    /// Files that wait for that window; unknown where no daemon runs.
    pub files: Option<u64>,
    /// The job of a deadline, or one that waits.
    pub job: Option<String>,
    /// Its file.
    pub file: Option<String>,
    /// The same in words.
    pub text: String,
}

impl Schedule {
    /// What comes next for a daemon.
    pub fn of(timetable: &Timetable, engine: &Engine, now: Millis) -> Schedule {
        let mut windows: BTreeMap<(Millis, &str), (u64, &str)> = BTreeMap::new();
        let (mut deadlines, mut wakeups) = (Vec::new(), Vec::new());
        for job in engine.unfinished().filter(|job| !job.is_over()) {
            let queue = &job.head.queue;
            if waits_until(job, now).is_some()
                && let Some(opens) = queue.moments.opens
            {
                let zone = super::when::zone_name(queue);
                windows.entry((opens, &queue.name)).or_insert((0, zone)).0 += 1;
            } else if let Some(wakes) = engine.wakes(job).filter(|wakes| *wakes > now) {
                wakeups.push((wakes, job));
            }
            if let Some(by) = queue.moments.deliver_by.filter(|by| *by > now) {
                deadlines.push((by, job));
            }
        }
        let mut all = Vec::new();
        for (name, window) in &timetable.windows {
            if let Some(slot) = next(&window.release, &window.zone, now) {
                windows.entry((slot, name)).or_insert((0, &window.zone));
            }
        }
        for ((at, queue), (files, zone)) in windows {
            all.push((at, Slot::of_window(at, queue, Some(files), zone, now)));
        }
        all.extend(of_jobs(deadlines, "deadline", "its results are wanted by then"));
        all.extend(of_jobs(wakeups, "wakeup", "goes on after a pause"));
        all.extend(timetable.rounds(now));
        Schedule::ordered(all, now)
    }

    /// The same where no daemon runs: what the configuration alone says.
    pub fn of_configuration(timetable: &Timetable, now: Millis) -> Schedule {
        let windows = timetable.windows.iter().filter_map(|(name, window)| {
            let at = next(&window.release, &window.zone, now)?;
            Some((at, Slot::of_window(at, name, None, &window.zone, now)))
        });
        Schedule::ordered(windows.chain(timetable.rounds(now)).collect(), now)
    }

    fn ordered(mut all: Vec<(Millis, Slot)>, now: Millis) -> Schedule {
        all.sort_by_key(|(at, _)| *at);
        let entries = all.into_iter().map(|(_, slot)| slot).collect();
        Schedule { version: VERSION, now: moment(now), entries }
    }
}

impl Timetable {
    fn rounds(&self, now: Millis) -> impl Iterator<Item = (Millis, Slot)> {
        let rounds = [
            (&self.report, "report", "the morning report is written"),
            (&self.housekeeping, "housekeeping", "what is old is tidied up"),
        ];
        let slot = move |(line, kind, text): (&String, &'static str, &'static str)| {
            let at = next(line, "", now)?;
            Some((at, Slot::new(at, kind, text.to_owned())))
        };
        rounds.into_iter().filter(|(line, ..)| !line.is_empty()).filter_map(slot)
    }
}

impl Slot {
    fn new(at: Millis, kind: &str, text: String) -> Slot {
        let kind = kind.to_owned();
        Slot { at: moment(at), kind, queue: None, files: None, job: None, file: None, text }
    }

    fn of_window(at: Millis, queue: &str, files: Option<u64>, zone: &str, now: Millis) -> Slot {
        let waits = match files {
            None => String::new(),
            Some(0) => ": no file waits".to_owned(),
            Some(1) => ": 1 file waits".to_owned(),
            Some(files) => format!(": {} wait", plural(files, "file", "files")),
        };
        let zone = match zone {
            "" => String::new(),
            zone => format!(" ({})", upcoming(at, now, zone)),
        };
        let text = format!("the window of queue {queue} opens{zone}{waits}");
        Slot { queue: Some(queue.to_owned()), files, ..Slot::new(at, "window", text) }
    }
}

fn of_jobs<'a>(
    mut jobs: Vec<(Millis, &'a Job)>,
    kind: &'static str,
    text: &'static str,
) -> impl Iterator<Item = (Millis, Slot)> + 'a {
    jobs.sort_by_key(|(at, job)| (*at, job.head.id));
    jobs.truncate(JOBS_MAX);
    jobs.into_iter().map(move |(at, job)| {
        let file = file_of(&job.head.source);
        let slot = Slot::new(at, kind, format!("{file}: {text}"));
        (at, Slot { job: Some(job.head.id.to_string()), file: Some(file), ..slot })
    })
}

/// The next slot of a line that was checked before.
fn next(line: &str, zone: &str, now: Millis) -> Option<Millis> {
    Slots::parse(line, zone).ok()?.after(now)
}

/// Jobs that are named, of each kind.
const JOBS_MAX: usize = 100;
