//! A process that gets no more memory ends at once, like one that is killed.

use std::process::Command;
use std::time::Duration;

use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{Daemon, End, Rig, requests};
use super::spool::Contents;
use super::states::rows_paid;

/// Fault 17. The kernel ends a process beyond the limit of its group with the same signal as
/// `kill -9`; here the process is refused memory instead, wherever it asks for some. Where it is a
/// thread that can not be had, sled waits for it for ever: then nobody hears a heartbeat, and the
/// service manager ends the process.
#[test]
fn a_daemon_that_runs_out_of_memory_ends_and_a_restart_recovers() {
    let filled = || {
        let rig = Rig::new(Faults::default(), &["queue.default.lines_per_batch = 40"]);
        rig.drop_file("a.jsonl", requests(200));
        rig
    };
    let undisturbed = filled();
    undisturbed.drain();

    let rig = filled();
    let mut deaths = 0;
    for mebibytes in (30..=600).step_by(30) {
        let once = rig.command(&["once"]);
        let mut limited = Command::new("/bin/sh");
        let script = format!("ulimit -v {}; exec \"$@\"", mebibytes * 1024);
        limited.args(["-c", &script, "sh"]).arg(once.get_program()).args(once.get_args());
        rig.prepare(&mut limited);
        // Threads must not help themselves to address space in large pieces.
        limited.env("MALLOC_ARENA_MAX", "1");
        let mut daemon = Daemon::start(&mut limited);
        let end = if daemon.ends_within(HEARTBEAT) { daemon.end() } else { daemon.kill() };
        match end {
            End::Exited(0 | 3) => break,
            // Refused memory by the system, or while the program is being loaded.
            End::Exited(_) | End::Killed(_) => deaths += 1,
        }
    }
    assert!(deaths > 0, "the limits were too wide");
    rig.drain();
    assert_eq!(rows_paid(&rig, "out of memory"), rows_paid(&undisturbed, "undisturbed"));
    Contents::of(&rig).assert_same(&Contents::of(&undisturbed), "out of memory");
}

/// A daemon that says nothing for so long is ended; the unit's `WatchdogSec=` is longer.
const HEARTBEAT: Duration = Duration::from_secs(10);
