//! The paid call, native or through the OpenAI-compatible layer, and what came of it.

use std::sync::Arc;

use crate::engine::effect::Which;
use crate::engine::event::{Failure, Objection, Outcome};
use crate::engine::ids::Row;
use crate::engine::job::{Input, Task};
use crate::provider::gemini::{CreateFailure, CreateInput, Created, RefusedKind};
use crate::spool::answers;
use crate::spool::body::Body;
use crate::spool::frame::Frame;

use super::media::Named;
use super::perform::Performer;

impl Performer {
    /// Creates a batch of native requests.
    pub(super) async fn create(
        &self,
        request: Request<'_>,
        input: Input,
        key: Option<&str>,
    ) -> Result<Outcome, Failure> {
        let Request { which, model, task, priority } = request;
        let client = self.clients.with(key)?;
        let (body, rows) = match input {
            Input::Inline => {
                // Nothing was sent yet: a disk that fails now leaves no doubt about the batch.
                let addresses = match self.media_inline(&which, key).await? {
                    Named::Nothing => None,
                    Named::Refused(outcome) => return Ok(outcome),
                    Named::Ready(ready) => Some(ready.addresses),
                };
                let (body, items) = self.inline_body(&which, addresses).await?;
                (Some(body), CreateInput::Inline(items))
            }
            Input::File(file) => {
                if let Some(refused) = self.outlived(&which, &file).await? {
                    return Ok(refused);
                }
                (None, CreateInput::File(file))
            }
        };
        let created = client.create(model, task, &which.stamp(), priority, rows).await;
        self.created(which, body, created).await
    }

    /// Creates a batch of OpenAI lines.
    pub(super) async fn create_in_layer(
        &self,
        which: Which,
        input: Input,
        task: Task,
        key: Option<&str>,
    ) -> Result<Outcome, Failure> {
        let Input::File(file) = input else {
            let message = "the OpenAI-compatible layer takes files only".to_owned();
            return Err(Failure::Rejected(message));
        };
        let created = self.clients.with(key)?.create_in_layer(task, &file).await;
        self.created(which, None, created).await
    }

    /// What came of a create; `body` is what was sent inline.
    async fn created(
        &self,
        which: Which,
        body: Option<Arc<Body>>,
        created: Result<Created, CreateFailure>,
    ) -> Result<Outcome, Failure> {
        let (error, kind) = match created {
            Ok(created) => {
                return Ok(Outcome::Created { batch: created.batch, created: created.created });
            }
            Err(CreateFailure::Failure(failure)) => return Err(failure),
            Err(CreateFailure::Refused { error, kind }) => (error, kind),
        };
        let to = match kind {
            RefusedKind::Model => Objection::Model,
            RefusedKind::File => Objection::File,
            RefusedKind::Whole => {
                let rest = self
                    .on_disk(move |folders| answers::rest(&folders.job(which.job), which.rows))
                    .await?;
                Objection::Whole { rest }
            }
            RefusedKind::Lines(lines) => {
                let body = match body {
                    Some(body) => body,
                    None => self.body(&which, Frame::FileLine).await?,
                };
                self.reject(which, body, lines, error.code).await?
            }
        };
        Ok(Outcome::Refused { error, to })
    }

    /// Fails the rows that a refusal named by their position among those sent.
    async fn reject(
        &self,
        which: Which,
        body: Arc<Body>,
        lines: Vec<(u64, String)>,
        code: i32,
    ) -> Result<Objection, Failure> {
        self.on_disk(move |folders| {
            let folder = folders.job(which.job);
            let mut named: Vec<(Row, String)> = Vec::new();
            for (position, message) in lines {
                named.extend(body.row_at(position)?.map(|row| (row, message)));
            }
            if named.is_empty() {
                let rest = answers::rest(&folder, which.rows)?;
                return Ok(Objection::Whole { rest });
            }
            let rest = answers::reject(&folder, &which, &named, code)?;
            Ok(Objection::Lines { named: named.len() as u64, rest })
        })
        .await
    }
}

/// What a create is for.
pub(super) struct Request<'a> {
    pub which: Which,
    pub model: &'a str,
    pub task: Task,
    pub priority: i64,
}
