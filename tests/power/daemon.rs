//! The whole daemon: after any power cut it ends with the same outbox, and every row is paid for
//! once.
//!
//! The emulator it is started with again knows what the first one knew when the power went.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::UNIX_EPOCH;

use gemini_batchd::provider::gemini::emulator::{self, Faults, Memory, Options};

use crate::campaign::{self, Campaign, Image};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::models::Model;
use crate::rig::{Daemon, End, RUNTIME, Rig, options, requests};
use crate::spool::Contents;
use crate::trace::{Call, Step, traced};

/// One run of the daemon over a few files, from an empty state folder to an empty inbox.
struct Recording {
    start: Disk,
    steps: Vec<Step>,
    /// After these steps the disk is another one.
    cuts: Vec<usize>,
    /// By step, the latest moment at which anything up to it began, microseconds since 1970.
    moments: Vec<u64>,
    /// The step that made the first working folder: a job had been saved by then.
    first_claim: usize,
    memories: Vec<Memory>,
    rig: Rig,
    contents: Contents,
    rows: u64,
}

impl Recording {
    fn make() -> Recording {
        let rig = rig(emulator::start(Options { remembers: true, ..options(Faults::default()) }));
        for (file, rows) in FILES.iter().zip([30, 25, 5, 0]) {
            let bad = "not a request\n{\"key\": 1}\n".to_owned();
            rig.drop_file(file, if rows == 0 { bad } else { requests(rows) });
        }
        let start = Disk::of(&rig.spool());
        let words = rig.aside("words");
        let mut once = traced(&rig.command(&["once"]), &words);
        rig.prepare(&mut once);
        once.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        assert_eq!(Daemon::start(&mut once).end(), End::Exited(1), "{}", rig.log());
        let steps = campaign::recorded(&words);
        let (end, cuts) = campaign::changes(&start, &steps);
        campaign::assert_followed(&end, &rig.spool());
        let latest = steps.iter().scan(0, |latest, step| {
            *latest = step.at_us.max(*latest);
            Some(*latest)
        });
        let is_claim = |step: &Step| match &step.call {
            Call::MakeFolder { place } => memchr::memmem::find(&place.path, b"/working/").is_some(),
            _ => false,
        };
        Recording {
            start,
            first_claim: steps.iter().position(is_claim).expect("files were claimed"),
            moments: latest.collect(),
            steps,
            cuts,
            memories: rig.emulator.memories(),
            contents: Contents::of(&rig),
            rows: rows_paid(&rig),
            rig,
        }
    }

    /// What the emulator knew when the power went behind a step: everything that the daemon had
    /// been told, and nothing that it had not asked for.
    fn memory(&self, cut: usize) -> &Memory {
        let moment = u128::from(self.moments[cut]);
        let known = self.memories.partition_point(|memory| {
            memory.at.duration_since(UNIX_EPOCH).expect("after 1970").as_micros() <= moment
        });
        &self.memories[known.max(1) - 1]
    }

    /// A spool as the power cut left it, and an emulator as it was then.
    fn left(&self, image: &Image, disk: &Disk) -> Rig {
        let rig = rig(emulator::go_on(Options::default(), self.memory(image.cut)));
        fs::create_dir(rig.spool()).expect("made");
        image.model.leave(disk, &mut Dice(image.seed), &rig.spool());
        rig
    }

    /// Starts the daemon on what is left, and compares what it ends with.
    fn check(&self, image: &Image, disk: &Disk) {
        let rig = self.left(image, disk);
        self.delivered_is_whole(&rig);
        self.ends_the_same(&rig);
        // Until something was acknowledged, the store may begin anew.
        let quarantined = rig.spool().join("state/quarantine-1").exists();
        let is_new = image.cut < self.first_claim;
        assert!(!quarantined || is_new, "the store was set aside\n{}", rig.log());
    }

    fn ends_the_same(&self, rig: &Rig) {
        let end = rig.once("");
        assert!(matches!(end, End::Exited(_)), "{end:?}\n{}", rig.log());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            assert_eq!(rows_paid(rig), self.rows, "rows paid");
            Contents::of(rig).assert_same(&self.contents, "after the restart");
        }));
        if let Err(why) = outcome {
            eprintln!("{}", rig.log());
            resume_unwind(why);
        }
    }

    /// A manifest in the outbox means that everything it tells of is there, before anything is
    /// started again.
    fn delivered_is_whole(&self, rig: &Rig) {
        let delivered = files(&rig.spool().join("outbox"));
        for manifest in delivered.iter().filter(|name| name.ends_with(".manifest.json")) {
            let stem = manifest.strip_suffix(".manifest.json").expect("it ends so");
            for ending in ["results.jsonl", "errors.jsonl"] {
                let name = format!("outbox/{stem}.{ending}");
                let whole = fs::read(self.rig.spool().join(&name)).ok();
                let found = fs::read(rig.spool().join(&name)).ok();
                assert!(found == whole, "{name} is not whole, but its manifest is there");
            }
        }
    }
}

