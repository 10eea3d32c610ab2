//! Tells one after the other, each occasion for itself: a webhook that hangs holds up no program.
//!
//! What is not taken is tried again, ever more rarely, for a day and a few tries at least, so that
//! neither a jump of the clock nor a long rest of the daemon cost an event. Then it is given up, and
//! that is told in the log and in the record of events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{Call, Hooks, Occasion};
use crate::engine::ids::{JobId, Millis};
use crate::view::Kind;

use super::command;
use super::pending::{Page, Pending};
use super::webhook::Sender;
use crate::daemon::chronicle::Draft;
use crate::daemon::{Handle, failpoints};

/// An event on its way to whom it is for.
pub struct Entry {
    /// What is told.
    pub pending: Pending,
    /// Where it stands on the disk, if it does.
    pub page: Option<Arc<Page>>,
    /// Times that it was tried since the start.
    pub tries: u32,
}

/// What a runner needs.
pub struct Runner {
    /// The settings in force.
    pub hooks: watch::Receiver<Arc<Hooks>>,
    /// What is to be told.
    pub fresh: mpsc::UnboundedReceiver<(Occasion, Entry)>,
    /// Events that were not tried yet, for whoever waits for that.
    pub untried: Arc<watch::Sender<usize>>,
    /// The daemon's: its notices hold the counts, its chronicle is told.
    pub handle: Handle,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What speaks HTTP.
    pub sender: Sender,
}

/// What waits for one occasion's call.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Entry>,
    busy: bool,
    /// Failures in a row.
    failures: u32,
    not_before: Option<Instant>,
}

/// A try that has ended.
struct Tried {
    occasion: Occasion,
    entry: Entry,
    call: Call,
    came: Came,
}

/// What came of a try.
pub struct Came {
    /// Why it was not taken.
    pub problem: Option<String>,
    /// Whether to try again, and not before so long, if so.
    pub again: Option<Duration>,
    /// What a program wrote.
    pub output: String,
}

type Tries = FuturesUnordered<BoxFuture<'static, Tried>>;

