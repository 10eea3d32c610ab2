//! Small changes to the engine's jobs that always end in a record to save.

use super::effect::{Change, Effect, Turn};
use super::ids::{ChunkNo, JobId, Millis};
use super::job::{Chunk, ChunkState, Delivery, Doubt, JobState, Plan};
use super::lanes::{Lane, Unit};
use super::machine::{Engine, find, find_mut};
use super::stalled::{BUDGET, waits_for_budget};

impl Engine {
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
            None => return Err(self.not_under_way(id, "has nothing left to cancel")),
        }
        self.set_on_hold(id, false, &mut turn);
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
            | ChunkState::Rescuing { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => false,
        };
        let head = self.jobs.get(&id).map(|job| Box::new(job.head.clone()));
        if let Some(head) = head {
            self.issue(Lane::Move, Vec::new(), Effect::Withdraw { head }, None, &mut turn);
        }
        let chunks = self.jobs.get(&id).map(|job| &job.chunks);
        let idle: Vec<_> =
            chunks.into_iter().flat_map(|all| all.values()).filter(idle).map(|c| c.no).collect();
        for no in idle {
            self.settle(Unit { job: id, chunk: Some(no) }, &mut turn);
        }
        self.look_again(id);
        self.give_up_without_key(id, now, &mut turn);
        self.refile_job(id);
        self.pump(now, &mut turn);
        Ok(turn)
    }

    /// Lets a job go on that is on hold, waits for its moment, or whose chunks wait for a person, or
    /// a file that was held because its content was dropped before.
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
            | ChunkState::Rescuing { .. }
            | ChunkState::Settled
            | ChunkState::Split { .. } => None,
        };
        let Some(job) = self.jobs.get(&id) else {
            return Err(self.not_under_way(id, "is over: nothing of it waits for a release"));
        };
        let stuck: Vec<_> = job.chunks.values().filter_map(stuck).collect();
        if let JobState::Held(refusal) = &job.head.state {
            if refusal.reason == BUDGET {
                self.set_on_hold(id, false, &mut turn);
                self.allow_over(id, &mut turn);
            } else if refusal.reason != DUPLICATE {
                return Err(format!("the file of job {id} lies in held/: {}", refusal.remedy));
            }
            self.fetch_back(id, &mut turn);
            self.pump(now, &mut turn);
            return Ok(turn);
        }
        let (head, waits) = (Box::new(job.head.clone()), self.waits_for_key(job));
        let was_on_hold = self.set_on_hold(id, false, &mut turn);
        let was_closed = self.open_window(id, now, &mut turn);
        let was_stopped = self.pass_canary(id, &mut turn);
        let was_short = self.release_stalled(id, &mut turn);
        let waited = was_on_hold || was_closed || was_stopped || was_short;
        let looks = self.look_again(id) || waited;
        if stuck.is_empty() && looks {
            self.pump(now, &mut turn);
            return Ok(turn);
        }
        if stuck.is_empty() {
            return Err(match waits {
                Some(why) => format!("no release helps job {id}: {why}"),
                None => format!("nothing of job {id} waits for a release"),
            });
        }
        self.issue(Lane::Move, Vec::new(), Effect::Withdraw { head }, None, &mut turn);
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
    pub(super) fn fetch_back(&mut self, id: JobId, turn: &mut Turn) {
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
        let (is_active, is_over) = (matches!(job.head.state, JobState::Active(_)), job.is_over());
        // Otherwise nothing more of it is going to be sent.
        job.head.on_hold &= job.head.state.may_send() || waits_for_budget(&job.head.state);
        turn.save.push(Change::Head(Box::new(job.head.clone())));
        if is_over {
            self.forget_troubles(id);
        }
        if !is_active {
            self.stalled.forget(id);
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
        // A file of that name that came later is another one.
        if job.head.state == JobState::Claiming && !job.head.released {
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
        self.crossed.retain(|unit| unit.job != id);
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
            turn.save.push(Change::Head(Box::new(job.head.clone())));
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
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        let before = std::mem::replace(&mut chunk.state, state);
        self.let_go(unit, &before);
        let Some((head, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        turn.save.push(Change::Chunk(head.id, Box::new(chunk.clone())));
        self.told.remove(&unit);
        self.unseen.remove(&unit);
        // What this chunk had at the API may have been what the others waited for.
        match self.is_bound_elsewhere(unit.job) {
            true => self.refile_job(unit.job),
            false => self.refile(unit),
        }
    }

    /// Adds a chunk to a job.
    pub(super) fn add_chunk(&mut self, id: JobId, chunk: Chunk, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let unit = Unit { job: id, chunk: Some(chunk.no) };
        turn.save.push(Change::Chunk(id, Box::new(chunk.clone())));
        job.chunks.insert(chunk.no, chunk);
        self.refile(unit);
    }

    /// Nothing more is sent for this chunk.
    pub(super) fn settle(&mut self, unit: Unit, turn: &mut Turn) {
        self.troubles.remove(&unit);
        if self.take_up_what_was_left(unit, turn) {
            return;
        }
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
}

/// The reason of a file that is held because its content was dropped before.
pub(super) const DUPLICATE: &str = "duplicate";
/// More warnings than this tell nobody anything.
const WARNINGS_MAX: usize = 100;
