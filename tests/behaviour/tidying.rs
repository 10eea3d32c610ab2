//! Housekeeping: archive, records, exports, and what is left at the API.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gemini_batchd::clock::{Clock, SystemClock};
use gemini_batchd::daemon::{Message, Setup, Until};
use gemini_batchd::engine::Millis;
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

/// A clock that is ahead.
struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn now(&self) -> Millis {
        SystemClock.now().plus(self.0.load(Ordering::Relaxed))
    }
}

/// Fault 76.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_clock_is_years_ahead_of_the_api_nothing_is_removed_for_its_age() {
    let settings = ["housekeeping.archive_keep = \"30d\"", "intake.rescan = \"20ms\""];
    let rig = Rig::with(Faults::default(), &settings).await;
    rig.drop_file("old.jsonl", requests(3));
    rig.drain().await;
    let clock = Arc::new(Ahead(AtomicU64::new(0)));
    let setup = Setup::open(Arc::new(rig.config()), clock.clone()).expect("it starts");
    let handle = setup.daemon.handle();
    let exports = rig.path("state/exports");
    let archived = rig.path("archive/old.jsonl");
    let kept = async {
        // The API says what time it is.
        rig.drop_file("new.jsonl", requests(4));
        while !rig.path("outbox/new.manifest.json").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        handle.tell(Message::HousekeepingDue).await;
        handle.tell(Message::HousekeepingDue).await;
        clock.0.store(10 * YEAR_MS, Ordering::Relaxed);
        handle.tell(Message::HousekeepingDue).await;
        // The slot of that false night is taken; then the clock is set right, and days go by.
        clock.0.store(2 * DAY_MS - DAY_MS / 24, Ordering::Relaxed);
        for _ in 0..3 {
            handle.tell(Message::HousekeepingDue).await;
        }
        handle.tell(Message::Stop).await;
    };
    let (ended, ()) = tokio::join!(setup.daemon.run(Until::Stopped), kept);
    ended.expect("its store works");
    assert!(archived.exists(), "{}", rig.listing());
    assert!(fs::read_dir(exports).is_err(), "no round was begun");
    let again = fs::read(archived).expect("read");
    rig.drop_file("again.jsonl", again);
    rig.drain().await;
    assert!(rig.path("held/again.jsonl").exists(), "its record is still there");
}

const DAY_MS: u64 = 86_400_000;
const YEAR_MS: u64 = 365 * DAY_MS;
