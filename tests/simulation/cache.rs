//! Answers that are used again, and the API that says when batches end.
//!
//! The cache of the world is like the product's: nothing in it is safe. It loses what it has now and
//! then, and all of it when the process dies by a power cut.

use std::collections::BTreeMap;

use gemini_batchd::engine::event::Event;
use gemini_batchd::engine::ids::{Attempt, BatchName, ChunkNo, JobId};
use gemini_batchd::engine::job::Job;

use super::disk::Fate;
use super::faults::Tamper;
use super::files::{Dropped, Kind};
use super::world::{Step, World};

impl World {
    /// The rows of a file whose answers are known.
    pub fn reuse(&mut self, file: &Dropped, cache_ms: u64) -> BTreeMap<u64, Fate> {
        let mut known = BTreeMap::new();
        if cache_ms == 0 {
            return known;
        }
        for (row, kind) in (1..).zip(&file.kinds) {
            let found = match self.tamper {
                Tamper::ReuseAnything => self.kept.values().next(),
                _ => self.kept.get(&file.request(row)),
            };
            if let (Some(text), true) = (found, *kind != Kind::Invalid) {
                let from = BatchName(FROM_CACHE.to_owned());
                let fate = Fate::Answered(ChunkNo(0), Attempt(0), from, text.clone());
                known.insert(row, fate);
            }
        }
        self.reused += known.len() as u64;
        known
    }

    /// A job is delivered: its whole answers are kept, and some are lost.
    pub fn keep(&mut self, job: &Job) {
        if job.head.queue.cache_ms == 0 {
            return;
        }
        // A cache on a real disk loses what was not written back.
        if self.now.0.is_multiple_of(11) {
            self.kept.clear();
        }
        let id = job.head.id;
        let (file, outcomes) = (self.file_of(id).clone(), self.folder(id).outcomes.clone());
        for (row, fate) in outcomes {
            let Fate::Answered(_, _, from, text) = fate else { continue };
            if from.0 != FROM_CACHE && file.is_whole_answer(row, &text) {
                self.kept.insert(file.request(row), text);
            }
        }
    }

    /// Whether a row was answered from the cache, as its job has it.
    pub fn is_reused(&self, job: JobId, row: u64) -> bool {
        let folder = self.disk.working.get(&job);
        folder.is_some_and(|folder| folder.reused.contains(&row))
    }

    /// Now and then the API says that some batch has ended, be it so or not.
    pub fn notice_sometimes(&mut self) -> Step {
        if !(self.now.0 / 30_000).is_multiple_of(37) {
            return Ok(());
        }
        let newest = self.api.batches.keys().next_back().cloned();
        let named = newest.filter(|_| self.now.0.is_multiple_of(2)).map(BatchName);
        self.tell(Event::Noticed(named))
    }
}

/// What stands in place of a batch.
const FROM_CACHE: &str = "the cache";
