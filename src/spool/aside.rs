//! Moves what will not be processed to `failed/` or `held/`, each with a note that says why.
//!
//! The note is written first, so that no file ever lies there unexplained, and both have the same
//! name but for the ending of the note. The sub-folder of the inbox is kept. Nothing is
//! overwritten, and doing it again after a crash ends in the same place.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::claim::{Claimed, folder_below};
use super::durable::{self, Moved};
use super::free_name::sub_folder;
use super::sidecar;
use super::source::{self, Opened};
use super::{At, Folders, SpoolError, canary, moment};
use crate::engine::canary::CANARY;
use crate::engine::ids::JobId;
use crate::engine::job::{Refusal, Source};

/// Where a file goes that is not processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// `failed/`: refused for good.
    Failed,
    /// `held/`: waits for a person.
    Held,
}

/// What became of an entry that was refused in the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusedEntry {
    /// It lies in `failed/` under this path.
    Moved(String),
    /// It can not be moved and stays where it is; its note lies in `failed/`.
    Left,
    /// It is not there any more.
    Gone,
}

/// Moves a job's claimed input to `failed/` or `held/`. Answers with the path it has there.
///
/// # Errors
/// If the note can not be written or the input not be moved.
pub fn move_aside(
    folders: &Folders,
    aside: Aside,
    job: JobId,
    source: &Source,
    refusal: &Refusal,
) -> Result<String, SpoolError> {
    let input = folders.job(job).input(&source.name);
    source::check_source(source).at("move", &input)?;
    let note = Note::new(&source.name, Some(job), refusal);
    let place = Place::make(folders, aside, &source.folder)?;
    loop {
        let name = place.note(&source.name, &note)?;
        moment("aside:noted", &input)?;
        if !place.take_sidecar(source, &folders.job(job).sidecar(&source.name), &name)? {
            place.withdraw(&name)?;
            continue;
        }
        match durable::move_file(&input, &place.path.join(&name))? {
            Moved::Now => return Ok(place.spoken(&name)),
            // It was moved before a crash, perhaps only until the next power cut, or its owner
            // took it away.
            Moved::NoSource => {
                durable::sync_folder(&place.path)?;
                return Ok(place.spoken(&name));
            }
            Moved::Taken if durable::complete_copy(&input, &place.path.join(&name))? => {
                return Ok(place.spoken(&name));
            }
            Moved::Taken => place.withdraw(&name)?,
        }
    }
}

/// Writes only the note into `held/`: the input stays in its working folder. Answers with the name of
/// the file that the note seems to be for.
///
/// # Errors
/// If the note can not be written.
pub fn notice(
    folders: &Folders,
    job: JobId,
    source: &Source,
    refusal: &Refusal,
) -> Result<String, SpoolError> {
    source::check_source(source).at("write a note for", &folders.held)?;
    let place = Place::make(folders, Aside::Held, &source.folder)?;
    place.note(&source.name, &Note::new(&source.name, Some(job), refusal))
}

/// Takes back what [`notice`] wrote, once a person has decided, and what lies beside it.
///
/// # Errors
/// If the note can not be removed.
pub fn withdraw_notice(folders: &Folders, job: JobId, source: &Source) -> Result<(), SpoolError> {
    source::check_source(source).at("remove a note for", &folders.held)?;
    let place = Place { path: folders.held.join(&source.folder), folder: &source.folder };
    let Some(name) = place.find(job)? else { return Ok(()) };
    let note = place.read(&place.path.join(note_name(&name)))?;
    if note.is_some_and(|note| note.reason == CANARY) {
        // Its answers come with all others now.
        for path in canary::beside(&place.path, &name) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).at("remove", &path);
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
    place.withdraw(&name)
}

