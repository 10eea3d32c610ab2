//! `kill -9` at moments that nobody chose. `SEED=… cargo test kill_9_at_random` repeats a run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gemini_batchd::provider::gemini::emulator::faults::Slow;
use gemini_batchd::provider::gemini::emulator::{Budget, Faults};

use super::in_parallel::in_parallel;
use super::rig::{Daemon, End, Rig, requests};
use super::spool::Contents;
use super::states::rows_paid;

/// Faults 1 and 17.
#[test]
fn kill_9_at_random_moments_100_rounds() {
    let seed = match std::env::var("SEED") {
        Ok(text) => text.parse().expect("SEED is a number"),
        Err(_) => u64::from(std::process::id()),
    };
    println!("SEED={seed}");
    let undisturbed = loaded();
    undisturbed.drain();
    let (expected, rows) = (Contents::of(&undisturbed), rows_paid(&undisturbed, "undisturbed"));
    assert_eq!(expected.below("outbox/").len(), 10, "{:?}", expected.below("outbox/"));

    let kills = AtomicU64::new(0);
    let spools = (0_u64..).take_while(|_| kills.load(Ordering::Relaxed) < ROUNDS);
    in_parallel(spools, |spool| {
        let what = format!("SEED={seed}, spool {spool}");
        let mut dice = Dice(seed ^ (spool << 32));
        let rig = loaded();
        loop {
            let verb = if dice.below(4) == 0 { "run" } else { "once" };
            let daemon = Daemon::start(&mut rig.command(&[verb]));
            std::thread::sleep(Duration::from_millis(dice.below(LONGEST_LIFE_MS)));
            match daemon.kill() {
                End::KILLED => kills.fetch_add(1, Ordering::Relaxed),
                // Done; the code is that of the jobs that were left for this daemon.
                End::Exited(0 | 3 | 4) => break,
                other => panic!("{what}: {other:?}\n{}", rig.log()),
            };
            if rig.created().len() >= BATCHES && dice.below(6) == 0 {
                rig.drain();
                break;
            }
        }
        assert_eq!(rows_paid(&rig, &what), rows, "{what}: rows paid");
        Contents::of(&rig).assert_same(&expected, &what);
    });
    println!("{} kills, nothing lost, nothing doubled", kills.load(Ordering::Relaxed));
}

/// Three files on two roads, and an API that takes its time.
fn loaded() -> Rig {
    let slow = Slow { ms: 10, call: None, times: Budget::Always };
    let faults = Faults { slow: Some(slow), ..Faults::default() };
    let rig = Rig::new(faults, &SETTINGS);
    rig.drop_file("a.jsonl", requests(30));
    rig.drop_file("files/b.jsonl", requests(40));
    rig.drop_file("files/c.jsonl", requests(5));
    rig
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

const ROUNDS: u64 = 100;
/// So many batches are made for the three files.
const BATCHES: usize = 8;
/// Most daemons do not live long enough to finish.
const LONGEST_LIFE_MS: u64 = 700;
const SETTINGS: [&str; 4] = [
    "queue.default.transport = \"inline\"",
    "queue.default.lines_per_batch = 10",
    "queue.files.transport = \"file\"",
    "queue.files.lines_per_batch = 10",
];
