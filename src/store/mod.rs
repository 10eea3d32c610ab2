//! Records: what must outlive the process.
//!
//! A [`JobStore`] keeps one record for each job, one for each chunk, and a few notes. What
//! "saved" promises: all changes of one [`JobStore::save`] are one step, and when it returns they
//! survive `kill -9` and a power cut. A crash during a save leaves either all of it or nothing.
//! Payloads never come here, and a record that can not be read is an error, never skipped.
//!
//! [`DaemonStore`] is the one the daemon uses, [`MemoryStore`] the one that tests crash; all keep
//! the same keys ([`layout`]) and the same versioned JSON ([`record`]). On disk they lie in a
//! [`backend`] that can be exchanged and is not believed ([`checked`]).

pub mod backend;
pub mod checked;
pub mod export;
pub mod instance;
pub mod layout;
pub mod lock;
pub mod look;
pub mod memory;
mod meta;
mod migrate;
mod open;
mod reading;
pub mod record;
#[cfg(feature = "redb")]
pub mod redb;
mod reserve;
pub mod salt;
pub mod sled;
mod witness;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::engine::{Change, Job};

pub use checked::{CheckedStore, Opened, Quarantine};
pub use memory::MemoryStore;

/// Jobs in sled.
pub type SledStore = CheckedStore<self::sled::Sled>;

/// Jobs in redb.
#[cfg(feature = "redb")]
pub type RedbStore = CheckedStore<self::redb::Redb>;

/// The store the daemon uses: sled, unless this program was built with the feature `redb`.
#[cfg(not(feature = "redb"))]
pub type DaemonStore = SledStore;

/// The store the daemon uses: sled, unless this program was built with the feature `redb`.
#[cfg(feature = "redb")]
pub type DaemonStore = RedbStore;

/// Keeps jobs durably. One owner, one thread at a time; every call blocks.
pub trait JobStore: Send {
    /// Hands over all jobs, ordered by id; one at a time is held here.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] names the first record that can not be understood;
    /// [`StoreError::Broken`] if the store itself fails.
    fn each_job(&self, take: &mut dyn FnMut(Job)) -> Result<(), StoreError>;

    /// All jobs, ordered by id.
    ///
    /// # Errors
    /// As for [`JobStore::each_job`].
    fn load(&self) -> Result<Vec<Job>, StoreError> {
        let mut jobs = Vec::new();
        self.each_job(&mut |job| jobs.push(job))?;
        Ok(jobs)
    }

