//! Tasks that panic or hang: never a daemon that is half alive.

use gemini_batchd::provider::gemini::emulator::Faults;

use super::in_parallel::in_parallel;
use super::rig::{Daemon, End, Notices, Rig, eventually, requests};
use super::spool::Contents;
use super::states::rows_paid;

/// Fault 15.
#[test]
fn a_panic_in_any_task_ends_the_process_and_a_restart_recovers() {
    let rig = |failpoints: &str| {
        let rig = Rig::new(Faults::default(), &["queue.default.transport = \"file\""]);
        rig.drop_file("a.jsonl", requests(20));
        (rig.once(failpoints), rig)
    };
    let (end, undisturbed) = rig("");
    assert_eq!(end, End::Exited(3), "{}", undisturbed.log());
    let expected = Contents::of(&undisturbed);
    // In the loop, in tasks, on threads for the disk, in the store, while it starts.
    let moments = [
        "saved:creating",
        "begun:claim",
        "done:create",
        "disk",
        "upload:block",
        "collect:bytes",
        "merge:written",
        "save:applied",
        "open:checked",
    ];
    in_parallel(moments.into_iter(), |moment| {
        let (end, rig) = rig(&format!("{moment}=panic"));
        assert_eq!(end, End::ABORTED, "{moment}: {}", rig.log());
        rig.drain();
        assert_eq!(rows_paid(&rig, moment), rows_paid(&undisturbed, "undisturbed"));
        Contents::of(&rig).assert_same(&expected, moment);
    });
}

/// Fault 16.
#[test]
fn a_loop_that_hangs_sends_no_heartbeat_any_more() {
    let rig = Rig::new(Faults::default(), &[]);
    let notices = Notices::at(&rig.aside("notify"));
    let mut command = rig.command(&["run"]);
    command
        .env("NOTIFY_SOCKET", rig.aside("notify"))
        .env("WATCHDOG_USEC", "300000")
        .env("FAILPOINTS", "saved:polling=sleep(3600000)");
    let _daemon = Daemon::start(&mut command);
    notices.wait_for("READY=1");
    for _ in 0..3 {
        notices.wait_for("WATCHDOG=1");
    }
    rig.drop_file("a.jsonl", requests(3));
    eventually("it hangs", || rig.log().contains(" moment=saved:polling\n"));
    // Many heartbeats would have come in that time.
    assert!(notices.are_over_for(std::time::Duration::from_secs(2)), "{}", rig.log());
}

/// Fault 16.
#[test]
fn a_disk_that_hangs_holds_up_one_job_and_not_the_others() {
    let rig = Rig::new(Faults::default(), &[]);
    let (_daemon, _notices) = rig.run("claim:moved=1*sleep(3600000)");
    rig.drop_file("a.jsonl", requests(3));
    eventually("a claim hangs", || rig.log().contains(" moment=claim:moved\n"));
    rig.drop_file("b.jsonl", requests(2));
    eventually("the other is answered", || rig.spool().join("outbox/b.manifest.json").is_file());
    assert!(!rig.spool().join("outbox/a.manifest.json").exists());
}
