//! Writes that outlive a power cut: every rename into its place, and every sync but those of files
//! that grow or are changed in place (steady.rs, receiver.rs, outcomes.rs).
//!
//! A file comes into being under a name of ours beside its target, is synced, and only then gets
//! its real name; the folder is synced after. Nothing that exists is ever overwritten, except
//! by [`replace`], which says so.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;

use super::joint::Joint;
use super::{At, SpoolError, moment, whole_folder};

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

/// Syncs a folder, so that names in it are durable: together with everybody who asks for the same.
///
/// # Errors
/// If it can not be opened or synced.
pub fn sync_folder(path: &Path) -> Result<(), SpoolError> {
    static JOINT: Joint = Joint::new();
    let sync = || File::open(path).and_then(|folder| folder.sync_all());
    JOINT.sync(path, sync).at("sync", path)
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
        Err(Errno::EXIST) => finish_linked(source, target),
        Err(Errno::XDEV) => copy_across(source, target),
        // NFS and some others know no such rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_over(source, target),
        Err(errno) => Err(io::Error::from(errno)).at("move to", target),
    }
}

/// The move for file systems that know no rename without overwriting: a second name, which is
/// refused if it is taken, and then the first one goes. The second is durable before that.
fn link_over(source: &Path, target: &Path) -> Result<Moved, SpoolError> {
    match linkat(CWD, source, CWD, target, AtFlags::empty()) {
        Ok(()) => {
            target.parent().map_or(Ok(()), sync_folder)?;
            fs::remove_file(source).at("remove", source)?;
            Ok(Moved::Now)
        }
        Err(Errno::NOENT) if fs::symlink_metadata(source).is_err() => Ok(Moved::NoSource),
        Err(Errno::EXIST) => finish_linked(source, target),
        Err(Errno::XDEV) => copy_across(source, target),
        // A folder, or a file system without second names: a look before the rename is all there
        // is. Among ourselves one lock makes it as good; nobody else makes names of ours.
        Err(_) => look_and_rename(source, target),
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that renames")]
fn look_and_rename(source: &Path, target: &Path) -> Result<Moved, SpoolError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match fs::symlink_metadata(source) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Moved::NoSource),
        Ok(_) | Err(_) => {}
    }
    if fs::symlink_metadata(target).is_ok() {
        return Ok(Moved::Taken);
    }
    fs::rename(source, target).at("move to", target).map(|()| Moved::Now)
}

/// The target is taken. If it is the very file that is to be moved, a crash came between its two
/// names, and only the old one is left to be removed.
fn finish_linked(source: &Path, target: &Path) -> Result<Moved, SpoolError> {
    let is_linked = source != target && is_same_file(source, target).unwrap_or(false);
    if !is_linked || fs::symlink_metadata(source).is_ok_and(|found| found.is_dir()) {
        return Ok(Moved::Taken);
    }
    target.parent().map_or(Ok(()), sync_folder)?;
    fs::remove_file(source).at("remove", source)?;
    Ok(Moved::Now)
}

