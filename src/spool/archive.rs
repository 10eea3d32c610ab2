//! The end of a job's files: the input goes to the archive, the working folder goes away.
//!
//! Every step can be repeated: a missing source means it was done. A working folder that still
//! holds an input is never removed, and folders that belong to no job are reported, not touched.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::durable::{self, Moved};
use super::free_name::{NAME_MAX, first_free, is_free, split, sub_folder};
use super::{At, Folders, SpoolError, moment, sidecar};
use crate::engine::ids::{JobId, Millis};
use crate::engine::job::Job;

/// Moves the input of a job to the archive, under its own name or with `~2`, `~3`, …; its
/// modification time becomes the time of the move, from which retention counts.
///
/// # Errors
/// If the archive can not be written.
pub fn archive_input(folders: &Folders, job: &Job) -> Result<(), SpoolError> {
    let name = &job.head.source.name;
    let input = folders.job(job.head.id).input(name);
    let folder = sub_folder(&folders.archive, &job.head.source.folder)?;
    if is_free(&input)? {
        // It was moved before a crash, perhaps only until the next power cut.
        return if folder.is_dir() { durable::sync_folder(&folder) } else { Ok(()) };
    }
    durable::make_lasting_folder(&folder)?;
    let (stem, ending) = split(name);
    let own = folder.join(name);
    if !is_free(&own)? && durable::complete_copy(&input, &own)? {
        return Ok(());
    }
    touch(&input)?;
    if !is_free(&own)? && durable::is_same_file(&input, &own)? {
        return fs::remove_file(&input).at("remove", &input);
    }
    // Room is left for the hidden name under which a copy from another file system is made.
    let room = NAME_MAX - sidecar::ENDING.len() - ending.len() - "..aside".len();
    loop {
        let free = |stem: &str| is_free(&folder.join(format!("{stem}{ending}")));
        let stem = first_free(stem, room, &folder, free)?;
        archive_sidecar(folders, job, &folder, &format!("{stem}{ending}"))?;
        match durable::move_unsynced(&input, &folder.join(format!("{stem}{ending}")))? {
            // The folder it left goes away next.
            Moved::Now => {
                moment("archive:moved", &folder)?;
                return durable::sync_folder(&folder);
            }
            Moved::NoSource => return Ok(()),
            // Somebody was faster; the next name is looked for.
            Moved::Taken => {}
        }
    }
}

/// Moves the settings that lay beside an input to where that goes next, under the name it gets
/// there; if somebody has that, they get another one.
fn archive_sidecar(
    folders: &Folders,
    job: &Job,
    folder: &Path,
    name: &str,
) -> Result<(), SpoolError> {
    let sidecar = folders.job(job.head.id).sidecar(&job.head.source.name);
    if job.head.source.sidecar.is_none() || is_free(&sidecar)? {
        return Ok(());
    }
    touch(&sidecar)?;
    let ending = sidecar::ENDING;
    loop {
        let free = |stem: &str| is_free(&folder.join(format!("{stem}{ending}")));
        let stem = first_free(name, NAME_MAX - ending.len() - "..aside".len(), folder, free)?;
        match durable::move_unsynced(&sidecar, &folder.join(format!("{stem}{ending}")))? {
            Moved::Now => return moment("archive:sidecar", folder),
            Moved::NoSource => return Ok(()),
            Moved::Taken => {}
        }
    }
}

/// Removes the working folder of a job, the mirror last: as long as anything is left, a store that
/// is lost meanwhile can be told that the job was over.
///
/// # Errors
/// If the input is still in it, or it can not be removed.
pub fn remove_working(folders: &Folders, id: JobId) -> Result<(), SpoolError> {
    let path = folders.job(id).path;
    if is_free(&path)? {
        return Ok(());
    }
    if let Some(input) = input_in(&path)? {
        let text = format!("{} is still in it; move it away first", input.display());
        return Err(io::Error::other(text)).at("remove", &path);
    }
    moment("clean:archived", &path)?;
    let mirror = folders.job(id).record();
    for left in list(&path)?.into_iter().filter(|left| *left != mirror) {
        match look(&left)? {
            Some(found) if found.is_dir() => fs::remove_dir_all(&left).at("remove", &left)?,
            Some(_) => fs::remove_file(&left).at("remove", &left)?,
            None => {}
        }
    }
    fs::remove_dir_all(&path).at("remove", &path)?;
    moment("clean:removed", &path)?;
    durable::sync_folder(&folders.working)
}

