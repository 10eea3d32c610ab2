//! Jobs in every state, and what is to be seen of them.

use super::*;
use crate::engine::ids::{Attempt, BatchName, ChunkNo, JobId, Row, Rows};
use crate::engine::job::Plan;
use crate::engine::job::{
    Accept, Batch, BatchRecord, Head, Input, Queue, RemoteError, Rest, Share, Source, Tally, Task,
    Transport,
};

fn job(id: &str, state: JobState) -> Job {
    let id: JobId = id.parse().expect("an id");
    let queue = Queue {
        name: "default".to_owned(),
        model: "gemini-2.5-flash".to_owned(),
        task: Task::Generate,
        transport: Transport::Auto,
        lines_per_batch: 0,
        priority: 0,
        attempts: 3,
        accept: Accept { truncated: true, blocked: false, empty: false },
        ..Queue::default()
    };
    let source = Source {
        folder: "reviews".to_owned(),
        name: "a.jsonl".to_owned(),
        bytes: 10,
        sidecar: None,
    };
    let claimed = Millis(1_700_000_000_123);
    let (released, on_hold, key_print) = (false, false, None);
    Job {
        head: Head { id, source, queue, claimed, released, on_hold, key_print, state },
        chunks: BTreeMap::new(),
    }
}

fn plan(rows: u64) -> Plan {
    Plan {
        rows,
        invalid: 0,
        bytes: 10,
        sha256: String::new(),
        planned: Millis(1_700_000_001_000),
        first_create: None,
        last_result: None,
        cancelled: false,
        warnings: Vec::new(),
        ..Plan::default()
    }
}

fn chunk(no: u32, first: u64, last: u64, state: ChunkState) -> Chunk {
    let rows = Rows { first: Row(first), last: Row(last) };
    let left = Share { rows: rows.len(), bytes: 100 };
    let rest = Rest { left, right: Share::default() };
    Chunk { state, ..Chunk::new(ChunkNo(no), ChunkNo(no), rows, rest) }
}

fn active(chunks: Vec<Chunk>) -> Job {
    let mut job = job(ID, JobState::Active(plan(10)));
    job.chunks = chunks.into_iter().map(|chunk| (chunk.no, chunk)).collect();
    job
}

fn at_google(remote: RemoteState) -> ChunkState {
    ChunkState::Polling(Batch {
        name: BatchName("batches/abc".to_owned()),
        input: Input::Inline,
        created: Millis(5),
        adopted: false,
        remote,
        key_print: "print".to_owned(),
        input_gone: false,
    })
}

fn waiting() -> ChunkState {
    ChunkState::Waiting { not_before: Millis(0) }
}

fn health() -> Health {
    Health {
        daemon: "0.1.0".to_owned(),
        pid: 7,
        inbox: "/spool/inbox".to_owned(),
        watching: "events".to_owned(),
        started: moment(Millis(0)),
        now: moment(Millis(1000)),
        paused: None,
        trouble: None,
    }
}

const ID: &str = "01JD0000000000000000000001";

#[test]
fn a_job_whose_chunks_all_wait_for_the_first_time_is_planned() {
    let view = JobView::new(&active(vec![chunk(1, 1, 5, waiting()), chunk(2, 6, 10, waiting())]));
    assert_eq!((view.state.as_str(), view.file.as_str()), ("planned", "reviews/a.jsonl"));
    assert_eq!(view.phase, "waiting for its turn (2 of 2 chunks)");
    assert_eq!(view.lines, Lines { total: 10, answered: 0, failed: 0, open: 10 });
}

#[test]
fn a_job_with_a_batch_waits_at_google() {
    let view = JobView::new(&active(vec![chunk(1, 1, 10, at_google(RemoteState::Running))]));
    assert_eq!((view.state.as_str(), view.phase.as_str()), ("active", "waiting at Google"));
    assert_eq!(view.batches[0].name, "batches/abc");
    assert_eq!(view.chunks.get("running"), Some(&1));
}

#[test]
fn lines_add_up_while_some_chunks_are_settled() {
    let mut settled = chunk(1, 1, 5, ChunkState::Settled);
    settled.rest = Rest { left: Share { rows: 1, bytes: 9 }, right: Share::default() };
    settled.batches.push(BatchRecord {
        name: BatchName("batches/old".to_owned()),
        attempt: Attempt(1),
        input: Input::Inline,
        state: RemoteState::Succeeded,
        lines: 5,
        bytes: 500,
        answered: 4,
        created: Millis(1),
        ended: Millis(2),
        adopted: false,
        error: None,
        key_print: None,
        input_gone: false,
        result_bytes: 0,
    });
    let view = JobView::new(&active(vec![settled, chunk(2, 6, 10, waiting())]));
    assert_eq!(view.lines, Lines { total: 10, answered: 4, failed: 1, open: 5 });
    assert_eq!(view.state, "active");
}

