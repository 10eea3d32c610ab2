//! `plan`: shows the batches a file would become, and sends nothing.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, bytes_text};
use crate::daemon::policy_of;
use crate::engine::Keys;
use crate::engine::estimate::Forecast;
use crate::engine::event::PlannedChunk;
use crate::engine::job::{Queue, Rest};
use crate::engine::money::{Amount, Tier};
use crate::spool::cache::Cache;
use crate::spool::reuse;
use crate::telemetry::escaped;

use super::lint::Reading;
use super::{ExitCode, Failure, Globals, print_json};

/// The verb.
#[derive(Debug, Args)]
pub struct Plan {
    /// The file
    pub file: PathBuf,
    /// The queue whose settings count: a sub-folder of the inbox
    #[arg(long, value_name = "Q", default_value = "default")]
    pub queue: String,
}

impl Plan {
    /// Runs the verb.
    ///
    /// # Errors
    /// If the file can not be read, or not be used at all.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let config = globals.load()?;
        let reading = Reading::of(&self.file, &config, &self.queue)?;
        let queue = reading.queue();
        let planned = reading.planned(&self.file)?;
        let chunks: Vec<Chunk> =
            planned.chunks.iter().map(|chunk| Chunk::of(chunk, queue, &config)).collect();
        let bytes: u64 = chunks.iter().map(|chunk| chunk.bytes).sum();
        let known = known(&config, &reading, queue, planned.rows)?;
        let forecast = |chunk| Chunk::forecast(chunk, queue);
        let all = planned.chunks.iter().map(forecast);
        let forecast = all.fold(Forecast::default(), Forecast::plus);
        let cost = Cost::of(&forecast, queue, &config);
        if globals.json {
            let all: Vec<_> = chunks.iter().map(Chunk::to_json).collect();
            let plan = json!({
                "file": self.file.display().to_string(), "queue": queue.name, "model": queue.model,
                "requests": planned.rows, "invalid": planned.invalid, "bytes": bytes,
                "prompt_tokens_about": forecast.input, "reused": known,
                "output_tokens_about": {"likely": forecast.likely, "most": forecast.most},
                "cost": cost.as_ref().map(Cost::to_json), "batches": all,
            });
            print_json(out, &plan)?;
            return Ok(ExitCode::Complete);
        }
        let file = escaped(&self.file.display().to_string());
        writeln!(out, "{file}: queue {}, model {}", escaped(&queue.name), queue.model)?;
        writeln!(
            out,
            "{} requests, {} of them not valid (see `gemini-batchd lint`); {} to send, about {} \
             prompt tokens",
            planned.rows,
            planned.invalid,
            bytes_text(bytes),
            forecast.input
        )?;
        writeln!(out, "{} to {} tokens of answers", forecast.likely, forecast.most)?;
        match &cost {
            Some(cost) => cost.tell(out)?,
            None => writeln!(
                out,
                "cost not known: there is no [price.{:?}] in the configuration",
                queue.model
            )?,
        }
        for (number, chunk) in (1..).zip(&chunks) {
            chunk.tell(number, out)?;
        }
        if let Some(known) = known {
            writeln!(out, "{known} of them were answered before: those are used again, not sent")?;
        }
        for warning in &planned.warnings {
            writeln!(out, "warning: {}", escaped(warning))?;
        }
        Ok(ExitCode::Complete)
    }
}

/// Of a file's requests, those whose answers are in the cache; `None` if the queue uses none.
fn known(
    config: &Config,
    reading: &Reading,
    queue: &Queue,
    rows: u64,
) -> Result<Option<u64>, Failure> {
    if queue.cache_ms == 0 {
        return Ok(None);
    }
    let cache = Cache::to_look_at(&config.folders.state);
    let (requests, lines) = reading.requests_and_lines();
    Ok(Some(reuse::known(requests, &lines, rows, queue, &cache, SystemClock.now())?))
}

/// What all batches of a file will cost.
struct Cost {
    currency: String,
    likely: Amount,
    most: Amount,
    budget: Option<Amount>,
}

impl Cost {
    fn of(forecast: &Forecast, queue: &Queue, config: &Config) -> Option<Cost> {
        let price = config.means.prices.get(&queue.model)?;
        let (likely, most) = (price.likely(forecast), price.most(forecast, Tier::Batch));
        Some(Cost { currency: config.means.currency.clone(), likely, most, budget: queue.budget })
    }

    fn tell(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let Cost { currency, likely, most, budget } = self;
        write!(out, "cost about {} to {} {currency}", likely.told(), most.told())?;
        match budget {
            Some(budget) if most > budget => writeln!(
                out,
                ": more than the budget of {}, so that it would be held",
                budget.told()
            ),
            Some(budget) => writeln!(out, ", within the budget of {}", budget.told()),
            None => writeln!(out),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let Cost { currency, likely, most, budget } = self;
        json!({"currency": currency, "likely": likely.to_string(), "most": most.to_string(),
            "budget": budget.map(|budget| budget.to_string())})
    }
}

/// A batch to be.
struct Chunk {
    first: u64,
    last: u64,
    lines: u64,
    bytes: u64,
    transport: &'static str,
}

impl Chunk {
    fn of(planned: &PlannedChunk, queue: &Queue, config: &Config) -> Chunk {
        let lines = planned.left.rows + planned.right.rows;
        let bytes = planned.left.bytes + planned.right.bytes;
        let policy = policy_of(config, Keys::default());
        let rest = Rest { left: planned.left, right: planned.right };
        let transport = if policy.goes_inline(queue, rest) { "inline" } else { "file" };
        let (first, last) = (planned.rows.first.0, planned.rows.last.0);
        Chunk { first, last, lines, bytes, transport }
    }

    /// What a batch will take, by a sample of its requests.
    fn forecast(planned: &PlannedChunk, queue: &Queue) -> Forecast {
        let rest = Rest { left: planned.left, right: planned.right };
        Forecast::of(planned.density.unwrap_or_default(), rest, queue.task, None)
    }

    fn tell(&self, number: u64, out: &mut dyn Write) -> std::io::Result<()> {
        let Chunk { first, last, lines, bytes, transport } = self;
        let bytes = bytes_text(*bytes);
        writeln!(
            out,
            "  batch {number}: requests {first} to {last}, {lines} to send, {bytes}, {transport}"
        )
    }

    fn to_json(&self) -> serde_json::Value {
        json!({"first": self.first, "last": self.last, "lines": self.lines, "bytes": self.bytes,
            "transport": self.transport})
    }
}