/// Whether two names are those of one file: a power cut in the middle of a move can leave it so,
/// on file systems without a journal. Such a move is completed by the next one.
///
/// # Errors
/// If one of them can not be looked at.
pub fn is_same_file(one: &Path, other: &Path) -> Result<bool, SpoolError> {
    let look = |path| fs::symlink_metadata(path).at("look at", path);
    let (one, other) = (look(one)?, look(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Whether two files hold the same bytes.
///
/// # Errors
/// If one of them can not be read.
pub fn same_content(one: &Path, other: &Path) -> Result<bool, SpoolError> {
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

/// Writes a file whole or not at all, replacing an older version of the same file of ours.
///
/// # Errors
/// If it can not be written, synced or renamed; the older version is untouched then.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), SpoolError> {
    let aside = aside(path);
    write_synced(&aside, content, READABLE)?;
    rename(&aside, path)
}

/// As [`replace`], for what is a secret: nobody but the owner can read it at any moment.
///
/// # Errors
/// As those of [`replace`].
pub fn replace_secret(path: &Path, content: &[u8]) -> Result<(), SpoolError> {
    let aside = aside(path);
    write_synced(&aside, content, SECRET)?;
    rename(&aside, path)
}

/// Puts a synced copy in the place of a file whose sync failed: what is read of it now may be in
/// memory only, and not be told from what is on the disk.
///
/// # Errors
/// If it can not be read, or the copy not be written, synced or renamed.
pub fn write_again(path: &Path) -> Result<(), SpoolError> {
    let aside = aside(path);
    if let Err(error) = copy_synced(path, &aside) {
        drop(fs::remove_file(&aside));
        return Err(error);
    }
    rename(&aside, path)
}

/// Writes a new file, durably, without ever overwriting.
///
/// # Errors
/// If it can not be written, synced or renamed.
pub fn create(path: &Path, content: &[u8]) -> Result<Moved, SpoolError> {
    let aside = aside(path);
    write_synced(&aside, content, READABLE)?;
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
pub fn rename(source: &Path, target: &Path) -> Result<(), SpoolError> {
    rename_unsynced(source, target)?;
    sync_parents(source, target)
}

/// The same, but the name is only durable when the caller has synced the folder, which both are in.
///
/// # Errors
/// If the rename fails.
#[expect(clippy::disallowed_methods, reason = "the one place that renames")]
pub fn rename_unsynced(source: &Path, target: &Path) -> Result<(), SpoolError> {
    moment("disk:written", source)?;
    fs::rename(source, target).at("rename to", target)?;
    moment("disk:renamed", target)
}

/// Writes a file of ours. What can not be written whole is removed: a full disk is not made fuller
/// by what is written again anyway.
fn write_synced(path: &Path, content: &[u8], mode: u32) -> Result<(), SpoolError> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(path).at("write", path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if written.is_err() {
        drop(fs::remove_file(path));
    }
    written.at("write", path)
}

fn copy_across(source: &Path, target: &Path) -> Result<Moved, SpoolError> {
    copy_and(source, target, || {})
}

/// As [`copy_across`]; `meanwhile` comes between the copy and the removal of the source.
fn copy_and(source: &Path, target: &Path, meanwhile: impl FnOnce()) -> Result<Moved, SpoolError> {
    // Between file systems the system says only that, and not that there is nothing to be moved.
    match fs::symlink_metadata(source) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Moved::NoSource),
        Ok(_) | Err(_) => {}
    }
    if source.is_dir() {
        return whole_folder::copy_across(source, target);
    }
    let aside = aside(target);
    let (mut from, mut to) = copy_synced(source, &aside).inspect_err(|_| {
        drop(fs::remove_file(&aside));
    })?;
    let moved = move_file(&aside, target)?;
    if moved == Moved::Now {
        moment("copy:named", target)?;
        meanwhile();
        fs::remove_file(source).at("remove", source)?;
        // Whoever still writes does so into a file without a name: until now, it can be had.
        if io::copy(&mut from, &mut to).at("write", target)? > 0 {
            to.sync_all().at("sync", target)?;
        }
        source.parent().map_or(Ok(()), sync_folder)?;
    } else {
        fs::remove_file(&aside).at("remove", &aside)?;
    }
    Ok(moved)
}

/// Completes a copy to another file system that was interrupted when the target had its name and
/// the source was still there; `false` if the target is something else. Whoever asks knows that
/// the target, if it holds the same, is that copy.
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
    fs::remove_file(source).at("remove", source)?;
    source.parent().map_or(Ok(()), sync_folder)?;
    Ok(true)
}

/// Copies a file; answers with both, each at its end.
pub(super) fn copy_synced(source: &Path, aside: &Path) -> Result<(File, File), SpoolError> {
    let mut from = File::open(source).at("read", source)?;
    let mut to = File::create(aside).at("write", aside)?;
    let copied = io::copy(&mut from, &mut to).at("write", aside)?;
    moment("copy:written", aside)?;
    to.sync_all().at("sync", aside)?;
    let expected = from.metadata().at("read", source)?.len();
    if copied != expected {
        let error = io::Error::other(format!("copied {copied} of {expected} bytes"));
        return Err(error).at("copy to", aside);
    }
    Ok((from, to))
}

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
pub(super) fn aside(path: &Path) -> std::path::PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    path.with_file_name(format!(".{name}.aside"))
}

/// The mode of what others may read, before the umask.
const READABLE: u32 = 0o666;
/// The mode of what only its owner may read.
const SECRET: u32 = 0o600;
/// Bytes compared at once.
const READ_BYTES: u64 = 256 * 1024;

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
    fn a_move_that_a_power_cut_left_under_both_names_is_completed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        create(&a, b"one").expect("written");
        fs::hard_link(&a, &b).expect("both names");
        assert_eq!(move_file(&a, &b).expect("asked"), Moved::Now);
        assert_eq!(fs::read(&b).expect("there"), b"one");
        assert!(!a.exists());
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
    fn without_such_a_rename_a_move_never_overwrites_either() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        for by in [link_over, look_and_rename] {
            create(&a, b"one").expect("written");
            create(&b, b"two").expect("written");
            assert_eq!(by(&a, &b).expect("asked"), Moved::Taken);
            assert_eq!(fs::read(&b).expect("there"), b"two");
            fs::remove_file(&b).expect("removed");
            assert_eq!(by(&a, &b).expect("asked"), Moved::Now);
            assert_eq!(fs::read(&b).expect("there"), b"one");
            assert_eq!(by(&a, &b).expect("asked"), Moved::NoSource);
            fs::remove_file(&b).expect("removed");
            create(&a, b"one").expect("written");
            assert!(by(&a, &folder.path().join("no/b")).is_err());
            fs::remove_file(&a).expect("removed");
        }
    }

    /// Fault 39.
    #[test]
    fn what_is_written_to_a_file_while_it_is_copied_to_another_disk_comes_along() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        create(&a, b"one\n").expect("written");
        let mut writer = File::options().append(true).open(&a).expect("opened");
        let moved = copy_and(&a, &b, || writer.write_all(b"two\n").expect("written"));
        assert_eq!(moved.expect("moved"), Moved::Now);
        assert_eq!(fs::read(&b).expect("there"), b"one\ntwo\n");
        assert!(!a.exists());
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
