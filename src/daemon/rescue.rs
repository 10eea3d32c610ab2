//! The rows of a chunk asked one by one, because their batch would not answer in time.
//!
//! Each row goes out once it is durably noted that it will, and its answer is written as it comes.
//! A row that the API turns away waits and is asked again; one of which nobody knows whether it was
//! answered is counted, and asked again, twice at most. All rescues share the calls that may be under way.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engine::effect::Which;
use crate::engine::event::{Failure, Outcome, Rescued};
use crate::engine::ids::{Millis, Row};
use crate::engine::job::{Batch, Job, Task, Tier};
use crate::provider::gemini::{Asked, Client, Results};
use crate::spool::SpoolError;
use crate::spool::answers::CollectError;
use crate::spool::body::Body;
use crate::spool::frame::Frame;
use crate::spool::lost::{self, Needed};
use crate::spool::rescue::{self, RescueNotes};
use crate::spool::result_line::ResultLine;

use super::blocking::blocking;
use super::media::Named;
use super::perform::{Performer, local, removed};

/// What is to be asked, and how.
pub(super) struct Order {
    pub which: Which,
    pub tier: Tier,
    pub model: String,
    pub task: Task,
    /// Nothing is sent any more from then on.
    pub until: Millis,
}

/// What batches that were left to themselves have answered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waste {
    /// Answers to lines that were rescued.
    pub wasted: u64,
    /// Batches of which that is not known.
    pub unweighed: u64,
}

impl Performer {
    /// Asks for the unanswered rows of a chunk, as many as there is time for.
    pub(super) async fn rescue(&self, order: Order, key: Option<&str>) -> Result<Outcome, Failure> {
        let client = self.clients.with(key)?;
        let (which, folder) = (order.which, self.folders.job(order.which.job));
        let begun = blocking(move || match lost::lost(&folder, Needed::Indexes) {
            Some(path) => Err(removed(&folder, &path)),
            None => begin(&folder, &which).map_err(sorted),
        });
        let notes = match begun.await? {
            Begun::Over(rescued) => return Ok(Outcome::Rescued(Box::new(rescued))),
            Begun::Open(notes) => Arc::new(Mutex::new(Some(*notes))),
        };
        let addresses = match self.media_inline(&which, key).await? {
            Named::Nothing => None,
            Named::Refused(outcome) => return Ok(outcome),
            Named::Ready(ready) => Some(ready.addresses),
        };
        let body = self.body(&which, Frame::FileLine).await?;
        let body = Arc::new(body.with(addresses.unwrap_or_default()));
        // Not for long: whoever wants something else of the job by then is not kept waiting.
        let order = Order { until: order.until.min(self.clock.now().plus(RUN_MS)), ..order };
        let mut work = Work {
            performer: self,
            client,
            rows: rows_of(body, &notes),
            slice: VecDeque::new(),
            again: VecDeque::new(),
            order,
            notes,
            width: self.rescue_parallel,
            turned_away: 0,
            pause: None,
            unreached: 0,
            stop: None,
            calls: 0,
            spent: Duration::ZERO,
        };
        let refused = match work.run().await {
            Ok(()) => None,
            Err(Stop::Tier(why)) => Some(why),
            Err(Stop::Failure(failure)) => return Err(failure),
        };
        let call_ms = (work.calls > 0).then(|| work.spent.as_millis() as u64 / work.calls);
        let notes = Arc::clone(&work.notes);
        let left = |pause: Instant| pause.saturating_duration_since(Instant::now());
        let pause_ms = work.pause.map_or(0, |pause| left(pause).as_millis() as u64);
        blocking(move || {
            let notes = take(&notes).take().expect("only this ends the attempt");
            let (harvest, uncertain) = notes.finish().map_err(sorted)?;
            let rescued = Rescued { harvest, uncertain, refused, call_ms, pause_ms };
            Ok(Outcome::Rescued(Box::new(rescued)))
        })
        .await
    }

