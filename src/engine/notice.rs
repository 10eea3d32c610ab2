//! The API has said that a batch has ended: it is asked for at once. Polling stays the truth.

use super::ids::{BatchName, Millis};
use super::job::ChunkState;
use super::lanes::Unit;
use super::machine::{Engine, PollNote, find};

impl Engine {
    /// The polls of this batch, or of all if none is named, are due now. Batches of others are
    /// passed over. A pause after failures is kept.
    pub(super) fn noticed(&mut self, batch: Option<&BatchName>, now: Millis) {
        let is_meant = |unit: &Unit| match find(&self.jobs, *unit).map(|(_, chunk)| &chunk.state) {
            Some(ChunkState::Polling(polled)) => batch.is_none_or(|batch| *batch == polled.name),
            Some(_) | None => false,
        };
        let meant: Vec<Unit> = self.takings.keys().copied().filter(is_meant).collect();
        for unit in meant {
            let note = self.polls.get(&unit).copied().unwrap_or_default();
            self.polls.insert(unit, PollNote { next: now.min(note.next), ..note });
            self.refile(unit);
        }
    }
}
