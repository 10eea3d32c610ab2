//! The API key: in the daemon's memory and in a header, and nowhere else.

use std::fs;
use std::path::Path;

use gemini_batchd::provider::gemini::emulator::faults::{AfterBytes, CallKind, Denied, OnCall};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults};
use rustix::process::Signal;

use super::rig::{Daemon, End, KEY, Rig, eventually, requests};

/// Fault 82.
#[test]
fn the_key_is_in_no_argument_no_log_and_no_file() {
    let faults = Faults {
        create_503_before: Budget::times(1),
        create_drop_after: Budget::times(1),
        html_502: Some(OnCall { call: Some(CallKind::List), times: Budget::times(1) }),
        upload_refused: Budget::times(1),
        upload_cut: Some(AfterBytes { after: 1500, times: Budget::times(1) }),
        download_cut: Some(AfterBytes { after: 500, times: Budget::times(1) }),
        ..Faults::default()
    };
    let rig = Rig::new(faults, &["queue.files.transport = \"file\""]);
    rig.drop_file("a.jsonl", requests(5));
    rig.drop_file("files/b.jsonl", requests(20));
    let daemon = Daemon::start(rig.command(&["run"]).env("RUST_LOG", "trace"));
    for manifest in ["outbox/a.manifest.json", "outbox/files/b.manifest.json"] {
        eventually(manifest, || rig.spool().join(manifest).is_file());
    }
    let arguments = fs::read(format!("/proc/{}/cmdline", daemon.pid())).expect("it runs");
    assert!(!arguments.is_empty() && !holds_key(&arguments));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), End::Exited(0), "{}", rig.log());

    // A key that the API refuses is an error that speaks of the key.
    let denied = Denied { status: 403, call: None, times: Budget::Always };
    rig.emulator.set_faults(Faults { denied: Some(denied), ..Faults::default() });
    rig.drop_file("c.jsonl", requests(2));
    let refused = Daemon::start(rig.command(&["once"]).env("RUST_LOG", "trace"));
    assert_eq!(refused.end(), End::Exited(12), "{}", rig.log());

    let log = rig.log();
    assert!(log.contains("TRACE"), "the log has everything: {log}");
    assert!(!holds_key(log.as_bytes()), "the key is in the log");
    let mut files = 0;
    search(&rig.spool(), &mut files);
    assert!(files > 8, "{files} files were searched");
}

fn search(folder: &Path, files: &mut u32) {
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            search(&path, files);
        } else if path.is_file() {
            assert!(!holds_key(&fs::read(&path).expect("read")), "it is in {}", path.display());
            *files += 1;
        }
    }
}

fn holds_key(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, KEY.as_bytes()).is_some()
}
