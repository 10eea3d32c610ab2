//! Which API key the work of a job is done with.
//!
//! What was made with one key can be seen only with keys of the same project (API contract, 1), and
//! nobody tells which those are. So a job is bound to the key that its first attempt was sent with,
//! by the key's fingerprint. As long as that key is configured, under whatever name, the job is
//! done with it. When it is not, the key that now stands under the name of the job's credential may
//! look: a batch that it sees proves that the project is the same, and binds the job to it. Until
//! then nothing more of the job is sent, so that its parts never lie in two projects. What has no
//! key at all waits.

use std::collections::BTreeMap;

use super::canary;
use super::effect::{Change, Turn};
use super::ids::{BatchName, ChunkNo, JobId, Millis, Stamp};
use super::job::{Batch, Chunk, ChunkState, Job, JobState, RemoteEnd, RemoteError, RemoteState};
use super::lanes::Unit;
use super::machine::{Engine, find};
use super::trouble::Trouble;

/// The keys in use, by the names of their credentials. The name of the default one is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// Fingerprints, each once, ascending.
    prints: Vec<String>,
    names: BTreeMap<String, KeyNo>,
    /// Fingerprints of the same keys as earlier versions made them.
    former: BTreeMap<String, KeyNo>,
}

/// One of the different keys in use: what is limited or paused for one is so for it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyNo(u16);

/// A credential as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its name; empty for the default one.
    pub name: String,
    /// The fingerprint of its key.
    pub print: String,
    /// The same as earlier versions made it.
    pub former: Option<String>,
}

impl Keys {
    /// The keys of these credentials. Two that hold the same key share it.
    pub fn new(credentials: impl IntoIterator<Item = Credential>) -> Keys {
        let credentials: Vec<Credential> = credentials.into_iter().collect();
        let mut prints: Vec<String> = credentials.iter().map(|one| one.print.clone()).collect();
        prints.sort();
        prints.dedup();
        let mut keys = Keys { prints, ..Keys::default() };
        for credential in credentials {
            let Some(no) = keys.of_print(&credential.print) else { continue };
            keys.names.insert(credential.name, no);
            keys.former.extend(credential.former.map(|former| (former, no)));
        }
        keys
    }

    /// Only the default credential, with a key of this fingerprint.
    pub fn one(print: &str) -> Keys {
        Keys::new([Credential { name: String::new(), print: print.to_owned(), former: None }])
    }

    /// The key of a credential; `None` if it is not configured.
    pub fn named(&self, credential: &str) -> Option<KeyNo> {
        self.names.get(credential).copied()
    }

    /// The key with this fingerprint; `None` if it is not configured.
    pub fn of_print(&self, print: &str) -> Option<KeyNo> {
        let found = self.prints.binary_search_by(|known| known.as_str().cmp(print)).ok();
        let no = found.and_then(|at| u16::try_from(at).ok()).map(KeyNo);
        no.or_else(|| self.former.get(print).copied())
    }

    /// The fingerprint of a key; `None` for one of other settings.
    pub fn print(&self, no: KeyNo) -> Option<&str> {
        self.prints.get(usize::from(no.0)).map(String::as_str)
    }

    /// A message about the work with a key; where several are in use, it says with which.
    pub fn telling(&self, no: KeyNo, message: &str) -> String {
        let name = self.names.iter().find(|(_, of)| **of == no).map(|(name, _)| name.as_str());
        match name {
            Some(name) if self.prints.len() > 1 && !name.is_empty() => {
                format!("with the credential {name:?}: {message}")
            }
            Some(_) if self.prints.len() > 1 => format!("with the default API key: {message}"),
            Some(_) | None => message.to_owned(),
        }
    }
}

impl Engine {
    /// The key that everything of a job as a whole is done with.
    pub fn key_of_job(&self, job: &Job) -> Option<KeyNo> {
        let keys = &self.policy.keys;
        let bound = job.head.key_print.as_deref().and_then(|print| keys.of_print(print));
        bound.or_else(|| keys.named(&job.head.queue.credential))
    }

