//! Release windows, as the world knows them: when each opens is written down beside the engine.

use gemini_batchd::engine::effect::Change;
use gemini_batchd::engine::ids::JobId;
use gemini_batchd::engine::job::Moments;

use super::faults::Tamper;
use super::world::{Step, World};

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
            let Some(window_ms) = self.origins.get(&id).and_then(|it| self.files[it].window_ms)
            else {
                continue;
            };
            self.note(format!("the window of {id} is worked out anew"));
            let opens = now.plus(window_ms);
            self.told.closed.insert(id, opens);
            let turn = self.engine.set_window(id, Some(opens), now);
            self.consume(turn)?;
        }
        Ok(())
    }
}
