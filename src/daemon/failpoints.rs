//! The moments of the loop and of its effects, for [`failpoint`]; empty outside test builds.
//!
//! `saved:STATE` comes right after a job or a chunk was saved in a state, before anything is done
//! about it; an error there means a store that did save, and says that it did not. `begun:EFFECT`
//! comes before an effect, and `done:EFFECT` when it was done and the engine does not know yet: an
//! error there is the failure that such an effect may have.

use fail::FailScenario;

use crate::engine::effect::Change;
use crate::engine::event::Failure;
use crate::engine::job::{ChunkState, JobState};
use crate::failpoint;
use crate::store::StoreError;

/// Reads the variable; it counts until the returned value is dropped. `None` outside test builds.
pub fn arm() -> Option<FailScenario<'static>> {
    fail::has_failpoints().then(FailScenario::setup)
}

/// Work on the disk begins, on a thread of its own: `FAILPOINTS="disk=sleep(60000)"` makes for a
/// slow disk.
pub fn disk() {
    fail::fail_point!("disk");
}

/// What hooks are to tell is on the disk, and what it stands for not saved.
///
/// # Errors
/// Only in a test.
pub fn hooks_noted() -> std::io::Result<()> {
    failpoint::at("hooks:noted")
}

/// A hook was told, and that is not noted yet.
///
/// # Errors
/// Only in a test: what came of it is lost.
pub fn hook_told() -> std::io::Result<()> {
    if !fail::has_failpoints() {
        return Ok(());
    }
    tokio::task::block_in_place(|| failpoint::at("hooks:told"))
}

/// Everything of a turn is saved, nothing of it is begun.
///
/// # Errors
/// Only in a test: the store says that it did not save.
pub fn saved(changes: &[Change]) -> Result<(), StoreError> {
    if !fail::has_failpoints() {
        return Ok(());
    }
    for change in changes {
        let word = match change {
            Change::Head(head) => job_word(&head.state),
            Change::Chunk(_, chunk) => chunk_word(&chunk.state),
            // What is dropped of an old job, and notes, come along with the record of another.
            Change::Shed(_) | Change::Note { .. } => continue,
            Change::Forget(_) => "forget",
        };
        failpoint::at(&format!("saved:{word}"))
            .map_err(|error| StoreError::Broken { action: "save", reason: error.to_string() })?;
    }
    Ok(())
}

/// An effect, with the moments before and after it.
///
/// # Errors
/// Those of the effect; others only in a test.
pub async fn around<T>(
    effect: &'static str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tracing::debug!("begun");
    begun(effect)?;
    let outcome = work.await?;
    tracing::debug!("done");
    done(effect)?;
    Ok(outcome)
}

/// An effect is about to be done.
///
/// # Errors
/// Only in a test: it can not be done.
fn begun(effect: &'static str) -> Result<(), Failure> {
    moment_of("begun", effect).map_err(|error| match is_remote(effect) {
        true => Failure::Transient(error.to_string()),
        false => Failure::Local(error.to_string()),
    })
}

/// An effect was done, and the engine does not know yet.
///
/// # Errors
/// Only in a test: what came of it is lost on the way.
fn done(effect: &'static str) -> Result<(), Failure> {
    moment_of("done", effect).map_err(|error| match is_remote(effect) {
        true if effect == "create" => Failure::Ambiguous(error.to_string()),
        true => Failure::Transient(error.to_string()),
        false => Failure::Local(error.to_string()),
    })
}

fn moment_of(when: &str, effect: &str) -> std::io::Result<()> {
    if !fail::has_failpoints() {
        return Ok(());
    }
    // Other tasks go on while a test makes this one wait.
    tokio::task::block_in_place(|| failpoint::at(&format!("{when}:{effect}")))
}

fn is_remote(effect: &str) -> bool {
    ["upload", "create", "find", "poll", "collect", "rescue", "discard", "drop", "cancel"]
        .contains(&effect)
}

fn job_word(state: &JobState) -> &'static str {
    match state {
        JobState::Claiming => "claiming",
        JobState::Planning => "planning",
        JobState::Active(_) => "active",
        JobState::Merging(_) => "merging",
        JobState::Delivering(_) => "delivering",
        JobState::Cleaning(_) => "cleaning",
        JobState::Done(_) => "done",
        JobState::Refusing(_) => "refusing",
        JobState::Failed(_) => "failed",
        JobState::Holding(_) => "holding",
        JobState::Held(_) => "held",
    }
}

fn chunk_word(state: &ChunkState) -> &'static str {
    match state {
        ChunkState::Waiting { .. } => "waiting",
        ChunkState::Uploading { .. } => "uploading",
        ChunkState::Creating { .. } => "creating",
        ChunkState::Uncertain { .. } => "uncertain",
        ChunkState::Stuck { .. } => "stuck",
        ChunkState::Polling(_) => "polling",
        ChunkState::Collecting { .. } => "collecting",
        ChunkState::Rescuing { .. } => "rescuing",
        ChunkState::Settled => "settled",
        ChunkState::Split { .. } => "split",
    }
}
