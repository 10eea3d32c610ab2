//! Fetches the results of a batch that has ended, as lines in a file.
//!
//! Results come inline, inside the operation, or as a file (API contract, 5.1); either is taken
//! for either input. Promises: one copy of inline results; bytes as they came; a file is resumed from
//! what is on disk where the server allows it (7.9); what is returned is synced and does not end
//! in a torn line. It never holds more than one result in memory, and never trusts a length.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HeaderName, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::client::{CallError, Client, failure};
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
        let (inline, request_count) = (operation.inline, operation.request_count);
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
            // Inline results, if there were any, are in place already.
            None if inline => {}
            Some(file) => self.download(file, into).await?,
            None if remote.state == RemoteState::Succeeded => {
                let message = format!("{} has succeeded but shows no results yet", batch.0);
                return Err(Failure::NotReady(message));
            }
            None => drop(File::create(into).map_err(|error| local(into, &error))?),
        }
        let bytes = seal(into).map_err(|error| local(into, &error))?;
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
        let kept = usable_len(into).map_err(|error| local(into, &error))?;
        let (response, offset) = match self.ask_results(name, kept).await? {
            Answer::From(response, offset) => (response, offset),
            Answer::Complete => return self.check_tail(into, kept),
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
        let mut line = LineLimit { len: 0, max: self.inner.settings.item_bytes_max };
        copy(&mut incoming, &mut file, into, action, &mut |chunk| line.check(chunk)).await?;
        if expected.is_some_and(|expected| expected != incoming.received) {
            let message =
                format!("{action}: {} bytes came instead of {expected:?}", incoming.received);
            return Err(Failure::Transient(message));
        }
        self.check_tail(into, 0)
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
    fn check_tail(&self, into: &Path, complete_at: u64) -> Result<(), Failure> {
        let max = self.inner.settings.item_bytes_max;
        if ends_whole(into, max).map_err(|error| local(into, &error))? {
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
    match out {
        Some(mut out) => out.flush().map_err(|error| local(into, &error))?,
        None if operation.inline && operation.responses_file.is_none() => {
            File::create(into).map_err(|error| local(into, &error))?;
        }
        None => {}
    }
    Ok(operation)
}

/// Makes valid UTF-8 of what is read: a broken character in one result must not hide the
/// others.
struct WholeText<R> {
    inner: R,
    ready: Vec<u8>,
    taken: usize,
    carry: Vec<u8>,
    ended: bool,
}

impl<R: Read> WholeText<R> {
    fn new(inner: R) -> WholeText<R> {
        WholeText { inner, ready: Vec::new(), taken: 0, carry: Vec::new(), ended: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.taken = 0;
        let mut raw = std::mem::take(&mut self.carry);
        let before = raw.len();
        raw.resize(before + BUFFER_BYTES, 0);
        let read = self.inner.read(raw.get_mut(before..).unwrap_or_default())?;
        raw.truncate(before + read);
        self.ended = read == 0;
        let mut rest = raw.as_slice();
        for chunk in raw.utf8_chunks() {
            self.ready.extend_from_slice(chunk.valid().as_bytes());
            rest = rest.get(chunk.valid().len() + chunk.invalid().len()..).unwrap_or_default();
            // A character may go on in the next buffer; none is longer than four bytes.
            let torn = rest.is_empty() && !self.ended && chunk.invalid().len() < 4;
            if torn && std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none())
            {
                self.carry = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                self.ready.extend_from_slice("\u{FFFD}".as_bytes());
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for WholeText<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.ready.len() && !self.ended {
            self.fill()?;
        }
        let rest = self.ready.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer
            .get_mut(..count)
            .unwrap_or_default()
            .copy_from_slice(rest.get(..count).unwrap_or_default());
        self.taken += count;
        Ok(count)
    }
}

/// Counts the bytes since the last line break.
struct LineLimit {
    len: u64,
    max: u64,
}

impl LineLimit {
    fn check(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        let mut breaks = memchr::memchr_iter(b'\n', chunk).peekable();
        let first = breaks.peek().copied().unwrap_or(chunk.len());
        let longest_first = self.len + first as u64;
        // Lines that begin and end inside one piece are shorter than any limit.
        self.len = match breaks.last() {
            Some(last) => (chunk.len() - last - 1) as u64,
            None => longest_first,
        };
        if longest_first > self.max {
            let max = self.max;
            return Err(Failure::Rejected(format!(
                "download results: a line is longer than {max} bytes"
            )));
        }
        Ok(())
    }
}

/// How much of what an earlier try left can be built on. After a power cut a file may be longer
/// than what was written, and filled up with zero bytes, which no result holds.
fn usable_len(path: &Path) -> io::Result<u64> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    Ok(if tail.contains(&0) { 0 } else { len })
}

/// Whether a file ends with a line break, or with a line that is whole without one.
fn ends_whole(path: &Path, line_max: u64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let Some(line_start) = last_line_start(&mut file, len, line_max)? else { return Ok(false) };
    file.seek(SeekFrom::Start(line_start))?;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    if reader.fill_buf()?.is_empty() {
        return Ok(true);
    }
    Ok(serde_json::from_reader::<_, serde::de::IgnoredAny>(reader).is_ok())
}

/// Where the last line begins: after the last line break, or at the end if that is one.
fn last_line_start(file: &mut File, len: u64, line_max: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut end = len;
    while end > 0 && len - end <= line_max {
        let start = end.saturating_sub(BUFFER_BYTES as u64);
        let part = buffer.get_mut(..(end - start) as usize).unwrap_or_default();
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(Some(start + at as u64 + 1));
        }
        end = start;
    }
    Ok((end == 0).then_some(0))
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

/// Syncs the results and tells their size in bytes.
fn seal(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
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

/// Bytes read or written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes at the end of an unfinished download that are looked at before it is built on.
const TAIL_BYTES: u64 = 4096;
