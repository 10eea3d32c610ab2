//! Results and errors as users find them.

use std::fs;

use gemini_batchd::engine::ids::{Attempt, BatchName, ChunkNo, Millis, Row, Rows};
use gemini_batchd::engine::job::{
    BatchRecord, Chunk, ChunkState, Input, Job, RemoteError, RemoteState, Rest,
};
use gemini_batchd::spool::index::LineFate;
use gemini_batchd::spool::manifest::manifest;
use gemini_batchd::spool::merge;
use serde_json::Value;

use crate::world::{World, answer, error, explain, line, lines, tree};

fn reasons(world: &World) -> Vec<String> {
    let reason = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        value["error"]["reason"].as_str().unwrap().to_owned()
    };
    world.errors().lines().map(reason).collect()
}

fn chunk(job: &mut Job) -> &mut Chunk {
    job.chunks.get_mut(&ChunkNo(1)).unwrap()
}

fn batch(state: RemoteState, created: u64) -> BatchRecord {
    BatchRecord {
        name: BatchName(format!("batches/b{created}")),
        attempt: Attempt(1),
        input: Input::Inline,
        state,
        lines: 1,
        bytes: 1000,
        answered: 0,
        created: Millis(created),
        ended: Millis(created + 1),
        collected: None,
        adopted: false,
        error: None,
        key_print: None,
        input_gone: false,
        result_bytes: 0,
        cost: None,
    }
}

#[test]
fn keys_of_all_kinds_come_back_byte_for_byte() {
    let huge = format!("\"{}\"", "x".repeat(60_000));
    let keys = [
        "\"a\"",
        "\"a\"",
        "7",
        "-0.0",
        "1e400",
        "123456789012345678901234567890",
        "\"\"",
        "\"\\u00e9\\n\\\"\\ud800\"",
        "\"é 你好\"",
        &huge,
    ];
    let mut rows: Vec<_> = keys.iter().map(|key| line(key)).collect();
    rows.push(line("\"gone\""));
    rows[10].key = None;
    let world = World::new(&rows);
    let text: String = (1..=11).rev().map(answer).collect();
    world.download(1, text);
    world.collect(1).unwrap();
    let tally = world.merge();
    assert_eq!((tally.answered, tally.failed), (11, 0));
    let results = world.results();
    let found: Vec<_> = results
        .lines()
        .map(|line| line.strip_prefix("{\"key\":").unwrap().split_once(",\"response\":").unwrap().0)
        .collect();
    assert_eq!(found[..10], keys);
    assert_eq!(found[10], "\"line-11\"");
    assert!(!world.folder().merged_errors().exists());
}

#[test]
fn responses_are_handed_on_byte_for_byte() {
    let world = World::new(&lines(1));
    let response = "{ \"embedding\" : {\"values\":[1e400, 0.10]},\t\"x\":\"\\ud800\\/é\"}";
    world.download(1, format!("{{\"key\":\"1\", \"response\": {response} }}\n"));
    world.collect(1).unwrap();
    world.merge();
    assert_eq!(world.results(), format!("{{\"key\":\"k1\",\"response\":{response}}}\n"));
}

#[test]
fn long_responses_that_follow_one_another_are_handed_on() {
    let world = World::new(&lines(5));
    let response = |row: u64| {
        let size = if row == 1 { 100 } else { 3_000_000 + row as usize };
        format!("{{\"embedding\":{{\"values\":[1]}},\"x\":\"{}\"}}", "y".repeat(size))
    };
    let came = |row| format!("{{\"key\":\"{row}\",\"response\":{}}}\n", response(row));
    world.download(1, (1..=5).map(came).collect::<String>());
    world.collect(1).unwrap();
    world.merge();
    let results = world.results();
    assert_eq!(results.lines().count(), 5);
    for (line, row) in results.lines().zip(1..) {
        let expected = format!("{{\"key\":\"k{row}\",\"response\":{}}}", response(row));
        assert!(line == expected, "row {row}");
    }
}

