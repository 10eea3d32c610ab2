//! The process: how it saves, acts, dies and comes back, with whatever was under way.

use gemini_batchd::engine::Recollection;
use gemini_batchd::engine::effect::{Effect, Issued, Turn};
use gemini_batchd::engine::event::{Event, Failure};
use gemini_batchd::engine::ids::{JobId, Millis};
use gemini_batchd::engine::job::{ChunkState, Job};
use gemini_batchd::store::JobStore;
use gemini_batchd::store::memory::Fault;

use super::faults::{DAY_MS, HOUR_MS, Tamper};
use super::money::periods;
use super::world::{Halt, Step, World};

impl World {
    /// Hands an event over, and does with the turn what the daemon does.
    pub fn tell(&mut self, event: Event) -> Step {
        let turn = self.engine.handle(event, self.clock());
        self.consume(turn)
    }

    /// Saves, then acts.
    pub fn consume(&mut self, turn: Turn) -> Step {
        self.note_windows(&turn.save);
        if self.tamper == Tamper::ActBeforeSave {
            self.begin(turn.then.clone())?;
            return self.save(&turn);
        }
        let effects = turn.then.clone();
        self.save(&turn)?;
        if !effects.is_empty() && self.is_faulty() && self.random.chance(5) {
            return Err(Halt::Crash("between save and effects"));
        }
        self.begin(effects)
    }

    fn save(&mut self, turn: &Turn) -> Step {
        if turn.save.is_empty() {
            return Ok(());
        }
        // Between an act and its record a process dies as easily as anywhere else.
        let often = if self.tamper == Tamper::ActBeforeSave { 50 } else { 5 };
        if self.is_faulty() && self.random.chance(often) {
            let fault = self.random.pick(&[Fault::BeforeDurable, Fault::AfterDurable]);
            self.store.fail_next(fault);
        }
        // In production, too, the process ends when a save fails.
        self.store.save(&turn.save).map_err(|_| Halt::Crash("while saving"))?;
        self.note_rescues(&turn.save);
        if self.tamper == Tamper::SaveWithoutSync && self.random.chance(500) {
            self.synced = self.store.clone();
        }
        Ok(())
    }

    fn begin(&mut self, effects: Vec<Issued>) -> Step {
        for issued in effects {
            self.check_may_begin(&issued.effect)?;
            self.check_is_free(&issued.effect)?;
            self.check_means(&issued.effect)?;
            let slow = if self.is_faulty() { self.random.pick(&[50, 3000, 60_000]) } else { 50 };
            let at = self.now.plus(1 + self.random.below(slow));
            self.begun.push((at, issued));
        }
        Ok(())
    }

    pub fn do_effect(&mut self, issued: Issued) -> Step {
        let Issued { ticket, effect, .. } = issued;
        self.note(words(&effect));
        let breaks = self.is_faulty() && self.random.chance(15);
        let dies = self.is_faulty() && self.random.chance(10);
        if breaks || dies {
            let power = dies && self.random.chance(500);
            self.doom(power);
        }
        let create = match &effect {
            Effect::Create { which, .. } => Some(*which),
            _ => None,
        };
        let failure = match &effect {
            Effect::Create { .. } => Failure::Ambiguous("broken off".to_owned()),
            Effect::Merge { .. } | Effect::Deliver { .. } | Effect::Plan { .. } => {
                Failure::Local("broken off".to_owned())
            }
            _ => Failure::Transient("broken off".to_owned()),
        };
        let done = match self.perform(effect) {
            Err(Halt::Crash(_)) if breaks && !dies => Err(failure),
            done => done?,
        };
        self.doom = None;
        self.safe = None;
        if let Some(which) = create {
            self.account_create(&which, &done);
        }
        let event = match done {
            Ok(outcome) => Event::Done { ticket, outcome },
            Err(failure) => {
                self.note(format!("  failed: {}", failure.message()));
                Event::Failed { ticket, failure }
            }
        };
        let slow = if self.is_faulty() { self.random.pick(&[1, 1000, 20_000]) } else { 1 };
        let at = self.now.plus(self.random.below(slow));
        self.replies.push((at, event));
        Ok(())
    }

    /// The process is going to die inside an effect; with a power cut, or not.
    fn doom(&mut self, power: bool) {
        self.doom = Some(self.random.below(12));
        self.safe = power.then(|| self.disk.clone());
    }

    /// A place in an effect where the process can die.
    pub fn step(&mut self) -> Step {
        let Some(left) = &mut self.doom else { return Ok(()) };
        *left = left.checked_sub(1).ok_or(Halt::Crash("inside an effect"))?;
        Ok(())
    }

    /// What was changed on the disk outlives a power cut from now on.
    pub fn sync(&mut self) {
        if self.safe.is_some() {
            self.safe = Some(self.disk.clone());
        }
    }

    /// The process dies, as often as it must, and comes back.
    pub fn survive(&mut self, halt: Halt) -> Result<(), String> {
        let mut halt = Some(halt);
        while let Some(next) = halt.take() {
            let why = match next {
                Halt::Crash(why) => why,
                Halt::Violation(problem) => return Err(problem),
            };
            self.check_always()?;
            halt = self.die(why).and_then(|()| self.restart()).err();
        }
        Ok(())
    }

