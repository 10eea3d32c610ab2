//! The server: all state, and what every call does to it. Pure: no files, no network, no clock.
//!
//! Time is an argument. The bytes of files are elsewhere, under a [`StoreId`]; whoever runs the
//! server reads and writes them when asked to: [`Server::settle`] hands out the work that is due,
//! [`Server::take_garbage`] tells which bytes nobody needs any more. Calls about files and uploads
//! are in `files.rs` and
//! `sessions.rs`, those about batches in `batches.rs`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::answers::{id, mix};
use super::batch::{Batch, Finale, Output, Stage};
use super::clock::Moment;
use super::faults::{CallKind, Faults, strikes};
use super::files::StoredFile;
use super::interactive::Rate;
use super::journal::{Happened, InputKind, Journal, JournalEntry};
use super::reply::{Refusal, Reply, StoreId};
use super::results::{Outcome, Recipe};
use super::sessions::Upload;
use super::shelf::Shelf;
use super::webhook::News;

/// What does not change while the server runs.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long a batch is PENDING.
    pub pending_for: Duration,
    /// How long it is RUNNING.
    pub running_for: Duration,
    /// How long a cancel takes.
    pub cancel_for: Duration,
    /// Pieces of an upload but the last are multiples of it, bytes.
    pub granularity: u64,
    /// Bytes that a project can store.
    pub storage_bytes: u64,
    /// Keys that are not valid.
    pub bad_keys: Vec<String>,
    /// Keys that belong to one project.
    pub projects: Vec<Vec<String>>,
    /// Everything that looks random is drawn from it.
    pub seed: u64,
}

/// The whole state of the emulated service.
#[derive(Debug, Clone)]
pub struct Server {
    pub(super) rules: Rules,
    pub(super) faults: Faults,
    pub(super) journal: Journal,
    pub(super) projects: Vec<Project>,
    pub(super) uploads: HashMap<String, Upload>,
    pub(super) uploads_started: u64,
    pub(super) drawn: u64,
    uses: HashMap<StoreId, u32>,
    garbage: Vec<StoreId>,
    /// Batches that have ended, if anybody wants to know.
    news: Option<Vec<News>>,
    struck_13: Arc<HashSet<u64>>,
    /// Calls for single answers lately.
    pub(super) asked: Rate,
}

/// What belongs to one key, or to several of one project.
#[derive(Debug, Clone, Default)]
pub(super) struct Project {
    key: String,
    pub(super) batches: BTreeMap<u64, Batch>,
    pub(super) files: BTreeMap<String, StoredFile>,
}

/// What clients have left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// Uploaded files that have not expired.
    pub files: usize,
    /// Batches, which keep their results.
    pub batches: usize,
    /// The same of the OpenAI-compatible layer, where they can not be deleted.
    pub of_layer: usize,
}

/// A project, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectNo(pub usize);

/// What a transport fault does to a call, before the server looks at it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mishap {
    /// How long the answer is held back, real ms.
    pub hold_ms: u64,
    /// The answer, if the call does not get through.
    pub instead: Option<Reply>,
}

/// The results of a batch are to be written.
#[derive(Debug, Clone)]
pub struct Work {
    project: usize,
    batch: u64,
    /// The batch, `batches/…`.
    pub name: String,
    /// The rows.
    pub input: StoreId,
    /// How many there are.
    pub rows: u64,
    /// What to do with them.
    pub recipe: Recipe,
}

impl Server {
    /// A server without any resources.
    pub fn new(rules: Rules, faults: Faults) -> Server {
        Server {
            rules,
            faults,
            journal: Journal::default(),
            projects: Vec::new(),
            uploads: HashMap::new(),
            uploads_started: 0,
            drawn: 0,
            uses: HashMap::new(),
            garbage: Vec::new(),
            news: None,
            struck_13: Arc::default(),
            asked: Rate::default(),
        }
    }

