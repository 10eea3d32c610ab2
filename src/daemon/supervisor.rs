//! Opening everything in the right order before the loop starts: folders, lock, store, records,
//! client, watcher.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::{Semaphore, mpsc};

use crate::clock::Clock;
use crate::config::{self, Config, KeyProblem};
use crate::engine::job::JobState;
use crate::engine::policy::{Duplicates, Policy, Uncertain};
use crate::engine::rescue::RescuePace;
use crate::engine::{Engine, Keys, Recollection};
use crate::provider::gemini::ClientError;
use crate::provider::gemini::key::KeyError;
use crate::spool::SpoolError;
use crate::spool::cache::Cache;
use crate::spool::inbox::IntakeRules;
use crate::spool::outbox;
use crate::spool::watch::{self, Hint, WatchMode};
use crate::store::instance::{self, Standing};
use crate::store::{DaemonStore, JobStore, StoreError, salt};

use super::chronicle::Chronicle;
use super::clients::Clients;
use super::hooks::Hooks;
use super::housekeeping::Rounds;
use super::intake::{Intake, QueueNames, Watch};
use super::mood::Mood;
use super::perform::Performer;
use super::rebuild::{self, RebuildError};
use super::room::Room;
use super::signals::Watchdog;
use super::story::Story;
use super::windows::timetable;
use super::{Daemon, Handle, Message, Notices, calendar, commands};

/// A daemon that is ready to run.
pub struct Setup {
    /// The daemon.
    pub daemon: Daemon,
}

