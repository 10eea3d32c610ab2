//! Hooks: people and programs are told what has happened, at least once.
//!
//! What is to be told is on the disk before the change that it tells of is saved, and stays there
//! until it was taken: a crash at any moment repeats an event, with its id, and loses none. Nothing
//! here holds up the loop but that one write. A note that can not be written, as on a full disk, is
//! told from memory, and only a crash can lose it then. Thousands that nobody takes are bounded:
//! then new ones are left out, and that is told.

mod command;
mod message;
mod occasions;
mod pending;
mod runner;
mod webhook;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::config::{self, Call, Occasion};
use crate::engine::effect::Change;
use crate::engine::ids::Millis;
use crate::view::report::told;

use super::chronicle::Draft;
use super::{Daemon, Handle, lock, spawn};
use message::{JobFacts, Told};
use pending::{Pages, Pending};
use runner::{Entry, Runner};
use webhook::Sender;

/// Tells what has happened to whoever wants to know.
pub struct Hooks {
    pages: Pages,
    settings: watch::Sender<Arc<config::Hooks>>,
    queue: mpsc::UnboundedSender<(Occasion, Entry)>,
    untried: Arc<watch::Sender<usize>>,
    handle: Handle,
    /// Until it is begun.
    runner: Option<Runner>,
    /// For pings.
    sender: Sender,
}

impl Hooks {
    /// Nothing is told yet.
    pub(super) fn open(
        state: &Path,
        settings: Arc<config::Hooks>,
        handle: Handle,
        clock: Arc<dyn Clock>,
    ) -> Hooks {
        let (queue, fresh) = mpsc::unbounded_channel();
        let (settings, hooks) = watch::channel(settings);
        let untried = Arc::new(watch::channel(0).0);
        let sender = Sender::default();
        let runner = Runner {
            hooks,
            fresh,
            untried: Arc::clone(&untried),
            handle: handle.clone(),
            clock,
            sender: sender.clone(),
        };
        let (pages, runner) = (Pages::of(state), Some(runner));
        Hooks { pages, settings, queue, untried, handle, runner, sender }
    }

    /// Begins to tell, first what an earlier run has left. Within the runtime.
    pub fn begin(&mut self) {
        let Some(runner) = self.runner.take() else { return };
        spawn(runner.run());
        for (page, all) in self.pages.read() {
            for pending in all {
                let Some(occasion) = Occasion::of(&pending.told.event) else {
                    // Of a later version; nobody here could be told.
                    page.settle_one();
                    continue;
                };
                self.hand_over(
                    occasion,
                    Entry { pending, page: Some(Arc::clone(&page)), tries: 0 },
                );
            }
        }
    }

    /// Other settings from now on.
    pub fn adopt(&self, settings: Arc<config::Hooks>) {
        self.settings.send_replace(settings);
    }

    /// Whether anybody wants to be told of anything.
    fn is_wanted(&self) -> bool {
        !self.settings.borrow().calls.is_empty()
    }

    /// Writes down what is to be told, durably, and has it told.
    fn note(&mut self, all: Vec<(Occasion, Told)>, now: Millis) {
        let settings = Arc::clone(&self.settings.borrow());
        let mut all = all;
        all.retain(|(occasion, _)| settings.calls.contains_key(occasion));
        if all.is_empty() {
            return;
        }
        let waiting = self.handle.notices().hooks.waiting;
        if waiting + all.len() as u64 > WAITING_MAX {
            let lost = all.len();
            tracing::error!(lost, waiting, "nobody takes what hooks tell; these are left out");
            return;
        }
        let pending = |told: &Told| Pending { at: now.0, told: told.clone() };
        let written: Vec<Pending> = all.iter().map(|(_, told)| pending(told)).collect();
        let page = match self.pages.write(&written, now) {
            Ok(page) => Some(page),
            Err(error) => {
                tracing::error!(%error, "what hooks tell is not on the disk: a crash would lose it");
                None
            }
        };
        for ((occasion, _), pending) in all.into_iter().zip(written) {
            self.hand_over(occasion, Entry { pending, page: page.clone(), tries: 0 });
        }
    }

