//! The server: all state, and what every call does to it. Pure: no files, no network, no clock.
//!
//! Time is an argument. The bytes of files are elsewhere, under a [`StoreId`]; whoever runs the
//! server reads and writes them when asked to: [`Server::settle`] hands out the work that is due,
//! [`Server::take_garbage`] tells which bytes nobody needs any more. Calls about files and uploads
//! are in `files.rs`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::answers::{id, mix};
use super::batch::{Batch, Finale, Output, Shown, Stage};
use super::clock::Moment;
use super::create::{Create, CreateInput};
use super::faults::{CallKind, Faults, strikes};
use super::files::{StoredFile, Upload};
use super::journal::{Happened, InputKind, Journal, JournalEntry};
use super::reply::{Refusal, Reply, StoreId};
use super::results::{Outcome, Recipe};
use super::rows::Survey;

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
    /// Everything that looks random is drawn from it.
    pub seed: u64,
}

/// The whole state of the emulated service.
#[derive(Debug)]
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
    struck_13: Arc<HashSet<u64>>,
}

/// What belongs to one key.
#[derive(Debug, Default)]
pub(super) struct Project {
    key: String,
    batches: BTreeMap<u64, Batch>,
    pub(super) files: BTreeMap<String, StoredFile>,
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
    /// The rows.
    pub input: StoreId,
    /// How many there are.
    pub rows: u64,
    /// What to do with them.
    pub recipe: Recipe,
}

