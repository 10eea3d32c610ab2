//! When files of a queue are sent: its release window and its canary. And the morning report.

use std::sync::Arc;

use crate::engine::Window;
use crate::engine::job::{Canary, Tolerance};
use crate::slots::{Slots, SlotsError};

use super::Report;
use super::layers::Layers;

/// Reads the window of one section; `None` if its files go at once.
pub(super) fn window(layers: &mut Layers, section: &str) -> Option<Arc<Window>> {
    let window =
        Window { release: layers.text(section, RELEASE), zone: layers.text(section, ZONE) };
    // A zone without a window is for deadlines, and has to be one all the same.
    let line = if window.release.is_empty() { "0 0 * * *" } else { &window.release };
    match Slots::parse(line, &window.zone) {
        Ok(_) => {}
        Err(SlotsError::Zone(why)) => {
            let why = format!(
                "{section}.{ZONE} is {:?}, which is no time zone of this machine: {why}; write a name \
                 like \"Europe/Berlin\" or \"UTC\"",
                window.zone
            );
            complain(layers, section, ZONE, why);
        }
        Err(why @ (SlotsError::Line(_) | SlotsError::Never)) => {
            let why = format!(
                "{section}.{RELEASE} is {:?}: {why}; write five fields: minute, hour, day, month, \
                 weekday, such as \"0 22 * * *\" for every day at 22:00, or six with seconds first",
                window.release
            );
            complain(layers, section, RELEASE, why);
        }
    }
    (!window.release.is_empty()).then(|| Arc::new(window))
}

/// Reads the canary of one section; `None` if it has none.
pub(super) fn canary(layers: &mut Layers, section: &str) -> Option<Canary> {
    let lines = layers.integer(section, "canary", 0, CANARY_LINES_MAX);
    let text = layers.text(section, LIMIT);
    let limit = match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.trim().parse().ok().filter(|percent| *percent < 100);
            percent.map(Tolerance::Percent)
        }
        None => text.trim().parse().ok().map(Tolerance::Lines),
    };
    let Some(limit) = limit else {
        let why = format!(
            "{section}.{LIMIT} is {text:?}; write a share below 100 such as \"10%\", or a number of \
             lines such as \"2\""
        );
        complain(layers, section, LIMIT, why);
        return None;
    };
    (lines > 0).then_some(Canary { lines, limit })
}

/// Reads the section of the morning report.
pub(super) fn report(layers: &mut Layers) -> Report {
    let schedule = layers.text("report", "schedule");
    if !schedule.is_empty()
        && let Err(why) = Slots::parse(&schedule, "")
    {
        let why = format!(
            "report.schedule is {schedule:?}: {why}; write fields like \"0 7 * * *\" for every day \
             at 07:00, or an empty text for no report"
        );
        complain(layers, "report", "schedule", why);
    }
    Report { schedule, keep: layers.duration("report", "keep") }
}

/// A queue that inherits the value does not repeat the complaint.
fn complain(layers: &mut Layers, section: &str, key: &'static str, why: String) {
    let origin = layers.get(section, key).origin.clone();
    let place = origin.to_string();
    if !layers.problems.iter().any(|seen| seen.place == place) {
        layers.problem(&origin, why);
    }
}

const LIMIT: &str = "canary_limit";
/// More lines than that are no canary.
const CANARY_LINES_MAX: i64 = 10_000;
const RELEASE: &str = "release";
const ZONE: &str = "time_zone";
