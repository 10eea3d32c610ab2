//! What the daemon does with an effect, as steps between which it can die.

use std::collections::BTreeMap;

use gemini_batchd::engine::effect::{Effect, Which};
use gemini_batchd::engine::event::{Failure, Harvest, Outcome, PlannedChunk};
use gemini_batchd::engine::ids::{BatchName, JobId, Row, Rows};
use gemini_batchd::engine::job::{Head, Job, JobState, Plan, Refusal, Rest, Share, Tally, Trial};
use gemini_batchd::engine::verdict::{Verdict, judge_error};
use serde_json::Value;

use super::api::row_of;
use super::disk::{Fate, Folder, Output, names};
use super::faults::Tamper;
use super::files::Kind;
use super::fixtures;
use super::money::tokens_of;
use super::world::{Halt, Step, World};

/// What came of an effect, unless the process died.
type Done = Step<Result<Outcome, Failure>>;

/// Fails the effect if the disk does.
macro_rules! on_disk {
    ($world:expr) => {
        $world.step()?;
        if $world.is_disk_full() {
            return Ok(Err(Failure::Local("no space left on device".to_owned())));
        }
    };
}

impl World {
    /// Does one effect.
    pub fn perform(&mut self, effect: Effect) -> Done {
        match effect {
            Effect::Claim { head, plan } => self.claim(&head, plan),
            Effect::Plan { head, .. } => self.plan(&head),
            Effect::Upload { which, file } => self.upload(which, &file),
            Effect::Create { which, input, model, .. } => self.create(which, &input, &model),
            Effect::Find { which, .. } => self.find(which),
            Effect::Poll { batches } => self.poll(&batches),
            Effect::Collect { which, batch, missing_max, .. } => {
                self.collect(which, &batch, missing_max)
            }
            Effect::Rescue { which, tier, model, until, .. } => {
                self.rescue(which, tier, &model, until)
            }
            Effect::DropInput { file } => Ok(self.drop_input(&file)?.map(|()| Outcome::Discarded)),
            Effect::CancelBatch { batch } => self.cancel_batch(&batch),
            Effect::Discard { batch, input } => {
                Ok(self.discard(&batch, &input)?.map(|()| Outcome::Discarded))
            }
            Effect::Judge { head } => self.judge_canary(&head),
            Effect::Merge { job } => self.merge(&job),
            Effect::Deliver { job } => self.deliver(&job),
            Effect::Clean { job } => self.clean(&job),
            Effect::Refuse { head, refusal } => self.move_aside(&head, &refusal, true),
            Effect::Hold { head, refusal } => self.move_aside(&head, &refusal, false),
            Effect::Notify { head, .. } => {
                on_disk!(self);
                self.disk.notices.insert(head.id);
                self.sync();
                Ok(Ok(Outcome::Told))
            }
            Effect::Withdraw { head } => {
                on_disk!(self);
                self.disk.notices.remove(&head.id);
                self.sync();
                Ok(Ok(Outcome::Withdrawn(head.id)))
            }
        }
    }

    fn claim(&mut self, head: &Head, plan: bool) -> Done {
        on_disk!(self);
        if self.folder(head.id).input.is_none() {
            let found = match head.released {
                true => self.disk.held.take(&self.origins[&head.id]),
                false => self.disk.inbox.remove(&head.source.name),
            };
            let Some(file) = found else {
                self.disk.working.remove(&head.id);
                return Ok(Ok(Outcome::Vanished));
            };
            self.folder(head.id).input = Some(file);
            self.origins.insert(head.id, file);
            self.step()?;
            self.sync();
        }
        if plan { self.plan(head) } else { Ok(Ok(Outcome::Claimed)) }
    }

