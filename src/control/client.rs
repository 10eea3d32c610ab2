//! The command line's side of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::view::{JobView, Snapshot, VERSION};

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

    /// Asks for a change.
    pub(super) async fn change<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(self.http.post(format!("{BASE}/{path}"))).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        let broken = |why: String| ClientError::Broken { socket: self.socket.clone(), why };
        let said = |error: reqwest::Error| broken(error.without_url().to_string());
        let mut response = request.send().await.map_err(said)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(said)? {
            body.extend_from_slice(&piece);
            if body.len() > BODY_BYTES_MAX {
                return Err(broken("its answer is longer than 256 MiB".to_owned()));
            }
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| broken(error.to_string()));
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => Err(ClientError::Refused(refusal.error.message)),
            Err(_) => Err(broken(format!("HTTP {status}"))),
        }
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
const BODY_BYTES_MAX: usize = 256 << 20;
