//! Takes an input out of the inbox and into the working folder of its job.
//!
//! The rename is the commit: as long as the file is in the inbox it is not ours, afterwards it
//! is. Doing it again after a crash finds the file where it is. Whether it still is a regular
//! file is looked at again after the move, since until then others could exchange it; planning
//! refuses what is not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::archive;
use super::durable::{self, Moved};
use super::source;
use super::{At, Folders, SpoolError, moment};
use crate::engine::ids::JobId;
use crate::engine::job::Source;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// The file was moved.
    Now,
    /// It had been moved before.
    Already,
    /// It is neither in the inbox nor in the working folder.
    Vanished,
}

/// Moves an input from the inbox to `working/<job>/input/`, durably, its content included.
///
/// # Errors
/// If a part of the source's path is not fit for one, leads through a symbolic link, or the
/// move fails. Nothing is lost then: the file is in the one place or in the other.
pub fn claim(folders: &Folders, job: JobId, source: &Source) -> Result<Claimed, SpoolError> {
    let claimed = move_in(folders, job, source)?;
    if claimed == Claimed::Vanished {
        // A claim that came as far as the folder was interrupted before the file went away.
        archive::remove_working(folders, job)?;
    }
    Ok(claimed)
}

fn move_in(folders: &Folders, job: JobId, source: &Source) -> Result<Claimed, SpoolError> {
    let target = folders.job(job).input(&source.name);
    source::check_source(source).at("claim", &target)?;
    if fs::symlink_metadata(&target).is_ok() {
        take_sidecar(folders, job, source)?;
        sync_claimed(folders, job, source)?;
        give_up_old_name(folders, &target, source)?;
        return Ok(Claimed::Already);
    }
    let Some(parent) = folder_below(&folders.inbox, &source.folder)? else {
        return Ok(Claimed::Vanished);
    };
    let input = parent.join(&source.name);
    if !input.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return Ok(Claimed::Vanished);
    }
    let folder = folders.job(job).path;
    durable::make_folder(&folders.working)?;
    durable::make_folders(&folder, &["input", "answers", "out"])?;
    moment("claim:folders", &folder)?;
    if device(&parent)? != device(&folder)? {
        // The move is a copy, which removes the source at its end.
        durable::sync_folder(&folder)?;
        durable::sync_folder(&folders.working)?;
    }
    match durable::move_unsynced(&input, &target)? {
        Moved::Now => {
            moment("claim:moved", &target)?;
            take_sidecar(folders, job, source)?;
            sync_claimed(folders, job, source)?;
            Ok(Claimed::Now)
        }
        Moved::Taken => Ok(Claimed::Already),
        Moved::NoSource => Ok(Claimed::Vanished),
    }
}

/// Moves the settings that lie beside an input after it: they are saved with the job already. An
/// input that is not ours yet must not lie there without them.
fn take_sidecar(folders: &Folders, job: JobId, source: &Source) -> Result<(), SpoolError> {
    let Some(name) = &source.sidecar else { return Ok(()) };
    let Some(parent) = folder_below(&folders.inbox, &source.folder)? else { return Ok(()) };
    let target = folders.job(job).sidecar(&source.name);
    let sidecar = parent.join(name);
    // Taken: it was moved before, and another one was put there since. Its owner may also have
    // taken it away.
    if sidecar.symlink_metadata().is_ok_and(|found| found.is_file()) {
        durable::move_unsynced(&sidecar, &target)?;
    }
    moment("claim:sidecar", &target)
}

