//! Signals in, readiness and heartbeats out.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::{Handle, Message, spawn};

/// Turns the first SIGTERM or SIGINT into a stop, and the second into an immediate one.
///
/// # Errors
/// If the handlers can not be set.
pub fn listen(handle: Handle) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    spawn(async move {
        let mut first = true;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let message = if first { Message::Stop } else { Message::StopNow };
            first = false;
            handle.tell(message).await;
        }
    });
    Ok(())
}

/// Speaks to systemd, where there is one. The loop feeds it; a loop that hangs feeds nothing.
#[derive(Debug)]
pub struct Watchdog {
    every: Option<Duration>,
    last: Instant,
    status: String,
}

impl Watchdog {
    /// As the service manager asks for it, if one does.
    pub fn from_environment() -> Watchdog {
        let every = sd_notify::watchdog_enabled().map(|limit| limit / 3);
        Watchdog { every, last: Instant::now(), status: String::new() }
    }

    /// Start-up is over.
    pub fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// The loop is alive.
    pub fn feed(&mut self) {
        if self.every.is_some_and(|every| self.last.elapsed() >= every) {
            notify(&[NotifyState::Watchdog]);
            self.last = Instant::now();
        }
    }

    /// One line for `systemctl status`.
    pub fn status(&mut self, status: String) {
        if status != self.status {
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
