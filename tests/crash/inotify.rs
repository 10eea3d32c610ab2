//! A machine whose inotify instances are used up.

use std::process::Command;

use gemini_batchd::provider::gemini::emulator::Faults;
use rustix::process::Signal;

use super::rig::{Daemon, End, Rig, eventually, requests};

/// Fault 37.
#[test]
fn where_inotify_is_used_up_the_inbox_is_looked_at_regularly_and_that_is_said_once() {
    // A user namespace has limits of its own.
    let limit = "echo 0 > /proc/sys/user/max_inotify_instances";
    let alone = ["--user", "--map-root-user", "sh", "-c"];
    let tried = Command::new("unshare").args(alone).arg(limit).output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "no user namespace: {tried:?}");
        eprintln!("SKIPPED: no user namespace: {tried:?}");
        return;
    }
    let rig = Rig::new(Faults::default(), &[]);
    let run = rig.command(&["run"]);
    let mut limited = Command::new("unshare");
    limited.args(alone).arg(format!("{limit}; exec \"$@\"")).arg("sh");
    limited.arg(run.get_program()).args(run.get_args());
    rig.prepare(&mut limited);
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Asked for by name, for where tests run there may be file systems that are never watched.
    limited.env("PATH", path).env("GEMINI_BATCHD__INTAKE__WATCH", "events");
    let daemon = Daemon::start(&mut limited);
    for name in ["a", "b", "c"] {
        rig.drop_file(&format!("{name}.jsonl"), requests(2).replace("question", name));
        let manifest = rig.spool().join(format!("outbox/{name}.manifest.json"));
        eventually("answers", || manifest.exists());
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), End::Exited(0), "{}", rig.log());
    let log = rig.log();
    let told = log.lines().filter(|line| line.contains("no events from the inbox")).count();
    assert_eq!(told, 1, "{log}");
    assert!(log.contains("cannot watch"), "{log}");
}
