//! SIGTERM: within five seconds, whatever is under way, and nothing is lost.

use std::time::{Duration, Instant};

use gemini_batchd::provider::gemini::emulator::faults::{CallKind, Slow};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened};
use rustix::process::Signal;

use super::rig::{End, Rig, eventually, requests};
use super::spool::Contents;
use super::states::rows_paid;

/// A moment in the life of a daemon.
struct Moment {
    settings: &'static [&'static str],
    /// The call that takes a minute.
    slow: Option<CallKind>,
    failpoints: &'static str,
    has_come: fn(&Rig) -> bool,
}

const IN_AN_UPLOAD: Moment = Moment {
    settings: &["queue.default.transport = \"file\""],
    slow: Some(CallKind::Upload),
    failpoints: "",
    has_come: |rig| {
        let started = |what: &Happened| matches!(what, Happened::UploadStarted { .. });
        rig.emulator.journal().iter().any(|entry| started(&entry.what))
    },
};

const IN_A_CREATE: Moment = Moment {
    settings: &["queue.default.transport = \"inline\""],
    slow: Some(CallKind::Create),
    failpoints: "",
    has_come: |rig| rig.has_begun("create"),
};

/// The disk needs a minute for whatever it is asked to do.
const AT_A_SLOW_DISK: Moment = Moment {
    settings: &[],
    slow: None,
    failpoints: "disk=sleep(60000)",
    has_come: |rig| rig.has_begun("claim"),
};

/// Fault 12.
#[test]
fn sigterm_stops_within_5_s_and_loses_nothing() {
    std::thread::scope(|scope| {
        for moment in [IN_AN_UPLOAD, IN_A_CREATE, AT_A_SLOW_DISK] {
            scope.spawn(move || moment.stop(1));
        }
    });
}

/// Fault 12.
#[test]
fn an_upload_that_ends_after_a_sigterm_is_not_followed_by_a_create() {
    let slow = Slow { ms: 700, call: Some(CallKind::Upload), times: Budget::Always };
    let rig = Rig::new(Faults { slow: Some(slow), ..Faults::default() }, IN_AN_UPLOAD.settings);
    rig.drop_file("a.jsonl", requests(5));
    let (daemon, _notices) = rig.run("");
    eventually("the upload begins", || (IN_AN_UPLOAD.has_come)(&rig));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), End::Exited(0), "{}", rig.log());
    let uploaded = |what: &Happened| matches!(what, Happened::Uploaded { .. });
    assert!(rig.emulator.journal().iter().any(|entry| uploaded(&entry.what)), "{}", rig.log());
    assert!(!rig.has_begun("create"), "{}", rig.log());

    rig.drain();
    assert_eq!(rig.created().len(), 1);
    let uploads = rig.emulator.journal().into_iter().filter(|entry| uploaded(&entry.what)).count();
    assert_eq!(uploads, 1, "the file that lies there is used");
}

/// Fault 13.
#[test]
fn a_second_sigterm_stops_at_once() {
    std::thread::scope(|scope| {
        for moment in [IN_AN_UPLOAD, IN_A_CREATE, AT_A_SLOW_DISK] {
            scope.spawn(move || moment.stop(2));
        }
    });
}

impl Moment {
    fn stop(&self, signals: u32) {
        let undisturbed = Rig::new(Faults::default(), self.settings);
        undisturbed.drop_file("a.jsonl", requests(20));
        undisturbed.drain();

        let slow =
            self.slow.map(|call| Slow { ms: 60_000, call: Some(call), times: Budget::Always });
        let rig = Rig::new(Faults { slow, ..Faults::default() }, self.settings);
        rig.drop_file("a.jsonl", requests(20));
        let (daemon, notices) = rig.run(self.failpoints);
        eventually("the moment comes", || (self.has_come)(&rig));
        let mut asked = Instant::now();
        daemon.signal(Signal::TERM);
        notices.wait_for("STOPPING=1");
        let mut limit = Duration::from_secs(5);
        if signals > 1 {
            (asked, limit) = (Instant::now(), Duration::from_secs(1));
            daemon.signal(Signal::TERM);
        }
        assert_eq!(daemon.end(), End::Exited(0), "{}", rig.log());
        assert!(asked.elapsed() < limit, "it took {:?}\n{}", asked.elapsed(), rig.log());

        rig.emulator.set_faults(Faults::default());
        rig.drain();
        assert_eq!(rows_paid(&rig, "stopped"), rows_paid(&undisturbed, "undisturbed"));
        Contents::of(&rig).assert_same(&Contents::of(&undisturbed), "stopped");
    }
}
