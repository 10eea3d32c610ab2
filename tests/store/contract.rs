//! What every store must do.

use std::collections::BTreeMap;

use gemini_batchd::engine::job::RemoteError;
use gemini_batchd::engine::{Change, ChunkNo, Job, JobId};
use gemini_batchd::store::memory::Fault;
use gemini_batchd::store::{JobStore, StoreError};

use crate::dice::{Dice, id};
use crate::{InMemory, Keeper, OnDisk, Sled};

/// What a store should hold.
#[derive(Clone, Default)]
pub struct Model {
    pub jobs: BTreeMap<JobId, Job>,
    pub notes: BTreeMap<String, String>,
}

impl Model {
    /// Draws changes that make sense one after the other, and follows them.
    pub fn draw(&mut self, dice: &mut Dice, count: u64) -> Vec<Change> {
        (0..count).map(|_| self.draw_one(dice)).collect()
    }

    fn draw_one(&mut self, dice: &mut Dice) -> Change {
        let id = dice.job_id(12);
        let Some(job) = self.jobs.get_mut(&id) else {
            let head = dice.head(id);
            self.jobs.insert(id, Job { head: head.clone(), chunks: BTreeMap::new() });
            return Change::Head(Box::new(head));
        };
        match dice.below(10) {
            0 => {
                self.jobs.remove(&id);
                Change::Forget(id)
            }
            1 => {
                job.chunks.clear();
                Change::Shed(id)
            }
            2..=3 => {
                job.head = dice.head(id);
                Change::Head(Box::new(job.head.clone()))
            }
            _ => {
                let chunk_no = ChunkNo(1 + dice.below(12) as u32);
                let chunk = dice.chunk(chunk_no);
                job.chunks.insert(chunk.no, chunk.clone());
                Change::Chunk(id, Box::new(chunk))
            }
        }
    }

    /// Fails unless the store holds just this.
    pub fn check(&self, store: &dyn JobStore, context: &str) {
        let loaded = store.load().expect("all records can be read");
        let expected: Vec<Job> = self.jobs.values().cloned().collect();
        assert_eq!(loaded, expected, "{context}");
        assert_eq!(store.notes().expect("all notes can be read"), self.notes, "{context}");
    }
}

/// Runs a check against every store there is.
fn with_every_store(check: impl Fn(&mut dyn Keeper)) {
    let place = std::env::temp_dir();
    check(&mut InMemory::default());
    check(&mut OnDisk::<Sled>::below(&place));
    #[cfg(feature = "redb")]
    check(&mut OnDisk::<crate::Redb>::below(&place));
}

#[test]
fn forgetting_a_job_leaves_its_neighbours_alone() {
    with_every_store(|keeper| {
        let mut dice = Dice(7);
        let mut changes = Vec::new();
        for number in 1..=3 {
            changes.push(Change::Head(Box::new(dice.head(id(number)))));
            changes.extend(
                (1..=20).map(|no| Change::Chunk(id(number), Box::new(dice.chunk(ChunkNo(no))))),
            );
        }
        keeper.store().save(&changes).expect("saved");
        keeper.store().save(&[Change::Forget(id(2))]).expect("saved");
        keeper.restart();
        let loaded = keeper.store().load().expect("read");
        assert_eq!(loaded.iter().map(|job| job.head.id).collect::<Vec<_>>(), [id(1), id(3)]);
        assert!(loaded.iter().all(|job| job.chunks.len() == 20));
    });
}

#[test]
fn a_job_that_sheds_its_chunks_keeps_its_own_record() {
    with_every_store(|keeper| {
        let mut dice = Dice(9);
        let heads: Vec<_> = (1..=2).map(|number| dice.head(id(number))).collect();
        let mut changes = Vec::new();
        for head in &heads {
            changes.push(Change::Head(Box::new(head.clone())));
            changes.extend(
                (1..=5).map(|no| Change::Chunk(head.id, Box::new(dice.chunk(ChunkNo(no))))),
            );
        }
        keeper.store().save(&changes).expect("saved");
        keeper.store().save(&[Change::Shed(id(1))]).expect("saved");
        keeper.restart();
        let loaded = keeper.store().load().expect("read");
        assert_eq!(loaded[0], Job { head: heads[0].clone(), chunks: BTreeMap::new() });
        assert_eq!((&loaded[1].head, loaded[1].chunks.len()), (&heads[1], 5));
    });
}

#[test]
fn a_job_forgotten_and_made_again_in_one_save_has_only_its_new_chunks() {
    with_every_store(|keeper| {
        let mut dice = Dice(8);
        let (head, old, new) = (dice.head(id(1)), dice.chunk(ChunkNo(1)), dice.chunk(ChunkNo(2)));
        let first = [Change::Head(Box::new(head.clone())), Change::Chunk(id(1), Box::new(old))];
        keeper.store().save(&first).expect("saved");
        let again = [
            Change::Forget(id(1)),
            Change::Head(Box::new(head.clone())),
            Change::Chunk(id(1), Box::new(new.clone())),
        ];
        keeper.store().save(&again).expect("saved");
        keeper.restart();
        let chunks = BTreeMap::from([(ChunkNo(2), new)]);
        assert_eq!(keeper.store().load().expect("read"), [Job { head, chunks }]);
    });
}

/// Fault 28.
#[test]
fn a_chunk_without_its_job_is_an_error_that_names_the_key() {
    with_every_store(|keeper| {
        let chunk = Dice(9).chunk(ChunkNo(4));
        keeper.store().save(&[Change::Chunk(id(5), Box::new(chunk))]).expect("saved");
        match keeper.store().load() {
            Err(StoreError::Unreadable { key, .. }) => {
                assert_eq!(key, format!("job/{}/c0000000004", id(5)));
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_record_beyond_the_limit_changes_nothing_and_does_no_harm() {
    with_every_store(|keeper| {
        let mut dice = Dice(10);
        let head = Change::Head(Box::new(dice.head(id(1))));
        let mut chunk = dice.chunk(ChunkNo(1));
        chunk.last_error = Some(RemoteError { code: 3, message: "x".repeat(64 * 1024) });
        let refused =
            keeper.store().save(&[head.clone(), Change::Chunk(id(1), Box::new(chunk.clone()))]);
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
        assert_eq!(keeper.store().load().expect("read"), []);
        chunk.last_error = Some(RemoteError { code: 3, message: "x".repeat(60 * 1024) });
        keeper.store().save(&[head, Change::Chunk(id(1), Box::new(chunk.clone()))]).expect("saved");
        keeper.restart();
        assert_eq!(keeper.store().load().expect("read")[0].chunks[&ChunkNo(1)], chunk);
    });
}

#[test]
fn a_save_that_fails_before_it_is_durable_is_gone_after_a_crash() {
    for (fault, survivors) in [(Fault::BeforeDurable, 1), (Fault::AfterDurable, 2)] {
        let mut memory = InMemory::default();
        let mut dice = Dice(11);
        memory.0.save(&[Change::Head(Box::new(dice.head(id(1))))]).expect("saved");
        memory.0.fail_next(fault);
        let failed = memory.0.save(&[Change::Head(Box::new(dice.head(id(2))))]);
        assert!(matches!(failed, Err(StoreError::Broken { .. })), "{failed:?}");
        let after = memory.0.save(&[Change::Head(Box::new(dice.head(id(3))))]);
        assert!(matches!(after, Err(StoreError::Broken { .. })), "{after:?}");
        memory.restart();
        assert_eq!(memory.0.load().expect("read").len(), survivors, "{fault:?}");
    }
}
