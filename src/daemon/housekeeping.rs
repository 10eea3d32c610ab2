//! What is tidied up in the quiet hours: old archives, old exports, and what was left at the API.
//!
//! Nothing here is needed for a job to end well.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::Instrument;

use crate::engine::effect::Turn;
use crate::engine::event::Event;
use crate::engine::ids::Millis;
use crate::spool::{At, Folders, SpoolError, archive, durable, reports};
use crate::store::{JobStore, StoreError, export};

use super::perform::Performer;
use super::sweep::{self, Known};
use super::{Daemon, add, lock, schedule, spawn};

impl Daemon {
    /// Keeps house if a slot has come. One that comes while the last round is still under way, or
    /// while the clock can not be right, is passed over.
    pub(super) fn housekeeping_due(&mut self, turn: &mut Turn, now: Millis) {
        let schedule = &self.config.housekeeping.schedule;
        match schedule::take_slot(schedule, self.store.as_mut(), now) {
            Ok(true) => self.swept = true,
            Ok(false) => return self.sweep_after_start(),
            Err(error) => {
                tracing::error!(%error, "housekeeping could not be scheduled");
                return;
            }
        }
        let skew_ms = self.performer.clients.server_time_skew(now).unwrap_or(0);
        if skew_ms.unsigned_abs() > CLOCK_OFF_MS {
            let hours = skew_ms.unsigned_abs() / 3_600_000;
            tracing::error!(
                "this machine's clock is {hours} hours off the API's: nothing is removed for its age"
            );
            return;
        }
        let Some(round) = self.rounds.begin() else {
            tracing::warn!(
                "the last round of housekeeping is still under way; this one is left out"
            );
            return;
        };
        let more = lock(&self.engine).handle(Event::Housekeeping, now);
        add(turn, more);
        self.keep_house(round, now);
    }

    fn keep_house(&self, round: Round, now: Millis) {
        let folders = &self.performer.folders;
        let exported =
            tokio::task::block_in_place(|| export_records(self.store.as_ref(), folders, now));
        if let Err(error) = exported {
            tracing::error!(%error, "the records could not be exported");
        }
        let known = Known::of(&lock(&self.engine));
        let chores = Chores {
            performer: Arc::clone(&self.performer),
            archive_keep: self.config.housekeeping.archive_keep,
            reports_keep: self.config.report.keep,
            answers_keep_ms: self.longest_cache_ms(),
            known,
            now,
        };
        let work = async move {
            chores.run().await;
            drop(round);
        };
        spawn(work.instrument(tracing::info_span!("housekeeping")));
    }
}

impl Daemon {
    /// For how long any queue uses answers again; files may say so where no queue does.
    fn longest_cache_ms(&self) -> u64 {
        let longest = self.config.queues.values().map(|queue| queue.cache_ms).max().unwrap_or(0);
        if longest == 0 { ANSWERS_KEEP_MS } else { longest }
    }
}

/// Sees to it that no round begins while another is under way.
#[derive(Debug, Default)]
pub struct Rounds {
    under_way: Arc<AtomicBool>,
}

/// A round under way, until it is dropped.
#[derive(Debug)]
pub struct Round {
    under_way: Arc<AtomicBool>,
}

impl Rounds {
    /// Begins a round; `None` while one is under way.
    pub fn begin(&self) -> Option<Round> {
        let begun = !self.under_way.swap(true, Ordering::AcqRel);
        begun.then(|| Round { under_way: Arc::clone(&self.under_way) })
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.under_way.store(false, Ordering::Release);
    }
}

/// One round of housekeeping.
pub struct Chores {
    /// Folders and client.
    pub performer: Arc<Performer>,
    /// How long inputs stay in the archive.
    pub archive_keep: Duration,
    /// How long reports stay in the outbox.
    pub reports_keep: Duration,
    /// How long answers are kept to be used again, milliseconds.
    pub answers_keep_ms: u64,
    /// What is known of the jobs.
    pub known: Known,
    /// When the round began.
    pub now: Millis,
}

impl Chores {
    /// Does the round; what fails is told and left for the next one.
    pub async fn run(self) {
        let folders = self.performer.folders.clone();
        let before = |keep: Duration| {
            let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
            Millis(self.now.0.saturating_sub(keep_ms))
        };
        let (inputs, old_reports) = (before(self.archive_keep), before(self.reports_keep));
        let (cache, answers_keep_ms) = (Arc::clone(&self.performer.cache), self.answers_keep_ms);
        let now = self.now;
        let sweep = move || {
            cache.sweep(answers_keep_ms, now);
            reports::sweep(&folders, old_reports)?;
            archive::sweep_archive(&folders, inputs)
        };
        match tokio::task::spawn_blocking(sweep).await {
            Ok(Ok(removed)) => tracing::info!(removed, "old inputs were removed from the archive"),
            Ok(Err(error)) => tracing::warn!(%error, "housekeeping on disk did not finish"),
            Err(error) => tracing::error!(%error, "housekeeping on disk ended badly"),
        }
        if self.performer.remote_cleanup {
            sweep::sweep(&self.performer, &self.known).await;
        }
    }
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The records can not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The export can not be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Writes all records as today's export, one after the other, and removes all exports but the
/// newest few.
///
/// # Errors
/// If the records can not be read, or the export not be written; the older ones stay then.
pub fn export_records(
    store: &dyn JobStore,
    folders: &Folders,
    now: Millis,
) -> Result<(), ExportError> {
    let folder = &folders.state.join("exports");
    durable::make_folder(folder)?;
    let millis = i64::try_from(now.0).unwrap_or(i64::MAX);
    let day = jiff::Timestamp::from_millisecond(millis).unwrap_or_default().strftime("%Y-%m-%d");
    let aside = folder.join(".export.aside");
    if let Err(error) = write_export(store, &aside) {
        // A full disk is not made fuller by what tells nothing.
        drop(std::fs::remove_file(&aside));
        return Err(error);
    }
    durable::rename(&aside, &folder.join(format!("{day}.jsonl")))?;
    let entries = std::fs::read_dir(folder).at("list", folder)?;
    let mut exports: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    exports.sort();
    for old in exports.iter().rev().skip(EXPORTS_KEPT) {
        std::fs::remove_file(old).at("remove", old)?;
    }
    Ok(())
}

fn write_export(store: &dyn JobStore, path: &Path) -> Result<(), ExportError> {
    let mut file = BufWriter::new(File::create(path).at("write", path)?);
    export::export(store, &mut file)?;
    file.get_ref().sync_all().at("sync", path)?;
    Ok(())
}

/// A clock that is off by more is not asked what is old, milliseconds.
const CLOCK_OFF_MS: u64 = 86_400_000;
/// Answers of files that alone have a cache are kept so long, milliseconds: 30 days.
const ANSWERS_KEEP_MS: u64 = 30 * 86_400_000;
/// Daily exports that are kept.
const EXPORTS_KEPT: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 80.
    #[test]
    fn no_round_begins_while_another_is_under_way() {
        let rounds = Rounds::default();
        let first = rounds.begin().expect("the first");
        assert!(rounds.begin().is_none());
        drop(first);
        assert!(rounds.begin().is_some());
    }
}
