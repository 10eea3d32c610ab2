//! Uploads and downloads that break.

use gemini_batchd::provider::gemini::emulator::faults::{AfterBytes, CallKind, OnCall};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened, JournalEntry};

use super::rig::{Rig, keys, requests};

const BY_FILE: &str = "queue.default.transport = \"file\"";

async fn comes_through(faults: Faults, settings: &[&str]) -> Rig {
    let rig = Rig::with(faults, settings).await;
    rig.drop_file("a.jsonl", requests(200));
    rig.drain().await;
    let expected: Vec<String> = (1..=200).map(|n| format!("k{n}")).collect();
    assert_eq!(keys(&rig.lines("a.results.jsonl")), expected, "{}", rig.listing());
    assert_eq!(rig.manifest("a")["verdict"], "complete");
    rig
}

/// Fault 50.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_goes_on_where_the_server_is() {
    let cut = AfterBytes { after: 9000, times: Budget::times(2) };
    let faults = Faults { upload_cut: Some(cut), ..Faults::default() };
    let rig = comes_through(faults, &[BY_FILE]).await;
    let mut offsets = Vec::new();
    for entry in rig.emulator.journal() {
        if let Happened::UploadPiece { offset, .. } = entry.what {
            offsets.push(offset);
        }
    }
    assert!(offsets.iter().any(|offset| *offset > 0), "{offsets:?}");
}

/// Fault 4.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_with_the_upload_where_the_server_is() {
    let cut = AfterBytes { after: 9000, times: Budget::Always };
    let rig = Rig::with(Faults { upload_cut: Some(cut), ..Faults::default() }, &[BY_FILE]).await;
    rig.drop_file("a.jsonl", requests(200));
    let offsets = |rig: &Rig| -> Vec<u64> {
        let piece = |entry: JournalEntry| match entry.what {
            Happened::UploadPiece { offset, .. } => Some(offset),
            _ => None,
        };
        rig.emulator.journal().into_iter().filter_map(piece).collect()
    };
    rig.run_until(|rig| !offsets(rig).is_empty()).await;
    rig.emulator.set_faults(Faults::default());
    let before = offsets(&rig).len();
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 200);
    // An effect of the daemon that was dropped may still come to its end, with a piece of its own.
    let after = offsets(&rig).split_off(before);
    assert!(after.contains(&9000), "{after:?}");
    let started = |entry: &JournalEntry| matches!(entry.what, Happened::UploadStarted { .. });
    assert_eq!(rig.emulator.journal().iter().filter(|entry| started(entry)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_the_last_piece_finds_the_file_again() {
    let faults = Faults { upload_finalize_lost: Budget::times(1), ..Faults::default() };
    let rig = comes_through(faults, &[BY_FILE]).await;
    assert_eq!(rig.creates().len(), 1);
}

/// Fault 52.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_upload_session_begins_anew() {
    let faults = Faults {
        upload_session_lost: Budget::times(1),
        upload_refused: Budget::times(1),
        ..Faults::default()
    };
    comes_through(faults, &[BY_FILE]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_storage_at_the_api_is_waited_out() {
    let faults = Faults {
        upload_start_429: Budget::times(3),
        upload_start_no_url: Budget::times(1),
        ..Faults::default()
    };
    comes_through(faults, &[BY_FILE]).await;
}

/// Fault 68.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_download_is_completed_with_and_without_ranges() {
    for download_ranges in [false, true] {
        let cut = AfterBytes { after: 20_000, times: Budget::times(2) };
        let faults = Faults { download_cut: Some(cut), download_ranges, ..Faults::default() };
        comes_through(faults, &[BY_FILE]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_ends_early_without_a_sign_is_fetched_again() {
    let short = AfterBytes { after: 10_000, times: Budget::times(1) };
    let faults = Faults { download_short: Some(short), ..Faults::default() };
    let rig = comes_through(faults, &[BY_FILE]).await;
    assert_eq!(rig.creates().len(), 1, "fetching again is not paying again");
}

/// Fault 54.
#[tokio::test(flavor = "multi_thread")]
async fn html_from_a_front_end_is_survived_on_every_call() {
    for call in [
        CallKind::UploadStart,
        CallKind::Upload,
        CallKind::List,
        CallKind::Get,
        CallKind::Download,
        CallKind::Delete,
    ] {
        let html = OnCall { call: Some(call), times: Budget::times(2) };
        let faults = Faults { html_502: Some(html), ..Faults::default() };
        let rig = comes_through(faults, &[BY_FILE]).await;
        assert_eq!(rig.creates().len(), 1, "{call:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn success_before_the_output_is_there_is_waited_out() {
    for settings in [&[BY_FILE][..], &[]] {
        let faults = Faults { no_output_gets: 3, ..Faults::default() };
        let rig = comes_through(faults, settings).await;
        assert_eq!(rig.creates().len(), 1);
    }
}
