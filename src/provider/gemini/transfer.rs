//! Bytes on their way: what is sent, what is read, and how long that may take.
//!
//! Promises: a request body has exactly the announced length or is broken off; a body that is
//! read is bounded in bytes, and in time by silence and by a least speed; errors never tell a
//! URL. Nothing here sends anything twice, follows a redirect or decodes a compression.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use futures_util::stream::BoxStream;
use reqwest::{RequestBuilder, Response};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Bytes that can be read again from any offset.
#[derive(Clone)]
pub struct Payload {
    /// How many there are.
    pub len: u64,
    /// Reads `len` bytes (the second argument) from an offset (the first one).
    pub open: Open,
}

/// See [`Payload::open`].
pub type Open = Arc<dyn Fn(u64, u64) -> BoxStream<'static, io::Result<Bytes>> + Send + Sync>;

impl Payload {
    /// A payload that is in memory already.
    pub fn from_bytes(bytes: Bytes) -> Payload {
        let len = bytes.len() as u64;
        let open = move |offset: u64, len: u64| -> BoxStream<'static, io::Result<Bytes>> {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let end = usize::try_from(offset + len).unwrap_or(usize::MAX).min(bytes.len());
            let part = bytes.slice(start..end.max(start));
            Box::pin(futures_util::stream::iter([Ok(part)]))
        };
        Payload { len, open: Arc::new(open) }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.len)
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// To reach the server.
    pub connect: Duration,
    /// Without any byte moving.
    pub idle: Duration,
    /// From the last byte sent to the first byte of the answer.
    pub reply: Duration,
    /// The least speed that is borne for a whole transfer, bytes a second.
    pub bytes_per_second_min: u64,
}

impl Pace {
    /// How long `bytes` may take at the least speed.
    fn span(self, bytes: u64) -> Duration {
        Duration::from_secs(bytes / self.bytes_per_second_min.max(1))
    }
}

/// Why a request brought no answer, or only a part of it.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Nothing of what was to be sent has left this machine.
    #[error("cannot reach the server: {0}")]
    NotSent(String),
    /// The same, and it will be so until somebody acts.
    #[error("the way to the server is barred: {0}")]
    Barred(String),
    /// The payload could not be read here.
    #[error("the bytes to send cannot be read: {0}")]
    Payload(String),
    /// It broke off while something may have been received already.
    #[error("the connection broke off: {0}")]
    Broken(String),
    /// Silence, or less than the least speed.
    #[error("{0}")]
    TooSlow(String),
    /// The answer is longer than what is read of it.
    #[error("the answer is longer than {0} bytes")]
    TooLong(u64),
}

/// Watches a request body go out.
#[derive(Debug, Default)]
pub struct Meter {
    started: AtomicBool,
    finished: AtomicBool,
    moved: Mutex<Option<Instant>>,
    fault: Mutex<Option<String>>,
    /// Rung when another limit begins to count.
    turn: Notify,
}

impl Meter {
    fn finish(&self) {
        self.touch();
        self.finished.store(true, Ordering::Release);
        self.turn.notify_one();
    }

