//! When the inbox is looked at, and what is made of what is found.
//!
//! Events are hints; the scan is the truth. One scan runs at a time, on a thread of its own; hints
//! that come meanwhile ask for one more.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Config, duration_text};
use crate::engine::event::Event;
use crate::engine::ids::{JobId, Millis};
use crate::engine::job::{Queue, Refusal, Source};
use crate::spool::aside::{self, RefusedEntry};
use crate::spool::inbox::{IntakeRules, PassedOver, Refused, Scan, Scanner};
use crate::spool::watch::{WatchError, Watching};
use crate::spool::{Folders, SpoolError, sidecar};

use super::windows::Openings;
use super::{Handle, Message, deadlines, spawn};

/// The state of looking at the inbox.
pub struct Intake {
    folders: Folders,
    /// Away while a scan is running.
    scanner: Option<Scanner>,
    /// For the scanner when it is back.
    new_rules: Option<IntakeRules>,
    fresh: HashSet<PathBuf>,
    again: bool,
    rescan: Duration,
    next_look: Option<Millis>,
    /// In which queue the files of a sub-folder are; unknown until somebody says so.
    queue_names: Option<QueueNames>,
    watch: Watch,
    watching: Option<Watching>,
    /// When it was last tried to watch.
    tried: Option<Millis>,
    /// Why there are no events, as it was told.
    told: Option<String>,
    /// Whether the last scan left nothing behind that may become a job.
    quiet: bool,
    /// Whether the last scan brought files.
    found: bool,
    /// Refused entries that could not be moved away.
    left: HashSet<PathBuf>,
    /// The job id drawn last.
    last_id: Option<ulid::Ulid>,
}

/// Begins to watch the inbox: at the start, when it was replaced by another folder, and now and
/// then if there were no events to be had.
pub type Watch = Box<dyn Fn() -> Result<Watching, WatchError> + Send>;

/// In which queue the files of a sub-folder of the inbox are.
pub type QueueNames = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What a scan brought, on its way back to the loop.
pub struct Scanned {
    scanner: Scanner,
    scan: Result<Scan, SpoolError>,
}

impl Intake {
    /// Nothing looked at yet.
    pub fn new(folders: Folders, rules: IntakeRules, rescan: Duration, watch: Watch) -> Intake {
        Intake {
            queue_names: None,
            watching: None,
            tried: None,
            told: None,
            watch,
            folders,
            scanner: Some(Scanner::new(rules)),
            new_rules: None,
            fresh: HashSet::new(),
            again: false,
            rescan,
            next_look: None,
            quiet: false,
            found: false,
            left: HashSet::new(),
            last_id: None,
        }
    }

    /// Other rules from now on.
    pub fn reconfigure(&mut self, rules: IntakeRules, rescan: Duration, watch: Watch) {
        (self.new_rules, self.rescan, self.watch) = (Some(rules), rescan, watch);
        (self.watching, self.tried) = (None, None);
    }

    /// How queues are named from now on: those that are paused are passed over.
    pub fn name_queues(&mut self, names: QueueNames) {
        self.queue_names = Some(names);
    }

    /// Watches the inbox, if that is not done yet, or should be done anew. That there are no
    /// events is told once, and so is when there are some again.
    pub fn keep_watching(&mut self, now: Millis) {
        let due = self.tried.is_none_or(|tried| now < tried || now.since(tried) >= TRIED_AGAIN_MS);
        let anew = match &self.watching {
            Some(watching) => watching.is_stale() || watching.is_limited() && due,
            None => due,
        };
        if !anew {
            return;
        }
        self.tried = Some(now);
        let why;
        (why, self.watching) = match (self.watch)() {
            Ok(watching) => (watching.polling.clone(), Some(watching)),
            Err(error) => (Some(error.to_string()), None),
        };
        if why == self.told {
            return;
        }
        let every = duration_text(self.rescan);
        match &why {
            Some(why) => {
                tracing::warn!(why, every, "no events from the inbox; it is looked at regularly");
            }
            None => tracing::info!("there are events from the inbox again"),
        }
        self.told = why;
    }

