//! Operators who hold jobs, pause queues, drain, try again and forget, at random.
//!
//! What they were told is written down here, beside the engine and the store: a hold or a pause
//! counts from the moment it is answered until somebody takes it back, whatever dies meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::ids::{JobId, Millis, Rows};
use gemini_batchd::engine::job::{Head, JobState};
use gemini_batchd::engine::steering::{Pauses, Retry};
use gemini_batchd::store::JobStore;

use super::disk::Output;
use super::faults::Tamper;
use super::files::Dropped;
use super::world::{Halt, Step, World};

/// What operators were told, and what they took away.
#[derive(Debug, Default)]
pub struct Told {
    pub on_hold: BTreeSet<JobId>,
    pub pauses: Pauses,
    /// Jobs whose windows have not opened, and when they do.
    pub closed: BTreeMap<JobId, Millis>,
    /// Jobs whose canary is not judged yet, or was judged badly, and the rows of it.
    pub unjudged: BTreeMap<JobId, Rows>,
    /// Jobs that were forgotten, and whether they had been cancelled.
    pub forgotten: BTreeMap<JobId, bool>,
    /// Files that were dropped once more.
    tries: u64,
}

impl Told {
    /// Somebody wants a job to go on, whatever it waited for.
    pub fn let_go(&mut self, id: JobId) {
        self.closed.remove(&id);
        self.unjudged.remove(&id);
    }
}

impl World {
    /// An operator steers.
    pub fn steer(&mut self) -> Step {
        match self.random.below(8) {
            0 | 1 => self.hold_one(),
            2 => {
                let all = self.random.chance(300);
                let queue = self.random.pick(&["a", "b"]);
                let mut pauses = self.told.pauses.clone();
                match all {
                    true => pauses.all = !pauses.all,
                    false if pauses.queues.remove(queue) => {}
                    false => drop(pauses.queues.insert(queue.to_owned())),
                }
                self.set_pauses(pauses)
            }
            3 => {
                let closing = !self.engine.is_closing();
                self.note(format!("an operator lets it drain: {closing}"));
                self.engine.close(closing);
                Ok(())
            }
            4 | 5 => self.retry_one(),
            6 => self.forget_one(),
            _ => match self.told.on_hold.first().copied() {
                Some(id) => self.let_go(id, false),
                None => Ok(()),
            },
        }
    }

    /// When nothing else happens, what operators hold back is let go: `false` if there is nothing.
    pub fn let_everything_go(&mut self) -> Step<bool> {
        if self.engine.is_closing() {
            self.engine.close(false);
            return Ok(true);
        }
        if !self.engine.pauses().is_empty() {
            self.set_pauses(Pauses::default())?;
            return Ok(true);
        }
        let held = self.engine.unfinished().find(|job| job.head.on_hold).map(|job| job.head.id);
        let Some(id) = held else { return Ok(false) };
        let cancel = self.random.chance(200);
        self.let_go(id, cancel)?;
        Ok(true)
    }

    /// Whether nobody would take a file of the inbox now.
    pub fn inbox_is_left_alone(&self) -> bool {
        let is_left = |number: &u64| self.engine.pauses().cover(queue_of(*number));
        self.engine.is_closing() || self.disk.inbox.values().all(is_left)
    }

    fn hold_one(&mut self) -> Step {
        let Some(id) = self.any_job(|_| true) else { return Ok(()) };
        let now = self.clock();
        let Ok(turn) = self.engine.hold(id, now) else { return Ok(()) };
        self.note(format!("an operator holds {id}"));
        self.consume(turn)?;
        self.told.on_hold.insert(id);
        Ok(())
    }

    /// A job on hold is released or cancelled.
    fn let_go(&mut self, id: JobId, cancel: bool) -> Step {
        let now = self.clock();
        let turn = match cancel {
            true => self.engine.cancel(id, now),
            false => self.engine.release(id, now),
        };
        self.told.on_hold.remove(&id);
        self.told.let_go(id);
        let Ok(turn) = turn else { return Ok(()) };
        self.note(format!("an operator lets {id} go"));
        self.consume(turn)
    }

    fn set_pauses(&mut self, pauses: Pauses) -> Step {
        // From now on until it is answered nobody can rely on anything but what both say.
        self.told.pauses = both(&self.told.pauses, &pauses);
        self.note(format!("an operator pauses {pauses:?}"));
        let names: Vec<&str> = pauses.queues.iter().map(String::as_str).collect();
        let note = format!("{}{}", if pauses.all { "*" } else { "" }, names.concat());
        self.store.set_note(NOTE, &note).map_err(|_| Halt::Crash("while saving"))?;
        let turn = self.engine.pause(pauses.clone(), self.clock());
        self.told.pauses = pauses;
        self.consume(turn)
    }

