//! Opening a store so that it either is what was saved, or is moved aside.
//!
//! In this order: our lock, no store of another backend, room on the disk, the witness, the backend
//! itself, every record against the sum that was saved with it, and a sync of every file. The
//! witness is a small file beside the store that counts its saves; it is written after each, never
//! synced, so it may be behind the store but not ahead of it. A store that is behind its witness
//! has lost saves and counts as damaged, like one that makes its backend fail or panic. A damaged
//! store is never mended or removed: its folder is renamed, and the new one says so until somebody
//! has made good for it. Errors of the system (no permission, disk full, too many files) are no
//! damage and move nothing.

use std::fs::{self, File};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};
use rustix::io::Errno;

use super::backend::{Backend, DATA, FOLDERS, Trouble};
use super::checked::{CheckedStore, Opened, Quarantine};
use super::layout::{self, Writes};
use super::lock::StateLock;
use super::meta::{Meta, Sum};
use super::migrate::migrate;
use super::reading::{self, Take};
use super::reserve::Reserve;
use super::witness::Witness;
use super::{JobStore, NOTE_QUARANTINED, StoreError};
use crate::failpoint;

/// The layout of keys and of the meta record. A newer one is refused untouched.
pub(super) const SCHEMA: u64 = 1;

/// See [`CheckedStore::open`]; with `take`, the jobs are read meanwhile. The second part of the answer
/// says how that ended, `None` if what was read is not what the store holds now.
pub(super) fn open<B: Backend>(
    state: &Path,
    free_bytes_min: u64,
    take: Option<Take<'_>>,
) -> Result<(Opened<B>, Read), StoreError> {
    fs::create_dir_all(state).map_err(io_error("create folder", state))?;
    let lock = StateLock::take(state)?;
    refuse_another(state, B::FOLDER)?;
    let mut reserve = Reserve::of(state, free_bytes_min);
    reserve.make_room()?;
    moment("open:locked", state)?;
    let folder = state.join(B::FOLDER);
    let witness = Witness::open(&folder)?;
    let reason = match try_open::<B>(&folder, &witness, take) {
        Ok(mut found) => {
            let read = found.read.take();
            let old = found.schema < SCHEMA;
            let (found, read) = if old { (migrate(state, found)?, None) } else { (found, read) };
            let opened = finish(state, found, witness, reserve, lock, &Writes::new())?;
            return Ok((opened, read));
        }
        Err(Trouble::Fatal(error)) => return Err(error),
        Err(Trouble::Damaged(reason)) => reason,
    };
    moment("open:damaged", &folder)?;
    let aside = move_aside(state, B::FOLDER)?;
    moment("open:aside", &folder)?;
    let note = layout::stage_note(NOTE_QUARANTINED, &format!("{aside}\n{reason}"))?;
    let backend = B::open(&folder).map_err(|trouble| trouble.during("begin anew"))?;
    let opened = finish(state, Found::empty(backend), witness, reserve, lock, &note)?;
    Ok((opened, None))
}

