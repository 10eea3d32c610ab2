//! Housekeeping: archive, records, exports, and what is left at the API.

use std::time::Duration;

use gemini_batchd::daemon::{Message, Until};
use gemini_batchd::provider::gemini::emulator::faults::{CallKind, OnCall};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened};

use super::rig::{Rig, requests};

#[tokio::test(flavor = "multi_thread")]
async fn the_housekeeping_slot_removes_what_is_old_and_what_was_left_at_the_api() {
    let settings = [
        "queue.default.transport = \"file\"",
        "housekeeping.schedule = \"* * * * * *\"",
        "housekeeping.archive_keep = \"0s\"",
    ];
    // The deletes at the end of the job fail, so that something is left.
    let refuse = OnCall { call: Some(CallKind::Delete), times: Budget::Always };
    let faults = Faults { html_502: Some(refuse), ..Faults::default() };
    let rig = Rig::with(faults, &settings).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.drain().await;
    assert!(rig.path("archive/a.jsonl").exists());
    let deleted = |rig: &Rig| {
        let is = |entry: &Happened| matches!(entry, Happened::BatchDeleted { .. });
        rig.emulator.journal().iter().filter(|entry| is(&entry.what)).count()
    };
    assert_eq!(deleted(&rig), 0);
    rig.emulator.set_faults(Faults::default());

    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let exports = rig.path("state/exports");
    let tidied = async {
        while !(deleted(&rig) == 1 && !rig.path("archive/a.jsonl").exists() && exports.is_dir()) {
            handle.tell(Message::HousekeepingDue).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        ended = setup.daemon.run(Until::Stopped) => panic!("it ended: {ended:?}"),
        waited = tokio::time::timeout(Duration::from_secs(30), tidied) => {
            waited.unwrap_or_else(|_| panic!("not tidied:\n{}", rig.listing()));
        }
    }
    let export = std::fs::read_dir(exports).expect("listed").flatten().next().expect("an export");
    let text = std::fs::read_to_string(export.path()).expect("read");
    assert!(text.contains("a.jsonl"), "{text}");
}