/// Removes the working folder of a job if there is no file in it; `false` if there is one.
///
/// # Errors
/// If it can not be read or removed.
pub fn remove_empty(folders: &Folders, id: JobId) -> Result<bool, SpoolError> {
    let path = folders.job(id).path;
    for inside in list(&path)? {
        if !look(&inside)?.is_some_and(|found| found.is_dir()) || !list(&inside)?.is_empty() {
            return Ok(false);
        }
    }
    fs::remove_dir_all(&path).at("remove", &path)?;
    durable::sync_folder(&folders.working)?;
    Ok(true)
}

/// Removes archived inputs that were moved there before `older_than`; tells how many.
///
/// # Errors
/// If the archive can not be read, or a file not be removed.
pub fn sweep_archive(folders: &Folders, older_than: Millis) -> Result<u64, SpoolError> {
    let mut removed = 0;
    let mut left = vec![folders.archive.clone()];
    while let Some(folder) = left.pop() {
        for path in list(&folder)? {
            let Some(found) = look(&path)? else {
                continue;
            };
            if found.is_dir() {
                left.push(path);
            } else if found.is_file() && archived(&found, geteuid().as_raw()) < older_than {
                fs::remove_file(&path).at("remove", &path)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// A working folder that belongs to no job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The job it is named after.
    pub id: JobId,
    /// The claimed input that lies in it, if one does.
    pub input: Option<PathBuf>,
}

/// The working folders whose job is not `known`, in the order of their ids. They are only
/// reported: their record may have been lost, but not their input.
///
/// # Errors
/// If the working folder can not be read.
pub fn orphans(folders: &Folders, known: &HashSet<JobId>) -> Result<Vec<Orphan>, SpoolError> {
    let mut orphans = Vec::new();
    for path in list(&folders.working)? {
        let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let Some(id) = id.filter(|id| !known.contains(id)) else {
            continue;
        };
        if look(&path)?.is_some_and(|found| found.is_dir()) {
            orphans.push(Orphan { id, input: input_in(&path)? });
        }
    }
    orphans.sort_by_key(|orphan| orphan.id);
    Ok(orphans)
}

/// The claimed input in a working folder.
fn input_in(working: &Path) -> Result<Option<PathBuf>, SpoolError> {
    let mut inputs = list(&working.join("input"))?;
    inputs.sort();
    // Hidden files are leftovers of an interrupted copy; the whole file is still at its source.
    let hidden = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    Ok(inputs.into_iter().find(|path| !hidden(path)))
}

/// What is in a folder; nothing, if the folder is not there.
fn list(folder: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("list", folder),
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .at("list", folder)
}

/// What a path is, links not followed; `None` if it has gone meanwhile.
fn look(path: &Path) -> Result<Option<fs::Metadata>, SpoolError> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("look at", path),
    }
}

/// When a file came into the archive: its modification time, which was set then. That of a file
/// of another user could not be set; there the rename itself, which changed the entry, counts.
fn archived(found: &fs::Metadata, us: u32) -> Millis {
    let millis = |seconds: i64, nanos: i64| {
        let millis = seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000);
        Millis(u64::try_from(millis).unwrap_or(0))
    };
    let modified = millis(found.mtime(), found.mtime_nsec());
    match found.uid() == us {
        true => modified,
        false => modified.max(millis(found.ctime(), found.ctime_nsec())),
    }
}

/// Sets the modification time to now, which only the owner of a file may do: what others dropped
/// stays as it is.
fn touch(path: &Path) -> Result<(), SpoolError> {
    let moment = |nsec| Timespec { tv_sec: 0, tv_nsec: nsec };
    let times =
        Timestamps { last_access: moment(UTIME_OMIT), last_modification: moment(UTIME_NOW) };
    match utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) | Err(Errno::PERM | Errno::ACCESS) => Ok(()),
        Err(errno) => Err(io::Error::from(errno)).at("set the time of", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_working_folder_without_any_file_goes_and_no_other() {
        let spool = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders::below(spool.path());
        let id: JobId = "01JD0000000000000000000000".parse().expect("an id");
        let answers = folders.job(id).path.join("answers");
        fs::create_dir_all(&answers).expect("made");
        fs::File::create(answers.join("c1-a1.jsonl")).expect("made");
        assert!(!remove_empty(&folders, id).expect("looked at"));
        fs::remove_file(answers.join("c1-a1.jsonl")).expect("removed");
        assert!(remove_empty(&folders, id).expect("removed"));
        assert!(!folders.job(id).path.exists());
    }

    #[test]
    fn a_file_of_another_user_is_as_old_as_its_stay_in_the_archive() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let old = UNIX_EPOCH + Duration::from_secs(1000);
        file.as_file().set_modified(old).expect("aged");
        let found = file.as_file().metadata().expect("looked at");
        assert_eq!(archived(&found, found.uid()), Millis(1_000_000));
        let by_rename = archived(&found, found.uid() + 1);
        assert!(by_rename > Millis(1_600_000_000_000), "{by_rename:?}");
    }
}