    /// Looks once more at the batches of a job that were left to themselves: what they answered is
    /// wasted. It is worth little time.
    pub(super) async fn weigh(&self, job: &Job, key: Option<&str>) -> Waste {
        let left = job.chunks.values().filter_map(|chunk| chunk.aid.as_ref()?.left.as_ref());
        let mut waste = Waste::default();
        for batch in left {
            let weighed = tokio::time::timeout(WEIGHED_IN, self.weigh_one(batch, key));
            match weighed.await.unwrap_or_else(|_| Err("it takes too long".to_owned())) {
                Ok(answered) => waste.wasted += answered,
                Err(why) => {
                    waste.unweighed += 1;
                    tracing::warn!(batch = %batch.name.0, why, "what it answered is not known");
                }
            }
        }
        waste
    }

    async fn weigh_one(&self, batch: &Batch, key: Option<&str>) -> Result<u64, String> {
        let told = |failure: Failure| failure.message().to_owned();
        let known = self.clients.with(Some(&batch.key_print));
        let client = known.or_else(|_| self.clients.with(key)).map_err(told)?;
        let counter = Arc::new(Mutex::new(Counter::default()));
        client.fetch(&batch.name, &counter).await.map_err(told)?;
        let mut counter = counter.lock().unwrap_or_else(PoisonError::into_inner);
        counter.line_ends();
        Ok(counter.answered)
    }
}

enum Begun {
    /// It was taken in already.
    Over(Rescued),
    Open(Box<RescueNotes>),
}

fn begin(folder: &crate::spool::JobFolder, which: &Which) -> Result<Begun, CollectError> {
    if let Some(notes) = RescueNotes::open(folder, which)? {
        return Ok(Begun::Open(Box::new(notes)));
    }
    let (harvest, uncertain) = rescue::taken_in(folder, which)?;
    Ok(Begun::Over(Rescued { harvest, uncertain, ..Rescued::default() }))
}

fn sorted(error: CollectError) -> Failure {
    match error {
        CollectError::Spool(error) => local(&error),
        // Whatever stands there is taken.
        CollectError::Torn { .. } | CollectError::Short { .. } => Failure::Local(error.to_string()),
    }
}

type Notes = Arc<Mutex<Option<RescueNotes>>>;

fn take(notes: &Notes) -> std::sync::MutexGuard<'_, Option<RescueNotes>> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A row and its request.
struct Ask {
    row: Row,
    request: Vec<u8>,
    /// How often it got no answer, and nobody knows why.
    lost: u32,
}

/// Reads the rows that have no answer yet, a few ahead of whoever asks.
fn rows_of(body: Arc<Body>, notes: &Notes) -> mpsc::Receiver<Result<Ask, String>> {
    let known = take(notes).as_ref().map(|it| (it.answered().clone(), it.lost().clone()));
    let (answered, lost) = known.unwrap_or_default();
    let (sender, receiver) = mpsc::channel(ROWS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let read = || -> Result<(), String> {
            let mut lines = BufReader::new(body.reader(0).map_err(|error| error.to_string())?);
            loop {
                let mut line = Vec::new();
                lines.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
                if line.is_empty() {
                    return Ok(());
                }
                let (row, request) =
                    rescue::request_of(&line).map_err(|error| error.to_string())?;
                let lost = lost.get(&row).copied().unwrap_or(0);
                if answered.contains(&row) || lost >= LOST_MAX {
                    continue;
                }
                let ask = Ask { row, request: request.to_vec(), lost };
                // A closed channel means that nobody asks any more.
                if sender.blocking_send(Ok(ask)).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(why) = read() {
            let _ = sender.blocking_send(Err(why));
        }
    });
    receiver
}

/// Why no more rows are asked, though some are left.
enum Stop {
    /// The API does not take this tier.
    Tier(String),
    /// Something is in the way.
    Failure(Failure),
}

struct Work<'a> {
    performer: &'a Performer,
    client: &'a Client,
    order: Order,
    notes: Notes,
    rows: mpsc::Receiver<Result<Ask, String>>,
    /// Rows that are noted as about to be asked.
    slice: VecDeque<Ask>,
    /// Rows to be noted and asked once more.
    again: VecDeque<Ask>,
    /// So many calls at a time, fewer after the API turned some away.
    width: usize,
    /// So often in a row.
    turned_away: u32,
    /// Nothing is sent before.
    pause: Option<Instant>,
    /// Calls in a row that did not leave this machine.
    unreached: u32,
    stop: Option<Stop>,
    calls: u64,
    spent: Duration,
}

