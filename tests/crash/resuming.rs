//! Killed in the middle of an upload: a restart goes on where the server is.

use gemini_batchd::provider::gemini::emulator::{Faults, Happened};

use super::rig::{End, Rig, request};

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

fn large() -> Rig {
    let rig = Rig::new(Faults::default(), &["queue.default.transport = \"file\""]);
    let long = "word ".repeat(32 * 1024);
    rig.drop_file("a.jsonl", (0..12).map(|n| request(&format!("k{n}"), &long)).collect::<String>());
    rig
}

/// Read from the disk and handed to the connection at once, bytes.
const BLOCK: u64 = 256 * 1024;
