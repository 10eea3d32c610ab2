//! Jobs that are complete: the newest as they are, of the others only what still matters.
//!
//! A machine may have delivered a hundred thousand jobs within the time for which records are
//! kept. Nobody looks at most of them again; but their content must be known when it is dropped
//! once more, and what they left at the API must be known as theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::history::History;
use super::ids::{JobId, Millis};
use super::job::{Delivery, Job, JobState};
use super::policy;

/// Every job that is complete.
#[derive(Debug, Default)]
pub struct Past {
    /// The newest, by their ids.
    recent: BTreeMap<JobId, Box<Job>>,
    older: BTreeMap<JobId, Older>,
    older_cancelled: usize,
    /// Older jobs whose chunks still have records.
    to_shed: BTreeSet<JobId>,
    history: History,
}

/// A complete job that nobody looks at any more.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Older {
    name: Box<str>,
    delivered: Millis,
    cancelled: bool,
    answered: bool,
    asks: Option<u64>,
}

/// What matters of a complete job when its content is dropped again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known<'a> {
    /// The name of its input.
    pub name: &'a str,
    /// When its outputs were delivered.
    pub delivered: Millis,
    /// Whether any line was answered, and nobody stopped it.
    pub answered: bool,
    /// As [`Plan::asks`](super::job::Plan::asks).
    pub asks: Option<u64>,
}

impl Past {
    /// Takes in a job if it is complete; gives it back if it is not.
    pub fn take_in(&mut self, job: Job) -> Option<Job> {
        let JobState::Done(delivery) = &job.head.state else { return Some(job) };
        self.history.recall(&job, delivery);
        let sheds = self.keep(job);
        self.to_shed.extend(sheds);
        None
    }

    /// Adds a job that is complete from now on; names the one that nobody looks at any more because
    /// of it, if its chunks still have records.
    pub fn add(&mut self, job: Job) -> Option<JobId> {
        if let JobState::Done(delivery) = &job.head.state {
            self.history.note(&job, delivery);
        }
        self.keep(job)
    }

    fn keep(&mut self, job: Job) -> Option<JobId> {
        self.recent.insert(job.head.id, Box::new(job));
        if self.recent.len() <= RECENT_MAX {
            return None;
        }
        let (id, job) = self.recent.pop_first()?;
        let JobState::Done(delivery) = &job.head.state else { return None };
        self.older_cancelled += usize::from(delivery.plan.cancelled);
        self.older.insert(id, Older::of(&job, delivery));
        (!job.chunks.is_empty()).then_some(id)
    }

    /// What all of them tell of the past, those that were forgotten since the start too.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The newest complete jobs, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &Job> {
        self.recent.values().map(Box::as_ref)
    }

    /// One of the newest complete jobs.
    pub fn get(&self, id: JobId) -> Option<&Job> {
        self.recent.get(&id).map(Box::as_ref)
    }

    /// What matters of a complete job.
    pub fn known(&self, id: JobId) -> Option<Known<'_>> {
        if let Some(older) = self.older.get(&id) {
            let Older { name, delivered, cancelled, answered, asks } = older;
            let answered = *answered && !cancelled;
            return Some(Known { name, delivered: *delivered, answered, asks: *asks });
        }
        let job = self.recent.get(&id)?;
        let JobState::Done(delivery) = &job.head.state else { return None };
        Some(Known {
            name: &job.head.source.name,
            delivered: delivery.delivered,
            answered: delivery.tally.answered > 0 && !delivery.plan.cancelled,
            asks: delivery.plan.asks,
        })
    }

    /// Whether a job that is not kept as it is was delivered since a moment.
    pub fn has_older_since(&self, since: Millis) -> bool {
        self.older.values().any(|older| older.delivered >= since)
    }

    /// Every complete job.
    pub fn ids(&self) -> impl Iterator<Item = JobId> {
        self.older.keys().chain(self.recent.keys()).copied()
    }

    /// How many complete jobs there are beside the recent ones, by the product's words for them;
    /// only words that apply to any.
    pub fn older_counts(&self) -> impl Iterator<Item = (&'static str, usize)> + use<> {
        let done = self.older.len() - self.older_cancelled;
        let counts = [("done", done), ("cancelled", self.older_cancelled)];
        counts.into_iter().filter(|(_, count)| *count > 0)
    }

    /// Complete jobs whose outputs were delivered longer ago than `keep_ms`.
    pub fn older_than(&self, keep_ms: u64, now: Millis) -> Vec<JobId> {
        self.ids()
            .filter(|id| {
                let delivered = self.known(*id).map(|known| known.delivered);
                delivered.is_some_and(|at| policy::is_older_than(at, keep_ms, now))
            })
            .collect()
    }

    /// Drops a job; answers whether it was there.
    pub fn forget(&mut self, id: JobId) -> bool {
        self.to_shed.remove(&id);
        let older = self.older.remove(&id);
        self.older_cancelled -= usize::from(older.as_ref().is_some_and(|older| older.cancelled));
        older.is_some() || self.recent.remove(&id).is_some()
    }

    /// Some jobs, at most `max`, whose chunks need no records any more.
    pub fn shed(&mut self, max: usize) -> Vec<JobId> {
        let ids: Vec<JobId> = self.to_shed.iter().take(max).copied().collect();
        for id in &ids {
            self.to_shed.remove(id);
        }
        ids
    }
}

