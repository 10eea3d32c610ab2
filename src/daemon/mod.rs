//! The only place where the parts meet: the loop that takes what happened, lets the engine decide,
//! saves, and then acts.
//!
//! One task owns the store and consumes every turn in the same order: save, mirror, then begin
//! the effects. Effects run as tasks of their own and come back as events. A store that can not
//! save ends the process: a restart reads again what is really on disk.

mod blocking;
pub mod calendar;
mod canary;
mod chronicle;
pub mod clients;
mod commands;
mod create;
mod deadlines;
mod early;
mod ending;
pub mod failpoints;
mod handle;
mod harvest;
pub mod hooks;
pub mod housekeeping;
mod intake;
mod log;
mod looks;
mod media;
mod mood;
mod morning;
pub mod operators;
mod payload;
pub mod perform;
pub mod rebuild;
mod reload;
mod rescue;
mod reuse;
mod room;
mod saved;
pub mod schedule;
pub mod signals;
mod story;
mod supervisor;
pub mod sweep;
pub mod token;
pub mod wakeup;
pub mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::Instrument;

use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Refused, Reply};
use crate::engine::effect::{Issued, Turn};
use crate::engine::event::Event;
use crate::engine::ids::{JobId, Millis};
use crate::engine::{Engine, Mend};
use crate::store::{JobStore, StoreError};
use crate::view::Kind;

use chronicle::Draft;
use hooks::Hooks;
use intake::Intake;
use log::{span_of, tell_failure};
use mood::Mood;
use perform::Performer;
use room::Room;
use story::Story;

pub use handle::{Handle, Message, Notices};
pub use supervisor::{Setup, SetupError, policy_of};

/// When the loop ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Never.
    Stopped,
    /// When the inbox is empty and every job is over.
    Idle,
}

/// Why the loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Nothing is left to do, or nothing that was taken in. These jobs were worked on.
    Idle(BTreeSet<JobId>),
    /// The API refuses the key, and nothing is under way.
    Denied(String),
    /// A certificate, a proxy or a redirect stands in the way, and nothing is under way.
    Barred(String),
    /// The disk is too full to take on more, and nothing is under way.
    Full(String),
}

/// What ends the loop against its will.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Records can not be saved any more.
    #[error("the job store failed: {0}")]
    Store(#[from] StoreError),
}

/// The daemon before it runs.
pub struct Daemon {
    engine: Arc<Mutex<Engine>>,
    store: Box<dyn JobStore>,
    performer: Arc<Performer>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    intake: Intake,
    messages: mpsc::Receiver<Message>,
    /// A message that was taken too early.
    put_back: Option<Message>,
    read_config: Option<reload::Read>,
    rounds: housekeeping::Rounds,
    /// Whether remains at the API were looked for since the start.
    swept: bool,
    handle: Handle,
    watchdog: signals::Watchdog,
    room: Room,
    first_turn: Option<Turn>,
    touched: BTreeSet<JobId>,
    /// Jobs whose mirror could not be written.
    mirrors_owed: BTreeSet<JobId>,
    told: BTreeMap<JobId, &'static str>,
    story: Story,
    mood: Mood,
    hooks: Hooks,
}

impl Daemon {
    /// A way to speak to the daemon while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until it is stopped, or nothing is left to do.
    ///
    /// # Errors
    /// If records can not be saved. Everything saved before stays as it is.
    pub async fn run(mut self, until: Until) -> Result<Ended, DaemonError> {
        let ended = self.work(until).await;
        if let Err(error) = &ended {
            self.watchdog.failing(&error.to_string());
        }
        // Whoever runs it now and then wants to be told now; a daemon tells it at its next start.
        if until == Until::Idle && !matches!(ended, Ok(Ended::Stopped)) {
            self.hooks.rest(self.config.hooks.timeout).await;
        }
        ended
    }

    async fn work(&mut self, until: Until) -> Result<Ended, DaemonError> {
        self.story.recall(lock(&self.engine).unfinished());
        self.hooks.begin();
        let version = env!("CARGO_PKG_VERSION");
        self.note(Draft::of_daemon(Kind::Started, format!("gemini-batchd {version}")));
        if let Some(turn) = self.first_turn.take() {
            self.consume(Turn { save: turn.save, then: Vec::new() })?;
            // Before the first effect: what it changes may be all that is known of it later.
            tokio::task::block_in_place(|| self.mend_mirrors());
            self.consume(Turn { save: Vec::new(), then: turn.then })?;
        }
        self.catch_up_report();
        self.intake.scan_soon(&self.handle);
        self.watchdog.ready();
        loop {
            self.watchdog.feed();
            let handle = &self.handle;
            self.watchdog.status(|| supervisor::status_line(handle));
            self.look_for_room()?;
            self.look_at_the_calendar()?;
            self.tell_mood();
            if self.performer.dropped_late.swap(false, Ordering::Relaxed) {
                self.intake.look(&self.handle, self.clock.now());
            }
            if self.is_drained() {
                return Ok(Ended::Idle(self.touched.clone()));
            }
            if until == Until::Idle {
                match self.idle() {
                    Some(ended) => return Ok(ended),
                    None => self.look_once_more(),
                }
            }
            let Some(message) = self.next_message().await else { return Ok(Ended::Stopped) };
            match message {
                Message::Stop => return self.wind_down().await,
                Message::StopNow => return Ok(Ended::Stopped),
                other => self.take_in(other)?,
            }
        }
    }