    /// The key that a chunk's work at the API is done with; `None` if it has to wait for one.
    pub(super) fn key_of(&self, job: &Job, chunk: &Chunk) -> Option<KeyNo> {
        let made_with = made_with(chunk).and_then(|print| self.policy.keys.of_print(print));
        let key = made_with.or_else(|| self.key_of_job(job))?;
        let sends = matches!(
            chunk.state,
            ChunkState::Waiting { .. } | ChunkState::Uploading { .. } | ChunkState::Creating { .. }
        );
        (!sends || !self.has_parts_elsewhere(job)).then_some(key)
    }

    /// Whether the job is bound to a key that is not configured any more.
    pub(super) fn is_bound_elsewhere(&self, id: JobId) -> bool {
        let print = self.jobs.get(&id).and_then(|job| job.head.key_print.as_deref());
        print.is_some_and(|print| self.policy.keys.of_print(print).is_none())
    }

    /// Whether, on top of that, something of it lies at the API that no other key has seen yet.
    fn has_parts_elsewhere(&self, job: &Job) -> bool {
        let is_foreign = |print: &str| self.policy.keys.of_print(print).is_none();
        self.is_bound_elsewhere(job.head.id)
            && job.chunks.values().any(|chunk| made_with(chunk).is_some_and(is_foreign))
    }

    /// Whether the latest create of a chunk was sent with a key that is not configured any more.
    pub(super) fn is_foreign(&self, chunk: &Chunk) -> bool {
        let print = chunk.key_print.as_deref();
        print.is_some_and(|print| self.policy.keys.of_print(print).is_none())
    }

    /// The batch as one that was seen with the key of this fingerprint, if that is in use.
    pub(super) fn seen_with(&self, batch: Batch, print: Option<&str>) -> Batch {
        match print.filter(|print| self.policy.keys.of_print(print).is_some()) {
            Some(print) => Batch { key_print: print.to_owned(), ..batch },
            None => batch,
        }
    }

    /// Whether nothing of the job can go on before a person has done something.
    pub fn waits_for_a_person(&self, job: &Job) -> bool {
        let is_held = !self.may_send(&job.head) || self.is_short(job.head.id);
        let waits = |chunk: &Chunk| match &chunk.state {
            ChunkState::Waiting { .. } | ChunkState::Uploading { .. } if is_held => true,
            ChunkState::Waiting { .. } if canary::is_stopped(job) => true,
            ChunkState::Stuck { .. } | ChunkState::Settled | ChunkState::Split { .. } => true,
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Polling(_)
            | ChunkState::Rescuing { .. }
            | ChunkState::Collecting { .. } => {
                let unit = Unit { job: job.head.id, chunk: Some(chunk.no) };
                self.unseen.contains(&unit) || self.key_of(job, chunk).is_none()
            }
        };
        let is_active = matches!(job.head.state, JobState::Active(_));
        is_active && job.chunks.values().all(waits) || self.is_left_in_inbox(&job.head)
    }

    /// What was made with a key that is not configured may only be out of sight: it was paid for,
    /// so it waits, unless the job was cancelled. Answers whether it does.
    pub(super) fn waits_for_its_key(&mut self, unit: Unit, batch: &Batch, now: Millis) -> bool {
        let is_foreign = self.policy.keys.of_print(&batch.key_print).is_none();
        if !is_foreign || self.is_cancelled(unit.job) {
            return false;
        }
        let message = out_of_sight(&batch.name);
        let not_before = now.plus(self.policy.poll_max_ms);
        let trouble = Trouble { failures: 1, not_before, message, ..Trouble::default() };
        self.troubles.insert(unit, trouble);
        self.unseen.insert(unit);
        true
    }

