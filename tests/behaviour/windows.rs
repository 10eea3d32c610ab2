//! Release windows: files wait for their time, and a person can let one go.

use gemini_batchd::daemon::{Ended, Setup};
use gemini_batchd::engine::Millis;
use gemini_batchd::engine::event::Command;
use gemini_batchd::engine::job::JobState;
use gemini_batchd::provider::gemini::emulator::Faults;
use gemini_batchd::view::JobView;

use super::rig::{Rig, requests};

/// A line whose slots are at least hours away, whenever the test runs.
const FAR: &str = "0 0 1 1 *";

fn view(setup: &Setup) -> JobView {
    let handle = setup.daemon.handle();
    handle.with_engine(|engine| {
        let job = engine.unfinished().next().expect("a job");
        let now = Millis(u64::try_from(jiff::Timestamp::now().as_millisecond()).expect("now"));
        JobView::at(job, now, None)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_waits_for_its_window_and_a_run_that_ends_by_itself_does_not_wait_for_it() {
    let release = format!("queue.nightly.release = {FAR:?}");
    let rig = Rig::with(Faults::default(), &[&release]).await;
    rig.drop_file("nightly/a.jsonl", requests(3));
    rig.drop_file("b.jsonl", requests(2));
    let Ended::Idle(jobs) = rig.drain().await else { panic!("{}", rig.listing()) };
    assert_eq!(jobs.len(), 2);
    assert_eq!(rig.manifest("b")["answered"], 2, "the other queue has no window");
    assert_eq!(rig.creates().len(), 1, "{:?}", rig.creates());
    assert!(!rig.path("inbox/nightly/a.jsonl").exists(), "it is taken in and read at once");
    let seen = view(&rig.setup());
    assert_eq!(seen.state, "planned");
    assert!(seen.phase.starts_with("waiting until "), "{}", seen.phase);
    assert!(seen.phase.ends_with(" 00:00"), "{}", seen.phase);
    assert!(seen.opens.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_sends_a_file_before_its_window_opens() {
    let release = format!("queue.default.release = {FAR:?}");
    let rig = Rig::with(Faults::default(), &[&release]).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.drain().await;
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let released = async {
        let id = handle.with_engine(|engine| engine.unfinished().next().map(|job| job.head.id));
        let said = handle.command(Command::Release(id.expect("a job"))).await;
        assert_eq!(said.as_deref(), Ok("goes on"));
        let is_done = |engine: &gemini_batchd::engine::Engine| {
            engine.jobs().all(|job| matches!(job.head.state, JobState::Done(_)))
        };
        while !handle.with_engine(is_done) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    let run = setup.daemon.run(gemini_batchd::daemon::Until::Stopped);
    tokio::select! {
        ended = run => panic!("{ended:?}"),
        () = released => {}
    }
    assert_eq!(rig.manifest("a")["answered"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_opens_by_itself_and_a_sidecar_can_do_without_one() {
    let settings = ["queue.default.release = \"* * * * * *\"", "queue.far.release = \"0 0 1 1 *\""];
    let rig = Rig::with(Faults::default(), &settings).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.drop_file("far/b.job.toml", "release = \"\"\n");
    rig.drop_file("far/b.jsonl", requests(2));
    // Every second has a slot, and the daemon wakes up for it.
    rig.run_until(|rig| {
        let is_there = |name: &str| rig.path(name).exists();
        is_there("outbox/a.manifest.json") && is_there("outbox/far/b.manifest.json")
    })
    .await;
    assert_eq!(rig.manifest("a")["answered"], 3);
    assert_eq!(rig.manifest("far/b")["answered"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_window_waits_after_a_crash_too() {
    let release = format!("queue.default.release = {FAR:?}");
    let rig = Rig::with(Faults::default(), &[&release]).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.run_until(|rig| !rig.path("inbox/a.jsonl").exists()).await;
    for _ in 0..2 {
        rig.drain().await;
        assert_eq!(rig.creates(), Vec::<String>::new());
    }
    assert!(view(&rig.setup()).phase.starts_with("waiting until "));
}
