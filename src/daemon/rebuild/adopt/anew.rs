//! A job without a readable mirror, made of its input and of the batches that bear its stamp.
//!
//! The input is planned as it was when it came. Every batch at the API must then be exactly what one
//! of the chunks asks for; otherwise the settings were others, or something was answered and sent
//! again in part, and nothing is decided here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::engine::event::PlannedChunk;
use crate::engine::ids::{Attempt, JobId, Millis};
use crate::engine::job::{Batch, ChunkState, Head, Input, Job, JobState, Queue, Source};
use crate::spool::plan::PlanError;
use crate::spool::{JobFolder, reuse, sidecar, source};

use super::Asked;
use super::seen::SeenBatch;
use crate::daemon::media::places;
use crate::daemon::perform::{asks, cut_rules, plan_at_once, plan_of};

/// What is known of a job before its input is read.
pub(super) struct Start {
    folder: JobFolder,
    head: Head,
}

/// Finds out what the job was, as far as that can be told without reading its input.
///
/// # Errors
/// In words, if it can not be decided.
pub(super) fn begin(
    asked: &Asked<'_>,
    id: JobId,
    input: &Path,
    seen: &[SeenBatch],
) -> Result<Start, String> {
    let folder = asked.config.folders.job(id);
    if folder.answers(reuse::CHUNK, Attempt(0)).exists() {
        return Err("its records are gone, and some of it was answered from the cache".to_owned());
    }
    if folder.has_answers() {
        return Err(format!(
            "its records are gone, and some of it is answered already: {}",
            folder.path.join("answers").display()
        ));
    }
    let prints: BTreeSet<&str> = seen.iter().map(|batch| batch.key_print.as_str()).collect();
    if prints.len() > 1 {
        return Err("its batches lie in different projects".to_owned());
    }
    let name = input.file_name().unwrap_or_default();
    let name = source::check_name(name).map_err(|what| format!("its input's name {what}"))?;
    let bytes = fs::symlink_metadata(input).map_err(|error| error.to_string())?.len();
    let sub_folder = sub_folder(asked, seen)?;
    let beside = folder.sidecar(name);
    let mut sidecar = None;
    let mut queue = asked.config.queue_for(&sub_folder);
    if beside.is_file() {
        let own = sidecar::full_name(name);
        let text = fs::read_to_string(&beside).map_err(|error| error.to_string())?;
        queue = asked
            .config
            .queue_beside(&sub_folder, &own, &text)
            .map_err(|error| format!("its settings are wrong: {}", error.listed()))?;
        sidecar = Some(own);
    }
    let head = Head {
        id,
        source: Source { folder: sub_folder, name: name.to_owned(), bytes, sidecar },
        claimed: claimed(id, asked.now),
        queue,
        released: false,
        on_hold: false,
        key_print: prints.first().map(|print| (*print).to_owned()),
        funds: None,
        state: JobState::Planning,
    };
    Ok(Start { folder, head })
}

/// Plans the input, and puts each batch in its place.
///
/// # Errors
/// In words, if the two do not fit together.
pub(super) fn plan(asked: &Asked<'_>, start: Start, seen: &[SeenBatch]) -> Result<Job, String> {
    let Start { folder, mut head } = start;
    let limits = &asked.config.limits;
    let rules = cut_rules(&head.queue, limits.file_bytes, limits.inline_bytes);
    let places = places(&asked.config.folders, &head);
    let planned = plan_at_once(&folder, &head, &rules, &places).map_err(|error| match error {
        PlanError::Unusable(refusal) => refusal.message,
        PlanError::Spool(_) | PlanError::NamesFiles => error.to_string(),
    })?;
    let (mut plan, chunks) = plan_of(planned, asks(&head.queue), asked.now);
    head.queue.fit_to(&plan);
    plan.first_create = seen.iter().filter_map(|batch| batch.remote.created).min();
    let chunks = PlannedChunk::numbered(&chunks);
    let chunks = chunks.into_iter().map(|chunk| (chunk.no, chunk)).collect();
    head.state = JobState::Active(plan);
    let mut job = Job { head, chunks };
    seen.iter().try_for_each(|batch| put(&mut job, batch, asked.now))?;
    Ok(job)
}

/// Gives a batch to the chunk that it was made for.
fn put(job: &mut Job, seen: &SeenBatch, now: Millis) -> Result<(), String> {
    let (name, no, count) = (&seen.remote.name, seen.chunk, job.chunks.len());
    let attempts_max = job.head.queue.attempts;
    let Some(chunk) = job.chunks.get_mut(&no) else {
        return Err(format!(
            "{} was made for chunk {}, and by the settings of now there are only {count}",
            name.0, no.0
        ));
    };
    if !matches!(chunk.state, ChunkState::Waiting { .. }) {
        return Err(format!("chunk {} was sent several times", no.0));
    }
    let rows = chunk.rest.rows();
    if seen.rows != Some(rows) {
        let told = seen.rows.map_or_else(|| "an unknown number of".to_owned(), |n| n.to_string());
        return Err(format!(
            "{} has {told} requests, and chunk {} has {rows} by the settings of now",
            name.0, no.0
        ));
    }
    chunk.attempt = seen.attempt;
    // How many of them counted is not known; one more may always be made.
    chunk.tries = seen.attempt.0.saturating_sub(1).min(attempts_max.saturating_sub(1));
    chunk.key_print = Some(seen.key_print.clone());
    let input = seen.remote.input_file.clone().map_or(Input::Inline, Input::File);
    chunk.state = ChunkState::Polling(Batch {
        name: name.clone(),
        input,
        created: seen.remote.created.unwrap_or(now).min(now),
        adopted: true,
        remote: seen.remote.state.clone(),
        key_print: seen.key_print.clone(),
        input_gone: false,
    });
    Ok(())
}

/// The sub-folder of the inbox that the input came from, as far as its queue tells.
fn sub_folder(asked: &Asked<'_>, seen: &[SeenBatch]) -> Result<String, String> {
    let queues = &asked.config.queues;
    let folder = |name: &str| match name {
        DEFAULT => String::new(),
        name => name.to_owned(),
    };
    if let Some(name) = asked.queue {
        return Ok(folder(name));
    }
    if queues.len() == 1 {
        return Ok(String::new());
    }
    let is_of = |queue: &Queue| seen.iter().any(|batch| batch.model == queue.model);
    let mut fitting = queues.iter().filter(|(_, queue)| is_of(queue));
    match (fitting.next(), fitting.next()) {
        (Some((name, _)), None) => Ok(folder(name)),
        (Some(_), Some(_)) | (None, _) => Err(format!(
            "nothing tells which queue it is of; say so with --queue: {}",
            queues.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
        )),
    }
}

/// When the file was claimed: its id tells.
fn claimed(id: JobId, now: Millis) -> Millis {
    let id: Option<ulid::Ulid> = id.as_str().parse().ok();
    id.map_or(now, |id| Millis(id.timestamp_ms()).min(now))
}

/// The queue of the inbox itself.
const DEFAULT: &str = "default";
