//! What is taken at the API: batches that are open, uploads under way, and bytes that lie there.
//!
//! Counted for each API key by itself, since limits are those of its project; only uploads share one
//! line. Bytes are those of our input files, until they are removed, and of the result files that
//! were fetched; how large others will be nobody tells. What is not needed any more is removed: an
//! input as soon as its batch exists, for the API reads it before it answers (API contract, 3.4),
//! the rest when the job is over, or earlier if another file waits for storage.

use std::collections::BTreeSet;

use super::effect::{Change, Effect, Turn};
use super::event::Failure;
use super::ids::{BatchName, FileName, JobId, Millis, Ticket};
use super::job::{Batch, Chunk, ChunkState, Family, Head, Input, Rest, Share};
use super::keys::KeyNo;
use super::lanes::{Lane, Size, Unit};
use super::machine::{Engine, find, salt};
use super::policy;

/// What is taken at the API right now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Batches open, or about to be.
    pub open_batches: usize,
    /// Files being uploaded.
    pub uploading: usize,
    /// Bytes of input files that lie there.
    pub stored_bytes: u64,
}

/// What there is not enough of at the API right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Batches that may be open.
    Batches,
    /// Uploads that may be under way.
    Uploads,
    /// Storage for files.
    Storage,
}

impl Usage {
    /// The same with a unit's part exchanged.
    fn with(self, before: Usage, now: Usage) -> Usage {
        Usage {
            open_batches: self.open_batches + now.open_batches - before.open_batches,
            uploading: self.uploading + now.uploading - before.uploading,
            stored_bytes: self.stored_bytes + now.stored_bytes - before.stored_bytes,
        }
    }

    /// Both together.
    fn plus(self, other: Usage) -> Usage {
        self.with(Usage::default(), other)
    }
}

/// Something that is being removed at the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removal {
    unit: Unit,
    key: Option<KeyNo>,
    what: Removed,
    /// Somebody waits for it.
    for_room: bool,
}

/// What is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Removed {
    /// A batch whose results are here, with all that belongs to it.
    Batch(BatchName),
    /// The input of a batch that exists.
    Input(FileName),
}

impl Engine {
    /// What is taken at the API right now, with all keys together.
    pub fn usage(&self) -> Usage {
        let all = self.small_usage.values().chain(self.other_usage.values());
        all.fold(Usage::default(), |sum, usage| sum.plus(*usage))
    }

    /// What is taken at the API with one key.
    pub fn usage_of(&self, key: KeyNo) -> Usage {
        let of = |usage: Option<&Usage>| usage.copied().unwrap_or_default();
        of(self.small_usage.get(&Some(key))).plus(of(self.other_usage.get(&Some(key))))
    }

    /// What keeps the rows of a chunk from going to the API now, if anything does.
    pub(super) fn obstacle(&self, unit: Unit, size: Size, key: KeyNo) -> Option<Obstacle> {
        let (job, chunk) = find(&self.jobs, unit)?;
        let inline = self.policy.goes_inline(&job.head.queue, chunk.rest);
        self.obstacle_for(size, key, (!inline).then(|| chunk.rest.bytes()))
    }

    /// The same for any rows; `file` is how many bytes they are, if they need a file.
    fn obstacle_for(&self, size: Size, key: KeyNo, file: Option<u64>) -> Option<Obstacle> {
        let (all, policy) = (self.usage_of(key), &self.policy);
        let others = self.other_usage.get(&Some(key)).copied().unwrap_or_default();
        let is_small = size == Size::Small;
        let batch = all.open_batches < policy.open_batches
            && (is_small || others.open_batches < policy.open_batches_of_others());
        if !batch {
            return Some(Obstacle::Batches);
        }
        let bytes = file?;
        let early = self.early_uploads;
        let small: usize = self.small_usage.values().map(|usage| usage.uploading).sum();
        let other: usize = self.other_usage.values().map(|usage| usage.uploading).sum();
        let upload = match is_small {
            true => small == 0 || small + other + early < policy.uploads,
            false => other + early < policy.uploads && small + other + early <= policy.uploads,
        };
        if !upload {
            return Some(Obstacle::Uploads);
        }
        let storage = all.stored_bytes + bytes <= policy.storage_bytes
            && (is_small || others.stored_bytes + bytes <= policy.storage_bytes_of_others());
        // What is larger than all there may be is tried alone.
        (!storage && all.stored_bytes > 0).then_some(Obstacle::Storage)
    }

