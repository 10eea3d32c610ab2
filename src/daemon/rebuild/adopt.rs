//! Jobs whose records are gone are made anew: from their mirrors, or from their inputs and what lies
//! at the API.
//!
//! It is said by a person, while no daemon runs. A store that was lost in one piece the daemon
//! rebuilds by itself ([`super`]); this also finds what it would leave: jobs without a
//! readable mirror, jobs whose whole state folder is gone, so that nobody knows their keys any more,
//! and batches that no job here knows. Promises: nothing is created at the API, and what may have
//! been sent is never taken for not sent; it is found at the API now, or looked for by its stamp when
//! the daemon starts. What can not be decided stays as it is, and is told.

mod anew;
mod bind;
pub mod seen;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::engine::ids::{JobId, Millis};
use crate::engine::job::{ChunkState, Job};
use crate::engine::{Engine, Keys, Policy};
use crate::spool::archive::{self, Orphan};
use crate::spool::{At, Folders};
use crate::store::{JobStore, export};

use super::{RebuildError, read_job};
use crate::daemon::supervisor::policy_of;
use seen::{Seen, SeenBatch};

/// How it is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The keys in use.
    pub keys: &'a Keys,
    /// The queue of inputs that nothing else tells it of.
    pub queue: Option<&'a str>,
    /// The time.
    pub now: Millis,
}

/// What was found, and what became of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adoption {
    /// Working folders that no record knew.
    pub jobs: Vec<Adopted>,
    /// Batches of ours that belong to no job here.
    pub strays: Vec<Stray>,
}

/// A working folder that no record knew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Its job.
    pub id: JobId,
    /// The input, if there is one.
    pub file: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a working folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its mirror told everything.
    Mirrored(Counts),
    /// It was planned anew.
    Planned(Counts),
    /// It can be planned anew, which a rehearsal does not do.
    Plannable {
        /// Its batches at the API.
        found: usize,
    },
    /// Nothing was in it, and it was removed.
    Empty,
    /// It is left as it is, for this reason.
    Undecided(String),
}

/// Chunks of a job that was adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All that are not cut in two.
    pub chunks: usize,
    /// Those whose batch is known.
    pub found: usize,
    /// Those that are looked for at the API before they are sent.
    pub doubted: usize,
}

/// A batch of ours that belongs to no job here.
#[derive(Debug, Clone, PartialEq)]
pub struct Stray {
    /// The batch.
    pub batch: SeenBatch,
    /// The manifest of its job, if that was delivered to this outbox.
    pub manifest: Option<PathBuf>,
}

/// Adopts what no record knows, `known` being the jobs that have some. Without a store it is a
/// rehearsal, and nothing is changed.
///
/// # Errors
/// If folders can not be read or the store fails; it can be done again then.
pub fn adopt(
    asked: &Asked<'_>,
    known: &HashSet<JobId>,
    seen: &Seen,
    mut store: Option<&mut dyn JobStore>,
) -> Result<Adoption, RebuildError> {
    let folders = &asked.config.folders;
    let policy = policy_of(asked.config, asked.keys.clone());
    let mut adoption = Adoption::default();
    let orphans = archive::orphans(folders, known)?;
    for orphan in &orphans {
        let made = match read_job(folders, orphan.id) {
            Ok(Some(mut job)) => {
                bind::bind(&mut job, seen.of(orphan.id), asked.keys);
                doubt(&mut job, &policy, asked.now);
                Ok((Outcome::Mirrored(counts(&job)), Some(job)))
            }
            Ok(None) => {
                anew(asked, &policy, orphan, seen, store.is_some(), "it has no record.json")
            }
            Err(why) => anew(asked, &policy, orphan, seen, store.is_some(), &why),
        };
        let (outcome, job) = made.unwrap_or_else(|why| (Outcome::Undecided(why), None));
        if let (Some(job), Some(store)) = (job, store.as_deref_mut()) {
            store.save(&export::changes(&job))?;
        }
        let file = orphan.input.as_deref().and_then(Path::file_name);
        let file = file.map(|name| name.to_string_lossy().into_owned());
        adoption.jobs.push(Adopted { id: orphan.id, file, outcome });
    }
    let here = |job: &JobId| known.contains(job) || orphans.iter().any(|orphan| orphan.id == *job);
    adoption.strays = strays(folders, seen, here)?;
    Ok(adoption)
}

/// What may have been sent since the mirror was written is looked for first.
fn doubt(job: &mut Job, policy: &Policy, now: Millis) {
    Engine::doubt(job, policy, now);
}

/// Makes a job of an input whose mirror is of no use, for the reason `why`.
fn anew(
    asked: &Asked<'_>,
    policy: &Policy,
    orphan: &Orphan,
    seen: &Seen,
    is_real: bool,
    why: &str,
) -> Result<(Outcome, Option<Job>), String> {
    let folders = &asked.config.folders;
    let Some(input) = &orphan.input else {
        let empty = is_real && archive::remove_empty(folders, orphan.id).unwrap_or(false);
        return match empty {
            true => Ok((Outcome::Empty, None)),
            false => Err(format!("{why}, and there is no input in it")),
        };
    };
    let batches = seen.of(orphan.id);
    let start = anew::begin(asked, orphan.id, input, batches)?;
    if !is_real {
        return Ok((Outcome::Plannable { found: batches.len() }, None));
    }
    let mut job = anew::plan(asked, start, batches)?;
    let found = counts(&job);
    doubt(&mut job, policy, asked.now);
    Ok((Outcome::Planned(Counts { doubted: counts(&job).doubted, ..found }), Some(job)))
}

fn counts(job: &Job) -> Counts {
    let mut counts = Counts::default();
    for chunk in job.leaves() {
        counts.chunks += 1;
        match &chunk.state {
            ChunkState::Polling(_) | ChunkState::Collecting { .. } => counts.found += 1,
            ChunkState::Uncertain { .. } => counts.doubted += 1,
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Rescuing { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => {}
        }
    }
    counts
}

/// Batches of ours whose job is not here, with the manifest that tells that it was delivered.
fn strays(
    folders: &Folders,
    seen: &Seen,
    is_here: impl Fn(&JobId) -> bool,
) -> Result<Vec<Stray>, RebuildError> {
    let lost: Vec<&SeenBatch> = seen.all().filter(|batch| !is_here(&batch.job)).collect();
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let mut delivered = BTreeMap::new();
    manifests(&folders.outbox, &mut delivered)?;
    let stray = |batch: &SeenBatch| Stray {
        manifest: delivered.get(&batch.job).cloned(),
        batch: batch.clone(),
    };
    Ok(lost.into_iter().map(stray).collect())
}

/// The manifests in a folder and those below it, by their jobs.
fn manifests(folder: &Path, found: &mut BTreeMap<JobId, PathBuf>) -> Result<(), RebuildError> {
    #[derive(serde::Deserialize)]
    struct Manifest {
        job: String,
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).at("list", folder).map_err(RebuildError::from),
    };
    for entry in entries {
        let entry = entry.at("list", folder)?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            manifests(&path, found)?;
            continue;
        }
        if !entry.file_name().as_encoded_bytes().ends_with(b".manifest.json") {
            continue;
        }
        // Others may put anything there, and take it away.
        let Ok(bytes) = fs::read(&path) else { continue };
        let job = serde_json::from_slice::<Manifest>(&bytes).ok();
        if let Some(job) = job.and_then(|manifest| manifest.job.parse().ok()) {
            found.insert(job, path);
        }
    }
    Ok(())
}
