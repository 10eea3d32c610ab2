//! Every store against the model: operations drawn from a seed, with restarts in between.
//!
//! The stores on disk do most of their operations in memory-backed files, where a sync costs
//! nothing, and some of them where temporary files usually lie.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::contract::Model;
use crate::dice::Dice;
use crate::{InMemory, Keeper, OnDisk, Sled};

/// One run: a fresh store, a seed, and so many operations.
struct Run {
    store: &'static str,
    make: fn(&Path) -> Box<dyn Keeper>,
    place: PathBuf,
    seed: u64,
    operations: u64,
}

/// Operations of one run, so that `SEED` replays it whatever was asked for.
const RUN: u64 = 2_500;

/// No more than this goes to a disk with slow syncs.
const ON_DISK_MAX: u64 = 100_000;

#[test]
fn every_store_equals_the_model_after_any_operations() {
    let asked = crate::asked("GEMINI_BATCHD_STORE_OPS", 100_000);
    let runs = runs(asked);
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut keeper = (run.make)(&run.place);
            random_operations(&mut *keeper, run);
        }
    };
    thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let mut text = String::from("campaign: store operations");
    for store in ["memory", "sled", "redb"] {
        let done = || runs.iter().filter(|run| run.store == store);
        let count: u64 = done().map(|run| run.operations).sum();
        text += &format!(" {store} {count},");
    }
    let seeds = || runs.iter().map(|run| run.seed);
    let (first, last) = (seeds().min().unwrap_or(0), seeds().max().unwrap_or(0));
    // Not by `println!`, which is kept back when a test passes.
    writeln!(std::io::stdout(), "{text} lost 0, seeds {first} to {last}").expect("written");
}

/// What the operations asked for are shared out to.
fn runs(asked: u64) -> Vec<Run> {
    let (shm, disk) = (PathBuf::from("/dev/shm"), std::env::temp_dir());
    let quick = if shm.is_dir() { shm } else { disk.clone() };
    let on_disk = (asked / 20).min(ON_DISK_MAX);
    let mut runs = Vec::new();
    let mut share = |store, make, place: &Path, operations: u64| {
        for seed in 0..operations.div_ceil(RUN) {
            let place = place.to_owned();
            runs.push(Run { store, make, place, seed, operations: RUN });
        }
    };
    share("memory", |_| Box::new(InMemory::default()), &disk, asked / 2);
    share("sled", |place| Box::new(OnDisk::<Sled>::below(place)), &disk, on_disk);
    share("sled", |place| Box::new(OnDisk::<Sled>::below(place)), &quick, asked / 2 - on_disk);
    #[cfg(feature = "redb")]
    {
        use crate::Redb;
        share("redb", |place| Box::new(OnDisk::<Redb>::below(place)), &disk, on_disk);
        share("redb", |place| Box::new(OnDisk::<Redb>::below(place)), &quick, asked / 2 - on_disk);
    }
    if let Ok(seed) = std::env::var("SEED") {
        let seed: u64 = seed.parse().expect("SEED is a number");
        runs.retain(|run| run.seed == seed);
    }
    runs
}

fn random_operations(keeper: &mut dyn Keeper, run: &Run) {
    let mut dice = Dice(run.seed);
    let mut model = Model::default();
    let mut done = 0;
    while done < run.operations {
        let context = format!("{}, seed {}, after {done} operations", run.store, run.seed);
        match dice.below(12) {
            0 => {
                keeper.restart();
                model.check(keeper.store(), &context);
            }
            1 => {
                let name = format!("note {}", dice.below(4));
                let value = "x".repeat(dice.below(3) as usize);
                keeper.store().set_note(&name, &value).expect("saved");
                let kept = keeper.store().note(&name).expect("read");
                assert_eq!(kept, (!value.is_empty()).then(|| value.clone()), "{context}");
                model.notes.remove(&name);
                if !value.is_empty() {
                    model.notes.insert(name, value);
                }
                done += 1;
            }
            _ => {
                let count = dice.below(24);
                let changes = model.draw(&mut dice, count);
                keeper.store().save(&changes).expect("saved");
                done += count;
            }
        }
    }
    let context = format!("{}, seed {}, at the end", run.store, run.seed);
    model.check(keeper.store(), &context);
    keeper.restart();
    model.check(keeper.store(), &format!("{context} and opened again"));
}
