//! Fetches the results of a batch that has ended, as lines in a file.
//!
//! Results come inline, inside the operation, or as a file (API contract, 5.1); either is taken
//! for either input. Promises: one copy of inline results; bytes as they came; a file is resumed from
//! what is on disk where the server allows it (7.9); what is returned is synced and does not end
//! in a torn line. It never holds more than one result in memory, and never trusts a length.

use std::fs::{self, File};
use std::io::{self, BufWriter, SeekFrom, Write};
use std::path::{Path, PathBuf};

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HeaderName, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::client::{CallError, Client, failure};
use super::lines::{self, BUFFER_BYTES, LineLimit, WholeText};
use super::operation::{Operation, ReadError};
use super::transfer::Incoming;
use super::wire::plain;
use crate::engine::event::{Failure, RemoteBatch};
use crate::engine::ids::{BatchName, FileName};
use crate::engine::job::RemoteState;

/// Results on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched {
    /// The batch as the operation described it.
    pub remote: RemoteBatch,
    /// How many requests the API says it had.
    pub request_count: Option<u64>,
    /// Size of the results in bytes.
    pub bytes: u64,
}

impl Client {
    /// Fetches the results of `batch` into the file `into`, one result a line. What is there
    /// already is taken for the beginning of the same results, left by an earlier try.
    ///
    /// # Errors
    /// `NotReady` if the batch has not ended, or has succeeded and shows no results yet; `Gone`
    /// if the batch or its results do not exist (any more). After `Transient` another call goes
    /// on where this one stopped, if the server allows it.
    pub async fn fetch(&self, batch: &BatchName, into: &Path) -> Result<Fetched, Failure> {
        let aside = aside(into);
        let operation = self.fetch_operation(batch, into, &aside).await;
        remove(&aside)?;
        let operation = operation?;
        let (items, request_count) = (operation.items, operation.request_count);
        let remote =
            operation.into_batch().map_err(|error| Failure::Transient(error.to_string()))?;
        if remote.name != *batch {
            return Err(Failure::Transient("get batch: the answer is about another".to_owned()));
        }
        if !remote.is_finished() {
            let message = format!("{} has not ended yet", batch.0);
            return Err(Failure::NotReady(message));
        }
        match &remote.output_file {
            // Inline results are in place already.
            _ if items > 0 => {}
            Some(file) => self.download(file, into).await?,
            None if remote.state == RemoteState::Succeeded => {
                let message = format!("{} has succeeded but shows no results yet", batch.0);
                return Err(Failure::NotReady(message));
            }
            None => drop(File::create(into).map_err(|error| local(into, &error))?),
        }
        let bytes = on_disk(into, lines::seal).await?;
        Ok(Fetched { remote, request_count, bytes })
    }

    /// Streams the operation to disk and reads it from there; inline results go into `into`.
    async fn fetch_operation(
        &self,
        batch: &BatchName,
        into: &Path,
        aside: &Path,
    ) -> Result<Operation, Failure> {
        let action = "get batch";
        let response = self.get_batch(batch).await?.map_err(|error| error.failure(action))?;
        refuse_compressed(&response, action)?;
        let max = self.inner.settings.results_bytes_max.saturating_mul(2);
        let mut incoming = Incoming::new(response, self.pace(), max);
        let mut file = tokio::fs::File::create(aside).await.map_err(|e| local(aside, &e))?;
        copy(&mut incoming, &mut file, aside, action, &mut |_| Ok(())).await?;
        let (aside, into) = (aside.to_owned(), into.to_owned());
        let item_max = self.inner.settings.item_bytes_max;
        let worker = tokio::task::spawn_blocking(move || split(&aside, &into, item_max));
        match worker.await {
            Ok(outcome) => outcome,
            Err(error) => Err(Failure::Local(format!("reading the results failed: {error}"))),
        }
    }

