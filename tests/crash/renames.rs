//! A file system without renames that refuse a name that is taken, such as NFS.

use std::fs::{self, File};
use std::process::Command;

use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{Daemon, End, Rig, requests};

/// Fault 33.
#[test]
fn without_renames_that_never_overwrite_the_same_files_come_out() {
    if let Err(why) = Command::new("strace").arg("-V").output() {
        assert!(std::env::var_os("CI").is_none(), "strace: {why}");
        eprintln!("SKIPPED: strace: {why}");
        return;
    }
    // Every such rename fails, or files can not have two names either.
    for more in [None, Some("linkat:error=EPERM")] {
        let rig = Rig::new(Faults::default(), &["queue.default.lines_per_batch = 8"]);
        rig.drop_file("a.jsonl", requests(30));
        rig.drop_file("program.exe", "no input");
        let taken = rig.spool().join("outbox/a.results.jsonl");
        fs::create_dir_all(taken.parent().expect("a folder")).expect("made");
        fs::write(&taken, "of somebody else").expect("written");
        let once = rig.command(&["once"]);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat2,linkat"]);
        for fault in ["renameat2:error=EINVAL"].into_iter().chain(more) {
            traced.args(["-e", &format!("inject={fault}")]);
        }
        traced.arg(once.get_program()).args(once.get_args());
        rig.prepare(&mut traced);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let end = Daemon::start(traced.env("PATH", path)).end();
        assert_eq!(end, End::Exited(3), "{}", rig.log());
        assert_eq!(fs::read(&taken).expect("there"), b"of somebody else");
        let results = fs::read_to_string(rig.spool().join("outbox/a~2.results.jsonl"));
        assert_eq!(results.expect("there").lines().count(), 30, "{}", rig.log());
        let manifest = File::open(rig.spool().join("outbox/a~2.manifest.json")).expect("there");
        let manifest: serde_json::Value = serde_json::from_reader(manifest).expect("JSON");
        assert_eq!(manifest["answered"], 30);
        assert!(rig.spool().join("archive/a.jsonl").exists());
        assert!(rig.spool().join("failed/program.exe.reason.json").exists());
        assert!(!rig.spool().join("inbox/a.jsonl").exists());
    }
}
