//! Results that are shuffled, missing, repeated, foreign, blocked or cut.

use gemini_batchd::provider::gemini::emulator::faults::EveryNth;
use gemini_batchd::provider::gemini::emulator::{Budget, Faults};

use super::rig::{Rig, keys, requests, text};

const BY_FILE: &str = "queue.default.transport = \"file\"";

fn every(every: u64, times: Budget) -> EveryNth {
    EveryNth { every, times }
}

/// Fault 71.
#[tokio::test(flavor = "multi_thread")]
async fn shuffled_results_come_out_in_input_order() {
    for settings in [&[BY_FILE][..], &[]] {
        let faults = Faults { shuffled: Budget::Always, ..Faults::default() };
        let rig = Rig::with(faults, settings).await;
        rig.drop_file("a.jsonl", requests(100));
        rig.drain().await;
        let lines = rig.lines("a.results.jsonl");
        for (n, line) in (1..).zip(&lines) {
            assert_eq!(line["key"], format!("k{n}"));
            assert!(text(line).ends_with(&format!("question {n}")), "{line}");
        }
        assert_eq!(lines.len(), 100);
    }
}

/// Fault 70.
#[tokio::test(flavor = "multi_thread")]
async fn missing_rows_are_sent_again_and_only_those() {
    let faults = Faults { missing: every(7, Budget::times(1)), ..Faults::default() };
    let rig = Rig::with(faults, &[BY_FILE]).await;
    rig.drop_file("a.jsonl", requests(20));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["verdict"], "complete", "{manifest}");
    assert_eq!(manifest["batches"][0]["answered"], 18);
    assert_eq!(manifest["batches"][1]["lines"], 2);
    assert_eq!(keys(&rig.lines("a.results.jsonl")).len(), 20);
}

/// Fault 69.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_and_foreign_lines_change_nothing_and_are_told() {
    let faults = Faults {
        repeated: every(3, Budget::Always),
        foreign: every(4, Budget::Always),
        ..Faults::default()
    };
    let rig = Rig::new(faults).await;
    rig.drop_file("a.jsonl", requests(12));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["answered"], 12);
    let warnings = manifest["warnings"].to_string();
    assert!(warnings.contains("4 result lines for rows that had one already"), "{warnings}");
    assert!(warnings.contains("3 result lines for rows that were not sent"), "{warnings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_rows_fail_and_truncated_ones_are_counted_apart() {
    let faults = Faults {
        blocked: every(5, Budget::Always),
        truncated: every(3, Budget::Always),
        ..Faults::default()
    };
    let rig = Rig::new(faults).await;
    rig.drop_file("a.jsonl", requests(10));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["verdict"], "partial");
    assert_eq!(manifest["failures"]["blocked"], 2, "{manifest}");
    assert!(manifest["truncated"].as_u64().expect("a count") >= 2, "{manifest}");
    let errors = rig.lines("a.errors.jsonl");
    assert_eq!(errors[0]["line"], 5);
    assert_eq!(errors[0]["error"]["reason"], "blocked");
    assert_eq!(rig.creates().len(), 1, "blocked rows are not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_errors_file_dropped_back_retries_just_those_lines() {
    let faults = Faults { blocked: every(5, Budget::times(1)), ..Faults::default() };
    let rig = Rig::new(faults).await;
    rig.drop_file("a.jsonl", requests(10));
    rig.drain().await;
    let errors = std::fs::read(rig.path("outbox/a.errors.jsonl")).expect("two lines failed");
    rig.drop_file("again.jsonl", errors);
    rig.drain().await;
    assert_eq!(keys(&rig.lines("again.results.jsonl")), ["k5", "k10"], "{}", rig.listing());
    assert_eq!(rig.manifest("again")["verdict"], "complete");
}
