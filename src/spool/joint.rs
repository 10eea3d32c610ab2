//! One sync for everybody who waits for the same folder.
//!
//! Jobs that are worked on side by side change the same few folders: the inbox, `working/`, the
//! outbox, the archive. A sync serves all whose changes were made before it began. So whoever comes
//! while one is under way waits for it to end, and then one more serves all who came meanwhile.
//! Nobody ever relies on a sync that had begun before they asked, and each that fails is told to
//! everybody it was to serve.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Folders that are being synced, each for everybody who asks for it.
#[derive(Debug, Default)]
pub struct Joint {
    folders: Mutex<BTreeMap<PathBuf, Arc<Folder>>>,
}

/// A folder while anybody waits for it.
#[derive(Debug, Default)]
struct Folder {
    turns: Mutex<Turns>,
    ended: Condvar,
}

/// Its syncs, numbered from 1.
#[derive(Debug, Default)]
struct Turns {
    begun: u64,
    /// One fewer while one is under way.
    ended: u64,
    failed: BTreeMap<u64, Told>,
}

/// An error that can be told more than once.
#[derive(Debug, Clone)]
struct Told {
    code: Option<i32>,
    kind: io::ErrorKind,
    text: String,
}

impl Joint {
    /// With nobody waiting.
    pub const fn new() -> Joint {
        Joint { folders: Mutex::new(BTreeMap::new()) }
    }

    /// Returns when a sync of the folder has ended that began after this call: `work`, or that of
    /// another caller.
    ///
    /// # Errors
    /// That of the first such sync, whoever made it.
    pub fn sync(&self, path: &Path, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let (folder, mine) = self.ask(path);
        let done = folder.sync(mine, work);
        let mut folders = lock(&self.folders);
        drop(folder);
        // Only under this lock does anybody come to hold it.
        if folders.get(path).is_some_and(|folder| Arc::strong_count(folder) == 1) {
            folders.remove(path);
        }
        done
    }

    /// The folder, and the number of the first sync of it that begins from now on.
    fn ask(&self, path: &Path) -> (Arc<Folder>, u64) {
        let mut folders = lock(&self.folders);
        let folder = folders.entry(path.to_owned()).or_default();
        let mine = lock(&folder.turns).begun + 1;
        (Arc::clone(folder), mine)
    }
}

impl Folder {
    /// Makes that sync, or waits until it has ended.
    fn sync(&self, mine: u64, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut turns = lock(&self.turns);
        while turns.ended < mine && turns.ended < turns.begun {
            turns = self.ended.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        if turns.ended >= mine {
            return turns.failed.get(&mine).map_or(Ok(()), |told| Err(told.again()));
        }
        turns.begun = mine;
        drop(turns);
        let done = work();
        let mut turns = lock(&self.turns);
        turns.ended = mine;
        if let Err(error) = &done {
            turns.failed.insert(mine, Told::of(error));
        }
        self.ended.notify_all();
        done
    }
}

impl Told {
    fn of(error: &io::Error) -> Told {
        Told { code: error.raw_os_error(), kind: error.kind(), text: error.to_string() }
    }

    fn again(&self) -> io::Error {
        match self.code {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.kind, self.text.clone()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Lets a sync begin, three more callers ask meanwhile, and counts the syncs that were made.
    fn three_behind_one(second: impl Fn() -> io::Result<()> + Sync) -> (u64, Vec<io::Result<()>>) {
        let (joint, path) = (Joint::new(), Path::new("folder"));
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let made = AtomicU64::new(0);
        let results = thread::scope(|scope| {
            let first = scope.spawn(|| {
                joint.sync(path, move || {
                    begun.send(()).expect("heard");
                    may_go_on.recv().map_err(io::Error::other)
                })
            });
            has_begun.recv().expect("it began");
            let ask = || {
                joint.sync(path, || {
                    made.fetch_add(1, Ordering::Relaxed);
                    second()
                })
            };
            let behind = [scope.spawn(ask), scope.spawn(ask), scope.spawn(ask)];
            // With the map and the first one, each of the three holds the folder.
            while Arc::strong_count(&lock(&joint.folders)[path]) < 5 {
                thread::yield_now();
            }
            assert_eq!(made.load(Ordering::Relaxed), 0, "nobody syncs beside another");
            go_on.send(()).expect("it waits");
            first.join().expect("joined").expect("synced");
            behind.map(|asker| asker.join().expect("joined")).into()
        });
        assert!(lock(&joint.folders).is_empty());
        (made.into_inner(), results)
    }

    #[test]
    fn whoever_asks_during_a_sync_is_served_by_one_that_begins_after_it() {
        let (made, results) = three_behind_one(|| Ok(()));
        assert_eq!(made, 1);
        assert!(results.iter().all(Result::is_ok));
    }

    /// Fault 29.
    #[test]
    fn everybody_whom_a_sync_was_to_serve_is_told_that_it_failed() {
        let (_, results) = three_behind_one(|| Err(io::Error::from_raw_os_error(5)));
        for result in results {
            assert_eq!(result.expect_err("it failed").raw_os_error(), Some(5));
        }
    }
}
