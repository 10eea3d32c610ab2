//! What must hold: at every step, at every paid call, at every removal, and in the end.

use std::collections::{BTreeMap, BTreeSet};

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::ids::{BatchName, JobId};
use gemini_batchd::engine::job::{Chunk, ChunkState, Job, JobState};
use gemini_batchd::engine::policy::Duplicates;
use gemini_batchd::store::JobStore;

use super::api::{Api, Made, Paid};
use super::disk::{Fate, Output, names};
use super::files::{Dropped, Kind};
use super::world::{Halt, Step, World};

fn broken<T>(problem: String) -> Step<T> {
    Err(Halt::Violation(problem))
}

impl World {
    /// No file is lost or in two places.
    pub fn check_always(&self) -> Result<(), String> {
        for (number, file) in &self.files {
            let inbox = self.disk.inbox.values().filter(|it| *it == number).count();
            let working = self.disk.working.values().filter(|it| it.input == Some(*number)).count();
            let over = [&self.disk.archive, &self.disk.failed, &self.disk.held];
            let over = over.iter().filter(|place| place.contains(number)).count();
            let places = inbox + working + over + usize::from(file.withdrawn);
            if places != 1 {
                return Err(format!("{} (number {number}) is in {places} places", file.name));
            }
        }
        self.check_outbox()
    }

    /// Whoever sees a manifest finds the rest beside it.
    pub fn check_outbox(&self) -> Result<(), String> {
        for (name, output) in &self.disk.outbox {
            let Output::Manifest(id, file) = output else { continue };
            let stem = name.strip_suffix(".manifest.json").unwrap_or_default();
            let [results, errors, _] = names(stem);
            let (Some(Output::Results(of, answered)), Some(Output::Errors(too, failed))) =
                (self.disk.outbox.get(&results), self.disk.outbox.get(&errors))
            else {
                return Err(format!("{name} is in the outbox before the rest"));
            };
            let rows = self.files[file].kinds.len();
            if of != id || too != id || answered.len() + failed.len() != rows {
                return Err(format!("{name}: the outputs do not belong together"));
            }
        }
        Ok(())
    }

    /// What is said no must not be paid for: nothing is sent for a job that was cancelled.
    pub fn check_may_begin(&self, effect: &Effect) -> Step {
        let Effect::Create { which, .. } = effect else { return Ok(()) };
        let job = self.engine.job(which.job);
        let cancelled = job.and_then(|job| job.head.state.plan()).is_some_and(|p| p.cancelled);
        match cancelled {
            true => broken(format!("{} is sent after a cancel", which.stamp().0)),
            false => Ok(()),
        }
    }

    /// A batch is made: it must have been meant, and nothing in it may be paid for already.
    pub fn check_paid(&mut self, made: Made) -> Step {
        let Made { name, stamp, job, rows } = made;
        if let Some((twin, _)) = self.api.batches.iter().find(|(_, paid)| paid.stamp == stamp) {
            return broken(format!("{stamp} was created twice: {twin} and {name}"));
        }
        let Some(saved) = self.saved(job) else {
            return broken(format!("{stamp} was created before its job was saved"));
        };
        let is_meant = |chunk: &Chunk| {
            let ours = gemini_batchd::engine::Stamp::new(job, chunk.no, chunk.attempt).0 == stamp;
            let begun =
                matches!(chunk.state, ChunkState::Creating { .. } | ChunkState::Uncertain { .. });
            ours && begun
        };
        if !saved.chunks.values().any(is_meant) {
            return broken(format!("{stamp} was created, and no record says so"));
        }
        let concluded = |name: &str| {
            saved.chunks.values().flat_map(|c| &c.batches).any(|batch| batch.name.0 == *name)
        };
        let earlier = self.api.batches.iter().filter(|(_, paid)| paid.job == job);
        let earlier: Vec<(String, Paid)> =
            earlier.map(|(name, paid)| (name.clone(), paid.clone())).collect();
        let now = self.now;
        let gone = |api: &mut Api, name: &str| !api.has(name, now);
        for row in &rows {
            let with_row = earlier.iter().filter(|(_, paid)| paid.rows.contains(row));
            for (before, paid) in with_row {
                if !concluded(before) && !gone(&mut self.api, before) {
                    return broken(format!("row {row} is in {before} and sent again as {stamp}"));
                }
                if paid.answered.contains(row) && !paid.taken_away {
                    return broken(format!("row {row} is answered in {before}, and paid again"));
                }
            }
            if self.is_reused(job, *row) {
                return broken(format!(
                    "row {row} was answered from the cache, and paid as {stamp}"
                ));
            }
            let fate = self.disk.working.get(&job).and_then(|folder| folder.outcomes.get(row));
            if matches!(fate, Some(Fate::Answered(..) | Fate::Failed(..))) {
                return broken(format!("row {row} is settled and sent again as {stamp}"));
            }
        }
        let (answered, taken_away) = (BTreeSet::new(), false);
        let paid = Paid { stamp, job, rows, answered, taken_away, ended: None };
        self.api.batches.insert(name, paid);
        Ok(())
    }

    /// A batch is going to be removed: what it answered must be safe by then.
    pub fn check_discard(&self, batch: &BatchName) -> Step {
        let Some(paid) = self.api.batches.get(&batch.0).filter(|paid| !paid.taken_away) else {
            return Ok(());
        };
        let outcomes = self.disk.working.get(&paid.job).map(|folder| &folder.outcomes);
        let delivered = self
            .disk
            .outbox
            .values()
            .any(|output| matches!(output, Output::Manifest(of, _) if *of == paid.job));
        let is_here = |row: &u64| outcomes.is_some_and(|it| it.contains_key(row));
        match paid.answered.iter().find(|row| !delivered && !is_here(row)) {
            Some(row) => broken(format!("{} is removed before row {row} is safe", batch.0)),
            None => Ok(()),
        }
    }