/// Why the daemon can not start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is no API key.
    #[error(transparent)]
    NoKey(#[from] KeyProblem),
    /// The API key can not be one.
    #[error(transparent)]
    BadKey(#[from] KeyError),
    /// The API's address or the like is wrong.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Another daemon works on this spool, or records can not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A folder can not be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A lost store could not be rebuilt.
    #[error("the lost job store could not be rebuilt: {0}")]
    Rebuild(#[from] RebuildError),
}

impl SetupError {
    /// Whether it is a matter of room on the disk, so that it passes when there is more.
    pub fn is_about_room(&self) -> bool {
        match self {
            SetupError::Store(error) => error.is_about_room(),
            SetupError::Spool(error) => error.is_about_room(),
            SetupError::Rebuild(RebuildError::Store(error)) => error.is_about_room(),
            SetupError::Rebuild(RebuildError::Spool(error)) => error.is_about_room(),
            SetupError::NoKey(_) | SetupError::BadKey(_) | SetupError::Client(_) => false,
        }
    }
}

impl Setup {
    /// Opens folders, lock, store, client and watcher, in that order.
    ///
    /// # Errors
    /// If one of them can not be had; nothing is begun then.
    pub fn open(config: Arc<Config>, clock: Arc<dyn Clock>) -> Result<Setup, SetupError> {
        // What is wrong with the keys is told before anything is made.
        Clients::check(&config)?;
        let folders = config.folders.clone();
        folders.prepare()?;
        let standing = instance::check(&folders.state)?;
        let (opened, mut recollection) = DaemonStore::open_and_read(
            &folders.state,
            DaemonStore::FREE_BYTES_MIN,
            Recollection::take_in,
        )?;
        let clients = Clients::open(&config, &salt::read_or_make(&folders.state)?)?;
        let (mut store, policy) = (opened.store, policy_of(&config, clients.keys().clone()));
        if let Some(quarantine) = &opened.quarantined {
            let (kept, why) = (quarantine.folder.display().to_string(), &quarantine.reason);
            tracing::error!(kept, why, "the job store could not be used and was set aside");
            let jobs = rebuild::rebuild(&folders, &mut store, &policy, clock.now())?;
            tracing::error!(jobs, "the jobs under way were rebuilt from their working folders");
        }
        if standing == Standing::Restored {
            let doubted = rebuild::doubt_all(&mut store, &policy, clock.now())?;
            tracing::error!(
                doubted,
                "this state is a copy or was restored: whatever may have been sent since is looked \
                 for at the API before it is sent"
            );
        }
        instance::settle(&folders.state)?;
        let mut room = Room::of(&folders, config.limits.free_bytes);
        if opened.quarantined.is_some() || standing == Standing::Restored {
            // They are others by now.
            recollection = Recollection::default();
            store.each_job(&mut |job| recollection.take_in(job))?;
        }
        recollection.room(room.full().map(str::to_owned));
        recollection.pause(commands::saved_pauses(&store)?);
        for (name, value) in store.notes()? {
            recollection.note(&name, &value);
        }
        recollection.periods(calendar::periods(clock.now(), &TimeZone::system()));
        let (engine, first_turn) = recollection.resume(policy, clock.now());
        if let Some(why) = engine.full() {
            tracing::error!(why, "too little room");
        }
        if !engine.pauses().is_empty() {
            let pauses = engine.pauses();
            tracing::warn!(all = pauses.all, queues = ?pauses.queues, "paused by an operator");
        }
        if opened.quarantined.is_none() {
            rebuild::tell_orphans(&folders, &engine);
        }
        let engine = Arc::new(Mutex::new(engine));
        let (sender, messages) = mpsc::channel(MESSAGES_WAITING);
        let queues = config.queues.keys().cloned().collect();
        let timetable = Arc::new(timetable(&config));
        let notices = Notices { watching: "polling", queues, timetable, ..Notices::default() };
        let notices = Arc::new(Mutex::new(notices));
        let chronicle = Arc::new(Chronicle::open(&folders.state));
        let engine_of_it = Arc::clone(&engine);
        let handle = Handle { engine: engine_of_it, messages: sender, notices, chronicle };
        let (rules, watch) = intake_of(&config, handle.clone());
        let mut intake = Intake::new(folders.clone(), rules, config.intake.rescan, watch);
        intake.name_queues(queue_names(&config));
        let cache = Arc::new(Cache::of(&folders.state, config.cache_bytes));
        let performer = Arc::new(Performer {
            outbox_was_mounted: outbox::is_mounted(&folders)?,
            folders,
            clients,
            clock: Arc::clone(&clock),
            file_bytes: config.limits.file_bytes,
            inline_bytes: config.limits.inline_bytes,
            remote_cleanup: config.housekeeping.remote_cleanup,
            skew_told: AtomicBool::new(false),
            early: Arc::default(),
            backoff_min: config.api.backoff_min,
            rescue_parallel: config.limits.rescue_parallel as usize,
            rescue_calls: rescue_calls(&config),
            notes: Arc::default(),
            media_turns: Arc::default(),
            dropped_late: Arc::default(),
            cache,
            free_bytes: config.limits.free_bytes,
        });
        let (told, state) = (Arc::clone(&config.hooks), &performer.folders.state);
        let hooks = Hooks::open(state, told, handle.clone(), Arc::clone(&clock));
        let daemon = Daemon {
            engine,
            store: Box::new(store),
            performer,
            clock,
            config,
            intake,
            messages,
            put_back: None,
            read_config: None,
            rounds: Rounds::default(),
            swept: false,
            handle,
            watchdog: Watchdog::from_environment(),
            room,
            first_turn: Some(first_turn),
            touched: BTreeSet::new(),
            mirrors_owed: BTreeSet::new(),
            told: BTreeMap::new(),
            story: Story::default(),
            mood: Mood::default(),
            hooks,
        };
        Ok(Setup { daemon })
    }
}

/// The rules of the intake, and how the inbox is watched.
pub(super) fn intake_of(config: &Config, handle: Handle) -> (IntakeRules, Watch) {
    let rules = IntakeRules {
        settle_ms: millis(config.intake.settle),
        ignore: config.intake.ignore.clone(),
    };
    let mode = match config.intake.watch {
        config::Watch::Auto => WatchMode::Auto,
        config::Watch::Events => WatchMode::Events,
        config::Watch::Poll => WatchMode::Poll,
    };
    let inbox = config.folders.inbox.clone();
    let watch = move || {
        let handle = handle.clone();
        watch::watch(&inbox, mode, move |hint| match hint {
            Hint::Look => handle.hint(Message::Look),
            Hint::RenamedIn(path) => handle.hint(Message::RenamedIn(path)),
        })
    };
    (rules, Box::new(watch))
}

/// In which queue the files of a sub-folder of the inbox are.
pub(super) fn queue_names(config: &Arc<Config>) -> QueueNames {
    let config = Arc::clone(config);
    Arc::new(move |folder| config.queue_for(folder).name)
}

/// Who may ask for a single row: so many at a time.
pub(super) fn rescue_calls(config: &Config) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(config.limits.rescue_parallel as usize))
}

