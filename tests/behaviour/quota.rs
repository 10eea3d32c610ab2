//! The API's queue of a model: what does not fit into it is held back, and small files get through.

use std::time::Duration;

use gemini_batchd::provider::gemini::emulator::{Emulator, Faults, Happened};

use super::rig::{Rig, request, requests};

/// Creates that were refused.
fn refused(emulator: &Emulator) -> usize {
    let is_refusal = |happened: &Happened| matches!(happened, Happened::CreateRefused { .. });
    emulator.journal().iter().filter(|entry| is_refusal(&entry.what)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_the_queue_is_held_back_and_all_is_answered() {
    let faults = Faults { enqueued_tokens: 400, ..Faults::default() };
    let settings = ["limits.enqueued_tokens = 45", "queue.default.lines_per_batch = 5"];
    let rig = Rig::with(faults, &settings).await;
    rig.drop_file("a.jsonl", requests(50));
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 50);
    assert_eq!(refused(&rig.emulator), 0, "nothing was sent that had no room");
    assert_eq!(rig.creates().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configured_limit_the_ceiling_is_learned_and_all_is_answered_once() {
    let faults = Faults { enqueued_tokens: 400, ..Faults::default() };
    let rig = Rig::with(faults, &["queue.default.lines_per_batch = 5"]).await;
    rig.drop_file("a.jsonl", requests(50));
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 50);
    assert_eq!(rig.creates().len(), 10, "each chunk made one batch");
    assert!(refused(&rig.emulator) > 0, "that is how it is learned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_larger_than_the_whole_queue_is_halved_until_it_fits() {
    // A line of so many bytes has some ten thousand tokens.
    let text = "water ".repeat(7_000);
    let lines: String = (0..8).map(|n| request(&format!("k{n}"), &format!("{n} {text}"))).collect();
    let faults = Faults { enqueued_tokens: 50_000, ..Faults::default() };
    let rig = Rig::new(faults).await;
    rig.drop_file("a.jsonl", &lines);
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["answered"], 8);
    let warnings = manifest["warnings"].to_string();
    assert!(warnings.contains("too large for the API's queue"), "{warnings}");
    assert!(rig.creates().len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_slow_takes_so_many_times_as_long() {
    let slow_models = [("gemini-2.5-pro".to_owned(), 20)].into();
    let faults = Faults { slow_models, ..Faults::default() };
    let rig = Rig::with(faults, &["queue.slow.model = \"gemini-2.5-pro\""]).await;
    rig.drop_file("slow/a.jsonl", requests(1));
    rig.drop_file("b.jsonl", requests(2));
    rig.drain().await;
    let took = |stem: &str| {
        let batch = &rig.manifest(stem)["batches"][0];
        let at = |name: &str| {
            let time = batch[name].as_str().and_then(|it| it.parse::<jiff::Timestamp>().ok());
            time.expect("a time")
        };
        Duration::try_from(at("ended").duration_since(at("created"))).expect("forwards")
    };
    assert!(took("slow/a") >= Duration::from_millis(800), "{:?}", took("slow/a"));
}
