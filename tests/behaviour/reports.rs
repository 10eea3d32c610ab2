//! The morning report: written once for each slot, also when nothing ran, and the same after a
//! restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gemini_batchd::clock::Clock;
use gemini_batchd::daemon::{Message, Setup, Until};
use gemini_batchd::engine::Millis;
use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{Rig, requests};

const HOUR_MS: u64 = 3_600_000;

/// A clock that is so far ahead of that of the machine, milliseconds.
struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn now(&self) -> Millis {
        gemini_batchd::clock::SystemClock.now().plus(self.0.load(Ordering::Relaxed))
    }
}

fn reports(rig: &Rig) -> Vec<String> {
    let entries = std::fs::read_dir(rig.path("outbox/reports")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// A daemon lives through these moments, as many hours after now, and is stopped.
async fn live(rig: &Rig, hours: &[u64]) {
    let clock = Arc::new(Ahead(AtomicU64::new(0)));
    clock.0.store(hours[0] * HOUR_MS, Ordering::Relaxed);
    let setup = Setup::open(Arc::new(rig.config()), clock.clone()).expect("it starts");
    let handle = setup.daemon.handle();
    let story = async {
        for hour in hours {
            clock.0.store(hour * HOUR_MS, Ordering::Relaxed);
            let before = handle.with_engine(|engine| engine.unfinished().count());
            assert_eq!(before, 0);
            handle.tell(Message::HousekeepingDue).await;
            // The loop takes one message after the other: when this one is answered, that one is done.
            let (ask, answered) = tokio::sync::oneshot::channel();
            handle.tell(Message::Report(Millis(0), ask)).await;
            answered.await.expect("a report");
        }
        handle.tell(Message::Stop).await;
    };
    let (ended, ()) = tokio::join!(setup.daemon.run(Until::Stopped), story);
    ended.expect("its store works");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_comes_once_for_each_slot_and_missed_ones_are_caught_up_in_one() {
    // Every hour has a slot.
    let rig = Rig::with(Faults::default(), &["report.schedule = \"0 * * * *\""]).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.drain().await;
    live(&rig, &[0, 0]).await;
    assert_eq!(reports(&rig), Vec::<String>::new(), "a new spool has missed nothing");
    live(&rig, &[1, 1]).await;
    assert_eq!(reports(&rig).len(), 2, "{:?}", reports(&rig));
    let name = reports(&rig).into_iter().find(|name| name.ends_with(".json")).expect("one");
    let first = rig.json(&format!("outbox/reports/{name}"));
    assert_eq!(first["version"], 1);
    // The daemon was away for days; the time in between is in one report, where nothing ran.
    live(&rig, &[200, 200, 200]).await;
    assert_eq!(reports(&rig).len(), 4, "{:?}", reports(&rig));
    live(&rig, &[200]).await;
    assert_eq!(reports(&rig).len(), 4, "{:?}", reports(&rig));
    let later = reports(&rig).into_iter().rfind(|name| name.ends_with(".json")).expect("one");
    let later = rig.json(&format!("outbox/reports/{later}"));
    assert_eq!(later["from"], first["to"], "no moment is between two reports");
    assert_eq!(later["lines"]["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_before_its_slot_was_noted_the_report_is_not_written_twice() {
    let rig = Rig::with(Faults::default(), &["report.schedule = \"0 * * * *\""]).await;
    live(&rig, &[0]).await;
    let store = rig.path("state");
    let before = tempfile::tempdir().expect("a folder");
    copy(&store, before.path());
    live(&rig, &[2]).await;
    let written = reports(&rig);
    assert_eq!(written.len(), 2);
    let markdown = written.iter().find(|name| name.ends_with(".md")).expect("one");
    std::fs::remove_file(rig.path("outbox/reports").join(markdown)).expect("never written");
    // As if the process had been killed right after the first of both files.
    std::fs::remove_dir_all(&store).expect("removed");
    copy(before.path(), &store);
    live(&rig, &[2]).await;
    assert_eq!(reports(&rig), written);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_schedule_there_is_no_report() {
    let rig = Rig::with(Faults::default(), &["report.schedule = \"\""]).await;
    live(&rig, &[0, 100, 300]).await;
    assert_eq!(reports(&rig), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_changes_nothing_about_a_report() {
    let rig = Rig::with(Faults::default(), &[]).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.drop_file("b.jsonl", requests(5));
    rig.drain().await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let setup = rig.setup();
        let handle = setup.daemon.handle();
        let ask = async {
            let (ask, answered) = tokio::sync::oneshot::channel();
            handle.tell(Message::Report(Millis(0), ask)).await;
            let report = answered.await.expect("a report");
            handle.tell(Message::Stop).await;
            report
        };
        let run = tokio::time::timeout(Duration::from_secs(60), setup.daemon.run(Until::Stopped));
        let (ended, report) = tokio::join!(run, ask);
        ended.expect("it ends").expect("its store works");
        seen.push(report);
    }
    assert_eq!((seen[0].lines.answered, seen[0].files.complete), (8, 2));
    let same = |at: usize| (seen[at].files, seen[at].lines, seen[at].slowest.clone());
    assert_eq!(same(0), same(1));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy(&entry.path(), &target),
            false if entry.file_type().expect("known").is_file() => {
                std::fs::copy(entry.path(), target).map(drop).expect("copied");
            }
            false => {}
        }
    }
}