/// Moves a held input back into its working folder, for a person said that it is to be processed;
/// then its note goes. Doing it again after a crash ends in the same place.
///
/// # Errors
/// If the input can not be moved or synced, or the note not be removed.
pub fn take_back(folders: &Folders, job: JobId, source: &Source) -> Result<Claimed, SpoolError> {
    let folder = folders.job(job);
    let target = folder.input(&source.name);
    source::check_source(source).at("take back", &target)?;
    let place = Place { path: folders.held.join(&source.folder), folder: &source.folder };
    let found = place.find(job)?;
    let sidecar = folder.sidecar(&source.name);
    if fs::symlink_metadata(&target).is_ok() {
        if let Some(name) = found {
            place.give_sidecar(source, &name, &sidecar)?;
            place.withdraw(&name)?;
        }
        return Ok(Claimed::Already);
    }
    let Some(name) = found else { return Ok(Claimed::Vanished) };
    durable::make_folder(&folders.working)?;
    durable::make_folders(&folder.path, &["input", "answers", "out"])?;
    durable::sync_folder(&folder.path)?;
    durable::sync_folder(&folders.working)?;
    let claimed = match durable::move_file(&place.path.join(&name), &target)? {
        Moved::Now | Moved::Taken => Claimed::Now,
        // Its owner took it away.
        Moved::NoSource => Claimed::Vanished,
    };
    if claimed == Claimed::Now {
        place.give_sidecar(source, &name, &sidecar)?;
    }
    place.withdraw(&name)?;
    Ok(claimed)
}

