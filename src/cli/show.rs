//! `show`: everything about one job, and what happened to it.

use std::io::Write;

use clap::Args;

use super::figures::{Line, Look, Tone};
use super::jobs_told::{details, event};
use super::{ExitCode, Failure, Globals, print_json, runtime, status};

/// The verb.
#[derive(Debug, Args)]
pub struct Show {
    /// The job's id, or the first characters of it (at least 4)
    pub job: String,
}

impl Show {
    /// Runs the verb.
    ///
    /// # Errors
    /// If no daemon is running, or the job is not known.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let client = status::reach(&globals.load()?)?;
        let runtime = runtime()?;
        let job = runtime.block_on(client.job(&self.job))?;
        let told = runtime.block_on(client.job_events(&job.id, SHOWN))?;
        if globals.json {
            let version = crate::view::VERSION;
            let all = serde_json::json!({"version": version, "job": job, "events": told.events});
            print_json(out, &all)?;
            return Ok(ExitCode::Complete);
        }
        let look = Look::of_stdout();
        let mut lines = details(&job, &look);
        if !told.events.is_empty() {
            lines.push(Line::of(Tone::Faint, "events"));
            let indented = |line: Line| Line::plain("  ").followed_by(line);
            lines.extend(told.events.iter().map(|one| indented(event(one, false))));
        }
        status::print(&lines, &Look { columns: None, ..look }, out)?;
        Ok(ExitCode::Complete)
    }
}

/// Events shown; `events` has more.
const SHOWN: usize = 100;
