//! `events`: what happened, and what happens.

use std::io::Write;

use clap::Args;

use crate::view::Event;
use crate::view::event::EventQuery;

use super::figures::Look;
use super::jobs_told::event;
use super::{ExitCode, Failure, Globals, print_json, runtime, status};

/// The verb.
#[derive(Debug, Args)]
pub struct Events {
    /// Only those of one job: its id, or the first characters of it (at least 4)
    pub job: Option<String>,
    /// Go on with what happens, until Ctrl-C; with --json one object a line
    #[arg(long, short)]
    pub follow: bool,
}

impl Events {
    /// Runs the verb.
    ///
    /// # Errors
    /// If no daemon is running, or the job is not known.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let config = globals.load()?;
        let client = status::reach(&config)?;
        let runtime = runtime()?;
        let look = Look { columns: None, ..Look::of_stdout() };
        let job = match &self.job {
            Some(prefix) => Some(runtime.block_on(client.job(prefix))?.id),
            None => None,
        };
        let told = match &job {
            Some(id) => runtime.block_on(client.job_events(id, MOST))?,
            None => {
                let query = EventQuery { limit: Some(MOST), ..EventQuery::default() };
                runtime.block_on(client.events(&query))?
            }
        };
        if globals.json && !self.follow {
            print_json(out, &told)?;
            return Ok(ExitCode::Complete);
        }
        let mut tell = |one: &Event| -> Result<(), Failure> {
            if globals.json {
                serde_json::to_writer(&mut *out, one).map_err(std::io::Error::from)?;
                writeln!(out)?;
            } else {
                writeln!(out, "{}", event(one, job.is_none()).shown(&look))?;
            }
            Ok(out.flush()?)
        };
        told.events.iter().try_for_each(&mut tell)?;
        if self.follow {
            let following = runtime.block_on(client.follow_events(Some(told.next), job.as_deref()));
            let mut following = following?;
            while let Some(one) = runtime.block_on(following.next())? {
                tell(&one)?;
            }
            let ended = anyhow::Error::msg("the daemon has ended");
            let remedy = "start it with `gemini-batchd run` (or `systemctl start gemini-batchd`)";
            return Err(Failure::new(ExitCode::Failed, ended).with_remedy(remedy));
        }
        if told.events.is_empty() {
            writeln!(out, "nothing is known to have happened")?;
        }
        Ok(ExitCode::Complete)
    }
}

/// Events asked for at once.
const MOST: usize = 1000;
