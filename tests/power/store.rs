//! The store alone: every save that was acknowledged is there after any power cut.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use gemini_batchd::engine::job::RemoteError;
use gemini_batchd::engine::{Change, ChunkNo, JobId};
use gemini_batchd::store::{JobStore, MemoryStore, NOTE_QUARANTINED, SledStore};

use crate::campaign::{self, Campaign, Image};
use crate::dice::{Dice, id};
use crate::disk::Disk;
use crate::models::Model;
use crate::trace::{Call, Step, traced};

/// Set for the process that saves: `FOLDER FIRST LAST END`.
const SESSION: &str = "GEMINI_BATCHD_TEST_SESSION";

/// Not a test of its own: the process that is recorded. Does nothing unless it is told what.
#[test]
fn saving() {
    let Ok(session) = std::env::var(SESSION) else { return };
    let words: Vec<&str> = session.split(' ').collect();
    let [folder, first, last, end] = words[..] else { panic!("{session}") };
    let number = |word: &str| -> u64 { word.parse().expect("a number") };
    let mut store = open_whole(Path::new(folder)).expect("whole");
    say(&format!("ack saved {}", number(first) - 1));
    for count in number(first)..number(last) {
        store.save(&changes(count)).expect("saved");
        say(&format!("ack saved {count}"));
    }
    if end == "killed" {
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL).expect("killed");
    }
}

/// In one write, so that it is one call.
fn say(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).expect("the recorder listens");
}

/// The changes of one save. They name its number, and everything else is drawn from that.
fn changes(count: u64) -> Vec<Change> {
    let mut dice = Dice(count.wrapping_mul(0x1_0001));
    let job = id(1 + dice.below(JOBS));
    let mut counter = dice.head_in(id(0), 0);
    counter.queue.priority = count as i64;
    let mut changes = vec![Change::Head(Box::new(counter))];
    if dice.below(12) == 0 {
        changes.push(Change::Forget(job));
        return changes;
    }
    changes.push(Change::Head(Box::new(dice.head(job))));
    for _ in 0..dice.below(3) {
        let no = ChunkNo(1 + dice.below(5) as u32);
        let mut chunk = dice.chunk(no);
        // Some records are large; of the largest sled makes files of their own.
        let most = if dice.below(40) == 0 { 50_000 } else { 2_000 };
        let message = "x".repeat(dice.below(most) as usize);
        chunk.last_error = Some(RemoteError { code: 3, message });
        changes.push(Change::Chunk(job, Box::new(chunk)));
    }
    changes
}

/// The number of the last save that a store holds.
fn last_count(store: &dyn JobStore) -> u64 {
    let jobs = store.load().expect("all records can be read");
    let counter: JobId = id(0);
    jobs.iter().find(|job| job.head.id == counter).map_or(0, |job| job.head.queue.priority as u64)
}

fn open_whole(state: &Path) -> Result<SledStore, String> {
    let opened = SledStore::open(state, 1).map_err(|error| error.to_string())?;
    match opened.quarantined {
        None => Ok(opened.store),
        Some(quarantine) => Err(format!("quarantined: {}", quarantine.reason)),
    }
}

/// A store that was made, filled, killed and opened again a few times.
struct Recording {
    start: Disk,
    steps: Vec<Step>,
    /// After these steps the disk is another one.
    cuts: Vec<usize>,
    /// Those of them while the store is being opened.
    opening: Vec<usize>,
}

impl Recording {
    fn make(saves: u64) -> Recording {
        let state = campaign::scratch();
        let start = Disk::of(state.path());
        let mut steps = Vec::new();
        let fifth = saves / 5;
        let mut next = 1;
        for (count, end) in [
            (fifth, "killed"),
            (fifth, "closed"),
            (0, "killed"),
            (2 * fifth, "killed"),
            (0, "closed"),
            (fifth, "closed"),
        ] {
            steps.extend(session(state.path(), next, next + count, end));
            steps.push(Step { at_us: 0, call: Call::Ended });
            next += count;
        }
        let (end, cuts) = campaign::changes(&start, &steps);
        campaign::assert_followed(&end, state.path());
        let mut is_opening = true;
        let mut opening = Vec::new();
        let mut waiting = cuts.iter().copied().peekable();
        for (number, step) in steps.iter().enumerate() {
            match &step.call {
                Call::Said(_) => is_opening = false,
                Call::Ended => is_opening = true,
                _ => {}
            }
            if waiting.next_if_eq(&number).is_some() && is_opening {
                opening.push(number);
            }
        }
        Recording { start, steps, cuts, opening }
    }
}

/// One life of the process.
fn session(state: &Path, first: u64, last: u64, end: &str) -> Vec<Step> {
    let words = campaign::scratch();
    let path = words.path().join("words");
    let mut saving = Command::new(std::env::current_exe().expect("this test's own file"));
    saving.args(["--exact", "store::saving", "--nocapture"]);
    let session = format!("{} {first} {last} {end}", state.display());
    let output = traced(&saving, &path).env(SESSION, session).output().expect("started");
    let died = output.status.code().is_none();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(died, end == "killed", "{:?}\n{said}", output.status);
    assert!(died || output.status.success(), "{said}");
    campaign::recorded(&path)
}

