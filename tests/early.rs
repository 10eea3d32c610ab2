//! Uploads that run ahead of their plan. A program of its own: its failpoints hold up every plan.

#![expect(clippy::disallowed_methods, reason = "tests drop files as people do")]

#[path = "behaviour/rig.rs"]
#[expect(dead_code, reason = "other tests use all of it")]
mod rig;

use std::time::Duration;

use fail::FailScenario;
use gemini_batchd::daemon::{Ended, Until};
use gemini_batchd::provider::gemini::emulator::faults::{AfterBytes, CallKind, Denied, OnCall};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened};

use rig::{Rig, keys, request, requests, text};

const BY_FILE: &str = "queue.default.transport = \"file\"";

/// Plans stop right before their end, until this is dropped or let go. One test at a time.
struct HeldUp {
    _one_at_a_time: FailScenario<'static>,
}

impl HeldUp {
    fn new() -> HeldUp {
        let plans = HeldUp { _one_at_a_time: FailScenario::setup() };
        plans.again();
        plans
    }

    /// Lets all plans go on once something has happened, which the test is told after.
    async fn until(&self, what: &str, happened: impl Fn() -> bool) {
        eventually(what, happened).await;
        fail::remove(MOMENT);
    }

    /// Holds up the plans to come.
    fn again(&self) {
        fail::cfg(MOMENT, "pause").expect("a failpoint");
    }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        // A test that failed must not leave a thread behind that nobody wakes.
        fail::remove(MOMENT);
    }
}

