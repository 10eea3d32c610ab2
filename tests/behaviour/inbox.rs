//! What people and their programs do to an inbox while the daemon works on it.

use gemini_batchd::engine::job::Task;
use std::cell::Cell;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use gemini_batchd::daemon::{Message, Until};
use gemini_batchd::engine::event::Command;
use gemini_batchd::engine::{JobId, Millis};
use gemini_batchd::provider::gemini::emulator::Faults;
use gemini_batchd::spool::Folders;
use gemini_batchd::spool::claim::{Claimed, claim};
use gemini_batchd::spool::inbox::{IntakeRules, Scanner};
use gemini_batchd::spool::plan::{CutRules, PlanError, Planned, plan};

use super::rig::{Rig, keys, request, requests, text};

/// Fault 39.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_come_after_the_file_was_read_are_answered_as_a_file_of_their_own() {
    let rig = Rig::new(Faults::default()).await;
    // The writer stops in the middle of a line, for longer than a file must be still.
    let (first, second, third) =
        (request("first", "in time"), request("second", "cut"), request("third", "too late"));
    let (early, rest) = second.split_at(20);
    rig.drop_file("sub/a.jsonl", format!("{first}{early}"));
    // It keeps the file open, and goes on once the batch is under way.
    let path = rig.path("inbox/sub/a.jsonl");
    let mut writer = File::options().append(true).open(path).expect("opened");
    let late = async {
        while rig.creates().is_empty() {
            tokio::task::yield_now().await;
        }
        writer.write_all(format!("{rest}{third}").as_bytes()).expect("written");
    };
    tokio::join!(rig.drain(), late);
    let manifest = rig.manifest("sub/a");
    assert_eq!(keys(&rig.lines("sub/a.results.jsonl")), ["first"], "{manifest}");
    let warning = manifest["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("sub/a.late.jsonl"), "{manifest}");
    let late = rig.manifest("sub/a.late");
    assert_eq!(keys(&rig.lines("sub/a.late.results.jsonl")), ["second", "third"], "{late}");
    assert_eq!(late["failed"], 0, "{late}");
    assert_eq!(rig.creates().len(), 2, "the first line is not sent again");
}

/// Fault 36.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_no_event_tells_of_is_found_by_the_next_look() {
    let rig = Rig::with(Faults::default(), &["intake.rescan = \"20ms\""]).await;
    fs::create_dir_all(rig.path("inbox/deep")).expect("made");
    rig.drop_file("first.jsonl", request("k", "it runs"));
    let written = Cell::new(false);
    rig.run_until(|rig| {
        // Written in place once the daemon runs, and nobody tells it.
        if rig.path("outbox/first.manifest.json").exists() && !written.replace(true) {
            fs::write(rig.path("inbox/deep/a.jsonl"), requests(2)).expect("written");
        }
        rig.path("outbox/deep/a.manifest.json").exists()
    })
    .await;
    assert_eq!(rig.manifest("deep/a")["answered"], 2);
}

/// Fault 48.
#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_that_is_removed_and_made_again_is_watched_again() {
    let settings = ["intake.watch = \"events\"", "intake.rescan = \"20ms\""];
    let rig = Rig::with(Faults::default(), &settings).await;
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let nobody: JobId = "01JD0000000000000000000000".parse().expect("an id");
    let story = async {
        for name in ["removed", "moved"] {
            match name {
                "removed" => fs::remove_dir_all(rig.path("inbox")).expect("removed"),
                _ => fs::rename(rig.path("inbox"), rig.path("elsewhere")).expect("moved"),
            }
            for _ in 0..10 {
                handle.tell(Message::Look).await;
                // When this is answered, the look before it was begun.
                handle.command(Command::Cancel(nobody)).await.expect_err("there is no such job");
            }
            let content = requests(2).replace("question", name);
            rig.drop_file(&format!("{name}.jsonl"), content);
            let manifest = rig.path("outbox").join(format!("{name}.manifest.json"));
            while !manifest.exists() || handle.notices().watching != "events" {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
        handle.tell(Message::StopNow).await;
    };
    let run = tokio::time::timeout(std::time::Duration::from_secs(120), async {
        tokio::join!(setup.daemon.run(Until::Stopped), story)
    });
    let (ended, ()) = run.await.expect("in time");
    ended.expect("its store works");
    assert_eq!(rig.creates().len(), 2);
}

/// Fault 40.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_duplicate_is_answered_after_all_when_it_is_released() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("first.jsonl", requests(2));
    rig.drain().await;
    rig.drop_file("again.jsonl", requests(2));
    rig.drain().await;
    let reason = rig.json("held/again.jsonl.reason.json");
    let id: JobId = reason["job"].as_str().expect("a job").parse().expect("an id");
    assert!(reason["remedy"].as_str().expect("text").contains(&format!("release {id}")));

    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let release = async {
        handle.command(Command::Release(id)).await.expect("released");
        handle.command(Command::Release(id)).await.expect_err("it waits no more");
        while !rig.path("outbox/again.manifest.json").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        handle.tell(Message::Stop).await;
    };
    let (ended, ()) = tokio::join!(setup.daemon.run(Until::Stopped), release);
    ended.expect("its store works");
    assert_eq!(rig.manifest("again")["answered"], 2);
    assert_eq!(rig.creates().len(), 2);
    assert!(fs::read_dir(rig.path("held")).expect("listed").next().is_none(), "{}", rig.listing());
}

