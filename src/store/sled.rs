//! Jobs in sled 0.34.7, under rules that make it keep what it acknowledged.
//!
//! sled's own flush survives `kill -9` but not a power cut, so each save ends with a sync of its
//! data file through a handle of ours, and every file and folder is synced once when the store is
//! opened. With the records goes a sum over all of them, and beside the folder a count of saves
//! ([`super::witness`]): a store that has lost anything it once acknowledged is seen to have done
//! so. Any error of sled is final for the process, because the thread that syncs the rest of its
//! files ends at the first one. The segment size is fixed for ever by the first open: 512 KiB.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layout::{self, Writes};
use super::lock::StateLock;
use super::open;
use super::witness::Witness;
use super::{JobStore, StoreError};
use crate::engine::{Change, Job};
use crate::failpoint;

/// The store the daemon uses. It holds the lock of its state folder until it is dropped.
#[derive(Debug)]
pub struct SledStore {
    pub(super) db: sled::Db,
    /// A second handle of sled's data file, to sync it.
    pub(super) data: File,
    pub(super) folder: PathBuf,
    pub(super) meta: Meta,
    pub(super) witness: Witness,
    /// Files beside the data file that are synced already.
    pub(super) blobs: BTreeSet<OsString>,
    /// A save wants at least so much free, bytes.
    pub(super) free_bytes_min: u64,
    /// Why the store can not be used any more.
    pub(super) broken: Option<String>,
    /// Last, so that it is released last.
    pub(super) _lock: StateLock,
}

/// A store that is open, and what had to be done for it.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: SledStore,
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

impl SledStore {
    /// The store's folder within the state folder.
    pub const FOLDER: &'static str = "jobs.sled";

    /// A sensible `free_bytes_min` for [`SledStore::open`]: 64 MiB.
    pub const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

    /// Opens the store of a state folder, making both if they are not there. Neither opening nor
    /// saving begins with less than `free_bytes_min` bytes free on the disk.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NoSpace`], [`StoreError::Newer`], or
    /// [`StoreError::Broken`] and [`StoreError::Io`] if the system does not let us. A damaged
    /// store is no error: it is moved aside, see [`Opened::quarantined`].
    pub fn open(state: &Path, free_bytes_min: u64) -> Result<Opened, StoreError> {
        open::open(state, free_bytes_min)
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
        open::check_space(&self.folder, self.free_bytes_min)?;
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
        let mut batch = sled::Batch::default();
        let mut same = true;
        for (key, value) in writes {
            let old = self.db.get(key).map_err(broken("read"))?;
            if old.as_deref() == value.as_deref() {
                continue;
            }
            same = false;
            if let Some(old) = old {
                meta.sum.take_out(key.as_bytes(), &old);
            }
            match value {
                Some(value) => {
                    meta.sum.put_in(key.as_bytes(), value);
                    batch.insert(key.as_bytes(), value.as_slice());
                }
                None => batch.remove(key.as_bytes()),
            }
        }
        // The first save of all writes the meta record alone; a record that was saved as it is
        // was made durable then.
        if same && self.meta.saves > 0 {
            return Ok(());
        }
        meta.saves = self.witness.after(meta.saves);
        batch.insert(Meta::KEY, meta.write());
        moment("save:begun")?;
        self.db.apply_batch(batch).map_err(broken("write"))?;
        moment("save:applied")?;
        self.sync_blobs().map_err(|error| failed("sync", &error))?;
        self.db.flush().map_err(broken("flush"))?;
        moment("save:flushed")?;
        self.data.sync_data().map_err(|error| failed("sync", &error))?;
        moment("save:synced")?;
        self.witness.write(meta.saves).map_err(|error| failed("count", &error))?;
        self.meta = meta;
        Ok(())
    }

    /// Syncs what sled put into files of their own: pages beyond 128 KiB, which records of the
    /// usual size never make.
    fn sync_blobs(&mut self) -> io::Result<()> {
        let folder = self.folder.join("blobs");
        let mut present = BTreeSet::new();
        let mut fresh = false;
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name();
            if !self.blobs.contains(&name) {
                match File::open(folder.join(&name)) {
                    Ok(blob) => blob.sync_all()?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
                fresh = true;
            }
            present.insert(name);
        }
        if fresh {
            File::open(&folder)?.sync_all()?;
        }
        self.blobs = present;
        Ok(())
    }

    fn starting_with(
        &self,
        prefix: &str,
    ) -> impl Iterator<Item = Result<(String, sled::IVec), StoreError>> + use<> {
        self.db.scan_prefix(prefix).map(|entry| {
            let (key, value) = entry.map_err(broken("read"))?;
            match std::str::from_utf8(&key) {
                Ok(key) => Ok((key.to_owned(), value)),
                Err(_) => Err(StoreError::Unreadable {
                    key: key.escape_ascii().to_string(),
                    reason: "the key is not text".into(),
                }),
            }
        })
    }
}

impl JobStore for SledStore {
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

/// What the store says of itself, saved with every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Meta {
    /// Saves since the store was first made; never goes back.
    pub saves: u64,
    /// Over all records but this one.
    pub sum: Sum,
}

/// A sum over records that does not depend on their order, so that a save can carry it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    records: u64,
    digest: u64,
}

/// The saved form of [`Meta`]; `v` is the schema of the whole store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetaV1 {
    v: u64,
    saves: u64,
    records: u64,
    digest: String,
}

impl Meta {
    /// Where it is kept.
    pub const KEY: &'static [u8] = b"meta";

    /// Its record.
    pub fn write(self) -> Vec<u8> {
        let digest = format!("{:016x}", self.sum.digest);
        let stored =
            MetaV1 { v: open::SCHEMA, saves: self.saves, records: self.sum.records, digest };
        serde_json::to_vec(&stored).expect("numbers and text are JSON")
    }

    /// Reads it, if its schema is ours.
    pub fn read(bytes: &[u8]) -> Result<Meta, String> {
        let stored: MetaV1 = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let digest = u64::from_str_radix(&stored.digest, 16).map_err(|error| error.to_string())?;
        Ok(Meta { saves: stored.saves, sum: Sum { records: stored.records, digest } })
    }

    /// The schema of the store, whatever else the record holds.
    pub fn schema(bytes: &[u8]) -> Result<u64, String> {
        #[derive(Deserialize)]
        struct Peek {
            v: u64,
        }
        serde_json::from_slice(bytes).map(|Peek { v }| v).map_err(|error| error.to_string())
    }
}

impl Sum {
    /// Counts a record.
    pub fn put_in(&mut self, key: &[u8], value: &[u8]) {
        self.records = self.records.wrapping_add(1);
        self.digest ^= digest(key, value);
    }

    /// Takes it out again.
    pub fn take_out(&mut self, key: &[u8], value: &[u8]) {
        self.records = self.records.wrapping_sub(1);
        self.digest ^= digest(key, value);
    }
}

fn digest(key: &[u8], value: &[u8]) -> u64 {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(value);
    let bytes = hash.finalize();
    let first = bytes.first_chunk().expect("a SHA-256 has 32 bytes");
    u64::from_le_bytes(*first)
}

/// An error of sled, which is final.
pub(super) fn broken(action: &'static str) -> impl Fn(sled::Error) -> StoreError {
    move |error| StoreError::Broken { action, reason: error.to_string() }
}

/// A moment in a save: empty, but for tests.
fn moment(name: &str) -> Result<(), StoreError> {
    failpoint::at(name).map_err(|error| failed("save", &error))
}

fn failed(action: &'static str, error: &io::Error) -> StoreError {
    StoreError::Broken { action, reason: error.to_string() }
}
