//! The OpenAI-compatible layer: its batches, and what its calls do (API contract, section 11).
//!
//! What the documents leave open is decided the way that trusts a client least: ids are `batches/…`,
//! the API's own calls neither list nor know these batches, nothing removes one, a broken line in
//! the file fails the batch, and counts of tokens have names in camelCase, as was seen.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use serde::Deserialize;
use serde_json::{Value, json};

use super::batch::{Batch, Finale, LIFETIME, Stage};
use super::batches::{not_found, unavailable};
use super::clock::Moment;
use super::create::{Create, CreateInput};
use super::layer_rows::Survey;
use super::reply::{Reply, StoreId};
use super::routes::App;
use super::rows;
use super::server::{ProjectNo, Server};
use super::upload;
use crate::engine::job::Task;

/// What a batch of the layer has that others have not.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// As the client gave it.
    metadata: Value,
    /// Lines that are no requests, and what is wrong with each.
    errors: Vec<(u64, String)>,
}

/// The body of a create.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    #[serde(default)]
    metadata: Value,
}

impl Asked {
    fn task(&self) -> Result<Task, Reply> {
        if self.completion_window != "24h" {
            return Err(Reply::refused(400, "completion_window must be \"24h\"."));
        }
        let fits = |metadata: &Value| metadata.is_object() || metadata.is_null();
        if !fits(&self.metadata) {
            return Err(Reply::refused(400, "metadata must be an object."));
        }
        match self.endpoint.as_str() {
            "/v1/chat/completions" => Ok(Task::Generate),
            "/v1/embeddings" => Ok(Task::Embed),
            other => {
                let other: String = other.chars().take(60).collect();
                Err(Reply::refused(400, format!("The endpoint {other:?} is not supported.")))
            }
        }
    }
}

/// Makes a batch, or says why not.
pub async fn create(app: &Arc<App>, who: ProjectNo, body: Body) -> Reply {
    let Ok(body) = upload::read_body(body, 1 << 20).await else { return Reply::Dropped };
    let by = Arc::clone(app);
    let done = app.source.tasks.spawn_blocking(move || create_now(&by, who, &body)).await;
    done.unwrap_or_else(|_| Reply::refused(500, "Internal error encountered."))
}

fn create_now(app: &App, who: ProjectNo, body: &[u8]) -> Reply {
    let now = app.clock.now();
    let asked: Asked = match serde_json::from_slice(body) {
        Ok(asked) => asked,
        Err(error) => {
            let reply = Reply::refused(400, format!("Invalid JSON payload received. {error}"));
            app.server().create_refused(who, "", &reply, now);
            return reply;
        }
    };
    let admitted = asked.task().and_then(|task| {
        let store = app.server().admit_layer(who, &asked, now)?;
        Ok((task, store))
    });
    let (task, store) = match admitted {
        Ok(admitted) => admitted,
        Err(reply) => {
            app.server().create_refused(who, "", &reply, now);
            return reply;
        }
    };
    let poison = app.server().faults().poison.as_ref().map(|poison| poison.text.clone());
    match app.source.disk.survey_layer(store, task, poison.as_deref()) {
        Ok(survey) => app.server().create_layer(who, task, asked, store, survey, app.clock.now()),
        Err(error) => {
            Reply::refused(500, format!("The emulator can not read the requests: {error}"))
        }
    }
}

impl Server {
    fn admit_layer(
        &mut self,
        who: ProjectNo,
        asked: &Asked,
        now: Moment,
    ) -> Result<StoreId, Reply> {
        self.trip_create()?;
        let id = asked.input_file_id.strip_prefix("files/").unwrap_or(&asked.input_file_id);
        match self.projects[who.0].files.get(id).filter(|file| file.lives(now)) {
            Some(file) => Ok(file.store),
            None => Err(not_found()),
        }
    }

