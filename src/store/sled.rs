//! sled 0.34.7, under rules that make it keep what it acknowledged.
//!
//! sled's own flush survives `kill -9` but not a power cut, so each write ends with a sync of its
//! data file through a handle of ours. Any error of sled is final for the process, because the
//! thread that syncs the rest of its files ends at the first one. The segment size is fixed for
//! ever by the first open: 512 KiB.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, renameat};

use super::StoreError;
use super::backend::{Backend, DATA, Trouble, Write, failed};
use super::open::io_error;
use crate::failpoint;

/// A folder of sled's.
#[derive(Debug)]
pub struct Sled {
    /// First, so that it has let go of `db` when that is closed.
    waker: Waker,
    db: sled::Db,
    /// A second handle of sled's data file, to sync it.
    data: File,
    folder: PathBuf,
    /// Files beside the data file that are synced already.
    blobs: BTreeSet<OsString>,
}

impl Backend for Sled {
    const FOLDER: &'static str = "jobs.sled";

    type Value = sled::IVec;

    fn open(folder: &Path) -> Result<Sled, Trouble> {
        let prepare = io_error("prepare", folder);
        set_aside_half_written(folder).map_err(|error| Trouble::Fatal(prepare(error)))?;
        let db = open(folder)?;
        let path = folder.join(DATA);
        let data =
            File::open(&path).map_err(|error| Trouble::Fatal(io_error("open", &path)(error)));
        let (waker, folder) = (Waker::of(&db), folder.to_owned());
        Ok(Sled { waker, db, data: data?, folder, blobs: BTreeSet::new() })
    }

    fn get(&self, key: &str) -> Result<Option<sled::IVec>, Trouble> {
        self.db.get(key).map_err(|error| sort(error, "read"))
    }

    fn starting_with(
        &self,
        prefix: &str,
    ) -> impl Iterator<Item = Result<(Vec<u8>, sled::IVec), Trouble>> {
        self.db.scan_prefix(prefix).map(|entry| match entry {
            Ok((key, value)) => Ok((key.to_vec(), value)),
            Err(error) => Err(sort(error, "read")),
        })
    }

    fn write(&mut self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key.as_bytes(), *value),
                None => batch.remove(key.as_bytes()),
            }
        }
        let result = self.keep(batch);
        if result.is_err() {
            // Closed, it would sync once more and panic if that fails too, before anybody is told
            // why: it is left open until the process ends.
            std::mem::forget(self.db.clone());
        }
        result
    }
}

impl Sled {
    fn keep(&mut self, batch: sled::Batch) -> Result<(), StoreError> {
        moment("save:begun")?;
        self.db.apply_batch(batch).map_err(|error| broken("write", &error))?;
        moment("save:applied")?;
        self.sync_blobs().map_err(|error| failed("sync", &error))?;
        self.waker.watch(|| self.db.flush()).map_err(|error| broken("flush", &error))?;
        moment("save:flushed")?;
        self.data.sync_data().map_err(|error| failed("sync", &error))?;
        moment("save:synced")
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
}

/// Wakes a flush that sleeps through its own failure: where a write of another thread of sled's
/// fails while this one is about to wait for it, nobody tells it. A second flush finds the error,
/// and tells everybody.
#[derive(Debug)]
struct Waker {
    /// Flushes begun and ended: odd while one is under way.
    steps: Arc<AtomicU64>,
    /// Its thread, and what ends it; without them it is as if sled were alone.
    thread: Option<(JoinHandle<()>, mpsc::Sender<()>)>,
}

impl Waker {
    fn of(db: &sled::Db) -> Waker {
        let (end, ended) = mpsc::channel();
        let steps = Arc::new(AtomicU64::new(0));
        let (db, seen) = (db.clone(), Arc::clone(&steps));
        let watch = move || {
            let mut last = 0;
            while ended.recv_timeout(FLUSH_PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let now = seen.load(Ordering::Relaxed);
                if now == last && now % 2 == 1 {
                    drop(db.flush());
                }
                last = now;
            }
        };
        let thread = thread::Builder::new().name("store waker".to_owned()).spawn(watch).ok();
        Waker { steps, thread: thread.map(|thread| (thread, end)) }
    }

