//! What people look at: lists while they are read, one batch or file with its details, a model.
//!
//! Promises: a list is handed on page by page, and to its last page, or the call fails; texts of
//! the server are fit for one line of text before they are handed on. Nothing is decided by what
//! only people look at, such as counts, which the API lets grow stale (API contract, 4.4).

use std::ops::ControlFlow;

use reqwest::Method;
use serde::Deserialize;

use super::batches::Tokens;
use super::client::Client;
use super::layer_batch::{LayerBatch, is_of_layer};
use super::operation::Operation;
use super::wire::{self, FilePage};
use crate::engine::event::{Failure, RemoteBatch};
use crate::engine::ids::{Attempt, BatchName, ChunkNo, FileName, JobId, Millis, Stamp};

/// A batch with what only people want to know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// The batch.
    pub remote: RemoteBatch,
    /// Its model without `models/`; empty where nothing says which.
    pub model: String,
    /// Its requests, as far as they are counted.
    pub counts: Counts,
}

impl Described {
    /// Whose attempt it is: it bears our stamp, or was made from a file with a name of ours, as
    /// batches of the OpenAI-compatible layer, which bear no stamp.
    pub fn ours(&self) -> Option<(JobId, ChunkNo, Attempt)> {
        let by_file = || self.remote.input_file.as_ref().and_then(Stamp::parse_file);
        Stamp::parse(&self.remote.display_name).or_else(by_file)
    }
}

/// Requests of a batch, counted by the API; they may be stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All of them.
    pub total: Option<u64>,
    /// Answered so far.
    pub answered: Option<u64>,
    /// Failed so far.
    pub failed: Option<u64>,
}

/// A file at the API, for people and for sweeping orphans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its name.
    pub name: FileName,
    /// The name it was given for people; our stamp, if it is ours.
    pub display_name: String,
    /// When it was uploaded, by the API's clock.
    pub created: Option<Millis>,
    /// When the API forgets it.
    pub expires: Option<Millis>,
    /// Its size in bytes.
    pub bytes: u64,
    /// `ACTIVE`, `PROCESSING` or `FAILED`; empty where nothing is said.
    pub state: String,
}

impl RemoteFile {
    /// `None` for one without a usable name.
    fn of(file: wire::File) -> Option<RemoteFile> {
        let moment = |text: &Option<String>| text.as_deref().and_then(wire::millis);
        Some(RemoteFile {
            created: moment(&file.create_time),
            expires: moment(&file.expiration_time),
            bytes: file.bytes(),
            state: wire::plain(file.state.as_deref().unwrap_or_default(), 40),
            name: wire::file_name(&file.name.unwrap_or_default()).ok()?,
            display_name: wire::plain(&file.display_name.unwrap_or_default(), 512),
        })
    }
}

/// What `models.get` says of a model.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Model {
    supported_generation_methods: Vec<String>,
}

impl Client {
    /// Hands on all batches of the key's project, newest first, until `each` breaks off. Answers
    /// with the number of entries that could not be read.
    ///
    /// # Errors
    /// If any page can not be read whole.
    pub async fn each_batch(
        &self,
        mut each: impl FnMut(Described) -> ControlFlow<()>,
    ) -> Result<usize, Failure> {
        let mut unreadable = 0;
        self.batch_pages(|entry| {
            let operation = Operation::from_text(entry.get()).ok();
            match operation.and_then(|operation| self.described(operation).ok()) {
                Some(batch) => each(batch),
                None => {
                    unreadable += 1;
                    ControlFlow::Continue(())
                }
            }
        })
        .await?;
        Ok(unreadable)
    }

    /// The same for batches of the OpenAI-compatible layer; in words, why there is no list.
    ///
    /// # Errors
    /// If any page can not be read whole.
    pub async fn each_layer_batch(
        &self,
        mut each: impl FnMut(Described) -> ControlFlow<()>,
    ) -> Result<Result<usize, String>, Failure> {
        let (mut unreadable, mut ended) = (0, false);
        let nowhere = self.layer_pages(|entry| {
            let go_on = match self.described_of_layer(entry) {
                Ok(batch) => each(batch),
                Err(_) => {
                    unreadable += 1;
                    ControlFlow::Continue(())
                }
            };
            ended = go_on.is_break();
            Ok(if ended { ControlFlow::Break(String::new()) } else { ControlFlow::Continue(()) })
        });
        let nowhere = nowhere.await?;
        Ok(nowhere.filter(|_| !ended).map_or(Ok(unreadable), Err))
    }

