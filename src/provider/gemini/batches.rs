//! The small calls: lists, states, cancels and removals of batches and files.
//!
//! Promises: every list is read to its last page, or the call fails; a poll asks by name when that
//! takes fewer requests than the list has pages, and reads the list, which carries no results,
//! when not; what is gone already needs no removal. Nothing is asked twice by itself.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::client::{CallError, Client, failure};
use super::layer_batch::is_of_layer;
use super::operation::Operation;
use super::transfer::Incoming;
use super::wire::{self, BatchPage, PAGE_SIZE};
use crate::engine::event::{Failure, Polled, RemoteBatch};
use crate::engine::ids::{BatchName, FileName, Millis, Stamp};

impl Client {
    /// All batches that bear the stamp, oldest first. Every page is read: a batch that is not in
    /// the answer was in no list.
    ///
    /// # Errors
    /// If any page can not be read whole.
    pub async fn find(&self, stamp: &Stamp) -> Result<Vec<RemoteBatch>, Failure> {
        let mut found = Vec::new();
        let mut unreadable = None;
        self.batch_pages(|entry| {
            match Operation::from_text(entry.get()).map(|op| (op.display_name.clone(), op)) {
                Ok((name, operation)) if name == stamp.0 => match self.batch(operation) {
                    Ok(batch) => found.push(batch),
                    Err(reason) => unreadable = Some(reason),
                },
                Ok(_) => {}
                // It may be the one we look for: "not there" would be a lie.
                Err(error) if mentions(entry, stamp) => {
                    unreadable = Some(self.told(&error.to_string()));
                }
                Err(_) => {}
            }
            ControlFlow::Continue(())
        })
        .await?;
        if let Some(reason) = unreadable {
            return Err(Failure::Transient(format!(
                "list batches: the entry with our stamp cannot be read: {reason}"
            )));
        }
        found.sort_by_key(|batch: &RemoteBatch| {
            (batch.created.unwrap_or(Millis(u64::MAX)), batch.name.clone())
        });
        Ok(found)
    }

    /// All batches of the key's project, as the API lists them. Entries that can not be read are
    /// left out.
    ///
    /// # Errors
    /// If any page can not be read whole.
    pub async fn list_batches(&self) -> Result<Vec<RemoteBatch>, Failure> {
        let mut all = Vec::new();
        self.batch_pages(|entry| {
            all.extend(self.readable(entry));
            ControlFlow::Continue(())
        })
        .await?;
        Ok(all)
    }

    /// The states of these batches. When they are fewer than the pages that the list of batches
    /// took the last time, each is asked for by name; otherwise the list is read (API contract,
    /// 6.2) until all were seen, and only what it does not show is asked for by name. Of what no
    /// list shows, at most [`ASKED_MAX`] are told of in one poll: the others have their turn in
    /// another. Batches of the OpenAI-compatible layer are always asked for by name.
    ///
    /// # Errors
    /// If one of them can not be told; then none is.
    pub async fn poll(&self, names: &[BatchName]) -> Result<Vec<(BatchName, Polled)>, Failure> {
        let mut seen = BTreeMap::new();
        // A set has another order each time, so that all of them are asked for in the end.
        let (of_layer, native): (HashSet<_>, HashSet<_>) =
            names.iter().partition(|name| is_of_layer(name));
        if !native.is_empty() {
            self.poll_native(native, &mut seen).await?;
        }
        for name in of_layer.into_iter().take(ASKED_MAX) {
            seen.insert(name.clone(), self.poll_in_layer(name).await?);
        }
        Ok(seen.into_iter().collect())
    }

    async fn poll_native(
        &self,
        mut missing: HashSet<&BatchName>,
        seen: &mut BTreeMap<BatchName, Polled>,
    ) -> Result<(), Failure> {
        let pages = self.inner.pages_polled.load(Ordering::Relaxed);
        if missing.len() < pages {
            // The list may have become shorter meanwhile: it is tried again after a while.
            self.inner.pages_polled.store(pages - 1, Ordering::Relaxed);
        } else {
            self.poll_by_list(&mut missing, seen).await?;
        }
        for name in missing.into_iter().take(ASKED_MAX) {
            seen.insert(name.clone(), self.get_state(name).await?);
        }
        Ok(())
    }

