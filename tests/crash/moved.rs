//! A spool that was copied: restored from a backup, or carried to another machine.

use std::fs;
use std::process::Command;

use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{Daemon, End, Rig, requests};

/// Fault 21.
#[test]
fn a_spool_that_is_restored_from_before_the_create_pays_once_all_the_same() {
    let rig = Rig::new(Faults::default(), &["queue.default.transport = \"file\""]);
    rig.drop_file("a.jsonl", requests(5));
    assert_eq!(rig.once("saved:uploading=return"), End::ABORTED, "{}", rig.log());
    assert!(rig.created().is_empty(), "nothing is sent yet");
    let copy = |from, to| {
        let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
        assert!(copied.success());
    };
    let backup = rig.aside("backup");
    copy(rig.spool(), backup.clone());
    assert_eq!(rig.once("saved:polling=return"), End::ABORTED, "{}", rig.log());
    assert_eq!(rig.created().len(), 1);
    fs::rename(rig.spool(), rig.aside("lost")).expect("lost");
    copy(backup, rig.spool());
    rig.drain();
    assert!(rig.log().contains("this state is a copy or was restored"), "{}", rig.log());
    assert_eq!(rig.created().len(), 1, "the batch was found: {}", rig.log());
    let results = fs::read_to_string(rig.spool().join("outbox/a.results.jsonl"));
    assert_eq!(results.expect("there").lines().count(), 5);
}

/// Fault 21.
#[test]
fn a_spool_of_another_machine_is_refused_until_a_person_takes_it_over() {
    let rig = Rig::new(Faults::default(), &[]);
    rig.drop_file("a.jsonl", requests(5));
    assert_eq!(rig.once("saved:active=return"), End::ABORTED, "{}", rig.log());
    let path = rig.spool().join("state/instance");
    let said = fs::read_to_string(&path).expect("there");
    let mut said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    if said["machine"].is_null() {
        assert!(!fs::exists("/etc/machine-id").expect("looked"), "{said}");
        eprintln!("SKIPPED: this machine has no id");
        return;
    }
    said["machine"] = "another".into();
    fs::write(&path, said.to_string()).expect("written");
    assert_eq!(rig.once(""), End::Exited(11), "{}", rig.log());
    assert!(rig.log().contains("gemini-batchd take-over"), "{}", rig.log());
    assert!(rig.created().is_empty());
    let taken = Daemon::start(&mut rig.command(&["take-over"])).end();
    assert_eq!(taken, End::Exited(0), "{}", rig.log());
    rig.drain();
    assert_eq!(rig.created().len(), 1);
    assert!(rig.spool().join("outbox/a.manifest.json").exists(), "{}", rig.log());
}
