//! Writes that outlive a power cut: every rename into its place, and every sync but those of files
//! that grow or are changed in place (steady.rs, receiver.rs, outcomes.rs).
//!
//! A file comes into being under a name of ours beside its target, is synced, and only then gets
//! its real name; the folder is synced after. Nothing that exists is ever overwritten, except
//! by [`replace`], which says so.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{At, SpoolError, moment};

/// What became of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The file has its new name, durably.
    Now,
    /// The source is not there.
    NoSource,
    /// The target name is taken; nothing was changed.
    Taken,
}

/// Syncs a file's content.
///
/// # Errors
/// If it can not be opened or synced.
pub fn sync_file(path: &Path) -> Result<(), SpoolError> {
    File::open(path).and_then(|file| file.sync_all()).at("sync", path)
}

/// Syncs a folder, so that names in it are durable.
///
/// # Errors
/// If it can not be opened or synced.
pub fn sync_folder(path: &Path) -> Result<(), SpoolError> {
    File::open(path).and_then(|folder| folder.sync_all()).at("sync", path)
}

/// Makes a folder and its parents, durably.
///
/// # Errors
/// If one of them can not be made or synced.
pub fn make_folder(path: &Path) -> Result<(), SpoolError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(error).at("create folder", path),
    }
    moment("disk:folder", path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// The same for a folder that lasts longer than a job. If it is there already, a process that was
/// killed may have made it without a sync: that is made good for, once in this process.
///
/// # Errors
/// As [`make_folder`].
pub fn make_lasting_folder(path: &Path) -> Result<(), SpoolError> {
    static SYNCED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if SYNCED.lock().unwrap_or_else(PoisonError::into_inner).contains(path) {
        return make_folder(path);
    }
    if let Some(parent) = path.parent().filter(|_| path.is_dir()) {
        match sync_folder(parent) {
            // Whoever may not look into the parent has not made the folder either.
            Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    make_folder(path)?;
    SYNCED.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    Ok(())
}

/// Makes a folder and some within it. They are durable when the caller has synced the folder and
/// its parent.
///
/// # Errors
/// If one of them can not be made.
pub fn make_folders(folder: &Path, within: &[&str]) -> Result<(), SpoolError> {
    let all = [folder.to_owned()].into_iter().chain(within.iter().map(|name| folder.join(name)));
    for path in all {
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err(error).at("create folder", &path),
        }
    }
    Ok(())
}

/// Finds out whether files can be made in a folder.
///
/// # Errors
/// If not, with the reason.
pub fn try_writing(folder: &Path) -> Result<(), SpoolError> {
    // Without a name where that can be had: killed right now, we leave nothing behind.
    tempfile::tempfile_in(folder).map(drop).at("write into", folder)
}

/// Gives `source` the name `target`, without ever overwriting. The content must be synced
/// already. Across file systems the content is copied, synced, compared, and the source removed.
///
/// # Errors
/// If the rename or the copy fails for another reason than those in [`Moved`].
pub fn move_file(source: &Path, target: &Path) -> Result<Moved, SpoolError> {
    let moved = move_unsynced(source, target)?;
    if moved == Moved::Now {
        moment("disk:moved", target)?;
        sync_parents(source, target)?;
    }
    Ok(moved)
}

/// The same, but the names are only durable when the caller has synced both folders: for several
/// moves one after the other, of which a power cut may keep any.
///
/// # Errors
/// As [`move_file`].
pub fn move_unsynced(source: &Path, target: &Path) -> Result<Moved, SpoolError> {
    match renameat_with(CWD, source, CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Moved::Now),
        Err(Errno::NOENT) if fs::symlink_metadata(source).is_err() => Ok(Moved::NoSource),
        Err(Errno::EXIST) => Ok(Moved::Taken),
        Err(Errno::XDEV) => copy_across(source, target),
        Err(errno) => Err(io::Error::from(errno)).at("move to", target),
    }
}

/// Whether two names are those of one file: a power cut in the middle of a move can leave it so,
/// on file systems without a journal.
///
/// # Errors
/// If one of them can not be looked at.
pub fn is_same_file(one: &Path, other: &Path) -> Result<bool, SpoolError> {
    let look = |path| fs::symlink_metadata(path).at("look at", path);
    let (one, other) = (look(one)?, look(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Writes a file whole or not at all, replacing an older version of the same file of ours.
///
/// # Errors
/// If it can not be written, synced or renamed; the older version is untouched then.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), SpoolError> {
    let aside = aside(path);
    let mut file = File::create(&aside).at("write", &aside)?;
    file.write_all(content).and_then(|()| file.sync_all()).at("write", &aside)?;
    rename(&aside, path)
}

/// Writes a new file, durably, without ever overwriting.
///
/// # Errors
/// If it can not be written, synced or renamed.
pub fn create(path: &Path, content: &[u8]) -> Result<Moved, SpoolError> {
    let aside = aside(path);
    let mut file = File::create(&aside).at("write", &aside)?;
    file.write_all(content).and_then(|()| file.sync_all()).at("write", &aside)?;
    let moved = move_file(&aside, path)?;
    if moved == Moved::Taken {
        fs::remove_file(&aside).at("remove", &aside)?;
    }
    Ok(moved)
}

/// Gives a synced file of ours its final name, replacing an older version of ours.
///
/// # Errors
/// If the rename or the sync of the folder fails.
#[expect(clippy::disallowed_methods, reason = "the one place that renames")]
pub fn rename(source: &Path, target: &Path) -> Result<(), SpoolError> {
    moment("disk:written", source)?;
    fs::rename(source, target).at("rename to", target)?;
    moment("disk:renamed", target)?;
    sync_parents(source, target)
}

fn copy_across(source: &Path, target: &Path) -> Result<Moved, SpoolError> {
    let aside = aside(target);
    let mut from = File::open(source).at("read", source)?;
    let mut to = File::create(&aside).at("write", &aside)?;
    let copied = io::copy(&mut from, &mut to).at("write", &aside)?;
    // By its time a copy is known as one, should we die before the source is removed.
    let modified = from.metadata().and_then(|found| found.modified()).at("read", source)?;
    to.set_modified(modified).at("write", &aside)?;
    moment("copy:written", &aside)?;
    to.sync_all().at("sync", &aside)?;
    let expected = from.metadata().at("read", source)?.len();
    if copied != expected {
        let error = io::Error::other(format!("copied {copied} of {expected} bytes"));
        return Err(error).at("copy to", target);
    }
    let moved = move_file(&aside, target)?;
    if moved == Moved::Now {
        moment("copy:named", target)?;
        remove_copied(source)?;
    } else {
        fs::remove_file(&aside).at("remove", &aside)?;
    }
    Ok(moved)
}

/// Completes a copy to another file system that was interrupted when the target had its name and
/// the source was still there; `false` if the target is something else. Whoever asks knows that
/// the target, if it is ours, is that copy.
///
/// # Errors
/// If they can not be compared, or the source can not be removed.
pub fn complete_copy(source: &Path, target: &Path) -> Result<bool, SpoolError> {
    let (Ok(ours), Ok(theirs)) = (fs::symlink_metadata(source), fs::symlink_metadata(target))
    else {
        return Ok(false);
    };
    let both_files = ours.is_file() && theirs.is_file();
    if !both_files || ours.dev() == theirs.dev() || !same_content(source, target)? {
        return Ok(false);
    }
    target.parent().map_or(Ok(()), sync_folder)?;
    remove_copied(source)?;
    Ok(true)
}

fn remove_copied(source: &Path) -> Result<(), SpoolError> {
    fs::remove_file(source).at("remove", source)?;
    source.parent().map_or(Ok(()), sync_folder)
}

fn same_content(one: &Path, other: &Path) -> Result<bool, SpoolError> {
    let ours = fs::symlink_metadata(one).at("look at", one)?;
    let theirs = fs::symlink_metadata(other).at("look at", other)?;
    if !theirs.is_file() || ours.len() != theirs.len() {
        return Ok(false);
    }
    let mut left = File::open(one).at("read", one)?;
    let mut right = File::open(other).at("read", other)?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    loop {
        a.clear();
        b.clear();
        (&mut left).take(READ_BYTES).read_to_end(&mut a).at("read", one)?;
        (&mut right).take(READ_BYTES).read_to_end(&mut b).at("read", other)?;
        if a != b || a.is_empty() {
            return Ok(a == b);
        }
    }
}

/// Bytes compared at once.
const READ_BYTES: u64 = 256 * 1024;

fn sync_parents(source: &Path, target: &Path) -> Result<(), SpoolError> {
    if let Some(parent) = target.parent() {
        sync_folder(parent)?;
    }
    match source.parent() {
        Some(parent) if Some(parent) != target.parent() => sync_folder(parent),
        Some(_) | None => Ok(()),
    }
}

/// The name a file has while it is written: hidden, beside its target.
fn aside(path: &Path) -> std::path::PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    path.with_file_name(format!(".{name}.aside"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_never_overwrites() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        create(&a, b"one").expect("written");
        create(&b, b"two").expect("written");
        assert_eq!(move_file(&a, &b).expect("asked"), Moved::Taken);
        assert_eq!(fs::read(&b).expect("there"), b"two");
        assert_eq!(fs::read(&a).expect("there"), b"one");
    }

    #[test]
    fn a_missing_source_is_told_apart_from_a_missing_target_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (a, b) = (folder.path().join("a"), folder.path().join("no/b"));
        assert_eq!(move_file(&a, &folder.path().join("b")).expect("asked"), Moved::NoSource);
        create(&a, b"one").expect("written");
        assert!(move_file(&a, &b).is_err());
    }

    #[test]
    fn replacing_leaves_no_file_aside() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let a = folder.path().join("a");
        replace(&a, b"one").expect("written");
        replace(&a, b"two").expect("written");
        assert_eq!(fs::read(&a).expect("there"), b"two");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    }
}