async fn eventually(what: &str, happened: impl Fn() -> bool) {
    let seen = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// What the emulator saw of uploads.
#[derive(Debug, Default, PartialEq)]
struct Uploads {
    /// The length that each announced.
    started: Vec<Option<u64>>,
    cancelled: usize,
    /// Of the files that came of them.
    bytes: Vec<u64>,
    /// Where each piece began, and how long it was.
    pieces: Vec<(u64, u64)>,
}

impl Uploads {
    fn at(rig: &Rig) -> Uploads {
        let mut uploads = Uploads::default();
        for entry in rig.emulator.journal() {
            match entry.what {
                Happened::UploadStarted { announced, .. } => uploads.started.push(announced),
                Happened::UploadCancelled { .. } => uploads.cancelled += 1,
                Happened::Uploaded { bytes, .. } => uploads.bytes.push(bytes),
                Happened::UploadPiece { offset, received, .. } => {
                    uploads.pieces.push((offset, received));
                }
                _ => {}
            }
        }
        uploads
    }

    fn sent(&self) -> u64 {
        self.pieces.iter().map(|(_, received)| received).sum()
    }
}

/// `count` requests of 20 kB in two forms, some lines broken, and the keys of the good ones.
fn mixed(count: usize, end: &str) -> (String, Vec<String>) {
    let (mut input, mut good) = ("\u{feff}".to_owned(), Vec::new());
    for n in 1..=count {
        let line = request(&format!("k{n}"), &format!("{n} {}", "wörd ".repeat(3_500)));
        match n % 7 {
            3 => input += line.split_at(line.find('w').expect("a word")).0,
            5 => {
                let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                input += &line["request"].to_string();
                good.push(format!("line-{n}"));
            }
            _ => {
                input += line.trim_end();
                good.push(format!("k{n}"));
            }
        }
        input += end;
    }
    (input, good)
}

#[tokio::test(flavor = "multi_thread")]
async fn most_of_a_file_is_there_when_its_plan_is_done_and_the_create_comes_after() {
    let plans = HeldUp::new();
    for end in ["\n", "\r\n"] {
        let rig = Rig::with(Faults::default(), &[BY_FILE]).await;
        let (input, good) = mixed(300, end);
        rig.drop_file("a.jsonl", &input);
        plans.again();
        let story = async {
            plans.until("most is there", || Uploads::at(&rig).sent() > 3 << 20).await;
            let uploads = Uploads::at(&rig);
            assert_eq!((uploads.started, uploads.bytes), (vec![None], vec![]));
            assert_eq!(rig.creates(), [""; 0]);
        };
        let (ended, ()) = tokio::join!(rig.drain(), story);
        assert!(matches!(ended, Ended::Idle(_)), "{ended:?}");
        let uploads = Uploads::at(&rig);
        assert_eq!((uploads.started.len(), uploads.cancelled), (1, 0));
        assert_eq!(uploads.bytes, [uploads.sent()], "nothing was sent twice: {uploads:?}");
        let journal = rig.emulator.journal();
        let at = |is: fn(&Happened) -> bool| journal.iter().position(|entry| is(&entry.what));
        let uploaded = at(|what| matches!(what, Happened::Uploaded { .. }));
        assert!(uploaded < at(|what| matches!(what, Happened::Created { .. })));
        let results = rig.lines("a.results.jsonl");
        assert_eq!(keys(&results), good);
        for line in &results {
            let n = line["key"]
                .as_str()
                .expect("a key")
                .trim_start_matches(['k', 'l', 'i', 'n', 'e', '-']);
            assert!(text(line).contains(&format!("{n} wörd")), "{n}: {:.80}", text(line));
        }
        assert_eq!(rig.manifest("a")["lines"], 300);
        assert_eq!(rig.creates().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upload_of_a_duplicate_is_given_up_and_nothing_is_paid() {
    let plans = HeldUp::new();
    let rig = Rig::with(Faults::default(), &[BY_FILE]).await;
    let (input, _) = mixed(150, "\n");
    rig.drop_file("a.jsonl", &input);
    fail::remove(MOMENT);
    rig.drain().await;
    let before = Uploads::at(&rig);
    plans.again();
    rig.drop_file("b.jsonl", &input);
    let more = || Uploads::at(&rig).sent() - before.sent();
    tokio::join!(rig.drain(), plans.until("some is there", || more() > 1 << 20));
    eventually("it is given up", || Uploads::at(&rig).cancelled > before.cancelled).await;
    let uploads = Uploads::at(&rig);
    assert_eq!(uploads.started.len(), before.started.len() + 1);
    assert_eq!((rig.creates().len(), uploads.bytes), (1, before.bytes));
    assert!(rig.path("held/b.jsonl").is_file(), "{}", rig.listing());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upload_of_a_file_that_is_refused_in_the_end_is_given_up() {
    let _one_at_a_time = FailScenario::setup();
    let rig = Rig::with(Faults::default(), &[BY_FILE]).await;
    let long = "wörd ".repeat(3_500);
    let element = |n: usize| request(&format!("k{n}"), &long).trim_end().to_owned();
    let elements: Vec<String> = (0..500).map(element).collect();
    rig.drop_file("a.json", format!("[{}, oops", elements.join(",")));
    rig.drain().await;
    assert!(rig.path("failed/a.json").is_file(), "{}", rig.listing());
    let over = |uploads: Uploads| uploads.cancelled == uploads.started.len();
    eventually("whatever began is given up", || over(Uploads::at(&rig))).await;
    assert_eq!((rig.creates(), Uploads::at(&rig).bytes), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_after_the_plan_goes_on_with_what_was_sent_early() {
    let plans = HeldUp::new();
    let rig = Rig::with(Faults::default(), &[BY_FILE]).await;
    let (input, good) = mixed(150, "\n");
    rig.drop_file("a.jsonl", &input);
    fail::cfg("saved:uploading", "return(error)").expect("a failpoint");
    let run = rig.setup().daemon.run(Until::Idle);
    let some = plans.until("some is there", || Uploads::at(&rig).sent() > 1 << 20);
    let (ended, ()) = tokio::join!(run, some);
    ended.expect_err("it dies when the plan was saved");
    fail::remove("saved:uploading");
    rig.drain().await;
    let uploads = Uploads::at(&rig);
    assert_eq!((uploads.started, uploads.bytes.len()), (vec![None], 1), "the same session");
    assert_eq!(keys(&rig.lines("a.results.jsonl")), good);
    assert_eq!((rig.manifest("a")["lines"].as_u64(), rig.creates().len()), (Some(150), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_for_a_plan_that_was_lost_is_given_up() {
    let plans = HeldUp::new();
    let rig = Rig::with(Faults::default(), &[BY_FILE]).await;
    let (input, good) = mixed(150, "\n");
    rig.drop_file("a.jsonl", &input);
    fail::cfg("done:plan", "1*return(error)").expect("a failpoint");
    let some = plans.until("some is there", || Uploads::at(&rig).sent() > 1 << 20);
    tokio::join!(rig.drain(), some);
    eventually("the first is given up", || Uploads::at(&rig).cancelled == 1).await;
    let uploaded = |what| match what {
        Happened::Uploaded { upload, .. } => Some(upload),
        _ => None,
    };
    let journal = rig.emulator.journal();
    let uploaded: Vec<u64> = journal.into_iter().filter_map(|e| uploaded(e.what)).collect();
    assert!(uploaded.len() == 1 && uploaded[0] > 1, "{uploaded:?}");
    assert_eq!(keys(&rig.lines("a.results.jsonl")), good);
    assert_eq!(rig.creates().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_early_upload_meets_changes_nothing() {
    let plans = HeldUp::new();
    let once = || Some(OnCall { call: Some(CallKind::Upload), times: Budget::times(1) });
    let start = || Some(OnCall { call: Some(CallKind::UploadStart), times: Budget::times(1) });
    let denied = |status, call| Some(Denied { status, call: Some(call), times: Budget::times(1) });
    let cut = AfterBytes { after: 300_000, times: Budget::times(1) };
    for faults in [
        Faults { upload_start_429: Budget::times(1), ..Faults::default() },
        Faults { upload_start_no_url: Budget::times(1), ..Faults::default() },
        Faults { html_502: start(), ..Faults::default() },
        Faults { html_502: once(), ..Faults::default() },
        Faults { denied: denied(401, CallKind::UploadStart), ..Faults::default() },
        Faults { denied: denied(403, CallKind::Upload), ..Faults::default() },
        Faults { upload_refused: Budget::times(1), ..Faults::default() },
        Faults { upload_session_lost: Budget::times(1), ..Faults::default() },
        Faults { upload_cut: Some(cut), ..Faults::default() },
    ] {
        let told = format!("{faults:?}");
        let rig = Rig::with(faults.clone(), &[BY_FILE]).await;
        let (input, good) = mixed(150, "\n");
        rig.drop_file("a.jsonl", &input);
        plans.again();
        let met = || rig.emulator.faults() != faults;
        let (ended, ()) = tokio::join!(rig.drain(), plans.until("it meets the fault", met));
        assert!(matches!(ended, Ended::Idle(_)), "{ended:?} {told}");
        assert_eq!(keys(&rig.lines("a.results.jsonl")), good, "{told}");
        let uploads = Uploads::at(&rig);
        assert_eq!((rig.creates().len(), uploads.bytes.len()), (1, 1), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_first_chunk_may_still_go_inline_is_not_uploaded_early() {
    let _one_at_a_time = FailScenario::setup();
    let settings = ["limits.inline_bytes = \"1MiB\"", "queue.default.lines_per_batch = 40"];
    let rig = Rig::with(Faults::default(), &settings).await;
    let (input, good) = mixed(150, "\n");
    rig.drop_file("a.jsonl", &input);
    rig.drain().await;
    assert_eq!(keys(&rig.lines("a.results.jsonl")), good);
    assert_eq!(Uploads::at(&rig), Uploads::default());
    assert!(rig.creates().len() > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_is_not_uploaded_early() {
    let _one_at_a_time = FailScenario::setup();
    let rig = Rig::with(Faults::default(), &[BY_FILE]).await;
    rig.drop_file("a.jsonl", requests(100));
    rig.drain().await;
    let uploads = Uploads::at(&rig);
    assert_eq!(uploads.started, uploads.bytes.iter().copied().map(Some).collect::<Vec<_>>());
    assert_eq!((uploads.started.len(), rig.manifest("a")["answered"].as_u64()), (1, Some(100)));
}

/// The last moment of a plan: all its lines are known.
const MOMENT: &str = "plan:lines";

/// What takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(120);