    fn plan(&mut self, head: &Head) -> Done {
        on_disk!(self);
        let Some(file) = self.folder(head.id).input else {
            return Ok(Err(Failure::Local("the input is not there".to_owned())));
        };
        let file = self.files[&file].clone();
        if file.kinds.iter().all(|kind| *kind == Kind::Invalid) {
            return Ok(Ok(Outcome::Unusable(refusal("no_valid_line"))));
        }
        let invalid = (1..).zip(&file.kinds).filter(|(_, kind)| **kind == Kind::Invalid);
        let outcomes: BTreeMap<u64, Fate> = invalid.map(|(row, _)| (row, Fate::Invalid)).collect();
        let invalid = outcomes.len() as u64;
        let known = self.reuse(&file, head.queue.cache_ms);
        let reused = known.len() as u64;
        self.folder(head.id).reused = known.keys().copied().collect();
        let believed = if self.tamper == Tamper::SendReused { BTreeMap::new() } else { known };
        let outcomes = outcomes.into_iter().chain(believed).collect();
        self.folder(head.id).outcomes = outcomes;
        self.step()?;
        self.sync();
        let rows = file.kinds.len() as u64;
        let mut chunks = Vec::new();
        let mut first = 1;
        while first <= rows {
            let last = Row((first + file.rows_a_chunk - 1).min(rows));
            let run = Rows { first: Row(first), last };
            let Rest { left, right } = self.rest(head.id, run);
            if left.rows + right.rows > 0 {
                chunks.push(PlannedChunk { rows: run, left, right, density: None });
            }
            first = last.0 + 1;
        }
        if chunks.is_empty() {
            let (run, none) = (Rows { first: Row(1), last: Row(rows) }, Share::default());
            chunks.push(PlannedChunk { rows: run, left: none, right: none, density: None });
        }
        let sha256 = format!("{:064x}", file.content);
        let mut plan =
            Plan { invalid, reused, ..fixtures::plan(rows, rows * 100, sha256, self.clock()) };
        // What was read before, and put aside for want of money, may have had one.
        self.told.unjudged.remove(&head.id);
        if head.queue.canary.is_some() && chunks.len() > 1 {
            plan.canary = Some(Box::new(Trial::of(&chunks[..1])));
            self.told.unjudged.insert(head.id, chunks[0].rows);
            if self.tamper == Tamper::NoCanary {
                plan.canary = None;
            }
        }
        Ok(Ok(Outcome::Planned { plan, chunks }))
    }

    /// Takes in the results of an attempt: noted, synced, and only then under their final name.
    fn collect(&mut self, which: Which, batch: &BatchName, missing_max: u64) -> Done {
        let place = (which.chunk, which.attempt);
        if !self.has_input(which.job) {
            return Ok(Err(Failure::Local("the working folder is not there".to_owned())));
        }
        if self.folder(which.job).answers.contains(&place) {
            let harvest = self.harvest(which, 0, 0);
            self.account_results(&which, &harvest);
            return Ok(Ok(Outcome::Collected(harvest)));
        }
        // What an interrupted run noted of this attempt is taken back.
        let outcomes = &mut self.folder(which.job).outcomes;
        outcomes.retain(|_, fate| !fate.is_of(which.chunk, which.attempt));
        let mut lines = match self.fetch(batch)? {
            Ok(lines) => lines,
            Err(failure) => return Ok(Err(failure)),
        };
        if self.comes_short(batch) {
            lines.truncate(lines.len() / 2);
        }
        on_disk!(self);
        let sent = self.folder(which.job).open_rows(which.rows);
        let mut taken: BTreeMap<u64, Fate> = BTreeMap::new();
        let (mut unknown, mut repeated) = (0, 0);
        for line in &lines {
            let line: Value = serde_json::from_str(line).expect("the API writes JSON");
            match row_of(&line).filter(|row| sent.contains(row)) {
                None => unknown += 1,
                Some(row) if taken.contains_key(&row) => repeated += 1,
                Some(row) => {
                    taken.insert(row, self.judge(which, batch, row, &line)?);
                }
            }
        }
        let missing = sent.iter().filter(|row| !taken.contains_key(row)).count();
        if missing as u64 > missing_max {
            return Ok(Err(short(missing)));
        }
        self.folder(which.job).outcomes.extend(taken);
        self.step()?;
        self.sync();
        self.step()?;
        self.folder(which.job).answers.insert(place);
        self.step()?;
        self.sync();
        let harvest = self.harvest(which, unknown, repeated);
        self.account_results(&which, &harvest);
        Ok(Ok(Outcome::Collected(Harvest { missing: missing as u64, ..harvest })))
    }