impl Work<'_> {
    async fn run(&mut self) -> Result<(), Stop> {
        let mut under_way = FuturesUnordered::new();
        let mut more = true;
        loop {
            let is_open = self.stop.is_none() && self.may_ask();
            let paused = self.pause.filter(|pause| *pause > Instant::now());
            if is_open && paused.is_none() && under_way.len() < self.width {
                if self.slice.is_empty() && more {
                    more = self.next_slice(under_way.is_empty()).await;
                }
                if let Some(ask) = self.slice.pop_front() {
                    under_way.push(self.call(ask));
                    more = true;
                    continue;
                }
            }
            if under_way.is_empty() {
                let is_done = self.slice.is_empty() && self.again.is_empty() && !more;
                if !is_open || is_done {
                    break;
                }
                let pause = paused.map_or(BREATH, |pause| pause - Instant::now());
                tokio::time::sleep(pause.min(BREATH)).await;
                continue;
            }
            let next = tokio::time::timeout(BREATH, under_way.next()).await;
            if let Ok(Some((ask, asked, took))) = next {
                self.settle(ask, asked, took).await;
                more = true;
            }
        }
        self.put_back().await;
        match self.stop.take() {
            Some(stop) => Err(stop),
            None => Ok(()),
        }
    }

    /// Whether there is time for more, and the daemon does not stop.
    fn may_ask(&self) -> bool {
        self.performer.clock.now() < self.order.until && !self.performer.rescue_calls.is_closed()
    }

    /// Notes the next rows. Answers whether there may be others; with nothing under way it waits
    /// for some.
    async fn next_slice(&mut self, waits: bool) -> bool {
        let mut slice: VecDeque<Ask> = self.again.drain(..).collect();
        let mut more = true;
        while slice.len() < SLICE_ROWS {
            let next = match waits && slice.is_empty() {
                true => self.rows.recv().await,
                false => match self.rows.try_recv() {
                    Ok(next) => Some(next),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => None,
                },
            };
            match next {
                Some(Ok(ask)) => slice.push_back(ask),
                Some(Err(why)) => {
                    self.stop = Some(Stop::Failure(Failure::Local(why)));
                    return false;
                }
                None => {
                    more = false;
                    break;
                }
            }
        }
        let rows: Vec<Row> = slice.iter().map(|ask| ask.row).collect();
        if !rows.is_empty() && self.note(move |notes| notes.about_to_ask(&rows)).await {
            self.slice = slice;
        }
        more
    }

    /// One call; it waits for its turn among those of all rescues.
    fn call(&self, ask: Ask) -> impl Future<Output = (Ask, Option<Asked>, Duration)> + use<> {
        let turn = Arc::clone(&self.performer.rescue_calls);
        let clock = Arc::clone(&self.performer.clock);
        let (client, until) = (self.client.clone(), self.order.until);
        let (model, task, tier) = (self.order.model.clone(), self.order.task, self.order.tier);
        async move {
            let turn = turn.acquire_owned().await;
            if turn.is_err() || clock.now() >= until {
                return (ask, None, Duration::ZERO);
            }
            let began = Instant::now();
            let asked = client.ask_one(&model, task, tier, &ask.request, PATIENCE).await;
            (ask, Some(asked), began.elapsed())
        }
    }

    async fn settle(&mut self, mut ask: Ask, asked: Option<Asked>, took: Duration) {
        let row = ask.row;
        match asked {
            None => self.slice.push_front(ask),
            Some(Asked::Answer(response)) => {
                (self.calls, self.spent) = (self.calls + 1, self.spent + took);
                self.well();
                self.note(move |notes| notes.answer(row, &response)).await;
            }
            Some(Asked::Refused { code, message }) => {
                self.well();
                self.note(move |notes| notes.refuse(row, code, &message)).await;
            }
            Some(Asked::TurnedAway { retry_after_ms, message }) => {
                tracing::debug!(row = row.0, message, "turned away");
                self.slice.push_front(ask);
                self.unreached = 0;
                self.slow_down(retry_after_ms);
            }
            Some(Asked::NoSuchTier(why)) => {
                self.slice.push_front(ask);
                self.stop.get_or_insert(Stop::Tier(why));
            }
            Some(Asked::Unknown(why)) => {
                tracing::warn!(row = row.0, why, "nobody knows whether this line was answered");
                self.note(move |notes| notes.uncertain(&[row])).await;
                ask.lost += 1;
                if ask.lost < LOST_MAX {
                    self.again.push_back(ask);
                }
                self.slow_down(None);
            }
            Some(Asked::Failure(failure)) => {
                self.slice.push_front(ask);
                self.unreached += 1;
                self.slow_down(None);
                let is_passing = matches!(failure, Failure::Transient(_));
                if !is_passing || self.unreached > UNREACHED_MAX {
                    self.stop.get_or_insert(Stop::Failure(failure));
                }
            }
        }
    }

    /// The API answered: a little faster again.
    fn well(&mut self) {
        (self.turned_away, self.unreached) = (0, 0);
        self.width = (self.width + 1).min(self.performer.rescue_parallel);
    }

    /// The API has had enough for now.
    fn slow_down(&mut self, retry_after_ms: Option<u64>) {
        let is_paused = self.pause.is_some_and(|pause| pause > Instant::now());
        if !is_paused {
            self.turned_away = self.turned_away.saturating_add(1);
            self.width = (self.width / 2).max(1);
        }
        let doublings = self.turned_away.saturating_sub(1).min(10);
        let usual = self.performer.backoff_min.saturating_mul(1 << doublings).min(PAUSE_MAX);
        let asked = Duration::from_millis(retry_after_ms.unwrap_or(0));
        let until = Instant::now() + usual.max(asked);
        self.pause = Some(self.pause.map_or(until, |pause| pause.max(until)));
    }

    /// Notes that the rows that were about to be asked were not.
    async fn put_back(&mut self) {
        let rows: Vec<Row> = self.slice.drain(..).map(|ask| ask.row).collect();
        self.note(move |notes| notes.turned_away(&rows)).await;
    }

    /// Writes a note. Without it nothing more is asked.
    async fn note(
        &mut self,
        write: impl FnOnce(&mut RescueNotes) -> Result<(), SpoolError> + Send + 'static,
    ) -> bool {
        let notes = Arc::clone(&self.notes);
        let written = blocking(move || match take(&notes).as_mut() {
            Some(notes) => write(notes),
            None => Ok(()),
        });
        match written.await {
            Ok(()) => true,
            Err(error) => {
                self.stop.get_or_insert(Stop::Failure(local(&error)));
                false
            }
        }
    }
}

