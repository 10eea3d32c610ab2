//! Answers are used again where a queue wants that.

use std::fs;

use gemini_batchd::provider::gemini::emulator::faults::EveryNth;
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened};
use serde_json::Value;

use super::rig::{Rig, keys, request, requests, text};

const ON: [&str; 2] = ["queue.default.cache = \"30d\"", "intake.duplicates = \"process\""];

/// Rows sent in each batch.
fn sent(rig: &Rig) -> Vec<u64> {
    let rows = |happened| match happened {
        Happened::Created { rows, .. } => Some(rows),
        _ => None,
    };
    let mut sent: Vec<u64> =
        rig.emulator.journal().into_iter().filter_map(|entry| rows(entry.what)).collect();
    // Batches of one file are made in any order.
    sent.sort_unstable();
    sent
}

fn tokens(manifest: &Value) -> u64 {
    manifest["tokens"]["total"].as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_answered_before_is_not_sent_again() {
    let rig = Rig::with(Faults::default(), &ON).await;
    rig.drop_file("first.jsonl", requests(4));
    rig.drain().await;
    let first = rig.manifest("first");
    assert!(first.get("reused").is_none(), "{first}");
    // Two known ones among three new ones, under other keys and written otherwise.
    let spaced = "{\"key\": 7, \"request\": { \"contents\" : [ {\"parts\":[{\"text\":\"question 2\"}], \
                  \"role\":\"user\"} ] } }\n";
    let more = [
        request("a", "new 1"),
        request("b", "question 1"),
        request("c", "new 2"),
        spaced.to_owned(),
        request("d", "new 3"),
    ];
    rig.drop_file("second.jsonl", more.concat());
    rig.drain().await;
    assert_eq!(sent(&rig), [3, 4]);
    let second = rig.manifest("second");
    assert_eq!(second["reused"], 2);
    assert!(tokens(&second) < tokens(&first), "only what was sent is paid: {second}");
    let (old, new) = (rig.lines("first.results.jsonl"), rig.lines("second.results.jsonl"));
    assert_eq!(new.len(), 5);
    assert_eq!(new[1]["response"], old[0]["response"]);
    assert_eq!((&new[3]["key"], &new[3]["response"]), (&7.into(), &old[1]["response"]));
    assert!(text(&new[4]).contains("new 3"), "{}", new[4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_known_whole_is_delivered_without_any_batch() {
    let rig = Rig::with(Faults::default(), &ON).await;
    for name in ["one.jsonl", "two.jsonl"] {
        rig.drop_file(name, requests(5));
        rig.drain().await;
    }
    assert_eq!(sent(&rig), [5]);
    let two = rig.manifest("two");
    assert_eq!((&two["reused"], &two["verdict"]), (&5.into(), &"complete".into()));
    assert_eq!((tokens(&two), &two["batches"]), (0, &Value::Array(Vec::new())));
    assert_eq!(rig.lines("one.results.jsonl"), rig.lines("two.results.jsonl"));
    assert!(rig.path("archive/two.jsonl").exists());
    let left = fs::read_dir(rig.path("working")).expect("listed").count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_whole_answers_are_kept_and_only_where_a_queue_wants_it() {
    let faults = Faults {
        truncated: EveryNth { every: 2, times: Budget::times(1) },
        blocked: EveryNth { every: 3, times: Budget::times(1) },
        ..Faults::default()
    };
    let rig = Rig::with(faults, &["queue.kept.cache = \"1h\"", ON[1]]).await;
    rig.drop_file("kept/first.jsonl", requests(6));
    rig.drain().await;
    // Lines 2, 4 and 6 were cut off, 3 was blocked.
    rig.drop_file("kept/second.jsonl", requests(6));
    rig.drain().await;
    assert_eq!(rig.manifest("kept/second")["reused"], 2);
    rig.drop_file("third.jsonl", requests(6));
    rig.drop_file("kept/fourth.jsonl", requests(6));
    rig.drop_file("kept/fourth.job.toml", "cache = \"off\"\n");
    rig.drain().await;
    assert!(rig.manifest("third").get("reused").is_none());
    assert_eq!(sent(&rig), [4, 6, 6, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_cut_anew_from_what_is_left() {
    let settings = [ON[0], ON[1], "queue.default.lines_per_batch = 2"];
    let rig = Rig::with(Faults::default(), &settings).await;
    rig.drop_file("first.jsonl", requests(5));
    rig.drain().await;
    assert_eq!(sent(&rig), [1, 2, 2]);
    // Every other line is known; a broken one is among them.
    let mut mixed = String::new();
    for n in 1..=5 {
        mixed += &request(&format!("old{n}"), &format!("question {n}"));
        mixed += &request(&format!("new{n}"), &format!("new question {n}"));
    }
    rig.drop_file("second.jsonl", format!("{mixed}not JSON\n"));
    rig.drain().await;
    assert_eq!(sent(&rig), [1, 1, 2, 2, 2, 2]);
    let manifest = rig.manifest("second");
    assert_eq!((&manifest["reused"], &manifest["answered"]), (&5.into(), &10.into()));
    let found = keys(&rig.lines("second.results.jsonl"));
    let wanted: Vec<String> =
        (1..=5).flat_map(|n| [format!("old{n}"), format!("new{n}")]).collect();
    assert_eq!(found, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_lost_or_damaged_costs_only_what_it_saved() {
    let rig = Rig::with(Faults::default(), &ON).await;
    rig.drop_file("one.jsonl", requests(3));
    rig.drain().await;
    for entry in fs::read_dir(rig.path("state/cache")).expect("listed").flatten() {
        fs::write(entry.path(), vec![0xff; 100_000]).expect("damaged");
    }
    rig.drop_file("two.jsonl", requests(3));
    rig.drain().await;
    fs::remove_dir_all(rig.path("state/cache")).expect("removed");
    rig.drop_file("three.jsonl", requests(3));
    rig.drain().await;
    rig.drop_file("four.jsonl", requests(3));
    rig.drain().await;
    assert_eq!(sent(&rig), [3, 3, 3]);
    assert_eq!(rig.manifest("four")["reused"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_lines_are_known_too_and_what_defaults_change_is_another_question() {
    let plain = "queue.default.defaults = '{\"generationConfig\": {\"temperature\": 0.1}}'";
    let rig = Rig::with(Faults::default(), &[ON[0], ON[1], plain]).await;
    for name in ["one.jsonl", "two.jsonl"] {
        rig.drop_file(name, requests(3));
        rig.drain().await;
    }
    let other = "queue.default.defaults = '{\"generationConfig\": {\"temperature\": 0.2}}'";
    let rig = rig.saying(&[ON[0], ON[1], other]);
    rig.drop_file("three.jsonl", requests(3));
    rig.drain().await;
    assert_eq!(sent(&rig), [3, 3]);
    assert_eq!(rig.manifest("two")["reused"], 3);
    assert!(rig.manifest("three").get("reused").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_made_of_lines_that_are_not_known() {
    let canary = ["queue.default.canary = 6", "queue.default.canary_limit = \"1\""];
    let rig = Rig::with(Faults::default(), &[ON[0], ON[1], canary[0], canary[1]]).await;
    rig.drop_file("first.jsonl", requests(10));
    rig.drain().await;
    let known_first = sent(&rig);
    rig.drop_file("second.jsonl", requests(70));
    rig.drain().await;
    let manifest = rig.manifest("second");
    assert_eq!((&manifest["answered"], &manifest["reused"]), (&70.into(), &10.into()));
    assert_eq!(manifest["canary"], serde_json::json!({"lines": 6, "bad": 0}));
    let all = sent(&rig).iter().sum::<u64>();
    assert_eq!(all, known_first.iter().sum::<u64>() + 60, "each line goes once: {:?}", sent(&rig));
    let expected: Vec<String> = (1..=70).map(|n| format!("k{n}")).collect();
    assert_eq!(keys(&rig.lines("second.results.jsonl")), expected);
}
