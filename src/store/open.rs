//! Opening the sled store so that it either is what was saved, or is moved aside.
//!
//! In this order: our lock, the free space, the witness, sled itself, every record against the
//! sum that was saved with it, and a sync of every file. The witness is a small file beside the
//! store that counts its saves; it is written after each, never synced, so it may be behind the
//! store but not ahead of it. A store that is behind its witness has lost saves and counts as
//! damaged, like one that makes sled fail or panic. A damaged store is never mended or removed:
//! its folder is renamed, and the new one says so until somebody has made good for it. Errors of
//! the system (no permission, disk full, too many files) are no damage and move nothing.

use std::fs::{self, File};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat, renameat_with, statvfs};
use rustix::io::Errno;

use super::layout::{self, Writes};
use super::lock::StateLock;
use super::migrate::migrate;
use super::sled::{Meta, Opened, Quarantine, SledStore, Sum, broken};
use super::witness::Witness;
use super::{JobStore, NOTE_QUARANTINED, StoreError};
use crate::failpoint;

/// The layout of keys and of the meta record. A newer one is refused untouched.
pub(super) const SCHEMA: u64 = 1;

/// See [`SledStore::open`].
pub(super) fn open(state: &Path, free_bytes_min: u64) -> Result<Opened, StoreError> {
    fs::create_dir_all(state).map_err(io_error("create folder", state))?;
    let lock = StateLock::take(state)?;
    check_space(state, free_bytes_min)?;
    moment("open:locked", state)?;
    let folder = state.join(SledStore::FOLDER);
    let witness = Witness::open(state)?;
    let reason = match try_open(&folder, &witness) {
        Ok(found) => {
            let found = if found.schema < SCHEMA { migrate(state, found)? } else { found };
            return finish(state, found, witness, free_bytes_min, lock, &Writes::new());
        }
        Err(Trouble::Fatal(error)) => return Err(error),
        Err(Trouble::Damaged(reason)) => reason,
    };
    moment("open:damaged", &folder)?;
    let aside = move_aside(state, &folder)?;
    moment("open:aside", &folder)?;
    let note = layout::stage_note(NOTE_QUARANTINED, &format!("{aside}\n{reason}"))?;
    let db = try_sled(&folder).map_err(Trouble::of_a_new_store)?;
    finish(state, Found::empty(db), witness, free_bytes_min, lock, &note)
}

/// Refuses to go on with too little room.
pub(super) fn check_space(path: &Path, needed_bytes: u64) -> Result<(), StoreError> {
    let stat = statvfs(path).map_err(|errno| io_error("ask for free space", path)(errno.into()))?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free_bytes < needed_bytes {
        return Err(StoreError::NoSpace { path: path.to_owned(), free_bytes, needed_bytes });
    }
    Ok(())
}

/// What is in the way of a store.
pub(super) enum Trouble {
    /// The store is not what was saved.
    Damaged(String),
    /// It may well be, but we can not get at it.
    Fatal(StoreError),
}

impl Trouble {
    /// For a store that was just made: nothing can be wrong with it but the system.
    pub fn of_a_new_store(self) -> StoreError {
        match self {
            Trouble::Fatal(error) => error,
            Trouble::Damaged(reason) => StoreError::Broken { action: "begin anew", reason },
        }
    }
}

/// A store whose records are all there.
pub(super) struct Found {
    pub db: sled::Db,
    pub meta: Meta,
    /// The layout it has.
    pub schema: u64,
}

impl Found {
    /// A store with nothing in it.
    fn empty(db: sled::Db) -> Found {
        Found { db, meta: Meta::default(), schema: SCHEMA }
    }
}

/// Completes the store: its first save if it is new, then a sync of everything.
fn finish(
    state: &Path,
    found: Found,
    witness: Witness,
    free_bytes_min: u64,
    lock: StateLock,
    writes: &Writes,
) -> Result<Opened, StoreError> {
    let folder = state.join(SledStore::FOLDER);
    let path = folder.join("db");
    let mut store = SledStore {
        db: found.db,
        data: File::open(&path).map_err(io_error("open", &path))?,
        folder,
        meta: found.meta,
        witness,
        blobs: Default::default(),
        free_bytes_min,
        broken: None,
        _lock: lock,
    };
    moment("open:checked", &path)?;
    store.commit(writes)?;
    moment("open:committed", &path)?;
    sync_all(&store.folder)?;
    sync(state)?;
    store.witness.write(store.meta.saves).map_err(io_error("write", state))?;
    moment("open:counted", state)?;
    store.witness.sync().map_err(io_error("sync", state))?;
    let quarantined = store.note(NOTE_QUARANTINED)?.map(|note| {
        let (folder, reason) = note.split_once('\n').unwrap_or((&note, ""));
        Quarantine { folder: state.join(folder), reason: reason.to_owned() }
    });
    Ok(Opened { store, quarantined })
}

/// Opens what is there and checks every record.
fn try_open(folder: &Path, witness: &Witness) -> Result<Found, Trouble> {
    if witness.saves > 0 && !folder.join("db").exists() {
        return Err(Trouble::Damaged(format!("it is gone after {} saves", witness.saves)));
    }
    if folder.join(PANICKED).exists() {
        return Err(Trouble::Damaged("sled panicked when it was opened the last time".into()));
    }
    set_aside_half_written(folder).map_err(|error| Trouble::Fatal(error_in(folder, error)))?;
    guarded(folder, || check(try_sled(folder)?, folder, witness))
        .unwrap_or_else(|message| Err(Trouble::Damaged(format!("sled panicked: {message}"))))
}

