//! A store with many records after `kill -9`: all of them are there, and opening it is quick.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use gemini_batchd::engine::{Change, ChunkNo};
use gemini_batchd::store::JobStore;
use gemini_batchd::store::backend::Backend;

use crate::dice::{Dice, id};
use crate::{for_every_backend, full_name, open_whole};

/// Set for the child process: the state folder it saves in, and the backend's folder in there.
const FOLDER: &str = "GEMINI_BATCHD_TEST_MANY";
const BACKEND: &str = "GEMINI_BATCHD_TEST_MANY_BACKEND";

/// A job's state when it is complete, for [`Dice::head_in`].
const DONE: u64 = 6;

/// Of complete jobs, the daemon keeps the records of the chunks for so many.
const WITH_CHUNK: u64 = 1_000;

fn jobs() -> u64 {
    crate::asked("GEMINI_BATCHD_STORE_RECORDS", 2_000)
}

/// Not a test of its own: the process that gets killed. Does nothing unless it is told where.
#[test]
fn filling_until_killed() {
    fn fill<B: Backend>() {
        if std::env::var(BACKEND).as_deref() != Ok(B::FOLDER) {
            return;
        }
        let folder = std::env::var_os(FOLDER).expect("set together");
        let mut store = open_whole::<B>(Path::new(&folder));
        let mut dice = Dice(1);
        let jobs = jobs();
        for first in (0..jobs).step_by(500) {
            let some = (first..jobs.min(first + 500)).flat_map(|number| {
                let head = Change::Head(Box::new(dice.head_in(id(number), DONE)));
                let chunk = (jobs - number <= WITH_CHUNK)
                    .then(|| Change::Chunk(id(number), Box::new(dice.chunk(ChunkNo(1)))));
                std::iter::once(head).chain(chunk)
            });
            store.save(&some.collect::<Vec<_>>()).expect("saved");
        }
        let mut out = std::io::stdout();
        for round in 0_u64.. {
            store.save(&[Change::Head(Box::new(dice.head(id(round % jobs))))]).expect("saved");
            writeln!(out, "saved {round}").expect("the parent listens");
        }
    }
    for_every_backend!(fill);
}

/// Fault 1.
#[test]
fn many_records_are_all_there_after_kill_9() {
    for_every_backend!(kill_and_open);
}

fn kill_and_open<B: Backend>() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = Command::new(std::env::current_exe().expect("this test's own file"))
        .args(["--exact", &full_name(module_path!(), "filling_until_killed"), "--nocapture"])
        .env(FOLDER, folder.path())
        .env(BACKEND, B::FOLDER)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let enough = lines.map_while(Result::ok).any(|line| line == "saved 25");
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(enough, "the child filled the store and went on saving");
    let began = Instant::now();
    let store = open_whole::<B>(folder.path());
    let mut found = 0;
    store.each_job(&mut |_| found += 1).expect("all records can be read");
    let took = began.elapsed().as_secs_f64();
    assert_eq!(found, jobs());
    let (out, store) = (&mut std::io::stdout(), B::FOLDER);
    writeln!(out, "campaign: reopen {found} jobs in {store} after kill -9: {took:.2} s, lost 0")
        .expect("written");
}
