//! Fetches the results of a batch that has ended, and hands them on while they arrive.
//!
//! Results come inline, inside the operation, or as a file (API contract, 5.1); either is taken
//! for either input. Promises: one copy of inline results; bytes as they came; a file is gone on
//! with where an earlier try stopped, if the server allows it (7.9); results that end inside a line
//! are no success. It never holds more than one result in memory, and never trusts a length.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE,
};
use reqwest::{Method, Response, StatusCode};

use super::client::{CallError, Client, failure};
use super::layer_batch::is_of_layer;
use super::lines::{LineLimit, WholeText};
use super::operation::{Operation, ReadError};
use super::transfer::{Incoming, Pieces};
use super::wire::plain;
use crate::engine::event::{Failure, RemoteBatch};
use crate::engine::ids::{BatchName, FileName};
use crate::engine::job::RemoteState;

/// Takes results while they arrive, one a line. Every call is made where it may block.
pub trait Results: Send + 'static {
    /// How many bytes of a result file an earlier try left.
    ///
    /// # Errors
    /// If that can not be told; nothing is fetched then.
    fn resume(&mut self) -> Result<u64, Failure>;

    /// Forgets whatever was taken, now or by an earlier try.
    ///
    /// # Errors
    /// If that fails; nothing is fetched then.
    fn restart(&mut self) -> Result<(), Failure>;

    /// Takes the next bytes, wherever they may be cut.
    ///
    /// # Errors
    /// If they can not be taken; the rest is not fetched then.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure>;

    /// Whether the results may end here.
    fn is_whole(&mut self) -> bool;

    /// Nothing more comes for now: another try will resume what was taken of a file.
    ///
    /// # Errors
    /// If it can not be kept.
    fn pause(&mut self) -> Result<(), Failure>;
}

/// Results that a connection and its caller hold together.
pub(super) type Shared<R> = Arc<Mutex<R>>;

/// What was fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched {
    /// The batch as the operation described it.
    pub remote: RemoteBatch,
    /// How many requests the API says it had.
    pub request_count: Option<u64>,
}

impl Client {
    /// Fetches the results of `batch` into `results`. After a success they are whole.
    ///
    /// # Errors
    /// `NotReady` if the batch has not ended, or has succeeded and shows no results yet; `Gone`
    /// if the batch or its results do not exist (any more). After `Transient` another call goes
    /// on where this one stopped, if the server allows it.
    pub async fn fetch<R: Results>(
        &self,
        batch: &BatchName,
        results: &Shared<R>,
    ) -> Result<Fetched, Failure> {
        if is_of_layer(batch) {
            return self.fetch_from_layer(batch, results).await;
        }
        let operation = match self.fetch_operation(batch, results).await {
            Ok(operation) => operation,
            Err((failure, false)) => return Err(failure),
            Err((failure, true)) => {
                // Inline results come anew each time.
                on(results, R::restart).await?;
                return Err(failure);
            }
        };
        let (items, request_count) = (operation.items, operation.request_count);
        let remote = match self.checked(operation, batch) {
            Ok(remote) => remote,
            Err(failure) if items > 0 => {
                on(results, R::restart).await?;
                return Err(failure);
            }
            Err(failure) => return Err(failure),
        };
        match &remote.output_file {
            // Inline results were handed on already.
            _ if items > 0 => {}
            Some(file) => self.download(file, results).await?,
            None if remote.state == RemoteState::Succeeded => {
                let message = format!("{} has succeeded but shows no results yet", batch.0);
                return Err(Failure::NotReady(message));
            }
            None => on(results, R::restart).await?,
        }
        Ok(Fetched { remote, request_count })
    }

    /// Reads the operation while it arrives; inline results go into `results`. An error tells
    /// whether some of them did.
    async fn fetch_operation<R: Results>(
        &self,
        batch: &BatchName,
        results: &Shared<R>,
    ) -> Result<Operation, (Failure, bool)> {
        let action = "get batch";
        let untouched = |failure| (failure, false);
        let response = self.get_batch(batch).await.map_err(untouched)?;
        let response = response.map_err(|error| untouched(error.failure(action)))?;
        refuse_compressed(&response, action).map_err(untouched)?;
        let max = self.inner.settings.results_bytes_max.saturating_mul(2);
        let item_max = self.inner.settings.item_bytes_max;
        let (results, client) = (Arc::clone(results), self.clone());
        let touched = Arc::new(AtomicBool::new(false));
        let touches = Arc::clone(&touched);
        let parsed = Incoming::new(response, self.pace(), max)
            .parse(move |pieces| split(pieces, item_max, &results, &touches, &client))
            .await;
        let operation = parsed.map_err(|error| failure(error, action)).and_then(|split| split);
        operation.map_err(|failure| (failure, touched.load(Ordering::Acquire)))
    }