    fn touch(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn moved(&self) -> Option<Instant> {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A request body that sends exactly the announced number of bytes or fails.
struct Metered {
    stream: BoxStream<'static, io::Result<Bytes>>,
    left: u64,
    meter: Arc<Meter>,
}

impl Metered {
    fn fail(&self, message: String) -> io::Error {
        let mut fault = self.meter.fault.lock().unwrap_or_else(PoisonError::into_inner);
        *fault = Some(message);
        io::Error::other("the payload cannot be read")
    }
}

impl Stream for Metered {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.meter.started.swap(true, Ordering::AcqRel) {
            self.meter.touch();
            self.meter.turn.notify_one();
        }
        let next = match self.stream.as_mut().poll_next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(next) => next,
        };
        self.meter.touch();
        Poll::Ready(match next {
            Some(Ok(bytes)) => match self.left.checked_sub(bytes.len() as u64) {
                Some(left) => {
                    self.left = left;
                    if left == 0 {
                        self.meter.finish();
                    }
                    Some(Ok(bytes))
                }
                None => Some(Err(self.fail("there are more than announced".to_owned()))),
            },
            Some(Err(error)) => Some(Err(self.fail(error.to_string()))),
            None if self.left > 0 => {
                Some(Err(self.fail(format!("{} bytes are missing at the end", self.left))))
            }
            None => None,
        })
    }
}

/// Sends `len` bytes of `stream` as the body of a request and waits for the head of the answer.
///
/// # Errors
/// See [`TransferError`]; what the answer says is no error here.
pub async fn send_stream(
    request: RequestBuilder,
    stream: BoxStream<'static, io::Result<Bytes>>,
    len: u64,
    pace: Pace,
) -> Result<Response, TransferError> {
    let meter = Arc::new(Meter::default());
    if len == 0 {
        meter.finish();
    }
    let body = Metered { stream, left: len, meter: Arc::clone(&meter) };
    // With a length of its own the body is not sent in HTTP chunks.
    let request =
        request.header(reqwest::header::CONTENT_LENGTH, len).body(reqwest::Body::wrap_stream(body));
    let began = Instant::now();
    let deadline = began + pace.connect + pace.reply + pace.span(len);
    let answer = request.send();
    let slow = watch(&meter, began, deadline, pace);
    let outcome = tokio::select! {
        biased;
        answer = answer => answer.map_err(|error| sort(error, &meter)),
        slow = slow => Err(slow),
    };
    match (outcome, meter.fault()) {
        (Err(_), Some(fault)) => Err(TransferError::Payload(fault)),
        (Err(TransferError::TooSlow(message)), None) if !meter.started.load(Ordering::Acquire) => {
            Err(TransferError::NotSent(message))
        }
        (outcome, _) => outcome,
    }
}

/// Sends a request with a small body or none, and waits for the head of the answer.
///
/// # Errors
/// See [`TransferError`]; what the answer says is no error here.
pub async fn send(request: RequestBuilder, pace: Pace) -> Result<Response, TransferError> {
    match tokio::time::timeout(pace.connect + pace.reply, request.send()).await {
        Ok(answer) => answer.map_err(|error| sorted(error.is_connect(), error)),
        Err(_) => Err(TransferError::TooSlow(format!("no answer within {:?}", pace.reply))),
    }
}

/// Ends when the body has stood still for too long or everything takes too long.
async fn watch(meter: &Meter, began: Instant, deadline: Instant, pace: Pace) -> TransferError {
    loop {
        let (until, what) = match meter.moved() {
            None => (began + pace.connect + pace.idle, "no byte was sent"),
            Some(at) if meter.finished.load(Ordering::Acquire) => (at + pace.reply, "no answer"),
            Some(at) => (at + pace.idle, "no byte could be sent"),
        };
        let until = until.min(deadline);
        if Instant::now() >= until {
            let after = began.elapsed().as_secs_f32();
            return TransferError::TooSlow(format!("{what} for too long (after {after:.1} s)"));
        }
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = meter.turn.notified() => {}
        }
    }
}

fn sort(error: reqwest::Error, meter: &Meter) -> TransferError {
    // A body that was never asked for has not left; and without it nothing can have been done.
    sorted(error.is_connect() || !meter.started.load(Ordering::Acquire), error)
}

fn sorted(nothing_sent: bool, error: reqwest::Error) -> TransferError {
    match (nothing_sent, obstacle(&error)) {
        (true, Some(remedy)) => TransferError::Barred(format!("{}; {remedy}", describe(error))),
        (true, None) => TransferError::NotSent(describe(error)),
        (false, _) => TransferError::Broken(describe(error)),
    }
}

