//! Reports of nights that went well, of bad ones, and of those on which nothing ran.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::*;
use crate::engine::ids::{Attempt, BatchName, ChunkNo, Row, Rows};
use crate::engine::job::{
    BatchRecord, Chunk, ChunkState, Head, Input, Moments, Plan, Queue, Refusal, RemoteState, Rest,
    Source, Tally,
};

const EVENING: Millis = Millis(1_795_287_600_000);
const MORNING: Millis = Millis(EVENING.0 + DAY_MS);

fn job(number: u64, name: &str, state: JobState) -> Job {
    let id = format!("01JD{number:022}").parse().expect("an id");
    let source = Source { folder: String::new(), name: name.to_owned(), bytes: 10, sidecar: None };
    let (released, on_hold, key_print, claimed) = (false, false, None, EVENING.plus(1000));
    let queue = Queue::default();
    let head =
        Head { id, source, queue, claimed, released, on_hold, key_print, funds: None, state };
    Job { head, chunks: BTreeMap::new() }
}

fn delivered(number: u64, answered: u64, failures: &[(&str, u64)], at: Millis) -> Job {
    let failed = failures.iter().map(|(_, lines)| lines).sum();
    let failures = failures.iter().map(|(why, lines)| ((*why).to_owned(), *lines)).collect();
    let tokens = Tokens { total: answered * 10, ..Tokens::default() };
    let tally = Tally { answered, failed, failures, tokens, ..Tally::default() };
    let stem = "a".to_owned();
    let delivery = Delivery { plan: Plan::default(), tally, stem, delivered: at };
    let mut job = job(number, &format!("{number}.jsonl"), JobState::Done(delivery));
    let rows = Rows { first: Row(1), last: Row(1) };
    let mut chunk = Chunk::new(ChunkNo(1), ChunkNo(1), rows, Rest::default());
    chunk.state = ChunkState::Settled;
    chunk.batches.push(BatchRecord {
        cost: None,
        name: BatchName(format!("batches/b{number}")),
        attempt: Attempt(1),
        input: Input::Inline,
        state: RemoteState::Succeeded,
        lines: 1,
        bytes: 1,
        answered: 1,
        created: Millis(at.0 - number * 600_000),
        ended: at,
        collected: None,
        adopted: false,
        error: None,
        key_print: None,
        input_gone: false,
        result_bytes: 0,
    });
    job.chunks.insert(chunk.no, chunk);
    job
}

fn report(jobs: &[Job]) -> Report {
    let mut gathering = Gathering::new(EVENING, MORNING);
    let mut history = History::default();
    for job in jobs {
        gathering.take_in(job);
        if let JobState::Done(delivery) = &job.head.state {
            history.recall(job, delivery);
        } else {
            gathering.take_in_open(job, &JobView::at(job, MORNING, None));
        }
    }
    gathering.finish(&history, None, Vec::new())
}

#[test]
fn a_good_night_reads_in_five_lines() {
    let report = report(&[
        delivered(1, 40, &[], EVENING.plus(3_600_000)),
        delivered(2, 60, &[], EVENING.plus(7_200_000)),
    ]);
    let told = report.told(&TimeZone::UTC);
    assert!(told.is_good);
    assert_eq!(told.title, "Report from 2026-11-21 19:00 to 2026-11-22 19:00");
    assert_eq!(told.headline, "All is well: every line is answered, and nothing needs you.");
    let facts: Vec<String> =
        told.facts.iter().map(|(name, fact)| format!("{name}: {fact}")).collect();
    assert_eq!(
        facts,
        [
            "files: 2 came, 2 delivered (2 complete)",
            "lines: 100 answered, none failed; 1,000 tokens",
            "slowest: 20 min: batches/b2 of 2.jsonl, gemini-2.5-flash",
        ]
    );
}

#[test]
fn a_bad_night_says_what_failed_what_was_late_and_what_needs_somebody() {
    let mut late = delivered(3, 5, &[], EVENING.plus(9_000_000));
    late.head.queue.moments.deliver_by = Some(EVENING.plus(8_000_000));
    let mut kept = delivered(4, 5, &[], EVENING.plus(7_000_000));
    kept.head.queue.moments.deliver_by = Some(EVENING.plus(8_000_000));
    let refusal = Refusal {
        reason: "duplicate".to_owned(),
        message: "the same content was dropped before".to_owned(),
        remedy: "to send it again: gemini-batchd release X".to_owned(),
        line: None,
        column: None,
    };
    let mut waits = job(6, "later.jsonl", JobState::Active(Plan::default()));
    waits.head.queue.moments =
        Moments { opens: Some(MORNING.plus(3_600_000)), deliver_by: Some(EVENING.plus(5)) };
    let report = report(&[
        delivered(1, 40, &[("blocked", 3), ("empty", 1)], EVENING.plus(3_600_000)),
        delivered(2, 0, &[("blocked", 2)], EVENING.plus(3_600_000)),
        late,
        kept,
        job(5, "twice.jsonl", JobState::Held(refusal)),
        waits,
    ]);
    assert_eq!(report.failures[0], ReportFailure { reason: "blocked".to_owned(), lines: 5 });
    assert_eq!((report.deadlines.met, report.deadlines.missed), (1, 2));
    let told = report.told(&TimeZone::UTC);
    assert_eq!(told.headline, "1 file needs you, 6 lines failed, 2 deadlines were missed.");
    assert!(!told.is_good);
    let text = report.markdown(&TimeZone::UTC);
    assert!(text.contains("twice.jsonl (held, 01JD"), "{text}");
    assert!(text.contains("gemini-batchd release X"), "{text}");
    assert!(text.contains("later.jsonl was wanted by"), "{text}");
    assert!(text.contains("waiting until "), "{text}");
    assert!(text.contains("- failed: 5 blocked, 1 empty; see NAME.errors.jsonl"), "{text}");
}