/// Faults 8, 10, 11 and 20.
#[test]
fn every_acknowledged_save_survives_a_power_cut() {
    if campaign::can_not_record() {
        return;
    }
    let count = campaign::asked() * 4 / 5;
    let saves = if count > 1000 { 5000 } else { 500 };
    let recording = Recording::make(saves);
    let campaign = Campaign::draw(count, &recording.cuts, &recording.opening);
    let last = AtomicU64::new(0);
    let expected = Expected::of(saves);
    campaign.run(&recording.start, &recording.steps, 2, |image, disk| {
        last.fetch_max(check(image, disk, &expected), Ordering::Relaxed);
    });
    println!(
        "campaign: power-loss images of the store {count}, lost 0, quarantined 0, saves at most {}, \
         calls {}, seed {}",
        last.into_inner(),
        recording.cuts.len(),
        campaign.seed
    );
}

/// Opens what is left; answers with the number of the last save in it.
fn check(image: &Image, disk: &Disk, expected: &Expected) -> u64 {
    let acknowledged = acknowledged(disk);
    let folder = campaign::scratch();
    image.model.leave(disk, &mut Dice(image.seed), folder.path());
    let opened = SledStore::open(folder.path(), 1).expect("opens");
    // As long as it never was open, it may begin anew.
    let (mut store, was_open) = (opened.store, disk.first_said.is_some());
    assert!(opened.quarantined.is_none() || !was_open, "{:?}", opened.quarantined);
    store.set_note(NOTE_QUARANTINED, "").expect("there is nothing to make good for");
    let last = last_count(&store);
    // What was being saved may be there without an acknowledgement, as a whole.
    assert!(
        last == acknowledged || last == acknowledged + 1,
        "{acknowledged} acknowledged, {last} found"
    );
    let expected = expected.after(last).load().expect("read");
    assert!(store.load().expect("read") == expected, "other records after save {last}");
    // To go on from there takes as long again.
    if (image.number / 4).is_multiple_of(4) {
        store.save(&changes(last + 1)).expect("it goes on");
        drop(store);
        let store = open_whole(folder.path()).expect("whole again");
        assert_eq!(last_count(&store), last + 1, "what was saved on what was left is lost");
    }
    last
}

/// Fault 10. Were the one sync left out that sled does not make, the images would show it.
#[test]
fn a_store_that_is_not_synced_is_seen_to_lose_saves() {
    if campaign::can_not_record() {
        return;
    }
    let recording = Recording::make(25);
    let steps = campaign::without_syncs_of(&recording.steps, "/db");
    let (disk, _) = campaign::changes(&recording.start, &steps);
    let image = Image { number: 1, seed: 1, cut: steps.len() - 1, model: Model::Strict };
    let checked = std::panic::catch_unwind(|| check(&image, &disk, &Expected::of(25)));
    assert!(checked.is_err(), "nothing was lost");
}

/// Fault 26. A store that lost saves it had acknowledged is set aside, whatever else is right about it:
/// here it is an older one, whole and in order, beside the count of a newer one.
#[test]
fn a_store_that_lost_acknowledged_saves_is_set_aside() {
    if campaign::can_not_record() {
        return;
    }
    let recording = Recording::make(100);
    let mut disk = recording.start.clone();
    let mut older: Option<(u64, tempfile::TempDir)> = None;
    let mut noticed = 0;
    for (number, step) in recording.steps.iter().enumerate() {
        disk.follow(&step.call);
        if number % (recording.steps.len() / 20) != 0 {
            continue;
        }
        let (acknowledged, left) = (acknowledged(&disk), campaign::scratch());
        Model::All.leave(&disk, &mut Dice(0), left.path());
        if let Some((before, older)) = older.replace((acknowledged, campaign::scratch()))
            && before + 1 < acknowledged
        {
            let count = std::fs::read(left.path().join("jobs.sled.saves")).expect("there");
            std::fs::write(older.path().join("jobs.sled.saves"), count).expect("written");
            let opened = SledStore::open(older.path(), 1).expect("opens");
            let reason = opened.quarantined.expect("it is noticed").reason;
            assert!(reason.contains("saves") || reason.contains("its own record"), "{reason}");
            noticed += 1;
        }
        if let Some((_, folder)) = &older {
            Model::All.leave(&disk, &mut Dice(0), folder.path());
        }
    }
    assert!(noticed > 5, "{noticed}");
}

/// What the store holds after any number of saves.
struct Expected {
    /// After every fiftieth.
    stages: Vec<MemoryStore>,
}

impl Expected {
    fn of(saves: u64) -> Expected {
        let mut store = MemoryStore::new();
        let mut stages = vec![store.clone()];
        for count in 1..=saves {
            store.save(&changes(count)).expect("saved");
            if count % STAGE == 0 {
                stages.push(store.clone());
            }
        }
        Expected { stages }
    }

    fn after(&self, saves: u64) -> MemoryStore {
        let mut store = self.stages[(saves / STAGE) as usize].clone();
        let rest = saves / STAGE * STAGE + 1..=saves;
        rest.for_each(|count| store.save(&changes(count)).expect("saved"));
        store
    }
}

fn acknowledged(disk: &Disk) -> u64 {
    let said = disk.last_said.as_deref().and_then(|said| said.strip_prefix("ack saved "));
    said.map_or(0, |count| count.parse().expect("a number"))
}

/// Jobs that saves go over.
const JOBS: u64 = 120;

/// Saves between two stages.
const STAGE: u64 = 50;