    /// Makes all changes in one step. When it returns, they are durable.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] and [`StoreError::NoSpace`] change nothing. After
    /// [`StoreError::Broken`] nobody knows what is on disk: end the process and start again.
    fn save(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// A small value kept under a name, such as the last housekeeping slot.
    ///
    /// # Errors
    /// As for [`JobStore::load`].
    fn note(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// All notes by name.
    ///
    /// # Errors
    /// As for [`JobStore::load`].
    fn notes(&self) -> Result<BTreeMap<String, String>, StoreError>;

    /// Keeps a value under a name, durably; an empty value removes the note.
    ///
    /// # Errors
    /// As for [`JobStore::save`].
    fn set_note(&mut self, name: &str, value: &str) -> Result<(), StoreError>;
}

impl StoreError {
    /// Whether it is a matter of room on the disk, so that it passes when there is more.
    pub fn is_about_room(&self) -> bool {
        match self {
            StoreError::NoSpace { .. } | StoreError::Full { .. } => true,
            StoreError::Io { source, .. } => StoreError::says_full(source),
            StoreError::Locked { .. }
            | StoreError::Elsewhere { .. }
            | StoreError::Newer { .. }
            | StoreError::OtherBackend { .. }
            | StoreError::Unreadable { .. }
            | StoreError::NoCount { .. }
            | StoreError::TooLarge { .. }
            | StoreError::Broken { .. }
            | StoreError::Import { .. } => false,
        }
    }

    /// Whether the system has no more room for us.
    pub(crate) fn says_full(error: &std::io::Error) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(error.kind(), StorageFull | QuotaExceeded)
    }
}

/// The note that stands as long as the jobs of a quarantined store are not rebuilt from their
/// mirrors. Whoever has rebuilt them sets it to the empty value.
pub const NOTE_QUARANTINED: &str = "quarantined";

/// What can go wrong with the store, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process owns the spool.
    #[error(
        "the spool is in use: {} is locked by {holder}; stop that process, or choose another spool",
        path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, such as `process 4711`.
        holder: String,
    },
    /// The state belongs to another machine. Nothing was changed.
    #[error(
        "{} says that this state was used on another machine; if a daemon may still go on with it there, give this one a spool of its own, since both would pay for the same; if not, say so with `gemini-batchd take-over`",
        path.display()
    )]
    Elsewhere {
        /// The file that says so.
        path: PathBuf,
    },
    /// Too little room to go on safely. Nothing was changed.
    #[error(
        "{} has {free_bytes} bytes free and the job store needs {needed_bytes}; make room and start again",
        path.display()
    )]
    NoSpace {
        /// A folder on the file system that is full.
        path: PathBuf,
        /// Bytes free for us.
        free_bytes: u64,
        /// Bytes asked for.
        needed_bytes: u64,
    },
    /// A newer version of this program wrote the store. Nothing was changed.
    #[error(
        "{} has schema {found}, this gemini-batchd knows schemas up to {known}; use the newer version again",
        path.display()
    )]
    Newer {
        /// The store's folder.
        path: PathBuf,
        /// The schema found.
        found: u64,
        /// The newest schema known here.
        known: u64,
    },
    /// The jobs lie in a store of a backend that this program was not built with. Nothing was
    /// changed.
    #[error(
        "{} holds the jobs of this spool, and this build of gemini-batchd keeps its jobs otherwise; \
         `export` them with the build that wrote them, move {0} and {0}.saves out of the state folder, \
         and `import` them with this one",
        path.display()
    )]
    OtherBackend {
        /// The other store's folder.
        path: PathBuf,
    },
    /// A record that can not be understood. It stays as it is.
    #[error(
        "record `{key}` of the job store can not be read: {reason}; the job's record.json in its working folder holds the same, move the store folder aside to rebuild from there"
    )]
    Unreadable {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The count of saves beside the store holds something else.
    #[error(
        "{} does not hold a count of saves; if nobody changed it by hand, check the disk, then move the file aside and start again",
        path.display()
    )]
    NoCount {
        /// The file.
        path: PathBuf,
    },
    /// A record beyond the limit. Nothing was changed.
    #[error(
        "record `{key}` would take {bytes} bytes, more than {max} allowed; this is a bug, please report it",
        max = record::BYTES_MAX
    )]
    TooLarge {
        /// The record's key.
        key: String,
        /// The size it would have.
        bytes: usize,
    },
    /// The store failed. What it holds is known only after a restart.
    #[error(
        "the job store failed to {action}: {reason}; start again, and check the disk if it comes back"
    )]
    Broken {
        /// What was tried, such as `flush`.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// The disk filled up in the middle of a save. What the store holds is known only after a
    /// restart.
    #[error(
        "the disk filled up when the job store was to {action}: {reason}; make room and start again"
    )]
    Full {
        /// What was tried, such as `flush`.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// A file or folder beside the store could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `open`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An export that can not be taken in. Nothing was changed.
    #[error("line {line} of the export: {reason}")]
    Import {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it and what to do.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::StoreError;

    #[test]
    fn a_disk_and_a_quota_that_are_full_are_told_from_other_errors() {
        let says = |kind| StoreError::says_full(&Error::from(kind));
        assert!(says(ErrorKind::StorageFull) && says(ErrorKind::QuotaExceeded));
        assert!(!says(ErrorKind::PermissionDenied) && !says(ErrorKind::NotFound));
        let failed = |kind: ErrorKind| StoreError::Io {
            action: "write",
            path: "jobs".into(),
            source: kind.into(),
        };
        assert!(failed(ErrorKind::StorageFull).is_about_room());
        assert!(!failed(ErrorKind::PermissionDenied).is_about_room());
    }
}