#[test]
fn each_thing_that_goes_wrong_spoils_the_night() {
    let refusal = Refusal {
        reason: "no_valid_line".to_owned(),
        message: "no line is valid".to_owned(),
        remedy: String::new(),
        line: None,
        column: None,
    };
    let refused = report(&[job(1, "bad.jsonl", JobState::Failed(refusal))]);
    assert!(!refused.told(&TimeZone::UTC).is_good, "{refused:?}");
    let spoil: [fn(&mut Report); 4] = [
        |report| report.lines.failed = 1,
        |report| report.deadlines.missed = 1,
        |report| report.attention_total = 1,
        |report| report.trouble = vec!["no room".to_owned()],
    ];
    for spoil in spoil {
        let mut bad = report(&[]);
        spoil(&mut bad);
        let told = bad.told(&TimeZone::UTC);
        assert!(!told.is_good && !told.headline.contains("All is well"), "{bad:?}");
    }
}

#[test]
fn a_night_on_which_nothing_ran_has_its_report_too() {
    let report = report(&[]);
    let told = report.told(&TimeZone::UTC);
    assert!(told.is_good && told.headline.contains("nothing to deliver"), "{}", told.headline);
    assert_eq!(told.nights.len(), 8);
    assert!(report.html(&TimeZone::UTC).contains("</svg>"));
}

#[test]
fn every_delivery_is_in_one_report_and_the_days_before_stand_beside_it() {
    let jobs = [
        delivered(1, 1, &[], Millis(EVENING.0 - 1)),
        delivered(2, 2, &[], EVENING),
        delivered(3, 4, &[], Millis(MORNING.0 - 1)),
        delivered(4, 8, &[], MORNING),
        delivered(5, 16, &[], Millis(EVENING.0 - 6 * DAY_MS - 400_000)),
        delivered(6, 32, &[], Millis(EVENING.0 - 8 * DAY_MS)),
    ];
    let report = report(&jobs);
    assert_eq!((report.lines.answered, report.files.delivered), (6, 2));
    let nights: Vec<u64> = report.nights.iter().map(|night| night.answered).collect();
    assert_eq!(nights, [16, 0, 0, 0, 0, 0, 1]);
    assert_eq!(report.slowest.map(|slowest| slowest.seconds), Some(3 * 600));
}

#[test]
fn what_others_wrote_is_neither_markup_nor_a_way_out_of_it() {
    let evil = "<script>alert(1)</script>[x](javascript:x)|\u{1b}[31m\u{202e}\n# head\".jsonl";
    let report = report(&[job(1, evil, JobState::Planning)]);
    let page = report.html(&TimeZone::UTC);
    assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
    assert!(page.contains("&lt;script&gt;") && !page.contains('\u{202e}'), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing is fetched");
    let text = report.markdown(&TimeZone::UTC);
    assert!(!text.contains("<script") && !text.contains("[x](") && !text.contains('\u{1b}'));
    assert!(!text.lines().any(|line| line.starts_with("# head")), "{text}");
}

#[test]
fn a_report_is_read_back_as_it_was_written() {
    let report = report(&[delivered(1, 40, &[("blocked", 3)], EVENING.plus(3_600_000))]);
    let text = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<Report>(&text).expect("read"), report);
}

#[test]
fn money_and_what_did_not_come_from_batches_alone_are_told_where_there_is_any() {
    let mut job = delivered(1, 40, &[], EVENING.plus(3_600_000));
    if let JobState::Done(delivery) = &mut job.head.state {
        delivery.plan.reused = 7;
        delivery.tally.wasted = 2;
        delivery.plan.promise = Some(Box::new(crate::engine::job::Promise {
            flex: 30,
            uncertain: 1,
            wasted: 1,
            ..Default::default()
        }));
    }
    let funds = crate::engine::job::Funds { currency: "EUR".to_owned(), ..Default::default() };
    job.head.funds = Some(Box::new(funds));
    let report = report(&[job]);
    assert_eq!((report.other.reused, report.other.flex, report.other.wasted), (7, 30, 3));
    let told = report.told(&TimeZone::UTC);
    let fact =
        |name: &str| told.facts.iter().find(|(of, _)| *of == name).map(|(_, it)| it.as_str());
    assert_eq!(
        fact("besides"),
        Some(
            "7 answered before and used again, 30 rescued through flex, 1 calls nobody knows the \
             end of, 3 answers that came twice"
        )
    );
    assert!(fact("cost").is_some_and(|cost| cost.ends_with(" EUR")), "{told:?}");
}