/// Moves an entry of the inbox that never becomes a job to `failed/`. It is renamed, never
/// opened; what can not be renamed stays where it is.
///
/// # Errors
/// If the path is not one in the inbox, or if the note can not be written.
pub fn refuse_in_place(
    folders: &Folders,
    path: &Path,
    refusal: &Refusal,
) -> Result<RefusedEntry, SpoolError> {
    let outside = || std::io::Error::other("it is not in the inbox");
    let below = path.strip_prefix(&folders.inbox).map_err(|_| outside()).at("refuse", path)?;
    let name = below.file_name().ok_or_else(outside).at("refuse", path)?;
    let folder = below.parent().and_then(Path::to_str).ok_or_else(outside).at("refuse", path)?;
    let Some(_) = folder_below(&folders.inbox, folder)? else { return Ok(RefusedEntry::Gone) };
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(RefusedEntry::Gone) };

    let place = Place::make(folders, Aside::Failed, folder)?;
    let note = Note::new(&source::spoken(name), None, refusal);
    let safe = source::harmless(name);
    // Across file systems a move is a copy, and only a regular file can be copied.
    let device = fs::metadata(&place.path).at("look at", &place.path)?.dev();
    let movable = found.is_file() || found.dev() == device;
    loop {
        let taken = place.note(&safe, &note)?;
        moment("refuse:noted", path)?;
        if !movable {
            return Ok(RefusedEntry::Left);
        }
        match durable::move_file(path, &place.path.join(&taken)) {
            Ok(Moved::Now) => return Ok(RefusedEntry::Moved(place.spoken(&taken))),
            Ok(Moved::NoSource) => return Ok(RefusedEntry::Gone),
            Ok(Moved::Taken) => place.withdraw(&taken)?,
            Err(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {
                return Ok(RefusedEntry::Left);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The note beside a file, as people and scripts read it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    version: u32,
    file: String,
    reason: String,
    message: String,
    line: Option<u64>,
    column: Option<u64>,
    remedy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
}

impl Note {
    fn new(file: &str, job: Option<JobId>, refusal: &Refusal) -> Note {
        Note {
            version: 1,
            file: file.to_owned(),
            reason: refusal.reason.clone(),
            message: refusal.message.clone(),
            line: refusal.line,
            column: refusal.column,
            remedy: refusal.remedy.clone(),
            job: job.map(|job| job.to_string()),
        }
    }

    fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a note has nothing but strings");
        text.push(b'\n');
        text
    }
}

/// A folder below `failed/` or `held/`.
pub(super) struct Place<'a> {
    pub(super) path: PathBuf,
    folder: &'a str,
}

impl<'a> Place<'a> {
    /// The one in `failed/` for a sub-folder of the inbox; it need not be there.
    pub(super) fn of_failed(folders: &Folders, folder: &'a str) -> Result<Place<'a>, SpoolError> {
        Ok(Place { path: sub_folder(&folders.failed, folder)?, folder })
    }

    fn make(folders: &Folders, aside: Aside, folder: &'a str) -> Result<Place<'a>, SpoolError> {
        let root = match aside {
            Aside::Failed => &folders.failed,
            Aside::Held => &folders.held,
        };
        let path = root.join(folder);
        durable::make_lasting_folder(&path)?;
        Ok(Place { path, folder })
    }

    /// Writes the note under the first name that is free, or finds it again under the name it
    /// got before a crash. Answers with the name of the file the note is for.
    fn note(&self, name: &str, note: &Note) -> Result<String, SpoolError> {
        // Two at once would see the same name free, and write into the same file aside.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        for number in 1_u64.. {
            let name = numbered(name, number);
            let path = self.path.join(note_name(&name));
            let file_taken = fs::symlink_metadata(self.path.join(&name)).is_ok();
            match self.read(&path)? {
                // The job's own note, perhaps of an earlier occasion.
                Some(old) if old.job.is_some() && old.job == note.job => {
                    if old != *note {
                        durable::replace(&path, &note.text())?;
                    }
                    return Ok(name);
                }
                // A note still without its file: that of this entry, before a crash.
                Some(old) if old == *note && !file_taken => return Ok(name),
                Some(_) => continue,
                None => {}
            }
            let sidecar = self.path.join(sidecar::full_name(&name));
            if file_taken
                || [path.as_path(), sidecar.as_path()]
                    .iter()
                    .any(|it| it.symlink_metadata().is_ok())
            {
                continue;
            }
            match durable::create(&path, &note.text())? {
                Moved::Now => return Ok(name),
                Moved::Taken | Moved::NoSource => {}
            }
        }
        unreachable!("there are more numbers than a folder has names")
    }

    /// The name of the file that the note of a job is for.
    pub(super) fn find(&self, job: JobId) -> Result<Option<String>, SpoolError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("list", &self.path),
        };
        for entry in entries {
            let name = entry.at("list", &self.path)?.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(NOTE)) else {
                continue;
            };
            let note = self.read(&self.path.join(note_name(name)))?;
            if note.is_some_and(|note| note.job.as_deref() == Some(job.as_str())) {
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }

    /// A note of ours, if one stands there.
    fn read(&self, path: &Path) -> Result<Option<Note>, SpoolError> {
        let Opened::File(file) = source::open(path).at("read", path)? else { return Ok(None) };
        let reader = std::io::BufReader::new(std::io::Read::take(file, NOTE_BYTES_MAX));
        Ok(serde_json::from_reader(reader).ok())
    }

    /// Puts the settings of a job's input beside the place it gets here; `false` if they can not be
    /// there.
    fn take_sidecar(&self, source: &Source, from: &Path, name: &str) -> Result<bool, SpoolError> {
        if source.sidecar.is_none() {
            return Ok(true);
        }
        let target = self.path.join(sidecar::full_name(name));
        Ok(durable::move_file(from, &target)? != Moved::Taken
            || durable::complete_copy(from, &target)?)
    }

    /// Takes the settings that lie beside a file here back into its working folder.
    fn give_sidecar(&self, source: &Source, name: &str, to: &Path) -> Result<(), SpoolError> {
        if source.sidecar.is_some() {
            // Its owner may have taken it away; the settings themselves are saved.
            durable::move_file(&self.path.join(sidecar::full_name(name)), to)?;
        }
        Ok(())
    }

    /// Takes a note back whose file is not beside it, or not any more.
    pub(super) fn withdraw(&self, name: &str) -> Result<(), SpoolError> {
        let path = self.path.join(note_name(name));
        fs::remove_file(&path).at("remove", &path)
    }

    fn spoken(&self, name: &str) -> String {
        if self.folder.is_empty() { name.to_owned() } else { format!("{}/{name}", self.folder) }
    }
}

fn note_name(name: &str) -> String {
    format!("{name}{NOTE}")
}

/// The name itself, then `NAME~2.jsonl`, `NAME~3.jsonl`, …
fn numbered(name: &str, number: u64) -> String {
    if number == 1 {
        return name.to_owned();
    }
    let path = Path::new(name);
    match (path.file_stem().and_then(OsStr::to_str), path.extension().and_then(OsStr::to_str)) {
        (Some(stem), Some(ending)) => format!("{stem}~{number}.{ending}"),
        _ => format!("{name}~{number}"),
    }
}

/// What the name of a note has after that of its file.
const NOTE: &str = ".reason.json";
/// A longer note is not one of ours.
const NOTE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests;
