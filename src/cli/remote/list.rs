//! `remote list`: batches at the API, told as their pages come in.

use std::io::{self, Write};
use std::ops::ControlFlow;

use serde_json::{Value, json};

use crate::engine::ids::Millis;
use crate::provider::gemini::Described;
use crate::view::{VERSION, moment};

use super::super::{ExitCode, Failure, print_json};
use super::{Api, words};

/// Lists the batches of this program, or all of them.
///
/// # Errors
/// If a page can not be had, or nothing be written.
pub fn list(api: &Api, all: bool, openai: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let mut listing = Listing { api, all, out, rows: Vec::new(), shown: 0, others: 0 };
    let mut broken = None;
    let each = |batch: Described| match listing.take(&batch) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            broken = Some(error);
            ControlFlow::Break(())
        }
    };
    let read = match openai {
        true => api.wait(api.client.each_layer_batch(each))?,
        false => api.wait(api.client.each_batch(each)).map(Ok)?,
    };
    if let Some(error) = broken {
        return Err(Failure::from(error));
    }
    match read {
        Ok(unreadable) => Ok(listing.end(unreadable)?),
        Err(why) => {
            let message = format!("the API shows no list of these batches: {why}");
            let failure = Failure::new(ExitCode::Failed, anyhow::Error::msg(message));
            Err(failure.with_remedy("name one: `gemini-batchd remote get openai/batches/x`"))
        }
    }
}

/// A batch as `--json` tells it.
pub fn as_json(batch: &Described) -> Value {
    let remote = &batch.remote;
    let ours = batch.ours();
    let error = remote.error.as_ref();
    json!({
        "name": remote.name.0,
        "display_name": remote.display_name,
        "ours": ours.is_some(),
        "job": ours.map(|(job, _, _)| job.to_string()),
        "chunk": ours.map(|(_, chunk, _)| chunk.0),
        "attempt": ours.map(|(_, _, attempt)| attempt.0),
        "state": remote.state.as_str(),
        "over": remote.is_finished(),
        "model": Some(&batch.model).filter(|model| !model.is_empty()),
        "created": remote.created.map(moment),
        "ended": remote.ended.map(moment),
        "lines": {
            "total": batch.counts.total,
            "answered": batch.counts.answered,
            "failed": batch.counts.failed,
        },
        "input_file": remote.input_file.as_ref().map(|file| &file.0),
        "output_file": remote.output_file.as_ref().map(|file| &file.0),
        "error": error.map(|error| json!({"code": error.code, "message": error.message})),
    })
}

/// A list that is being told.
struct Listing<'a> {
    api: &'a Api,
    all: bool,
    out: &'a mut dyn Write,
    /// Only kept for JSON.
    rows: Vec<Value>,
    shown: u64,
    /// Batches of others, which are not shown.
    others: u64,
}

impl Listing<'_> {
    fn take(&mut self, batch: &Described) -> io::Result<()> {
        if !self.all && batch.ours().is_none() {
            self.others += 1;
            return Ok(());
        }
        if self.api.json {
            self.rows.push(as_json(batch));
        } else {
            if self.shown == 0 {
                writeln!(self.out, "  {:<46} {:<10} {:>8} LINES", "NAME", "STATE", "AGE")?;
            }
            row(batch, self.api.now(), self.out)?;
        }
        self.shown += 1;
        Ok(())
    }

    fn end(self, unreadable: usize) -> io::Result<()> {
        if self.api.json {
            return print_json(
                self.out,
                &json!({
                    "version": VERSION,
                    "batches": self.rows,
                    "others": self.others,
                    "unreadable": unreadable,
                }),
            );
        }
        if self.shown == 0 {
            writeln!(self.out, "no batches{}", if self.all { "" } else { " of this program" })?;
        }
        if self.others > 0 {
            writeln!(self.out, "{} of others are not shown; --all shows them", self.others)?;
        }
        if unreadable > 0 {
            writeln!(self.out, "{unreadable} entries of the list could not be read")?;
        }
        Ok(())
    }
}

/// A batch in one line, and in a second one whose it is.
fn row(batch: &Described, now: Millis, out: &mut dyn Write) -> io::Result<()> {
    let remote = &batch.remote;
    let ours = batch.ours();
    let age = remote.created.map_or_else(|| "?".to_owned(), |at| words::span(now.since(at)));
    let line = format!(
        "{} {:<46} {:<10} {age:>8} {}",
        if ours.is_some() { '*' } else { ' ' },
        remote.name.0,
        words::short(remote.state.as_str(), 10),
        words::progress(batch.counts),
    );
    writeln!(out, "{}", line.trim_end())?;
    match ours {
        Some(ours) => writeln!(out, "    {}", words::attempt(ours))?,
        None if remote.display_name.is_empty() => {}
        None => writeln!(out, "    {}", words::short(&remote.display_name, 76))?,
    }
    match &remote.error {
        Some(error) => {
            let text = format!("error {}: {}", error.code, error.message);
            writeln!(out, "    {}", words::short(&text, 76))
        }
        None => Ok(()),
    }
}