    /// Whatever was under way may have got anywhere.
    fn die(&mut self, why: &str) -> Step {
        let power = self.random.chance(300);
        self.note(format!("the process dies {why}"));
        self.lose_unsynced();
        self.store.crash();
        if self.tamper == Tamper::SaveWithoutSync {
            self.store = self.synced.clone();
        }
        self.replies.clear();
        for (_, issued) in std::mem::take(&mut self.begun) {
            if self.random.chance(500) {
                continue;
            }
            self.doom(power);
            let result = self.perform(issued.effect);
            self.lose_unsynced();
            if let Err(violation @ Halt::Violation(_)) = result {
                return Err(violation);
            }
        }
        let away = self.random.pick(&[2_000, 2_000, 60_000, HOUR_MS, 20 * HOUR_MS]);
        let back = self.now.plus(if self.is_faulty() { away } else { 2_000 });
        while let Some(at) = self.late.iter().position(|late| late.at <= back) {
            let late = self.late.remove(at);
            self.now = self.now.max(late.at);
            self.create_arrives(&late.model, &late.body)?;
        }
        self.now = back;
        Ok(())
    }

    fn lose_unsynced(&mut self) {
        self.doom = None;
        if let Some(safe) = self.safe.take() {
            self.disk = safe;
        }
    }

    /// A new process starts from what was saved.
    pub fn restart(&mut self) -> Step {
        let mut recollection = Recollection::default();
        let tamper = self.tamper;
        self.store
            .each_job(&mut |mut job| {
                job.head.on_hold &= tamper != Tamper::ForgetHolds;
                self.forget_spending(&mut job);
                if tamper == Tamper::NoProbe {
                    believe_nothing_was_sent(&mut job);
                }
                recollection.take_in(job);
            })
            .map_err(|error| Halt::Violation(format!("the store does not open: {error}")))?;
        recollection.room(self.full());
        recollection.pause(self.saved_pauses());
        self.saved_notes().iter().for_each(|(name, value)| recollection.note(name, value));
        recollection.periods(periods(self.clock()));
        let (engine, turn) = recollection.resume(self.policy_in_force(), self.clock());
        self.engine = engine;
        self.next_scan = self.now;
        self.consume(turn)
    }

    /// A stop that is asked for: nothing new is begun, and what ends soon is still taken in.
    pub fn stop_gently(&mut self) -> Step {
        self.note("a stop is asked for".to_owned());
        self.engine.drain();
        let end = self.now.plus(4_000);
        while let Some(at) = self.begun.iter().position(|(at, _)| *at <= end) {
            let (at, issued) = self.begun.remove(at);
            self.now = self.now.max(at);
            self.do_effect(issued)?;
        }
        while let Some(at) = self.replies.iter().position(|(at, _)| *at <= end) {
            let (at, event) = self.replies.remove(at);
            self.now = self.now.max(at);
            self.tell(event)?;
        }
        Err(Halt::Crash("after a stop"))
    }

    /// The machine sleeps: what was under way breaks.
    pub fn sleep(&mut self) -> Step {
        let begun = std::mem::take(&mut self.begun);
        self.now = self.now.plus(self.random.between(HOUR_MS, 9 * HOUR_MS));
        self.note("the machine has slept".to_owned());
        for (_, issued) in begun {
            self.do_effect(issued)?;
        }
        self.tell(Event::Tick)
    }

    /// The clock is set to another time.
    pub fn jump(&mut self) -> Step {
        // Far enough to be told from time that passes.
        let far = self.random.pick(&[HOUR_MS, HOUR_MS, 2 * DAY_MS]);
        let leap = self.random.between(180_000, far) as i64;
        let leap = if self.random.chance(500) { leap } else { -leap };
        self.ahead = (self.ahead + leap).clamp(-4 * DAY_MS as i64, 4 * DAY_MS as i64);
        self.note(format!("the clock jumps to {} ahead", self.ahead));
        // A clock that jumps wakes nobody: the loop looks up by itself every few seconds.
        self.now = self.now.plus(5_000);
        self.tell(Event::Tick)
    }
}

/// The tampering of [`Tamper::NoProbe`].
fn believe_nothing_was_sent(job: &mut Job) {
    for chunk in job.chunks.values_mut() {
        if let ChunkState::Creating { .. } | ChunkState::Uncertain { .. } = chunk.state {
            chunk.state = ChunkState::Waiting { not_before: Millis(0) };
        }
    }
}

fn words(effect: &Effect) -> String {
    let attempt =
        |word: &str, which: &gemini_batchd::engine::Which| format!("{word} {}", which.stamp().0);
    let job = |word: &str, id: JobId| format!("{word} {id}");
    match effect {
        Effect::Claim { head, .. } => job("claim", head.id),
        Effect::Plan { head, .. } => job("plan", head.id),
        Effect::Upload { which, .. } => attempt("upload", which),
        Effect::Create { which, .. } => attempt("create", which),
        Effect::Find { which, .. } => attempt("find", which),
        Effect::Poll { batches } => format!("poll {}", batches.len()),
        Effect::Collect { which, .. } => attempt("collect", which),
        Effect::Rescue { which, tier, .. } => attempt(tier.word(), which),
        Effect::Discard { batch, .. } => format!("discard {}", batch.0),
        Effect::DropInput { file } => format!("drop {}", file.0),
        Effect::CancelBatch { batch } => format!("cancel {}", batch.0),
        Effect::Judge { head } => job("judge", head.id),
        Effect::Merge { job: it } => job("merge", it.head.id),
        Effect::Deliver { job: it } => job("deliver", it.head.id),
        Effect::Clean { job: it } => job("clean", it.head.id),
        Effect::Refuse { head, .. } => job("refuse", head.id),
        Effect::Hold { head, .. } => job("hold", head.id),
        Effect::Notify { head, .. } => job("notify", head.id),
        Effect::Withdraw { head } => job("withdraw", head.id),
    }
}
