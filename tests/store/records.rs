//! Records of every released version stay readable.
//!
//! `tests/fixtures/records/v1/` was written by the release that brought version 1. A change that
//! makes one of these tests fail makes the stores of users unreadable: write a version 2 instead.

use std::path::PathBuf;
use std::sync::Arc;

use gemini_batchd::engine::job::{
    Aid, Amount, Answers, By, Canary, Conversion, Cost, Deadline, Density, Family, Funds, Media,
    MediaTally, OpenAiLines, Promise, Purse, Stuck, Tier, Tiers, Tolerance, Trial, Window,
};
use gemini_batchd::engine::{ChunkNo, ChunkState, Head, Job, JobState, Millis, Row, Rows};
use gemini_batchd::store::layout::{assemble, chunk_key, head_key};
use gemini_batchd::store::record::{self, Record, from_mirror, mirror};

use crate::dice::{CHUNK_STATES, Dice, JOB_STATES, id};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/records/v1")
}

/// The job that a fixture was written from: one for each job state, with every chunk state.
fn job_in(state: u64) -> Job {
    let mut dice = Dice(1_000 + state);
    let head = dice.head_in(id(state), state);
    let chunks = (0..CHUNK_STATES)
        .map(|number| (ChunkNo(number as u32 + 1), number))
        .map(|(no, number)| (no, dice.chunk_in(no, number)))
        .collect();
    Job { head, chunks }
}