    /// `events` or `polling`.
    pub fn watching_word(&self) -> &'static str {
        match &self.watching {
            Some(watching) if watching.polling.is_none() => "events",
            Some(_) | None => "polling",
        }
    }

    /// Asks for the first scan.
    pub fn scan_soon(&mut self, handle: &Handle) {
        handle.hint(Message::Look);
    }

    /// When to look again, if nobody asks before.
    pub fn next_look(&self) -> Option<Millis> {
        self.next_look.filter(|_| self.scanner.is_some())
    }

    /// Whether the inbox holds nothing that may still become a job.
    pub fn is_quiet(&self) -> bool {
        self.quiet && self.scanner.is_some() && !self.again && self.fresh.is_empty()
    }

    /// Whether the last scan brought files, so that there may be more.
    pub fn found_something(&self) -> bool {
        self.scanner.is_some() && self.found
    }

    /// A path was renamed into the inbox.
    pub fn renamed_in(&mut self, path: PathBuf, handle: &Handle, now: Millis) {
        if self.fresh.len() < FRESH_MAX {
            self.fresh.insert(path);
        }
        self.look(handle, now);
    }

    /// Starts a scan, or remembers that one is wanted.
    pub fn look(&mut self, handle: &Handle, now: Millis) {
        let Some(mut scanner) = self.scanner.take() else {
            self.again = true;
            return;
        };
        // What was given out still lies there until it is claimed, and would only be found again.
        let pause = handle.with_engine(|engine| match engine.full() {
            // A record of each file would only make a full disk fuller.
            Some(_) => Some(FULL_PAUSE_MS),
            // Whoever ends that looks at once.
            None if engine.kept_from_new().is_some() => Some(PAUSED_MS),
            None if engine.claims_waiting() > GIVEN_OUT_MAX / 2 => Some(CLAIMS_PAUSE_MS),
            None => None,
        });
        if let Some(pause) = pause {
            self.scanner = Some(scanner);
            self.next_look = Some(now.plus(pause));
            return;
        }
        self.next_look = None;
        self.keep_watching(now);
        handle.notices().watching = self.watching_word();
        if let Some(rules) = self.new_rules.take() {
            scanner.set_rules(rules);
        }
        let pauses = handle.with_engine(|engine| engine.pauses().clone());
        let names = self.queue_names.clone().filter(|_| !pauses.is_empty());
        scanner.pass_over(names.map(|name_of| -> PassedOver {
            Box::new(move |folder| pauses.cover(&name_of(folder)))
        }));
        let (folders, fresh) = (self.folders.clone(), std::mem::take(&mut self.fresh));
        let handle = handle.clone();
        spawn(async move {
            let work = move || {
                let scan = scanner.scan(&folders, now, &fresh, GIVEN_OUT_MAX);
                Scanned { scanner, scan }
            };
            if let Ok(scanned) = tokio::task::spawn_blocking(work).await {
                handle.tell(Message::Scanned(Box::new(scanned))).await;
            }
        });
    }

    /// Turns what a scan found into events, and what can never become a job into refusals.
    pub fn scanned(
        &mut self,
        scanned: Scanned,
        config: &Config,
        handle: &Handle,
        clock: &dyn Clock,
    ) -> Vec<Event> {
        let now = clock.now();
        self.scanner = Some(scanned.scanner);
        let mut events = Vec::new();
        let mut next = now.plus(u64::try_from(self.rescan.as_millis()).unwrap_or(u64::MAX));
        match scanned.scan {
            Ok(scan) => {
                self.found = !scan.ready.is_empty();
                self.quiet = scan.ready.is_empty() && scan.next_look.is_none();
                next = scan.next_look.map_or(next, |at| next.min(at));
                if scan.more {
                    next = now.plus(CLAIMS_PAUSE_MS);
                }
                for trouble in &scan.troubles {
                    tracing::warn!(%trouble, "a part of the inbox could not be looked at");
                }
                let mut left = HashSet::new();
                for refused in scan.refused {
                    if self.refuse(&refused) == Some(RefusedEntry::Left) {
                        left.insert(refused.path);
                    }
                }
                self.left = left;
                let mut openings = Openings::default();
                let ready = scan.ready.into_iter().zip(scan.came).enumerate();
                for (place, (source, came)) in ready {
                    let settings = scan.sidecars.get(&place);
                    let mut queue = queue_of(&source, settings, config);
                    queue.moments.opens = openings.of(&queue, came, now);
                    queue.moments.deliver_by = deadlines::deliver_by(&queue, now);
                    let id = fresh_id(now, &mut self.last_id);
                    events.push(Event::Arrived { id, source, queue });
                }
            }
            Err(error) => {
                (self.quiet, self.found) = (false, false);
                tracing::error!(%error, "the inbox can not be read; it is tried again");
            }
        }
        self.next_look = Some(next);
        if std::mem::take(&mut self.again) {
            self.look(handle, now);
        }
        events
    }
}