impl Runner {
    /// Runs until nobody is left who could want to tell anything.
    pub async fn run(mut self) {
        let mut lanes: BTreeMap<Occasion, Lane> = BTreeMap::new();
        let mut tries = Tries::new();
        loop {
            self.begin(&mut lanes, &mut tries);
            let next = lanes.values().filter(|lane| !lane.busy && !lane.waiting.is_empty());
            let next = next.filter_map(|lane| lane.not_before).min();
            let pause = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                fresh = self.fresh.recv() => match fresh {
                    Some((occasion, entry)) => lanes.entry(occasion).or_default().waiting.push_back(entry),
                    None => return,
                },
                Some(tried) = tries.next(), if !tries.is_empty() => self.ended(tried, &mut lanes),
                () = pause => {}
                changed = self.hooks.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // What was wrong may be mended.
                    lanes.values_mut().for_each(|lane| lane.not_before = None);
                }
            }
        }
    }

    /// Begins a try in every lane that is free and whose time has come.
    fn begin(&mut self, lanes: &mut BTreeMap<Occasion, Lane>, tries: &mut Tries) {
        let (hooks, now) = (Arc::clone(&self.hooks.borrow_and_update()), Instant::now());
        for (occasion, lane) in lanes {
            if lane.busy || lane.not_before.is_some_and(|at| at > now) {
                continue;
            }
            let Some(call) = hooks.calls.get(occasion) else {
                // Nobody wants to know any more.
                lane.waiting.drain(..).for_each(|entry| {
                    self.tried(&entry);
                    self.settle(&entry);
                });
                continue;
            };
            let Some(entry) = lane.waiting.pop_front() else { continue };
            lane.busy = true;
            let (occasion, call, hooks) = (*occasion, call.clone(), Arc::clone(&hooks));
            let (sender, now) = (self.sender.clone(), self.clock.now());
            tries.push(Box::pin(async move {
                let mut came = tell(&call, &entry.pending, &hooks, &sender, now).await;
                if let Err(error) = failpoints::hook_told() {
                    came.problem = Some(error.to_string());
                    came.again = Some(Duration::ZERO);
                }
                Tried { occasion, entry, call, came }
            }));
        }
    }

    fn ended(&self, tried: Tried, lanes: &mut BTreeMap<Occasion, Lane>) {
        let Tried { occasion, mut entry, call, came } = tried;
        self.tried(&entry);
        entry.tries += 1;
        match came.problem {
            Some(_) => self.handle.notices().hooks.failed += 1,
            None => self.handle.notices().hooks.taken += 1,
        }
        let lane = lanes.entry(occasion).or_default();
        lane.busy = false;
        let Some(pause) = came.again else {
            (lane.failures, lane.not_before) = (0, None);
            self.told(occasion, &entry, &call, &came, came.problem.is_some());
            self.settle(&entry);
            return;
        };
        let age_ms = self.clock.now().since(Millis(entry.pending.at));
        let is_given_up = age_ms > GIVEN_UP_MS && entry.tries >= TRIES_MIN;
        // One try in a row is told, and the last.
        if entry.tries == 1 || is_given_up {
            self.told(occasion, &entry, &call, &came, true);
        }
        lane.failures += 1;
        lane.not_before = Some(Instant::now() + backoff(lane.failures).max(pause.min(PAUSE_MAX)));
        match is_given_up {
            true => {
                tracing::error!(
                    hook = occasion.key(),
                    id = entry.pending.told.id,
                    "given up: nobody took it"
                );
                self.settle(&entry);
            }
            false => lane.waiting.push_back(entry),
        }
    }

    /// An event need not be told any more.
    fn settle(&self, entry: &Entry) {
        let waiting = &mut self.handle.notices().hooks.waiting;
        *waiting = waiting.saturating_sub(1);
        if let Some(page) = &entry.page {
            page.settle_one();
        }
    }

    /// Takes note that an event was tried once.
    fn tried(&self, entry: &Entry) {
        if entry.tries == 0 {
            self.untried.send_modify(|count| *count = count.saturating_sub(1));
        }
    }

    /// Says what came of a try, in the log and in the record of events.
    fn told(&self, occasion: Occasion, entry: &Entry, call: &Call, came: &Came, is_bad: bool) {
        let hook = occasion.key();
        let mut text = format!("{hook}: {call}: ");
        text.push_str(came.problem.as_deref().unwrap_or("told"));
        if !came.output.is_empty() {
            text.push_str(&format!(": {}", came.output));
        }
        match is_bad {
            true => tracing::warn!(text, "a hook failed"),
            false => tracing::info!(text, "a hook was called"),
        }
        let job = entry.pending.told.job.as_ref();
        let draft = Draft {
            job: job.and_then(|job| job.id.parse::<JobId>().ok()),
            file: job.map(|job| job.file.clone()),
            kind: Kind::Hook,
            text,
        };
        self.handle.chronicle().note(self.clock.now(), vec![draft]);
    }
}

/// Tells once.
pub async fn tell(
    call: &Call,
    pending: &Pending,
    hooks: &Hooks,
    sender: &Sender,
    now: Millis,
) -> Came {
    match call {
        Call::Program(words) => {
            let ended = command::run(words, &pending.told, hooks.timeout).await;
            let again = ended.again.then_some(Duration::ZERO);
            Came { problem: ended.problem, again, output: ended.output }
        }
        Call::Url(url) => {
            let secret = hooks.secret.as_ref();
            let posted = sender.post(url, &pending.told, secret, now, hooks.timeout).await;
            let (problem, again) = match posted {
                Ok(()) => (None, None),
                Err(refused) => (Some(refused.why), Some(refused.pause.unwrap_or_default())),
            };
            Came { problem, again, output: String::new() }
        }
    }
}

/// The pause after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_MIN * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    doubled.min(PAUSE_MAX)
}

/// The first pause.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// What is older is given up, if it was tried a few times.
const GIVEN_UP_MS: u64 = 86_400_000;
/// Tries since the start, at least.
const TRIES_MIN: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_quarter_of_an_hour() {
        let pauses: Vec<u128> = (1..=13).map(|failures| backoff(failures).as_millis()).collect();
        assert_eq!(&pauses[..4], [500, 1000, 2000, 4000]);
        assert_eq!((pauses[11], backoff(u32::MAX)), (900_000, PAUSE_MAX));
    }
}
