//! The job stores: one contract for all of them, and what sled alone must live through.
//!
//! Everything here is drawn from a seed that the failure names. Longer runs are asked for by
//! `GEMINI_BATCHD_STORE_OPS` (operations against the model), `GEMINI_BATCHD_STORE_KILLS` (rounds of
//! `kill -9`) and `GEMINI_BATCHD_STORE_FLIPS` (stores with flipped bytes).

mod contract;
mod crash;
mod damage;
mod dice;
mod records;
mod transfer;

use std::path::Path;

use gemini_batchd::store::{JobStore, MemoryStore, Opened, SledStore, StoreError};

/// A store that can be closed and opened again, or ended without warning.
pub trait Keeper {
    /// The store, open.
    fn store(&mut self) -> &mut dyn JobStore;
    /// Ends the process, as it were, and starts it again.
    fn restart(&mut self);
}

/// The store in memory.
#[derive(Default)]
pub struct InMemory(pub MemoryStore);

impl Keeper for InMemory {
    fn store(&mut self) -> &mut dyn JobStore {
        &mut self.0
    }

    fn restart(&mut self) {
        self.0.crash();
    }
}

/// The store in a temporary folder.
pub struct InSled {
    folder: tempfile::TempDir,
    store: Option<SledStore>,
}

impl Default for InSled {
    fn default() -> InSled {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Some(open_whole(folder.path()));
        InSled { folder, store }
    }
}

impl Keeper for InSled {
    fn store(&mut self) -> &mut dyn JobStore {
        self.store.as_mut().expect("open between restarts")
    }

    fn restart(&mut self) {
        drop(self.store.take());
        self.store = Some(open_whole(self.folder.path()));
    }
}

/// Opens a state folder, whatever comes of it.
pub fn open(state: &Path) -> Result<Opened, StoreError> {
    SledStore::open(state, 1)
}

/// Opens a state folder whose store must be undamaged.
pub fn open_whole(state: &Path) -> SledStore {
    let opened = open(state).expect("the store opens");
    assert_eq!(opened.quarantined, None);
    opened.store
}

/// A number that the environment may set.
pub fn asked(variable: &str, usual: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(usual, |text| text.parse().expect("a number"))
}
