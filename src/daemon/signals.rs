//! Signals in, readiness, heartbeats and a line of status out.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::{Handle, Message, spawn};

/// Turns the first SIGTERM or SIGINT into a stop, and the second into an immediate one. SIGHUP
/// reloads the configuration, unless it says that the terminal we were started in is gone.
///
/// # Errors
/// If the handlers can not be set.
pub fn listen(handle: Handle) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let had_terminal = has_terminal();
    spawn(async move {
        let mut stopping = false;
        loop {
            let stop = tokio::select! {
                _ = terminate.recv() => true,
                _ = interrupt.recv() => true,
                _ = hang_up.recv() => had_terminal && !has_terminal(),
            };
            let message = match stop {
                true if stopping => Message::StopNow,
                true => Message::Stop,
                false => Message::Reload,
            };
            stopping |= stop;
            handle.tell(message).await;
        }
    });
    Ok(())
}

/// Whether this process belongs to a terminal.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Speaks to systemd, where there is one. The loop feeds it; a loop that hangs feeds nothing.
#[derive(Debug)]
pub struct Watchdog {
    listened_to: bool,
    every: Option<Duration>,
    fed: Option<Instant>,
    told: Option<Instant>,
    status: String,
}

impl Watchdog {
    /// As the service manager asks for it, if one does.
    pub fn from_environment() -> Watchdog {
        Watchdog {
            listened_to: std::env::var_os("NOTIFY_SOCKET").is_some(),
            every: sd_notify::watchdog_enabled().map(|limit| limit / 3),
            fed: None,
            told: None,
            status: String::new(),
        }
    }

    /// Start-up is over.
    pub fn ready(&self) {
        self.notify(&[NotifyState::Ready]);
    }

    /// The configuration is being read again; [`Watchdog::ready`] says when that is done.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "the service manager was not told of a reload"),
        }
    }

    /// The loop is alive.
    pub fn feed(&mut self) {
        let Some(every) = self.every else { return };
        if self.fed.is_none_or(|fed| fed.elapsed() >= every) {
            self.notify(&[NotifyState::Watchdog]);
            self.fed = Some(Instant::now());
        }
    }

    /// How long the loop may sleep without being missed.
    pub fn patience(&self) -> Duration {
        self.every.unwrap_or(Duration::MAX)
    }

    /// One line for `systemctl status`, now and then.
    pub fn status(&mut self, describe: impl FnOnce() -> String) {
        let due = self.told.is_none_or(|told| told.elapsed() >= STATUS_EVERY);
        if !self.listened_to || !due {
            return;
        }
        self.told = Some(Instant::now());
        let status = describe();
        if status != self.status {
            self.notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        self.notify(&[NotifyState::Stopping]);
    }

    /// The daemon is about to end against its will.
    pub fn failing(&self, why: &str) {
        // A line break would begin another variable.
        let why = why.replace(char::is_control, " ");
        self.notify(&[NotifyState::Stopping, NotifyState::Status(&why)]);
    }

    fn notify(&self, states: &[NotifyState<'_>]) {
        if !self.listened_to {
            return;
        }
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "the service manager could not be told");
        }
    }
}

/// The shortest pause between two lines of status.
const STATUS_EVERY: Duration = Duration::from_secs(5);