    /// What was paused when it was saved last.
    pub fn saved_pauses(&self) -> Pauses {
        let note = self.store.note(NOTE).expect("the store opens").unwrap_or_default();
        if self.tamper == Tamper::ForgetHolds {
            return Pauses::default();
        }
        let queues = note.chars().filter(|c| *c != '*').map(String::from).collect();
        Pauses { all: note.contains('*'), queues }
    }

    fn retry_one(&mut self) -> Step {
        let Some(id) = self.any_job(|_| true) else { return Ok(()) };
        let now = self.clock();
        match self.engine.retry(id, now) {
            Ok(Retry::Now(turn)) => {
                self.note(format!("an operator hurries {id}"));
                self.consume(turn)
            }
            Ok(Retry::FailedLines(head, _)) => {
                self.drop_failed_lines(&head);
                Ok(())
            }
            Ok(Retry::Input(head)) => {
                self.drop_refused_input(&head);
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    fn drop_failed_lines(&mut self, head: &Head) {
        if self.told.tries >= TRIES_MAX {
            return;
        }
        let failed = self.disk.outbox.values().find_map(|output| match output {
            Output::Errors(of, rows) if *of == head.id => Some(rows.clone()),
            Output::Errors(..) | Output::Results(..) | Output::Manifest(..) | Output::Foreign => {
                None
            }
        });
        let Some(rows) = failed else { return };
        self.told.tries += 1;
        let file = self.file_of(head.id).clone();
        let kinds = rows.iter().map(|row| file.kinds[*row as usize - 1]).collect();
        let name = format!("try-{}.jsonl", self.told.tries);
        self.note(format!("an operator tries {} lines of {} again", rows.len(), head.id));
        let content = 1_000 + self.told.tries;
        self.to_drop.push((self.now, Dropped { name, content, kinds, withdrawn: false, ..file }));
    }

    fn drop_refused_input(&mut self, head: &Head) {
        let (number, name) = (self.origins[&head.id], &head.source.name);
        if self.disk.inbox.contains_key(name) || !self.disk.failed.remove(&number) {
            return;
        }
        self.disk.inbox.insert(name.clone(), number);
        self.note(format!("an operator puts {name} back into the inbox"));
    }

    fn forget_one(&mut self) -> Step {
        let Some(id) = self.any_job(|state| {
            matches!(state, JobState::Done(_) | JobState::Failed(_) | JobState::Held(_))
        }) else {
            return Ok(());
        };
        let job = self.engine.job(id);
        let cancelled = job.and_then(|job| job.head.state.plan()).is_some_and(|p| p.cancelled);
        let Ok(turn) = self.engine.delete(id) else { return Ok(()) };
        self.note(format!("an operator forgets {id}"));
        self.told.forgotten.insert(id, cancelled);
        self.consume(turn)
    }

    fn any_job(&mut self, is_wanted: impl Fn(&JobState) -> bool) -> Option<JobId> {
        let jobs = self.engine.jobs().filter(|job| is_wanted(&job.head.state));
        let ids: Vec<JobId> = jobs.map(|job| job.head.id).collect();
        (!ids.is_empty()).then(|| self.random.pick(&ids))
    }

    /// What operators were told holds: nothing new of a job on hold or of a paused queue begins.
    pub fn check_is_free(&self, effect: &Effect) -> Step {
        let (id, sends) = match effect {
            Effect::Create { which, .. } | Effect::Upload { which, .. } => (which.job, true),
            Effect::Claim { head, .. } => (head.id, false),
            _ => return Ok(()),
        };
        if let Effect::Create { which, .. } | Effect::Upload { which, .. } = effect {
            self.check_canary(which)?;
        }
        let queue = self.engine.job(id).map_or("", |job| job.head.queue.name.as_str());
        if self.told.pauses.cover(queue) {
            let problem = format!("{id} goes on although its queue {queue:?} is paused");
            return Err(Halt::Violation(problem));
        }
        if sends && self.told.closed.contains_key(&id) {
            return Err(Halt::Violation(format!("{id} is sent before its window has opened")));
        }
        match sends && self.told.on_hold.contains(&id) {
            true => Err(Halt::Violation(format!("{id} is sent although it is on hold"))),
            false => Ok(()),
        }
    }
}

/// The queue of a file.
pub fn queue_of(number: u64) -> &'static str {
    if number.is_multiple_of(3) { "b" } else { "a" }
}

/// What both of two pauses cover.
fn both(one: &Pauses, other: &Pauses) -> Pauses {
    let covered = |queue: &&str| one.cover(queue) && other.cover(queue);
    let queues = ["a", "b"].iter().filter(|queue| covered(queue)).map(|q| (*q).to_owned());
    Pauses { all: one.all && other.all, queues: queues.collect() }
}

/// Under which name the store keeps what is paused.
const NOTE: &str = "pauses";
/// Lines are tried again so often in a world.
const TRIES_MAX: u64 = 3;