    fn hand_over(&self, occasion: Occasion, entry: Entry) {
        self.handle.notices().hooks.waiting += 1;
        self.untried.send_modify(|count| *count += 1);
        // The runner ends with the process; what it was not told stays on the disk.
        drop(self.queue.send((occasion, entry)));
    }

    /// Waits until everything was tried once, so that a short run tells what it did, and not for
    /// longer than `longest`.
    pub async fn rest(&self, longest: Duration) {
        let mut untried = self.untried.subscribe();
        let all_tried = untried.wait_for(|count| *count == 0);
        drop(tokio::time::timeout(longest, all_tried).await);
    }

    /// Fetches the ping's URL, a few times if need be: the night was good.
    pub fn ping(&self) {
        let settings = Arc::clone(&self.settings.borrow());
        let Some(call @ Call::Url(url)) = &settings.ping else { return };
        let (call, url, sender) = (call.clone(), url.clone(), self.sender.clone());
        spawn(async move {
            for left in (0..PINGS).rev() {
                match sender.ping(&url, settings.timeout).await {
                    Ok(()) => return tracing::info!(%call, "the night was good, and the ping sent"),
                    Err(refused) => {
                        tracing::warn!(%call, why = refused.why, left, "the ping was not taken");
                    }
                }
                tokio::time::sleep(PING_PAUSE).await;
            }
        });
    }
}

/// Calls somebody once with an example: what a program wrote, if it went well.
///
/// # Errors
/// In words, if it did not.
pub async fn try_out(
    hooks: &config::Hooks,
    occasion: Occasion,
    call: &Call,
    now: Millis,
) -> Result<String, String> {
    let id = format!("test-{}-{}", occasion.word(), now.0);
    let told = Told::new(occasion, id, now, TRIED_OUT.to_owned());
    let pending = Pending { at: now.0, told: Told { job: Some(JobFacts::example()), ..told } };
    let came = runner::tell(call, &pending, hooks, &Sender::default(), now).await;
    match came.problem {
        None => Ok(came.output),
        Some(why) if came.output.is_empty() => Err(why),
        Some(why) => Err(format!("{why}: {}", came.output)),
    }
}

impl Daemon {
    /// Notes for hooks what the changes that are about to be saved mean. What they tell is true by
    /// then: files lie where they say.
    pub(super) fn note_for_hooks(&mut self, drafts: &[Draft], changes: &[Change]) {
        if !self.hooks.is_wanted() || drafts.is_empty() {
            return;
        }
        let now = self.clock.now();
        let head_of = |id| lock(&self.engine).job(id).map(|job| job.head.clone());
        let folders = &self.performer.folders;
        let all = occasions::occasions(drafts, changes, head_of, folders, now);
        self.hooks.note(all, now);
    }

    /// Notes for hooks that the report of the time since a moment lies in the outbox.
    pub(super) fn note_report(&mut self, since: Millis, stem: &str, headline: &str, now: Millis) {
        let id = format!("report-{}", since.0);
        let told = Told::new(Occasion::Report, id, now, headline.to_owned());
        let told = told.with_report(&self.performer.folders, stem);
        self.hooks.note(vec![(Occasion::Report, told)], now);
    }

    /// Sends the ping, if a report says that the night was good.
    pub(super) fn ping_after(&self, report: &told::Told) {
        if self.config.hooks.ping.is_none() {
            return;
        }
        match report.is_good {
            true => self.hooks.ping(),
            false => {
                let why = &report.headline;
                tracing::warn!(why, "the night was not good: no ping is sent");
            }
        }
    }
}

/// What an example says.
const TRIED_OUT: &str = "an example by `gemini-batchd hooks test`; nothing has happened";
/// Events that may wait to be told.
const WAITING_MAX: u64 = 10_000;
/// Tries to send a ping, and the pause between them.
const PINGS: u32 = 3;
const PING_PAUSE: Duration = Duration::from_secs(10);
