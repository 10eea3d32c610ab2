//! The deadline of a job in words.

use crate::telemetry::escaped;
use crate::view::DeadlineView;

use super::figures::{Tone, local, number, span};

/// By when a job is wanted, and how that stands.
pub fn deadline(it: &DeadlineView) -> (Tone, String) {
    let late = it.late_s.map(|late| format!("late by about {}", span(late)));
    let rescued = match it.rescued {
        0 => String::new(),
        lines => format!("; {} rescued", number(lines)),
    };
    let (tone, how) = match it.state.as_str() {
        "met" => (Tone::Good, "kept".to_owned()),
        "late" => (Tone::Bad, late.unwrap_or_else(|| "late".to_owned())),
        "missed" => (Tone::Bad, "missed".to_owned()),
        "rescuing" => (Tone::Warn, "lines are asked one by one".to_owned()),
        _ => match (late, &it.expected) {
            (Some(late), _) => (Tone::Warn, late),
            (None, Some(expected)) => {
                (Tone::Plain, format!("expected {}, in time", local(expected)))
            }
            (None, None) if it.state == "danger" => (Tone::Warn, "in danger".to_owned()),
            (None, None) => (Tone::Plain, "nothing is known of the end yet".to_owned()),
        },
    };
    let why = it.not_rescued.as_ref().map(|why| format!("; {}", escaped(why))).unwrap_or_default();
    (tone, format!("{}: {how}{rescued}{why}", local(&it.by)))
}
