//! What lies below the records: something that keeps bytes under keys, and what may be in its way.
//!
//! A [`Backend`] promises that what it was given stays in one piece and outlives a power cut.
//! Whether it has kept that promise is checked from above ([`super::open`]); it decides nothing.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use super::StoreError;

/// One new value under a key, or its removal.
pub type Write<'a> = (&'a str, Option<&'a [u8]>);

/// Keeps bytes under keys, in a folder of its own.
pub trait Backend: Debug + Send + Sized {
    /// Its folder within the state folder; [`FOLDERS`] lists those of all backends.
    const FOLDER: &'static str;

    /// What reading gives.
    type Value: AsRef<[u8]> + Send;

    /// Opens the store of a folder, making both if they are not there. Afterwards the folder holds
    /// a file [`DATA`].
    ///
    /// # Errors
    /// What is in the way.
    fn open(folder: &Path) -> Result<Self, Trouble>;

    /// The value under a key.
    ///
    /// # Errors
    /// What is in the way.
    fn get(&self, key: &str) -> Result<Option<Self::Value>, Trouble>;

    /// All keys that begin so, in the order of their bytes, with their values.
    fn starting_with(
        &self,
        prefix: &str,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Self::Value), Trouble>>;

    /// Makes all changes in one step. When it returns, they are durable.
    ///
    /// # Errors
    /// Afterwards nobody knows what is on disk.
    fn write(&mut self, writes: &[Write<'_>]) -> Result<(), StoreError>;
}

/// The folders of all backends there are, whether they are built in or not.
pub const FOLDERS: [&str; 2] = ["jobs.sled", "jobs.redb"];

/// The file without which a backend's folder holds no store.
pub const DATA: &str = "db";

/// What is in the way of a store.
#[derive(Debug)]
pub enum Trouble {
    /// The store is not what was saved.
    Damaged(String),
    /// It may well be, but we can not get at it.
    Fatal(StoreError),
}

impl Trouble {
    /// For a store that was whole a moment ago: nothing more can be done about it.
    pub fn during(self, action: &'static str) -> StoreError {
        match self {
            Trouble::Fatal(error) => error,
            Trouble::Damaged(reason) => StoreError::Broken { action, reason },
        }
    }
}

/// What an error of the system means for a store that was to do something.
pub(super) fn failed(action: &'static str, error: &io::Error) -> StoreError {
    let reason = error.to_string();
    match StoreError::says_full(error) {
        true => StoreError::Full { action, reason },
        false => StoreError::Broken { action, reason },
    }
}