/// What to do about an error that no new try gets over, if it is one.
fn obstacle(error: &reqwest::Error) -> Option<&'static str> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        match cause.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
                return Some(
                    "the server's certificate is not trusted: check api.base_url, the proxy, the \
                     clock and the CA certificates of this machine",
                );
            }
            Some(rustls::Error::InvalidMessage(_) | rustls::Error::PeerIncompatible(_)) => {
                return Some("what answers there does not speak TLS as we do: check api.base_url");
            }
            Some(_) | None => {}
        }
        // The HTTP library has no type for it that could be asked.
        if cause.to_string().ends_with("proxy authorization required") {
            return Some("the proxy wants credentials: check https_proxy");
        }
        // An IO error does not count what it carries among its causes.
        let carried = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match carried {
            Some(carried) => Some(carried),
            None => cause.source(),
        };
    }
    None
}

/// The error with its causes, without any URL.
pub fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    super::wire::plain(&text, 500)
}

/// The body of an answer, read piece by piece.
pub struct Incoming {
    response: Response,
    pace: Pace,
    began: Instant,
    /// Bytes read so far.
    pub received: u64,
    max: u64,
}

impl Incoming {
    /// Reads at most `max` bytes of the answer.
    pub fn new(response: Response, pace: Pace, max: u64) -> Incoming {
        Incoming { response, pace, began: Instant::now(), received: 0, max }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// If it breaks off, stands still, is too slow or too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        let chunk = match tokio::time::timeout(self.pace.idle, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) => return Err(TransferError::Broken(describe(error))),
            Err(_) => {
                let message = format!("no byte came for {:?}", self.pace.idle);
                return Err(TransferError::TooSlow(message));
            }
        };
        self.received += chunk.len() as u64;
        if self.received > self.max {
            return Err(TransferError::TooLong(self.max));
        }
        if self.began.elapsed() > self.pace.reply + self.pace.span(self.received) {
            let least = self.pace.bytes_per_second_min;
            return Err(TransferError::TooSlow(format!("fewer than {least} bytes a second came")));
        }
        Ok(Some(chunk))
    }

    /// Everything, or as much as may be read; the second value tells whether that was not all.
    /// A body that breaks off counts as cut.
    pub async fn start(mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let room = usize::try_from(self.max).unwrap_or(usize::MAX) - body.len();
            match tokio::time::timeout(self.pace.reply, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                    if chunk.len() > room {
                        return (body, true);
                    }
                }
                Ok(Ok(None)) => return (body, false),
                Ok(Err(_)) | Err(_) => return (body, true),
            }
            if self.began.elapsed() > self.pace.reply {
                return (body, true);
            }
        }
    }

    /// Hands the body to a parser on a blocking thread while it comes in, and tells what the
    /// parser made of it. Only a few pieces are held at any time.
    ///
    /// # Errors
    /// Those of [`Incoming::next`]; they win over what the parser made of the broken rest.
    pub async fn parse<T: Send + 'static>(
        mut self,
        parser: impl FnOnce(&mut Pieces) -> T + Send + 'static,
    ) -> Result<T, TransferError> {
        let (to, pieces) = mpsc::channel(4);
        let worker = tokio::task::spawn_blocking(move || {
            parser(&mut Pieces { from: pieces, current: Bytes::new(), ended: false })
        });
        let outcome = loop {
            match self.next().await {
                Ok(Some(chunk)) => {
                    // The parser gave up: it has its answer.
                    if to.send(Some(chunk)).await.is_err() {
                        break Ok(());
                    }
                }
                Ok(None) => {
                    let _ended_already = to.send(None).await;
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
        };
        drop(to);
        let parsed = worker.await;
        outcome?;
        parsed.map_err(|error| TransferError::Broken(format!("the parser failed: {error}")))
    }
}

/// The body as a parser sees it.
pub struct Pieces {
    from: mpsc::Receiver<Option<Bytes>>,
    current: Bytes,
    ended: bool,
}

impl Pieces {
    /// The next piece as it came; `None` at the end. Not to be mixed with reading.
    ///
    /// # Errors
    /// If the body breaks off.
    pub fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        match self.from.blocking_recv() {
            Some(Some(chunk)) => Ok(Some(chunk)),
            Some(None) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            self.current = self.next_piece()?.unwrap_or_default();
        }
        let count = self.current.len().min(buffer.len());
        self.current.split_to(count).copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}
