//! Values that the worlds of these tests are made of.

use gemini_batchd::engine::event::RemoteBatch;
use gemini_batchd::engine::event::{Event, Outcome, PlannedChunk};
use gemini_batchd::engine::ids::{BatchName, JobId, Millis, Row, Rows};
use gemini_batchd::engine::job::{
    Accept, Plan, Queue, RemoteState, Share, Source, Task, Transport,
};
use gemini_batchd::engine::keys::Keys;
use gemini_batchd::engine::money::Means;
use gemini_batchd::engine::policy::{Duplicates, Policy, Uncertain};
use gemini_batchd::engine::rescue::RescuePace;

/// The limits as they are by default.
pub fn limits() -> Policy {
    Policy {
        open_batches: 90,
        storage_bytes: 20_000_000_000,
        uploads: 2,
        inline_bytes: 16 << 20,
        poll_min_ms: 10_000,
        poll_max_ms: 300_000,
        backoff_min_ms: 1000,
        backoff_max_ms: 300_000,
        uncertain: Uncertain::Resubmit,
        uncertain_window_ms: 300_000,
        duplicates: Duplicates::Process,
        duplicate_window_ms: 0,
        records_keep_ms: u64::MAX,
        remote_cleanup: true,
        rescue: RescuePace::default(),
        keys: Keys::one("key"),
        means: Means::default(),
    }
}

/// A plan of so many rows and bytes.
pub fn plan(rows: u64, bytes: u64, sha256: String, planned: Millis) -> Plan {
    Plan {
        rows,
        invalid: 0,
        bytes,
        sha256,
        planned,
        first_create: None,
        last_result: None,
        cancelled: false,
        warnings: Vec::new(),
        ..Plan::default()
    }
}

/// A plan of one chunk with one row of so many bytes.
pub fn plan_of(bytes: u64) -> Outcome {
    let rows = Rows { first: Row(1), last: Row(1) };
    let chunk = PlannedChunk {
        rows,
        left: Share { rows: 1, bytes },
        right: Share::default(),
        density: None,
    };
    Outcome::Planned { plan: plan(1, bytes, String::new(), Millis(0)), chunks: vec![chunk] }
}

/// A batch that has succeeded.
pub fn seen_ended(name: &BatchName, now: Millis) -> RemoteBatch {
    RemoteBatch {
        name: name.clone(),
        display_name: String::new(),
        state: RemoteState::Succeeded,
        done: true,
        error: None,
        created: Some(now),
        ended: Some(now),
        input_file: None,
        output_file: None,
    }
}

/// A queue as it is by default.
pub fn queue() -> Queue {
    Queue {
        name: "default".to_owned(),
        model: "gemini-2.5-flash".to_owned(),
        task: Task::Generate,
        transport: Transport::Auto,
        lines_per_batch: 0,
        priority: 0,
        attempts: 3,
        accept: Accept { truncated: true, blocked: false, empty: false },
        ..Queue::default()
    }
}

/// A file comes whole.
pub fn arrival(id: JobId, bytes: u64) -> Event {
    let source =
        Source { folder: String::new(), name: format!("{id}.jsonl"), bytes, sidecar: None };
    Event::Arrived { id, source, queue: queue() }
}
