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
        head: Head { id, source, queue, claimed, released, on_hold, key_print, funds: None, state },
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
        draining: false,
        paused_by_operator: false,
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
        collected: None,
        adopted: false,
        error: None,
        key_print: None,
        input_gone: false,
        result_bytes: 0,
        cost: None,
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

fn refusal() -> Refusal {
    Refusal {
        reason: "r".to_owned(),
        message: "m".to_owned(),
        remedy: "r".to_owned(),
        line: None,
        column: None,
    }
}

/// 1,200 jobs that failed, by turns in two queues, then one that is read and one that is held.
fn many() -> Vec<Job> {
    let id = |n: usize| format!("01JD{n:022}");
    let failed = |n: usize| {
        let mut job = job(&id(n), JobState::Failed(refusal()));
        job.head.source.name = format!("File{n}.jsonl");
        job.head.claimed = Millis(n as u64 * 1000);
        job.head.queue.name = ["odd", "even"][n % 2].to_owned();
        job
    };
    let mut jobs: Vec<Job> = (0..1200).map(failed).collect();
    jobs.push(job(&id(5000), JobState::Planning));
    jobs.push(job(&id(6000), JobState::Held(refusal())));
    jobs
}

#[test]
fn all_jobs_are_counted_and_those_that_matter_are_shown() {
    let jobs = many();
    let queues = ["idle".to_owned()].into();
    let overview = Overview::of(&jobs, [("done", 7)], &queues);
    assert_eq!(overview.counts.get("failed"), Some(&1200));
    assert_eq!(overview.counts.get("claimed"), Some(&1));
    assert_eq!(overview.counts.get("done"), Some(&7));
    assert_eq!(overview.shown.len(), overview::SHOWN_MAX);
    let shown: Vec<&str> = overview.shown.iter().map(|id| &id.as_str()[22..]).collect();
    assert_eq!(shown[..3], ["6000", "5000", "1199"]);
    let default = &overview.queues["default"];
    assert_eq!((default.waiting, default.active, default.held), (1, 0, 1));
    assert_eq!(overview.queues["idle"].name, "idle");
    assert_eq!(
        overview.queues["odd"],
        QueueView { name: "odd".to_owned(), ..QueueView::default() }
    );
}

#[test]
fn every_job_is_on_exactly_one_page_in_either_order() {
    let jobs = many();
    for order in ["newest", "oldest"] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let query = JobQuery {
                order: Some(order.to_owned()),
                limit: Some(100),
                after: after.clone(),
                ..JobQuery::default()
            };
            let page = JobFilter::read(&query, Millis(0)).expect("understood").page(&jobs);
            assert_eq!(page.total, 1202);
            seen.extend(page.ids);
            match page.next {
                Some(next) => after = Some(next.to_string()),
                None => break,
            }
        }
        if order == "newest" {
            seen.reverse();
        }
        assert_eq!(seen, jobs.iter().map(|job| job.head.id).collect::<Vec<_>>());
    }
}

#[test]
fn filters_leave_what_fits_all_of_them() {
    let jobs = many();
    let word = |text: &str| Some(text.to_owned());
    let count = |query: &JobQuery| {
        let filter = JobFilter::read(query, Millis(1_700_000_000_123)).expect("understood");
        filter.page(&jobs).total
    };
    let all = JobQuery::default();
    assert_eq!(count(&all), 1202);
    assert_eq!(count(&JobQuery { state: word("Held, claimed"), ..all.clone() }), 2);
    assert_eq!(count(&JobQuery { queue: word("odd"), ..all.clone() }), 600);
    assert_eq!(count(&JobQuery { file: word("file119"), ..all.clone() }), 11);
    assert_eq!(count(&JobQuery { file: word("REVIEWS/file7.j"), ..all.clone() }), 1);
    assert_eq!(count(&JobQuery { since: word("1970-01-01T00:19:50Z"), ..all.clone() }), 12);
    assert_eq!(count(&JobQuery { since: word("2h"), ..all.clone() }), 2);
    let both = JobQuery { queue: word("odd"), file: word("119"), ..all.clone() };
    assert_eq!(count(&both), 5);
}

#[test]
fn a_snapshot_survives_the_wire() {
    let jobs = vec![JobView::new(&active(vec![chunk(1, 1, 10, waiting())]))];
    let snapshot = Snapshot {
        version: VERSION,
        health: health(),
        counts: [("planned".to_owned(), 1)].into(),
        queues: vec![QueueView::default()],
        jobs,
        jobs_total: 1,
        spending: None,
    };
    let text = serde_json::to_vec(&snapshot).expect("written");
    assert_eq!(serde_json::from_slice::<Snapshot>(&text).expect("read"), snapshot);
}

#[test]
fn a_job_says_how_long_it_waits_and_how_long_is_usual() {
    let job = active(vec![chunk(1, 1, 10, at_google(RemoteState::Running))]);
    let view = JobView::at(&job, Millis(7_205), Some(1_001));
    assert_eq!((view.waiting_s, view.typical_s), (Some(7), Some(2)));
    let idle = JobView::at(&active(vec![chunk(1, 1, 10, waiting())]), Millis(7_205), None);
    assert_eq!((idle.waiting_s, idle.typical_s), (None, None));
}

#[test]
fn a_batch_tells_when_it_was_queued_created_ended_and_collected() {
    let record = |attempt: u16, created: u64, ended: u64, collected: Option<u64>| BatchRecord {
        name: BatchName(format!("batches/{attempt}")),
        attempt: Attempt(attempt),
        input: Input::Inline,
        state: RemoteState::Succeeded,
        lines: 5,
        bytes: 500,
        answered: 4,
        created: Millis(created),
        ended: Millis(ended),
        collected: collected.map(Millis),
        adopted: false,
        error: None,
        key_print: None,
        input_gone: false,
        result_bytes: 0,
        cost: None,
    };
    let base = 1_700_000_001_000;
    let at = |seconds: u64| base + seconds * 1000;
    let mut whole = chunk(1, 1, 10, at_google(RemoteState::Pending));
    whole.attempt = Attempt(3);
    whole.batches = vec![record(1, at(1), at(5), Some(at(6))), record(2, at(7), at(9), None)];
    let job = active(vec![whole]);
    let list = BatchList::of([&job], Millis(at(6)), 10);
    let told: Vec<(&str, &str, bool)> = list
        .batches
        .iter()
        .map(|batch| {
            let queued = batch.queued.as_deref().unwrap_or_default();
            (batch.name.as_str(), &queued[17..19], batch.ended.is_some())
        })
        .collect();
    // The first one ended before; the open one is always there, whenever it began.
    assert_eq!(told, [("batches/2", "27", true), ("batches/abc", "30", false)]);
    let all = BatchList::of([&job], Millis(0), 10).batches;
    let first = all.iter().find(|batch| batch.name == "batches/1").expect("there");
    assert_eq!(first.queued.as_deref(), Some("2023-11-14T22:13:21Z"), "when the file was read");
    assert_eq!(first.collected.as_deref(), Some("2023-11-14T22:13:27Z"));
    assert_eq!(first.file, "reviews/a.jsonl");
    assert_eq!(BatchList::of([&job], Millis(0), 2).batches.len(), 2);
}
