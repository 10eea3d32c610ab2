//! Small changes to the engine's jobs that always end in a record to save.

use super::effect::{Change, Effect, Turn};
use super::event::Failure;
use super::ids::{ChunkNo, JobId, Millis, Ticket};
use super::job::{Chunk, ChunkState, Delivery, Doubt, Head, Input, JobState, Plan, Rest, Share};
use super::lanes::{Lane, Size, Unit};
use super::machine::{Engine, find, find_mut, salt};
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

impl Engine {
    /// What is taken at the API right now.
    pub fn usage(&self) -> Usage {
        self.small_usage.plus(self.other_usage)
    }

    /// What keeps the rows of a chunk from going to the API now, if anything does.
    pub(super) fn obstacle(&self, unit: Unit, size: Size) -> Option<Obstacle> {
        let (job, chunk) = find(&self.jobs, unit)?;
        let inline = self.policy.goes_inline(&job.head.queue, chunk.rest);
        self.obstacle_for(size, (!inline).then(|| chunk.rest.bytes()))
    }

    /// The same for any rows; `file` is how many bytes they are, if they need a file.
    fn obstacle_for(&self, size: Size, file: Option<u64>) -> Option<Obstacle> {
        let (all, others, policy) = (self.usage(), self.other_usage, &self.policy);
        let is_small = size == Size::Small;
        let batch = all.open_batches < policy.open_batches
            && (is_small || others.open_batches < policy.open_batches_of_others());
        if !batch {
            return Some(Obstacle::Batches);
        }
        let bytes = file?;
        let (early, uploads) = (self.early_uploads, policy.uploads);
        let upload = match is_small {
            true => self.small_usage.uploading == 0 || all.uploading + early < uploads,
            false => others.uploading + early < uploads && all.uploading + early <= uploads,
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
    pub(super) fn welcomes_early(&self, head: &Head) -> bool {
        let bytes = head.source.bytes;
        let size = policy::size_of(bytes);
        let whole = Rest { left: Share { rows: 0, bytes }, right: Share::default() };
        size != Size::Small
            && self.gate.is_none()
            && !self.policy.goes_inline(&head.queue, whole)
            && self.obstacle_for(size, Some(bytes)).is_none()
    }

    /// How much work a job is.
    pub(super) fn size(&self, id: JobId) -> Size {
        self.jobs.get(&id).map_or(Size::Small, |job| policy::size_of(job.head.source.bytes))
    }

    /// Stops a job: nothing more is sent, its batches are cancelled, what they have is collected.
    ///
    /// # Errors
    /// In words, if the job is unknown or has nothing to stop.
    pub fn cancel(&mut self, id: JobId, now: Millis) -> Result<Turn, String> {
        let mut turn = Turn::default();
        match self.state(id) {
            Some(JobState::Active(_)) => {}
            Some(JobState::Claiming | JobState::Planning) => {
                return Err(format!("job {id} is still being read; ask again in a moment"));
            }
            Some(_) => return Err(format!("job {id} has nothing left to cancel")),
            None => return Err(format!("there is no job {id}")),
        }
        self.change_plan(id, &mut turn, |plan| {
            plan.cancelled = true;
            true
        });
        let idle = |chunk: &&Chunk| match &chunk.state {
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Stuck { .. } => true,
            ChunkState::Creating { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Polling(_)
            | ChunkState::Collecting { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => false,
        };
        let head = self.jobs.get(&id).map(|job| Box::new(job.head.clone()));
        if let Some(head) = head {
            self.issue(Lane::Move, Vec::new(), Effect::Withdraw { head }, &mut turn);
        }
        let chunks = self.jobs.get(&id).map(|job| &job.chunks);
        let idle: Vec<_> =
            chunks.into_iter().flat_map(|all| all.values()).filter(idle).map(|c| c.no).collect();
        for no in idle {
            self.settle(Unit { job: id, chunk: Some(no) }, &mut turn);
        }
        self.refile_job(id);
        self.pump(now, &mut turn);
        Ok(turn)
    }

    /// Lets the chunks of a job go on that wait for a person, or a file that was held because its
    /// content was dropped before.
    ///
    /// # Errors
    /// In words, if nothing of the job waits for one.
    pub fn release(&mut self, id: JobId, now: Millis) -> Result<Turn, String> {
        let mut turn = Turn::default();
        let stuck = |chunk: &Chunk| match &chunk.state {
            ChunkState::Stuck { input, since } => Some((chunk.no, input.clone(), *since)),
            ChunkState::Waiting { .. }
            | ChunkState::Uploading { .. }
            | ChunkState::Creating { .. }
            | ChunkState::Uncertain { .. }
            | ChunkState::Polling(_)
            | ChunkState::Collecting { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => None,
        };
        let job = self.jobs.get(&id).ok_or_else(|| format!("there is no job {id}"))?;
        let stuck: Vec<_> = job.chunks.values().filter_map(stuck).collect();
        if let JobState::Held(refusal) = &job.head.state {
            if refusal.reason != DUPLICATE {
                return Err(format!("the file of job {id} lies in held/: {}", refusal.remedy));
            }
            self.fetch_back(id, &mut turn);
            self.pump(now, &mut turn);
            return Ok(turn);
        }
        if stuck.is_empty() {
            return Err(format!("nothing of job {id} waits for a release"));
        }
        let head = Box::new(job.head.clone());
        self.issue(Lane::Move, Vec::new(), Effect::Withdraw { head }, &mut turn);
        for (no, input, since) in stuck {
            let unit = Unit { job: id, chunk: Some(no) };
            self.warn(id, &mut turn, format!("chunk {} was released by an operator", no.0));
            let doubt = Doubt::Released;
            let state = ChunkState::Uncertain { input, since, next_probe: now, until: now, doubt };
            self.set_chunk(unit, state, &mut turn);
        }
        self.pump(now, &mut turn);
        Ok(turn)
    }

    /// A held file is claimed again, from where it lies.
    fn fetch_back(&mut self, id: JobId, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.head.released = true;
        self.advance(id, JobState::Claiming, turn);
    }

    pub(super) fn state(&self, id: JobId) -> Option<&JobState> {
        self.jobs.get(&id).map(|job| &job.head.state)
    }

    pub(super) fn is_in(&self, unit: Unit, test: impl Fn(&ChunkState) -> bool) -> bool {
        find(&self.jobs, unit).is_some_and(|(job, chunk)| {
            matches!(job.head.state, JobState::Active(_)) && test(&chunk.state)
        })
    }

    pub(super) fn is_cancelled(&self, id: JobId) -> bool {
        match self.state(id) {
            Some(JobState::Active(plan)) => plan.cancelled,
            Some(_) | None => false,
        }
    }

    /// Puts the job into a new state.
    pub(super) fn advance(&mut self, id: JobId, state: JobState, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.head.state == JobState::Claiming && !job.head.released {
            let source = &job.head.source;
            self.claiming.remove(&(source.folder.clone(), source.name.clone()));
        }
        job.head.state = state;
        turn.save.push(Change::Head(job.head.clone()));
        if job.is_over() {
            self.forget_troubles(id);
        }
        self.unsettled.remove(&id);
        self.refile_job(id);
    }

    /// Everything is done for a job: it moves to the past.
    pub(super) fn complete(&mut self, id: JobId, delivery: Delivery, turn: &mut Turn) {
        self.advance(id, JobState::Done(delivery), turn);
        let Some(job) = self.jobs.remove(&id) else { return };
        self.refile(Unit { job: id, chunk: None });
        turn.save.extend(self.past.add(job).map(Change::Shed));
    }

    /// Drops a job that turned out to be none.
    pub(super) fn forget(&mut self, id: JobId, turn: &mut Turn) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if !job.head.released {
            let source = job.head.source;
            self.claiming.remove(&(source.folder, source.name));
        }
        self.forget_troubles(id);
        turn.save.push(Change::Forget(id));
        self.refile(Unit { job: id, chunk: None });
    }

    /// What went wrong with a job does not matter any more.
    fn forget_troubles(&mut self, id: JobId) {
        self.troubles.retain(|unit, _| unit.job != id);
    }

    /// Changes what is known of an active job; the closure says whether anything changed.
    pub(super) fn change_plan(
        &mut self,
        id: JobId,
        turn: &mut Turn,
        change: impl FnOnce(&mut Plan) -> bool,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let JobState::Active(plan) = &mut job.head.state else { return };
        if change(plan) {
            turn.save.push(Change::Head(job.head.clone()));
        }
    }

    /// Adds a warning to the manifest.
    pub(super) fn warn(&mut self, id: JobId, turn: &mut Turn, warning: String) {
        self.change_plan(id, turn, |plan| {
            let room = plan.warnings.len() < WARNINGS_MAX;
            if room {
                plan.warnings.push(warning);
            }
            room
        });
    }

    /// Puts a chunk into a new state.
    pub(super) fn set_chunk(&mut self, unit: Unit, state: ChunkState, turn: &mut Turn) {
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        chunk.state = state;
        turn.save.push(Change::Chunk(head.id, chunk.clone()));
        self.told.remove(&unit);
        self.refile(unit);
    }

    /// Adds a chunk to a job.
    pub(super) fn add_chunk(&mut self, id: JobId, chunk: Chunk, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let unit = Unit { job: id, chunk: Some(chunk.no) };
        turn.save.push(Change::Chunk(id, chunk.clone()));
        job.chunks.insert(chunk.no, chunk);
        self.refile(unit);
    }

    /// Nothing more is sent for this chunk.
    pub(super) fn settle(&mut self, unit: Unit, turn: &mut Turn) {
        self.troubles.remove(&unit);
        self.set_chunk(unit, ChunkState::Settled, turn);
        self.merge_when_settled(unit.job, turn);
    }

    /// Goes on to merging once every chunk is settled. Chunks stay settled, so those that were
    /// found to be so before are not looked at again.
    pub(super) fn merge_when_settled(&mut self, id: JobId, turn: &mut Turn) {
        let Some(job) = self.jobs.get(&id) else { return };
        let JobState::Active(plan) = &job.head.state else { return };
        let over =
            |chunk: &Chunk| matches!(chunk.state, ChunkState::Settled | ChunkState::Split { .. });
        let from = self.unsettled.get(&id).copied().unwrap_or(ChunkNo(0));
        match job.chunks.range(from..).find(|(_, chunk)| !over(chunk)) {
            Some((no, _)) => {
                self.unsettled.insert(id, *no);
            }
            None => {
                let plan = plan.clone();
                self.advance(id, JobState::Merging(plan), turn);
            }
        }
    }

    /// Keeps the count of what a chunk takes at the API.
    pub(super) fn account(&mut self, unit: Unit) {
        let taken = match find(&self.jobs, unit) {
            Some((job, chunk)) if !job.is_over() => self.taken_by(chunk),
            Some(_) | None => Usage::default(),
        };
        let before = match taken == Usage::default() {
            true => self.takings.remove(&unit),
            false => self.takings.insert(unit, taken),
        };
        let before = before.unwrap_or_default();
        let usage = match self.size(unit.job) {
            Size::Small => &mut self.small_usage,
            Size::Middle | Size::Large => &mut self.other_usage,
        };
        *usage = usage.with(before, taken);
    }

    fn taken_by(&self, chunk: &Chunk) -> Usage {
        let by_file = |input: &Input| match input {
            Input::Inline => 0,
            Input::File(_) => chunk.rest.bytes(),
        };
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
                Usage { open_batches: 1, uploading: 0, stored_bytes: by_file(&batch.input) }
            }
            ChunkState::Collecting { batch, .. } => {
                Usage { stored_bytes: by_file(&batch.input), ..Usage::default() }
            }
            ChunkState::Waiting { .. } | ChunkState::Settled | ChunkState::Split { .. } => {
                Usage::default()
            }
        };
        let left = chunk.batches.iter().filter(|batch| {
            matches!(batch.input, Input::File(_)) && !self.discarded.contains(&batch.name)
        });
        taken.stored_bytes += left.map(|batch| batch.bytes).sum::<u64>();
        taken
    }

    /// When a file waits for storage at the API, what is collected there already makes room:
    /// its answers are on our own disk, synced.
    pub(super) fn make_room_at_the_api(&mut self, now: Millis, turn: &mut Turn) {
        let waits = |(unit, size)| self.obstacle(unit, size) == Some(Obstacle::Storage);
        let blocked = self.lanes.first_ready(Lane::Send).any(waits);
        if !blocked || self.no_room.as_ref().is_some_and(|trouble| trouble.not_before > now) {
            return;
        }
        let holders: Vec<Unit> = self.takings.keys().copied().collect();
        for unit in holders {
            let Some((_, chunk)) = find(&self.jobs, unit) else { continue };
            let collected: Vec<_> = chunk
                .batches
                .iter()
                .filter(|batch| !self.discarded.contains(&batch.name))
                .filter(|batch| !self.making_room.values().any(|(_, name)| *name == batch.name))
                .map(|batch| (batch.name.clone(), batch.input.clone()))
                .collect();
            for (batch, input) in collected {
                if !self.is_open(Lane::Cancel, now) {
                    break;
                }
                self.making_room.insert(Ticket(self.next_ticket), (unit, batch.clone()));
                let effect = Effect::Discard { batch, input };
                self.issue(Lane::Cancel, Vec::new(), effect, turn);
            }
        }
    }

    /// A removal is done, if it was one: there is room now.
    pub(super) fn room_made(&mut self, ticket: Ticket) {
        let Some((unit, batch)) = self.making_room.remove(&ticket) else { return };
        self.discarded.insert(batch);
        self.account(unit);
        self.no_room = None;
    }

    /// A removal failed, if it was one: what it was to remove lies there still, and is removed
    /// later.
    pub(super) fn room_not_made(&mut self, ticket: Ticket, failure: &Failure, now: Millis) {
        let Some((unit, _)) = self.making_room.remove(&ticket) else { return };
        let before = self.no_room.take().unwrap_or_default();
        let pause = self.policy.backoff_ms(before.failures + 1, salt(unit));
        self.no_room = Some(before.and(failure, now, now.plus(pause)));
    }
}

/// The reason of a file that is held because its content was dropped before.
pub(super) const DUPLICATE: &str = "duplicate";
/// More warnings than this tell nobody anything.
const WARNINGS_MAX: usize = 100;