#[test]
fn a_stuck_chunk_says_what_to_do() {
    let stuck = ChunkState::Stuck { input: Input::Inline, since: Millis(0) };
    let view = JobView::new(&active(vec![chunk(1, 1, 10, stuck)]));
    let reason = view.reason.expect("said");
    assert!(reason.contains(&format!("gemini-batchd release {ID}")), "{reason}");
}

#[test]
fn a_chunk_that_is_sent_again_says_why() {
    let mut again = chunk(1, 1, 10, waiting());
    again.attempt = Attempt(2);
    again.last_error = Some(RemoteError { code: 13, message: "x".repeat(5000) });
    let reason = JobView::new(&active(vec![again])).reason.expect("said");
    assert!(reason.contains("code 13") && reason.len() < 300, "{reason}");
}

#[test]
fn a_refused_file_names_line_and_remedy() {
    let refusal = Refusal {
        reason: "no_valid_line".to_owned(),
        message: "no line is valid".to_owned(),
        remedy: "mend it".to_owned(),
        line: Some(1),
        column: Some(17),
    };
    let view = JobView::new(&job(ID, JobState::Failed(refusal)));
    assert_eq!(view.reason.as_deref(), Some("line 1, column 17: no line is valid. Mend it"));
    assert!(view.is_over());
}

#[test]
fn a_question_gets_no_full_stop_behind_it() {
    let said = told("no member is called `mdel`; did you mean `model`?", "write it so.");
    assert_eq!(said, "no member is called `mdel`; did you mean `model`? Write it so");
    assert_eq!(told("no line is valid.", "mend it"), "no line is valid. Mend it");
}

#[test]
fn a_finished_job_tells_where_its_output_lies() {
    let tally = Tally { answered: 9, failed: 1, ..Tally::default() };
    let delivered = Millis(1_700_000_002_000);
    let done = Delivery { plan: plan(10), tally, stem: "a~2".to_owned(), delivered };
    let view = JobView::new(&job(ID, JobState::Done(done)));
    assert_eq!(view.output.as_deref(), Some("reviews/a~2"));
    assert_eq!(view.times.delivered.as_deref(), Some("2023-11-14T22:13:22Z"));
    assert_eq!(view.lines, Lines { total: 10, answered: 9, failed: 1, open: 0 });
}

#[test]
fn a_prefix_names_a_job_only_if_it_is_long_enough_and_unique() {
    let other = "01JD0000000000000000000002";
    let jobs = [job(ID, JobState::Planning), job(other, JobState::Claiming)];
    let snapshot = Snapshot::build(health(), &jobs, []);
    assert_eq!(snapshot.job_by_prefix(&ID.to_lowercase()).expect("unique").id, ID);
    let ask = |prefix: &str| snapshot.job_by_prefix(prefix).expect_err("none");
    assert!(matches!(ask("01J"), NoSuchJob::TooShort(_)));
    assert!(matches!(ask("01JD"), NoSuchJob::Several { count: 2, .. }));
    assert!(matches!(ask("01ZZ"), NoSuchJob::Unknown(_)));
}

#[test]
fn finished_jobs_beyond_a_thousand_are_only_counted() {
    let refusal = Refusal {
        reason: "r".to_owned(),
        message: "m".to_owned(),
        remedy: "r".to_owned(),
        line: None,
        column: None,
    };
    let id = |n: usize| format!("01JD{n:022}");
    let mut jobs: Vec<Job> =
        (0..1200).map(|n| job(&id(n), JobState::Failed(refusal.clone()))).collect();
    jobs.push(job(&id(5000), JobState::Planning));
    let snapshot = Snapshot::build(health(), &jobs, []);
    assert_eq!(snapshot.jobs.len(), 1001);
    assert_eq!(snapshot.counts.get("failed"), Some(&1200));
    assert_eq!(snapshot.counts.get("claimed"), Some(&1));
}

#[test]
fn a_snapshot_survives_the_wire() {
    let snapshot = Snapshot::build(health(), &[active(vec![chunk(1, 1, 10, waiting())])], []);
    let text = serde_json::to_vec(&snapshot).expect("written");
    assert_eq!(serde_json::from_slice::<Snapshot>(&text).expect("read"), snapshot);
}