/// Jobs that lie in another backend must not be taken for jobs that are gone.
pub(super) fn refuse_another(state: &Path, own: &str) -> Result<(), StoreError> {
    for other in FOLDERS.into_iter().filter(|other| *other != own) {
        let folder = state.join(other);
        if folder.exists() || Witness::beside(&folder).exists() {
            return Err(StoreError::OtherBackend { path: folder });
        }
    }
    Ok(())
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

/// How the reading of the jobs ended, if there was one.
type Read = Option<Result<(), StoreError>>;

/// A store whose records are all there.
pub(super) struct Found<B> {
    pub backend: B,
    pub meta: Meta,
    /// The layout it has.
    pub schema: u64,
    /// Of the jobs that lie in it.
    pub read: Read,
}

impl<B> Found<B> {
    /// A store with nothing in it.
    fn empty(backend: B) -> Found<B> {
        Found { backend, meta: Meta::default(), schema: SCHEMA, read: None }
    }
}

/// Completes the store: its first save if it is new, then a sync of everything.
fn finish<B: Backend>(
    state: &Path,
    found: Found<B>,
    witness: Witness,
    reserve: Reserve,
    lock: StateLock,
    writes: &Writes,
) -> Result<Opened<B>, StoreError> {
    let mut store = CheckedStore {
        backend: found.backend,
        folder: state.join(B::FOLDER),
        meta: found.meta,
        witness,
        reserve,
        broken: None,
        _lock: lock,
    };
    if store.meta.saves == 0 {
        // The first save is counted by the witness, which may reach the disk by itself at any
        // time: by then the store must be there for sure.
        sync_all(&store.folder)?;
        sync(state)?;
    }
    moment("open:checked", state)?;
    store.commit(writes)?;
    moment("open:committed", state)?;
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
fn try_open<B: Backend>(
    folder: &Path,
    witness: &Witness,
    take: Option<Take<'_>>,
) -> Result<Found<B>, Trouble> {
    if witness.saves > 0 && !folder.join(DATA).exists() {
        return Err(Trouble::Damaged(format!("it is gone after {} saves", witness.saves)));
    }
    if folder.join(PANICKED).exists() {
        return Err(Trouble::Damaged(
            "the backend panicked when it was opened the last time".into(),
        ));
    }
    guarded(folder, || check(B::open(folder)?, folder, witness, take)).unwrap_or_else(|message| {
        Err(match is_of_the_system(&message) {
            true => Trouble::Fatal(StoreError::Broken { action: "open", reason: message }),
            false => Trouble::Damaged(format!("the backend panicked: {message}")),
        })
    })
}

/// Compares every record with the sum saved, and the number of saves with the witness.
fn check<B: Backend>(
    backend: B,
    folder: &Path,
    witness: &Witness,
    take: Option<Take<'_>>,
) -> Result<Found<B>, Trouble> {
    let mut sum = Sum::default();
    let mut saved = None;
    let mut note = |key: &[u8], value: &B::Value| match key == Meta::KEY.as_bytes() {
        true => saved = Some(value.as_ref().to_vec()),
        false => sum.put_in(key, value.as_ref()),
    };
    let read = match take {
        Some(take) => Some(reading::beside(backend.starting_with(""), note, take)?),
        None => {
            for entry in backend.starting_with("") {
                let (key, value) = entry?;
                note(&key, &value);
            }
            None
        }
    };
    let Some(saved) = saved else {
        if witness.saves == 0 && sum == Sum::default() {
            return Ok(Found::empty(backend));
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
    Ok(Found { backend, meta, schema, read })
}

/// A moment between two steps: empty, but for tests.
fn moment(name: &str, path: &Path) -> Result<(), StoreError> {
    failpoint::at(name).map_err(io_error("go on with", path))
}

/// Renames the store's folder into a new `quarantine-N`, and returns that name.
fn move_aside(state: &Path, own: &str) -> Result<String, StoreError> {
    let name = new_folder(state, "quarantine")?;
    let target = state.join(&name).join(own);
    match renameat_with(CWD, state.join(own), CWD, &target, RenameFlags::NOREPLACE) {
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
/// mark in the folder that the next start finds, unless the panic was about an error of the system.
fn guarded<T>(folder: &Path, work: impl FnOnce() -> T) -> Result<T, String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let usual = Arc::new(panic::take_hook());
    let (then, mark, here) = (usual.clone(), folder.join(PANICKED), thread::current().id());
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == here && !is_of_the_system(&said(info.payload())) {
            // The panic is what gets reported; without the mark it is only found again.
            drop(File::create(&mark));
        }
        then(info);
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(Box::new(move |info| usual(info)));
    result.map_err(|payload| said(payload.as_ref()))
}

/// What a panic said.
fn said(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
}

/// Whether a panic is only how sled takes an error of the system: it unwraps some of them.
fn is_of_the_system(message: &str) -> bool {
    message.contains("Os { code: ")
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
        // A backend may tidy up while we look.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("sync", path)(error)),
    }
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path: PathBuf = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

/// Left in the store's folder when the backend panicked in it.
const PANICKED: &str = "panicked";

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
    fn too_little_room_is_refused_and_enough_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let refused = check_space(folder.path(), u64::MAX).expect_err("nobody has so much");
        assert!(matches!(refused, StoreError::NoSpace { needed_bytes: u64::MAX, .. }), "{refused}");
        check_space(folder.path(), 0).expect("there is always that much");
    }

    #[test]
    fn a_new_folder_has_the_first_number_that_is_free() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for expected in ["kind-1", "kind-2", "kind-3"] {
            assert_eq!(new_folder(folder.path(), "kind").expect("made"), expected);
        }
        assert!(new_folder(&folder.path().join("gone"), "kind").is_err());
    }

    #[test]
    fn what_a_folder_takes_is_the_sum_of_its_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, bytes) in [("a", 7), ("b", 0), ("c", 700)] {
            let file = File::create(folder.path().join(name)).expect("made");
            file.set_len(bytes).expect("set");
        }
        assert_eq!(folder_bytes(folder.path()).expect("counted"), 707);
    }

    #[test]
    fn what_can_not_be_synced_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        sync_all(folder.path()).expect("an empty one");
        assert!(sync_all(&folder.path().join("gone")).is_err());
        let nowhere = folder.path().join("inside");
        std::fs::create_dir(&nowhere).expect("made");
        std::os::unix::fs::symlink("link", nowhere.join("link")).expect("made");
        assert!(sync_all(folder.path()).is_err(), "nor what lies further down");
    }

    /// Fault 29.
    #[test]
    fn a_panic_about_an_error_of_the_system_is_no_damage() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let failed = |code| -> io::Result<u8> { Err(io::Error::from_raw_os_error(code)) };
        let caught = guarded(folder.path(), || failed(5).unwrap()).expect_err("it panicked");
        assert!(is_of_the_system(&caught), "{caught}");
        assert!(!folder.path().join(PANICKED).exists());
    }
}
