//! The client: one call, one HTTP request, one sorted outcome.
//!
//! Promises: nothing is ever sent twice by itself, except the pieces of an upload, which say
//! where they belong; redirects are not followed; the key travels in one header, to the
//! configured host alone. It never decides what to do about a failure, and it reads no clock but
//! the monotonic one. The calls themselves are in the files beside this one.

use std::io::BufReader;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, DATE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;

use super::classify::{ErrorAnswer, ErrorHead};
use super::key::ApiKey;
use super::operation::Operation;
use super::transfer::{self, Incoming, Pace, TransferError};
use super::wire;
use crate::engine::event::{Failure, RemoteBatch};
use crate::engine::ids::Millis;
use crate::engine::job::RemoteState;

/// How a client is to work.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Where the API is; `https`, or `http` on this machine.
    pub base_url: Url,
    /// `v1beta` or `v1`.
    pub version: String,
    /// The key.
    pub key: ApiKey,
    /// To reach the server.
    pub connect_timeout: Duration,
    /// Without any byte moving.
    pub idle_timeout: Duration,
    /// From the last byte sent to the first byte of the answer; a create that reads a large
    /// input file takes a while.
    pub reply_timeout: Duration,
    /// The least speed of a transfer, bytes a second; deadlines are computed from it.
    pub bytes_per_second_min: u64,
    /// Bytes of one piece of an upload, about; the server's granularity rounds it down.
    pub piece_bytes: u64,
    /// Pause before an upload that broke is taken up again; doubled each time without progress.
    pub recovery_pause: Duration,
    /// The longest single result, bytes.
    pub item_bytes_max: u64,
    /// The longest results of one batch, bytes.
    pub results_bytes_max: u64,
}

impl ClientSettings {
    /// The settings that fit Google's service (API contract, 1, 7, 8).
    pub fn new(base_url: Url, key: ApiKey) -> ClientSettings {
        ClientSettings {
            base_url,
            version: "v1beta".to_owned(),
            key,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            reply_timeout: Duration::from_secs(180),
            bytes_per_second_min: 16 * 1024,
            // Each piece waits for its answer; a break costs at most what the server kept nothing of.
            piece_bytes: 256 * 1024 * 1024,
            recovery_pause: Duration::from_secs(1),
            item_bytes_max: 128 * 1024 * 1024,
            results_bytes_max: 64 * 1024 * 1024 * 1024,
        }
    }
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL can not be used.
    #[error("api.base_url {url:?} cannot be used: {reason}")]
    BaseUrl {
        /// The URL, without credentials.
        url: String,
        /// Why not, and what would do.
        reason: &'static str,
    },
    /// The version can not be part of a path.
    #[error("api.version {0:?} cannot be used: write \"v1beta\" or \"v1\"")]
    Version(String),
    /// The HTTP client could not be made.
    #[error(
        "the HTTP client cannot be made: {0}; check the CA certificates and the proxy settings"
    )]
    Http(String),
}