#[test]
fn mirrors_of_version_1_mean_what_they_meant() {
    for state in 0..JOB_STATES {
        let path = fixtures().join(format!("mirror-{state:02}.json"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let job = from_mirror(&bytes).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(job, job_in(state), "{path:?}");
    }
}

#[test]
fn records_of_version_1_mean_what_they_meant() {
    let path = fixtures().join("records.jsonl");
    let text = std::fs::read_to_string(&path).expect("the fixture is there");
    let records = text.lines().map(|line| record::read(line.as_bytes()).expect("readable"));
    assert_eq!(records.collect::<Vec<_>>(), all_records());
}

fn all_records() -> Vec<Record> {
    let mut records = Vec::new();
    for job in (0..JOB_STATES).map(job_in) {
        let id = job.head.id;
        records.push(Record::Head(Box::new(job.head)));
        let chunks = job.chunks.into_values();
        records.extend(chunks.map(|chunk| Record::Chunk(id, Box::new(chunk))));
    }
    records.push(Record::Note { name: "last slot".into(), value: "2026-11-21".into() });
    records
}

#[test]
fn what_is_written_now_is_read_again() {
    for seed in 0..500 {
        let mut dice = Dice(seed);
        let mut head = Head { released: seed % 2 == 0, ..dice.head(id(seed)) };
        // What came later than the first version.
        if seed % 3 == 0 {
            let media = [Media::Auto, Media::Files, Media::Inline][(seed / 3 % 3) as usize];
            let tokens_max = seed as u32 + 1;
            head.queue.answers = Answers { check_schema: seed % 2 == 1, tokens_max, media };
        }
        if let JobState::Done(delivery) = &mut head.state {
            delivery.tally.raised = seed;
            (delivery.tally.wasted, delivery.tally.unweighed) = (seed % 5, seed % 2);
            delivery.tally.media = MediaTally { files: seed, bytes: 7, unreadable: seed % 2 };
        }
        head.source.sidecar = dice.maybe(Dice::text);
        head.queue.defaults = dice.maybe(|dice| dice.text().into());
        head.queue.conversion = dice.maybe(|dice| {
            Arc::new(Conversion {
                unpacked_bytes: dice.number(),
                unpacked_ratio: dice.number(),
                template: dice.maybe(Dice::text),
                key_column: dice.maybe(Dice::text),
                csv_delimiter: dice.maybe(|_| ';'),
                emit_csv: dice.coin(),
            })
        });
        head.queue.media_root = dice.maybe(|dice| dice.text().into());
        head.queue.cache_ms = seed;
        head.queue.wrong = dice.maybe(|dice| Box::new(dice.refusal()));
        if let JobState::Active(plan) = &mut head.state {
            (plan.prepared, plan.asks) = (dice.coin(), dice.maybe(Dice::number));
            plan.media = dice.coin();
            plan.reused = seed / 2;
        }
        let chunks = (1..4).map(|no| (ChunkNo(no), dice.chunk(ChunkNo(no)))).collect();
        let job = Job { head, chunks };
        assert_eq!(from_mirror(&mirror(&job)), Ok(job), "seed {seed}");
    }
}

#[test]
fn deadlines_and_what_was_done_for_them_are_kept() {
    for seed in 0..50 {
        let mut dice = Dice(seed);
        let mut job = job_in(2);
        job.head.queue.deadline = Some(Arc::new(Deadline {
            by: [None, Some(By::At(360)), Some(By::Within(dice.number()))][(seed % 3) as usize],
            zone: dice.maybe(|dice| dice.text().into()),
            rescue: Tiers { flex: dice.coin(), standard: dice.coin() },
            stuck: [Stuck::Report, Stuck::Resubmit, Stuck::Split][(seed % 3) as usize],
            stuck_after: dice.maybe(Dice::number),
        }));
        job.head.queue.moments.deliver_by = dice.maybe(|dice| Millis(dice.number()));
        let JobState::Active(plan) = &mut job.head.state else { panic!("{:?}", job.head.state) };
        plan.promise = Some(Box::new(Promise {
            danger: dice.maybe(|dice| Millis(dice.number())),
            missed: dice.maybe(|dice| Millis(dice.number())),
            rescue: dice.maybe(|dice| Millis(dice.number())),
            flex: dice.number(),
            standard: dice.number(),
            uncertain: dice.number(),
            wasted: dice.number(),
            no_flex: dice.coin(),
            no_standard: dice.coin(),
        }));
        let tier = if dice.coin() { Tier::Flex } else { Tier::Standard };
        let polled = job.chunks[&ChunkNo(6)].state.clone();
        let ChunkState::Polling(batch) = polled else { panic!("{polled:?}") };
        let chunk = job.chunks.get_mut(&ChunkNo(1)).expect("there");
        chunk.state = ChunkState::Rescuing { tier, since: Millis(dice.number()) };
        chunk.aid = Some(Box::new(Aid {
            back: dice.maybe(|_| batch.name.clone()),
            stuck: dice.maybe(|_| batch.name.clone()),
            left: dice.maybe(|_| batch),
            resent: (seed % 3) as u8,
        }));
        assert_eq!(from_mirror(&mirror(&job)), Ok(job), "seed {seed}");
    }
}

#[test]
fn windows_canaries_and_money_are_kept() {
    for seed in 0..50 {
        let mut dice = Dice(seed);
        let mut job = job_in(2);
        let queue = &mut job.head.queue;
        queue.window =
            dice.maybe(|dice| Arc::new(Window { release: dice.text(), zone: dice.text() }));
        queue.moments.opens = dice.maybe(|dice| Millis(dice.number()));
        queue.budget = dice.maybe(|dice| Amount(dice.number()));
        queue.canary = dice.maybe(|dice| {
            let limit = dice.number();
            let limit =
                if dice.coin() { Tolerance::Lines(limit) } else { Tolerance::Percent(limit) };
            Canary { lines: dice.number(), limit }
        });
        job.head.funds = dice.maybe(|dice| {
            let (likely, most) = (Amount(dice.number()), Amount(dice.number()));
            Box::new(Funds { over: dice.coin(), likely, most, currency: dice.text() })
        });
        let JobState::Active(plan) = &mut job.head.state else { panic!("{:?}", job.head.state) };
        plan.canary = dice.maybe(|dice| {
            let run =
                |dice: &mut Dice| Rows { first: Row(dice.number()), last: Row(dice.number()) };
            let runs = vec![run(dice), run(dice)];
            let bad = dice.maybe(Dice::number);
            Box::new(Trial { runs, lines: dice.number(), bad, stopped: dice.coin() })
        });
        let cost =
            |dice: &mut Dice| Cost { amount: Amount(dice.number()), at: Millis(dice.number()) };
        for chunk in job.chunks.values_mut() {
            let held = dice.maybe(cost);
            let doubtful =
                if dice.coin() { vec![cost(&mut dice), cost(&mut dice)] } else { Vec::new() };
            let purse = Purse { held, doubtful };
            chunk.purse = (purse != Purse::default()).then(|| Box::new(purse));
            chunk.density = dice.maybe(|dice| Density {
                per_kb: dice.number() as u32,
                bound: dice.number() as u32,
                unbounded: dice.number() as u16,
            });
            for batch in &mut chunk.batches {
                batch.cost = dice.maybe(cost);
            }
        }
        assert_eq!(from_mirror(&mirror(&job)), Ok(job), "seed {seed}");
    }
}

#[test]
fn whose_requests_a_job_has_and_what_its_queue_makes_of_them_is_kept() {
    let mut head = Dice(1).head_in(id(1), 2);
    head.queue.openai = OpenAiLines::Translate;
    let JobState::Active(plan) = &mut head.state else { panic!("{:?}", head.state) };
    plan.family = Family::OpenAi;
    let read = record::read(&record::write_head(&head));
    assert_eq!(read, Ok(Record::Head(Box::new(head))));
}

/// Faults 9 and 27.
#[test]
fn a_torn_mirror_is_an_error_wherever_it_is_torn() {
    let bytes = mirror(&job_in(6));
    let end = bytes.len() - 1;
    for cut in (0..end).step_by(7) {
        assert!(from_mirror(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    from_mirror(&bytes[..end]).expect("only the line end is gone");
}

#[test]
fn a_chunk_among_the_records_of_another_job_is_an_error() {
    let mut dice = Dice(3);
    let (head, chunk) = (dice.head_in(id(1), 2), dice.chunk_in(ChunkNo(1), 0));
    for (of, is_read) in [(id(1), true), (id(2), false)] {
        let records = [
            (head_key(id(1)), record::write_head(&head)),
            (chunk_key(of, chunk.no), record::write_chunk(of, &chunk)),
        ];
        let mut jobs = Vec::new();
        let read = assemble(records.into_iter().map(Ok), &mut |job| jobs.push(job));
        assert_eq!(read.is_ok(), is_read, "{read:?}");
        assert_eq!(jobs.len(), usize::from(is_read));
    }
}

#[test]
fn a_usual_record_takes_less_than_4_kib() {
    let mut dice = Dice(5);
    for _ in 0..1_000 {
        assert!(record::write_head(&dice.head(id(1))).len() < 4096);
        assert!(record::write_chunk(id(1), &dice.chunk(ChunkNo(1))).len() < 4096);
    }
}

/// Writes the fixtures of a new version. Asked for by hand, once for each version:
/// `cargo test --test store write_fixtures -- --ignored`.
#[test]
#[ignore = "writes into the source tree; only for a new version"]
fn write_fixtures() {
    use std::io::Write;
    let create = |name: &str| std::fs::File::create_new(fixtures().join(name)).expect("is new");
    for state in 0..JOB_STATES {
        let mut file = create(&format!("mirror-{state:02}.json"));
        file.write_all(&mirror(&job_in(state))).expect("written");
    }
    let mut file = create("records.jsonl");
    for record in all_records() {
        let mut line = record.write();
        line.push(b'\n');
        file.write_all(&line).expect("written");
    }
}
