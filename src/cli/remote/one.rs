//! `remote get`, `remote cancel` and `remote delete`: one batch at the API.

use std::io::Write;

use serde_json::json;

use crate::engine::ids::{BatchName, Millis};
use crate::provider::gemini::Described;
use crate::provider::gemini::layer_batch::is_of_layer;
use crate::telemetry::escaped;
use crate::view::{VERSION, moment};

use super::super::{ExitCode, Failure, print_json};
use super::{Api, Asked, gone, list, words};

/// Shows a batch.
///
/// # Errors
/// If it is not there, or the API can not be asked.
pub fn get(api: &Api, name: &BatchName, out: &mut dyn Write) -> Result<(), Failure> {
    let batch = find(api, name)?;
    if api.json {
        print_json(out, &json!({"version": VERSION, "batch": list::as_json(&batch)}))?;
        return Ok(());
    }
    let remote = &batch.remote;
    let mut line = |word: &str, text: String| writeln!(out, "{word:<9}{text}");
    line("name", remote.name.0.clone())?;
    if let Some(ours) = batch.ours() {
        line("of", words::attempt(ours))?;
    } else if !remote.display_name.is_empty() {
        line("called", escaped(&remote.display_name))?;
    }
    line("state", escaped(remote.state.as_str()))?;
    if !batch.model.is_empty() {
        line("model", escaped(&batch.model))?;
    }
    line("lines", lines(&batch))?;
    for (word, at) in [("created", remote.created), ("ended", remote.ended)] {
        if let Some(at) = at {
            line(word, ago(at, api.now()))?;
        }
    }
    let input = remote.input_file.as_ref().map_or("with the batch", |file| &file.0);
    line("input", input.to_owned())?;
    if let Some(file) = &remote.output_file {
        line("results", file.0.clone())?;
    }
    if let Some(error) = &remote.error {
        line("error", format!("{} (code {})", escaped(&error.message), error.code))?;
    }
    Ok(())
}

/// Asks the API to stop a batch.
///
/// # Errors
/// If it is not there or over already (4), belongs to a job of this spool, or the API refuses.
pub fn cancel(
    api: &Api,
    name: &BatchName,
    force: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let batch = find(api, name)?;
    if batch.remote.is_finished() {
        let state = escaped(batch.remote.state.as_str());
        let message = format!("{} is over already ({state}); nothing was done", name.0);
        let remedy = format!("its results: `gemini-batchd remote results {}`", name.0);
        return Err(
            Failure::new(ExitCode::NothingToDo, anyhow::Error::msg(message)).with_remedy(remedy)
        );
    }
    guard(api, &batch, force)?;
    api.wait(api.client.cancel(name))?;
    told(api, name, "cancel", "is asked to stop; what is answered by then can be fetched", out)
}

/// Removes a batch with its results.
///
/// # Errors
/// If it is not there, not over, belongs to a job of this spool, nobody says yes, or the API
/// refuses.
pub fn delete(
    api: &Api,
    name: &BatchName,
    asked: Asked,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if is_of_layer(name) {
        let message = "the OpenAI-compatible layer has no call that removes a batch";
        return Err(Failure::usage(message.to_owned())
            .with_remedy("leave it: the API forgets it, and its results, by itself"));
    }
    let batch = find(api, name)?;
    if !batch.remote.is_finished() && !asked.force {
        let message = format!("{} is not over; removed now, what it answers is lost", name.0);
        let remedy = format!("`gemini-batchd remote cancel {}` first, or --force", name.0);
        return Err(Failure::new(ExitCode::Failed, anyhow::Error::msg(message)).with_remedy(remedy));
    }
    guard(api, &batch, asked.force)?;
    api.confirm(&format!("Remove {} and its results for good?", name.0), asked)?;
    api.wait(api.client.delete_batch(name))?;
    told(api, name, "delete", "is removed, and its results with it", out)
}

/// The batch of this name.
///
/// # Errors
/// If it is not there, or the API can not be asked.
pub fn find(api: &Api, name: &BatchName) -> Result<Described, Failure> {
    api.wait(api.client.describe(name))?.ok_or_else(|| gone(&name.0))
}

/// Refuses what would hurt a job of this spool.
fn guard(api: &Api, batch: &Described, force: bool) -> Result<(), Failure> {
    match batch.ours() {
        Some((job, _, _)) if !force => api.guard(job, &batch.remote.name.0),
        Some(_) | None => Ok(()),
    }
}

fn told(
    api: &Api,
    name: &BatchName,
    asked: &str,
    says: &str,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match api.json {
        true => {
            let said = json!({"version": VERSION, "batch": name.0, "asked": asked, "said": says});
            print_json(out, &said)?;
        }
        false => writeln!(out, "{} {says}", name.0)?,
    }
    Ok(())
}

/// The counts of a batch in words.
fn lines(batch: &Described) -> String {
    let counts = batch.counts;
    let Some(total) = counts.total else { return "not told".to_owned() };
    let (answered, failed) = (counts.answered.unwrap_or(0), counts.failed.unwrap_or(0));
    format!("{total}: {answered} answered, {failed} failed, as the API counts")
}

/// A moment, and how long ago it was.
pub fn ago(at: Millis, now: Millis) -> String {
    format!("{} ({} ago)", moment(at), words::span(now.since(at)))
}