/// Speaks to the API. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: ClientSettings,
    /// The base URL without a slash at its end.
    base: String,
    /// Keeps connections: for calls that may be asked again.
    pooled: reqwest::Client,
    /// A new connection each time: for creates and uploads, where a stale connection would leave
    /// it open whether anything arrived.
    fresh: reqwest::Client,
    /// When a connection was last found dead.
    broke: Mutex<Option<Instant>>,
    /// What the server's clock said, and when by ours.
    server_clock: Mutex<Option<(Millis, Instant)>>,
    /// Pages of the list of batches that the last poll had to read.
    pub(super) pages_polled: AtomicUsize,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// If the settings can not be used.
    pub fn new(settings: ClientSettings) -> Result<Client, ClientError> {
        let base = checked_base(&settings.base_url)?;
        let version = settings.version.as_str();
        if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ClientError::Version(wire::plain(version, 40)));
        }
        install_crypto();
        let build = |idle_connections: usize| {
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("gemini-batchd/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .http1_only()
                .connect_timeout(settings.connect_timeout)
                .pool_max_idle_per_host(idle_connections)
                .pool_idle_timeout(POOL_IDLE)
                // Otherwise the system gives up on what was sent after 30 s, whatever is set here.
                .tcp_user_timeout(settings.idle_timeout);
            if is_local(&settings.base_url) {
                builder = builder.no_proxy();
            }
            builder.build().map_err(|error| ClientError::Http(transfer::describe(error)))
        };
        let (pooled, fresh) = (build(IDLE_CONNECTIONS)?, build(0)?);
        let (server_clock, broke) = (Mutex::new(None), Mutex::new(None));
        let pages_polled = AtomicUsize::new(1);
        let inner = Inner { settings, base, pooled, fresh, broke, server_clock, pages_polled };
        Ok(Client { inner: Arc::new(inner) })
    }

    /// How far the server's clock is ahead of `now`, milliseconds, by the last answer that told
    /// the time. Exact to about a second.
    pub fn server_time_skew(&self, now: Millis) -> Option<i64> {
        let clock = self.inner.server_clock.lock().unwrap_or_else(PoisonError::into_inner);
        let (server, at) = (*clock)?;
        let passed = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let server = i64::try_from(server.plus(passed).0).ok()?;
        Some(server.saturating_sub(i64::try_from(now.0).ok()?))
    }

    /// Reads a small JSON answer.
    pub(super) async fn json<T: DeserializeOwned + Send + 'static>(
        &self,
        response: Response,
        action: &str,
    ) -> Result<T, Failure> {
        Incoming::new(response, self.pace(), PAGE_BYTES_MAX)
            .parse(|pieces| serde_json::from_reader(BufReader::new(pieces)))
            .await
            .map_err(|error| match error {
                // What should be small and is not, is not the API's: it says nothing of the call.
                TransferError::TooLong(_) => Failure::Transient(format!("{action}: {error}")),
                error => failure(error, action),
            })?
            .map_err(|error: serde_json::Error| {
                let error = self.told(&error.to_string());
                Failure::Transient(format!("{action}: the answer cannot be read: {error}"))
            })
    }

    /// What a server wrote, fit for a message: without the key, on one line, shortened.
    pub(super) fn told(&self, text: &str) -> String {
        wire::plain(&self.inner.settings.key.scrub(text.to_owned()), 300)
    }

    /// The batch that an operation describes, with the key in none of its texts; in words what
    /// can not be used.
    pub(super) fn batch(&self, operation: Operation) -> Result<RemoteBatch, String> {
        let mut batch = operation.into_batch().map_err(|error| self.told(&error.to_string()))?;
        let key = &self.inner.settings.key;
        batch.display_name = key.scrub(batch.display_name);
        batch.state = match batch.state {
            RemoteState::Unknown(word) => RemoteState::Unknown(key.scrub(word)),
            known => known,
        };
        if let Some(error) = &mut batch.error {
            error.message = key.scrub(std::mem::take(&mut error.message));
        }
        Ok(batch)
    }

    /// A call below the version's path, with the key.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let version = &self.inner.settings.version;
        let http = if self.distrusts_pool() { &self.inner.fresh } else { &self.inner.pooled };
        self.keyed(http.request(method, self.url(&format!("/{version}{path}"))))
    }

    /// Whether connections that are kept may be as dead as one that was used not long ago: after
    /// this machine slept, or moved to another network, all of them are.
    fn distrusts_pool(&self) -> bool {
        let broke = *self.inner.broke.lock().unwrap_or_else(PoisonError::into_inner);
        broke.is_some_and(|at| at.elapsed() <= POOL_IDLE)
    }

    /// The same on a connection of its own; `path` begins at the root.
    pub(super) fn fresh_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.keyed(self.inner.fresh.request(method, self.url(path)))
    }

    /// A request to a URL that the server gave and [`Client::accepts`] approved; without the
    /// key, which such a URL does not need (7.3).
    pub(super) fn session_request(&self, url: Url) -> RequestBuilder {
        self.inner.fresh.post(url)
    }

    /// A call of the OpenAI-compatible layer, which is found below one version and takes the key as
    /// OpenAI does; on a connection of its own if `fresh`.
    pub(super) fn layer_request(&self, method: Method, path: &str, fresh: bool) -> RequestBuilder {
        let fresh = fresh || self.distrusts_pool();
        let http = if fresh { &self.inner.fresh } else { &self.inner.pooled };
        let key = self.inner.settings.key.bearer();
        let request = http.request(method, self.url(&format!("/v1beta/{path}")));
        request.header(AUTHORIZATION, key).header(ACCEPT_ENCODING, "identity")
    }

    fn keyed(&self, request: RequestBuilder) -> RequestBuilder {
        let key = self.inner.settings.key.header();
        request.header("x-goog-api-key", key).header(ACCEPT_ENCODING, "identity")
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.inner.base)
    }

    /// Whether something may be sent to a URL that the server gave: the configured place itself,
    /// or, if that is Google's, Google's plain host over `https`.
    pub(super) fn accepts(&self, url: &Url) -> bool {
        let base = &self.inner.settings.base_url;
        if !url.username().is_empty() || url.password().is_some() {
            return false;
        }
        if url.origin() == base.origin() {
            return true;
        }
        let google = |url: &Url| url.host_str().is_some_and(|h| h.ends_with(".googleapis.com"));
        google(base)
            && url.scheme() == "https"
            && url.port_or_known_default() == Some(443)
            && url.host_str() == Some("generativelanguage.googleapis.com")
    }

    /// Sends a request and sorts the head of the answer.
    pub(super) async fn ask(&self, request: RequestBuilder) -> Result<Response, CallError> {
        let sent = transfer::send(request, self.pace()).await;
        if let Err(TransferError::Broken(_) | TransferError::TooSlow(_)) = &sent {
            let mut broke = self.inner.broke.lock().unwrap_or_else(PoisonError::into_inner);
            *broke = Some(Instant::now());
        }
        self.check(sent.map_err(CallError::Transfer)?).await
    }

    /// Passes a success on, and reads what else came.
    pub(super) async fn check(&self, response: Response) -> Result<Response, CallError> {
        self.note_clock(&response);
        if response.status().is_success() {
            return Ok(response);
        }
        Err(CallError::Answer(self.read_error(response).await))
    }

    /// Reads the body of an answer that is no success, bounded.
    pub(super) async fn read_error(&self, response: Response) -> ErrorAnswer {
        let header = |name| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(|text: &str| text.to_owned())
        };
        let head = ErrorHead {
            http: response.status().as_u16(),
            retry_after: header(RETRY_AFTER),
            date: header(DATE),
        };
        let (body, cut) = Incoming::new(response, self.pace(), ERROR_BYTES_MAX).start().await;
        ErrorAnswer::read(&head, &body, cut, &self.inner.settings.key)
    }

    pub(super) fn note_clock(&self, response: &Response) {
        let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
        if let Some(date) = date.and_then(wire::http_date) {
            let mut clock = self.inner.server_clock.lock().unwrap_or_else(PoisonError::into_inner);
            *clock = Some((date, Instant::now()));
        }
    }

    pub(super) fn pace(&self) -> Pace {
        let settings = &self.inner.settings;
        Pace {
            connect: settings.connect_timeout,
            idle: settings.idle_timeout,
            reply: settings.reply_timeout,
            bytes_per_second_min: settings.bytes_per_second_min,
        }
    }
}

