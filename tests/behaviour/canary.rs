//! The canary: a few lines of a file go first, and what becomes of the rest.

use std::collections::BTreeSet;

use gemini_batchd::daemon::Ended;
use gemini_batchd::engine::canary;
use gemini_batchd::engine::event::Command;
use gemini_batchd::engine::job::JobState;
use gemini_batchd::provider::gemini::emulator::faults::EveryNth;
use gemini_batchd::provider::gemini::emulator::{Budget, Faults};

use super::rig::{Rig, keys, requests};

const SETTINGS: [&str; 2] = ["queue.default.canary = 6", "queue.default.canary_limit = \"1\""];

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_comes_back_well_lets_the_rest_follow_and_no_line_goes_twice() {
    for transport in ["inline", "file"] {
        let transport = format!("queue.default.transport = {transport:?}");
        let rig = Rig::with(Faults::default(), &[SETTINGS[0], SETTINGS[1], &transport]).await;
        rig.drop_file("a.jsonl", requests(60));
        rig.drop_file("short.jsonl", requests(7));
        rig.drain().await;
        let manifest = rig.manifest("a");
        assert_eq!(manifest["answered"], 60);
        assert_eq!(manifest["canary"], serde_json::json!({"lines": 6, "bad": 0}));
        let expected: Vec<String> = (1..=60).map(|n| format!("k{n}")).collect();
        assert_eq!(keys(&rig.lines("a.results.jsonl")), expected);
        let lines = manifest["batches"].as_array().expect("batches").iter();
        let lines: Vec<u64> = lines.filter_map(|batch| batch["lines"].as_u64()).collect();
        assert_eq!(lines.iter().sum::<u64>(), 60, "{lines:?}");
        assert_eq!(lines.iter().filter(|lines| **lines == 2).count(), 3, "{lines:?}");
        // The shorter file is hardly longer than a canary would be.
        assert!(rig.manifest("short").get("canary").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_comes_back_badly_stops_the_rest_with_its_answers_beside_the_note() {
    let blocked = EveryNth { every: 2, times: Budget::Always };
    let rig = Rig::with(Faults { blocked, ..Faults::default() }, &SETTINGS).await;
    rig.drop_file("sub/a.jsonl", requests(60));
    let Ended::Idle(jobs) = rig.drain().await else { panic!("{}", rig.listing()) };
    let note = rig.json("held/sub/a.jsonl.reason.json");
    assert_eq!(note["reason"], "canary");
    assert!(note["message"].as_str().is_some_and(|it| it.contains("of the 6 lines")), "{note}");
    let read = |kind: &str| {
        let path = rig.path(&format!("held/sub/a.canary.{kind}.jsonl"));
        std::fs::read_to_string(path).expect("beside the note").lines().count()
    };
    assert_eq!((read("results"), read("errors")), (3, 3));
    let creates = rig.creates().len();
    rig.drain().await;
    assert_eq!(rig.creates().len(), creates, "nothing else goes out after a restart");
    let setup = rig.setup();
    setup.daemon.handle().with_engine(|engine| {
        let id = jobs.first().expect("one");
        assert!(engine.job(*id).is_some_and(canary::is_stopped));
    });
    drop(setup);

    // A person looks at it, and lets the rest go.
    rig.emulator.set_faults(Faults::default());
    decide(&rig, false).await;
    let manifest = rig.manifest("sub/a");
    assert_eq!((&manifest["answered"], &manifest["failed"]), (&57.into(), &3.into()));
    assert_eq!(manifest["canary"]["bad"], 3);
    assert!(manifest["warnings"].to_string().contains("an operator let the rest go"));
    let left: BTreeSet<String> = std::fs::read_dir(rig.path("held/sub"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    assert_eq!(left, BTreeSet::new(), "the note is taken back with what lay beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_canary_stopped_can_be_given_up_and_its_answers_are_delivered() {
    let blocked = EveryNth { every: 2, times: Budget::Always };
    let rig = Rig::with(Faults { blocked, ..Faults::default() }, &SETTINGS).await;
    rig.drop_file("a.jsonl", requests(60));
    rig.drain().await;
    decide(&rig, true).await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["verdict"], "cancelled");
    assert_eq!((&manifest["answered"], &manifest["failed"]), (&3.into(), &57.into()));
}

/// A daemon runs until the only job is over, after it was released or cancelled.
async fn decide(rig: &Rig, cancel: bool) {
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let decided = async {
        let id = handle.with_engine(|engine| engine.unfinished().next().map(|job| job.head.id));
        let id = id.expect("a job");
        let command = if cancel { Command::Cancel(id) } else { Command::Release(id) };
        handle.command(command).await.expect("it waits");
        let is_done = |engine: &gemini_batchd::engine::Engine| {
            engine.jobs().all(|job| matches!(job.head.state, JobState::Done(_)))
        };
        while !handle.with_engine(is_done) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        ended = setup.daemon.run(gemini_batchd::daemon::Until::Stopped) => panic!("{ended:?}"),
        () = decided => {}
    }
}