impl Older {
    fn of(job: &Job, delivery: &Delivery) -> Older {
        Older {
            name: job.head.source.name.as_str().into(),
            delivered: delivery.delivered,
            cancelled: delivery.plan.cancelled,
            answered: delivery.tally.answered > 0,
            asks: delivery.plan.asks,
        }
    }
}

/// Complete jobs that are kept as they are: as many as are ever listed.
pub const RECENT_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::{Event, Outcome};
    use crate::engine::ids::{ChunkNo, Row, Rows};
    use crate::engine::job::{
        Accept, Chunk, ChunkState, Head, Plan, Queue, Rest, Source, Tally, Task, Transport,
    };
    use crate::engine::policy::tests::policy;
    use crate::engine::policy::{Duplicates, Policy};
    use crate::engine::{Change, Engine};

    const DAY_MS: u64 = 86_400_000;

    fn id(number: u64) -> JobId {
        format!("01JD{number:022}").parse().expect("an id")
    }

    fn source(number: u64) -> Source {
        Source { folder: String::new(), name: format!("{number}.jsonl"), bytes: 10, sidecar: None }
    }

    fn queue() -> Queue {
        Queue {
            name: "default".to_owned(),
            model: "gemini-2.5-flash".to_owned(),
            task: Task::Generate,
            transport: Transport::Auto,
            lines_per_batch: 0,
            priority: 0,
            attempts: 3,
            accept: Accept { truncated: true, blocked: false, empty: false },
            ..Queue::default()
        }
    }

    fn plan(content: u64) -> Plan {
        Plan {
            rows: 1,
            invalid: 0,
            bytes: 10,
            sha256: format!("{content:064x}"),
            planned: Millis(1),
            first_create: None,
            last_result: None,
            cancelled: false,
            warnings: Vec::new(),
            ..Plan::default()
        }
    }

    /// A job that was delivered `number` seconds after the beginning of time.
    fn complete(number: u64) -> Job {
        let tally = Tally { answered: 1, ..Tally::default() };
        let delivered = Millis(number * 1000);
        let stem = number.to_string();
        let state = JobState::Done(Delivery { plan: plan(number), tally, stem, delivered });
        let claimed = Millis(0);
        let (id, source, queue) = (id(number), source(number), queue());
        let (released, on_hold, key_print) = (false, false, None);
        let head =
            Head { id, source, queue, claimed, released, on_hold, key_print, funds: None, state };
        let rows = Rows { first: Row(1), last: Row(1) };
        let mut chunk = Chunk::new(ChunkNo(1), ChunkNo(1), rows, Rest::default());
        chunk.state = ChunkState::Settled;
        Job { head, chunks: BTreeMap::from([(chunk.no, chunk)]) }
    }

    fn engine(jobs: u64) -> Engine {
        let policy = Policy {
            duplicates: Duplicates::Hold,
            duplicate_window_ms: 30 * DAY_MS,
            records_keep_ms: DAY_MS,
            ..policy()
        };
        Engine::resume((0..jobs).map(complete).collect(), policy, Millis(DAY_MS)).0
    }

    fn drop_again(engine: &mut Engine, content: u64) -> Option<JobState> {
        let new = id(900_000 + content);
        let now = Millis(DAY_MS);
        let event = Event::Arrived { id: new, source: source(900_000), queue: queue() };
        let claim = engine.handle(event, now).then.remove(0).ticket;
        let claimed = Event::Done { ticket: claim, outcome: Outcome::Claimed };
        let read = engine.handle(claimed, now).then.remove(0).ticket;
        let outcome = Outcome::Planned { plan: plan(content), chunks: Vec::new() };
        let _ = engine.handle(Event::Done { ticket: read, outcome }, now);
        engine.job(new).map(|job| job.head.state.clone())
    }

    #[test]
    fn the_newest_are_listed_and_all_are_counted() {
        let engine = engine(1_500);
        let listed: Vec<JobId> = engine.jobs().map(|job| job.head.id).collect();
        assert_eq!(listed, (500..1_500).map(id).collect::<Vec<_>>());
        assert_eq!(engine.past().older_counts().collect::<Vec<_>>(), [("done", 500)]);
        assert_eq!(engine.past().ids().count(), 1_500);
        assert!(engine.job(id(1_400)).is_some());
        assert!(engine.job(id(3)).is_none());
    }

    /// Fault 40.
    #[test]
    fn the_content_of_an_old_job_is_known_like_that_of_a_new_one() {
        let mut engine = engine(1_500);
        for content in [3, 1_499] {
            let state = drop_again(&mut engine, content);
            let Some(JobState::Holding(refusal)) = state else { panic!("{content}: {state:?}") };
            assert_eq!(refusal.reason, "duplicate");
            assert!(refusal.message.contains(&format!("{content}.jsonl")), "{}", refusal.message);
        }
        let state = drop_again(&mut engine, 7_777);
        assert!(!matches!(state, Some(JobState::Holding(_))), "{state:?}");
    }

    #[test]
    fn whoever_leaves_the_list_sheds_the_records_of_its_chunks() {
        let mut past = Past::default();
        for number in 0..RECENT_MAX as u64 {
            assert_eq!(past.add(complete(number)), None);
        }
        assert_eq!(past.add(complete(5_000)), Some(id(0)));
        let bare = Job { chunks: BTreeMap::new(), ..complete(6_000) };
        assert_eq!(past.add(bare), Some(id(1)));
    }

    #[test]
    fn records_of_an_older_store_are_shed_by_and_by_and_old_ones_forgotten() {
        let mut engine = engine(1_500);
        // The jobs up to number 99 were delivered more than a day before this.
        let turn = engine.handle(Event::Housekeeping, Millis(DAY_MS + 100_000));
        let forgotten = turn.save.iter().filter(|change| matches!(change, Change::Forget(_)));
        assert_eq!(forgotten.count(), 100);
        let shed = turn.save.iter().filter(|change| matches!(change, Change::Shed(_)));
        assert_eq!(shed.count(), 400);
        assert_eq!(engine.past().older_counts().collect::<Vec<_>>(), [("done", 400)]);
        let again = engine.handle(Event::Housekeeping, Millis(DAY_MS + 100_000));
        assert_eq!(again.save, []);
        let state = drop_again(&mut engine, 3);
        assert!(!matches!(state, Some(JobState::Holding(_))), "{state:?}");
        let state = drop_again(&mut engine, 1_499);
        assert!(matches!(state, Some(JobState::Holding(_))), "it is not forgotten: {state:?}");
    }

    #[test]
    fn each_day_is_counted_and_batches_tell_how_long_they_took() {
        let batch = |seconds: u64| crate::engine::job::BatchRecord {
            name: crate::engine::BatchName("batches/b".to_owned()),
            attempt: crate::engine::Attempt(1),
            input: crate::engine::job::Input::Inline,
            state: crate::engine::job::RemoteState::Succeeded,
            lines: 1,
            bytes: 1,
            answered: 1,
            created: Millis(1000),
            ended: Millis(1000 + seconds * 1000),
            collected: None,
            adopted: false,
            error: None,
            key_print: None,
            input_gone: false,
            result_bytes: 0,
            cost: None,
        };
        let mut past = Past::default();
        for (number, seconds) in [(1, 10), (2, 40), (86_400, 20), (86_401, 4000), (3, 30)] {
            let mut job = complete(number);
            job.chunks.values_mut().for_each(|chunk| chunk.batches.push(batch(seconds)));
            match number {
                1 => assert!(past.take_in(job).is_none()),
                _ => assert_eq!(past.add(job), None),
            }
        }
        let history = past.history();
        let (first, second) = (history.day(0), history.day(1));
        assert_eq!((first.jobs, first.answered, second.jobs), (3, 3, 2));
        assert_eq!(history.day(2), Default::default());
        assert_eq!(history.typical_ms("gemini-2.5-flash"), Some(30_000));
        assert_eq!(history.typical_ms("another"), None);
        let since_start: Vec<_> = history.since_start().collect();
        assert_eq!(since_start[0].0, "gemini-2.5-flash");
        assert_eq!(since_start[0].1.jobs, 4, "what was read from records is not new");
    }

    #[test]
    fn cancelled_jobs_are_counted_apart_and_their_content_may_come_again() {
        let is_cancelled = |number| number < 10 || number == 1_499;
        let jobs = (0..1_500).map(|number| {
            let mut job = complete(number);
            if let JobState::Done(delivery) = &mut job.head.state {
                delivery.plan.cancelled = is_cancelled(number);
            }
            job
        });
        let mut past = Past::default();
        assert!(jobs.filter_map(|job| past.take_in(job)).next().is_none());
        let counts = |past: &Past| past.older_counts().collect::<Vec<_>>();
        assert_eq!(counts(&past), [("done", 490), ("cancelled", 10)]);
        for number in [3, 1_499, 20, 1_400] {
            let known = past.known(id(number)).expect("known");
            assert_eq!(known.answered, !is_cancelled(number), "{number}");
        }
        assert!(past.forget(id(3)) && past.forget(id(20)) && !past.forget(id(3)));
        assert_eq!(counts(&past), [("done", 489), ("cancelled", 9)]);
    }
}