    fn watch<T>(&self, flush: impl FnOnce() -> T) -> T {
        self.steps.fetch_add(1, Ordering::Relaxed);
        let flushed = flush();
        self.steps.fetch_add(1, Ordering::Relaxed);
        flushed
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        if let Some((thread, end)) = self.thread.take() {
            drop(end);
            drop(thread.join());
        }
    }
}

fn open(folder: &Path) -> Result<sled::Db, Trouble> {
    let config = sled::Config::new()
        .path(folder)
        .segment_size(512 * 1024)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(500))
        .use_compression(false);
    let began = Instant::now();
    loop {
        match config.open() {
            // sled has a lock of its own. As we hold ours, it can only be held by what is left of
            // the last owner: a thread that ends, or a child process between fork and exec.
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock")
                    && began.elapsed() < LOCK_WAIT_MAX =>
            {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result.map_err(|error| sort(error, "open")),
        }
    }
}

/// sled takes any file whose name begins with `snap.` for a whole snapshot, also one that a crash
/// left half-written. Such a file holds nothing that the data file does not; one is kept to look at.
fn set_aside_half_written(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("snap.") && text.ends_with(".generating") {
            renameat(CWD, folder.join(&name), CWD, folder.join("half-written-snapshot"))?;
        }
    }
    Ok(())
}

/// Tells damage from a system that does not let us.
fn sort(error: sled::Error, action: &'static str) -> Trouble {
    use io::ErrorKind as Kind;
    match error {
        sled::Error::Io(ref io) => {
            let torn = [Kind::NotFound, Kind::UnexpectedEof, Kind::InvalidData, Kind::InvalidInput];
            if torn.contains(&io.kind()) {
                Trouble::Damaged(error.to_string())
            } else {
                Trouble::Fatal(broken(action, &error))
            }
        }
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => Trouble::Damaged(error.to_string()),
    }
}

fn broken(action: &'static str, error: &sled::Error) -> StoreError {
    match error {
        sled::Error::Io(io) => failed(action, io),
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => {
            StoreError::Broken { action, reason: error.to_string() }
        }
    }
}

/// A moment in a save: empty, but for tests.
fn moment(name: &str) -> Result<(), StoreError> {
    failpoint::at(name).map_err(|error| failed("save", &error))
}

/// What sled may keep in memory, bytes.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// A flush that takes longer, or twice as long, is woken: no disk that is well is so slow.
const FLUSH_PATIENCE: Duration = Duration::from_secs(3);

/// How long sled's own lock may outlive its owner.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_is_no_damage() {
        let no_permission = io::Error::from(io::ErrorKind::PermissionDenied);
        let fatal = sort(sled::Error::Io(no_permission), "open");
        assert!(matches!(fatal, Trouble::Fatal(StoreError::Broken { .. })));
        let torn = sort(sled::Error::Io(io::ErrorKind::UnexpectedEof.into()), "open");
        assert!(matches!(torn, Trouble::Damaged(_)));
    }

    #[test]
    fn a_lock_that_the_last_owner_still_holds_is_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let held = sled::open(folder.path()).expect("opened");
        let (asked, told) = mpsc::channel();
        let owner = thread::spawn(move || {
            told.recv().expect("told");
            // Whoever opens has met the lock by then, or does without waiting.
            thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        asked.send(()).expect("sent");
        open(folder.path()).expect("opened once it was free");
        owner.join().expect("no panic");
    }

    #[test]
    fn a_folder_that_can_not_be_listed_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        set_aside_half_written(&folder.path().join("gone")).expect("nothing to set aside");
        let file = folder.path().join("file");
        File::create(&file).expect("made");
        assert!(set_aside_half_written(&file).is_err());
    }

    #[test]
    fn a_blob_that_is_gone_needs_no_sync_and_one_that_can_not_be_opened_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = Sled::open(folder.path()).expect("opened");
        let blob = |name: &str| folder.path().join("blobs").join(name);
        std::os::unix::fs::symlink("gone", blob("1")).expect("made");
        store.sync_blobs().expect("what is gone is passed over");
        std::os::unix::fs::symlink("2", blob("2")).expect("made");
        assert!(store.sync_blobs().is_err(), "a link to itself can not be opened");
    }
}