    pub fn judge(&self, which: Which, batch: &BatchName, row: u64, line: &Value) -> Step<Fate> {
        let Which { job, chunk, attempt, .. } = which;
        if let Some(code) = line["error"]["code"].as_i64() {
            return Ok(match judge_error(code) {
                Verdict::Retryable => Fate::Retryable(chunk, attempt),
                _ => Fate::Failed(chunk, attempt),
            });
        }
        let text = &line["response"]["candidates"][0]["content"]["parts"][0]["text"];
        let text = text.as_str().unwrap_or_default().to_owned();
        let blocked = line["response"]["promptFeedback"].is_object();
        if !blocked && !self.file_of(job).is_answer(row, &text) {
            return Err(Halt::Violation(format!("row {row} of {job} is answered with {text:?}")));
        }
        Ok(Fate::Answered(chunk, attempt, batch.clone(), text))
    }

    pub fn harvest(&mut self, which: Which, unknown: u64, repeated: u64) -> Harvest {
        let rest = self.rest(which.job, which.rows);
        let folder = self.folder(which.job);
        let of = folder.outcomes.iter();
        let of = of.filter(|(_, fate)| fate.is_of(which.chunk, which.attempt));
        let mut harvest = Harvest { unknown, repeated, rest, ..Harvest::default() };
        for (row, fate) in of {
            match fate {
                Fate::Answered(..) => {
                    harvest.answered += 1;
                    harvest.tokens.add(tokens_of(*row));
                }
                Fate::Failed(..) => harvest.failed += 1,
                Fate::Retryable(..) => harvest.retryable += 1,
                Fate::Invalid => {}
            }
        }
        harvest
    }

    fn merge(&mut self, job: &Job) -> Done {
        on_disk!(self);
        let Some(file) = self.folder(job.head.id).input else {
            return Ok(Err(Failure::Local("the input is not there".to_owned())));
        };
        let rows = self.files[&file].kinds.len() as u64;
        let folder = self.folder(job.head.id);
        let mut results = BTreeMap::new();
        for (row, fate) in &folder.outcomes {
            if let Fate::Answered(_, _, _, text) = fate {
                results.insert(*row, text.clone());
            }
        }
        let errors = (1..=rows).filter(|row| !results.contains_key(row)).collect();
        let tally = Tally {
            answered: results.len() as u64,
            failed: rows - results.len() as u64,
            ..Tally::default()
        };
        folder.results = Some(results);
        self.step()?;
        self.folder(job.head.id).errors = Some(errors);
        self.step()?;
        self.sync();
        let stem = self.disk.free_stem(&job.head.source.name);
        Ok(Ok(Outcome::Merged { tally, stem }))
    }

    fn deliver(&mut self, job: &Job) -> Done {
        let JobState::Delivering(delivery) = &job.head.state else {
            return Err(Halt::Violation("a job is delivered that is not merged".to_owned()));
        };
        let id = job.head.id;
        self.check_in_time(job)?;
        on_disk!(self);
        let [results, errors, manifest] = names(&delivery.stem);
        let is_ours = |output: Option<&Output>| match output {
            None => true,
            Some(Output::Results(of, _) | Output::Errors(of, _) | Output::Manifest(of, _)) => {
                *of == id
            }
            Some(Output::Foreign) => false,
        };
        if [&results, &errors, &manifest].iter().any(|n| !is_ours(self.disk.outbox.get(*n))) {
            self.take_back(id, &delivery.stem);
            let free = self.disk.free_stem(&job.head.source.name);
            return Ok(Ok(Outcome::NameTaken { free }));
        }
        let Some(file) = self.folder(id).input else {
            return Ok(Err(Failure::Local("the input is not there".to_owned())));
        };
        if self.tamper == Tamper::ManifestFirst {
            self.place(&manifest, Output::Manifest(id, file))?;
        }
        if let Some(rows) = self.folder(id).results.take() {
            self.place(&results, Output::Results(id, rows))?;
        }
        if let Some(rows) = self.folder(id).errors.take() {
            self.place(&errors, Output::Errors(id, rows))?;
        }
        self.sync();
        self.place(&manifest, Output::Manifest(id, file))?;
        self.sync();
        Ok(Ok(Outcome::Delivered))
    }