pub(super) fn try_sled(folder: &Path) -> Result<sled::Db, Trouble> {
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

/// Compares every record with the sum saved, and the number of saves with the witness.
fn check(db: sled::Db, folder: &Path, witness: &Witness) -> Result<Found, Trouble> {
    let mut sum = Sum::default();
    let mut saved = None;
    for entry in db.iter() {
        let (key, value) = entry.map_err(|error| sort(error, "read"))?;
        if key == Meta::KEY {
            saved = Some(value);
        } else {
            sum.put_in(&key, &value);
        }
    }
    let Some(saved) = saved else {
        if witness.saves == 0 && sum == Sum::default() {
            return Ok(Found::empty(db));
        }
        return Err(Trouble::Damaged("its own record is gone".into()));
    };
    let schema = Meta::schema(&saved).map_err(Trouble::Damaged)?;
    if schema > SCHEMA {
        let (path, found, known) = (folder.to_owned(), schema, SCHEMA);
        return Err(Trouble::Fatal(StoreError::Newer { path, found, known }));
    }
    let meta = Meta::read(&saved).map_err(Trouble::Damaged)?;
    if meta.saves < witness.saves {
        let (has, had) = (meta.saves, witness.saves);
        return Err(Trouble::Damaged(format!("it has {has} of {had} saves")));
    }
    if meta.sum != sum {
        let reason = format!("its records do not add up: {:?} saved, {sum:?} found", meta.sum);
        return Err(Trouble::Damaged(reason));
    }
    Ok(Found { db, meta, schema })
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
                Trouble::Fatal(broken(action)(error))
            }
        }
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => Trouble::Damaged(error.to_string()),
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

/// A moment between two steps: empty, but for tests.
fn moment(name: &str, path: &Path) -> Result<(), StoreError> {
    failpoint::at(name).map_err(io_error("go on with", path))
}

/// Renames the store's folder into a new `quarantine-N`, and returns that name.
fn move_aside(state: &Path, folder: &Path) -> Result<String, StoreError> {
    let name = new_folder(state, "quarantine")?;
    let target = state.join(&name).join(SledStore::FOLDER);
    match renameat_with(CWD, folder, CWD, &target, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(io_error("move to", &target)(errno.into())),
    }
    sync(&state.join(&name))?;
    sync(state)?;
    Ok(name)
}

/// Makes a folder `kind-N` with the first number that is free, and returns its name.
pub(super) fn new_folder(state: &Path, kind: &str) -> Result<String, StoreError> {
    let mut number = 1_u64;
    loop {
        let name = format!("{kind}-{number}");
        let path = state.join(&name);
        match fs::create_dir(&path) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(io_error("create folder", &path)(error)),
        }
    }
}

/// Runs `work` and survives its panics; where a panic ends the process (release builds), leaves a
/// mark in the folder that the next start finds.
fn guarded<T>(folder: &Path, work: impl FnOnce() -> T) -> Result<T, String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let usual = Arc::new(panic::take_hook());
    let (then, mark, here) = (usual.clone(), folder.join(PANICKED), thread::current().id());
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == here {
            // The panic is what gets reported; without the mark it is only found again.
            drop(File::create(&mark));
        }
        then(info);
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(Box::new(move |info| usual(info)));
    result.map_err(|payload| match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => {
            payload.downcast::<&str>().map_or_else(|_| String::new(), |m| m.to_string())
        }
    })
}

/// What the files of a folder take, bytes.
pub(super) fn folder_bytes(folder: &Path) -> Result<u64, StoreError> {
    let mut bytes = 0_u64;
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let found = entry.and_then(|entry| entry.metadata());
        bytes = bytes.saturating_add(found.map_err(io_error("list", folder))?.len());
    }
    Ok(bytes)
}

/// Syncs every file and folder of the store, its names included.
pub(super) fn sync_all(folder: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let entry = entry.map_err(io_error("list", folder))?;
        let path = entry.path();
        if entry.file_type().map_err(io_error("look at", &path))?.is_dir() {
            sync_all(&path)?;
        } else {
            sync(&path)?;
        }
    }
    sync(folder)
}

pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    match File::open(path).and_then(|file| file.sync_all()) {
        Ok(()) => Ok(()),
        // sled tidies up its snapshots while we look.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("sync", path)(error)),
    }
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path: PathBuf = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

fn error_in(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { action: "prepare", path: path.to_owned(), source }
}

/// Left in the store's folder when sled panicked in it.
const PANICKED: &str = "panicked";

/// What sled may keep in memory, bytes.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// How long sled's own lock may outlive its owner.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_survived_and_leaves_its_mark() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let caught = guarded(folder.path(), || -> u8 { panic!("page {} is odd", 7) });
        assert_eq!(caught, Err("page 7 is odd".into()));
        assert!(folder.path().join(PANICKED).exists());
        assert_eq!(guarded(folder.path(), || 7), Ok(7));
    }

    #[test]
    fn an_error_of_the_system_is_no_damage() {
        let no_permission = io::Error::from(io::ErrorKind::PermissionDenied);
        let fatal = sort(sled::Error::Io(no_permission), "open");
        assert!(matches!(fatal, Trouble::Fatal(StoreError::Broken { .. })));
        let torn = sort(sled::Error::Io(io::ErrorKind::UnexpectedEof.into()), "open");
        assert!(matches!(torn, Trouble::Damaged(_)));
    }
}