    /// One batch; `None` if it is not there (any more) for this key. Results that come with it are
    /// passed over.
    ///
    /// # Errors
    /// If that can not be told.
    pub async fn describe(&self, name: &BatchName) -> Result<Option<Described>, Failure> {
        let described = if is_of_layer(name) {
            match self.get_in_layer(name).await {
                Ok(batch) => self.described_of_layer(batch),
                Err(Failure::Gone(_)) => return Ok(None),
                Err(failure) => return Err(failure),
            }
        } else {
            match self.get_operation(name).await? {
                Some(operation) => self.described(operation),
                None => return Ok(None),
            }
        };
        described.map(Some).map_err(Failure::Transient)
    }

    fn described(&self, operation: Operation) -> Result<Described, String> {
        let counts = Counts {
            total: operation.request_count,
            answered: operation.successful_count,
            failed: operation.failed_count,
        };
        let model = self.told(&operation.model);
        let model = model.strip_prefix("models/").unwrap_or(&model).to_owned();
        Ok(Described { remote: self.batch(operation)?, model, counts })
    }

    fn described_of_layer(&self, batch: LayerBatch) -> Result<Described, String> {
        let (total, answered, failed) = batch.counts();
        let counts = Counts { total, answered, failed };
        Ok(Described { remote: self.layer_batch(batch)?, model: String::new(), counts })
    }

    /// Hands on all uploaded files of the key's project until `each` breaks off. Files without a
    /// usable name, which nobody could ask for, are left out.
    ///
    /// # Errors
    /// If any page can not be read whole.
    pub async fn each_file(
        &self,
        mut each: impl FnMut(RemoteFile) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let mut tokens = Tokens::default();
        loop {
            let page: FilePage = self.page("/files", &tokens, "list files").await?;
            for file in page.files.unwrap_or_default().into_iter().filter_map(RemoteFile::of) {
                if each(file).is_break() {
                    return Ok(());
                }
            }
            if !tokens.next(page.next_page_token, "list files")? {
                return Ok(());
            }
        }
    }

    /// All uploaded files of the key's project.
    ///
    /// # Errors
    /// If any page can not be read whole.
    pub async fn list_files(&self) -> Result<Vec<RemoteFile>, Failure> {
        let mut all = Vec::new();
        self.each_file(|file| {
            all.push(file);
            ControlFlow::Continue(())
        })
        .await?;
        Ok(all)
    }

    /// One uploaded file; `None` if it is not there (any more) for this key.
    ///
    /// # Errors
    /// If that can not be told.
    pub async fn describe_file(&self, name: &FileName) -> Result<Option<RemoteFile>, Failure> {
        Ok(self.get_file(name).await?.and_then(RemoteFile::of))
    }

    /// What a model can do, such as `batchGenerateContent`, as `models.get` lists it; `None` if
    /// there is no such model for this key.
    ///
    /// # Errors
    /// If that can not be told, or the name can be that of no model.
    pub async fn model_methods(&self, model: &str) -> Result<Option<Vec<String>>, Failure> {
        let action = "get model";
        let Some(path) = wire::model_path(model) else {
            let model = wire::plain(model, 80);
            return Err(Failure::Rejected(format!("{action}: {model:?} is no model's name")));
        };
        let response = match self.ask(self.request(Method::GET, &format!("/{path}"))).await {
            Ok(response) => response,
            Err(error) => match error.failure(action) {
                Failure::Gone(_) => return Ok(None),
                failure => return Err(failure),
            },
        };
        let model: Model = self.json(response, action).await?;
        let methods = model.supported_generation_methods;
        Ok(Some(methods.iter().map(|method| wire::plain(method, 80)).collect()))
    }
}
