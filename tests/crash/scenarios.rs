//! The roads a file can take, each with the points that a daemon passes on it.

use gemini_batchd::provider::gemini::emulator::{Budget, Faults};

use super::rig::{End, Rig, request, requests};

/// A road.
pub struct Scenario {
    /// For messages.
    pub name: &'static str,
    /// What goes wrong at the API anyway.
    pub faults: fn() -> Faults,
    /// The settings.
    pub settings: &'static [&'static str],
    /// What is there before the daemon that is killed.
    pub prepare: fn(&Rig),
    /// The drain that is killed, while something may be done to it from outside.
    pub drain: fn(&Rig, &str) -> End,
    /// Points passed, separated by blanks.
    pub points: &'static str,
    /// Points passed more than once, so that the daemon can die at a later pass.
    pub again: &'static str,
}

impl Scenario {
    /// A fresh rig, ready for the drain.
    pub fn rig(&self) -> Rig {
        let rig = Rig::new((self.faults)(), self.settings);
        (self.prepare)(&rig);
        rig
    }
}

/// All of them.
pub const SCENARIOS: [Scenario; 9] = [
    Scenario {
        name: "inline",
        faults: doubtful_and_poisoned,
        settings: &[INLINE, LINES],
        prepare: |rig| rig.drop_file("a.jsonl", mixed()),
        drain: Rig::once,
        points: "saved:claiming done:claim saved:active saved:waiting saved:creating done:create \
                 saved:uncertain done:find saved:polling done:poll saved:collecting done:collect saved:settled saved:split saved:merging done:merge \
                 saved:delivering done:deliver saved:cleaning done:clean saved:done",
        again: "saved:creating done:create done:find saved:polling done:poll saved:collecting \
                done:collect saved:settled saved:split",
    },
    Scenario {
        name: "file",
        faults: doubtful_and_poisoned,
        settings: &[FILE, LINES],
        prepare: |rig| rig.drop_file("a.jsonl", mixed()),
        drain: Rig::once,
        points: "saved:claiming done:claim saved:active saved:waiting saved:uploading \
                 done:upload saved:creating done:create saved:uncertain done:find \
                 saved:polling done:poll saved:collecting done:collect saved:settled saved:split \
                 saved:merging done:merge saved:delivering done:deliver saved:cleaning done:clean \
                 saved:done",
        again: "saved:uploading done:upload saved:creating done:create done:find saved:polling \
                done:poll saved:collecting done:collect saved:settled saved:split",
    },
    Scenario {
        name: "not small",
        faults: Faults::default,
        settings: &[],
        prepare: |rig| rig.drop_file("a.jsonl", requests(3) + &"\n".repeat(2 << 20)),
        drain: Rig::once,
        points: "saved:claiming done:claim saved:planning done:plan saved:active",
        again: "",
    },
    Scenario {
        name: "refused",
        faults: Faults::default,
        settings: &[],
        prepare: |rig| rig.drop_file("a.jsonl", "not a request\n{\"key\": 1}\n"),
        drain: Rig::once,
        points: "saved:refusing done:refuse saved:failed",
        again: "",
    },
    Scenario {
        name: "duplicate",
        faults: Faults::default,
        settings: &[],
        prepare: |rig| {
            rig.drop_file("a.jsonl", requests(2));
            rig.drain();
            rig.drop_file("b.jsonl", requests(2));
        },
        drain: Rig::once,
        points: "saved:holding done:hold saved:held",
        again: "",
    },
    Scenario {
        name: "little room at the API",
        faults: Faults::default,
        settings: &[FILE, LINES, "limits.file_bytes = \"2kB\"", "limits.storage_bytes = \"2kB\""],
        prepare: |rig| rig.drop_file("a.jsonl", mixed()),
        drain: Rig::once,
        points: "done:discard",
        again: "",
    },
    Scenario {
        name: "in doubt, for a person",
        faults: || Faults { create_drop_before: Budget::times(1), ..Faults::default() },
        settings: &[INLINE, "api.uncertain = \"hold\""],
        prepare: |rig| rig.drop_file("a.jsonl", requests(3)),
        drain: Rig::once,
        points: "saved:stuck done:notify",
        again: "",
    },
    Scenario {
        name: "cancelled",
        faults: || Faults { stuck_pending: Budget::Always, ..Faults::default() },
        settings: &[INLINE, LINES],
        prepare: |rig| rig.drop_file("a.jsonl", mixed()),
        drain: cancelled_meanwhile,
        points: "done:cancel done:withdraw",
        again: "done:cancel",
    },
    Scenario {
        name: "taken back",
        faults: Faults::default,
        settings: &[],
        prepare: |rig| {
            rig.drop_file("a.jsonl", requests(3));
            assert_eq!(rig.once("saved:claiming=return"), End::ABORTED, "{}", rig.log());
            std::fs::remove_file(rig.spool().join("inbox/a.jsonl")).expect("taken back");
        },
        drain: Rig::once,
        points: "saved:forget",
        again: "",
    },
];

/// Drains, and asks for the job to be cancelled once all its batches are made.
fn cancelled_meanwhile(rig: &Rig, failpoints: &str) -> End {
    let mut daemon = rig.start_once(failpoints);
    let is_record = |entry: &std::fs::DirEntry| entry.path().join("record.json").is_file();
    super::rig::eventually("the job is cancelled", || {
        if !daemon.runs() {
            return true;
        }
        let working = std::fs::read_dir(rig.spool().join("working"));
        let job = working.into_iter().flatten().flatten().find(is_record);
        let Some(job) = job.filter(|_| rig.created().len() == CHUNKS) else { return false };
        let id = job.file_name().into_string().expect("an id");
        let mut cancel = rig.command(&["cancel", &id]);
        cancel.status().expect("it runs").success()
    });
    daemon.end()
}

fn doubtful_and_poisoned() -> Faults {
    Faults {
        create_503_after: Budget::times(2),
        create_opaque_400: Some("arsenic".to_owned()),
        ..Faults::default()
    }
}

/// Lines for four chunks; one of them makes the API refuse all that it comes with.
fn mixed() -> String {
    requests(29) + &request("bad", "a cup of arsenic")
}

const CHUNKS: usize = 4;
const INLINE: &str = "queue.default.transport = \"inline\"";
const FILE: &str = "queue.default.transport = \"file\"";
const LINES: &str = "queue.default.lines_per_batch = 8";
