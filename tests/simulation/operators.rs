//! People, and whoever else does something by himself.

use gemini_batchd::engine::canary;
use gemini_batchd::engine::ids::JobId;
use gemini_batchd::engine::job::{ChunkState, Input, JobState};

use super::disk::{Output, names};
use super::world::{Step, World};

impl World {
    /// Somebody may do something.
    pub fn meddle(&mut self) -> Step {
        if !self.random.chance(20) {
            return Ok(());
        }
        match self.random.below(18) {
            0 | 1 => self.jump(),
            2 => self.sleep(),
            3 => self.stop_gently(),
            4 => self.command(true),
            5 | 6 => self.command(false),
            7 => {
                self.meddle_with_a_batch();
                Ok(())
            }
            8 => {
                self.delete_an_input_file();
                Ok(())
            }
            9 => {
                self.take_a_name();
                Ok(())
            }
            10 => {
                self.take_back_a_file();
                Ok(())
            }
            12..18 => self.steer(),
            _ => {
                if self.random.chance(300) {
                    return self.raise_budgets();
                }
                // The configuration is read again; nothing in it has changed.
                let turn = self.engine.adopt(self.policy_in_force(), self.clock());
                self.consume(turn)
            }
        }
    }

    /// An operator cancels a job, or releases one.
    fn command(&mut self, cancel: bool) -> Step {
        let ids: Vec<JobId> = self.engine.unfinished().map(|job| job.head.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let id = self.random.pick(&ids);
        let now = self.clock();
        let turn = match cancel {
            true => self.engine.cancel(id, now),
            false => self.engine.release(id, now),
        };
        let Ok(turn) = turn else { return Ok(()) };
        self.told.on_hold.remove(&id);
        self.told.let_go(id);
        self.note(format!("an operator {} {id}", if cancel { "cancels" } else { "releases" }));
        self.consume(turn)
    }

    /// When nothing else happens, somebody looks into `held/`: `false` if there is nothing to
    /// decide.
    pub fn let_people_decide(&mut self) -> Step<bool> {
        let is_stuck = |state: &ChunkState| matches!(state, ChunkState::Stuck { .. });
        let stuck = self.engine.unfinished().find(|job| {
            (job.chunks.values().any(|chunk| is_stuck(&chunk.state)) || canary::is_stopped(job))
                && self.disk.notices.contains(&job.head.id)
        });
        let Some(id) = stuck.map(|job| job.head.id) else {
            return Ok(self.let_everything_go()? || self.let_money_go()?);
        };
        let now = self.clock();
        let cancel = self.random.chance(300);
        let turn = match cancel {
            true => self.engine.cancel(id, now),
            false => self.engine.release(id, now),
        };
        let turn = turn.expect("what is stuck can be cancelled and released");
        self.told.on_hold.remove(&id);
        self.told.let_go(id);
        self.note(format!("somebody found the note about {id}"));
        self.consume(turn)?;
        Ok(true)
    }

    /// Somebody else with the same key cancels or deletes a batch.
    fn meddle_with_a_batch(&mut self) {
        let names: Vec<String> = self.api.batches.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = names[self.random.below(names.len() as u64) as usize].clone();
        if self.random.chance(600) {
            self.api.cancel(&name, self.now);
            self.note(format!("somebody cancels {name}"));
        } else {
            self.api.delete(&name, self.now);
            self.note(format!("somebody deletes {name}"));
            if let Some(paid) = self.api.batches.get_mut(&name) {
                paid.taken_away = true;
            }
        }
    }

    fn delete_an_input_file(&mut self) {
        let chunks = self.engine.unfinished().flat_map(|job| job.chunks.values());
        let file = chunks.filter_map(|chunk| match &chunk.state {
            ChunkState::Uploading { file }
            | ChunkState::Creating { input: Input::File(file), .. }
            | ChunkState::Uncertain { input: Input::File(file), .. } => Some(file.0.clone()),
            _ => None,
        });
        if let Some(file) = file.last() {
            self.api.delete_file(&file, self.now);
            self.note(format!("somebody deletes {file}"));
        }
    }

    /// A stranger's file appears in the outbox under a name that a delivery is going to want.
    fn take_a_name(&mut self) {
        let stems = self.engine.unfinished().filter_map(|job| match &job.head.state {
            JobState::Delivering(delivery) => Some(delivery.stem.clone()),
            JobState::Merging(_) | JobState::Active(_) => {
                job.head.source.name.strip_suffix(".jsonl").map(str::to_owned)
            }
            _ => None,
        });
        let Some(stem) = stems.last() else { return };
        let name = names(&stem)[self.random.below(3) as usize].clone();
        self.disk.outbox.entry(name).or_insert(Output::Foreign);
    }

    /// The owner of a file takes it back before it is claimed.
    fn take_back_a_file(&mut self) {
        let Some((name, number)) = self.disk.inbox.pop_first() else { return };
        self.note(format!("the owner takes {name} back"));
        if let Some(file) = self.files.get_mut(&number) {
            file.withdrawn = true;
        }
    }
}
