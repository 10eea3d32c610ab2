//! `kill -9` in the middle of saving: what was acknowledged is there, and no half of anything.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use gemini_batchd::engine::job::RemoteError;
use gemini_batchd::engine::{Change, ChunkNo};
use gemini_batchd::store::JobStore;
use gemini_batchd::store::backend::Backend;

use crate::dice::{Dice, id};
use crate::{Sled, for_every_backend, full_name, open, open_whole};

/// Set for the child process: the state folder it saves in, and the backend's folder in there.
const FOLDER: &str = "GEMINI_BATCHD_TEST_STORE";
const BACKEND: &str = "GEMINI_BATCHD_TEST_BACKEND";

/// Jobs that a round of saves goes over.
const JOBS: u64 = 5;

/// Not a test of its own: the process that gets killed. Does nothing unless it is told where.
#[test]
fn saving_until_killed() {
    fn save_for_ever<B: Backend>() {
        if std::env::var(BACKEND).as_deref() != Ok(B::FOLDER) {
            return;
        }
        let folder = std::env::var_os(FOLDER).expect("set together");
        let mut store = open_whole::<B>(Path::new(&folder));
        let mut out = std::io::stdout();
        let mut count = last_count(&store) + 1;
        loop {
            store.save(&both_halves(count)).expect("saved");
            writeln!(out, "saved {count}").expect("the parent listens");
            count += 1;
        }
    }
    for_every_backend!(save_for_ever);
}

/// A head and a chunk that say the same number: one without the other is half a save.
fn both_halves(count: i64) -> Vec<Change> {
    let job = id(count as u64 % JOBS);
    let mut dice = Dice(count as u64);
    let mut head = dice.head(job);
    head.queue.priority = count;
    let mut chunk = dice.chunk(ChunkNo(1));
    let padding = "x".repeat(dice.below(3_000) as usize);
    chunk.last_error = Some(RemoteError { code: count as i32, message: padding });
    vec![Change::Head(Box::new(head)), Change::Chunk(job, Box::new(chunk))]
}

/// The number of the last save; fails if any save is there by half.
fn last_count(store: &dyn JobStore) -> i64 {
    let mut last = 0;
    for job in store.load().expect("all records can be read") {
        let count = job.head.queue.priority;
        let code = job.chunks[&ChunkNo(1)].last_error.as_ref().map(|error| error.code);
        assert_eq!(code, Some(count as i32), "half a save");
        assert_eq!(job.head.id, id(count as u64 % JOBS));
        last = last.max(count);
    }
    last
}

/// Faults 1 and 8.
#[test]
fn every_acknowledged_save_survives_kill_9() {
    for_every_backend!(kill_and_look);
}

fn kill_and_look<B: Backend>() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut dice = Dice(0x9111);
    for round in 0..crate::asked("GEMINI_BATCHD_STORE_KILLS", 30) {
        let mut child = Command::new(std::env::current_exe().expect("this test's own file"))
            .args(["--exact", &full_name(module_path!(), "saving_until_killed"), "--nocapture"])
            .env(FOLDER, folder.path())
            .env(BACKEND, B::FOLDER)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut acknowledged = 0;
        let mut left = dice.below(40);
        for line in lines.map_while(Result::ok) {
            let Some(count) = line.strip_prefix("saved ") else { continue };
            acknowledged = count.parse().expect("a number");
            if left == 0 {
                child.kill().expect("killed");
            }
            left = left.saturating_sub(1);
        }
        child.wait().expect("ended");
        assert!(acknowledged > 0, "round {round}: the child saved nothing");
        let last = last_count(&open_whole::<B>(folder.path()));
        // What was saved when the kill came may be there without an acknowledgement.
        assert!(
            last == acknowledged || last == acknowledged + 1,
            "{}, round {round}: {acknowledged} acknowledged, {last} found",
            B::FOLDER
        );
    }
}

/// Faults 8 and 11.
#[test]
fn a_store_killed_while_it_is_made_opens_or_begins_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    drop(open::<Sled>(folder.path()).expect("made"));
    let whole = std::fs::read(folder.path().join("jobs.sled/conf")).expect("read");
    for cut in [0, 5, whole.len() - 1] {
        // Nothing was accepted yet: the witness has seen no save, the data file is empty.
        let young = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(young.path().join("jobs.sled/blobs")).expect("made");
        write(&young.path().join("jobs.sled/conf"), &whole[..cut]);
        write(&young.path().join("jobs.sled/db"), b"");
        write(&young.path().join("jobs.sled.saves"), b"");
        let opened = open::<Sled>(young.path()).expect("opens or begins anew");
        assert_eq!(opened.store.load().expect("read"), [], "cut at {cut}");
    }
}

/// Faults 8 and 11.
#[cfg(feature = "redb")]
#[test]
fn a_file_of_redb_killed_while_it_is_made_opens_or_begins_anew() {
    use crate::{Redb, data_file};
    let folder = tempfile::tempdir().expect("a temporary folder");
    drop(open::<Redb>(folder.path()).expect("made"));
    let whole = std::fs::read(data_file::<Redb>(folder.path())).expect("read");
    for cut in [0, 5, 9, 64, 320, 4096, whole.len() - 1] {
        let young = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(young.path().join("jobs.redb")).expect("made");
        write(&data_file::<Redb>(young.path()), &whole[..cut]);
        write(&young.path().join("jobs.redb.saves"), b"");
        let opened = open::<Redb>(young.path()).expect("opens or begins anew");
        assert_eq!(opened.store.load().expect("read"), [], "cut at {cut}");
    }
}

fn write(path: &Path, content: &[u8]) {
    let mut file = std::fs::File::create(path).expect("created");
    file.write_all(content).expect("written");
}