/// Fault 72.
#[test]
fn every_failure_has_its_reason_code_and_request() {
    let mut rows = lines(7);
    rows[0].request = "{\"contents\":\r\n[ ]}".to_owned();
    rows[4].fate = LineFate::InvalidJson;
    rows[5].fate = LineFate::OtherModel;
    rows[6].fate = LineFate::TooLong;
    let world = World::new(&rows);
    let blocked = "{\"key\":\"1\",\"response\":{\"promptFeedback\":{\"blockReason\":\"OTHER\"}}}\n";
    let text = [blocked, "{\"key\":\"2\"}\n", &error(3, 3), &error(4, 8)].concat();
    world.download(1, text);
    world.accept(1);
    let tally = world.merge();
    assert_eq!((tally.answered, tally.failed), (0, 7));
    assert_eq!(world.results(), "");
    let expected =
        ["blocked", "empty", "api_error", "quota", "invalid_json", "other_model", "line_too_long"];
    assert_eq!(reasons(&world), expected);
    assert_eq!(tally.failures.keys().len(), 7);
    let errors: Vec<Value> =
        world.errors().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = "{\"key\":\"k1\",\"error\":{\"code\":3,\"status\":\"INVALID_ARGUMENT\",\
        \"message\":\"the prompt was blocked by a filter (blockReason OTHER)\",\
        \"reason\":\"blocked\"},\"line\":1,\"request\":{\"contents\":  [ ]}}\n";
    assert!(world.errors().starts_with(first), "{}", world.errors());
    assert_eq!(errors[3]["error"]["status"], "RESOURCE_EXHAUSTED");
    assert_eq!(errors[4]["request"], Value::Null);
    assert_eq!(errors[4]["error"]["message"], "line 5 is invalid_json");
    assert_eq!(errors[5]["request"], serde_json::json!({"contents": []}));
    assert_eq!(errors[6]["request"], Value::Null);
}

#[test]
fn what_the_queue_accepts_is_answered() {
    let mut world = World::new(&lines(3));
    let text = [
        answer(1).replace("STOP", "MAX_TOKENS"),
        answer(2).replace("STOP", "SAFETY"),
        answer(3).replace("\"text\":\"3\"", "\"text\":\"\""),
    ];
    world.download(1, text.concat());
    world.collect(1).unwrap();
    let tally = world.merge();
    assert_eq!((tally.answered, tally.failed, tally.truncated), (1, 2, 1));
    assert_eq!(reasons(&world), ["blocked", "empty"]);
    let accept = &mut world.job.head.queue.accept;
    (accept.truncated, accept.blocked, accept.empty) = (false, true, true);
    let tally = world.merge();
    assert_eq!((tally.answered, tally.failed, tally.truncated), (2, 1, 0));
    assert_eq!(reasons(&world), ["truncated"]);
}

#[test]
fn a_row_without_any_line_says_what_became_of_its_batch() {
    let mut world = World::new(&lines(1));
    world.merge();
    assert_eq!(reasons(&world), ["no_result"]);
    chunk(&mut world.job).batches.push(batch(RemoteState::Expired, 1));
    world.merge();
    assert_eq!(reasons(&world), ["expired"]);
    let error = RemoteError { code: 9, message: "billing is off".to_owned() };
    chunk(&mut world.job).last_error = Some(error);
    world.merge();
    assert_eq!(reasons(&world), ["batch_failed"]);
    assert!(
        world
            .errors()
            .contains("\"status\":\"FAILED_PRECONDITION\",\"message\":\"billing is off\"")
    );
    world.plan().cancelled = true;
    world.merge();
    assert_eq!(reasons(&world), ["cancelled"]);
}

#[test]
fn a_row_of_a_chunk_cut_in_two_is_explained_by_its_half() {
    let mut world = World::new(&lines(2));
    let (left, right) = (ChunkNo(2), ChunkNo(3));
    chunk(&mut world.job).state = ChunkState::Split { left, right };
    for (no, row) in [(left, Row(1)), (right, Row(2))] {
        let mut half = Chunk::new(no, ChunkNo(1), Rows { first: row, last: row }, Rest::default());
        half.last_error = Some(RemoteError { code: 3, message: format!("chunk {}", no.0) });
        world.job.chunks.insert(no, half);
    }
    world.merge();
    let errors = world.errors();
    let messages: Vec<_> = errors.lines().map(|line| line.contains("chunk 2")).collect();
    assert_eq!(messages, [true, false]);
    assert!(errors.contains("chunk 3"));
}

#[test]
fn tokens_of_answers_are_added_up() {
    let world = World::new(&lines(3));
    world.download(1, [answer(1), answer(2), error(3, 3)].concat());
    world.collect(1).unwrap();
    let tokens = world.merge().tokens;
    assert_eq!((tokens.prompt, tokens.output, tokens.total), (4, 6, 10));
}

