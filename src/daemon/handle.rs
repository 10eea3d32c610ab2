//! A way to speak to a running daemon, and what can be told it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::control::Reply;
use crate::engine::Engine;
use crate::engine::event::{Command, Event};
use crate::engine::ids::Millis;
use crate::view::report::Report;
use crate::view::schedule::Timetable;
use crate::view::{HookCounts, Wakeups};

use super::chronicle::Chronicle;
use super::{intake, lock};

/// What the loop is told.
pub enum Message {
    /// Something happened to a job.
    Event(Box<Event>),
    /// Something moved in the inbox.
    Look,
    /// This path was renamed into the inbox, so it is complete.
    RenamedIn(std::path::PathBuf),
    /// A scan is done.
    Scanned(Box<intake::Scanned>),
    /// An operator asks; the answer means that it is saved.
    Operator(Command, Reply),
    /// Look whether a slot of housekeeping or of the morning report has come.
    HousekeepingDue,
    /// Somebody wants a report of the time since this moment.
    Report(Millis, oneshot::Sender<Report>),
    /// Read the configuration again.
    Reload,
    /// Stop: begin nothing new, give what is under way a moment.
    Stop,
    /// Stop at once.
    StopNow,
}

/// A way to speak to a running daemon.
#[derive(Clone)]
pub struct Handle {
    pub(super) engine: Arc<Mutex<Engine>>,
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) notices: Arc<Mutex<Notices>>,
    pub(super) chronicle: Arc<Chronicle>,
}

/// What operators may see of the daemon beside its jobs.
#[derive(Debug, Clone, Default)]
pub struct Notices {
    /// How the inbox is watched: `events` or `polling`.
    pub watching: &'static str,
    /// Why the configuration was not reloaded, if it was to be and could not.
    pub not_reloaded: Option<String>,
    /// The names of the queues.
    pub queues: BTreeSet<String>,
    /// What came of notices that batches have ended.
    pub wakeups: Wakeups,
    /// What became of what hooks told.
    pub hooks: HookCounts,
    /// What the configuration says about moments to come.
    pub timetable: Arc<Timetable>,
}

impl Handle {
    /// Looks at the engine; it waits meanwhile, so be quick.
    pub fn with_engine<T>(&self, look: impl FnOnce(&Engine) -> T) -> T {
        look(&lock(&self.engine))
    }

    /// What operators may see beside the jobs; nobody may keep it for longer than a look.
    pub fn notices(&self) -> MutexGuard<'_, Notices> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has happened.
    pub(super) fn chronicle(&self) -> &Chronicle {
        &self.chronicle
    }

    /// Tells the loop something. A daemon that has ended does not mind.
    pub async fn tell(&self, message: Message) {
        let _ = self.messages.send(message).await;
    }

    /// The same from a thread that can not wait; a full queue loses the message.
    pub fn hint(&self, message: Message) {
        let _ = self.messages.try_send(message);
    }
}