    /// Tells the engine when the disk gets too full to take on more, and when it is not any more.
    fn look_for_room(&mut self) -> Result<(), DaemonError> {
        let full = self.room.full();
        let known = lock(&self.engine).full().map(str::to_owned);
        match (full, &known) {
            (Some(why), None) => tracing::error!(why, "too little room"),
            (None, Some(_)) => tracing::info!("there is room again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        if full == known.as_deref() {
            return Ok(());
        }
        let room = Event::Room(full.map(str::to_owned));
        let turn = lock(&self.engine).handle(room, self.clock.now());
        self.consume(turn)
    }

    /// The next thing to react to; the passing of time is one.
    async fn next_message(&mut self) -> Option<Message> {
        if let Some(message) = self.put_back.take() {
            return Some(message);
        }
        let now = self.clock.now();
        let wakeup = lock(&self.engine).next_wakeup();
        let look = self.intake.next_look();
        let longest = self.watchdog.patience().min(self.room.patience()).min(LONGEST_SLEEP);
        let until = |at: Millis| self.clock.wait(at.since(now));
        let tick = wakeup.map_or(longest, |at| until(at).min(longest));
        let look = look.map_or(Duration::MAX, until);
        let (pause, due) = match look < tick {
            true => (look, Message::Look),
            false => (tick, Message::Event(Box::new(Event::Tick))),
        };
        tokio::select! {
            biased;
            message = self.messages.recv() => message,
            () = tokio::time::sleep(pause) => Some(due),
        }
    }

    /// Takes in a message, and whatever else has come meanwhile, so that one save serves all.
    fn take_in(&mut self, first: Message) -> Result<(), DaemonError> {
        let mut turn = Turn::default();
        let mut answers = Vec::new();
        let mut next = Some(first);
        let mut left = MESSAGES_A_SAVE;
        while let Some(message) = next.take() {
            self.react(message, &mut turn, &mut answers)?;
            left -= 1;
            next = match left {
                0 => None,
                _ => self.next_waiting(),
            };
        }
        self.consume(turn)?;
        for (answer, result) in answers {
            let _ = answer.send(result);
        }
        Ok(())
    }

    /// A message that waits already, unless it is one that must be seen by the loop itself.
    fn next_waiting(&mut self) -> Option<Message> {
        match self.messages.try_recv() {
            Ok(stop @ (Message::Stop | Message::StopNow)) => {
                self.put_back = Some(stop);
                None
            }
            Ok(message) => Some(message),
            Err(_) => None,
        }
    }

    fn react(
        &mut self,
        message: Message,
        turn: &mut Turn,
        answers: &mut Vec<Answer>,
    ) -> Result<(), DaemonError> {
        let now = self.clock.now();
        match message {
            Message::Event(event) => {
                let more = lock(&self.engine).handle(*event, now);
                add(turn, more);
            }
            Message::Look => self.intake.look(&self.handle, now),
            Message::RenamedIn(path) => self.intake.renamed_in(path, &self.handle, now),
            Message::Scanned(scanned) => {
                for event in
                    self.intake.scanned(*scanned, &self.config, &self.handle, self.clock.as_ref())
                {
                    let more = lock(&self.engine).handle(event, now);
                    add(turn, more);
                    // A full inbox is taken in by parts: no save grows with it.
                    if turn.save.len() >= CHANGES_A_SAVE {
                        self.consume(std::mem::take(turn))?;
                    }
                }
            }
            Message::Operator(command, answer) => {
                self.operate((command, answer), turn, answers, now)?;
            }
            Message::HousekeepingDue => {
                self.mend_windows(turn, now);
                self.housekeeping_due(turn, now);
                self.report_due(now);
            }
            Message::Report(since, answer) => {
                match tokio::task::block_in_place(|| self.report(since, now)) {
                    // Whoever does not wait any more wants none.
                    Ok(report) => drop(answer.send(report)),
                    Err(error) => tracing::error!(%error, "a report could not be made"),
                }
            }
            Message::Reload => self.reload(turn, now),
            Message::Stop | Message::StopNow => {}
        }
        Ok(())
    }

    /// Saves, then acts: the only function that consumes a turn.
    fn consume(&mut self, turn: Turn) -> Result<(), DaemonError> {
        if !turn.save.is_empty() {
            tokio::task::block_in_place(|| {
                let told = self.story.tell(&turn.save);
                self.note_for_hooks(&told, &turn.save);
                self.store.save(&turn.save)?;
                self.tell_changes(told, &turn.save);
                self.mirror(&turn.save);
                Ok::<(), StoreError>(())
            })?;
            failpoints::saved(&turn.save)?;
        }
        for issued in turn.then {
            self.begin(issued);
        }
        Ok(())
    }

    fn begin(&self, Issued { ticket, effect, key }: Issued) {
        let performer = Arc::clone(&self.performer);
        let messages = self.handle.messages.clone();
        let (span, word) = (span_of(&effect), effect.word());
        let work = async move {
            let event = match failpoints::around(word, performer.perform(effect, key)).await {
                Ok(outcome) => Event::Done { ticket, outcome },
                Err(failure) => {
                    tell_failure(&failure);
                    Event::Failed { ticket, failure }
                }
            };
            // If nobody listens any more, the process is ending and will find out by itself.
            let _ = messages.send(Message::Event(Box::new(event))).await;
        };
        spawn(work.instrument(span));
    }

    /// Begins nothing new; saves what ends within a moment. Lines that are being asked one by one
    /// are waited for longer: of an answer that nobody takes in, nobody knows whether it was paid.
    async fn wind_down(&mut self) -> Result<Ended, DaemonError> {
        self.watchdog.stopping();
        self.note(Draft::of_daemon(Kind::Stopping, "what is under way goes on at the next start"));
        lock(&self.engine).drain();
        self.performer.rescue_calls.close();
        let began = tokio::time::Instant::now();
        loop {
            let (is_busy, is_asking) = {
                let engine = lock(&self.engine);
                (engine.is_busy(), engine.is_asking())
            };
            if !is_busy {
                break;
            }
            let deadline = began + if is_asking { WIND_DOWN_PAID } else { WIND_DOWN };
            match tokio::time::timeout_at(deadline, self.messages.recv()).await {
                Ok(Some(Message::StopNow) | None) | Err(_) => break,
                Ok(Some(event @ Message::Event(_))) => self.take_in(event)?,
                Ok(Some(_)) => {}
            }
        }
        Ok(Ended::Stopped)
    }

    /// A scan that found something is followed by another before a run ends by itself.
    fn look_once_more(&mut self) {
        if self.is_all_over() && self.intake.found_something() {
            self.intake.look(&self.handle, self.clock.now());
        }
    }

    /// Whether nothing is under way that could go on now without a person.
    fn is_all_over(&self) -> bool {
        let engine = lock(&self.engine);
        !engine.is_busy()
            && !engine.has_news()
            && engine.unfinished().all(|job| {
                job.is_over() || engine.waits_for_a_person(job) || engine.waits_for_its_window(job)
            })
    }

    /// Why a run that ends by itself may end now, if it may.
    fn idle(&self) -> Option<Ended> {
        let engine = lock(&self.engine);
        if let Some(gate) = engine.only_a_person_helps() {
            match gate.mend {
                Some(Mend::Key) => return Some(Ended::Denied(gate.message.clone())),
                Some(Mend::Way) => return Some(Ended::Barred(gate.message.clone())),
                None => {}
            }
        }
        if let Some(why) = engine.full().filter(|_| !engine.is_busy()) {
            return Some(Ended::Full(why.to_owned()));
        }
        drop(engine);
        (self.is_all_over() && self.inbox_rests()).then(|| Ended::Idle(self.touched.clone()))
    }
}

type Answer = (Reply, Result<String, Refused>);

fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    // A panic while the lock was held ends the process anyway.
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(turn: &mut Turn, more: Turn) {
    turn.save.extend(more.save);
    turn.then.extend(more.then);
}

/// Begins a task of the daemon.
#[expect(clippy::disallowed_methods, reason = "the one place that begins tasks")]
pub(crate) fn spawn<F>(task: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(task);
}

/// Messages taken in before one save.
const MESSAGES_A_SAVE: usize = 256;
/// Changes of one scan that are saved at once.
const CHANGES_A_SAVE: usize = 512;
/// How long effects under way may go on after a stop.
const WIND_DOWN: Duration = Duration::from_secs(4);
/// The same while lines are asked one by one; service managers kill after 20 seconds.
const WIND_DOWN_PAID: Duration = Duration::from_secs(15);
/// The loop looks up so often, if for nothing else.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