    /// Whether the first file of a job may begin to go to the API while the job is planned: nothing
    /// would keep it from going now, were it as large as the input.
    pub(super) fn welcomes_early(&self, head: &Head, key: KeyNo) -> bool {
        let bytes = head.source.bytes;
        let size = policy::size_of(bytes);
        let whole = Rest { left: Share { rows: 0, bytes }, right: Share::default() };
        size != Size::Small
            && self.may_send(head)
            && self.is_window_open(head)
            && head.queue.canary.is_none()
            && !self.gates.contains_key(&key)
            && !self.policy.goes_inline(&head.queue, whole)
            && self.obstacle_for(size, key, Some(bytes)).is_none()
    }

    /// How much work a job is.
    pub(super) fn size(&self, id: JobId) -> Size {
        self.jobs.get(&id).map_or(Size::Small, |job| policy::size_of(job.head.source.bytes))
    }

    /// Keeps the count of what a chunk takes at the API.
    pub(super) fn account(&mut self, unit: Unit) {
        self.account_money(unit);
        self.account_tokens(unit);
        let (key, taken) = match find(&self.jobs, unit) {
            Some((job, chunk)) if !job.is_over() => (self.key_of(job, chunk), self.taken_by(chunk)),
            Some(_) | None => (None, Usage::default()),
        };
        let before = match taken == Usage::default() {
            true => self.takings.remove(&unit),
            false => self.takings.insert(unit, (key, taken)),
        };
        let usage = match self.size(unit.job) {
            Size::Small => &mut self.small_usage,
            Size::Middle | Size::Large => &mut self.other_usage,
        };
        if let Some((key, before)) = before {
            let sum = usage.entry(key).or_default();
            *sum = sum.with(before, Usage::default());
        }
        if taken != Usage::default() {
            let sum = usage.entry(key).or_default();
            *sum = sum.plus(taken);
        }
    }

    /// Forgets what was counted by keys that may be others now; whoever files every unit again
    /// counts it.
    pub(super) fn count_anew(&mut self) {
        self.takings.clear();
        self.small_usage.clear();
        self.other_usage.clear();
        self.count_tokens_anew();
        self.under_way.clear();
        for running in self.running.values() {
            let queue = self.queue_of(running);
            *self.under_way.entry(queue).or_default() += 1;
        }
    }

    fn taken_by(&self, chunk: &Chunk) -> Usage {
        let by_file = |input: &Input| match input {
            Input::Inline => 0,
            Input::File(_) => chunk.rest.bytes(),
        };
        let by_batch = |batch: &Batch| if batch.input_gone { 0 } else { by_file(&batch.input) };
        let mut taken = match &chunk.state {
            ChunkState::Uploading { .. } => {
                Usage { open_batches: 1, uploading: 1, stored_bytes: chunk.rest.bytes() }
            }
            ChunkState::Creating { input, .. }
            | ChunkState::Uncertain { input, .. }
            | ChunkState::Stuck { input, .. } => {
                Usage { open_batches: 1, uploading: 0, stored_bytes: by_file(input) }
            }
            ChunkState::Polling(batch) => {
                Usage { open_batches: 1, uploading: 0, stored_bytes: by_batch(batch) }
            }
            ChunkState::Collecting { batch, .. } => {
                Usage { stored_bytes: by_batch(batch), ..Usage::default() }
            }
            ChunkState::Waiting { .. }
            | ChunkState::Rescuing { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => Usage::default(),
        };
        let left = chunk.batches.iter().filter(|batch| {
            matches!(batch.input, Input::File(_)) && !self.discarded.contains(&batch.name)
        });
        let bytes = left.map(|batch| {
            let input = if batch.input_gone { 0 } else { batch.bytes };
            input.saturating_add(batch.result_bytes)
        });
        taken.stored_bytes += bytes.sum::<u64>();
        taken
    }

    /// Whether the API has read a batch's input file when its create is answered. Of its
    /// OpenAI-compatible layer nobody knows: there the file stays as long as the batch.
    pub(super) fn is_read_at_create(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.head.state.family() == Family::Native)
    }

    /// Removes the input file of a batch that exists. If that fails, it is removed with the rest.
    pub(super) fn drop_input(
        &mut self,
        unit: Unit,
        file: FileName,
        key: Option<KeyNo>,
        turn: &mut Turn,
    ) {
        let what = Removed::Input(file.clone());
        let removal = Removal { unit, key, what, for_room: false };
        self.remove(removal, Effect::DropInput { file }, turn);
    }

    fn remove(&mut self, removal: Removal, effect: Effect, turn: &mut Turn) {
        let key = removal.key;
        self.removing.insert(Ticket(self.next_ticket), removal);
        self.issue(Lane::Cancel, Vec::new(), effect, key, turn);
    }

