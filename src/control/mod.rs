//! The control plane: HTTP/JSON on a Unix socket, for the command line and for people.
//!
//! It shows snapshots and passes commands on; it decides nothing and stores nothing. Who may
//! use it is the business of the socket's permissions (mode 0660) and of the folder it lies in.
//! Request bodies are not read; texts from outside only ever select a job by its id.

mod client;
mod commands;
mod latest;
mod routes;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::engine::event::Command;
use crate::view::Snapshot;

pub use client::{Client, ClientError};
pub use commands::{JobTold, Refused, Told};
pub use routes::router;

/// What the control plane needs of the daemon.
#[derive(Clone)]
pub struct Control {
    /// Builds a snapshot; called as often as is good for the daemon, not for every request.
    pub snapshot: Arc<dyn Fn() -> Snapshot + Send + Sync>,
    /// Takes a command. The reply comes when its effect is saved, or says why it is refused.
    pub command: mpsc::Sender<(Command, Reply)>,
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
}

/// A socket that is open but not served yet.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
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
    Ok(Listening { listener, path: path.to_owned() })
}

impl Listening {
    /// Serves until `stop` comes to an end, then removes the socket.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn serve(
        self,
        control: Control,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ControlError> {
        let served = axum::serve(self.listener, router(control)).with_graceful_shutdown(stop).await;
        // Whoever finds it later would only find it dead; failing to remove it harms nobody.
        drop(std::fs::remove_file(&self.path));
        served.map_err(|source| ControlError::Io { action: "serve", path: self.path, source })
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
