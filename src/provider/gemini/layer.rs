//! The API's OpenAI-compatible layer (API contract, section 11): batches of chats and embeddings in
//! OpenAI's format. Their files go up and down through the API's own calls.
//!
//! Promises: a create is sent once, and its outcome sorted as any other create's; a batch is known
//! by the file it was made from, as it bears no name of ours; a list that does not exist, or does
//! not say which file a batch was made from, is told apart from one in which the batch is not.
//! Whether that list exists is not documented, and neither is any call that removes a batch: none
//! is made.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response};

use super::batches::Tokens;
use super::classify::Verdict;
use super::client::{CallError, Client, ERROR_BYTES_MAX};
use super::create::{CreateFailure, Created, RefusedKind, sort};
use super::download::{Fetched, Results, Shared, lock, on};
use super::layer_batch::{BATCHES, LayerBatch, LayerPage};
use super::transfer::{Incoming, send_stream};
use super::wire::{PAGE_SIZE, file_name};
use crate::engine::event::{Failure, Polled, RemoteBatch};
use crate::engine::ids::{BatchName, FileName, Millis};
use crate::engine::job::{RemoteError, RemoteState, Task};

/// What looking for the batches of a file brought.
#[derive(Debug, Clone, PartialEq)]
pub enum Listed {
    /// All pages were read; these were made from the file, oldest first.
    All(Vec<RemoteBatch>),
    /// There is no list in which one could be found; in words.
    Nowhere(String),
}

impl Client {
    /// Creates a batch of the lines in a file. Never sends anything twice.
    ///
    /// # Errors
    /// See [`CreateFailure`].
    pub async fn create_in_layer(
        &self,
        task: Task,
        file: &FileName,
    ) -> Result<Created, CreateFailure> {
        let file = file_name(&file.0).map_err(|error| {
            let error = RemoteError { code: 3, message: error.to_string() };
            CreateFailure::Refused { error, kind: RefusedKind::File }
        })?;
        let endpoint = match task {
            Task::Generate => "/v1/chat/completions",
            Task::Embed => "/v1/embeddings",
        };
        let body = serde_json::json!({
            "input_file_id": file.0, "endpoint": endpoint, "completion_window": "24h",
        });
        let body = Bytes::from(body.to_string());
        let len = body.len() as u64;
        let request = self
            .layer_request(Method::POST, BATCHES, true)
            .header(CONTENT_TYPE, "application/json");
        let body = stream::iter([Ok(body)]).boxed();
        let response = send_stream(request, body, len, self.pace()).await.map_err(sort)?;
        self.note_clock(&response);
        if response.status().is_success() {
            return self.read_made(response).await;
        }
        let answer = self.read_error(response).await;
        Err(match answer.refusal(Some(&file.0)) {
            // No model was named: it is the call itself that is not there.
            Verdict::Refused(error, RefusedKind::Model) => {
                CreateFailure::Failure(Failure::Rejected(format!(
                    "{}; if the API has no OpenAI-compatible layer for this key, set openai = \
                     \"translate\" for the queue and drop the file again",
                    error.message
                )))
            }
            Verdict::Refused(error, kind) => CreateFailure::Refused { error, kind },
            Verdict::Failure(failure) => CreateFailure::Failure(failure),
        })
    }

    /// Reads the batch out of a success. What can not be read may well exist.
    async fn read_made(&self, response: Response) -> Result<Created, CreateFailure> {
        let unknown = |reason: &str| {
            CreateFailure::Failure(Failure::Ambiguous(format!(
                "create batch: accepted, but the answer cannot be read: {}",
                self.told(reason)
            )))
        };
        let (body, cut) = Incoming::new(response, self.pace(), ERROR_BYTES_MAX).start().await;
        if cut {
            return Err(unknown("it broke off or is too long"));
        }
        let batch: LayerBatch =
            serde_json::from_slice(&body).map_err(|error| unknown(&error.to_string()))?;
        let created = batch.created();
        let batch = batch.name().map_err(|error| unknown(&error.to_string()))?;
        Ok(Created { batch, created })
    }

    /// All batches made from a file. Every page is read: a batch that is not in the answer was in
    /// no list.
    ///
    /// # Errors
    /// If any page can not be read whole.
    pub async fn find_in_layer(&self, file: &FileName) -> Result<Listed, Failure> {
        let mut found: Vec<RemoteBatch> = Vec::new();
        let nowhere = self.layer_pages(|entry| {
            let Some(input) = entry.input_file() else {
                let message = format!("{LIST}: an entry does not say what it was made from");
                return Ok(ControlFlow::Break(message));
            };
            if input == *file {
                found.push(self.layer_batch(entry).map_err(Failure::Transient)?);
            }
            Ok(ControlFlow::Continue(()))
        });
        if let Some(why) = nowhere.await? {
            return Ok(Listed::Nowhere(why));
        }
        found.sort_by_key(|batch| (batch.created.unwrap_or(Millis(u64::MAX)), batch.name.clone()));
        Ok(Listed::All(found))
    }