    /// When a file waits for storage at the API, what is collected there already makes room: its
    /// answers are on our own disk, synced. So does the input of a batch that exists.
    pub(super) fn make_room_at_the_api(&mut self, now: Millis, turn: &mut Turn) {
        if !self.policy.remote_cleanup {
            return;
        }
        let ready = self.lanes.first_ready(Lane::Send);
        let blocked: BTreeSet<KeyNo> = ready
            .filter_map(|(unit, (_, size, key))| Some((unit, size, key?)))
            .filter(|(unit, size, key)| {
                self.obstacle(*unit, *size, *key) == Some(Obstacle::Storage)
            })
            .map(|(_, _, key)| key)
            .collect();
        for key in blocked {
            if self.no_room.get(&key).is_none_or(|trouble| trouble.not_before <= now) {
                self.make_room_with(key, now, turn);
            }
        }
    }

    fn make_room_with(&mut self, key: KeyNo, now: Millis, turn: &mut Turn) {
        let of_key = self.takings.iter().filter(|(_, (of, _))| *of == Some(key));
        let holders: Vec<Unit> = of_key.map(|(unit, _)| *unit).collect();
        for unit in holders {
            for (removal, effect) in self.removable(unit, key) {
                if !self.is_open(Lane::Cancel, Some(key), now) {
                    return;
                }
                self.remove(removal, effect, turn);
            }
        }
    }

    /// What a chunk does not need any more of what it has at the API, and how it is removed.
    fn removable(&self, unit: Unit, key: KeyNo) -> Vec<(Removal, Effect)> {
        let Some((_, chunk)) = find(&self.jobs, unit) else { return Vec::new() };
        let ended = chunk.batches.iter().filter(|batch| !self.discarded.contains(&batch.name));
        let mut all: Vec<(Removed, Effect)> = ended
            .map(|batch| {
                let (name, input) = (batch.name.clone(), batch.input.clone());
                (Removed::Batch(name.clone()), Effect::Discard { batch: name, input })
            })
            .collect();
        if let ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. } = &chunk.state
            && let Input::File(file) = &batch.input
            && !batch.input_gone
            && self.is_read_at_create(unit.job)
        {
            let file = file.clone();
            all.push((Removed::Input(file.clone()), Effect::DropInput { file }));
        }
        all.retain(|(what, _)| !self.removing.values().any(|removal| removal.what == *what));
        let removal = |what| Removal { unit, key: Some(key), what, for_room: true };
        all.into_iter().map(|(what, effect)| (removal(what), effect)).collect()
    }

    /// A removal is done, if it was one: there is room now.
    pub(super) fn removed_at_the_api(&mut self, ticket: Ticket, turn: &mut Turn) {
        let Some(Removal { unit, key, what, .. }) = self.removing.remove(&ticket) else { return };
        match what {
            Removed::Batch(batch) => {
                self.discarded.insert(batch);
            }
            Removed::Input(file) => self.note_input_gone(unit, &Input::File(file), turn),
        }
        self.account(unit);
        if let Some(key) = key {
            self.no_room.remove(&key);
        }
    }

    fn note_input_gone(&mut self, unit: Unit, input: &Input, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&unit.job).filter(|job| !job.is_over()) else { return };
        let Some(chunk) = unit.chunk.and_then(|no| job.chunks.get_mut(&no)) else { return };
        let gone = match &mut chunk.state {
            ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. }
                if batch.input == *input =>
            {
                Some(&mut batch.input_gone)
            }
            ChunkState::Polling(_)
            | ChunkState::Collecting { .. }
            | ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Stuck { .. }
            | ChunkState::Rescuing { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => {
                let mut ended = chunk.batches.iter_mut();
                ended.find(|batch| batch.input == *input).map(|batch| &mut batch.input_gone)
            }
        };
        if let Some(gone) = gone {
            *gone = true;
            turn.save.push(Change::Chunk(unit.job, Box::new(chunk.clone())));
        }
    }

    /// A removal failed, if it was one: what it was to remove lies there still, and is removed
    /// later.
    pub(super) fn not_removed_at_the_api(
        &mut self,
        ticket: Ticket,
        failure: &Failure,
        now: Millis,
    ) {
        let Some(Removal { unit, key, for_room, .. }) = self.removing.remove(&ticket) else {
            return;
        };
        let Some(key) = key.filter(|_| for_room) else { return };
        let before = self.no_room.remove(&key).unwrap_or_default();
        let pause = self.policy.backoff_ms(before.failures + 1, salt(unit));
        self.no_room.insert(key, before.and(failure, now, now.plus(pause)));
    }
}
