//! Mirrors are not synced, so a power cut may leave anything of them. The next start mends them
//! from the store, which is then once more not the only place where a job is written down.

use std::fs;
use std::path::PathBuf;

use gemini_batchd::provider::gemini::emulator::{Budget, Faults};
use gemini_batchd::store::record;

use crate::rig::{Rig, eventually, requests};

/// Fault 27.
#[test]
fn a_torn_or_missing_mirror_is_written_again_from_the_store() {
    let tear: fn(&PathBuf) = |path| {
        let file = fs::File::options().write(true).open(path).expect("there");
        let half = file.metadata().expect("told").len() / 2;
        file.set_len(half).expect("cut");
    };
    let zero: fn(&PathBuf) = |path| {
        let len = fs::metadata(path).expect("told").len() as usize;
        fs::write(path, vec![0; len]).expect("written");
    };
    let remove: fn(&PathBuf) = |path| fs::remove_file(path).expect("removed");
    for spoil in [tear, zero, remove] {
        let stuck = Faults { stuck_pending: Budget::Always, ..Faults::default() };
        let rig = Rig::new(stuck, &["queue.default.lines_per_batch = 4"]);
        rig.drop_file("a.jsonl", requests(12));
        let (daemon, _notices) = rig.run("");
        eventually("every batch is known to the store", || is_polling(&rig, 3));
        daemon.kill();
        mirrors(&rig).iter().for_each(spoil);

        let (daemon, _notices) = rig.run("");
        eventually("the mirror is whole again", || is_polling(&rig, 3));
        // Log lines have a thread of their own, which may still have some.
        eventually("it says so", || rig.log().contains("mirror is written again"));
        daemon.kill();

        // Now the store is lost too.
        fs::remove_dir_all(rig.spool().join("state/jobs.sled")).expect("removed");
        rig.emulator.set_faults(Faults::default());
        rig.emulator.advance(std::time::Duration::from_secs(49 * 3600));
        rig.drain();
        let results = rig.spool().join("outbox/a.results.jsonl");
        let results = fs::read_to_string(results).expect("delivered");
        assert_eq!(results.lines().count(), 12, "{}", rig.log());
    }
}

/// The mirrors of all jobs under way.
fn mirrors(rig: &Rig) -> Vec<PathBuf> {
    let jobs = fs::read_dir(rig.spool().join("working")).into_iter().flatten().flatten();
    jobs.map(|job| job.path().join("record.json")).filter(|path| path.is_file()).collect()
}

/// Whether there is one job, and its mirror knows of so many batches.
fn is_polling(rig: &Rig, batches: usize) -> bool {
    let [path] = &mirrors(rig)[..] else { return false };
    let known = fs::read(path).ok().and_then(|bytes| record::from_mirror(&bytes).ok());
    known.is_some_and(|job| {
        let waits = |state: &_| matches!(state, gemini_batchd::engine::ChunkState::Polling(_));
        job.chunks.values().filter(|chunk| waits(&chunk.state)).count() == batches
    })
}
