//! The disk fills up at chosen moments and at random ones, and gets room again.
//!
//! `GEMINI_BATCHD_EPISODES=60 cargo test --test full_disk episodes` runs as many; `SEED=n` repeats
//! a run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{Rig, Service, requests};
use super::spool::Contents;

/// One time that the disk is full.
#[derive(Debug, Clone)]
struct Episode {
    moment: Moment,
    how: Full,
    /// The road that requests take.
    transport: &'static str,
    /// What kind of disk.
    mount: &'static str,
}

/// When the disk fills up.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Before the daemon is started.
    Start,
    /// Before the file is dropped.
    Intake,
    /// Right after a record was saved with this in it, and before anything is done about it: the
    /// failpoint, and the words in `record.json`.
    Saved(&'static str, &'static str),
    /// So many milliseconds after the file was dropped.
    After(u64),
}

/// How full it gets, and what the daemon is told about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// So many bytes stay free, and the daemon stops in time.
    Nearly(u64),
    /// Others take every byte that gets free, and the daemon stops in time if it can.
    Wholly,
    /// The same, and the daemon goes on to the last byte.
    Unwarned,
}

/// Faults 22 and 23.
#[test]
fn a_disk_that_fills_up_loses_nothing_and_work_goes_on_when_it_has_room() {
    let wanted: usize = asked("GEMINI_BATCHD_EPISODES").unwrap_or(6);
    let seed: u64 = asked("SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let mut dice = Dice(seed);
    let mut episodes = chosen();
    episodes.resize_with(wanted.max(episodes.len()), || Episode::drawn(&mut dice));
    let (count, skipped) = (episodes.len(), AtomicBool::new(false));
    let (exits, troubles) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let left = Mutex::new(episodes.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let next = || left.lock().expect("taking the next does not panic").next();
                while let Some(episode) = next() {
                    match episode.run(&format!("SEED={seed}, {episode:?}")) {
                        Some(met) => {
                            exits.fetch_add(met.exits, Ordering::Relaxed);
                            troubles.fetch_add(met.troubles, Ordering::Relaxed);
                        }
                        None => skipped.store(true, Ordering::Relaxed),
                    }
                }
            });
        }
    });
    if !skipped.into_inner() {
        let (exits, troubles) = (exits.into_inner(), troubles.into_inner());
        assert!(exits + troubles >= count / 2, "the disk was hardly ever full");
        println!(
            "campaign: full-disk episodes {count}, lost 0, doubled 0, ended for want of room \
             {exits}, put off {troubles}, seed {seed}"
        );
    }
}

/// One episode for each part of a job's life.
fn chosen() -> Vec<Episode> {
    let episode = |moment, how, transport, mount| Episode { moment, how, transport, mount };
    let collecting = Moment::Saved("saved:collecting", "\"collecting\":{");
    let merging = Moment::Saved("saved:merging", "\"merging\":{");
    let delivering = Moment::Saved("saved:delivering", "\"delivering\":{");
    let uploading = Moment::Saved("saved:uploading", "\"uploading\":{");
    vec![
        episode(Moment::Start, Full::Nearly(3 << 20), "file", TMPFS),
        episode(Moment::Intake, Full::Unwarned, "inline", TMPFS),
        episode(uploading, Full::Nearly(0), "file", TMPFS),
        episode(collecting, Full::Unwarned, "file", TMPFS),
        episode(merging, Full::Unwarned, "inline", TMPFS),
        episode(delivering, Full::Wholly, "inline", TMPFS),
    ]
}

/// What an episode met.
struct Met {
    /// Times that the daemon ended for want of room.
    exits: usize,
    /// Effects that were put off.
    troubles: usize,
}

impl Episode {
    fn drawn(dice: &mut Dice) -> Episode {
        let words = [
            ("saved:planning", "\"state\":\"planning\""),
            ("saved:active", "\"active\":{"),
            ("saved:uploading", "\"uploading\":{"),
            ("saved:creating", "\"creating\":{"),
            ("saved:polling", "\"polling\":{"),
            ("saved:collecting", "\"collecting\":{"),
            ("saved:merging", "\"merging\":{"),
            ("saved:delivering", "\"delivering\":{"),
            ("saved:cleaning", "\"cleaning\":{"),
        ];
        let moment = match dice.below(8) {
            0 => Moment::Start,
            1 => Moment::Intake,
            2..=4 => Moment::After(dice.below(1500)),
            _ => {
                let (point, words) = words[dice.below(words.len() as u64) as usize];
                Moment::Saved(point, words)
            }
        };
        let how = match dice.below(3) {
            0 => Full::Nearly(dice.below(5 << 20)),
            1 => Full::Wholly,
            _ => Full::Unwarned,
        };
        let inline = matches!(moment, Moment::Saved("saved:uploading", _)) || dice.below(2) == 0;
        let transport = if inline { "file" } else { "inline" };
        let mount = if dice.below(3) == 0 { EXT4 } else { TMPFS };
        Episode { moment, how, transport, mount }
    }

    fn settings(&self) -> Vec<String> {
        let limit = if self.how == Full::Unwarned { "1B" } else { "6MiB" };
        settings(self.transport)
            .into_iter()
            .chain([format!("limits.free_bytes = {limit:?}")])
            .collect()
    }