/// Faults 7, 10 and 11: see docs/faults.md.
#[test]
fn a_power_cut_at_any_moment_changes_nothing_about_what_comes_out() {
    if campaign::can_not_record() {
        return;
    }
    let count = campaign::asked() / 5;
    let recording = Recording::make();
    let campaign = Campaign::draw(count, &recording.cuts, &[]);
    campaign.run(&recording.start, &recording.steps, THREADS, |image, disk| {
        recording.check(image, disk);
    });
    println!(
        "campaign: power-loss images of the daemon {count}, lost 0, doubled 0, double creates 0, \
         calls {}, seed {}",
        recording.cuts.len(),
        campaign.seed
    );
}

/// Fault 26: the store is gone after a kill at any moment.
#[test]
fn a_store_that_is_gone_at_any_moment_is_rebuilt_and_nothing_is_paid_twice() {
    if campaign::can_not_record() {
        return;
    }
    let count = campaign::asked() / 20;
    let recording = Recording::make();
    let mut campaign = Campaign::draw(count, &recording.cuts, &[]);
    campaign.images.iter_mut().for_each(|image| image.model = Model::All);
    campaign.run(&recording.start, &recording.steps, THREADS, |image, disk| {
        let rig = recording.left(image, disk);
        let store = rig.spool().join("state/jobs.sled");
        if store.is_dir() {
            fs::remove_dir_all(&store).expect("removed");
        }
        rig.once("");
        drop_again(&rig);
        recording.ends_the_same(&rig);
    });
    println!(
        "campaign: lost stores {count}, lost 0, doubled 0, double creates 0, seed {}",
        campaign.seed
    );
}

/// Does what the log asks for: inputs that were claimed, but whose job was in the lost store only,
/// go back into the inbox. Nothing was sent of them.
fn drop_again(rig: &Rig) {
    for path in files(&rig.spool().join("working")) {
        let Some((job, name)) = path.split_once("/input/") else { continue };
        let folder = rig.spool().join("working").join(job);
        assert!(!folder.join("record.json").exists(), "{path} has a job that goes on");
        let told = format!("{job} why=\"it has no record.json\"");
        assert!(rig.log().contains(&told), "{path} is not told of\n{}", rig.log());
        let dropped = FILES.iter().find(|file| file.ends_with(name)).expect("one of ours");
        fs::rename(folder.join("input").join(name), rig.spool().join("inbox").join(dropped))
            .expect("moved back");
        fs::remove_dir_all(folder).expect("removed");
    }
}

fn rig<E>(emulator: E) -> Rig
where
    E: Future<Output = Result<emulator::Emulator, emulator::EmulatorError>>,
{
    let emulator = RUNTIME.block_on(emulator).expect("the emulator starts");
    Rig::around(emulator, campaign::scratch(), &SETTINGS)
}

/// Rows in all batches that were made. No stamp may have made two of them.
fn rows_paid(rig: &Rig) -> u64 {
    let created = rig.created();
    let stamps: BTreeSet<&str> = created.iter().map(|(stamp, _)| stamp.as_str()).collect();
    assert_eq!(stamps.len(), created.len(), "a batch was made twice: {created:?}");
    created.iter().map(|(_, rows)| rows).sum()
}

/// The files below a folder, by their paths from there.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.expect("listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).expect("below").display().to_string());
            }
        }
    }
    found
}

/// What is dropped; the last one is no file of requests.
const FILES: [&str; 4] = ["a.jsonl", "files/b.jsonl", "files/deep/c.jsonl", "bad.jsonl"];

/// Daemons wait more than they work.
const THREADS: usize = 4;

const SETTINGS: [&str; 4] = [
    "queue.default.transport = \"inline\"",
    "queue.default.lines_per_batch = 10",
    "queue.files.transport = \"file\"",
    "queue.files.lines_per_batch = 10",
];
