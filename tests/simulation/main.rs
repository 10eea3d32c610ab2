//! The engine in a world of its own: one thread, one seed, virtual time.
//!
//! The real engine, the real record forms in a store that can crash, and the emulator's pure
//! server. The world loses and delays, refuses and limits, lags, expires, fills the disk, sets the
//! clock and kills the process anywhere, also inside an effect; people cancel, hold, pause, release,
//! try again, forget, and drop the same again. After some days the faults stop, and everything must come to its end.
//!
//! A failure prints its seed; `SEED=n` replays that one. `GEMINI_BATCHD_DAYS=n` lives so many days, with both of
//! them from that seed on.

mod api;
mod cache;
mod disk;
mod fairness;
mod faults;
mod files;
mod fixtures;
mod money;
mod network;
mod operators;
mod process;
mod random;
mod rescuing;
mod rules;
mod scenarios;
mod shell;
mod steering;
mod tampering;
mod uploading;
mod windows;
mod world;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use faults::{DAY_MS, Tamper};
use world::World;

/// Days lived in a plain `cargo test`.
const DAYS: u64 = 1_000;
/// Lines of a transcript that a failure shows.
const LINES_TOLD: usize = 300;

/// Faults 3, 54, 75, 76 and 79.
#[test]
fn nothing_is_lost_doubled_or_paid_twice_whatever_fails() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, days) = (number("SEED"), number("GEMINI_BATCHD_DAYS"));
    if let (Some(seed), None) = (seed, days) {
        return drop(live(seed));
    }
    let (first, days) = (seed.unwrap_or(0), days.unwrap_or(DAYS));
    let (next, lived_ms, batches) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let (asked, rescues, calm) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (wanted, kept) = (AtomicU64::new(0), AtomicU64::new(0));
    // Every world is a thread's own; only the counts are shared.
    let live_some = || {
        while lived_ms.load(Relaxed) < days * DAY_MS {
            let world = live(next.fetch_add(1, Relaxed));
            lived_ms.fetch_add(world.now.since(world.begun_at), Relaxed);
            batches.fetch_add(world.api.batches.len() as u64, Relaxed);
            asked.fetch_add(world.asked.len() as u64, Relaxed);
            rescues.fetch_add(world.rescues.len() as u64, Relaxed);
            let in_time = world.rescues.values().filter(|is_calm| **is_calm).count();
            calm.fetch_add(in_time as u64, Relaxed);
            wanted.fetch_add(world.wanted.len() as u64, Relaxed);
            kept.fetch_add(world.wanted.values().filter(|kept| **kept).count() as u64, Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        let lives: Vec<_> = (0..threads).map(|_| scope.spawn(live_some)).collect();
        lives.into_iter().for_each(|life| life.join().expect("no promise was broken"));
    });
    let (days, seeds) = (lived_ms.into_inner() / DAY_MS, next.into_inner());
    println!(
        "campaign: simulated days {days}, batches {}, rescues {} of {} rows, {} without a fault in their way and all of these in time, deadlines {} of which {} kept whatever failed, \
         lost 0, doubled 0, paid twice 0, seeds {first} to {}",
        batches.into_inner(),
        rescues.into_inner(),
        asked.into_inner(),
        calm.into_inner(),
        wanted.into_inner(),
        kept.into_inner(),
        seeds - 1
    );
}

/// A world from its first day to its last.
fn live(seed: u64) -> World {
    let mut world = World::new(seed, Tamper::None);
    if let Err(problem) = world.run() {
        let last = world.transcript.len().saturating_sub(LINES_TOLD);
        panic!("{}\nseed {seed}: {problem}", world.transcript[last..].join("\n"));
    }
    world
}

#[test]
fn the_same_seed_gives_the_same_transcript() {
    for seed in 0..5 {
        let (mut first, mut second) =
            (World::new(seed, Tamper::None), World::new(seed, Tamper::None));
        assert_eq!(first.run(), second.run());
        assert!(first.transcript.len() > 20, "the world does something");
        assert_eq!(first.transcript, second.transcript);
    }
}
