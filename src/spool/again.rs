//! What failed is dropped into the inbox once more, because an operator asked for it.
//!
//! Failed lines are copied out of the outbox, which stays as it is; a refused input is moved back
//! out of `failed/`. Both become jobs of their own, of the same queue and with the same settings
//! beside them, which are there before them. Nothing is overwritten. A crash leaves nothing done,
//! or settings that nobody reads without their file, or all but the end of a note in `failed/`, which
//! goes when it is asked for once more.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::aside::Place;
use super::durable::{self, Moved};
use super::free_name::{first_free, is_free, split, sub_folder};
use super::loose::cut;
use super::source::{self, NAME_BYTES_MAX, Opened};
use super::{At, Folders, SpoolError, moment, outbox, sidecar};
use crate::engine::ids::JobId;
use crate::engine::job::{Delivery, Head, Source};

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// It lies in the inbox under this path.
    Dropped(String),
    /// It can not be done: why, and what to do instead.
    Impossible(String),
}

/// Copies the failed lines of a delivered job into the inbox, as `NAME~retry.jsonl`.
///
/// # Errors
/// If they can not be read, or the copy not be written. Nothing is in the inbox then.
pub fn drop_failed_lines(
    folders: &Folders,
    head: &Head,
    delivery: &Delivery,
) -> Result<Again, SpoolError> {
    let (source, stem) = (&head.source, &delivery.stem);
    let folder = sub_folder(&folders.outbox, &source.folder)?;
    let (errors, manifest) = outbox::errors_and_manifest(&folder, stem);
    let Some(lines) = open(&errors)? else { return Ok(taken_away(&errors)) };
    // Who takes outputs away makes room for those of another job under the same name.
    if !outbox::is_manifest_of(&manifest, head.id)? {
        return Ok(taken_away(&manifest));
    }
    let settings =
        match source.sidecar.is_some().then(|| archived_settings(folders, head, delivery)) {
            Some(found) => match found? {
                Some(settings) => Some(settings),
                None => return Ok(without_settings(source, &folders.archive)),
            },
            None => None,
        };
    let (name, _) = split(&source.name);
    // Of a job that was a second try itself, this is the third try of the same.
    let name = name.split(AGAIN).next().filter(|name| !name.is_empty()).unwrap_or(name);
    let name = format!("{}{AGAIN}", cut(name, NAME_BYTES_MAX - AGAIN.len() - LINES.len() - MARK));
    let inbox = Inbox::open(folders, source)?;
    let dropped = inbox.put(&name, LINES, settings.as_deref(), |target| {
        let aside = durable::aside(target);
        let copied = copy(&lines, &errors, &aside);
        let moved = copied.and_then(|()| durable::move_file(&aside, target));
        if !matches!(moved, Ok(Moved::Now)) {
            // A full disk is not made fuller by what tells nothing.
            drop(fs::remove_file(&aside));
        }
        moved
    })?;
    Ok(dropped.map_or_else(|| taken_away(&errors), Again::Dropped))
}

/// Moves the input of a job that was refused whole from `failed/` back into the inbox, under its
/// own name if that is free.
///
/// # Errors
/// If it can not be moved. It is in the one place or in the other then.
pub fn drop_refused_input(
    folders: &Folders,
    job: JobId,
    source: &Source,
) -> Result<Again, SpoolError> {
    let place = Place::of_failed(folders, &source.folder)?;
    let Some(lies_as) = place.find(job)? else { return Ok(taken_away(&place.path)) };
    let input = place.path.join(&lies_as);
    if is_free(&input)? {
        // An earlier try was interrupted, or its owner took it away.
        place.withdraw(&lies_as)?;
        return Ok(taken_away(&input));
    }
    let beside = place.path.join(sidecar::full_name(&lies_as));
    let settings = match source.sidecar.is_some() {
        true => match read_settings(&beside)? {
            Some(settings) => Some(settings),
            None => return Ok(without_settings(source, &beside)),
        },
        false => None,
    };
    let (name, ending) = split(&source.name);
    let name = cut(name, NAME_BYTES_MAX - ending.len() - MARK);
    let inbox = Inbox::open(folders, source)?;
    let moving = |target: &Path| durable::move_file(&input, target);
    let Some(dropped) = inbox.put(name, ending, settings.as_deref(), moving)? else {
        return Ok(taken_away(&input));
    };
    moment("again:moved", &input)?;
    if settings.is_some() {
        fs::remove_file(&beside).at("remove", &beside)?;
    }
    place.withdraw(&lies_as)?;
    Ok(Again::Dropped(dropped))
}

/// The sub-folder of the inbox that a job came from.
struct Inbox<'a> {
    path: PathBuf,
    folder: &'a str,
}