    /// Downloads a result file, from where an earlier try stopped if there was one.
    pub(super) async fn download<R: Results>(
        &self,
        name: &FileName,
        results: &Shared<R>,
    ) -> Result<(), Failure> {
        let action = "download results";
        let kept = on(results, R::resume).await?;
        let (response, offset) = match self.ask_results(name, kept).await? {
            Answer::From(response, offset) => (response, offset),
            Answer::Complete => {
                let whole = on(results, |results| Ok(results.is_whole())).await?;
                if whole {
                    return Ok(());
                }
                // What is torn can not be mended by going on.
                on(results, R::restart).await?;
                return Err(torn());
            }
            Answer::Mismatch => {
                on(results, R::restart).await?;
                let message = format!("{action}: what was kept does not fit; starting over");
                return Err(Failure::Transient(message));
            }
        };
        refuse_compressed(&response, action)?;
        refuse_page(&response, action)?;
        if offset < kept {
            on(results, R::restart).await?;
        }
        let expected = response.content_length();
        let max = self.inner.settings.results_bytes_max.saturating_sub(offset);
        let line_max = self.inner.settings.item_bytes_max;
        let into = Arc::clone(results);
        let received = Incoming::new(response, self.pace(), max)
            .parse(move |pieces| take_all(pieces, &mut *lock(&into), line_max))
            .await;
        let failed = match received {
            // What could not be taken is not kept either.
            Ok(Err(NotTaken::Refused(failure))) => return Err(failure),
            Ok(Err(NotTaken::Broken)) => {
                return Err(Failure::Transient(format!("{action}: the connection broke off")));
            }
            Err(error) => return Err(failure(error, action)),
            Ok(Ok(received)) if expected.is_some_and(|expected| expected != received) => {
                let message = format!("{action}: {received} bytes came instead of {expected:?}");
                Failure::Transient(message)
            }
            Ok(Ok(_)) if !on(results, |results| Ok(results.is_whole())).await? => torn(),
            Ok(Ok(_)) => return Ok(()),
        };
        on(results, R::pause).await?;
        Err(failed)
    }

    /// The batch that an operation describes, if it is the one asked for and has ended.
    fn checked(&self, operation: Operation, batch: &BatchName) -> Result<RemoteBatch, Failure> {
        let remote = self.batch(operation).map_err(Failure::Transient)?;
        if remote.name != *batch {
            return Err(Failure::Transient("get batch: the answer is about another".to_owned()));
        }
        if !remote.is_finished() {
            return Err(Failure::NotReady(format!("{} has not ended yet", batch.0)));
        }
        Ok(remote)
    }

    /// Asks for a result file from `kept` bytes on.
    async fn ask_results(&self, name: &FileName, kept: u64) -> Result<Answer, Failure> {
        let action = "download results";
        let version = &self.inner.settings.version;
        let path = format!("/download/{version}/{}:download", name.0);
        let mut request = self.fresh_request(Method::GET, &path).query(&[("alt", "media")]);
        if kept > 0 {
            request = request.header(RANGE, format!("bytes={kept}-"));
        }
        let response = match self.ask(request).await {
            Ok(response) => response,
            // A page of a proxy says nothing of the file: to believe it would lose paid results.
            Err(CallError::Answer(answer))
                if answer.from_api && matches!(answer.http, 403 | 404 | 410) =>
            {
                return Err(Failure::Gone(answer.describe(action)));
            }
            // 416: there is nothing after what we have. Whether that is the end, the last line
            // tells.
            Err(CallError::Answer(answer)) if answer.http == 416 && kept > 0 => {
                return Ok(Answer::Complete);
            }
            Err(error) => return Err(error.failure(action)),
        };
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok(Answer::From(response, 0));
        }
        match range_start(&response) {
            Some(start) if start == kept && kept > 0 => Ok(Answer::From(response, kept)),
            Some(_) | None => Ok(Answer::Mismatch),
        }
    }
}

/// What the server offers of a result file.
enum Answer {
    /// Its bytes from this offset on.
    From(Response, u64),
    /// Nothing more than what is on disk.
    Complete,
    /// Something that does not continue what is on disk.
    Mismatch,
}

