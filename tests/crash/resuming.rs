//! Killed in the middle of an upload: a restart goes on where the server is.

use gemini_batchd::provider::gemini::emulator::{Faults, Happened};

use super::rig::{End, Rig, eventually, request};

/// Fault 4.
#[test]
fn a_restart_goes_on_with_the_upload_that_was_cut_by_kill_9() {
    let rig = large();
    assert_eq!(rig.once("upload:block=3*off->return(kill)"), End::ABORTED, "{}", rig.log());
    rig.drain();
    let (mut uploads, mut offsets, mut sent, mut size) = (0, Vec::new(), 0, 0);
    for entry in rig.emulator.journal() {
        match entry.what {
            Happened::UploadStarted { .. } => uploads += 1,
            Happened::UploadPiece { offset, received, .. } => {
                offsets.push(offset);
                sent += received;
            }
            Happened::Uploaded { bytes, .. } => size = bytes,
            _ => {}
        }
    }
    assert_eq!(uploads, 1, "the session is used again");
    assert!(offsets.iter().any(|offset| *offset > 0), "{offsets:?}");
    assert!(sent < size + BLOCK, "{sent} bytes were sent for {size}: {offsets:?}");
    assert_eq!(rig.created().len(), 1);
}

/// Fault 4.
#[test]
fn a_kill_while_an_upload_runs_ahead_of_its_plan_costs_only_what_was_sent() {
    let rig = by_file(24);
    let daemon = rig.start_once("plan:lines=sleep(3600000)");
    let sent = || {
        let received = |what| match what {
            Happened::UploadPiece { received, .. } => received,
            _ => 0,
        };
        rig.emulator.journal().into_iter().map(|entry| received(entry.what)).sum::<u64>()
    };
    eventually("some is sent before the plan is there", || sent() >= 1 << 20);
    daemon.kill();
    assert_eq!(rig.created(), []);
    rig.drain();
    assert_eq!(rig.created().len(), 1);
    let uploaded = |what| matches!(what, Happened::Uploaded { .. });
    let journal = rig.emulator.journal();
    assert_eq!(journal.into_iter().filter(|entry| uploaded(entry.what.clone())).count(), 1);
    let manifest = std::fs::read_to_string(rig.spool().join("outbox/a.manifest.json"));
    let manifest: serde_json::Value =
        serde_json::from_str(&manifest.expect("delivered")).expect("JSON");
    assert_eq!(manifest["answered"], 24);
}

/// Not so large that its upload would run ahead of its plan.
fn large() -> Rig {
    by_file(12)
}

/// So many lines of 80 kB.
fn by_file(lines: usize) -> Rig {
    let rig = Rig::new(Faults::default(), &["queue.default.transport = \"file\""]);
    let long = "word ".repeat(16 * 1024);
    let lines = (0..lines).map(|n| request(&format!("k{n}"), &long));
    rig.drop_file("a.jsonl", lines.collect::<String>());
    rig
}

/// Read from the disk and handed to the connection at once, bytes.
const BLOCK: u64 = 256 * 1024;