    /// Hands on all batches of the layer until `each` breaks off with a reason. Answers with that,
    /// or with the reason why there is no list; `None` when all pages were read.
    pub(super) async fn layer_pages(
        &self,
        mut each: impl FnMut(LayerBatch) -> Result<ControlFlow<String>, Failure>,
    ) -> Result<Option<String>, Failure> {
        let mut after = Tokens::default();
        loop {
            let mut request = self.layer_request(Method::GET, BATCHES, false);
            request = request.query(&[("limit", PAGE_SIZE)]);
            if let Some(last) = after.current() {
                request = request.query(&[("after", last)]);
            }
            let page: LayerPage = match self.ask(request).await {
                Ok(response) => self.json(response, LIST).await?,
                Err(CallError::Answer(answer)) if matches!(answer.http, 404 | 405 | 501) => {
                    return Ok(Some(answer.describe(LIST)));
                }
                Err(error) => return Err(error.failure(LIST)),
            };
            let last = page.last();
            for entry in page.data {
                if let ControlFlow::Break(why) = each(entry)? {
                    return Ok(Some(why));
                }
            }
            let next = if page.has_more { last } else { None };
            if page.has_more && next.is_none() {
                let message = format!("{LIST}: there is more, but nothing says where");
                return Err(Failure::Transient(message));
            }
            if !after.next(next, LIST)? {
                return Ok(None);
            }
        }
    }

    /// The state of one batch.
    pub(super) async fn poll_in_layer(&self, name: &BatchName) -> Result<Polled, Failure> {
        match self.get_in_layer(name).await {
            Ok(batch) => Ok(Polled::Seen(self.layer_batch(batch).map_err(Failure::Transient)?)),
            Err(Failure::Gone(_)) => Ok(Polled::Gone),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn get_in_layer(&self, name: &BatchName) -> Result<LayerBatch, Failure> {
        let action = "get OpenAI batch";
        let request = self.layer_request(Method::GET, &name.0, false);
        let response = self.ask(request).await.map_err(|error| error.failure(action))?;
        let batch: LayerBatch = self.json(response, action).await?;
        match batch.name() {
            Ok(told) if told == *name => Ok(batch),
            Ok(_) => Err(Failure::Transient(format!("{action}: the answer is about another"))),
            Err(error) => Err(Failure::Transient(format!("{action}: {error}"))),
        }
    }

    /// Asks for a batch to be stopped. One that is over already, or not there, is no failure.
    pub(super) async fn cancel_in_layer(&self, name: &BatchName) -> Result<(), Failure> {
        let request = self
            .layer_request(Method::POST, &format!("{}/cancel", name.0), false)
            .header(CONTENT_TYPE, "application/json")
            .body("{}");
        let action = "cancel OpenAI batch";
        match self.ask(request).await {
            Ok(_) => Ok(()),
            Err(CallError::Answer(answer)) if answer.from_api => match answer.failure(action) {
                Failure::Gone(_) | Failure::Rejected(_) => Ok(()),
                _ if answer.http == 409 || answer.status == "FAILED_PRECONDITION" => Ok(()),
                failure => Err(failure),
            },
            Err(error) => Err(error.failure(action)),
        }
    }

    /// As [`Client::fetch`]. Failed lines may lie in a file of their own; where there are two, a
    /// download that breaks begins anew with the first.
    pub(super) async fn fetch_from_layer<R: Results>(
        &self,
        name: &BatchName,
        results: &Shared<R>,
    ) -> Result<Fetched, Failure> {
        let batch = self.get_in_layer(name).await?;
        let request_count = batch.request_count();
        let files = batch.result_files().map_err(|error| {
            Failure::Transient(format!("get OpenAI batch: {}", self.told(&error.to_string())))
        })?;
        let remote = self.layer_batch(batch).map_err(Failure::Transient)?;
        if !remote.is_finished() {
            return Err(Failure::NotReady(format!("{} has not ended yet", name.0)));
        }
        match &files[..] {
            [] if remote.state == RemoteState::Succeeded => {
                let message = format!("{} is complete but shows no results yet", name.0);
                return Err(Failure::NotReady(message));
            }
            [] => on(results, R::restart).await?,
            [file] => self.download(file, results).await?,
            several => {
                on(results, R::restart).await?;
                if let Err(failure) = self.download_all(several, results).await {
                    on(results, R::restart).await?;
                    return Err(failure);
                }
            }
        }
        Ok(Fetched { remote, request_count })
    }

    async fn download_all<R: Results>(
        &self,
        files: &[FileName],
        results: &Shared<R>,
    ) -> Result<(), Failure> {
        for file in files {
            let part = Arc::new(Mutex::new(Part(Arc::clone(results))));
            self.download(file, &part).await?;
            // The last line of a file may lack its end.
            on(results, |results| results.take(b"\n")).await?;
        }
        Ok(())
    }

    pub(super) fn layer_batch(&self, batch: LayerBatch) -> Result<RemoteBatch, String> {
        let key = &self.inner.settings.key;
        let mut batch = batch.into_batch().map_err(|error| self.told(&error.to_string()))?;
        batch.state = match batch.state {
            RemoteState::Unknown(word) => RemoteState::Unknown(key.scrub(word)),
            known => known,
        };
        if let Some(error) = &mut batch.error {
            error.message = key.scrub(std::mem::take(&mut error.message));
        }
        Ok(batch)
    }
}

/// One of several files with results: taken on its own, it can not be gone on with.
struct Part<R>(Shared<R>);

impl<R: Results> Results for Part<R> {
    fn resume(&mut self) -> Result<u64, Failure> {
        Ok(0)
    }

    fn restart(&mut self) -> Result<(), Failure> {
        lock(&self.0).restart()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        lock(&self.0).take(bytes)
    }

    fn is_whole(&mut self) -> bool {
        lock(&self.0).is_whole()
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.restart()
    }
}

/// How the list is called in messages.
const LIST: &str = "list OpenAI batches";
