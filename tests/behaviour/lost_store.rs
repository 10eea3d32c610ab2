//! The job store is lost or damaged while batches are under way.

use std::fs;
use std::time::Duration;

use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened};

use super::rig::{Rig, requests};

async fn survives(settings: &[&str], batches: usize, damage: impl Fn(&Rig)) {
    let rig = Rig::with(Faults::default(), settings).await;
    rig.emulator.set_faults(Faults { stuck_pending: Budget::Always, ..Faults::default() });
    rig.drop_file("a.jsonl", requests(100));
    rig.run_until(|rig| rig.creates().len() == batches).await;
    damage(&rig);
    rig.emulator.set_faults(Faults::default());
    rig.emulator.advance(Duration::from_secs(49 * 3600));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["answered"], 100, "{manifest}");
    assert!(
        fs::read_dir(rig.path("state"))
            .expect("listed")
            .flatten()
            .any(|entry| { entry.file_name().to_string_lossy().starts_with("quarantine") })
    );
    // Every batch expired unanswered and was sent again once: nothing was sent twice at a time.
    let mut creates = rig.creates();
    assert_eq!(creates.len(), 2 * batches, "{creates:?}");
    creates.sort();
    creates.dedup();
    assert_eq!(creates.len(), 2 * batches, "no stamp was used twice");
}

fn cut_short(rig: &Rig) {
    let db = fs::OpenOptions::new().write(true).open(rig.path("state/jobs.sled/db"));
    db.and_then(|file| file.set_len(1000)).expect("cut");
}

fn remove(rig: &Rig) {
    fs::remove_dir_all(rig.path("state/jobs.sled")).expect("removed");
}

/// Fault 26.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_set_aside_and_rebuilt_and_nothing_is_sent_twice() {
    survives(&["queue.default.lines_per_batch = 25"], 4, cut_short).await;
}

/// Fault 9.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_is_rebuilt_for_a_job_of_very_many_chunks_too() {
    let settings = ["queue.default.lines_per_batch = 1", "limits.open_batches = 100"];
    survives(&settings, 100, remove).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_is_not_sent_when_the_store_is_gone() {
    let settings = ["queue.default.cache = \"30d\"", "intake.duplicates = \"process\""];
    let rig = Rig::with(Faults::default(), &settings).await;
    rig.drop_file("first.jsonl", requests(10));
    rig.drain().await;
    rig.emulator.set_faults(Faults { stuck_pending: Budget::Always, ..Faults::default() });
    rig.drop_file("second.jsonl", requests(25));
    rig.run_until(|rig| rig.creates().len() == 2).await;
    remove(&rig);
    rig.emulator.set_faults(Faults::default());
    rig.emulator.advance(Duration::from_secs(49 * 3600));
    rig.drain().await;
    let manifest = rig.manifest("second");
    assert_eq!((&manifest["answered"], &manifest["reused"]), (&25.into(), &10.into()));
    let rows = rig.emulator.journal().into_iter().filter_map(|entry| match entry.what {
        Happened::Created { rows, .. } => Some(rows),
        _ => None,
    });
    assert_eq!(rows.collect::<Vec<u64>>(), [10, 15, 15], "the one that expired is sent once more");
}
