//! Housekeeping: archive, records, exports, and what is left at the API.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gemini_batchd::clock::{Clock, SystemClock};
use gemini_batchd::daemon::{Message, Setup, Until};
use gemini_batchd::engine::Millis;
use gemini_batchd::provider::gemini::emulator::faults::{CallKind, Denied, OnCall};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened, Options};

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
    let rig = Rig::over(Options { start: long_ago(), ..Rig::options(faults) }, &settings).await;
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

/// Counts what happened at the emulator.
fn count(rig: &Rig, is: impl Fn(&Happened) -> bool) -> usize {
    rig.emulator.journal().iter().filter(|entry| is(&entry.what)).count()
}

fn is_deletion(what: &Happened) -> bool {
    matches!(what, Happened::BatchDeleted { .. } | Happened::FileDeleted { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_is_removed_at_the_api_as_soon_as_its_batch_exists() {
    let settings = ["queue.default.transport = \"file\""];
    let stuck = Faults { stuck_pending: Budget::Always, ..Faults::default() };
    let rig = Rig::with(stuck, &settings).await;
    rig.drop_file("a.jsonl", requests(3));
    let is_file = |what: &Happened| matches!(what, Happened::FileDeleted { .. });
    rig.run_until(|rig| count(rig, is_file) == 1).await;
    assert_eq!(rig.creates().len(), 1);
    rig.emulator.set_faults(Faults::default());
    rig.emulator.advance(Duration::from_secs(49 * 3600));
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 3);
    assert_eq!(count(&rig, is_deletion), 4, "two inputs, two batches, and nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_permission_nothing_is_removed_at_the_api() {
    let settings = ["queue.default.transport = \"file\"", "housekeeping.remote_cleanup = false"];
    let options = Options { start: long_ago(), ..Rig::options(Faults::default()) };
    let rig = Rig::over(options, &settings).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.drain().await;
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let story = async {
        handle.tell(Message::HousekeepingDue).await;
        rig.drop_file("b.jsonl", requests(4));
        while !rig.path("outbox/b.manifest.json").exists() {
            handle.tell(Message::Look).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        handle.tell(Message::Stop).await;
    };
    let (ended, ()) = tokio::join!(setup.daemon.run(Until::Stopped), story);
    ended.expect("its store works");
    assert_eq!(count(&rig, is_deletion), 0);
}

/// What a crash left is removed after the next start; what others made stays, however much its name
/// looks like ours.
#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_known_jobs_are_removed_and_what_looks_like_them_stays() {
    let settings = ["queue.default.transport = \"file\""];
    let refuse = OnCall { call: Some(CallKind::Delete), times: Budget::Always };
    // This is what a file that is gone looks like.
    let gone = Denied { status: 403, call: Some(CallKind::FileDelete), times: Budget::Always };
    let faults = Faults { html_502: Some(refuse), denied: Some(gone), ..Faults::default() };
    let rig = Rig::over(Options { start: long_ago(), ..Rig::options(faults) }, &settings).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.drain().await;
    let stamp = rig.creates().remove(0);
    let unknown =
        stamp.replace("/c1/a1", "/c2/a1").replacen("gemini-batchd/0", "gemini-batchd/7", 1);
    assert_ne!(unknown, stamp);
    let longer = format!("{stamp}/x");
    for (id, name) in [("mine", &stamp), ("looks-alike", &longer), ("of-another-daemon", &unknown)]
    {
        upload(&rig, id, name).await;
    }
    rig.emulator.advance(LONG);
    // This one is young when the others are old.
    rig.drop_file("b.jsonl", requests(4));
    rig.drain().await;
    rig.emulator.set_faults(Faults::default());
    // Files are listed newest first, so that the last to be removed comes after all that stay.
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let story = async {
        handle.tell(Message::HousekeepingDue).await;
        while count(&rig, is_deletion) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        handle.tell(Message::Stop).await;
    };
    let (ended, ()) = tokio::join!(setup.daemon.run(Until::Stopped), story);
    ended.expect("its store works");
    let removed: Vec<String> = rig
        .emulator
        .journal()
        .into_iter()
        .filter_map(|entry| match entry.what {
            Happened::FileDeleted { file } => Some(file),
            _ => None,
        })
        .collect();
    let job = stamp.split('/').nth(1).expect("a job").to_ascii_lowercase();
    assert_eq!(removed, [format!("files/{job}-1-1")], "the input of the first job");
    assert_eq!(count(&rig, is_deletion), 2, "and its batch");
}

/// Uploads a file as anybody with the key can.
async fn upload(rig: &Rig, id: &str, display_name: &str) {
    let url = format!("{}/upload/v1beta/files", rig.emulator.url());
    let about =
        serde_json::json!({"file": {"name": format!("files/{id}"), "displayName": display_name}});
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let begun = http
        .post(url)
        .header("x-goog-api-key", super::rig::KEY)
        .header("x-goog-upload-protocol", "resumable")
        .header("x-goog-upload-command", "start")
        .header("x-goog-upload-header-content-length", "3")
        .header("x-goog-upload-header-content-type", "application/jsonl")
        .body(about.to_string())
        .send()
        .await
        .expect("answered");
    let session = begun.headers()["x-goog-upload-url"].to_str().expect("a URL").to_owned();
    let sent = http
        .post(session)
        .header("x-goog-upload-command", "upload, finalize")
        .header("x-goog-upload-offset", "0")
        .body("{}\n")
        .send()
        .await
        .expect("answered");
    assert!(sent.status().is_success(), "{}", sent.status());
}

/// When an emulator starts whose first batches and files are not young any more.
pub(super) fn long_ago() -> Option<std::time::SystemTime> {
    Some(SystemClock.now()).map(|now| std::time::UNIX_EPOCH + Duration::from_millis(now.0) - LONG)
}

/// Long enough for what is to be removed at the API.
pub(super) const LONG: Duration = Duration::from_secs(2 * 3600);
const DAY_MS: u64 = 86_400_000;
const YEAR_MS: u64 = 365 * DAY_MS;