    /// The same server, for another process to go on with: results that were being written are
    /// written again, and uploads that were under way are not known any more.
    pub fn restarted(&self) -> Server {
        let mut server = self.clone();
        server.uploads.retain(|_, upload| !upload.is_under_way());
        for batch in server.projects.iter_mut().flat_map(|owned| owned.batches.values_mut()) {
            if matches!(batch.stage, Stage::Writing(_)) {
                batch.stage = Stage::Open;
            }
        }
        server
    }

    /// Replaces all faults.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The faults, with what is left of their budgets.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What was seen so far.
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.journal.entries()
    }

    /// What lies there, of all projects together.
    pub fn remains(&self, now: Moment) -> Remains {
        let owned = || self.projects.iter();
        let files = owned().flat_map(|owned| owned.files.values()).filter(|file| file.lives(now));
        let batches = owned().flat_map(|owned| owned.batches.values());
        let of_layer = batches.clone().filter(|batch| batch.layer.is_some()).count();
        Remains { files: files.count(), batches: batches.count() - of_layer, of_layer }
    }

    /// Whose key this is.
    ///
    /// # Errors
    /// The answer to a missing or bad key.
    pub fn authenticate(&mut self, key: Option<&str>) -> Result<ProjectNo, Reply> {
        let Some(key) = key.filter(|key| !key.is_empty()) else {
            let message = "Method doesn't allow unregistered callers (callers without established \
                           identity). Please use API Key or other form of API consumer identity \
                           to call this API.";
            return Err(Reply::refused(403, message));
        };
        if self.rules.bad_keys.iter().any(|bad| bad == key) {
            return Err(Reply::Refused(bad_key()));
        }
        // The first key of a project stands for all of them.
        let shared = self.rules.projects.iter().find(|keys| keys.iter().any(|of| of == key));
        let key = shared.and_then(|keys| keys.first()).map_or(key, String::as_str);
        let known = self.projects.iter().position(|project| project.key == key);
        Ok(ProjectNo(known.unwrap_or_else(|| {
            self.projects.push(Project { key: key.to_owned(), ..Project::default() });
            self.projects.len() - 1
        })))
    }

    /// What happens to a call on its way.
    pub fn mishap(&mut self, call: CallKind) -> Mishap {
        let mut mishap = Mishap::default();
        if let Some(slow) = &mut self.faults.slow
            && strikes(slow.call, &mut slow.times, call)
        {
            mishap.hold_ms = slow.ms;
        }
        if let Some(denied) = &mut self.faults.denied
            && strikes(denied.call, &mut denied.times, call)
        {
            let (http, message) = match denied.status {
                401 => (401, "Request had invalid authentication credentials."),
                _ => (403, "The caller does not have permission"),
            };
            mishap.instead = Some(Reply::refused(http, message));
        }
        if let Some(html) = &mut self.faults.html_502
            && strikes(html.call, &mut html.times, call)
        {
            mishap.instead = Some(Reply::Html);
        }
        mishap
    }

    /// Ends what has come to its end; the results that must be written for that are handed out,
    /// and [`Server::written`] is owed for each.
    pub fn settle(&mut self, now: Moment) -> Vec<Work> {
        self.expire_files(now);
        let mut due = Vec::new();
        for (project, owned) in self.projects.iter().enumerate() {
            for (number, batch) in &owned.batches {
                if let Some(finale) = batch.due(now, self.rules.cancel_for) {
                    due.push((project, *number, finale));
                }
            }
        }
        due.into_iter()
            .filter_map(|(project, number, finale)| self.end(project, number, finale))
            .collect()
    }

    fn end(&mut self, project: usize, number: u64, finale: Finale) -> Option<Work> {
        let Some(served) = finale.served else {
            self.ended(project, number, finale, None);
            return None;
        };
        let faults = &mut self.faults;
        let shelf = Arc::new(Shelf::of(&self.projects[project], finale.at));
        let batch = self.projects[project].batches.get_mut(&number)?;
        let recipe = Recipe {
            model: batch.model.clone(),
            task: batch.task,
            inline: batch.kind == InputKind::Inline,
            layer: batch.layer.is_some(),
            served,
            rest_cancelled: finale.rest_cancelled,
            missing: faults.missing.take(),
            repeated: faults.repeated.take(),
            foreign: faults.foreign.take(),
            code_13: faults.code_13.take(),
            spared: faults.code_13_first_only.then(|| Arc::clone(&self.struck_13)),
            blocked: faults.blocked.take(),
            truncated: faults.truncated.take(),
            misfit: faults.misfit.take(),
            keyless: faults.keyless.take(),
            shuffled: faults.shuffled.take().then(|| mix(self.rules.seed, number)),
            shelf,
        };
        batch.stage = Stage::Writing(finale);
        let (name, input, rows) = (batch.name(), batch.input, batch.rows);
        Some(Work { project, batch: number, name, input, rows, recipe })
    }

    /// The results of a batch are written, under `store` and `bytes` long; or could not be.
    pub fn written(&mut self, work: &Work, result: Result<(StoreId, u64, Outcome), String>) {
        let batch = self.projects[work.project].batches.get(&work.batch);
        let Some(Stage::Writing(finale)) = batch.map(|batch| batch.stage.clone()) else {
            // Deleted in the meantime.
            if let Ok((store, _, _)) = result {
                self.hold(store);
                self.release(store);
            }
            return;
        };
        match result {
            Ok((store, bytes, outcome)) => {
                self.hold(store);
                let Outcome { successful, failed, struck_13 } = outcome;
                Arc::make_mut(&mut self.struck_13).extend(struck_13);
                let output = Output { store, bytes, successful, failed };
                self.ended(work.project, work.batch, finale, Some(output));
            }
            Err(message) => {
                let state = "BATCH_STATE_FAILED";
                let finale = Finale { state, error: Some((13, message)), ..finale };
                self.ended(work.project, work.batch, finale, None);
            }
        }
    }

    fn ended(&mut self, project: usize, number: u64, finale: Finale, output: Option<Output>) {
        let Some(batch) = self.projects[project].batches.get_mut(&number) else { return };
        let what = Happened::Ended {
            batch: batch.name(),
            state: finale.state.to_owned(),
            successful: output.map_or(0, |output| output.successful),
            failed: output.map_or(0, |output| output.failed),
        };
        let (at, input) = (finale.at, batch.input);
        if let Some(news) = &mut self.news {
            let (state, error) = (finale.state, finale.error.clone());
            news.push(News { batch: batch.name(), state, error, at });
        }
        batch.stage = Stage::Ended { finale, output };
        self.release(input);
        self.journal.note(at, project, what);
    }

    /// From now on batches that end are remembered until [`Server::take_news`].
    pub fn tell_news(&mut self) {
        self.news.get_or_insert_default();
    }

    /// Batches that have ended since the last time.
    pub fn take_news(&mut self) -> Vec<News> {
        self.news.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Bytes that nobody needs any more.
    pub fn take_garbage(&mut self) -> Vec<StoreId> {
        std::mem::take(&mut self.garbage)
    }

    /// Counts one more user of some bytes.
    pub(super) fn hold(&mut self, store: StoreId) {
        *self.uses.entry(store).or_insert(0) += 1;
    }

    /// Counts one user less.
    pub(super) fn release(&mut self, store: StoreId) {
        let uses = self.uses.entry(store).or_insert(1);
        *uses -= 1;
        if *uses == 0 {
            self.uses.remove(&store);
            self.garbage.push(store);
        }
    }

    /// A fresh id.
    pub(super) fn draw(&mut self, len: usize) -> String {
        self.drawn += 1;
        id(self.rules.seed, self.drawn, len)
    }
}

fn bad_key() -> Refusal {
    let message = "API key not valid. Please pass a valid API key.";
    let mut refusal = Refusal::new(400, message);
    refusal.details = Some(json!([
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
         "domain": "googleapis.com",
         "metadata": {"service": "generativelanguage.googleapis.com"}},
        {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US",
         "message": message},
    ]));
    refusal
}
