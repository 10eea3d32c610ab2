//! What operators see and ask, between the control socket and the loop.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::control::{self, Control, ControlError};
use crate::engine::{Engine, Millis};
use crate::view::{Health, Snapshot, moment};

use super::{Handle, Message, Notices, spawn};

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The inbox.
    pub inbox: String,
    /// When the daemon started.
    pub started: Millis,
}

impl Identity {
    /// Everything there is to see at this moment.
    pub fn snapshot(&self, handle: &Handle, clock: &dyn Clock) -> Snapshot {
        let now = clock.now();
        let notices = handle.notices().clone();
        handle.with_engine(|engine| {
            let older = engine.past().older_counts();
            let health = self.health(engine, notices, now);
            let mut snapshot = Snapshot::build(health, engine.jobs(), older);
            for job in engine.unfinished() {
                if let Some(why) = engine.waits_for_key(job).or_else(|| engine.held_back(job)) {
                    snapshot.explain(job.head.id, why);
                }
            }
            snapshot
        })
    }

    fn health(&self, engine: &Engine, notices: Notices, now: Millis) -> Health {
        let closed = engine.gate().filter(|gate| gate.until > now || gate.mend.is_some());
        let not_reloaded = notices
            .not_reloaded
            .map(|why| format!("the changed configuration is not in force: {why}"));
        let trouble = || engine.latest_trouble().map(|trouble| trouble.message.clone());
        Health {
            daemon: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            inbox: self.inbox.clone(),
            watching: notices.watching.to_owned(),
            started: moment(self.started),
            now: moment(now),
            paused: engine
                .full()
                .or(closed.map(|gate| gate.message.as_str()))
                .or(engine.kept_from_new())
                .map(str::to_owned),
            trouble: not_reloaded.or_else(trouble),
        }
    }
}

/// Serves the control socket until the returned sender is dropped or used.
///
/// # Errors
/// If the socket can not be opened.
pub fn serve(
    socket: &std::path::Path,
    identity: Identity,
    handle: Handle,
    clock: Arc<dyn Clock>,
) -> Result<oneshot::Sender<()>, ControlError> {
    let listening = control::listen(socket)?;
    let (commands, mut asked) = mpsc::channel(COMMANDS_WAITING);
    let seen = handle.clone();
    let snapshot = Arc::new(move || identity.snapshot(&seen, clock.as_ref()));
    let (stop, stopped) = oneshot::channel();
    spawn(async move {
        while let Some((command, reply)) = asked.recv().await {
            handle.tell(Message::Operator(command, reply)).await;
        }
    });
    spawn(async move {
        let stopped = async move {
            // A sender that is gone means the same as one that was used.
            let _ = stopped.await;
        };
        if let Err(error) = listening.serve(Control { snapshot, command: commands }, stopped).await
        {
            tracing::error!(%error, "the control socket failed");
        }
    });
    Ok(stop)
}

/// Commands that may wait for the loop.
const COMMANDS_WAITING: usize = 16;
