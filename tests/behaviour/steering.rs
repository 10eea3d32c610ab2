//! What operators hold back, try again and forget, in a daemon that works, and across its crashes.

use std::fs;
use std::time::Duration;

use gemini_batchd::daemon::{Ended, Handle, Message, Until};
use gemini_batchd::engine::event::Command;
use gemini_batchd::engine::{ChunkState, Engine, JobId, JobState};
use gemini_batchd::provider::gemini::emulator::faults::EveryNth;
use gemini_batchd::provider::gemini::emulator::{Budget, Faults};

use super::rig::{Rig, keys, request, requests};

/// A daemon runs while somebody does something; then it is gone as in a crash.
async fn while_running(rig: &Rig, story: impl AsyncFnOnce(&Handle)) {
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let run = setup.daemon.run(Until::Stopped);
    let story = tokio::time::timeout(PATIENCE, story(&handle));
    tokio::select! {
        ended = run => panic!("it ended: {ended:?}"),
        told = story => told.unwrap_or_else(|_| panic!("it did not happen:\n{}", rig.listing())),
    }
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the engine is so.
async fn seen(handle: &Handle, is_so: impl Fn(&Engine) -> bool) {
    until(|| handle.with_engine(&is_so)).await;
}

/// The job of a file, when there is one.
async fn job_of(handle: &Handle, name: &str) -> JobId {
    let find = |engine: &Engine| {
        engine.jobs().find(|job| job.head.source.name == name).map(|job| job.head.id)
    };
    seen(handle, |engine| find(engine).is_some()).await;
    handle.with_engine(find).expect("it was seen")
}

fn is_delivered(rig: &Rig, stem: &str) -> bool {
    rig.path("outbox").join(format!("{stem}.manifest.json")).exists()
}

/// A file that is dropped now is answered, so that whatever could be sent meanwhile has been.
async fn another_is_answered(rig: &Rig, stem: &str) {
    rig.drop_file(&format!("{stem}.jsonl"), request("k", stem));
    until(|| is_delivered(rig, stem)).await;
}

fn creates_of(rig: &Rig, job: JobId) -> usize {
    rig.creates().iter().filter(|name| name.contains(job.as_str())).count()
}

/// What is dropped while the daemon runs is found soon.
const OFTEN: &str = "intake.rescan = \"20ms\"";
/// What takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_hold_is_sent_when_it_is_released_and_not_before_whatever_crashes() {
    for by_file in [false, true] {
        let transport = if by_file { "file" } else { "auto" };
        let settings = [OFTEN, &format!("queue.default.transport = {transport:?}")];
        let faults = Faults { create_429: Budget::Always, ..Faults::default() };
        let rig = Rig::with(faults, &settings).await;
        rig.drop_file("a.jsonl", requests(3));
        let mut held = None;
        while_running(&rig, async |handle| {
            let id = job_of(handle, "a.jsonl").await;
            held = Some(id);
            let said = handle.command(Command::Hold(id)).await.expect("it is under way");
            assert!(said.contains(&format!("gemini-batchd release {id}")), "{said}");
            seen(handle, |engine| {
                let job = engine.job(id).expect("known");
                let waits = |state: &ChunkState| matches!(state, ChunkState::Waiting { .. });
                !job.chunks.is_empty() && job.chunks.values().all(|chunk| waits(&chunk.state))
            })
            .await;
            rig.emulator.set_faults(Faults::default());
            another_is_answered(&rig, "b").await;
            assert_eq!(creates_of(&rig, id), 0);
        })
        .await;
        let id = held.expect("held");
        while_running(&rig, async |handle| {
            another_is_answered(&rig, "c").await;
            assert_eq!(creates_of(&rig, id), 0, "a hold outlives a crash");
            handle.command(Command::Release(id)).await.expect("it is on hold");
            until(|| is_delivered(&rig, "a")).await;
            handle.command(Command::Release(id)).await.expect_err("nothing waits any more");
        })
        .await;
        assert_eq!((rig.manifest("a")["answered"].clone(), creates_of(&rig, id)), (3.into(), 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_leaves_its_files_in_the_inbox_until_it_is_resumed_whatever_crashes() {
    let rig = Rig::with(Faults::default(), &[OFTEN, "queue.slow.attempts = 2"]).await;
    let pause = || Command::Pause(Some("slow".to_owned()));
    while_running(&rig, async |handle| {
        let why = handle.command(Command::Pause(Some("slwo".to_owned()))).await;
        let why = why.expect_err("there is no such queue");
        assert!(why.contains("did you mean `slow`?"), "{why}");
        handle.command(pause()).await.expect("paused");
        handle.command(pause()).await.expect("paused already");
        // Far more than one scan gives out.
        for n in 0..1_100 {
            rig.drop_file(&format!("slow/{n}.jsonl"), request("k", &format!("slow {n}")));
        }
        another_is_answered(&rig, "a").await;
        another_is_answered(&rig, "b").await;
    })
    .await;
    let waiting = |rig: &Rig| fs::read_dir(rig.path("inbox/slow")).expect("listed").count();
    assert_eq!(waiting(&rig), 1_100);
    for n in 20..1_100 {
        fs::remove_file(rig.path(&format!("inbox/slow/{n}.jsonl"))).expect("taken back");
    }
    while_running(&rig, async |handle| {
        another_is_answered(&rig, "c").await;
        assert_eq!(waiting(&rig), 20, "a pause outlives a crash");
        handle.command(Command::Resume(None)).await.expect_err("only the queue is paused");
        let said = handle.command(Command::Resume(Some("slow".to_owned()))).await;
        assert!(said.expect("it is paused").contains("slow goes on"));
        until(|| (0..20).all(|n| is_delivered(&rig, &format!("slow/{n}")))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_daemon_takes_nothing_and_sends_nothing_and_once_ends_with_what_waits() {
    let faults = Faults { create_429: Budget::Always, ..Faults::default() };
    let rig = Rig::with(faults, &[OFTEN]).await;
    rig.drop_file("a.jsonl", requests(2));
    while_running(&rig, async |handle| {
        job_of(handle, "a.jsonl").await;
        handle.command(Command::Pause(None)).await.expect("paused");
    })
    .await;
    rig.emulator.set_faults(Faults::default());
    rig.drop_file("b.jsonl", requests(1));
    assert!(matches!(rig.drain().await, Ended::Idle(_)), "it does not wait for ever");
    assert!(rig.path("inbox/b.jsonl").exists() && rig.creates().is_empty(), "{}", rig.listing());
    while_running(&rig, async |handle| {
        handle.command(Command::Resume(None)).await.expect("it is paused");
        handle.command(Command::Resume(None)).await.expect_err("it is not any more");
        until(|| is_delivered(&rig, "a") && is_delivered(&rig, "b")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_drains_finishes_what_it_has_takes_nothing_new_and_ends() {
    let rig = Rig::with(Faults { create_429: Budget::Always, ..Faults::default() }, &[OFTEN]).await;
    rig.drop_file("a.jsonl", requests(3));
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let story = async {
        job_of(&handle, "a.jsonl").await;
        for _ in 0..2 {
            handle.command(Command::Drain).await.expect("asked");
        }
        handle.command(Command::Resume(None)).await.expect("taken back");
        handle.command(Command::Drain).await.expect("asked");
        rig.drop_file("b.jsonl", requests(1));
        handle.tell(Message::Look).await;
        rig.emulator.set_faults(Faults::default());
    };
    let run = async { tokio::join!(setup.daemon.run(Until::Stopped), story) };
    let (ended, ()) = tokio::time::timeout(PATIENCE, run).await.expect("it ends by itself");
    assert!(matches!(ended.expect("its store works"), Ended::Idle(jobs) if jobs.len() == 1));
    assert_eq!(rig.manifest("a")["answered"], 3);
    assert!(rig.path("inbox/b.jsonl").exists(), "{}", rig.listing());
    rig.drain().await;
    assert_eq!(rig.manifest("b")["answered"], 1, "the next start takes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_lines_are_tried_again_as_a_job_of_their_own() {
    let blocked = EveryNth { every: 2, times: Budget::times(1) };
    let rig = Rig::with(Faults { blocked, ..Faults::default() }, &[OFTEN]).await;
    rig.drop_file("sub/a.jsonl", requests(4));
    rig.drain().await;
    assert_eq!(rig.manifest("sub/a")["failed"], 2);
    let failed = keys(&rig.lines("sub/a.errors.jsonl"));
    let before = fs::read(rig.path("outbox/sub/a.errors.jsonl")).expect("read");
    while_running(&rig, async |handle| {
        let id = job_of(handle, "a.jsonl").await;
        let said = handle.command(Command::Retry(id)).await.expect("two lines failed");
        assert!(said.contains("2 failed lines") && said.contains("sub/a~retry.jsonl"), "{said}");
        until(|| is_delivered(&rig, "sub/a~retry")).await;
        // The same once more is the same content, which was answered.
        handle.command(Command::Retry(id)).await.expect("two lines failed");
        until(|| rig.path("held/sub/a~retry.jsonl.reason.json").exists()).await;
        let again = job_of(handle, "a~retry.jsonl").await;
        seen(handle, |engine| {
            matches!(engine.job(again).map(|job| &job.head.state), Some(JobState::Done(_)))
        })
        .await;
        let why = handle.command(Command::Retry(again)).await.expect_err("all is answered");
        assert!(why.contains("no failed lines"), "{why}");
    })
    .await;
    assert_eq!(keys(&rig.lines("sub/a~retry.results.jsonl")), failed);
    assert_eq!(fs::read(rig.path("outbox/sub/a.errors.jsonl")).expect("read"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_file_is_tried_again_from_where_it_lies() {
    let rig = Rig::with(Faults::default(), &[OFTEN]).await;
    rig.drop_file("a.jsonl", "nonsense\n");
    rig.drain().await;
    // Mended where it lies.
    fs::write(rig.path("failed/a.jsonl"), requests(2)).expect("written");
    while_running(&rig, async |handle| {
        let id = job_of(handle, "a.jsonl").await;
        let said = handle.command(Command::Retry(id)).await.expect("it was refused");
        assert!(said.ends_with("in the inbox, as a.jsonl"), "{said}");
        until(|| is_delivered(&rig, "a")).await;
        let why = handle.command(Command::Retry(id)).await.expect_err("it is not there any more");
        assert!(why.contains("by hand"), "{why}");
    })
    .await;
    assert_eq!(rig.manifest("a")["answered"], 2);
    assert!(fs::read_dir(rig.path("failed")).expect("listed").next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_over_is_forgotten_for_good_and_its_files_stay() {
    let rig = Rig::with(Faults::default(), &[OFTEN]).await;
    rig.drop_file("a.jsonl", requests(2));
    rig.drain().await;
    while_running(&rig, async |handle| {
        let id = job_of(handle, "a.jsonl").await;
        let said = handle.command(Command::Delete(id)).await.expect("it is over");
        assert!(said.contains("outbox"), "{said}");
        handle.command(Command::Delete(id)).await.expect_err("it is forgotten");
    })
    .await;
    while_running(&rig, async |handle| {
        assert_eq!(handle.with_engine(|engine| engine.jobs().count()), 0);
        rig.drop_file("a.jsonl", requests(2));
        until(|| is_delivered(&rig, "a~2")).await;
    })
    .await;
    assert_eq!(rig.manifest("a")["answered"], 2);
}
