//! What a store holds, told without changing it: a copy is opened, and thrown away.
//!
//! Opening a store may mend, migrate or move it aside, which only the daemon and the verbs that say
//! so may do. The lock is held while the copy is made, so that it is that of one moment.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use super::lock::StateLock;
use super::open::{io_error, refuse_another};
use super::witness::Witness;
use super::{DaemonStore, JobStore, StoreError};
use crate::engine::JobId;

/// What a copy of a store showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The jobs in it.
    pub jobs: HashSet<JobId>,
    /// Why it can not be used, if so: it will be moved aside when it is opened, and its jobs be
    /// rebuilt.
    pub damaged: Option<String>,
    /// Bytes that were copied.
    pub bytes: u64,
}

/// Looks into the store of a state folder; `None` if there is none.
///
/// # Errors
/// [`StoreError::Locked`] while a daemon works on it; as for opening it, if it can not be used and
/// is not damaged; [`StoreError::Io`] if it can not be copied.
pub fn look(state: &Path) -> Result<Option<Look>, StoreError> {
    let folder = state.join(DaemonStore::FOLDER);
    let count = Witness::beside(&folder);
    refuse_another(state, DaemonStore::FOLDER)?;
    if !folder.exists() && !count.exists() {
        return Ok(None);
    }
    let lock = StateLock::take(state)?;
    let temporary = std::env::temp_dir();
    let copy = tempfile::tempdir().map_err(io_error("make a folder in", &temporary))?;
    let mut bytes = 0;
    for path in [&folder, &count].into_iter().filter(|path| path.exists()) {
        let name = path.file_name().unwrap_or_default();
        bytes += copy_all(path, &copy.path().join(name)).map_err(io_error("copy", path))?;
    }
    drop(lock);
    let opened = DaemonStore::open(copy.path(), 0)?;
    let mut jobs = HashSet::new();
    opened.store.each_job(&mut |job| {
        jobs.insert(job.head.id);
    })?;
    Ok(Some(Look { jobs, damaged: opened.quarantined.map(|found| found.reason), bytes }))
}

/// Copies a file, or a folder with all that is in it. Answers with the bytes.
fn copy_all(from: &Path, to: &Path) -> io::Result<u64> {
    if !from.is_dir() {
        return fs::copy(from, to);
    }
    fs::create_dir(to)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        bytes += copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All files of a folder, with their contents.
    fn content(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        for entry in fs::read_dir(folder).expect("listed") {
            let path = entry.expect("listed").path();
            match path.is_dir() {
                true => all.extend(content(&path)),
                false => all.push((path.clone(), fs::read(&path).expect("read"))),
            }
        }
        all.sort();
        all
    }

    #[test]
    fn a_store_is_told_without_a_byte_of_it_changed_whether_it_is_whole_or_not() {
        let state = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(look(state.path()).expect("looked"), None);
        drop(DaemonStore::open(state.path(), 0).expect("made"));
        let before = content(state.path());
        let found = look(state.path()).expect("looked").expect("there");
        assert_eq!((found.jobs.len(), found.damaged), (0, None));
        assert_eq!(content(state.path()), before);
        fs::remove_dir_all(state.path().join(DaemonStore::FOLDER)).expect("removed");
        let before = content(state.path());
        let found = look(state.path()).expect("looked").expect("its count is there");
        assert!(found.damaged.is_some());
        assert_eq!(content(state.path()), before);
    }

    #[test]
    fn a_store_in_use_is_left_alone() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let _opened = DaemonStore::open(state.path(), 0).expect("made");
        assert!(matches!(look(state.path()), Err(StoreError::Locked { .. })));
    }
}
