//! What follows a save: the log says which jobs changed, and their mirrors are written.

use crate::engine::effect::Change;
use crate::engine::event::Command;
use crate::engine::ids::JobId;
use crate::spool::{JobFolder, SpoolError, mirror};
use crate::store::record;
use crate::view::{self, Kind};

use super::chronicle::Draft;
use super::{Daemon, lock, rebuild, supervisor};

impl Daemon {
    /// info: a job changed its state. The record of events says more.
    pub(super) fn tell_changes(&mut self, drafts: Vec<Draft>, changes: &[Change]) {
        self.handle.chronicle().note(self.clock.now(), drafts);
        for change in changes {
            match change {
                Change::Head(head) => {
                    let state = supervisor::state_word(&head.state);
                    if self.told.insert(head.id, state) != Some(state) {
                        let file = head.source.name.as_str();
                        tracing::info!(job = %head.id, file, state);
                    }
                }
                Change::Forget(id) => {
                    self.told.remove(id);
                    self.touched.remove(id);
                }
                Change::Shed(id) => {
                    self.told.remove(id);
                }
                Change::Chunk(..) | Change::Note { .. } => {}
            }
        }
    }

    /// Notes what an operator asks for, whether it is done or not.
    pub(super) fn tell_command(&self, command: &Command) {
        let named = |verb: &str, queue: &Option<String>| match queue {
            Some(queue) => (None, format!("{verb} {queue}")),
            None => (None, verb.to_owned()),
        };
        let (job, text) = match command {
            Command::Cancel(id) => (Some(*id), "cancel".to_owned()),
            Command::Hold(id) => (Some(*id), "hold".to_owned()),
            Command::Release(id) => (Some(*id), "release".to_owned()),
            Command::Retry(id) => (Some(*id), "retry".to_owned()),
            Command::Delete(id) => (Some(*id), "delete".to_owned()),
            Command::Pause(queue) => named("pause", queue),
            Command::Resume(queue) => named("resume", queue),
            Command::Drain => (None, "drain".to_owned()),
        };
        let file = job.and_then(|id| Some(view::file_of(&lock(&self.engine).job(id)?.head.source)));
        self.note(Draft { job, file, kind: Kind::Command, text: format!("asked for: {text}") });
    }

    /// Puts something into the record of events.
    pub(super) fn note(&self, draft: Draft) {
        self.handle.chronicle().note(self.clock.now(), vec![draft]);
    }

    /// Writes what was saved beside the jobs' files too. The mirror may lag behind: it is a way
    /// back when the store is lost, not the truth.
    pub(super) fn mirror(&mut self, changes: &[Change]) {
        // What could not be written is made up for as soon as it can: a mirror may be one change
        // behind, not several.
        let mut whole = std::mem::take(&mut self.mirrors_owed);
        for change in changes {
            let (id, chunk) = match change {
                Change::Head(head) => (head.id, None),
                Change::Chunk(id, chunk) => (*id, Some(chunk)),
                Change::Shed(_) | Change::Forget(_) | Change::Note { .. } => continue,
            };
            self.touched.insert(id);
            let many =
                lock(&self.engine).job(id).is_some_and(|job| job.chunks.len() > MIRRORED_CHUNKS);
            match chunk.filter(|_| many) {
                Some(chunk) => {
                    let record = record::write_chunk(id, chunk);
                    let write = |folder: &_| mirror::write_chunk(folder, chunk.no, &record);
                    self.write_beside(id, write);
                }
                None => {
                    whole.insert(id);
                }
            }
        }
        for id in whole {
            // The engine is not held while the disk works: operators look at it meanwhile.
            let record = lock(&self.engine).job(id).map(record::mirror);
            if let Some(record) = record {
                self.write_beside(id, |folder| mirror::write(folder, &record));
            }
        }
    }

    /// Writes every mirror again that a crash left torn, behind or not written: mirrors are not
    /// synced, so after a power cut they may say anything, and only the next change of a job
    /// would write its own again. Until then the way back from a lost store would be a wrong one.
    pub(super) fn mend_mirrors(&mut self) {
        let ids: Vec<JobId> = lock(&self.engine).unfinished().map(|job| job.head.id).collect();
        for id in ids {
            let Some(job) = lock(&self.engine).job(id).cloned() else { continue };
            let folders = &self.performer.folders;
            if !folders.job(id).path.is_dir() {
                continue;
            }
            let why = match rebuild::read_job(folders, id) {
                Ok(Some(mirrored)) if mirrored == job => continue,
                Ok(Some(_)) => "it was behind".to_owned(),
                Ok(None) => "it was not there".to_owned(),
                Err(why) => why,
            };
            tracing::warn!(job = %id, why, "the job's mirror is written again from the store");
            self.write_beside(id, |folder| mirror::write_anew(folder, &record::mirror(&job)));
        }
    }

    /// Before the claim and after the clean-up there is nothing to stand beside.
    fn write_beside(&mut self, job: JobId, write: impl Fn(&JobFolder) -> Result<(), SpoolError>) {
        let folder = self.performer.folders.job(job);
        if !folder.path.is_dir() {
            return;
        }
        if let Err(error) = write(&folder) {
            tracing::warn!(%job, %error, "the job's mirror was not written");
            self.mirrors_owed.insert(job);
        }
    }
}

/// Of jobs with more chunks, only the chunk that changed is mirrored.
const MIRRORED_CHUNKS: usize = 64;