    /// Downloads a result file, from the byte on disk if there are some.
    async fn download(&self, name: &FileName, into: &Path) -> Result<(), Failure> {
        let action = "download results";
        let kept = on_disk(into, lines::usable_len).await?;
        let (response, offset) = match self.ask_results(name, kept).await? {
            Answer::From(response, offset) => (response, offset),
            Answer::Complete => return self.check_tail(into, kept).await,
            Answer::Mismatch => {
                truncate(into, 0).map_err(|error| local(into, &error))?;
                let message = format!("{action}: what is on disk does not fit; starting over");
                return Err(Failure::Transient(message));
            }
        };
        refuse_compressed(&response, action)?;
        let mut file = tokio::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(into)
            .await
            .map_err(|error| local(into, &error))?;
        file.set_len(offset).await.map_err(|error| local(into, &error))?;
        file.seek(SeekFrom::Start(offset)).await.map_err(|error| local(into, &error))?;
        let expected = response.content_length();
        let max = self.inner.settings.results_bytes_max.saturating_sub(offset);
        let mut incoming = Incoming::new(response, self.pace(), max);
        let line_max = self.inner.settings.item_bytes_max;
        let mut limit = LineLimit::new(line_max);
        let mut check = |chunk: &[u8]| match limit.keeps(chunk) {
            true => Ok(()),
            false => {
                Err(Failure::Rejected(format!("{action}: a line is longer than {line_max} bytes")))
            }
        };
        copy(&mut incoming, &mut file, into, action, &mut check).await?;
        if expected.is_some_and(|expected| expected != incoming.received) {
            let message =
                format!("{action}: {} bytes came instead of {expected:?}", incoming.received);
            return Err(Failure::Transient(message));
        }
        self.check_tail(into, 0).await
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
            Err(CallError::Answer(answer)) if matches!(answer.http, 403 | 404 | 410) => {
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

    /// Whether the last line is whole. `complete_at` is not 0 if the server said that nothing
    /// follows: then a torn line can not be mended by going on, only by starting over.
    async fn check_tail(&self, into: &Path, complete_at: u64) -> Result<(), Failure> {
        let max = self.inner.settings.item_bytes_max;
        if on_disk(into, move |path| lines::ends_whole(path, max)).await? {
            return Ok(());
        }
        if complete_at > 0 {
            truncate(into, 0).map_err(|error| local(into, &error))?;
        }
        Err(Failure::Transient("download results: they end inside a line".to_owned()))
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

/// Writes what comes in to a file; `check` sees every piece first.
async fn copy(
    incoming: &mut Incoming,
    file: &mut tokio::fs::File,
    path: &Path,
    action: &str,
    check: &mut (dyn FnMut(&[u8]) -> Result<(), Failure> + Send),
) -> Result<(), Failure> {
    let mut writer = tokio::io::BufWriter::with_capacity(BUFFER_BYTES, file);
    let outcome = loop {
        match incoming.next().await {
            Ok(Some(chunk)) => {
                check(&chunk)?;
                writer.write_all(&chunk).await.map_err(|error| local(path, &error))?;
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(failure(error, action)),
        }
    };
    // Also what came before a break is kept: the next try goes on from there.
    writer.flush().await.map_err(|error| local(path, &error))?;
    outcome
}

/// Reads an operation from disk; every inline result becomes a line of `into`, which is not
/// touched if there is none.
fn split(aside: &Path, into: &Path, item_max: u64) -> Result<Operation, Failure> {
    let source = File::open(aside).map_err(|error| local(aside, &error))?;
    let mut out: Option<BufWriter<File>> = None;
    let mut sink = |item: &str| -> io::Result<()> {
        if out.is_none() {
            out = Some(BufWriter::with_capacity(BUFFER_BYTES, File::create(into)?));
        }
        let Some(out) = out.as_mut() else { return Ok(()) };
        // Line breaks can only stand between tokens: inside a string they are escaped.
        for (n, part) in item.split(['\n', '\r']).enumerate() {
            if n > 0 {
                out.write_all(b" ")?;
            }
            out.write_all(part.as_bytes())?;
        }
        out.write_all(b"\n")
    };
    let operation = Operation::read(WholeText::new(source), item_max, Some(&mut sink));
    let operation = operation.map_err(|error| match error {
        ReadError::Sink(error) => local(into, &error),
        ReadError::Content(error) if error.is_io() => {
            Failure::Rejected(format!("get batch: {}", plain(&error.to_string(), 300)))
        }
        ReadError::Content(error) => Failure::Transient(format!(
            "get batch: the answer cannot be read: {}",
            plain(&error.to_string(), 300)
        )),
    })?;
    if let Some(mut out) = out {
        out.flush().map_err(|error| local(into, &error))?;
    }
    Ok(operation)
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
        Some(encoding) => Err(Failure::Rejected(format!(
            "{action}: the answer is compressed ({}) although {ACCEPT_ENCODING} forbids it",
            plain(encoding, 20)
        ))),
    }
}

/// Does something that may take a while with a file, on a thread made for that.
async fn on_disk<T: Send + 'static>(
    path: &Path,
    act: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let owned = path.to_owned();
    match tokio::task::spawn_blocking(move || act(&owned)).await {
        Ok(outcome) => outcome.map_err(|error| local(path, &error)),
        Err(error) => Err(Failure::Local(format!("work on {}: {error}", path.display()))),
    }
}

fn truncate(path: &Path, len: u64) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.set_len(len)
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(local(path, &error)),
    }
}

/// Where the operation lies while its results are taken out.
fn aside(into: &Path) -> PathBuf {
    let name = into.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    into.with_file_name(format!("{name}.operation"))
}

fn local(path: &Path, error: &io::Error) -> Failure {
    Failure::Local(format!("cannot write {}: {error}", path.display()))
}
