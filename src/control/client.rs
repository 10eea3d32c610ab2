//! The command line's side of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::view::event::EventQuery;
use crate::view::lists::DayQuery;
use crate::view::report::{Report, ReportQuery};
use crate::view::schedule::Schedule;
use crate::view::{
    BatchList, BatchQuery, DayList, EventList, JobList, JobQuery, JobView, Snapshot, VERSION,
};

use super::following::Following;

/// Speaks to the daemon behind one socket.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

/// Why the daemon could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon is running: nothing listens on {}", socket.display())]
    NotRunning {
        /// The socket tried.
        socket: PathBuf,
    },
    /// The socket is not ours to open.
    #[error("the control socket {} cannot be opened: {source}", socket.display())]
    NoAccess {
        /// The socket tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It listens, but does not answer as it should.
    #[error("the daemon behind {} does not answer properly: {why}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// The daemon said no.
    #[error("{0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Deserialize)]
struct RefusalBody {
    message: String,
}

impl Client {
    /// A client for this socket, if somebody listens there.
    ///
    /// # Errors
    /// If nobody does, or it may not be opened.
    pub fn connect(socket: &Path) -> Result<Client, ClientError> {
        let owned = || socket.to_owned();
        if let Err(source) = std::os::unix::net::UnixStream::connect(socket) {
            let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
            return Err(if nobody.contains(&source.kind()) {
                ClientError::NotRunning { socket: owned() }
            } else {
                ClientError::NoAccess { socket: owned(), source }
            });
        }
        // The library wants one even for a socket without encryption; a second time is no error.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| ClientError::Broken { socket: owned(), why: error.to_string() })?;
        Ok(Client { http, socket: owned() })
    }

    /// Everything there is to see.
    ///
    /// # Errors
    /// If the daemon can not be asked, or speaks a newer form.
    pub async fn status(&self) -> Result<Snapshot, ClientError> {
        let snapshot: Snapshot = self.ask(self.http.get(format!("{BASE}/status"))).await?;
        if snapshot.version == VERSION {
            return Ok(snapshot);
        }
        let why = format!(
            "its version {} speaks another form of this interface; use the same version here",
            snapshot.health.daemon
        );
        Err(ClientError::Broken { socket: self.socket.clone(), why })
    }

    /// One job, by its id or a unique prefix.
    ///
    /// # Errors
    /// If the daemon can not be asked, or the prefix names no job.
    pub async fn job(&self, prefix: &str) -> Result<JobView, ClientError> {
        self.ask(self.http.get(format!("{BASE}/jobs/{}", plain(prefix)?))).await
    }

    /// A page of jobs; [`JobList::next`] is the `after` of the page that follows.
    ///
    /// # Errors
    /// If the daemon can not be asked, or the question makes no sense.
    pub async fn jobs(&self, query: &JobQuery) -> Result<JobList, ClientError> {
        self.ask(self.http.get(format!("{BASE}/jobs")).query(query)).await
    }

    /// The newest batches.
    ///
    /// # Errors
    /// If the daemon can not be asked, or the question makes no sense.
    pub async fn batches(&self, query: &BatchQuery) -> Result<BatchList, ClientError> {
        self.ask(self.http.get(format!("{BASE}/batches")).query(query)).await
    }

    /// What the last `days` days brought.
    ///
    /// # Errors
    /// If the daemon can not be asked, or that is none or too many.
    pub async fn days(&self, days: usize) -> Result<DayList, ClientError> {
        let query = DayQuery { days: Some(days) };
        self.ask(self.http.get(format!("{BASE}/days")).query(&query)).await
    }

    /// What comes next, and when.
    ///
    /// # Errors
    /// If the daemon can not be asked.
    pub async fn schedule(&self) -> Result<Schedule, ClientError> {
        self.ask(self.http.get(format!("{BASE}/schedule"))).await
    }

    /// What happened since a moment.
    ///
    /// # Errors
    /// If the daemon can not be asked, or that is no moment.
    pub async fn report(&self, query: &ReportQuery) -> Result<Report, ClientError> {
        self.ask(self.http.get(format!("{BASE}/report")).query(query)).await
    }

    /// What has happened; [`EventList::next`] is the `after` of the next question.
    ///
    /// # Errors
    /// If the daemon can not be asked, or the question makes no sense.
    pub async fn events(&self, query: &EventQuery) -> Result<EventList, ClientError> {
        self.ask(self.http.get(format!("{BASE}/events")).query(query)).await
    }

    /// The newest events of one job, by its id or a prefix: at most `limit`, oldest first.
    ///
    /// # Errors
    /// If the daemon can not be asked, or the prefix names no job.
    pub async fn job_events(&self, prefix: &str, limit: usize) -> Result<EventList, ClientError> {
        let url = format!("{BASE}/jobs/{}/events?limit={limit}", plain(prefix)?);
        self.ask(self.http.get(url)).await
    }

    /// What happens from now on, or after the event of that number; of all jobs, or of those whose
    /// id begins so.
    ///
    /// # Errors
    /// If the daemon can not be asked, or too many follow already.
    pub async fn follow_events(
        &self,
        after: Option<u64>,
        job: Option<&str>,
    ) -> Result<Following, ClientError> {
        let job = job.map(plain).transpose()?;
        Following::begin(self.clone(), after, job.map(str::to_owned)).await
    }

    /// Asks for a stream of events and waits until it begins.
    pub(super) async fn stream(
        &self,
        after: Option<u64>,
        job: Option<&str>,
    ) -> Result<reqwest::Response, ClientError> {
        let query = EventQuery { after, job: job.map(str::to_owned), limit: None };
        let request = self.http.get(format!("{BASE}/events")).query(&query);
        // It has no end; whoever reads it notices when it falls silent.
        let request = request.header("accept", "text/event-stream").timeout(STREAM_TIMEOUT);
        let response = request.send().await.map_err(|error| self.said(error))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refused(response).await),
        }
    }

    async fn refused(&self, response: reqwest::Response) -> ClientError {
        let status = response.status();
        let body = match self.body(response).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => ClientError::Refused(refusal.error.message),
            Err(_) => self.broken(format!("HTTP {status}")),
        }
    }

    /// What the library says of a request, without the address.
    pub(super) fn said(&self, error: reqwest::Error) -> ClientError {
        self.broken(error.without_url().to_string())
    }

    /// The daemon does not answer as it should.
    pub(super) fn broken(&self, why: String) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), why }
    }

    /// Asks for a change.
    pub(super) async fn change<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(self.http.post(format!("{BASE}/{path}"))).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = request.send().await.map_err(|error| self.said(error))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| self.broken(error.to_string()))
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.said(error))? {
            body.extend_from_slice(&piece);
            if body.len() > BODY_BYTES_MAX {
                return Err(self.broken("its answer is longer than 64 MiB".to_owned()));
            }
        }
        Ok(body)
    }
}

/// An id goes into a path: nothing but letters and digits may.
pub(super) fn plain(prefix: &str) -> Result<&str, ClientError> {
    if !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(prefix);
    }
    let why = format!("{prefix:?} is no job id; `gemini-batchd status` lists them");
    Err(ClientError::Refused(why))
}

const BASE: &str = "http://localhost/v1";
/// Longer than the daemon takes to say that it does not answer in time.
const TIMEOUT: Duration = Duration::from_secs(40);
/// A stream of events goes on for as long as anybody would look at it.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 86_400);
/// A page of a thousand jobs is far below.
const BODY_BYTES_MAX: usize = 64 << 20;
