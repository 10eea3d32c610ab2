//! The roads a file can take. Which moments a daemon passes on each, it tells itself.

use std::fs;

use gemini_batchd::provider::gemini::emulator::faults::EveryNth;
use gemini_batchd::provider::gemini::emulator::{Budget, Faults};

use super::rig::{Daemon, End, Rig, request, requests};

/// A road.
pub struct Scenario {
    /// For messages.
    pub name: &'static str,
    /// What goes wrong at the API anyway.
    pub faults: fn() -> Faults,
    /// The settings.
    pub settings: &'static [&'static str],
    /// What is there before the daemon that something happens to.
    pub prepare: fn(&mut Rig),
    /// Its drain, while something may be done to it from outside.
    pub drain: fn(&Rig, &str) -> End,
}

impl Scenario {
    /// A fresh rig, ready for the drain.
    pub fn rig(&self) -> Rig {
        let mut rig = Rig::new((self.faults)(), self.settings);
        (self.prepare)(&mut rig);
        rig
    }
}

/// The road on which most moves are copies.
pub const ACROSS: &str = "across file systems";

/// All of them; the first two pass nearly every moment.
pub const SCENARIOS: [Scenario; 20] = [
    Scenario {
        name: "file",
        faults: doubtful_and_poisoned,
        settings: &[FILE, LINES],
        prepare: |rig| rig.drop_file("a.jsonl", mixed()),
        drain: Rig::once,
    },
    Scenario {
        name: "inline",
        faults: doubtful_and_poisoned,
        settings: &[INLINE, LINES],
        prepare: |rig| rig.drop_file("a.jsonl", mixed()),
        drain: Rig::once,
    },
    Scenario {
        name: "not small",
        faults: Faults::default,
        settings: &[],
        prepare: |rig| rig.drop_file("a.jsonl", requests(3) + &"\n".repeat(2 << 20)),
        drain: Rig::once,
    },
    Scenario {
        name: "images, cut off at first",
        faults: Faults::default,
        settings: &[IMAGES, STRICT, LINES],
        prepare: |rig| rig.drop_file("a.jsonl", cut_off()),
        drain: Rig::once,
    },
    Scenario {
        name: "a table",
        faults: Faults::default,
        settings: &["queue.default.emit_csv = true", "queue.default.lines_per_batch = 2"],
        prepare: |rig| rig.drop_file("a.csv", "key,prompt\n1,one\n2,\n3,\"two\nlines\"\n4,four\n"),
        drain: Rig::once,
    },
    Scenario {
        name: "a canary",
        faults: Faults::default,
        settings: &["queue.default.canary = 3"],
        prepare: |rig| rig.drop_file("a.jsonl", requests(15)),
        drain: Rig::once,
    },
    Scenario {
        name: "refused",
        faults: Faults::default,
        settings: &[],
        prepare: |rig| {
            rig.drop_file("a.jsonl", "not a request\n{\"key\": 1}\n");
            fs::write(rig.aside("elsewhere.jsonl"), requests(1)).expect("written");
            let link = rig.spool().join("inbox/link.jsonl");
            std::os::unix::fs::symlink(rig.aside("elsewhere.jsonl"), link).expect("a link");
        },
        drain: Rig::once,
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
    },
    Scenario {
        name: "beyond its budget",
        faults: Faults::default,
        settings: &[
            "price.\"gemini-2.5-flash\".input = 0",
            "price.\"gemini-2.5-flash\".output = 2",
            "queue.default.budget = 0.01",
        ],
        prepare: |rig| rig.drop_file("a.jsonl", requests(30)),
        drain: Rig::once,
    },
    Scenario {
        name: "settings of their own",
        faults: Faults::default,
        settings: &[LINES, "queue.default.defaults.generationConfig.temperature = 0.5"],
        prepare: |rig| {
            rig.drop_file("a.job.toml", "transport = \"inline\"\n");
            rig.drop_file("a.jsonl", requests(15));
            rig.drop_file("b.job.toml", "no = \"setting\"\n");
            rig.drop_file("b.jsonl", requests(2));
        },
        drain: Rig::once,
    },
    Scenario {
        name: "little room at the API",
        faults: Faults::default,
        // One after the other: then the results of one are in the way of the next.
        settings: &[
            FILE,
            LINES,
            "limits.file_bytes = \"2kB\"",
            "limits.storage_bytes = \"2kB\"",
            "limits.open_batches = 1",
        ],
        prepare: |rig| rig.drop_file("a.jsonl", mixed()),
        drain: Rig::once,
    },
    Scenario {
        name: "in doubt, for a person",
        faults: || Faults { create_drop_before: Budget::times(1), ..Faults::default() },
        settings: &[INLINE, "api.uncertain = \"hold\""],
        prepare: |rig| rig.drop_file("a.jsonl", requests(3)),
        drain: Rig::once,
    },
    Scenario {
        name: "cancelled",
        faults: || Faults { stuck_pending: Budget::Always, ..Faults::default() },
        settings: &[INLINE, LINES],
        prepare: |rig| rig.drop_file("a.jsonl", mixed()),
        drain: cancelled_meanwhile,
    },
    Scenario {
        name: "a deadline that is near",
        faults: Faults::default,
        // What a rescue needs is more than that: it begins at once.
        settings: &[
            "queue.default.deliver_by = \"10m\"",
            "queue.default.rescue = [\"flex\"]",
            "limits.rescue_parallel = 2",
        ],
        prepare: |rig| rig.drop_file("a.jsonl", requests(6)),
        drain: Rig::once,
    },
    Scenario {
        name: "taken back",
        faults: Faults::default,
        settings: &[],
        prepare: |rig| {
            rig.drop_file("a.jsonl", requests(3));
            let end = rig.once("claim:folders=return(kill)");
            assert_eq!(end, End::ABORTED, "{}", rig.log());
            fs::remove_file(rig.spool().join("inbox/a.jsonl")).expect("taken back");
        },
        drain: Rig::once,
    },
    Scenario {
        name: ACROSS,
        faults: Faults::default,
        settings: &[IMAGES],
        prepare: |rig| {
            rig.put_elsewhere(&["inbox", "outbox", "failed", "archive"]);
            rig.drop_file("a.jsonl", requests(15));
            rig.drop_file("b.jsonl", "not a request\n");
        },
        drain: Rig::once,
    },
    Scenario {
        name: "a damaged store",
        faults: doubtful_and_poisoned,
        settings: &[INLINE, LINES],
        prepare: |rig| {
            rig.drop_file("a.jsonl", mixed());
            assert_eq!(rig.once("saved:polling=1*off->return(kill)"), End::ABORTED);
            let db = rig.spool().join("state/jobs.sled/db");
            fs::write(db, "no store").expect("damaged");
        },
        drain: Rig::once,
    },
    Scenario {
        name: "tried again",
        faults: || {
            let blocked = EveryNth { every: 2, times: Budget::times(1) };
            Faults { blocked, ..Faults::default() }
        },
        settings: &[],
        prepare: |rig| {
            rig.drop_file("a.job.toml", "attempts = 2\n");
            rig.drop_file("a.jsonl", requests(4));
            rig.drop_file("b.jsonl", "not a request\n");
            rig.drain();
            fs::write(rig.spool().join("failed/b.jsonl"), request("k", "mended")).expect("mended");
        },
        drain: tried_again,
    },
    Scenario {
        name: "hooks",
        faults: Faults::default,
        settings: &[
            "hooks.on_done = [\"/bin/sh\", \"-c\", \"cat >> \\\"$HOME/told\\\"\"]",
            "hooks.on_failed = [\"/bin/sh\", \"-c\", \"cat >> \\\"$HOME/told\\\"\"]",
        ],
        prepare: |rig| {
            rig.drop_file("a.jsonl", requests(3));
            rig.drop_file("b.jsonl", "not a request\n");
        },
        drain: Rig::once,
    },
    Scenario {
        name: "answered before",
        faults: Faults::default,
        settings: &[LINES, "queue.default.cache = \"1d\""],
        prepare: |rig| {
            rig.drop_file("a.jsonl", requests(10));
            rig.drain();
            rig.drop_file("b.jsonl", requests(29));
        },
        drain: Rig::once,
    },
];

