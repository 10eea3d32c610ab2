//! A changed configuration is taken over while the daemon runs.
//!
//! It is read and checked whole first. What is wrong with it is told, in the log and in the
//! status, and everything goes on with the old one. Where files live, where the API is and where
//! operators reach us stays as it was until the next start, and that is told too. Effects under
//! way end as they were begun.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::config::{Config, ConfigError};
use crate::engine::effect::Turn;
use crate::engine::ids::Millis;
use crate::store::salt;

use super::clients::Clients;
use super::perform::Performer;
use super::windows::timetable;
use super::{Daemon, SetupError, add, lock, supervisor};

/// Reads the configuration anew.
pub type Read = Box<dyn Fn() -> Result<Config, ConfigError> + Send>;

impl Daemon {
    /// Where a changed configuration is read. Without it there is nothing to reload.
    pub fn reload_from(&mut self, read: impl Fn() -> Result<Config, ConfigError> + Send + 'static) {
        self.read_config = Some(Box::new(read));
    }

    /// Takes over what is in the configuration now, or says why not.
    pub(super) fn reload(&mut self, turn: &mut Turn, now: Millis) {
        self.watchdog.reloading();
        let taken = self.take_over(turn, now);
        match &taken {
            Ok(left) if left.is_empty() => tracing::info!("the configuration was reloaded"),
            Ok(left) => {
                let left = left.join(", ");
                tracing::warn!(
                    left,
                    "the configuration was reloaded; what is left needs a restart"
                );
            }
            Err(why) => {
                tracing::error!(why, "the configuration was not reloaded; the old one stays");
            }
        }
        self.handle.notices().not_reloaded = taken.err();
        self.watchdog.ready();
    }

    /// Answers with what stays as it was until the next start.
    fn take_over(&mut self, turn: &mut Turn, now: Millis) -> Result<Vec<&'static str>, String> {
        let read = self.read_config.as_ref().ok_or("nobody said where to read it")?;
        let mut config = tokio::task::block_in_place(read).map_err(|error| error.to_string())?;
        let left = keep_what_is_fixed(&self.config, &mut config);
        let salt = salt::read(&config.folders.state).map_err(|error| error.to_string())?;
        let performer =
            performer(&self.performer, &config, &salt).map_err(|error| error.to_string())?;
        let policy = supervisor::policy_of(&config, performer.clients.keys().clone());
        let (rules, watch) = supervisor::intake_of(&config, self.handle.clone());
        self.intake.reconfigure(rules, config.intake.rescan, watch);
        self.room.want(config.limits.free_bytes);
        self.performer = Arc::new(performer);
        {
            let mut notices = self.handle.notices();
            notices.queues = config.queues.keys().cloned().collect();
            notices.timetable = Arc::new(timetable(&config));
        }
        self.performer.cache.want(config.cache_bytes);
        self.hooks.adopt(Arc::clone(&config.hooks));
        self.config = Arc::new(config);
        self.intake.name_queues(supervisor::queue_names(&self.config));
        let more = lock(&self.engine).adopt(policy, now);
        add(turn, more);
        self.intake.look(&self.handle, now);
        Ok(left)
    }
}

/// Puts back what can not be changed while files, batches and operators are where they are; names
/// what it was.
fn keep_what_is_fixed(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut left = Vec::new();
    if new.folders != old.folders {
        new.folders = old.folders.clone();
        left.push("the folders of the spool");
    }
    if new.control != old.control {
        new.control = old.control.clone();
        left.push("[control]");
    }
    let listen = |config: &Config| config.wakeup.as_ref().map(|wakeup| wakeup.listen);
    if listen(new) != listen(old) {
        new.wakeup = old.wakeup.clone();
        left.push("[webhook]");
    }
    if new.api.base_url != old.api.base_url {
        new.api.base_url = old.api.base_url.clone();
        left.push("api.base_url");
    }
    if new.api.version != old.api.version {
        new.api.version = old.api.version.clone();
        left.push("api.version");
    }
    left
}

/// What effects need, by another configuration.
fn performer(old: &Performer, config: &Config, salt: &str) -> Result<Performer, SetupError> {
    Ok(Performer {
        folders: old.folders.clone(),
        clients: Clients::open(config, salt)?,
        clock: Arc::clone(&old.clock),
        file_bytes: config.limits.file_bytes,
        inline_bytes: config.limits.inline_bytes,
        remote_cleanup: config.housekeeping.remote_cleanup,
        outbox_was_mounted: old.outbox_was_mounted,
        skew_told: AtomicBool::new(false),
        early: Arc::clone(&old.early),
        backoff_min: config.api.backoff_min,
        rescue_parallel: config.limits.rescue_parallel as usize,
        rescue_calls: supervisor::rescue_calls(config),
        notes: Arc::clone(&old.notes),
        media_turns: Arc::clone(&old.media_turns),
        dropped_late: Arc::clone(&old.dropped_late),
        cache: Arc::clone(&old.cache),
        free_bytes: config.limits.free_bytes,
    })
}