    /// Moves what the list shows from `missing` to `seen`.
    async fn poll_by_list(
        &self,
        missing: &mut HashSet<&BatchName>,
        seen: &mut BTreeMap<BatchName, Polled>,
    ) -> Result<(), Failure> {
        let pages = self.batch_pages(|entry| {
            if let Some(batch) = self.readable(entry)
                && missing.remove(&batch.name)
            {
                seen.insert(batch.name.clone(), Polled::Seen(batch));
            }
            if missing.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.inner.pages_polled.store(pages.await?, Ordering::Relaxed);
        Ok(())
    }

    async fn get_state(&self, name: &BatchName) -> Result<Polled, Failure> {
        let Some(operation) = self.get_operation(name).await? else { return Ok(Polled::Gone) };
        Ok(Polled::Seen(self.batch(operation).map_err(Failure::Transient)?))
    }

    /// One batch, without the results that its answer may carry; `None` if it is not there (any
    /// more) for this key.
    pub(super) async fn get_operation(
        &self,
        name: &BatchName,
    ) -> Result<Option<Operation>, Failure> {
        let action = "get batch";
        let response = match self.get_batch(name).await? {
            Ok(response) => response,
            Err(error) => match error.failure(action) {
                Failure::Gone(_) => return Ok(None),
                failure => return Err(failure),
            },
        };
        let settings = &self.inner.settings;
        let item_max = settings.item_bytes_max;
        let operation = Incoming::new(response, self.pace(), settings.results_bytes_max)
            .parse(move |pieces| Operation::read(pieces, item_max, None))
            .await
            .map_err(|error| failure(error, action))?
            .map_err(|error| {
                Failure::Transient(format!("{action}: {}", self.told(&error.to_string())))
            })?;
        if operation.name == name.0 {
            return Ok(Some(operation));
        }
        Err(Failure::Transient(format!("{action}: the answer is about another batch")))
    }

    /// Asks for one batch; the answer may carry all its results.
    pub(super) async fn get_batch(
        &self,
        name: &BatchName,
    ) -> Result<Result<Response, CallError>, Failure> {
        let name = wire::batch_name(&name.0).map_err(|e| Failure::Rejected(e.to_string()))?;
        let request = self.request(Method::GET, &format!("/{}", name.0));
        Ok(self.ask(request).await)
    }

    /// Asks the API to stop a batch. One that is over already, or not there, is no failure.
    ///
    /// # Errors
    /// If the API could not be asked.
    pub async fn cancel(&self, name: &BatchName) -> Result<(), Failure> {
        if is_of_layer(name) {
            return self.cancel_in_layer(name).await;
        }
        let name = wire::batch_name(&name.0).map_err(|e| Failure::Rejected(e.to_string()))?;
        let request = self
            .request(Method::POST, &format!("/{}:cancel", name.0))
            .header(CONTENT_TYPE, "application/json")
            .body("{}");
        match self.ask(request).await {
            Ok(_) => Ok(()),
            Err(CallError::Answer(answer))
                if (answer.http == 404 && answer.from_api)
                    || (answer.http == 400 && answer.status == "FAILED_PRECONDITION") =>
            {
                Ok(())
            }
            Err(error) => Err(error.failure("cancel batch")),
        }
    }

    /// Removes a batch and its results. One that is not there is no failure. The
    /// OpenAI-compatible layer has no call for it: nothing is asked, and its results go with time.
    ///
    /// # Errors
    /// If the API could not be asked or refused.
    pub async fn delete_batch(&self, name: &BatchName) -> Result<(), Failure> {
        if is_of_layer(name) {
            return Ok(());
        }
        let name = wire::batch_name(&name.0).map_err(|e| Failure::Rejected(e.to_string()))?;
        let request = self.request(Method::DELETE, &format!("/{}", name.0));
        match self.ask(request).await {
            Ok(_) => Ok(()),
            Err(CallError::Answer(answer)) if answer.http == 404 => Ok(()),
            Err(error) => Err(error.failure("delete batch")),
        }
    }

    /// Removes an uploaded file. One that is not there is no failure; the API answers 403 for
    /// it (API contract, 7.7).
    ///
    /// # Errors
    /// If the API could not be asked or refused.
    pub async fn delete_file(&self, name: &FileName) -> Result<(), Failure> {
        let name = wire::file_name(&name.0).map_err(|e| Failure::Rejected(e.to_string()))?;
        let request = self.request(Method::DELETE, &format!("/{}", name.0));
        match self.ask(request).await {
            Ok(_) => Ok(()),
            Err(CallError::Answer(answer)) if matches!(answer.http, 403 | 404) => Ok(()),
            Err(error) => Err(error.failure("delete file")),
        }
    }

    /// One uploaded file; `None` if it is not there (any more) for this key.
    pub(super) async fn get_file(&self, name: &FileName) -> Result<Option<wire::File>, Failure> {
        let name = wire::file_name(&name.0).map_err(|e| Failure::Rejected(e.to_string()))?;
        let request = self.request(Method::GET, &format!("/{}", name.0));
        match self.ask(request).await {
            Ok(response) => self.json(response, "get file").await.map(Some),
            Err(CallError::Answer(answer)) if matches!(answer.http, 403 | 404) => Ok(None),
            Err(error) => Err(error.failure("get file")),
        }
    }

    /// Whether the key is good, by the cheapest call there is.
    ///
    /// # Errors
    /// `Denied` if it is not; others if that can not be told.
    pub async fn check_key(&self) -> Result<(), Failure> {
        let request = self.request(Method::GET, "/batches").query(&[("pageSize", 1)]);
        self.ask(request).await.map(drop).map_err(|error| error.failure("check the key"))
    }

    fn readable(&self, entry: &RawValue) -> Option<RemoteBatch> {
        self.batch(Operation::from_text(entry.get()).ok()?).ok()
    }

    /// Reads the list of batches page by page until `each` breaks off; answers with the number
    /// of pages read.
    pub(super) async fn batch_pages(
        &self,
        mut each: impl FnMut(&RawValue) -> ControlFlow<()>,
    ) -> Result<usize, Failure> {
        let mut tokens = Tokens::default();
        let mut pages = 0;
        loop {
            pages += 1;
            let page: BatchPage = self.page("/batches", &tokens, "list batches").await?;
            for entry in page.operations.unwrap_or_default() {
                if each(&entry).is_break() {
                    return Ok(pages);
                }
            }
            if !tokens.next(page.next_page_token, "list batches")? {
                return Ok(pages);
            }
        }
    }

    pub(super) async fn page<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        tokens: &Tokens,
        action: &str,
    ) -> Result<T, Failure> {
        let mut request = self.request(Method::GET, path).query(&[("pageSize", PAGE_SIZE)]);
        if let Some(token) = &tokens.current {
            request = request.query(&[("pageToken", token)]);
        }
        let response = self.ask(request).await.map_err(|error| error.failure(action))?;
        self.json(response, action).await
    }
}

/// Where a list goes on, guarded against going round in circles.
#[derive(Default)]
pub(super) struct Tokens {
    current: Option<String>,
    seen: HashSet<String>,
}

impl Tokens {
    /// Where the page begins that is to be read; `None` for the first.
    pub(super) fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// Whether there is a next page.
    pub(super) fn next(&mut self, token: Option<String>, action: &str) -> Result<bool, Failure> {
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(false) };
        if self.seen.len() >= PAGES_MAX {
            let message = format!("{action}: more than {PAGES_MAX} pages");
            return Err(Failure::Transient(message));
        }
        if !self.seen.insert(token.clone()) {
            return Err(Failure::Transient(format!("{action}: the pages go round in circles")));
        }
        self.current = Some(token);
        Ok(true)
    }
}

fn mentions(entry: &RawValue, stamp: &Stamp) -> bool {
    entry.get().contains(&stamp.0) || entry.get().contains(&stamp.0.replace('/', "\\/"))
}

/// Batches that one poll asks for by name because no list shows them.
const ASKED_MAX: usize = 100;

/// Pages of a list that are followed: 100,000 entries.
const PAGES_MAX: usize = 1000;
