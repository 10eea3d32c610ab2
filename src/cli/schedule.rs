//! `schedule`: what comes next, and when.

use std::io::Write;

use clap::Args;

use crate::clock::{Clock, SystemClock};
use crate::control::ClientError;
use crate::daemon::windows::timetable;
use crate::telemetry::escaped;
use crate::view::schedule::{Schedule as View, Slot};

use super::figures::{Line, Look, Tone, between, local, pad, span};
use super::{ExitCode, Failure, Globals, print_json, runtime, status};

/// The verb.
#[derive(Debug, Args)]
pub struct Schedule {}

impl Schedule {
    /// Runs the verb. Where no daemon runs, what the configuration says is shown.
    ///
    /// # Errors
    /// If the configuration is wrong, or a daemon that runs can not be asked.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let config = globals.load()?;
        let (schedule, runs) = match status::connect(&config) {
            Ok(client) => (runtime()?.block_on(client.schedule())?, true),
            Err(ClientError::NotRunning { .. }) => {
                (View::of_configuration(&timetable(&config), SystemClock.now()), false)
            }
            Err(error) => return Err(error.into()),
        };
        if globals.json {
            print_json(out, &schedule)?;
        } else {
            status::print(&told(&schedule), &Look::of_stdout(), out)?;
        }
        out.flush()?;
        if !runs {
            // It is no part of the schedule. When standard error is gone, nobody wants to know.
            let why = "no daemon is running: this is what the configuration says, and nothing of \
                       it happens before `gemini-batchd run`";
            drop(writeln!(std::io::stderr(), "{why}"));
        }
        Ok(ExitCode::Complete)
    }
}

fn told(schedule: &View) -> Vec<Line> {
    if schedule.entries.is_empty() {
        return vec![Line::plain("nothing is to come")];
    }
    let head = format!("{} {} WHAT", pad("WHEN", WHEN_COLUMNS), pad("IN", IN_COLUMNS));
    let entries = schedule.entries.iter().map(|slot| entry(slot, &schedule.now));
    [Line::of(Tone::Faint, head)].into_iter().chain(entries).collect()
}

fn entry(slot: &Slot, now: &str) -> Line {
    // The second matters to nobody here.
    let at: String = local(&slot.at).chars().take(WHEN_COLUMNS).collect();
    let left = between(now, &slot.at).map(span).unwrap_or_default();
    let tone = if slot.kind == "window" { Tone::Strong } else { Tone::Plain };
    Line::plain(format!("{} {} ", pad(&at, WHEN_COLUMNS), pad(&left, IN_COLUMNS)))
        .and(tone, escaped(&slot.text))
}

/// `2026-11-21 22:00`.
const WHEN_COLUMNS: usize = 16;
/// `23 h 59 min`.
const IN_COLUMNS: usize = 11;
