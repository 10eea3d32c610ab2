//! A store that can crash, for tests and simulations.
//!
//! It keeps what a process would see and what the disk would hold apart, in the very records that
//! the real store writes. [`MemoryStore::crash`] forgets all that was not durable, as a restart
//! would; a save can be made to fail on either side of that line.

use std::collections::BTreeMap;

use super::layout::{self, Writes};
use super::{JobStore, StoreError};
use crate::engine::{Change, Job};

/// Keeps jobs until it is dropped.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    /// What the process sees.
    volatile: BTreeMap<String, Vec<u8>>,
    /// What a restart would find.
    durable: BTreeMap<String, Vec<u8>>,
    /// How the next save ends.
    next: Option<Fault>,
    /// A save has failed; only a restart helps.
    broken: bool,
}

/// How a save fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Before anything of it is durable.
    BeforeDurable,
    /// When all of it is durable, but nobody is told so.
    AfterDurable,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Makes the next save fail.
    pub fn fail_next(&mut self, fault: Fault) {
        self.next = Some(fault);
    }

    /// Ends the process and starts it again: only what was durable is left.
    pub fn crash(&mut self) {
        self.volatile = self.durable.clone();
        self.next = None;
        self.broken = false;
    }

    fn commit(&mut self, writes: Writes) -> Result<(), StoreError> {
        apply(&mut self.volatile, &writes);
        match self.next.take() {
            None => apply(&mut self.durable, &writes),
            Some(fault) => {
                if fault == Fault::AfterDurable {
                    apply(&mut self.durable, &writes);
                }
                self.broken = true;
            }
        }
        self.usable()
    }

    fn usable(&self) -> Result<(), StoreError> {
        if self.broken {
            let reason = String::from("a save was made to fail");
            return Err(StoreError::Broken { action: "save", reason });
        }
        Ok(())
    }

    fn starting_with(&self, prefix: &str) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        let range = self.volatile.range(prefix.to_owned()..);
        range.take_while(move |(key, _)| key.starts_with(prefix))
    }
}

impl JobStore for MemoryStore {
    fn each_job(&self, take: &mut dyn FnMut(Job)) -> Result<(), StoreError> {
        self.usable()?;
        let records = self.starting_with(layout::JOBS);
        layout::assemble(records.map(|(key, value)| Ok((key.clone(), value))), take)
    }

    fn save(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.usable()?;
        let stored = |prefix: &str| {
            Ok(self.starting_with(prefix).map(|(key, _)| key.clone()).collect::<Vec<_>>())
        };
        let writes = layout::stage(changes, stored)?;
        self.commit(writes)
    }

    fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.notes()?.remove(name))
    }

    fn notes(&self) -> Result<BTreeMap<String, String>, StoreError> {
        self.usable()?;
        let records = self.starting_with(layout::NOTES);
        layout::read_notes(records.map(|(key, value)| Ok((key.clone(), value))))
    }

    fn set_note(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        self.usable()?;
        self.commit(layout::stage_note(name, value)?)
    }
}

fn apply(records: &mut BTreeMap<String, Vec<u8>>, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => {
                records.insert(key.clone(), value.clone());
            }
            None => {
                records.remove(key);
            }
        }
    }
}