    /// A file gets its name in the outbox, where anybody may look at any moment.
    fn place(&mut self, name: &str, output: Output) -> Step {
        self.disk.outbox.insert(name.to_owned(), output);
        self.check_outbox().map_err(Halt::Violation)?;
        self.step()
    }

    /// Takes what is ours back out of the outbox: a name is somebody else's by now.
    fn take_back(&mut self, id: JobId, stem: &str) {
        let [results, errors, _] = names(stem);
        if let Some(Output::Results(of, rows)) = self.disk.outbox.get(&results).cloned()
            && of == id
        {
            self.disk.outbox.remove(&results);
            self.folder(id).results = Some(rows);
        }
        if let Some(Output::Errors(of, rows)) = self.disk.outbox.get(&errors).cloned()
            && of == id
        {
            self.disk.outbox.remove(&errors);
            self.folder(id).errors = Some(rows);
        }
        self.sync();
    }

    fn clean(&mut self, job: &Job) -> Done {
        let id = job.head.id;
        self.keep(job);
        for batch in job.chunks.values().flat_map(|chunk| &chunk.batches) {
            if self.discard(&batch.name, &batch.input)?.is_err() {
                break;
            }
        }
        on_disk!(self);
        self.disk.notices.remove(&id);
        self.step()?;
        if let Some(file) = self.folder(id).input.take() {
            self.disk.archive.insert(file);
        }
        self.step()?;
        self.sync();
        self.disk.working.remove(&id);
        self.step()?;
        self.sync();
        Ok(Ok(Outcome::Cleaned))
    }

    fn move_aside(&mut self, head: &Head, _refusal: &Refusal, failed: bool) -> Done {
        on_disk!(self);
        if let Some(file) = self.folder(head.id).input.take() {
            let to = if failed { &mut self.disk.failed } else { &mut self.disk.held };
            to.insert(file);
        }
        self.step()?;
        self.sync();
        self.disk.working.remove(&head.id);
        self.step()?;
        self.sync();
        Ok(Ok(Outcome::Moved))
    }

    /// Fails the rows that a refusal named.
    pub fn reject(&mut self, which: Which, rows: &[u64]) {
        let fate = Fate::Failed(which.chunk, which.attempt);
        let outcomes = &mut self.folder(which.job).outcomes;
        outcomes.extend(rows.iter().map(|row| (*row, fate.clone())));
        self.sync();
    }

    /// Whether the input still lies in the working folder.
    pub fn has_input(&mut self, job: JobId) -> bool {
        self.folder(job).input.is_some()
    }

    /// The open rows of an attempt with their requests.
    pub fn rows_to_send(&mut self, which: Which) -> Vec<(u64, String)> {
        let open = self.folder(which.job).open_rows(which.rows);
        let file = self.file_of(which.job);
        open.into_iter().map(|row| (row, file.request(row))).collect()
    }

    pub fn rest(&mut self, job: JobId, rows: Rows) -> Rest {
        let file = self.file_of(job).clone();
        self.folder(job).rest(rows, |row| file.request(row).len() as u64 + 30)
    }

    pub fn folder(&mut self, job: JobId) -> &mut Folder {
        self.disk.working.entry(job).or_default()
    }
}

fn refusal(reason: &str) -> Refusal {
    let (reason, message, remedy) = (reason.to_owned(), String::new(), String::new());
    Refusal { reason, message, remedy, line: None, column: None }
}

fn short(missing: usize) -> Failure {
    let message = format!("{missing} of the rows sent have no result line");
    Failure::Damaged { message, missing: Some(missing as u64) }
}
