//! Places where a test can make the process die, by name.
//!
//! Built into test builds only: without the feature of the `fail` crate these are empty. The
//! environment variable `FAILPOINTS="saved:creating=return"` kills the process right after a chunk
//! was saved as creating, before anything is done about it.

use fail::FailScenario;

use crate::engine::effect::{Change, Effect};
use crate::engine::job::{ChunkState, JobState};

/// Reads the variable; it counts until the returned value is dropped. `None` outside test builds.
pub fn arm() -> Option<FailScenario<'static>> {
    fail::has_failpoints().then(FailScenario::setup)
}

/// Work on the disk begins, on a thread of its own: `FAILPOINTS="disk=sleep(60000)"` makes for a
/// slow disk.
pub fn disk() {
    fail::fail_point!("disk");
}

/// Everything of a turn is saved, nothing of it is begun.
pub fn saved(changes: &[Change]) {
    for change in changes {
        match change {
            Change::Head(head) => die_at("saved", job_word(&head.state)),
            Change::Chunk(_, chunk) => die_at("saved", chunk_word(&chunk.state)),
            Change::Shed(_) => die_at("saved", "shed"),
            Change::Forget(_) => die_at("saved", "forget"),
        }
    }
}

/// An effect was done, and the engine does not know yet.
pub fn done(effect: &'static str) {
    die_at("done", effect);
}

fn die_at(when: &str, what: &str) {
    let point = format!("{when}:{what}");
    fail::fail_point!(&point, |_| std::process::abort());
    drop(point);
}

/// A word for what an effect does.
pub fn effect_word(effect: &Effect) -> &'static str {
    match effect {
        Effect::Claim { .. } => "claim",
        Effect::Plan { .. } => "plan",
        Effect::Upload { .. } => "upload",
        Effect::Create { .. } => "create",
        Effect::Find { .. } => "find",
        Effect::Poll { .. } => "poll",
        Effect::Collect { .. } => "collect",
        Effect::Discard { .. } => "discard",
        Effect::CancelBatch { .. } => "cancel",
        Effect::Merge { .. } => "merge",
        Effect::Deliver { .. } => "deliver",
        Effect::Clean { .. } => "clean",
        Effect::Refuse { .. } => "refuse",
        Effect::Hold { .. } => "hold",
        Effect::Notify { .. } => "notify",
        Effect::Withdraw { .. } => "withdraw",
    }
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
        ChunkState::Settled => "settled",
        ChunkState::Split { .. } => "split",
    }
}