impl Intake {
    /// Moves to `failed/` what will never be a job. What can not be moved is found again by every
    /// scan, and told once.
    fn refuse(&self, refused: &Refused) -> Option<RefusedEntry> {
        let Refused { path, refusal } = refused;
        if !self.left.contains(path) {
            let (shown, reason) = (path.display().to_string(), &refusal.reason);
            tracing::warn!(path = shown, reason, "refused; see the reason file in failed/");
        }
        match aside::refuse_in_place(&self.folders, path, refusal) {
            Ok(entry) => Some(entry),
            Err(error) => {
                tracing::error!(%error, "a refused file could not be moved to failed/");
                None
            }
        }
    }
}

/// The settings a file is answered with: those of its queue, and over them what lies beside it.
fn queue_of(source: &Source, settings: Option<&Result<String, Refusal>>, config: &Config) -> Queue {
    let refused =
        |refusal| Queue { wrong: Some(Box::new(refusal)), ..config.queue_for(&source.folder) };
    match settings {
        None => config.queue_for(&source.folder),
        Some(Err(refusal)) => refused(refusal.clone()),
        Some(Ok(text)) => {
            let name = source.sidecar.as_deref().unwrap_or_default();
            config.queue_beside(&source.folder, name, text).unwrap_or_else(|error| {
                let what = format!("its settings are wrong: {}", error.listed());
                refused(sidecar::wrong(&what, Some(name)))
            })
        }
    }
}

/// A new job id: the time in front, so that ids sort by it, and 80 random bits. Ids of the same
/// millisecond go up, so that files found together keep their order.
fn fresh_id(now: Millis, last: &mut Option<ulid::Ulid>) -> JobId {
    let after =
        last.filter(|last| last.timestamp_ms() == now.0).and_then(|last| last.increment().ok());
    let id =
        after.unwrap_or_else(|| ulid::Ulid::from_parts(now.0, ulid::Ulid::generate().random()));
    *last = Some(id);
    id.to_string().parse().expect("a ULID has 26 digits and capital letters")
}

/// So many paths are remembered as complete; beyond that, files settle like copied ones.
const FRESH_MAX: usize = 10_000;
/// Files given out by one scan, so that a full inbox is taken in by parts, oldest first.
const GIVEN_OUT_MAX: usize = 1000;
/// How soon to look again while the disk is too full to take on more, milliseconds.
const FULL_PAUSE_MS: u64 = 500;
/// How soon to look again while nothing new is taken in, milliseconds.
const PAUSED_MS: u64 = 60_000;
/// Where there were no events to be had, it is tried again after so long, milliseconds.
const TRIED_AGAIN_MS: u64 = 60_000;
/// How soon to look again while files that were given out wait to be claimed, milliseconds.
const CLAIMS_PAUSE_MS: u64 = 20;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::spool::watch::{WatchMode, watch};

    fn intake(folder: &Path, watch: Watch) -> Intake {
        let rules = IntakeRules { settle_ms: 0, ignore: Vec::new() };
        Intake::new(Folders::below(folder), rules, Duration::from_secs(60), watch)
    }

    /// Fault 37.
    #[test]
    fn where_there_are_no_events_it_is_tried_again_once_a_minute() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (tries, inbox) = (Arc::new(AtomicUsize::new(0)), folder.path().to_owned());
        let counted = Arc::clone(&tries);
        let mut intake = intake(
            folder.path(),
            Box::new(move || match counted.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(Watching::limited(&inbox, "used up".to_owned())),
                1 => watch(&inbox.join("no"), WatchMode::Auto, |_| {}),
                _ => watch(&inbox, WatchMode::Events, |_| {}),
            }),
        );
        let tried = |intake: &mut Intake, at| {
            intake.keep_watching(Millis(at));
            (tries.load(Ordering::Relaxed), intake.watching_word(), intake.told.is_some())
        };
        assert_eq!(tried(&mut intake, 1_000), (1, "polling", true));
        assert_eq!(tried(&mut intake, 60_999), (1, "polling", true));
        assert_eq!(tried(&mut intake, 61_000), (2, "polling", true));
        assert_eq!(tried(&mut intake, 1_000_000), (3, "events", false));
        assert_eq!(tried(&mut intake, 9_000_000), (3, "events", false));
    }
}