/// What a create found out before its rows are read.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The input file, if there is one.
    pub file: Option<StoreId>,
    /// Texts to look for in the rows.
    pub look_for: [Option<String>; 2],
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
            struck_13: Arc::default(),
        }
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

    /// A create whose body was refused already.
    pub fn refuse_create(&mut self, who: ProjectNo, refusal: Refusal, now: Moment) -> Reply {
        self.create_refused(who, "", &Reply::Refused(refusal.clone()), now);
        Reply::Refused(refusal)
    }

    /// The first half of a create: everything that can be said without reading the rows.
    ///
    /// # Errors
    /// The answer, if there is to be no batch.
    pub fn admit_create(
        &mut self,
        who: ProjectNo,
        model: &str,
        create: &Create,
        now: Moment,
    ) -> Result<Admitted, Reply> {
        let admitted = self.admit(who, model, create, now);
        if let Err(reply) = &admitted {
            self.create_refused(who, &create.display_name, reply, now);
        }
        admitted
    }

    fn admit(
        &mut self,
        who: ProjectNo,
        model: &str,
        create: &Create,
        now: Moment,
    ) -> Result<Admitted, Reply> {
        if self.faults.create_drop_before.take() {
            return Err(Reply::Dropped);
        }
        if self.faults.create_503_before.take() {
            return Err(unavailable());
        }
        if self.faults.create_429.take() {
            let message = "Resource has been exhausted (e.g. check quota).";
            return Err(Reply::refused(429, message));
        }
        if !MODELS.contains(&model) {
            return Err(Reply::refused(404, no_model(model)));
        }
        let file = match &create.input {
            CreateInput::Rows(_) => None,
            CreateInput::File(name) => {
                let id = name.strip_prefix("files/").unwrap_or(name);
                match self.projects[who.0].files.get(id).filter(|file| file.lives(now)) {
                    Some(file) => Some(file.store),
                    None => return Err(not_found()),
                }
            }
        };
        let poison = self.faults.poison.as_ref().map(|poison| poison.text.clone());
        Ok(Admitted { file, look_for: [self.faults.create_opaque_400.clone(), poison] })
    }

    /// The second half of a create: the rows lie under `input` and were read. A refused create
    /// leaves inline rows to the garbage.
    pub fn create(
        &mut self,
        who: ProjectNo,
        model: &str,
        create: &Create,
        input: StoreId,
        survey: &Survey,
        now: Moment,
    ) -> Reply {
        let (kind, file) = match &create.input {
            CreateInput::Rows(_) => (InputKind::Inline, None),
            CreateInput::File(name) => (InputKind::File, Some(name.clone())),
        };
        let refused = if !survey.errors.is_empty() {
            Some(survey.errors.join("\n"))
        } else if survey.rows == 0 {
            Some("The input file has no requests.".to_owned())
        } else if survey.contains[0] {
            Some("Request contains an invalid argument.".to_owned())
        } else {
            None
        };
        if let Some(message) = refused {
            let reply = Reply::refused(400, message);
            self.create_refused(who, &create.display_name, &reply, now);
            self.hold(input);
            self.release(input);
            return reply;
        }
        self.hold(input);
        let batch = self.new_batch(model, create, kind, file, input, survey, now);
        self.journal.note(
            now,
            who.0,
            Happened::Created {
                batch: batch.name(),
                display_name: batch.display_name.clone(),
                model: batch.model.clone(),
                rows: batch.rows,
                input: kind,
                file: batch.file.clone(),
            },
        );
        let (operation, _) = batch.operation(now, self.shown(true));
        self.projects[who.0].batches.insert(self.drawn, batch);
        if self.faults.create_drop_after.take() {
            return Reply::Dropped;
        }
        if self.faults.create_503_after.take() {
            return unavailable();
        }
        Reply::Json(operation)
    }

    #[expect(clippy::too_many_arguments, reason = "all of them are what a batch is made of")]
    fn new_batch(
        &mut self,
        model: &str,
        create: &Create,
        kind: InputKind,
        file: Option<String>,
        input: StoreId,
        survey: &Survey,
        now: Moment,
    ) -> Batch {
        let stuck = self.faults.stuck_pending.take();
        let vanishes = self.faults.vanish.take();
        let ends_as =
            self.faults.ends.as_mut().and_then(|ends| ends.times.take().then(|| ends.clone()));
        let starts = if stuck { Moment::NEVER } else { now.after(self.rules.pending_for) };
        Batch {
            id: self.draw(36),
            model: format!("models/{model}"),
            display_name: create.display_name.clone(),
            priority: create.priority,
            kind,
            file,
            input,
            rows: survey.rows,
            created: now,
            starts,
            ends: starts.after(self.rules.running_for),
            vanishes: if vanishes { starts } else { Moment::NEVER },
            cancel_asked: None,
            poison: self.faults.poison.clone().filter(|_| survey.contains[1]),
            ends_as,
            stage: Stage::Open,
            gets: 0,
        }
    }

    fn create_refused(&mut self, who: ProjectNo, display_name: &str, reply: &Reply, now: Moment) {
        let (status, message) = match reply {
            Reply::Refused(refusal) => (refusal.http, refusal.message.clone()),
            Reply::Html => (502, "HTML".to_owned()),
            Reply::Dropped => (0, "connection cut".to_owned()),
            Reply::Json(_) | Reply::Spliced { .. } | Reply::Upload(_) | Reply::Bytes(_) => return,
        };
        let display_name = display_name.to_owned();
        let what = Happened::CreateRefused { display_name, status, message };
        self.journal.note(now, who.0, what);
    }

    /// One batch, with its results.
    pub fn get(&mut self, who: ProjectNo, id: &str, now: Moment) -> Reply {
        let shown = self.shown(true);
        let quiet_gets = self.faults.no_output_gets;
        let Some(batch) = self.find(who, id, now) else { return not_found() };
        let ended = matches!(batch.stage, Stage::Ended { .. });
        batch.gets = batch.gets.saturating_add(u32::from(ended));
        let shown = Shown { output: !ended || batch.gets > quiet_gets, ..shown };
        let (operation, items) = batch.operation(now, shown);
        let name = batch.name();
        match items {
            None => Reply::Json(operation),
            Some(items) => {
                self.journal.note(now, who.0, Happened::ResultsRead { batch: name });
                Reply::Spliced { operation, items }
            }
        }
    }

    /// A page of batches, newest first, without inline results (API contract, 6.2).
    pub fn list(
        &mut self,
        who: ProjectNo,
        page_size: Option<usize>,
        token: Option<&str>,
        now: Moment,
    ) -> Reply {
        if self.faults.list_needs_page_size && page_size.is_none() {
            return Reply::Json(json!({}));
        }
        let before = match token.map(read_token) {
            None => u64::MAX,
            Some(Some(before)) => before,
            Some(None) => return Reply::refused(400, "Invalid page token."),
        };
        if token.is_none() && self.faults.list_empty_first_page.take() {
            return Reply::Json(json!({ "nextPageToken": page_token(u64::MAX) }));
        }
        let lag = Duration::from_millis(self.faults.list_lag_ms);
        let shown =
            Shown { stale: self.faults.list_stale_stats, output: true, ..self.shown(false) };
        let mut visible =
            self.projects[who.0].batches.range(..before).rev().filter(|(_, batch)| {
                batch.vanishes > now && (lag.is_zero() || batch.created.after(lag) <= now)
            });
        let size = page_size.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
        let page: Vec<(&u64, &Batch)> = visible.by_ref().take(size).collect();
        let more = visible.next().is_some();
        let mut body = json!({});
        if let Some((last, _)) = page.last().filter(|_| more) {
            body["nextPageToken"] = page_token(**last).into();
        }
        if !page.is_empty() {
            let entries = page.iter().map(|(_, batch)| batch.operation(now, shown).0);
            body["operations"] = entries.collect::<Vec<Value>>().into();
        }
        Reply::Json(body)
    }

    /// Asks for a batch to be cancelled; nothing happens to one that has ended.
    pub fn cancel(&mut self, who: ProjectNo, id: &str, now: Moment) -> Reply {
        let Some(batch) = self.find(who, id, now) else { return not_found() };
        if matches!(batch.stage, Stage::Open) {
            batch.cancel_asked.get_or_insert(now);
        }
        let batch = batch.name();
        self.journal.note(now, who.0, Happened::CancelAsked { batch });
        Reply::Json(json!({}))
    }

    /// Deletes a batch and its results.
    pub fn delete(&mut self, who: ProjectNo, id: &str, now: Moment) -> Reply {
        let Some(name) = self.find(who, id, now).map(|batch| batch.name()) else {
            return not_found();
        };
        let batches = &mut self.projects[who.0].batches;
        let number = batches.iter().find(|(_, batch)| batch.id == id).map(|(number, _)| *number);
        if let Some(batch) = number.and_then(|number| batches.remove(&number)) {
            if !matches!(batch.stage, Stage::Ended { .. }) {
                self.release(batch.input);
            }
            if let Stage::Ended { output: Some(output), .. } = batch.stage {
                self.release(output.store);
            }
        }
        self.journal.note(now, who.0, Happened::BatchDeleted { batch: name });
        Reply::Json(json!({}))
    }

    /// A model.
    pub fn model(&self, model: &str) -> Reply {
        if !MODELS.contains(&model) {
            return Reply::refused(404, no_model(model));
        }
        Reply::Json(json!({
            "name": format!("models/{model}"),
            "version": "001",
            "displayName": model,
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens", "batchGenerateContent"],
        }))
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
        let batch = self.projects[project].batches.get_mut(&number)?;
        let recipe = Recipe {
            model: batch.model.clone(),
            inline: batch.kind == InputKind::Inline,
            served,
            rest_cancelled: finale.rest_cancelled,
            missing: faults.missing.take(),
            repeated: faults.repeated.take(),
            foreign: faults.foreign.take(),
            code_13: faults.code_13.take(),
            spared: faults.code_13_first_only.then(|| Arc::clone(&self.struck_13)),
            blocked: faults.blocked.take(),
            truncated: faults.truncated.take(),
            keyless: faults.keyless.take(),
            shuffled: faults.shuffled.take().then(|| mix(self.rules.seed, number)),
        };
        batch.stage = Stage::Writing(finale);
        Some(Work { project, batch: number, input: batch.input, rows: batch.rows, recipe })
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
        batch.stage = Stage::Ended { finale, output };
        self.release(input);
        self.journal.note(at, project, what);
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

    /// The batch, unless it is unknown, of somebody else, or has vanished.
    fn find(&mut self, who: ProjectNo, id: &str, now: Moment) -> Option<&mut Batch> {
        let mut batches = self.projects[who.0].batches.values_mut();
        batches.find(|batch| batch.id == id && batch.vanishes > now)
    }

    /// The results of the batch that has this result file, if they can still be had.
    pub(super) fn result_file(
        &self,
        who: ProjectNo,
        file: &str,
        now: Moment,
    ) -> Option<(Moment, Output)> {
        let id = file.strip_prefix("batch-")?;
        let batch = self.projects[who.0].batches.values().find(|batch| batch.id == id)?;
        match &batch.stage {
            Stage::Ended { finale, output: Some(output) }
                if batch.kind == InputKind::File
                    && finale.at.after(super::batch::LIFETIME) > now =>
            {
                Some((finale.at, *output))
            }
            Stage::Ended { .. } | Stage::Open | Stage::Writing(_) => None,
        }
    }

    /// Bytes that a project's results take.
    pub(super) fn result_bytes(&self, who: ProjectNo) -> u64 {
        let bytes = |batch: &Batch| match &batch.stage {
            Stage::Ended { output: Some(output), .. } if batch.kind == InputKind::File => {
                output.bytes
            }
            Stage::Ended { .. } | Stage::Open | Stage::Writing(_) => 0,
        };
        self.projects[who.0].batches.values().map(bytes).sum()
    }

    /// A fresh id.
    pub(super) fn draw(&mut self, len: usize) -> String {
        self.drawn += 1;
        id(self.rules.seed, self.drawn, len)
    }

    fn shown(&self, inline_results: bool) -> Shown {
        Shown { inline_results, output: true, stale: false, frozen: self.faults.frozen_stats }
    }
}