/// Runs, and asks for what failed to be tried again, until all of it is answered.
fn tried_again(rig: &Rig, failpoints: &str) -> End {
    let mut daemon = Daemon::start(rig.command(&["run"]).env("FAILPOINTS", failpoints));
    let spool = rig.spool();
    let job_in = |path: &str| {
        let note: serde_json::Value =
            serde_json::from_slice(&fs::read(spool.join(path)).ok()?).ok()?;
        Some(note["job"].as_str()?.to_owned())
    };
    let ask = |arguments: &[&str]| {
        rig.command(arguments).status().expect("it runs");
    };
    super::rig::eventually("what failed is answered", || {
        if !daemon.runs() {
            return true;
        }
        if !rig.listens() {
            return false;
        }
        // In the order in which a file goes.
        let is_tried = spool.join("inbox/a~retry.jsonl").exists()
            || !rig.jobs_of("a~retry.jsonl").is_empty()
            || spool.join("outbox/a~retry.manifest.json").exists();
        let refused = job_in("failed/b.jsonl.reason.json");
        match (is_tried, &refused) {
            (false, _) => ask(&["retry", &job_in("outbox/a.manifest.json").expect("delivered")]),
            (true, Some(job)) => ask(&["retry", job]),
            (true, None) => {}
        }
        let is_answered = |stem| spool.join(format!("outbox/{stem}.manifest.json")).exists();
        if refused.is_none() && is_answered("a~retry") && is_answered("b") {
            ask(&["drain"]);
        }
        false
    });
    daemon.end()
}

/// Drains, and asks for the job to be cancelled once all its batches are made.
fn cancelled_meanwhile(rig: &Rig, failpoints: &str) -> End {
    let mut daemon = rig.start_once(failpoints);
    let is_record = |entry: &fs::DirEntry| entry.path().join("record.json").is_file();
    super::rig::eventually("the job is cancelled", || {
        if !daemon.runs() {
            return true;
        }
        let working = fs::read_dir(rig.spool().join("working"));
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

/// Lines with limits that are too low for their answers.
fn cut_off() -> String {
    let limited = |n: usize| {
        let request = request(&format!("k{n}"), &format!("picture {n}"));
        request.replace("\"contents\"", "\"generationConfig\":{\"maxOutputTokens\":4},\"contents\"")
    };
    (1..=9).map(limited).collect()
}

const CHUNKS: usize = 4;
const IMAGES: &str = "queue.default.model = \"gemini-2.5-flash-image\"";
const STRICT: &str = "queue.default.accept_truncated = false";
const INLINE: &str = "queue.default.transport = \"inline\"";
const FILE: &str = "queue.default.transport = \"file\"";
const LINES: &str = "queue.default.lines_per_batch = 8";
