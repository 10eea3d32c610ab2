//! Notices that batches have ended, between the listener for them and the loop.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Wakeup;
use crate::control::wakeup::{self, Ear, Heard, Wake};
use crate::engine::event::Event;
use crate::engine::ids::BatchName;

use super::{Handle, Message, spawn};

/// Notices are heard as long as this is there.
#[derive(Debug)]
pub struct Waking {
    /// Where; with the port that the system chose, if it was to.
    pub address: SocketAddr,
    _stop: watch::Sender<bool>,
}

/// Hears notices until what is returned is dropped.
///
/// # Errors
/// If the address can not be had.
pub fn serve(settings: &Wakeup, handle: Handle, clock: Arc<dyn Clock>) -> std::io::Result<Waking> {
    let listening = wakeup::listen(settings.listen)?;
    let address = listening.address;
    let ear = Arc::new(Ear::new(settings.secret.clone(), clock, Arc::new(handle)));
    let (stop, stopping) = watch::channel(false);
    spawn(async move {
        if let Err(error) = listening.serve(ear, stopping).await {
            tracing::error!(%error, "serving webhook.listen failed; batches are polled all the same");
        }
    });
    Ok(Waking { address, _stop: stop })
}

impl Wake for Handle {
    fn wake(&self, batch: Option<String>) {
        tracing::debug!(batch, "the API says that a batch has ended");
        // One that is lost costs nothing: polling goes on.
        self.hint(Message::Event(Box::new(Event::Noticed(batch.map(BatchName)))));
    }

    fn count(&self, heard: Heard) {
        let wakeups = &mut self.notices().wakeups;
        match heard {
            Heard::Taken => wakeups.taken += 1,
            Heard::Repeated => wakeups.repeated += 1,
            Heard::Refused => wakeups.refused += 1,
        }
    }
}
