//! Starts on disks that are full, read-only, or without room for another file.

use std::fs;
use std::path::Path;

use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{DISK, Rig, eventually, requests};
use super::spool::Contents;

/// Fault 24.
#[test]
fn a_start_on_a_full_disk_says_so_and_does_no_damage() {
    let Some(rig) = Rig::on(DISK, Faults::default(), &[]) else { return };
    rig.bring("a.jsonl", requests(5, 10));
    rig.drop_file("a.jsonl");
    rig.disk.fill(0);
    // Six times, before there is any store and after there is one.
    for round in 0..6 {
        if round == 3 {
            rig.disk.make_room();
            assert_eq!(rig.drain(), 3, "{}", rig.log());
            // A reserve that was used up is no help any more.
            fs::remove_file(rig.spool().join("state/reserve")).expect("it was made");
            rig.disk.fill(0);
        }
        assert_eq!(rig.drain(), 14, "{}", rig.log());
        let status = rig.status();
        assert!(status.contains("too little for a daemon"), "{status}");
    }
    assert!(rig.log().contains("make room on that disk"), "{}", rig.log());
    rig.disk.make_room();
    rig.bring("b.jsonl", requests(4, 10));
    rig.drop_file("b.jsonl");
    assert_eq!(rig.drain(), 3, "{}", rig.log());
    assert!(rig.has_done(&["a.jsonl", "b.jsonl"]));
    assert_eq!(rig.rows_paid(), 9);
    assert!(!has_quarantine(&rig.spool()), "nothing was wrong with the store");
}

/// Fault 24.
#[test]
fn with_its_reserve_a_daemon_starts_on_a_full_disk_and_answers() {
    let Some(rig) = Rig::on(DISK, Faults::default(), &[]) else { return };
    rig.bring("a.jsonl", requests(5, 10));
    assert_eq!(rig.drain(), 4, "{}", rig.log());
    assert!(rig.spool().join("state/reserve").is_file());
    rig.disk.fill(0);
    rig.drop_file("a.jsonl");
    let mut service = rig.serve("");
    service.until("it answers", || rig.health().is_some());
    let status = rig.status();
    assert!(status.contains("PAUSED") && status.contains("limits.free_bytes"), "{status}");
    assert!(rig.spool().join("inbox/a.jsonl").is_file(), "nothing new is begun");
    rig.disk.make_room();
    service.until("it goes on", || rig.has_done(&["a.jsonl"]));
    assert_eq!(service.stop(), Vec::<i32>::new());
    assert!(rig.spool().join("state/reserve").is_file(), "it is made anew");
}

/// Fault 22.
#[test]
fn once_ends_on_a_full_disk_instead_of_waiting_for_ever() {
    let Some(rig) = Rig::on(DISK, Faults::default(), &["limits.free_bytes = \"8MiB\""]) else {
        return;
    };
    rig.bring("a.jsonl", requests(5, 10));
    rig.drop_file("a.jsonl");
    rig.disk.fill(6 << 20);
    assert_eq!(rig.drain(), 14, "{}", rig.log());
    assert!(rig.log().contains("limits.free_bytes"), "{}", rig.log());
    rig.disk.make_room();
    assert_eq!(rig.drain(), 3, "{}", rig.log());
}

/// Fault 25.
#[test]
fn a_spool_that_can_only_be_read_is_told_with_its_path_and_not_tried_again() {
    let Some(rig) = Rig::on(DISK, Faults::default(), &[]) else { return };
    rig.bring("a.jsonl", requests(5, 10));
    rig.drop_file("a.jsonl");
    assert_eq!(rig.drain(), 3, "{}", rig.log());
    let before = Contents::of(&rig);
    let place = rig.disk.inside.display().to_string();
    rig.disk.run("mount", &["-o", "remount,ro", &place]);
    // The unit does not restart after this one.
    assert_eq!(rig.drain(), 10, "{}", rig.log());
    let state = rig.disk.inside.join("spool/state").display().to_string();
    assert!(rig.log().lines().any(|line| line.starts_with("error:") && line.contains(&state)));
    rig.disk.run("mount", &["-o", "remount,rw", &place]);
    assert_eq!(rig.drain(), 4, "{}", rig.log());
    Contents::of(&rig).assert_same(&before, "read-only");
}

/// Fault 25.
#[test]
fn a_disk_that_turns_read_only_under_a_daemon_loses_nothing() {
    let Some(rig) = Rig::on(DISK, Faults::default(), &["queue.default.lines_per_batch = 2"]) else {
        return;
    };
    rig.bring("a.jsonl", requests(9, 10));
    rig.drop_file("a.jsonl");
    let place = rig.disk.inside.display().to_string();
    let mut daemon = rig.command(&["run"]).env("FAILPOINTS", SLOW).spawn().expect("it starts");
    eventually(&rig, "a batch is made", || rig.record().contains("\"polling\":{"));
    // As a disk does it after an error; files that are open for writing keep a tmpfs from it.
    let forced = rig.disk.command("mount".as_ref()).args(["-o", "remount,ro", &place]).status();
    let is_read_only = forced.expect("it starts").success();
    if !is_read_only {
        daemon.kill().expect("killed");
        daemon.wait().expect("waited");
        rig.disk.run("mount", &["-o", "remount,ro", &place]);
    }
    let code = daemon.wait().expect("waited").code();
    assert!(!is_read_only || code == Some(1), "{code:?}\n{}", rig.log());
    assert_eq!(rig.drain(), 10, "{}", rig.log());
    rig.disk.run("mount", &["-o", "remount,rw", &place]);
    assert_eq!(rig.drain(), 3, "{}", rig.log());
    assert!(rig.has_done(&["a.jsonl"]));
    assert_eq!(rig.rows_paid(), 9);
}

/// Fault 31.
#[test]
fn a_disk_without_room_for_another_file_is_waited_for() {
    let disk = "mount -t tmpfs -o size=40m,nr_inodes=400 none PLACE";
    let settings = ["limits.free_bytes = \"1MiB\""];
    let Some(rig) = Rig::on(disk, Faults::default(), &settings) else { return };
    rig.bring("a.jsonl", requests(5, 10));
    let mut service = rig.serve("");
    service.until("it is ready", || rig.health().is_some());
    let ballast = rig.disk.outside().join("many");
    fs::create_dir(&ballast).expect("made");
    let mut made = 0;
    while fs::write(ballast.join(made.to_string()), "").is_ok() {
        made += 1;
    }
    rig.drop_file("a.jsonl");
    service.until("it says why", || rig.status().contains("more files only"));
    // A daemon that starts now can not even make its socket, or makes it elsewhere and waits.
    let code = rig.drain();
    assert!(code == 11 || code == 14, "{code}\n{}", rig.log());
    fs::remove_dir_all(&ballast).expect("removed");
    service.until("it goes on", || rig.has_done(&["a.jsonl"]));
    assert!(service.stop().iter().all(|code| *code == 14));
    assert_eq!(rig.rows_paid(), 5);
}

fn has_quarantine(spool: &Path) -> bool {
    let entries = fs::read_dir(spool.join("state")).expect("listed").flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("quarantine"))
}

const SLOW: &str = "saved:polling=1*sleep(700)";