    /// `None` if there is no disk to be had.
    fn run(&self, what: &str) -> Option<Met> {
        let settings = self.settings();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let rig = match Rig::try_on(self.mount, Faults::default(), &settings) {
            Ok(rig) => rig,
            Err(why) => {
                eprintln!("{why}: a tmpfs will do");
                Rig::on(TMPFS, Faults::default(), &settings)?
            }
        };
        rig.bring(NAME, input());
        let mut service = self.lead_up(&rig);
        let enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            match self.how {
                Full::Nearly(leave) => rig.disk.fill(leave),
                Full::Wholly | Full::Unwarned => {
                    rig.disk.fill(0);
                    scope.spawn(|| rig.disk.flood(&enough));
                }
            }
            let mut service = match service.take() {
                Some(service) => service,
                None => rig.serve(""),
            };
            if matches!(self.moment, Moment::Intake | Moment::Start) {
                rig.drop_file(NAME);
            }
            self.wait_for_trouble(&rig, &mut service);
            enough.store(true, Ordering::Relaxed);
            rig.disk.fill(0);
            rig.disk.make_room();
            service.until("the file comes out", || rig.has_done(&[NAME]));
            let ends = service.stop();
            assert!(ends.iter().all(|code| *code == 14), "{what}: {ends:?}\n{}", rig.log());
            let expected = &UNDISTURBED.as_ref().expect("a disk can be had")[self.transport];
            assert_eq!(rig.rows_paid(), expected.1, "{what}: rows paid\n{}", rig.log());
            Contents::of(&rig).assert_same(&expected.0, what);
            Some(Met { exits: ends.len(), troubles: rig.logged(PUT_OFF) })
        })
    }

    /// Brings the daemon to the moment, if it is to run by then.
    fn lead_up<'a>(&self, rig: &'a Rig) -> Option<Service<'a>> {
        match self.moment {
            Moment::Start => None,
            Moment::Intake => {
                let mut service = rig.serve("");
                service.until("it is ready", || rig.logged(" ready ") > 0);
                Some(service)
            }
            Moment::Saved(point, words) => {
                rig.drop_file(NAME);
                let mut service = rig.serve(&format!("{point}=1*sleep(1500)"));
                service.until(point, || rig.record().contains(words));
                Some(service)
            }
            Moment::After(pause) => {
                rig.drop_file(NAME);
                let service = rig.serve("");
                std::thread::sleep(Duration::from_millis(pause));
                Some(service)
            }
        }
    }

    /// Waits until the full disk was felt, or it turns out that nothing needed it any more.
    fn wait_for_trouble(&self, rig: &Rig, service: &mut Service<'_>) {
        let felt = || rig.logged(PUT_OFF) + rig.logged(PAUSED);
        match self.how {
            Full::Nearly(_) => {
                let says = |health: serde_json::Value| {
                    health["paused"].as_str().is_some_and(|why| why.contains("limits.free_bytes"))
                };
                service.until_or_ended(2, "it says that it waits", || {
                    rig.health().is_some_and(says) || rig.has_done(&[NAME])
                });
            }
            Full::Wholly | Full::Unwarned => {
                // More than once, so that restarts find the disk full too.
                for _ in 0..3 {
                    let (ends, before, begun) = (service.ends.len(), felt(), Instant::now());
                    service.until_or_ended(ends + 1, "it meets the full disk", || {
                        felt() > before || rig.has_done(&[NAME]) || begun.elapsed() > LONG_ENOUGH
                    });
                }
            }
        }
    }
}

/// What comes out undisturbed, and the rows that are paid for it, by transport.
static UNDISTURBED: LazyLock<Option<BTreeMap<&str, (Contents, u64)>>> = LazyLock::new(|| {
    let mut all = BTreeMap::new();
    for transport in ["inline", "file"] {
        let settings = settings(transport);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let rig = Rig::on("mount -t tmpfs -o size=200m none PLACE", Faults::default(), &settings)?;
        rig.bring(NAME, input());
        rig.drop_file(NAME);
        assert_eq!(rig.drain(), 3, "{}", rig.log());
        let contents = Contents::of(&rig);
        assert_eq!(contents.below("outbox/a").len(), 3);
        all.insert(transport, (contents, rig.rows_paid()));
    }
    Some(all)
});

fn settings(transport: &str) -> Vec<String> {
    vec![
        format!("queue.default.transport = {transport:?}"),
        "queue.default.lines_per_batch = 8".to_owned(),
    ]
}

/// Large enough that every part of its way takes room.
fn input() -> String {
    requests(20, 100_000)
}

/// A number from the environment.
fn asked<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Random numbers that a seed repeats (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % limit
    }
}

/// A daemon that waits for the API needs no room for longer than this.
const LONG_ENOUGH: Duration = Duration::from_secs(2);
const NAME: &str = "a.jsonl";
/// A local failure in the log.
const PUT_OFF: &str = "did not work; it is tried again";
/// What the daemon says when it stops in time.
const PAUSED: &str = "too little room";
const TMPFS: &str = "mount -t tmpfs -o size=40m none PLACE";
/// The same size on a journaling disk, where names and room are given away later.
const EXT4: &str = "truncate -s 56M PLACE.image && mkfs.ext4 -q -m 0 PLACE.image && \
                    mount -o loop PLACE.image PLACE";
