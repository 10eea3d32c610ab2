//! The job stores: one contract for all of them, and what those on disk must live through.
//!
//! Everything here is drawn from a seed that the failure names. Longer runs are asked for by
//! `GEMINI_BATCHD_STORE_OPS` (operations against the model; `SEED` replays one run of them),
//! `GEMINI_BATCHD_STORE_KILLS` (rounds of `kill -9`), `GEMINI_BATCHD_STORE_FLIPS` (stores with
//! flipped bytes) and `GEMINI_BATCHD_STORE_RECORDS` (jobs in a store that is opened again).

mod contract;
mod crash;
mod damage;
mod dice;
mod operations;
mod owners;
mod reading;
mod records;
mod reopen;
mod transfer;

use std::path::{Path, PathBuf};

use gemini_batchd::store::backend::{Backend, DATA};
#[cfg(feature = "redb")]
use gemini_batchd::store::redb::Redb;
use gemini_batchd::store::sled::Sled;
use gemini_batchd::store::{CheckedStore, JobStore, MemoryStore, Opened, StoreError};

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

/// A store in a temporary folder.
pub struct OnDisk<B> {
    folder: tempfile::TempDir,
    store: Option<CheckedStore<B>>,
}

impl<B: Backend> OnDisk<B> {
    /// An empty store below this folder.
    pub fn below(place: &Path) -> OnDisk<B> {
        let folder = tempfile::tempdir_in(place).expect("a temporary folder");
        let store = Some(open_whole(folder.path()));
        OnDisk { folder, store }
    }
}

impl<B: Backend> Keeper for OnDisk<B> {
    fn store(&mut self) -> &mut dyn JobStore {
        self.store.as_mut().expect("open between restarts")
    }

    fn restart(&mut self) {
        drop(self.store.take());
        self.store = Some(open_whole(self.folder.path()));
    }
}

/// Runs a check for every backend that is built in.
macro_rules! for_every_backend {
    ($check:ident) => {
        $check::<crate::Sled>();
        #[cfg(feature = "redb")]
        $check::<crate::Redb>();
    };
}
pub(crate) use for_every_backend;

/// Opens a state folder, whatever comes of it.
pub fn open<B: Backend>(state: &Path) -> Result<Opened<B>, StoreError> {
    CheckedStore::open(state, 1)
}

/// Opens a state folder whose store must be undamaged.
pub fn open_whole<B: Backend>(state: &Path) -> CheckedStore<B> {
    let opened = open(state).expect("the store opens");
    assert_eq!(opened.quarantined, None);
    opened.store
}

/// The file that a backend keeps its records in.
pub fn data_file<B: Backend>(state: &Path) -> PathBuf {
    state.join(B::FOLDER).join(DATA)
}

/// The full name of a test, for a child process that is to run it alone.
pub fn full_name(module: &str, test: &str) -> String {
    let (_, within) = module.split_once("::").expect("a module below this one");
    format!("{within}::{test}")
}

/// A number that the environment may set.
pub fn asked(variable: &str, usual: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(usual, |text| text.parse().expect("a number"))
}