/// Why a call brought no success.
#[derive(Debug)]
pub(super) enum CallError {
    /// No answer.
    Transfer(TransferError),
    /// An answer that is none.
    Answer(ErrorAnswer),
}

impl CallError {
    /// Sorts it, for any call but a create.
    pub(super) fn failure(self, action: &str) -> Failure {
        match self {
            CallError::Transfer(error) => failure(error, action),
            CallError::Answer(answer) => answer.failure(action),
        }
    }
}

/// Sorts a broken transfer of any call but a create.
pub(super) fn failure(error: TransferError, action: &str) -> Failure {
    let message = format!("{action}: {error}");
    match error {
        TransferError::NotSent(_) | TransferError::Broken(_) | TransferError::TooSlow(_) => {
            Failure::Transient(message)
        }
        TransferError::Barred(_) => Failure::Barred(message),
        TransferError::Payload(_) => Failure::Local(message),
        TransferError::TooLong(_) => Failure::Rejected(message),
    }
}

fn checked_base(url: &Url) -> Result<String, ClientError> {
    let refuse = |reason| {
        let mut shown = url.clone();
        shown.set_query(None);
        // Both fail only for URLs without a host, which have no credentials either.
        let _ = shown.set_password(None);
        let _ = shown.set_username("");
        Err(ClientError::BaseUrl { url: wire::plain(shown.as_str(), 200), reason })
    };
    match url.scheme() {
        "https" => {}
        "http" if is_local(url) => {}
        "http" => return refuse("the key would travel in the clear; write https://"),
        _ => return refuse("write https://HOST"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("it holds a user name or a password; take them out");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("it has a query or a fragment; take it out");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The HTTP client is built without a crypto provider of its own.
fn install_crypto() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // An error says that somebody has installed one already: just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// How long a connection is kept that nobody uses.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// As many calls of the kinds that may be asked again are under way at a time, about.
const IDLE_CONNECTIONS: usize = 16;

/// Bytes of one page of a list, and of every other small answer.
const PAGE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Bytes read of an error: a create that names thousands of rows has a long one.
pub(super) const ERROR_BYTES_MAX: u64 = 1024 * 1024;