/// Makes a claim durable, the content included: whoever dropped the file need not have synced it,
/// and from now on we answer for it. All syncs come after all changes, so that the first writes
/// everything and the others have next to nothing left to do. The inbox is the last: the input
/// has its new place before it loses the old one.
fn sync_claimed(folders: &Folders, job: JobId, source: &Source) -> Result<(), SpoolError> {
    let (folder, input) = (folders.job(job), folders.job(job).input(&source.name));
    match source::open(&input).at("open", &input)? {
        // The system tells of a failed sync once, and takes what it could not write for written.
        source::Opened::File(_) => {
            durable::sync_file(&input).or_else(|_| durable::write_again(&input))?;
        }
        source::Opened::Special(_) | source::Opened::Unreadable | source::Opened::Missing => {}
    }
    let sidecar = folder.sidecar(&source.name);
    if source.sidecar.is_some() && sidecar.is_file() {
        durable::sync_file(&sidecar)?;
    }
    durable::sync_folder(&folder.path.join("input"))?;
    durable::sync_folder(&folder.path)?;
    durable::sync_folder(&folders.working)?;
    match folder_below(&folders.inbox, &source.folder)? {
        Some(inbox) => durable::sync_folder(&inbox),
        None => Ok(()),
    }
}

/// A crash in the middle of a claim can leave the input in the inbox too: on file systems without a
/// journal a power cut may keep both of its names, and a move to another file system is a copy
/// first. There it would be found again, as a second file of the same content.
fn give_up_old_name(folders: &Folders, target: &Path, source: &Source) -> Result<(), SpoolError> {
    let Some(parent) = folder_below(&folders.inbox, &source.folder)? else { return Ok(()) };
    let old = parent.join(&source.name);
    if !old.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    let is_copy = || -> Result<bool, SpoolError> {
        Ok(device(&parent)? != device(&folders.working)?
            && is_older(&old, target)?
            && durable::same_content(&old, target)?)
    };
    if durable::is_same_file(&old, target)? || is_copy()? {
        fs::remove_file(&old).at("remove", &old)?;
        durable::sync_folder(&parent)?;
    }
    Ok(())
}

/// Whether a file got its name and its last change before another. One that did not may have been
/// dropped again; in one tick of the clock that can not be told.
fn is_older(file: &Path, than: &Path) -> Result<bool, SpoolError> {
    let changed = |path: &Path| -> Result<(i64, i64), SpoolError> {
        let metadata = fs::symlink_metadata(path).at("look at", path)?;
        Ok((metadata.ctime(), metadata.ctime_nsec()))
    };
    Ok(changed(file)? < changed(than)?)
}

fn device(path: &Path) -> Result<u64, SpoolError> {
    Ok(fs::metadata(path).at("look at", path)?.dev())
}