/// Fault 7.
#[test]
fn merging_again_gives_the_same_bytes_and_leaves_nothing_aside() {
    let world = World::new(&lines(3));
    world.download(1, [answer(3), error(1, 3), answer(2)].concat());
    world.collect(1).unwrap();
    let tally = world.merge();
    let before = tree(&world.folder().path);
    fs::write(world.folder().merged_results().with_extension("aside"), "torn").unwrap();
    assert_eq!(world.merge(), tally);
    assert_eq!(tree(&world.folder().path), before);
}

#[test]
fn errors_of_an_earlier_merge_are_not_delivered_with_a_later_one() {
    let world = World::new(&lines(1));
    world.merge();
    assert!(world.folder().merged_errors().exists());
    world.download(1, answer(1));
    world.collect(1).unwrap();
    assert_eq!(world.merge().answered, 1);
    assert!(!world.folder().merged_errors().exists());
}

#[test]
fn a_damaged_working_folder_is_an_error_and_publishes_nothing() {
    let mut world = World::new(&lines(2));
    world.download(1, [answer(1), answer(2)].concat());
    world.collect(1).unwrap();
    let answers = world.folder().answers(ChunkNo(1), Attempt(1));
    let good = fs::read(&answers).unwrap();
    let fails = |world: &World| {
        let error = merge::merge(&world.folders, &world.job, "a", &explain).unwrap_err();
        assert!(!world.folder().merged_results().exists());
        assert_eq!(fs::read_dir(world.folder().path.join("out")).unwrap().count(), 0);
        error.to_string()
    };
    fs::write(&answers, &good[..good.len() / 2]).unwrap();
    assert!(fails(&world).contains("c1-a1.jsonl"));
    fs::write(&answers, vec![b'x'; good.len()]).unwrap();
    assert!(fails(&world).contains("no result line stands at byte 0"));
    fs::remove_file(&answers).unwrap();
    fails(&world);
    fs::write(&answers, &good).unwrap();
    world.plan().rows = 3;
    fails(&world);
    world.plan().rows = 2;
    assert_eq!(world.merge().answered, 2);
}

/// Fault 71.
#[test]
fn two_hundred_thousand_shuffled_rows_go_through() {
    let count = 200_000_u64;
    let world = World::new(&lines(count));
    // 77,773 has no factor in common with the count: stepping by it visits every row once.
    let text: String = (0..count).map(|n| answer(n * 77_773 % count + 1)).collect();
    world.download(1, text);
    assert_eq!(world.collect(1).unwrap().answered, count);
    assert_eq!(world.merge().answered, count);
    let results = world.results();
    for (at, line) in results.lines().enumerate().step_by(997) {
        assert!(line.starts_with(&format!("{{\"key\":\"k{}\",", at + 1)), "{line}");
        assert!(line.contains(&format!("\"text\":\"{}\"", at + 1)), "{line}");
    }
}

#[test]
fn the_manifest_has_the_fields_of_the_contract_in_its_order() {
    let mut world = World::new(&lines(1));
    chunk(&mut world.job).batches =
        vec![batch(RemoteState::Unknown("PAUSED".to_owned()), 9), batch(RemoteState::Expired, 4)];
    let tally = world.merge();
    let bytes = manifest(&world.job, &world.delivery(tally, "a"), "0.1.0");
    let text = String::from_utf8(bytes).unwrap();
    let mut at = 0;
    for field in [
        "version",
        "job",
        "input",
        "name",
        "queue",
        "bytes",
        "sha256",
        "verdict",
        "lines",
        "answered",
        "failed",
        "truncated",
        "failures",
        "tokens",
        "prompt",
        "output",
        "thinking",
        "cached",
        "total",
        "cost",
        "batches",
        "name",
        "chunk",
        "attempt",
        "model",
        "state",
        "lines",
        "answered",
        "created",
        "ended",
        "adopted",
        "warnings",
        "times",
        "claimed",
        "planned",
        "first_create",
        "last_result",
        "delivered",
        "daemon",
    ] {
        let found = text[at..].find(&format!("\"{field}\":"));
        at += found.unwrap_or_else(|| panic!("{field} after byte {at} of {text}"));
    }
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["verdict"], "failed");
    assert_eq!(value["failures"], serde_json::json!({"expired": 1}));
    assert_eq!(value["batches"][0]["name"], "batches/b4");
    assert_eq!(value["batches"][0]["state"], "BATCH_STATE_EXPIRED");
    assert_eq!(value["batches"][1]["state"], "BATCH_STATE_PAUSED");
    assert_eq!(value["batches"][0]["model"], "models/gemini-2.5-flash");
    assert_eq!(value["times"]["delivered"], "2026-11-21T02:00:01Z");
    assert_eq!(value["times"]["last_result"], Value::Null);
}
