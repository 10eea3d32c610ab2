//! A store that was lost is rebuilt from the records that lie beside the jobs' files, and one that
//! may be older than what was sent since is made safe.
//!
//! These mirrors may lag behind by one change, so whatever may have been sent meanwhile is looked
//! for at the API by its stamp before anything is sent. Working folders without a readable mirror
//! are left as they are and named, for a person to look at.

pub mod adopt;

use std::collections::HashSet;
use std::path::Path;

use crate::engine::{Change, Engine, Job, JobId, Millis, Policy};
use crate::failpoint;
use crate::spool::{At, Folders, SpoolError, archive, mirror};
use crate::store::record::{self, Record};
use crate::store::{JobStore, NOTE_QUARANTINED, StoreError, export};

/// Why a store could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The working folders can not be listed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The new store does not take the records.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts every job that has a mirror into the new, empty store. Answers with how many there were.
///
/// # Errors
/// If the folders can not be listed or the store fails; the next start tries again.
pub fn rebuild(
    folders: &Folders,
    store: &mut dyn JobStore,
    policy: &Policy,
    now: Millis,
) -> Result<usize, RebuildError> {
    let known: HashSet<JobId> = store.load()?.iter().map(|job| job.head.id).collect();
    let mut rebuilt = 0;
    for orphan in archive::orphans(folders, &known)? {
        let folder = folders.job(orphan.id);
        match read_job(folders, orphan.id) {
            Ok(Some(mut job)) => {
                Engine::doubt(&mut job, policy, now);
                failpoint::at("rebuild:job").at("rebuild", &folder.path)?;
                store.save(&export::changes(&job))?;
                rebuilt += 1;
            }
            // It was not claimed yet, or cleaned up but for this.
            Ok(None) if archive::remove_empty(folders, orphan.id)? => {}
            Ok(None) => tell_unusable(&folder.path, "it has no record.json"),
            Err(why) => tell_unusable(&folder.path, &why),
        }
    }
    failpoint::at("rebuild:done").at("rebuild", &folders.working)?;
    store.set_note(NOTE_QUARANTINED, "")?;
    Ok(rebuilt)
}

/// Makes a store that may be older than what happened since safe to go on with: what seems not sent
/// yet is looked for first. Answers with how many chunks that are.
///
/// # Errors
/// If the store fails; the next start tries again.
pub fn doubt_all(
    store: &mut dyn JobStore,
    policy: &Policy,
    now: Millis,
) -> Result<usize, StoreError> {
    let mut doubted = Vec::new();
    store.each_job(&mut |job| {
        let mut safe = job.clone();
        Engine::doubt(&mut safe, policy, now);
        let changed =
            safe.chunks.into_values().filter(|chunk| job.chunks.get(&chunk.no) != Some(chunk));
        doubted.extend(changed.map(|chunk| Change::Chunk(job.head.id, Box::new(chunk))));
    })?;
    for some in doubted.chunks(CHANGES_A_SAVE) {
        store.save(some)?;
    }
    Ok(doubted.len())
}

/// The job as its mirror has it, with the chunks that were mirrored on their own since; `None` if
/// there is no mirror.
///
/// # Errors
/// In words, if there is one that can not be read.
pub fn read_job(folders: &Folders, id: JobId) -> Result<Option<Job>, String> {
    let folder = folders.job(id);
    let Some(bytes) = mirror::read(&folder).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let mut job = record::from_mirror(&bytes)?;
    if job.head.id != id {
        return Err(format!("its record.json is that of job {}", job.head.id));
    }
    for bytes in mirror::read_chunks(&folder).map_err(|error| error.to_string())? {
        if let Record::Chunk(of, chunk) = record::read(&bytes)?
            && of == id
        {
            job.chunks.insert(chunk.no, *chunk);
        }
    }
    Ok(Some(job))
}

/// Tells of inputs that were claimed by a job which no record knows: the whole state folder was lost,
/// or exchanged. Nothing is done about them unasked.
pub fn tell_orphans(folders: &Folders, engine: &Engine) {
    let known: HashSet<JobId> =
        engine.past().ids().chain(engine.jobs().map(|job| job.head.id)).collect();
    // Nothing depends on it: what can not be listed shows up when it is worked on.
    let orphans = archive::orphans(folders, &known).unwrap_or_default();
    let inputs = orphans.iter().filter(|orphan| orphan.input.is_some());
    if let Some(first) = inputs.clone().next() {
        let (count, folder) = (inputs.count(), folders.job(first.id).path.display().to_string());
        tracing::error!(
            count,
            folder,
            "inputs lie in working folders that no record knows; stop the daemon, and \
             `gemini-batchd adopt` goes on with them without paying twice"
        );
    }
}

fn tell_unusable(path: &Path, why: &str) {
    let folder = path.display().to_string();
    tracing::error!(
        folder,
        why,
        "this job could not be rebuilt; stop the daemon, and `gemini-batchd adopt` finds at the API \
         what was sent of it. Its input lies in input/ there: to process it anew, and pay for it \
         anew, move it back into the inbox, and before it its settings (.job.toml in that folder) \
         if it has any"
    );
}

/// Changes that are saved at once.
const CHANGES_A_SAVE: usize = 512;