    /// A batch was seen with this key: that is the key of its job from now on.
    pub(super) fn bind(&mut self, unit: Unit, print: &str, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&unit.job) else { return };
        if job.head.key_print.as_deref() == Some(print) {
            return;
        }
        let bound = job.head.key_print.replace(print.to_owned());
        turn.save.push(Change::Head(Box::new(job.head.clone())));
        // The other chunks may have waited for this.
        if bound.is_some() {
            self.refile_job(unit.job);
        }
    }

    /// Why a job waits for a key, if it does, and what to do.
    pub fn waits_for_key(&self, job: &Job) -> Option<String> {
        let JobState::Active(_) = &job.head.state else { return None };
        let id = job.head.id;
        let over =
            |chunk: &Chunk| matches!(chunk.state, ChunkState::Settled | ChunkState::Split { .. });
        for chunk in job.chunks.values().filter(|chunk| !over(chunk)) {
            let unit = Unit { job: id, chunk: Some(chunk.no) };
            if self.unseen.contains(&unit)
                && let ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. } =
                    &chunk.state
            {
                return Some(format!(
                    "{}, `gemini-batchd cancel {id}`; when it is back: reload, or \
                     `gemini-batchd release {id}` to look at once",
                    out_of_sight(&batch.name)
                ));
            }
            if self.key_of(job, chunk).is_none() && self.key_of_job(job).is_none() {
                return Some(match job.head.queue.credential.as_str() {
                    "" => format!(
                        "there is no default API key any more, and the job needs it: configure \
                         api.key_file again and reload, or give up: `gemini-batchd cancel {id}`"
                    ),
                    name => format!(
                        "the credential {name:?} is not configured any more, and the job needs \
                         its API key: put [credential.{name}] back and reload, or give up: \
                         `gemini-batchd cancel {id}`"
                    ),
                });
            }
        }
        None
    }

    /// Looks again, with the key in use, for what could not be seen. Answers whether there was any.
    pub(super) fn look_again(&mut self, id: JobId) -> bool {
        let units: Vec<Unit> = self.unseen.iter().filter(|unit| unit.job == id).copied().collect();
        for unit in &units {
            self.unseen.remove(unit);
            self.troubles.remove(unit);
            self.polls.remove(unit);
        }
        self.refile_job(id);
        !units.is_empty()
    }

    /// Ends what can not be asked for or stopped, because no key for it is configured: a person
    /// has given up the job.
    pub(super) fn give_up_without_key(&mut self, id: JobId, now: Millis, turn: &mut Turn) {
        let chunks = self.jobs.get(&id).map(|job| job.chunks.keys().copied().collect());
        let chunks: Vec<ChunkNo> = chunks.unwrap_or_default();
        for no in chunks {
            self.give_up_chunk(Unit { job: id, chunk: Some(no) }, now, turn);
        }
    }

    fn give_up_chunk(&mut self, unit: Unit, now: Millis, turn: &mut Turn) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        if self.key_of(job, chunk).is_some() || self.busy.contains(&unit) {
            return;
        }
        match chunk.state.clone() {
            ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. } => {
                let message = "its API key is not configured any more, so that it could neither be \
                               stopped nor asked for its results";
                self.warn(unit.job, turn, format!("{}: {message}", batch.name.0));
                let error = Some(RemoteError { code: 7, message: message.to_owned() });
                let state = RemoteState::Unknown("OUT_OF_REACH".to_owned());
                let end = RemoteEnd { state, ended: now, error };
                let rest = find(&self.jobs, unit).map(|(_, chunk)| chunk.rest).unwrap_or_default();
                self.conclude(unit, &batch, &end, 0, rest, now, turn);
                self.settle(unit, turn);
            }
            ChunkState::Uncertain { .. } => {
                let stamp = Stamp::new(unit.job, chunk.no, chunk.attempt);
                let message = format!(
                    "{}: whether there is a batch of this name is not known: its API key is not \
                     configured any more",
                    stamp.0
                );
                self.warn(unit.job, turn, message);
                self.settle(unit, turn);
            }
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Rescuing { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => {}
        }
    }
}

/// The fingerprint of the key with which something of the chunk's attempt was made at the API, or
/// may have been.
pub(super) fn made_with(chunk: &Chunk) -> Option<&str> {
    match &chunk.state {
        ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. } => Some(&batch.key_print),
        ChunkState::Creating { .. } | ChunkState::Uncertain { .. } | ChunkState::Stuck { .. } => {
            chunk.key_print.as_deref()
        }
        ChunkState::Waiting { .. }
        | ChunkState::Uploading { .. }
        | ChunkState::Rescuing { .. }
        | ChunkState::Settled
        | ChunkState::Split { .. } => None,
    }
}

fn out_of_sight(batch: &BatchName) -> String {
    format!(
        "{} was made with another API key and can not be seen with the one in use: put the former \
         key back, or give it a credential of its own, or cancel the job",
        batch.0
    )
}