impl<'a> Inbox<'a> {
    fn open(folders: &Folders, source: &'a Source) -> Result<Inbox<'a>, SpoolError> {
        let path = sub_folder(&folders.inbox, &source.folder)?;
        durable::make_folder(&path)?;
        Ok(Inbox { path, folder: &source.folder })
    }

    /// Puts a file there under the first free name, after its `settings`; `bring` moves it to its
    /// place. Answers with its path in the inbox, or `None` if there was nothing to bring.
    fn put(
        &self,
        stem: &str,
        ending: &str,
        settings: Option<&[u8]>,
        bring: impl Fn(&Path) -> Result<Moved, SpoolError>,
    ) -> Result<Option<String>, SpoolError> {
        // Two at once would see the same name free, and write into the same file aside.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let free = |stem: &str| self.is_free(&format!("{stem}{ending}"), settings);
            let stem = first_free(stem, stem.len() + MARK, &self.path, free)?;
            let name = format!("{stem}{ending}");
            if let Some(settings) = settings {
                let beside = self.path.join(sidecar::full_name(&name));
                // They may lie there from a try that was interrupted.
                durable::create(&beside, settings)?;
                moment("again:settings", &beside)?;
            }
            match bring(&self.path.join(&name))? {
                Moved::Now if self.folder.is_empty() => return Ok(Some(name)),
                Moved::Now => return Ok(Some(format!("{}/{name}", self.folder))),
                Moved::NoSource => return Ok(None),
                // Somebody was faster; the next name is looked for.
                Moved::Taken => {}
            }
        }
    }

    /// Whether a file may have this name: nothing lies there, nor settings that it would be given
    /// and that are not its own.
    fn is_free(&self, name: &str, settings: Option<&[u8]>) -> Result<bool, SpoolError> {
        let beside = self.path.join(sidecar::full_name(name));
        let is_own = is_free(&beside)?
            || settings.is_some() && read_settings(&beside)?.as_deref() == settings;
        Ok(is_own
            && is_free(&self.path.join(name))?
            && is_free(&self.path.join(sidecar::short_name(name)))?)
    }
}

/// The settings that lay beside a delivered job's input: they are in the archive, beside an input
/// of this name and content.
fn archived_settings(
    folders: &Folders,
    head: &Head,
    delivery: &Delivery,
) -> Result<Option<Vec<u8>>, SpoolError> {
    let folder = sub_folder(&folders.archive, &head.source.folder)?;
    let (stem, ending) = split(&head.source.name);
    for number in 1..=ARCHIVED_MAX {
        let mark = if number == 1 { String::new() } else { format!("~{number}") };
        let name = format!("{stem}{mark}{ending}");
        let path = folder.join(&name);
        let Some(input) = open(&path)? else { continue };
        let bytes = input.metadata().at("look at", &path)?.len();
        let is_same = bytes == delivery.plan.bytes
            && sha256(input).at("read", &path)? == delivery.plan.sha256;
        if is_same {
            return read_settings(&folder.join(sidecar::full_name(&name)));
        }
    }
    Ok(None)
}

/// In lower-case hexadecimal.
fn sha256(mut file: File) -> io::Result<String> {
    let (mut hash, mut block) = (Sha256::new(), vec![0; BLOCK_BYTES]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(&block[..read]),
        }
    }
}

/// Settings as they stand in a file, if it is one that can be settings.
fn read_settings(path: &Path) -> Result<Option<Vec<u8>>, SpoolError> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut text = Vec::new();
    file.take(sidecar::BYTES_MAX + 1).read_to_end(&mut text).at("read", path)?;
    Ok((text.len() as u64 <= sidecar::BYTES_MAX).then_some(text))
}

/// A regular file that we may read; `None` if there is none.
fn open(path: &Path) -> Result<Option<File>, SpoolError> {
    match source::open(path).at("open", path)? {
        Opened::File(file) => Ok(Some(file)),
        Opened::Special(_) | Opened::Unreadable | Opened::Missing => Ok(None),
    }
}

/// Copies from the beginning of a file, whole and synced.
fn copy(from: &File, path: &Path, aside: &Path) -> Result<(), SpoolError> {
    let mut from = from.try_clone().at("read", path)?;
    io::Seek::rewind(&mut from).at("read", path)?;
    let mut to = File::create(aside).at("write", aside)?;
    io::copy(&mut from, &mut to).at("write", aside)?;
    moment("again:copied", aside)?;
    to.sync_all().at("sync", aside)
}

fn taken_away(path: &Path) -> Again {
    Again::Impossible(format!(
        "{} is not there, or not this job's any more: what failed of it can be dropped into the \
         inbox again by hand, from wherever it was taken to",
        path.display()
    ))
}

fn without_settings(source: &Source, place: &Path) -> Again {
    Again::Impossible(format!(
        "the settings that lay beside {} are not in {} any more: drop the file again by hand, with \
         settings beside it",
        source.name.escape_debug(),
        place.display()
    ))
}

/// What the name of failed lines has that are tried again.
const AGAIN: &str = "~retry";
/// How their name ends, whatever the input's was.
const LINES: &str = ".jsonl";
/// Bytes kept for a number in a name, such as `~12`.
const MARK: usize = 5;
/// Bytes read at once.
const BLOCK_BYTES: usize = 256 * 1024;
/// Inputs of one name in the archive that are looked at.
const ARCHIVED_MAX: u32 = 100;

#[cfg(test)]
mod tests;