/// Counts answers and keeps nothing.
#[derive(Default)]
struct Counter {
    line: Vec<u8>,
    answered: u64,
}

impl Counter {
    fn line_ends(&mut self) {
        let is_answer = |line: ResultLine<'_>| line.row.is_some() && line.response.is_some();
        self.answered += u64::from(ResultLine::parse(&self.line).is_some_and(is_answer));
        self.line.clear();
    }
}

impl Results for Counter {
    fn resume(&mut self) -> Result<u64, Failure> {
        self.restart()?;
        Ok(0)
    }

    fn restart(&mut self) -> Result<(), Failure> {
        *self = Counter::default();
        Ok(())
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.line.extend_from_slice(&bytes[..end]);
            self.line_ends();
            bytes = &bytes[end + 1..];
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn is_whole(&mut self) -> bool {
        true
    }

    fn pause(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// A run of calls lasts so long, milliseconds; what is left is another's.
const RUN_MS: u64 = 60_000;
/// Rows read ahead of those who ask.
const ROWS_AHEAD: usize = 32;
/// Rows that are noted with one sync.
const SLICE_ROWS: usize = 16;
/// A row that got lost so often is left to a batch.
const LOST_MAX: u32 = 3;
/// Calls in a row that do not leave this machine.
const UNREACHED_MAX: u32 = 5;
/// How long a call is waited for: flex takes minutes when it is busy (API contract, 16).
const PATIENCE: Duration = Duration::from_secs(600);
/// The longest pause after being turned away, unless the API asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The time is looked at so often.
const BREATH: Duration = Duration::from_millis(200);
/// How long a batch that was left to itself is looked at.
const WEIGHED_IN: Duration = Duration::from_secs(20);