    fn create_layer(
        &mut self,
        who: ProjectNo,
        task: Task,
        asked: Asked,
        input: StoreId,
        survey: Survey,
        now: Moment,
    ) -> Reply {
        if survey.rows == 0 {
            let reply = Reply::refused(400, "The input file has no requests.");
            self.create_refused(who, "", &reply, now);
            return reply;
        }
        self.hold(input);
        let file = match asked.input_file_id.strip_prefix("files/") {
            Some(_) => asked.input_file_id,
            None => format!("files/{}", asked.input_file_id),
        };
        let create =
            Create { display_name: String::new(), priority: 0, input: CreateInput::File(file) };
        let counted = rows::Survey {
            rows: survey.rows,
            bytes: 0,
            errors: Vec::new(),
            contains: [false, survey.poisoned],
        };
        let mut batch = self.new_batch(&survey.model, task, &create, input, &counted, now);
        batch.layer = Some(Layer { metadata: asked.metadata, errors: survey.errors });
        let shown = batch.as_openai(true, now);
        self.enter(who, batch, now).unwrap_or(Reply::Json(shown))
    }

    /// One batch.
    pub fn layer_get(&mut self, who: ProjectNo, id: &str, now: Moment) -> Reply {
        let quiet_gets = self.faults.no_output_gets;
        let Some(batch) = self.find_layer(who, id, now) else { return no_batch(id) };
        let ended = matches!(batch.stage, Stage::Ended { .. });
        batch.gets = batch.gets.saturating_add(u32::from(ended));
        let has_output = batch.gets > quiet_gets;
        Reply::Json(batch.as_openai(has_output, now))
    }

    /// A page of batches, newest first.
    pub fn layer_list(
        &mut self,
        who: ProjectNo,
        limit: Option<&str>,
        after: Option<&str>,
        now: Moment,
    ) -> Reply {
        if self.faults.openai_list_missing {
            return Reply::refused(404, "Requested entity was not found.");
        }
        let limit = match limit.map(str::parse::<usize>) {
            None => 20,
            Some(Ok(limit @ 1..=100)) => limit,
            Some(_) => return Reply::refused(400, "limit must be between 1 and 100."),
        };
        let lag = Duration::from_millis(self.faults.list_lag_ms);
        let is_shown = |batch: &&Batch| {
            let is_visible = lag.is_zero() || batch.created.after(lag) <= now;
            batch.layer.is_some() && batch.vanishes > now && is_visible
        };
        let all: Vec<&Batch> =
            self.projects[who.0].batches.values().rev().filter(is_shown).collect();
        let from = match after {
            None => 0,
            Some(after) => match all.iter().position(|batch| batch.name() == after) {
                Some(at) => at + 1,
                None => return Reply::refused(400, "after names no batch."),
            },
        };
        let page: Vec<Value> =
            all.iter().skip(from).take(limit).map(|batch| batch.as_openai(true, now)).collect();
        let id = |batch: Option<&Value>| batch.map_or(Value::Null, |batch| batch["id"].clone());
        Reply::Json(json!({
            "object": "list",
            "first_id": id(page.first()),
            "last_id": id(page.last()),
            "has_more": from + page.len() < all.len(),
            "data": page,
        }))
    }

    /// Asks for a batch to be cancelled; one that has ended can not be.
    pub fn layer_cancel(&mut self, who: ProjectNo, id: &str, now: Moment) -> Reply {
        let Some(batch) = self.find_layer(who, id, now) else { return no_batch(id) };
        if !matches!(batch.stage, Stage::Open) {
            return Reply::refused(409, "The batch has ended already.");
        }
        batch.cancel_asked.get_or_insert(now);
        let (name, shown) = (batch.name(), batch.as_openai(true, now));
        self.cancel_noted(who, name, now);
        Reply::Json(shown)
    }