/// The answer about a batch that is not there.
pub fn not_found() -> Reply {
    Reply::refused(404, "Requested entity was not found.")
}

/// The answer of a service that is overloaded.
pub fn unavailable() -> Reply {
    Reply::refused(503, "The service is currently unavailable.")
}

/// The token for the page after this one.
pub(super) fn page_token(last: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("before:{last}"))
}

/// The number in a token; `None` if the token is none of ours.
pub(super) fn read_token(token: &str) -> Option<u64> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    std::str::from_utf8(&bytes).ok()?.strip_prefix("before:")?.parse().ok()
}

fn no_model(model: &str) -> String {
    let model: String = model.chars().take(100).collect();
    format!(
        "models/{model} is not found for API version v1beta, or is not supported for \
         batchGenerateContent. Call ListModels to see the list of available models and their \
         supported methods."
    )
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

/// Models that can be batched here.
pub const MODELS: &[&str] = &[
    "gemini-2.0-flash",
    "gemini-2.0-flash-lite",
    "gemini-2.5-flash",
    "gemini-2.5-flash-lite",
    "gemini-2.5-pro",
    "gemini-3-flash-preview",
    "gemini-3-pro-preview",
    "gemini-3.1-flash-lite",
    "gemini-3.1-pro-preview",
    "gemini-3.5-flash",
];

const PAGE_DEFAULT: usize = 50;
const PAGE_MAX: usize = 100;