/// The path of a sub-folder, if every part of it is a real folder; `None` if it is not there.
///
/// # Errors
/// If a part is something else than a folder, such as a symbolic link.
pub(super) fn folder_below(root: &Path, folder: &str) -> Result<Option<PathBuf>, SpoolError> {
    let mut path = root.to_owned();
    for part in folder.split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                let error = std::io::Error::other("it is not a folder");
                return Err(error).at("go through", &path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("look at", &path),
        }
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests drop files as people do")]

    use super::*;

    fn spool() -> (tempfile::TempDir, Folders, JobId) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders::below(folder.path());
        fs::create_dir_all(folders.inbox.join("sub")).expect("an inbox");
        let job = "01JD0000000000000000000000".parse().expect("an id");
        (folder, folders, job)
    }

    fn source(folder: &str, name: &str) -> Source {
        Source { folder: folder.to_owned(), name: name.to_owned(), bytes: 1, sidecar: None }
    }

    #[test]
    fn a_claim_moves_the_file_once_and_knows_it_when_asked_again() {
        let (_folder, folders, job) = spool();
        let source = source("sub", "a.jsonl");
        fs::write(folders.inbox.join("sub/a.jsonl"), "one").expect("written");
        assert_eq!(claim(&folders, job, &source).expect("claimed"), Claimed::Now);
        assert_eq!(claim(&folders, job, &source).expect("claimed"), Claimed::Already);
        fs::write(folders.inbox.join("sub/a.jsonl"), "another").expect("written");
        assert_eq!(claim(&folders, job, &source).expect("claimed"), Claimed::Already);
        let content = fs::read(folders.job(job).input("a.jsonl")).expect("there");
        assert_eq!(content, b"one");
        assert!(folders.inbox.join("sub/a.jsonl").exists(), "the other file waits its turn");
    }

    /// Fault 10.
    #[test]
    fn an_input_that_a_power_cut_left_in_the_inbox_too_is_not_taken_twice() {
        let (_folder, folders, job) = spool();
        let (source, old) = (source("sub", "a.jsonl"), folders.inbox.join("sub/a.jsonl"));
        fs::write(&old, "one").expect("written");
        assert_eq!(claim(&folders, job, &source).expect("claimed"), Claimed::Now);
        let target = folders.job(job).input("a.jsonl");
        fs::hard_link(&target, &old).expect("both names");
        assert_eq!(claim(&folders, job, &source).expect("claimed"), Claimed::Already);
        assert!(!old.exists() && target.exists());
    }

    #[test]
    fn of_an_inbox_on_another_disk_only_the_copy_that_was_taken_is_removed() {
        let (_folder, mut folders, job) = spool();
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
            eprintln!("skipped: there is no /dev/shm");
            return;
        };
        folders.inbox = elsewhere.path().to_owned();
        let (source, old) = (source("", "a.jsonl"), folders.inbox.join("a.jsonl"));
        fs::write(&old, "one").expect("written");
        // A kill came between the copy and the removal of what was copied.
        durable::make_folder(&folders.working).expect("made");
        durable::make_folders(&folders.job(job).path, &["input"]).expect("made");
        let taken = folders.job(job).input("a.jsonl");
        fs::write(&taken, "one").expect("written");
        while !is_older(&old, &taken).expect("both are there") {
            // The clock of files goes in ticks.
            fs::write(&taken, "one").expect("written");
        }
        assert_eq!(claim(&folders, job, &source).expect("claimed"), Claimed::Already);
        assert!(!old.exists());
        fs::write(&old, "one").expect("dropped again");
        assert_eq!(claim(&folders, job, &source).expect("claimed"), Claimed::Already);
        assert!(old.exists(), "it waits its turn");
    }

    #[test]
    fn a_file_that_went_away_leaves_no_working_folder() {
        let (_folder, folders, job) = spool();
        for source in [source("sub", "a.jsonl"), source("gone", "a.jsonl")] {
            assert_eq!(claim(&folders, job, &source).expect("asked"), Claimed::Vanished);
        }
        assert!(!folders.job(job).path.exists());
    }

    #[test]
    fn a_file_that_went_away_after_a_claim_began_leaves_no_working_folder() {
        let (_folder, folders, job) = spool();
        fs::create_dir_all(folders.job(job).path.join("input")).expect("as far as it came");
        let outcome = claim(&folders, job, &source("", "gone.jsonl")).expect("asked");
        assert_eq!(outcome, Claimed::Vanished);
        assert!(!folders.job(job).path.exists());
    }

    #[test]
    fn a_path_never_leaves_the_inbox() {
        let (_folder, folders, job) = spool();
        fs::create_dir(folders.inbox.with_file_name("private")).expect("a folder");
        fs::write(folders.inbox.with_file_name("private").join("a.jsonl"), "x").expect("written");
        std::os::unix::fs::symlink("../private", folders.inbox.join("link")).expect("a link");
        for source in [
            source("../private", "a.jsonl"),
            source("link", "a.jsonl"),
            source("", "../private/a.jsonl"),
            source("sub//x", "a.jsonl"),
            source("/etc", "passwd"),
        ] {
            assert!(claim(&folders, job, &source).is_err(), "{source:?}");
        }
        assert!(folders.inbox.with_file_name("private").join("a.jsonl").exists());
    }

    /// Fault 42.
    #[test]
    fn a_link_in_place_of_the_file_is_not_taken() {
        let (_folder, folders, job) = spool();
        std::os::unix::fs::symlink("/etc/passwd", folders.inbox.join("a.jsonl")).expect("a link");
        let outcome = claim(&folders, job, &source("", "a.jsonl")).expect("asked");
        assert_eq!(outcome, Claimed::Vanished);
    }
}
