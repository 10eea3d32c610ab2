//! Two daemons on one spool.

use std::fs::File;

use rustix::process::Signal;

use super::rig::{Daemon, End, Rig, eventually, requests};
use gemini_batchd::provider::gemini::emulator::Faults;

/// Fault 18.
#[test]
fn a_second_daemon_on_the_same_spool_exits_11_and_the_first_is_undisturbed() {
    let rig = Rig::new(Faults::default(), &[]);
    let (first, _notices) = rig.run("");
    for verb in ["run", "once"] {
        let told = rig.aside("told");
        let mut second = rig.command(&[verb]);
        second.stderr(File::create(&told).expect("made"));
        assert_eq!(Daemon::start(&mut second).end(), End::Exited(11), "{verb}");
        let told = std::fs::read_to_string(told).expect("read");
        assert!(told.contains(&first.pid().to_string()), "the holder is named: {told}");
    }
    rig.drop_file("a.jsonl", requests(5));
    let manifest = rig.spool().join("outbox/a.manifest.json");
    eventually("the first daemon goes on", || manifest.is_file());
    let mut status = rig.command(&["status"]);
    assert!(status.status().expect("it runs").success(), "its control socket is still its own");
    first.signal(Signal::TERM);
    assert_eq!(first.end(), End::Exited(0), "{}", rig.log());
    assert_eq!(rig.created().len(), 1);
}