    fn find_layer(&mut self, who: ProjectNo, id: &str, now: Moment) -> Option<&mut Batch> {
        let mut batches = self.projects[who.0].batches.values_mut();
        batches.find(|batch| batch.layer.is_some() && batch.id == id && batch.vanishes > now)
    }

    /// What a fault does to a create before anything is looked at.
    ///
    /// # Errors
    /// The answer, if one strikes.
    pub(super) fn trip_create(&mut self) -> Result<(), Reply> {
        if self.faults.create_drop_before.take() {
            return Err(Reply::Dropped);
        }
        if self.faults.create_503_before.take() {
            return Err(unavailable());
        }
        if self.faults.create_429.take() {
            return Err(exhausted());
        }
        Ok(())
    }
}

/// The bare answer to a create for which a quota has no room (API contract, 9.3).
pub(super) fn exhausted() -> Reply {
    Reply::refused(429, "Resource has been exhausted (e.g. check quota).")
}

impl Batch {
    /// How it ends if its file holds lines that are no requests.
    pub(super) fn invalid(&self) -> Option<Finale> {
        let (_, message) = self.layer.as_ref()?.errors.first()?;
        let error = Some((3, message.clone()));
        let (at, state) = (self.ends, "BATCH_STATE_FAILED");
        Some(Finale { at, state, error, served: None, rest_cancelled: false })
    }

    /// As the layer shows it.
    fn as_openai(&self, has_output: bool, now: Moment) -> Value {
        let seconds = |at: Moment| Value::from(at.as_millis() / 1000);
        let (finale, output) = match &self.stage {
            Stage::Open | Stage::Writing(_) => (None, None),
            Stage::Ended { finale, output } => (Some(finale), *output),
        };
        let status = match finale {
            None if self.cancel_asked.is_some() => "cancelling",
            None if now < self.starts || now == self.created => "validating",
            None => "in_progress",
            Some(finale) if finale.rest_cancelled => "cancelled",
            Some(finale) => match finale.state {
                "BATCH_STATE_SUCCEEDED" => "completed",
                "BATCH_STATE_CANCELLED" => "cancelled",
                "BATCH_STATE_EXPIRED" => "expired",
                _ => "failed",
            },
        };
        let endpoint = match self.task {
            Task::Generate => "/v1/chat/completions",
            Task::Embed => "/v1/embeddings",
        };
        let mut shown = json!({
            "id": self.name(),
            "object": "batch",
            "endpoint": endpoint,
            "errors": finale.map_or(Value::Null, |finale| self.errors_of(finale)),
            "input_file_id": self.file,
            "completion_window": "24h",
            "status": status,
            "output_file_id": null,
            "error_file_id": null,
            "created_at": seconds(self.created),
            "expires_at": seconds(self.created.after(LIFETIME)),
            "request_counts": {
                "total": self.rows,
                "completed": output.map_or(0, |output| output.successful),
                "failed": output.map_or(0, |output| output.failed),
            },
            "metadata": self.layer.as_ref().map_or(Value::Null, |layer| layer.metadata.clone()),
        });
        if has_output && output.is_some() {
            shown["output_file_id"] = format!("files/{}", self.result_id()).into();
        }
        if let Some(finale) = finale {
            shown[format!("{status}_at")] = seconds(finale.at);
        }
        shown
    }

    fn errors_of(&self, finale: &Finale) -> Value {
        let Some((code, message)) = &finale.error else { return Value::Null };
        let lines = self.layer.iter().flat_map(|layer| &layer.errors);
        let mut data: Vec<Value> = lines
            .map(|(line, message)| {
                json!({"code": "invalid_json_line", "line": line, "message": message, "param": null})
            })
            .collect();
        if data.is_empty() {
            data.push(json!({"code": code, "line": null, "message": message, "param": null}));
        }
        json!({"object": "list", "data": data})
    }
}

fn no_batch(id: &str) -> Reply {
    let id: String = id.chars().take(60).collect();
    Reply::refused(404, format!("Batch {id} was not found."))
}
