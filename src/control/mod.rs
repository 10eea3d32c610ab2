//! The control plane: HTTP/JSON on a Unix socket, and on a TCP address if one is set.
//!
//! It shows what the daemon says of itself and passes commands on; it decides nothing and stores
//! nothing. Who may use the socket is the business of its permissions (mode 0660), of the folder it
//! lies in, and of `peer.rs`; who may use the address is judged in `door.rs`. Request bodies are not
//! read; texts from outside only ever select something by its name.

mod client;
mod commands;
mod connections;
mod door;
mod follow;
mod following;
mod latest;
mod metrics;
mod openapi;
mod page;
mod peer;
mod routes;
pub mod wakeup;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::serve::ListenerExt;
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::engine::event::Command;
use crate::view::lists::BadQuery;
use crate::view::report::Report;
use crate::view::schedule::Schedule;
use crate::view::{
    BatchList, BatchQuery, DayList, Event, EventFilter, EventList, Figures, JobList, JobQuery,
    JobView, NoSuchJob, Snapshot,
};

pub use client::{Client, ClientError};
pub use commands::{JOB_VERBS, JobTold, Refused, Told};
pub use connections::CONNECTIONS_MAX;
pub use door::Rules;
pub use following::Following;
pub use openapi::document;
pub use routes::{Desk, router};

use connections::Bounded;
use door::Door;
use peer::{Caller, Place};

/// What the control plane may look at. Looks are paced: none is taken for every request.
pub trait Look: Send + Sync {
    /// How the daemon is, and the jobs that matter most.
    fn snapshot(&self) -> Snapshot;

    /// One job, by its id or a unique prefix.
    ///
    /// # Errors
    /// If the prefix names no job, or several.
    fn job(&self, prefix: &str) -> Result<JobView, NoSuchJob>;

    /// A page of jobs.
    ///
    /// # Errors
    /// If the question makes no sense.
    fn jobs(&self, query: &JobQuery) -> Result<JobList, BadQuery>;

    /// The newest batches.
    ///
    /// # Errors
    /// If the question makes no sense.
    fn batches(&self, query: &BatchQuery) -> Result<BatchList, BadQuery>;

    /// What the last days brought.
    fn days(&self, days: u32) -> DayList;

    /// What comes next, and when.
    fn schedule(&self) -> Schedule;

    /// What happened since a moment, which stands as it was asked; without one, of a day.
    ///
    /// # Errors
    /// If the moment is none, or the daemon is stopping.
    fn report(&self, since: Option<&str>) -> Result<Report, BadQuery>;

    /// All figures of this moment.
    fn figures(&self) -> Figures;

    /// What has happened. Quick: it does not hold up the daemon.
    fn events(&self, filter: &EventFilter) -> EventList;

    /// What happens from now on.
    fn follow(&self) -> broadcast::Receiver<Arc<Event>>;
}

/// What the control plane needs of the daemon.
#[derive(Clone)]
pub struct Control {
    /// What there is to see.
    pub look: Arc<dyn Look>,
    /// Takes a command. The reply comes when its effect is saved, or says why it is refused.
    pub command: mpsc::Sender<(Command, Reply)>,
    /// Becomes true, or loses its sender, when nobody is to be served any more.
    pub stopping: watch::Receiver<bool>,
}

/// Where the outcome of a command goes: what happens now, in words, or why it is not done.
pub type Reply = oneshot::Sender<Result<String, Refused>>;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Something answers there already.
    #[error("another daemon listens on {}; stop it, or set control.socket", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket lies there.
    #[error("{} is no socket; move it away, or set control.socket", path.display())]
    NotASocket {
        /// What lies there.
        path: PathBuf,
    },
    /// The path is longer than the system takes.
    #[error(
        "the path of the control socket has more than 107 bytes: {}; set control.socket to a \
         shorter one",
        path.display()
    )]
    TooLong {
        /// The socket.
        path: PathBuf,
    },
    /// The system said no.
    #[error("cannot {action} the control socket {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address can not be had.
    #[error("cannot listen on {address}: {source}; set control.listen to another address")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The token for changes can neither be read nor made.
    #[error("the token of control.listen in {}: {why}", path.display())]
    Token {
        /// The file it stands in.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// A socket that is open but not served yet.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    place: Place,
    path: PathBuf,
}

/// Opens the socket: its folder is made, one left by a dead daemon is replaced. To be called
/// inside the runtime, after the spool's lock is held.
///
/// # Errors
/// If another daemon listens there, something else is in the way, or the system refuses.
pub fn listen(path: &Path) -> Result<Listening, ControlError> {
    let failed = |action| move |source| ControlError::Io { action, path: path.to_owned(), source };
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(ControlError::TooLong { path: path.to_owned() });
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed("make the folder of"))?;
    }
    clear(path)?;
    let listener = UnixListener::bind(path).map_err(failed("open"))?;
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(path, mode).map_err(failed("set the mode of"))?;
    let place = Place::of(path).map_err(failed("look at"))?;
    Ok(Listening { listener, place, path: path.to_owned() })
}

impl Listening {
    /// Serves until the desk is closed, then removes the socket.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn serve(self, desk: Desk) -> Result<(), ControlError> {
        let door = Door::Socket(self.place);
        let stop = desk.closed();
        let service = router(desk, door).into_make_service_with_connect_info::<Caller>();
        let served = axum::serve(Bounded::new(self.listener), service);
        let served = served.with_graceful_shutdown(stop).await;
        // Whoever finds it later would only find it dead; failing to remove it harms nobody.
        drop(std::fs::remove_file(&self.path));
        served.map_err(|source| ControlError::Io { action: "serve", path: self.path, source })
    }
}

/// A TCP address that is open but not served yet.
#[derive(Debug)]
pub struct ListeningTcp {
    listener: tokio::net::TcpListener,
    /// The address; with the port that the system chose, if it was to.
    pub address: SocketAddr,
}

/// Opens a TCP address. To be called inside the runtime.
///
/// # Errors
/// If it can not be had.
pub fn listen_tcp(address: SocketAddr) -> Result<ListeningTcp, ControlError> {
    let failed = |source| ControlError::Address { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    Ok(ListeningTcp { listener, address: bound })
}

impl ListeningTcp {
    /// Serves by these rules until the desk is closed.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn serve(self, desk: Desk, rules: Rules) -> Result<(), ControlError> {
        let address = self.address;
        let stop = desk.closed();
        let listener = self.listener.tap_io(|stream| {
            // Only makes answers later.
            drop(stream.set_nodelay(true));
        });
        let service = router(desk, Door::Address(Arc::new(rules))).into_make_service();
        let served = axum::serve(Bounded::new(listener), service);
        let served = served.with_graceful_shutdown(stop).await;
        served.map_err(|source| ControlError::Address { address, source })
    }
}

/// Removes a socket that nobody listens on any more.
fn clear(path: &Path) -> Result<(), ControlError> {
    let failed = |action, source| Err(ControlError::Io { action, path: path.to_owned(), source });
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return failed("look at", error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ControlError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).or_else(|source| failed("replace", source))
        }
        Err(error) => failed("try", error),
    }
}

/// What `sockaddr_un` holds, less its end mark.
const PATH_BYTES_MAX: usize = 107;

#[cfg(test)]
mod tests;
