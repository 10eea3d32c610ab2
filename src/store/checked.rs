//! Jobs in a backend that is not believed: the one write path.
//!
//! With the records goes a sum over all of them ([`super::meta`]), and beside the folder a count of
//! saves ([`super::witness`]): a store that has lost anything it once acknowledged is seen to have
//! done so, whichever backend it lies in. Any error of a backend is final for the process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::backend::{Backend, Write, failed};
use super::layout::{self, Writes};
use super::lock::StateLock;
use super::meta::Meta;
use super::open;
use super::reserve::Reserve;
use super::witness::Witness;
use super::{JobStore, StoreError};
use crate::engine::{Change, Job};

/// A store on disk. It holds the lock of its state folder until it is dropped.
#[derive(Debug)]
pub struct CheckedStore<B> {
    pub(super) backend: B,
    pub(super) folder: PathBuf,
    pub(super) meta: Meta,
    pub(super) witness: Witness,
    /// Room to save in when the disk is full.
    pub(super) reserve: Reserve,
    /// Why the store can not be used any more.
    pub(super) broken: Option<String>,
    /// Last, so that it is released last.
    pub(super) _lock: StateLock,
}

/// A store that is open, and what had to be done for it.
#[derive(Debug)]
pub struct Opened<B> {
    /// The store.
    pub store: CheckedStore<B>,
    /// Set if the store that was there could not be used, at this start or at an earlier one
    /// whose loss was not made good yet. Rebuild the jobs from the mirrors in their working
    /// folders, then set the note [`super::NOTE_QUARANTINED`] to the empty value.
    pub quarantined: Option<Quarantine>,
}

/// A store that was moved aside whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Where it lies now.
    pub folder: PathBuf,
    /// What was wrong with it.
    pub reason: String,
}

impl<B: Backend> CheckedStore<B> {
    /// The store's folder within the state folder.
    pub const FOLDER: &'static str = B::FOLDER;

    /// A sensible `free_bytes_min` for [`CheckedStore::open`]: 2 MiB, more than any save takes.
    pub const FREE_BYTES_MIN: u64 = 2 * 1024 * 1024;

    /// Opens the store of a state folder, making both if they are not there. Neither opening nor
    /// saving begins with less than `free_bytes_min` bytes free on the disk; before that is refused,
    /// the room goes to it that the file `reserve` keeps.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NoSpace`], [`StoreError::Newer`],
    /// [`StoreError::OtherBackend`], or [`StoreError::Broken`] and [`StoreError::Io`] if the system
    /// does not let us. A damaged store is no error: it is moved aside, see [`Opened::quarantined`].
    pub fn open(state: &Path, free_bytes_min: u64) -> Result<Opened<B>, StoreError> {
        open::open(state, free_bytes_min, None).map(|(opened, _)| opened)
    }

    /// The same together with [`JobStore::each_job`], in one walk over the records: `take` puts each
    /// job into what is returned, unless the store turns out not to be what was saved.
    ///
    /// # Errors
    /// As for both.
    pub fn open_and_read<R: Default + Send>(
        state: &Path,
        free_bytes_min: u64,
        take: impl Fn(&mut R, Job) + Sync,
    ) -> Result<(Opened<B>, R), StoreError> {
        let mut jobs = R::default();
        let mut take_in = |job| take(&mut jobs, job);
        let (opened, read) = open::open::<B>(state, free_bytes_min, Some(&mut take_in))?;
        match read {
            Some(read) => read?,
            None => {
                jobs = R::default();
                opened.store.each_job(&mut |job| take(&mut jobs, job))?;
            }
        }
        Ok((opened, jobs))
    }

    fn usable(&self) -> Result<(), StoreError> {
        match &self.broken {
            None => Ok(()),
            Some(reason) => Err(StoreError::Broken { action: "go on", reason: reason.clone() }),
        }
    }

    /// The one write path. Nothing may be done in the world before it returns.
    pub(super) fn commit(&mut self, writes: &Writes) -> Result<(), StoreError> {
        self.usable()?;
        self.reserve.make_room()?;
        let result = self.write(writes);
        if let Err(error) = &result {
            let reason = if let StoreError::Broken { action, reason } = error {
                format!("{action} failed, {reason}")
            } else {
                error.to_string()
            };
            self.broken = Some(reason);
        }
        result
    }

    fn write(&mut self, writes: &Writes) -> Result<(), StoreError> {
        let mut meta = self.meta;
        let mut changed: Vec<Write<'_>> = Vec::with_capacity(writes.len() + 1);
        for (key, value) in writes {
            let (old, new) = (self.get(key)?, value.as_deref());
            let old = old.as_ref().map(AsRef::as_ref);
            if old == new {
                continue;
            }
            if let Some(old) = old {
                meta.sum.take_out(key.as_bytes(), old);
            }
            if let Some(new) = new {
                meta.sum.put_in(key.as_bytes(), new);
            }
            changed.push((key, new));
        }
        // The first save of all writes the meta record alone; a record that was saved as it is
        // was made durable then.
        if changed.is_empty() && self.meta.saves > 0 {
            return Ok(());
        }
        meta.saves = self.witness.after(meta.saves);
        let record = meta.write();
        changed.push((Meta::KEY, Some(&record)));
        self.backend.write(&changed)?;
        self.witness.write(meta.saves).map_err(|error| failed("count", &error))?;
        self.meta = meta;
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<B::Value>, StoreError> {
        self.backend.get(key).map_err(|trouble| trouble.during("read"))
    }

    fn starting_with(
        &self,
        prefix: &str,
    ) -> impl Iterator<Item = Result<(String, B::Value), StoreError>> {
        self.backend.starting_with(prefix).map(|entry| {
            let (key, value) = entry.map_err(|trouble| trouble.during("read"))?;
            Ok((layout::text_key(key)?, value))
        })
    }
}

impl<B: Backend> JobStore for CheckedStore<B> {
    fn each_job(&self, take: &mut dyn FnMut(Job)) -> Result<(), StoreError> {
        self.usable()?;
        layout::assemble(self.starting_with(layout::JOBS), take)
    }

    fn save(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let stored = |prefix: &str| -> Result<Vec<String>, StoreError> {
            self.starting_with(prefix).map(|entry| Ok(entry?.0)).collect()
        };
        let writes = layout::stage(changes, stored)?;
        self.commit(&writes)
    }

    fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.notes()?.remove(name))
    }

    fn notes(&self) -> Result<BTreeMap<String, String>, StoreError> {
        self.usable()?;
        layout::read_notes(self.starting_with(layout::NOTES))
    }

    fn set_note(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        self.commit(&layout::stage_note(name, value)?)
    }
}
