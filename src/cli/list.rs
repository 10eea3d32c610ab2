//! `list`: jobs as a table, or as JSON, page after page as they come.

use std::io::Write;

use clap::Args;

use crate::clock::{Clock, SystemClock};
use crate::view::{JobList, JobQuery, STATES, VERSION, moment};

use super::figures::{Look, number};
use super::jobs_told::{row, row_head};
use super::{ExitCode, Failure, Globals, runtime, status};

/// The verb.
#[derive(Debug, Args)]
pub struct List {
    /// Only these states, with commas between them
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = STATES)]
    pub state: Vec<String>,
    /// Only those of this queue
    #[arg(long, value_name = "Q")]
    pub queue: Option<String>,
    /// Only those with this text in the name of their file
    #[arg(long, value_name = "TEXT")]
    pub file: Option<String>,
    /// Only those taken so long ago (2h, 7d), or since a day or a moment (2026-11-21)
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// The oldest first
    #[arg(long)]
    pub oldest: bool,
    /// At most so many; 0 for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
}

impl List {
    /// Runs the verb.
    ///
    /// # Errors
    /// If no daemon is running, or `--since` is not understood.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let client = status::reach(&globals.load()?)?;
        let runtime = runtime()?;
        let mut writer = Writer { json: globals.json, look: Look::of_stdout(), written: 0 };
        let mut query = self.query();
        let mut total;
        loop {
            let left = self.limit.checked_sub(writer.written).filter(|_| self.limit > 0);
            query.limit = Some(left.map_or(PAGE, |left| left.min(PAGE)));
            let page = runtime.block_on(client.jobs(&query))?;
            total = page.total;
            writer.page(&page, out)?;
            let full = self.limit > 0 && writer.written >= self.limit;
            match page.next {
                Some(next) if !full => query.after = Some(next),
                Some(_) | None => break,
            }
        }
        writer.end(total, out)?;
        out.flush()?;
        let shown = writer.written as u64;
        if !globals.json && shown < total {
            // What is no job goes to standard error. When that is gone, nobody wants to know.
            let (shown, total) = (number(shown), number(total));
            let more = format!("{shown} of {total} jobs; --limit 0 shows all of them");
            drop(writeln!(std::io::stderr(), "{more}"));
        }
        Ok(ExitCode::Complete)
    }

    fn query(&self) -> JobQuery {
        JobQuery {
            state: Some(self.state.join(",")).filter(|states| !states.is_empty()),
            queue: self.queue.clone(),
            file: self.file.clone(),
            since: self.since.clone(),
            order: self.oldest.then(|| "oldest".to_owned()),
            ..JobQuery::default()
        }
    }
}

/// Writes page after page, and keeps none.
struct Writer {
    json: bool,
    look: Look,
    written: usize,
}

impl Writer {
    fn page(&mut self, page: &JobList, out: &mut dyn Write) -> Result<(), Failure> {
        let now = moment(SystemClock.now());
        for job in &page.jobs {
            match (self.json, self.written) {
                (true, 0) => write!(out, "{{\"version\": {VERSION}, \"jobs\": [\n  ")?,
                (true, _) => write!(out, ",\n  ")?,
                (false, 0) => writeln!(out, "{}", row_head().shown(&self.look))?,
                (false, _) => {}
            }
            if self.json {
                serde_json::to_writer(&mut *out, job).map_err(std::io::Error::from)?;
            } else {
                writeln!(out, "{}", row(job, &now).shown(&self.look))?;
            }
            self.written += 1;
        }
        Ok(())
    }

    fn end(&self, total: u64, out: &mut dyn Write) -> Result<(), Failure> {
        match (self.json, self.written) {
            (true, 0) => {
                writeln!(out, "{{\"version\": {VERSION}, \"jobs\": [], \"total\": {total}}}")?
            }
            (true, _) => writeln!(out, "\n], \"total\": {total}}}")?,
            (false, 0) => writeln!(out, "no jobs like that")?,
            (false, _) => {}
        }
        Ok(())
    }
}

/// Jobs asked for at once.
const PAGE: usize = 500;
