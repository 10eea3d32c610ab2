//! An outbox that is gone, or full.

use std::fs;

use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{DISK, Rig, Service, requests};

/// Fault 30.
#[test]
fn an_outbox_whose_disk_is_gone_is_waited_for_and_never_stood_in_for() {
    let Some(rig) = Rig::on(DISK, Faults::default(), &[]) else { return };
    rig.bring("a.jsonl", requests(5, 10));
    let outbox = rig.disk.inside.join("spool/outbox").display().to_string();
    fs::create_dir_all(rig.spool().join("outbox")).expect("made");
    let mount = || rig.disk.run("mount", &["-t", "tmpfs", "-o", "size=20m", "none", &outbox]);
    mount();
    rig.drop_file("a.jsonl");
    let mut service = stopped_at_merging(&rig);
    rig.disk.run("umount", &[&outbox]);
    service.until("it waits", || rig.status().contains("nothing is mounted there"));
    let bare = fs::read_dir(rig.spool().join("outbox")).expect("listed");
    assert_eq!(bare.count(), 0, "results do not go to the folder below");
    mount();
    service.until("it goes on", || rig.has_done(&["a.jsonl"]));
    assert_eq!(service.stop(), Vec::<i32>::new());
    assert_eq!(rig.rows_paid(), 5);
}

/// Fault 30.
#[test]
fn an_outbox_that_is_moved_away_is_waited_for() {
    let Some(rig) = Rig::on(DISK, Faults::default(), &[]) else { return };
    rig.bring("a.jsonl", requests(5, 10));
    rig.drop_file("a.jsonl");
    let mut service = stopped_at_merging(&rig);
    let (outbox, away) = (rig.spool().join("outbox"), rig.spool().join("away"));
    fs::rename(&outbox, &away).expect("moved");
    service.until("it waits", || rig.status().contains("TROUBLE"));
    assert!(!outbox.exists(), "it is not made anew");
    fs::rename(&away, &outbox).expect("moved back");
    service.until("it goes on", || rig.has_done(&["a.jsonl"]));
    assert_eq!(service.stop(), Vec::<i32>::new());
}

/// Fault 30.
#[test]
fn a_full_outbox_of_its_own_is_waited_for_and_left_clean() {
    let Some(rig) = Rig::on(DISK, Faults::default(), &[]) else { return };
    rig.bring("a.jsonl", requests(60, 10));
    let outbox = rig.disk.inside.join("spool/outbox").display().to_string();
    fs::create_dir_all(rig.spool().join("outbox")).expect("made");
    rig.disk.run("mount", &["-t", "tmpfs", "-o", "size=16k", "none", &outbox]);
    rig.drop_file("a.jsonl");
    let mut service = rig.serve("");
    service.until("it waits", || rig.status().contains("No space left on device"));
    let parts = || {
        let entries = fs::read_dir(rig.spool().join("outbox")).expect("listed").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().contains("results")).count()
    };
    service.until("what does not fit is taken away again", || parts() == 0);
    rig.disk.run("mount", &["-o", "remount,size=20m", &outbox]);
    service.until("it goes on", || rig.has_done(&["a.jsonl"]));
    assert_eq!(service.stop(), Vec::<i32>::new());
    assert_eq!(rig.rows_paid(), 60);
}

/// A daemon that sleeps for a second before it merges.
fn stopped_at_merging(rig: &Rig) -> Service<'_> {
    let mut service = rig.serve("saved:merging=1*sleep(1000)");
    service.until("all is answered", || rig.record().contains("\"merging\":{"));
    service
}
