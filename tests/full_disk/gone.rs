//! What goes away under a daemon: files in working folders, file handles.

use std::fs;
use std::path::PathBuf;

use gemini_batchd::provider::gemini::emulator::Faults;
use serde_json::Value;

use super::rig::{DISK, Rig, requests};

/// Fault 34.
#[test]
fn a_job_whose_input_is_removed_before_it_is_sent_ends_failed_and_says_so() {
    for transport in ["inline", "file"] {
        let setting = format!("queue.default.transport = {transport:?}");
        let Some(rig) = Rig::on(DISK, Faults::default(), &[&setting]) else { return };
        rig.bring("a.jsonl", requests(5, 10));
        rig.drop_file("a.jsonl");
        let mut service = rig.serve("saved:active=1*sleep(1000)");
        service.until("it is read", || rig.record().contains("\"active\":{"));
        fs::remove_file(input(&rig)).expect("removed");
        // Whether the first chunk was opened by then is a matter of luck; the end is the same.
        service.until("it ends", || reason(&rig).is_some());
        let reason = reason(&rig).expect("a reason");
        assert_eq!(reason["reason"], "removed", "{reason}");
        assert!(reason["message"].as_str().expect("text").contains("input"), "{reason}");
        rig.bring("b.jsonl", requests(4, 10));
        rig.drop_file("b.jsonl");
        service.until("others go on", || rig.has_done(&["b.jsonl"]));
        service.stop();
        assert_eq!(rig.drain(), 4, "nothing is left to do\n{}", rig.log());
    }
}

/// Fault 34.
#[test]
fn answers_that_are_paid_for_are_kept_when_the_input_is_removed() {
    let settings = ["queue.default.transport = \"inline\""];
    let Some(rig) = Rig::on(DISK, Faults::default(), &settings) else { return };
    rig.bring("a.jsonl", requests(5, 10));
    rig.drop_file("a.jsonl");
    let mut service = rig.serve("saved:polling=1*sleep(1000)");
    service.until("it is sent", || rig.record().contains("\"polling\":{"));
    fs::remove_file(input(&rig)).expect("removed");
    service.until("it ends", || reason(&rig).is_some());
    let reason = reason(&rig).expect("a reason");
    assert_eq!(reason["reason"], "removed", "{reason}");
    let message = reason["message"].as_str().expect("text");
    let inside = message.split_once(" lies in ").expect("where the answers are").1;
    let below = inside.strip_prefix(&rig.disk.inside.display().to_string()).expect("on the disk");
    let answers = rig.disk.outside().join(below.trim_start_matches('/'));
    let files: Vec<PathBuf> =
        fs::read_dir(answers).expect("there").map(|entry| entry.expect("listed").path()).collect();
    let lines: usize =
        files.iter().map(|path| fs::read_to_string(path).expect("text").lines().count()).sum();
    assert_eq!(lines, 5, "every answer is there: {files:?}");
    service.stop();
    assert_eq!(rig.drain(), 4, "nothing is left to do\n{}", rig.log());
    assert_eq!(rig.rows_paid(), 5);
}

/// Fault 34.
#[test]
fn a_working_folder_that_is_removed_whole_ends_its_job_and_nothing_else() {
    let settings = ["queue.default.lines_per_batch = 2"];
    let Some(rig) = Rig::on(DISK, Faults::default(), &settings) else { return };
    rig.bring("a.jsonl", requests(9, 10));
    rig.drop_file("a.jsonl");
    let mut service = rig.serve("saved:polling=1*sleep(1000)");
    service.until("it is sent", || rig.record().contains("\"polling\":{"));
    for job in fs::read_dir(rig.spool().join("working")).expect("listed") {
        fs::remove_dir_all(job.expect("listed").path()).expect("removed");
    }
    service.until("it ends", || reason(&rig).is_some());
    assert_eq!(reason(&rig).expect("a reason")["reason"], "removed");
    assert_eq!(service.stop(), Vec::<i32>::new());
    assert_eq!(rig.drain(), 4, "nothing is left to do\n{}", rig.log());
}

/// Fault 31.
#[test]
fn few_file_handles_put_work_off_and_lose_nothing() {
    let Some(rig) = Rig::on(DISK, Faults::default(), &[]) else { return };
    let names: Vec<String> = (0..20).map(|number| format!("{number}.jsonl")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, count) in names.iter().zip(3..) {
        rig.bring(name, requests(count, 10));
        rig.drop_file(name);
    }
    let mut limited = rig.through(&["prlimit", "--nofile=36"], &["once"]);
    let status = limited.status().expect("it starts");
    assert!(status.code().is_some(), "{status}\n{}", rig.log());
    assert!(rig.logged("Too many open files") > 0, "{}", rig.log());
    let code = rig.drain();
    assert!(matches!(code, 3 | 4), "{code}\n{}", rig.log());
    assert!(rig.has_done(&names), "{}", rig.log());
    assert_eq!(rig.rows_paid(), (3..23).sum::<u64>());
}

/// The one input under way.
fn input(rig: &Rig) -> PathBuf {
    let mut jobs = fs::read_dir(rig.spool().join("working")).expect("listed");
    jobs.next().expect("a job").expect("listed").path().join("input/a.jsonl")
}

/// The note about the file that failed.
fn reason(rig: &Rig) -> Option<Value> {
    let note = fs::read(rig.spool().join("failed/a.jsonl.reason.json")).ok()?;
    serde_json::from_slice(&note).ok()
}
