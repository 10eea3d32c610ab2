//! Batches: what their calls do to the server's state (API contract, sections 3 and 6).
//!
//! A create comes in two halves: first everything that can be said without reading the rows, then,
//! when somebody has read them, the rest. Every refused create is in the journal.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::batch::{Batch, LIFETIME, Output, Shown, Stage};
use super::clock::Moment;
use super::create::{Create, CreateInput};
use super::journal::{Happened, InputKind};
use super::layer::exhausted;
use super::reply::{Refusal, Reply, StoreId};
use super::rows::Survey;
use super::server::{ProjectNo, Server};
use crate::engine::job::Task;

/// What a create found out before its rows are read.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The input file, if there is one.
    pub file: Option<StoreId>,
    /// Texts to look for in the rows.
    pub look_for: [Option<String>; 2],
}

impl Server {
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
        task: Task,
        create: &Create,
        now: Moment,
    ) -> Result<Admitted, Reply> {
        let admitted = self.admit(who, model, task, create, now);
        if let Err(reply) = &admitted {
            self.create_refused(who, &create.display_name, reply, now);
        }
        admitted
    }

    fn admit(
        &mut self,
        who: ProjectNo,
        model: &str,
        task: Task,
        create: &Create,
        now: Moment,
    ) -> Result<Admitted, Reply> {
        self.trip_create()?;
        if !models_for(task).contains(&model) {
            return Err(Reply::refused(404, no_model(model, task)));
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
    #[expect(clippy::too_many_arguments, reason = "all of them are what a batch is made of")]
    pub fn create(
        &mut self,
        who: ProjectNo,
        model: &str,
        task: Task,
        create: &Create,
        input: StoreId,
        survey: &Survey,
        now: Moment,
    ) -> Reply {
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
        if !self.has_room_in_queue(who, model, survey) {
            let reply = exhausted();
            self.create_refused(who, &create.display_name, &reply, now);
            self.release(input);
            return reply;
        }
        let batch = self.new_batch(model, task, create, input, survey, now);
        let (operation, _) = batch.operation(now, self.shown(true));
        self.enter(who, batch, now).unwrap_or(Reply::Json(operation))
    }

    /// Whether so many more tokens may be enqueued for a model (API contract, 8).
    fn has_room_in_queue(&self, who: ProjectNo, model: &str, survey: &Survey) -> bool {
        let limit = self.faults.enqueued_tokens;
        let batches = self.projects[who.0].batches.values();
        let is_in = |batch: &&Batch| {
            matches!(batch.stage, Stage::Open) && batch.model.strip_prefix("models/") == Some(model)
        };
        let enqueued: u64 = batches.filter(is_in).map(|batch| batch.tokens).sum();
        limit == 0 || enqueued + survey.bytes / BYTES_A_TOKEN <= limit
    }

    /// Puts a new batch down. Answers with what its client gets in the place of the batch, if a
    /// fault keeps it from being told.
    pub(super) fn enter(&mut self, who: ProjectNo, batch: Batch, now: Moment) -> Option<Reply> {
        self.journal.note(
            now,
            who.0,
            Happened::Created {
                batch: batch.name(),
                display_name: batch.display_name.clone(),
                model: batch.model.clone(),
                rows: batch.rows,
                input: batch.kind,
                file: batch.file.clone(),
            },
        );
        self.projects[who.0].batches.insert(self.drawn, batch);
        if self.faults.create_drop_after.take() {
            return Some(Reply::Dropped);
        }
        self.faults.create_503_after.take().then(unavailable)
    }

    pub(super) fn new_batch(
        &mut self,
        model: &str,
        task: Task,
        create: &Create,
        input: StoreId,
        survey: &Survey,
        now: Moment,
    ) -> Batch {
        let (kind, file) = match &create.input {
            CreateInput::Rows(_) => (InputKind::Inline, None),
            CreateInput::File(name) => (InputKind::File, Some(name.clone())),
        };
        let stuck = self.faults.stuck_pending.take();
        let vanishes = self.faults.vanish.take();
        let ends_as =
            self.faults.ends.as_mut().and_then(|ends| ends.times.take().then(|| ends.clone()));
        let times = self.faults.slow_models.get(model).copied().unwrap_or(1).max(1);
        let starts = if stuck { Moment::NEVER } else { now.after(self.rules.pending_for * times) };
        Batch {
            id: self.draw(36),
            model: format!("models/{model}"),
            task,
            display_name: create.display_name.clone(),
            priority: create.priority,
            kind,
            file,
            input,
            rows: survey.rows,
            tokens: survey.bytes / BYTES_A_TOKEN,
            created: now,
            starts,
            ends: starts.after(self.rules.running_for * times),
            vanishes: if vanishes { starts } else { Moment::NEVER },
            cancel_asked: None,
            poison: self.faults.poison.clone().filter(|_| survey.contains[1]),
            ends_as,
            stage: Stage::Open,
            gets: 0,
            layer: None,
        }
    }

    /// Notes a create that made no batch.
    pub fn create_refused(
        &mut self,
        who: ProjectNo,
        display_name: &str,
        reply: &Reply,
        now: Moment,
    ) {
        let (status, message) = match reply {
            Reply::Refused(refusal) => (refusal.http, refusal.message.clone()),
            Reply::Html => (502, "HTML".to_owned()),
            Reply::Dropped => (0, "connection cut".to_owned()),
            Reply::Json(_)
            | Reply::Spliced { .. }
            | Reply::Answer { .. }
            | Reply::Upload(_)
            | Reply::Bytes(_) => return,
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
                let is_visible = lag.is_zero() || batch.created.after(lag) <= now;
                batch.layer.is_none() && batch.vanishes > now && is_visible
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
        let name = batch.name();
        self.cancel_noted(who, name, now);
        Reply::Json(json!({}))
    }

    pub(super) fn cancel_noted(&mut self, who: ProjectNo, batch: String, now: Moment) {
        self.journal.note(now, who.0, Happened::CancelAsked { batch });
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
        let methods = if MODELS.contains(&model) {
            json!(["generateContent", "countTokens", "batchGenerateContent"])
        } else if EMBEDDERS.contains(&model) {
            json!(["embedContent", "countTextTokens", "countTokens", "asyncBatchEmbedContent"])
        } else {
            return Reply::refused(404, no_model(model, Task::Generate));
        };
        Reply::Json(json!({
            "name": format!("models/{model}"),
            "version": "001",
            "displayName": model,
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": methods,
        }))
    }

    /// The batch, unless it is unknown, of somebody else, or has vanished.
    fn find(&mut self, who: ProjectNo, id: &str, now: Moment) -> Option<&mut Batch> {
        let mut batches = self.projects[who.0].batches.values_mut();
        batches.find(|batch| batch.layer.is_none() && batch.id == id && batch.vanishes > now)
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
                if batch.kind == InputKind::File && finale.at.after(LIFETIME) > now =>
            {
                Some((finale.at, *output))
            }
            Stage::Ended { .. } | Stage::Open | Stage::Writing(_) => None,
        }
    }

    /// Bytes that a project's results take, as long as they live.
    pub(super) fn result_bytes(&self, who: ProjectNo, now: Moment) -> u64 {
        let bytes = |batch: &Batch| match &batch.stage {
            Stage::Ended { finale, output: Some(output) }
                if batch.kind == InputKind::File && finale.at.after(LIFETIME) > now =>
            {
                output.bytes
            }
            Stage::Ended { .. } | Stage::Open | Stage::Writing(_) => 0,
        };
        self.projects[who.0].batches.values().map(bytes).sum()
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

fn no_model(model: &str, task: Task) -> String {
    let model: String = model.chars().take(100).collect();
    let method = match task {
        Task::Generate => "batchGenerateContent",
        Task::Embed => "asyncBatchEmbedContent",
    };
    format!(
        "models/{model} is not found for API version v1beta, or is not supported for \
         {method}. Call ListModels to see the list of available models and their \
         supported methods."
    )
}

/// The models that can be batched for a task.
pub fn models_for(task: Task) -> &'static [&'static str] {
    match task {
        Task::Generate => MODELS,
        Task::Embed => EMBEDDERS,
    }
}

/// Models whose embeddings can be batched here.
pub const EMBEDDERS: &[&str] = &["gemini-embedding-001", "gemini-embedding-2"];

/// Models that can be batched here.
pub const MODELS: &[&str] = &[
    "gemini-2.0-flash",
    "gemini-2.0-flash-lite",
    "gemini-2.5-flash",
    "gemini-2.5-flash-image",
    "gemini-2.5-flash-lite",
    "gemini-2.5-pro",
    "gemini-3-flash-preview",
    "gemini-3-pro-image-preview",
    "gemini-3-pro-preview",
    "gemini-3.1-flash-lite",
    "gemini-3.1-pro-preview",
    "gemini-3.5-flash",
];

const PAGE_DEFAULT: usize = 50;
/// A rule of thumb, for the queues of models.
const BYTES_A_TOKEN: u64 = 4;
const PAGE_MAX: usize = 100;