/// Fault 42.
#[test]
fn what_lies_there_at_the_claim_counts_and_not_what_the_scan_saw() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folders = Folders::below(folder.path());
    let other = requests(7);
    let replaced = taken(&folders, 1, |inbox| {
        fs::write(inbox.join("new"), &other).expect("written");
        fs::rename(inbox.join("new"), inbox.join("a.jsonl")).expect("replaced");
    });
    let planned = replaced.expect("a plan");
    assert_eq!((planned.rows, planned.bytes), (7, other.len() as u64));
    let truncated = taken(&folders, 2, |inbox| {
        File::create(inbox.join("a.jsonl")).expect("truncated");
    });
    assert!(matches!(truncated, Err(PlanError::Unusable(why)) if why.reason == "empty"));
    let appended = taken(&folders, 3, |inbox| {
        let mut file = File::options().append(true).open(inbox.join("a.jsonl")).expect("opened");
        file.write_all(requests(1).as_bytes()).expect("written");
    });
    assert_eq!(appended.expect("a plan").rows, 4);
}

/// Drops a file of three requests, scans, lets `change` change it, and goes on.
fn taken(folders: &Folders, number: u8, change: impl FnOnce(&Path)) -> Result<Planned, PlanError> {
    fs::create_dir_all(&folders.inbox).expect("made");
    fs::write(folders.inbox.join("a.jsonl"), requests(3)).expect("written");
    let mut scanner = Scanner::new(IntakeRules { settle_ms: 0, ignore: Vec::new() });
    let far = Millis(u64::MAX / 4);
    let scan = scanner.scan(folders, far, &HashSet::new(), 10).expect("scanned");
    assert_eq!(scan.ready.len(), 1);
    change(&folders.inbox);
    let job: JobId = format!("01JD00000000000000000000{number:02}").parse().expect("an id");
    assert_eq!(claim(folders, job, &scan.ready[0]).expect("claimed"), Claimed::Now);
    let rules = CutRules {
        batch_bytes_max: 1 << 20,
        rows_max: 0,
        row_bytes_max: u64::MAX,
        line_bytes_max: 1 << 20,
        model: "gemini-2.5-flash".to_owned(),
        task: Task::Generate,
    };
    plan(&folders.job(job), "a.jsonl", &rules, &|_| {})
}

/// Fault 41.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_same_name_that_comes_while_the_first_runs_is_a_job_of_its_own() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("a.jsonl", request("k", "the first"));
    let second = async {
        while rig.creates().is_empty() {
            tokio::task::yield_now().await;
        }
        rig.drop_file("a.jsonl", request("k", "the second"));
    };
    tokio::join!(rig.drain(), second);
    // The daemon may have ended just before the second came.
    rig.drain().await;
    assert!(text(&rig.lines("a.results.jsonl")[0]).contains("the first"));
    assert!(text(&rig.lines("a~2.results.jsonl")[0]).contains("the second"));
    assert_eq!(rig.manifest("a~2")["input"]["name"], "a.jsonl");
}
