//! redb, the way out should sled fail us: built with the feature `redb`.
//!
//! One file, one table. A commit of redb's is durable when it returns: it writes the pages aside,
//! turns over one of two roots and syncs; after a crash it goes back to the root whose checksums
//! hold. Every open checks the checksum of every page, so that a file that was changed behind its
//! back is an error and no panic.

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase, StorageError, TableDefinition,
    TableError, TransactionError,
};

use super::StoreError;
use super::backend::{Backend, DATA, Trouble, Write, failed};
use super::open::io_error;

/// A file of redb's in a folder of its own.
#[derive(Debug)]
pub struct Redb {
    db: Database,
}

/// The table as a reader sees it.
type Records = ReadOnlyTable<&'static [u8], &'static [u8]>;

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

impl Backend for Redb {
    const FOLDER: &'static str = "jobs.redb";

    type Value = Vec<u8>;

    fn open(folder: &Path) -> Result<Redb, Trouble> {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|error| Trouble::Fatal(io_error("create folder", folder)(error)))?;
        Ok(Redb { db: open(&folder.join(DATA))? })
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let Some(table) = self.records()? else { return Ok(None) };
        let found = table.get(key.as_bytes()).map_err(read_error)?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    fn starting_with(
        &self,
        prefix: &str,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), Trouble>> {
        let from = prefix.as_bytes().to_vec();
        let range = self.records().and_then(|table| {
            let bounds = (Bound::Included(from.as_slice()), Bound::<&[u8]>::Unbounded);
            table.map(|table| table.range_owned::<&[u8]>(bounds).map_err(read_error)).transpose()
        });
        let (range, failed) = match range {
            Ok(range) => (range, None),
            Err(trouble) => (None, Some(Err(trouble))),
        };
        let entries = range.into_iter().flatten().map(|entry| {
            let (key, value) = entry.map_err(read_error)?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        });
        let within = move |entry: &Result<(Vec<u8>, Vec<u8>), Trouble>| match entry {
            Ok((key, _)) => key.starts_with(&from),
            Err(_) => true,
        };
        failed.into_iter().chain(entries.take_while(within))
    }

    fn write(&mut self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        let save = || -> Result<(), redb::Error> {
            let transaction = self.db.begin_write()?;
            {
                let mut table = transaction.open_table(RECORDS)?;
                for (key, value) in writes {
                    match value {
                        Some(value) => table.insert(key.as_bytes(), *value)?,
                        None => table.remove(key.as_bytes())?,
                    };
                }
            }
            transaction.commit()?;
            Ok(())
        };
        save().map_err(|error| match &error {
            redb::Error::Io(io) => failed("write", io),
            _ => StoreError::Broken { action: "write", reason: error.to_string() },
        })
    }
}

impl Redb {
    /// The table as it is now; a store that nothing was saved in has none.
    fn records(&self) -> Result<Option<Records>, Trouble> {
        let transaction = self.db.begin_read().map_err(|error| match error {
            TransactionError::Storage(error) => sort(error, "read"),
            error => fatal("read", &error),
        })?;
        match transaction.open_table(RECORDS) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(TableError::Storage(error)) => Err(sort(error, "read")),
            Err(error) => Err(Trouble::Damaged(error.to_string())),
        }
    }
}

fn open(path: &Path) -> Result<Database, Trouble> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    let began = Instant::now();
    loop {
        match builder.create(path) {
            // As we hold a lock of our own, redb's can only be held by what is left of the last
            // owner, such as a child process between fork and exec.
            Err(DatabaseError::DatabaseAlreadyOpen) if began.elapsed() < LOCK_WAIT_MAX => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(DatabaseError::Storage(error)) => return Err(sort(error, "open")),
            Err(error) => return Err(fatal("open", &error)),
            Ok(db) => return Ok(db),
        }
    }
}

fn read_error(error: StorageError) -> Trouble {
    sort(error, "read")
}

/// Tells damage from a system that does not let us.
fn sort(error: StorageError, action: &'static str) -> Trouble {
    use io::ErrorKind as Kind;
    match &error {
        StorageError::Corrupted(_) => Trouble::Damaged(error.to_string()),
        // A file that is shorter than it says.
        StorageError::Io(io) if [Kind::UnexpectedEof, Kind::InvalidData].contains(&io.kind()) => {
            Trouble::Damaged(error.to_string())
        }
        StorageError::Io(io) => Trouble::Fatal(failed(action, io)),
        _ => fatal(action, &error),
    }
}

fn fatal(action: &'static str, error: &dyn std::error::Error) -> Trouble {
    Trouble::Fatal(StoreError::Broken { action, reason: error.to_string() })
}

/// What redb may keep in memory, bytes.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// How long redb's own lock may outlive its owner.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_is_no_damage() {
        let no_permission = io::Error::from(io::ErrorKind::PermissionDenied);
        let fatal = sort(StorageError::Io(no_permission), "open");
        assert!(matches!(fatal, Trouble::Fatal(StoreError::Broken { .. })));
        let torn = sort(StorageError::Corrupted("a page".into()), "open");
        assert!(matches!(torn, Trouble::Damaged(_)));
        let full = sort(StorageError::Io(io::ErrorKind::StorageFull.into()), "write");
        assert!(matches!(full, Trouble::Fatal(error) if error.is_about_room()));
    }

    #[test]
    fn a_lock_that_the_last_owner_still_holds_is_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("db");
        let held = open(&path).expect("opened");
        let owner = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        open(&path).expect("opened once it was free");
        owner.join().expect("no panic");
    }
}