/// Why what came was not taken.
enum NotTaken {
    /// The connection broke; what came before is kept.
    Broken,
    /// For this reason.
    Refused(Failure),
}

/// Hands on a result file and tells how many bytes came.
fn take_all(
    pieces: &mut Pieces,
    results: &mut impl Results,
    line_max: u64,
) -> Result<u64, NotTaken> {
    let mut limit = LineLimit::new(line_max);
    let mut received = 0;
    loop {
        let piece = match pieces.next_piece() {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(received),
            // Here and now, since at the end of the program nobody comes back to this.
            Err(_) => {
                return Err(results.pause().map_or_else(NotTaken::Refused, |()| NotTaken::Broken));
            }
        };
        if !limit.keeps(&piece) {
            let message = format!("download results: a line is longer than {line_max} bytes");
            return Err(NotTaken::Refused(Failure::Rejected(message)));
        }
        results.take(&piece).map_err(NotTaken::Refused)?;
        received += piece.len() as u64;
    }
}

/// Reads an operation; every inline result becomes a line of `results`, which are not touched if
/// there is none.
fn split<R: Results>(
    pieces: &mut Pieces,
    item_max: u64,
    results: &Shared<R>,
    touches: &AtomicBool,
    client: &Client,
) -> Result<Operation, Failure> {
    let mut refused = None;
    let mut flat = Vec::new();
    let mut sink = |item: &str| -> io::Result<()> {
        let mut results = lock(results);
        let begun = match touches.swap(true, Ordering::AcqRel) {
            true => Ok(()),
            false => results.restart(),
        };
        // Line breaks can only stand between tokens: inside a string they are escaped.
        flat.clear();
        flat.extend(item.bytes().map(|byte| match byte {
            b'\n' | b'\r' => b' ',
            other => other,
        }));
        flat.push(b'\n');
        begun.and_then(|()| results.take(&flat)).map_err(|failure| {
            refused = Some(failure);
            io::Error::other("a result was not taken")
        })
    };
    let operation = Operation::read(WholeText::new(pieces), item_max, Some(&mut sink));
    operation.map_err(|error| match error {
        ReadError::Sink(error) => {
            refused.unwrap_or_else(|| Failure::Local(format!("get batch: {error}")))
        }
        ReadError::Content(error) if error.is_io() => {
            Failure::Rejected(format!("get batch: {}", client.told(&error.to_string())))
        }
        ReadError::Content(error) => Failure::Transient(format!(
            "get batch: the answer cannot be read: {}",
            client.told(&error.to_string())
        )),
    })
}

fn torn() -> Failure {
    Failure::Transient("download results: they end inside a line".to_owned())
}

/// `bytes 7-99/100` begins at 7.
fn range_start(response: &Response) -> Option<u64> {
    let range = text(response, CONTENT_RANGE)?;
    range.trim().strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

fn text(response: &Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Nothing is decoded here, so something compressed would be taken for results.
fn refuse_compressed(response: &Response, action: &str) -> Result<(), Failure> {
    match text(response, CONTENT_ENCODING) {
        None | Some("identity" | "") => Ok(()),
        Some(encoding) => Err(Failure::Barred(format!(
            "{action}: the answer is compressed ({}) although {ACCEPT_ENCODING} forbids it; check \
             the proxy",
            plain(encoding, 20)
        ))),
    }
}

/// A page of a proxy or a portal would be taken for damaged results, and those for missing ones.
fn refuse_page(response: &Response, action: &str) -> Result<(), Failure> {
    match text(response, CONTENT_TYPE).map(str::trim_ascii_start) {
        Some(kind) if kind.get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case("text/html")) => {
            Err(Failure::Barred(format!(
                "{action}: a web page came instead of results; check api.base_url and the proxy"
            )))
        }
        Some(_) | None => Ok(()),
    }
}

/// Does something with results that may take a while, on a thread made for that.
pub(super) async fn on<R: Results, T: Send + 'static>(
    results: &Shared<R>,
    act: impl FnOnce(&mut R) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let results = Arc::clone(results);
    match tokio::task::spawn_blocking(move || act(&mut lock(&results))).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Failure::Local(format!("work on results failed: {error}"))),
    }
}

pub(super) fn lock<R>(results: &Mutex<R>) -> MutexGuard<'_, R> {
    results.lock().unwrap_or_else(PoisonError::into_inner)
}