/// The engine's numbers out of the configuration.
pub fn policy_of(config: &Config, keys: Keys) -> Policy {
    Policy {
        open_batches: config.limits.open_batches as usize,
        storage_bytes: config.limits.storage_bytes,
        uploads: config.limits.uploads as usize,
        inline_bytes: config.limits.inline_bytes,
        poll_min_ms: millis(config.poll.min),
        poll_max_ms: millis(config.poll.max),
        backoff_min_ms: millis(config.api.backoff_min),
        backoff_max_ms: millis(config.api.backoff_max),
        uncertain: match config.api.uncertain {
            config::Uncertain::Resubmit => Uncertain::Resubmit,
            config::Uncertain::Hold => Uncertain::Hold,
        },
        uncertain_window_ms: millis(config.api.uncertain_window),
        duplicates: match config.intake.duplicates {
            config::Duplicates::Hold => Duplicates::Hold,
            config::Duplicates::Process => Duplicates::Process,
        },
        duplicate_window_ms: millis(config.intake.duplicate_window),
        records_keep_ms: millis(config.housekeeping.records_keep),
        remote_cleanup: config.housekeeping.remote_cleanup,
        rescue: RescuePace {
            parallel: u64::from(config.limits.rescue_parallel),
            ..RescuePace::default()
        },
        keys,
        means: config.means.clone(),
    }
}

/// What `systemctl status` shows: jobs by state, and what a person should look at, if anything.
pub fn status_line(handle: &Handle) -> String {
    let mut line = handle.with_engine(jobs_line);
    if handle.notices().not_reloaded.is_some() {
        line.push_str("; the changed configuration is WRONG and not in force");
    }
    line
}

/// Jobs by state, and why nothing is sent, if so.
fn jobs_line(engine: &Engine) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for job in engine.jobs() {
        *counts.entry(state_word(&job.head.state)).or_default() += 1;
    }
    for (state, count) in engine.past().older_counts() {
        *counts.entry(state).or_default() += count;
    }
    let counts: Vec<String> =
        counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let jobs = if counts.is_empty() { "no jobs".to_owned() } else { counts.join(", ") };
    let closed = engine.gate().filter(|gate| gate.mend.is_some()).map(|gate| gate.message.as_str());
    match engine.full().or(closed).or(engine.kept_from_new()) {
        Some(why) => format!("{jobs}; PAUSED: {why}"),
        None => jobs,
    }
}

/// The product's word for a job's state.
pub fn state_word(state: &JobState) -> &'static str {
    match state {
        JobState::Claiming | JobState::Planning => "claimed",
        JobState::Active(_) => "active",
        JobState::Merging(_) | JobState::Delivering(_) | JobState::Cleaning(_) => "merging",
        JobState::Done(delivery) if delivery.plan.cancelled => "cancelled",
        JobState::Done(_) => "done",
        JobState::Refusing(_) | JobState::Failed(_) => "failed",
        JobState::Holding(_) | JobState::Held(_) => "held",
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Messages that may wait for the loop.
const MESSAGES_WAITING: usize = 4096;
