//! Release windows and canaries, as the world knows them: when a window opens is written down beside
//! the engine, and so is what goes first.

use gemini_batchd::engine::effect::{Change, Which};
use gemini_batchd::engine::event::{Failure, Outcome};
use gemini_batchd::engine::ids::JobId;
use gemini_batchd::engine::job::{Canary, Head, Job, Moments, Tolerance};

use super::disk::Fate;
use super::faults::Tamper;
use super::files::{Dropped, Kind};
use super::world::{Halt, Step, World};

impl World {
    /// The moments of a file that is found now.
    pub fn moments_of(&mut self, id: JobId, window_ms: Option<u64>) -> Moments {
        let opens = window_ms.map(|window| self.clock().plus(window));
        self.told.closed.extend(opens.map(|opens| (id, opens)));
        Moments { opens: opens.filter(|_| self.tamper != Tamper::NoWindows), deliver_by: None }
    }

    /// A window that has opened stays open: when it has is told by what the engine saves.
    pub fn note_windows(&mut self, changes: &[Change]) {
        let now = self.clock();
        for change in changes {
            if let Change::Head(head) = change
                && head.queue.moments.opens.is_none()
                && self.told.closed.get(&head.id).is_some_and(|opens| *opens <= now)
            {
                self.told.closed.remove(&head.id);
            }
        }
    }

    /// What was claimed by a clock that was ahead waits for another moment.
    pub fn mend_windows(&mut self) -> Step {
        let now = self.clock();
        for id in self.engine.windows_in_doubt(now) {
            let file = self.origins.get(&id).map(|it| &self.files[it]);
            let Some((window_ms, within)) =
                file.and_then(|it| Some((it.window_ms?, it.wanted.within)))
            else {
                continue;
            };
            self.note(format!("the window of {id} is worked out anew"));
            let opens = now.plus(window_ms);
            self.told.closed.insert(id, opens);
            let deliver_by = within.map(|within| opens.plus(within));
            let moments = Moments { opens: Some(opens), deliver_by };
            let turn = self.engine.set_moments(id, moments, now);
            self.consume(turn)?;
        }
        Ok(())
    }

    /// Counts the lines of a canary that have no answer.
    pub fn judge_canary(&mut self, head: &Head) -> Step<Result<Outcome, Failure>> {
        self.step()?;
        let runs = head.state.plan().and_then(|plan| plan.canary.clone()).map(|trial| trial.runs);
        let file = self.file_of(head.id).clone();
        let is_sent = |row: &u64| file.kinds[*row as usize - 1] != Kind::Invalid;
        let rows: Vec<u64> = runs
            .iter()
            .flatten()
            .flat_map(|run| run.first.0..=run.last.0)
            .filter(is_sent)
            .collect();
        let outcomes = &self.folder(head.id).outcomes;
        let is_bad = |row: &&u64| !matches!(outcomes.get(row), Some(Fate::Answered(..)));
        let bad = rows.iter().filter(is_bad).count() as u64;
        let limit = head.queue.canary.map_or(u64::MAX, |canary| canary.limit.of(u64::MAX));
        if bad <= limit {
            self.told.unjudged.remove(&head.id);
        }
        Ok(Ok(Outcome::Judged { bad }))
    }

    /// Nothing but the canary is sent before that was judged, and well.
    pub fn check_canary(&self, which: &Which) -> Step {
        let Some(run) = self.told.unjudged.get(&which.job) else { return Ok(()) };
        let cancelled = |job: &Job| job.head.state.plan().is_some_and(|plan| plan.cancelled);
        match run.contains(which.rows.first) || self.engine.job(which.job).is_some_and(cancelled) {
            true => Ok(()),
            false => {
                let problem = format!("{} is sent before its canary is judged", which.stamp().0);
                Err(Halt::Violation(problem))
            }
        }
    }
}

/// What the queue of a file says of canaries.
pub fn canary_of(file: &Dropped) -> Option<Canary> {
    file.canary.map(|bad| Canary { lines: 1, limit: Tolerance::Lines(bad) })
}
