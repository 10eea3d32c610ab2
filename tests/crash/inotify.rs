//! A machine whose inotify instances are used up.

use std::process::Command;

use gemini_batchd::provider::gemini::emulator::Faults;
use rustix::process::Signal;

use super::rig::{Daemon, End, Rig, eventually, requests};

/// Fault 37.
#[test]
fn where_inotify_is_used_up_the_inbox_is_looked_at_regularly_and_that_is_said_once() {
    if let Err(why) = Command::new("strace").arg("-V").output() {
        assert!(std::env::var_os("CI").is_none(), "strace: {why}");
        eprintln!("SKIPPED: strace: {why}");
        return;
    }
    let rig = Rig::new(Faults::default(), &[]);
    let run = rig.command(&["run"]);
    let mut limited = Command::new("strace");
    // With -D the daemon is our own child, and can be told to stop.
    limited.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=inotify_init1"]);
    limited.args(["-e", "inject=inotify_init1:error=EMFILE"]);
    limited.arg(run.get_program()).args(run.get_args());
    rig.prepare(&mut limited);
    // Asked for by name, for where tests run there may be file systems that are never watched.
    limited
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GEMINI_BATCHD__INTAKE__WATCH", "events");
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
