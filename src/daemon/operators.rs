//! What operators see and ask, between the control plane and the loop.

use std::net::SocketAddr;
use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::control::{self, Control, ControlError, Desk, Rules};
use crate::engine::Millis;

use super::{Handle, Message, spawn};

pub use super::looks::Looks;

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The inbox.
    pub inbox: String,
    /// When the daemon started.
    pub started: Millis,
}

/// Operators are served as long as this is there.
pub struct Serving {
    desk: Desk,
    /// Nobody is served any more when it is gone.
    _stop: watch::Sender<bool>,
}

/// Serves the control socket until what is returned is dropped.
///
/// # Errors
/// If the socket can not be opened.
pub fn serve(
    socket: &std::path::Path,
    identity: Identity,
    handle: Handle,
    clock: Arc<dyn Clock>,
) -> Result<Serving, ControlError> {
    let listening = control::listen(socket)?;
    let (command, mut asked) = mpsc::channel(COMMANDS_WAITING);
    let look = Arc::new(Looks { identity, handle: handle.clone(), clock });
    spawn(async move {
        while let Some((command, reply)) = asked.recv().await {
            handle.tell(Message::Operator(command, reply)).await;
        }
    });
    let (stop, stopping) = watch::channel(false);
    let desk = Desk::new(Control { look, command, stopping });
    let served = listening.serve(desk.clone());
    spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "the control socket failed");
        }
    });
    Ok(Serving { desk, _stop: stop })
}

impl Serving {
    /// Serves a TCP address too, for those who know its names and, for changes, the token. Gives
    /// the address, with the port that the system chose if it was to.
    ///
    /// # Errors
    /// If the address can not be had.
    pub fn listen(
        &self,
        address: SocketAddr,
        hosts: &[String],
        token: SecretString,
    ) -> Result<SocketAddr, ControlError> {
        let listening = control::listen_tcp(address)?;
        let address = listening.address;
        let rules = Rules::new(address, hosts, token);
        let served = listening.serve(self.desk.clone(), rules);
        spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "serving control.listen failed");
            }
        });
        Ok(address)
    }
}

/// Commands that may wait for the loop.
const COMMANDS_WAITING: usize = 16;
