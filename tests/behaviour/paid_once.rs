//! The create call: lost replies, refusals, and what is never sent twice.

use bytes::Bytes;
use gemini_batchd::daemon::{Ended, Message, Until};
use gemini_batchd::engine::Stamp;
use gemini_batchd::engine::event::Command;
use gemini_batchd::engine::job::Task;
use gemini_batchd::provider::gemini::emulator::faults::{CallKind, Denied};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened};
use gemini_batchd::provider::gemini::{ApiKey, Client, ClientSettings, CreateInput, Payload};

use super::rig::{KEY, Rig, requests};

const BY_FILE: &str = "queue.default.transport = \"file\"";

async fn answered_with_one_create(faults: Faults, settings: &[&str]) -> serde_json::Value {
    let rig = Rig::with(faults, settings).await;
    rig.drop_file("a.jsonl", requests(5));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["answered"], 5, "{manifest}");
    assert_eq!(rig.creates().len(), 1, "{:?}", rig.creates());
    manifest
}

/// Fault 58.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_created_behind_a_503_or_a_cut_connection_is_adopted() {
    for settings in [&[BY_FILE][..], &[]] {
        let after = Faults { create_503_after: Budget::times(1), ..Faults::default() };
        let manifest = answered_with_one_create(after, settings).await;
        assert_eq!(manifest["batches"][0]["adopted"], true);
        let cut = Faults { create_drop_after: Budget::times(1), ..Faults::default() };
        let manifest = answered_with_one_create(cut, settings).await;
        assert_eq!(manifest["batches"][0]["adopted"], true);
    }
}

/// Fault 59.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lags_behind_does_not_make_a_second_batch() {
    let faults = Faults {
        create_503_after: Budget::times(1),
        list_lag_ms: 200,
        list_empty_first_page: Budget::times(2),
        list_stale_stats: true,
        list_needs_page_size: true,
        ..Faults::default()
    };
    answered_with_one_create(faults, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_never_arrived_is_sent_again_after_the_window_and_that_is_told() {
    for faults in [
        Faults { create_503_before: Budget::times(1), ..Faults::default() },
        Faults { create_drop_before: Budget::times(1), ..Faults::default() },
    ] {
        let manifest = answered_with_one_create(faults, &[]).await;
        assert_eq!(manifest["batches"][0]["attempt"], 2, "{manifest}");
        let warnings = manifest["warnings"].to_string();
        assert!(warnings.contains("sent again"), "{warnings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_in_doubt_can_wait_for_a_person() {
    let faults = Faults { create_drop_before: Budget::times(1), ..Faults::default() };
    let rig = Rig::with(faults, &["api.uncertain = \"hold\""]).await;
    rig.drop_file("a.jsonl", requests(5));
    rig.drain().await;
    assert!(rig.creates().is_empty());
    let reason = rig.json("held/a.jsonl.reason.json");
    assert_eq!(reason["reason"], "uncertain", "{reason}");
    assert!(reason["remedy"].as_str().expect("text").contains("release"), "{reason}");

    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let id = handle.with_engine(|engine| engine.jobs().next().expect("the job").head.id);
    let released = async {
        handle.command(Command::Release(id)).await.expect("released");
        while rig.creates().is_empty() {
            tokio::task::yield_now().await;
        }
        handle.tell(Message::Stop).await;
    };
    let (ended, ()) = tokio::join!(setup.daemon.run(Until::Stopped), released);
    ended.expect("it ends");
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 5);
    assert!(!rig.path("held/a.jsonl.reason.json").exists(), "{}", rig.listing());
}

/// Fault 55.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_waited_out() {
    let faults = Faults { create_429: Budget::times(4), array_errors: true, ..Faults::default() };
    let manifest = answered_with_one_create(faults, &[]).await;
    assert_eq!(manifest["warnings"].as_array().map(Vec::len), Some(0), "{manifest}");
}

/// Fault 56.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_stops_without_losing_anything_and_goes_on_with_the_next_run() {
    let denied = Denied { status: 403, call: Some(CallKind::Create), times: Budget::times(1) };
    let rig = Rig::new(Faults { denied: Some(denied), ..Faults::default() }).await;
    rig.drop_file("a.jsonl", requests(5));
    assert!(matches!(rig.drain().await, Ended::Denied(_)));
    assert!(rig.creates().is_empty());
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 5);
}

/// Fault 82.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_nowhere_in_the_spool() {
    let rig = Rig::with(Faults::default(), &[BY_FILE]).await;
    rig.drop_file("a.jsonl", requests(5));
    rig.drain().await;
    let grep = std::process::Command::new("grep")
        .args(["-rlF", KEY])
        .arg(rig.folder.path())
        .output()
        .expect("grep runs");
    assert!(grep.stdout.is_empty(), "{}", String::from_utf8_lossy(&grep.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_batches_with_one_stamp_the_older_is_kept_and_the_other_stopped() {
    let faults =
        Faults { create_503_after: Budget::times(1), list_lag_ms: 600_000, ..Faults::default() };
    let rig = Rig::with(faults, &["api.uncertain_window = \"30s\""]).await;
    rig.drop_file("a.jsonl", requests(5));
    rig.run_until(|rig| rig.creates().len() == 1).await;

    // Somebody sends the same again, and that one does not end by itself.
    rig.emulator.set_faults(Faults { stuck_pending: Budget::times(1), ..Faults::default() });
    let key = ApiKey::new(KEY).expect("a key");
    let url = rig.emulator.url().parse().expect("a URL");
    let client = Client::new(ClientSettings::new(url, key)).expect("a client");
    let item = br#"{"request":{"contents":[{"parts":[{"text":"x"}]}]},"metadata":{"key":"1"}}"#;
    let input = CreateInput::Inline(Payload::from_bytes(Bytes::from_static(item)));
    let stamp = Stamp(rig.creates()[0].clone());
    let double = client
        .create("gemini-2.5-flash", Task::Generate, &stamp, 0, input)
        .await
        .expect("created")
        .batch;

    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["answered"], 5, "{manifest}");
    assert_ne!(manifest["batches"][0]["name"], double.0);
    assert!(manifest["warnings"].to_string().contains(&double.0), "{manifest}");
    let asked = Happened::CancelAsked { batch: double.0 };
    assert!(rig.emulator.journal().iter().any(|entry| entry.what == asked));
    assert_eq!(rig.creates().len(), 2);
}