    /// Everything is done, everything is there, once.
    pub fn check_the_end(&self) -> Result<(), String> {
        if let Some(job) = self.engine.unfinished().find(|job| !job.is_over()) {
            return Err(format!("job {} hangs: {}", job.head.id, self.what_hangs()));
        }
        let mut delivered: BTreeMap<u64, Vec<JobId>> = BTreeMap::new();
        for output in self.disk.outbox.values() {
            if let Output::Manifest(id, file) = output {
                delivered.entry(*file).or_default().push(*id);
            }
        }
        for (number, file) in &self.files {
            let jobs = delivered.get(number).map(Vec::as_slice).unwrap_or_default();
            match jobs {
                [] if self.may_be_undelivered(*number, file) => {}
                [job] if self.disk.archive.contains(number) => self.check_answers(*job, file)?,
                _ => return Err(format!("number {number} was delivered {} times", jobs.len())),
            }
        }
        if let Some(trouble) = self.engine.latest_trouble() {
            return Err(format!("trouble is told although all is done: {}", trouble.message));
        }
        Ok(())
    }

    /// Whether it is right that nothing came of a file.
    fn may_be_undelivered(&self, number: u64, file: &Dropped) -> bool {
        let all_invalid = file.kinds.iter().all(|kind| *kind == Kind::Invalid);
        let refused =
            self.disk.failed.contains(&number) && (all_invalid || file.model != "gemini-2.5-flash");
        let same = self.files.values().filter(|other| other.content == file.content).count();
        let held = self.disk.held.contains(&number)
            && self.policy.duplicates == Duplicates::Hold
            && same > 1;
        refused || held || file.withdrawn || self.is_given_up(number)
    }

    /// Every row has its own answer, or an error that is no excuse for one that was paid for.
    fn check_answers(&self, id: JobId, file: &Dropped) -> Result<(), String> {
        let outputs = || self.disk.outbox.values();
        let results = outputs().find_map(|output| match output {
            Output::Results(of, rows) if *of == id => Some(rows),
            _ => None,
        });
        let errors = outputs().find_map(|output| match output {
            Output::Errors(of, rows) if *of == id => Some(rows),
            _ => None,
        });
        let (Some(results), Some(errors)) = (results, errors) else {
            return Err(format!("job {id}: outputs are missing"));
        };
        let cancelled = self
            .engine
            .job(id)
            .and_then(|job| job.head.state.plan())
            .is_some_and(|plan| plan.cancelled)
            || self.told.forgotten.get(&id).is_some_and(|cancelled| *cancelled);
        for (row, kind) in (1..).zip(&file.kinds) {
            if results.contains_key(&row) == errors.contains(&row) {
                return Err(format!("job {id}: row {row} is not answered exactly once"));
            }
            if let Some(text) = results.get(&row) {
                // What was blocked is an answer without a text here.
                if !text.is_empty() && !file.is_answer(row, text) {
                    return Err(format!("job {id}: row {row} has the answer of another: {text:?}"));
                }
                continue;
            }
            let sent = || {
                let ours = self.api.batches.iter().filter(|(_, paid)| paid.job == id);
                ours.filter(|(_, paid)| paid.rows.contains(&row))
            };
            let lost = sent().find(|(_, paid)| paid.answered.contains(&row) && !paid.taken_away);
            if let Some((batch, _)) = lost {
                return Err(format!("job {id}: the answer to row {row} in {batch} was lost"));
            }
            let vain = !cancelled && *kind == Kind::Good && file.model == "gemini-2.5-flash";
            if vain && sent().next().is_none() {
                return Err(format!("job {id}: row {row} was never sent"));
            }
        }
        Ok(())
    }

    /// Whether anything depends on how much time the engine has seen passing.
    pub fn engine_watches_the_clock(&self) -> bool {
        let watched = |chunk: &Chunk| {
            matches!(chunk.state, ChunkState::Uncertain { .. } | ChunkState::Collecting { .. })
        };
        self.engine.unfinished().any(|job| {
            matches!(job.head.state, JobState::Active(_)) && job.chunks.values().any(watched)
        })
    }

    /// The states of all that is not over, in words.
    pub fn what_hangs(&self) -> String {
        let open = self.engine.unfinished().filter(|job| !job.is_over());
        let told = open.map(|job| {
            let chunks = job.chunks.values().map(|chunk| format!("{:?}", chunk.state));
            let chunks = chunks.filter(|state| state != "Settled").collect::<Vec<_>>();
            format!("{} {:?}: {chunks:?}", job.head.id, job.head.state)
        });
        told.collect::<Vec<_>>().join("\n")
    }

    /// The file that a job was made of.
    pub fn file_of(&self, job: JobId) -> &Dropped {
        let number = self.origins.get(&job).expect("every job was made of a file");
        &self.files[number]
    }

    /// Whether a download ends early now: never so often that it must be believed.
    pub fn comes_short(&mut self, batch: &BatchName) -> bool {
        let (permille, paid) = (self.weather.short, self.api.batches.get(&batch.0));
        let whole = paid.is_some_and(|paid| paid.answered.len() == paid.rows.len());
        let strikes = self.random.chance(permille);
        let before = self.shorts.entry(batch.0.clone()).or_default();
        let short = whole && strikes && *before < 2;
        *before += u32::from(short);
        short
    }

    /// A job as it is saved.
    pub fn saved(&self, id: JobId) -> Option<Job> {
        let jobs = self.store.load().ok()?;
        jobs.into_iter().find(|job| job.head.id == id)
    }
}
