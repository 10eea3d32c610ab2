//! What operators see: answers to the questions of the control plane.
//!
//! The engine is held for short moments only: to choose what is shown, and to look at a few jobs at
//! a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{broadcast, oneshot};

use crate::clock::Clock;
use crate::control::Look;
use crate::engine::ids::{JobId, Millis};
use crate::engine::{Engine, Job};
use crate::view::lists::{LIMIT_MAX, read_limit, read_moment};
use crate::view::report::Report;
use crate::view::schedule::Schedule;
use crate::view::{
    BadQuery, BatchList, BatchQuery, DayList, Event, EventFilter, EventList, Figures, Health,
    JobFilter, JobList, JobQuery, JobView, NoSuchJob, Overview, QueueView, Snapshot, SpendingView,
    VERSION, found, moment,
};

use super::operators::Identity;
use super::{Handle, Message, Notices};

/// What there is to see of a daemon.
pub struct Looks {
    /// What does not change.
    pub identity: Identity,
    /// The daemon.
    pub handle: Handle,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Looks {
    fn overview(&self, engine: &Engine) -> Overview {
        let queues = self.handle.notices().queues.clone();
        let mut overview = Overview::of(engine.jobs(), engine.past().older_counts(), &queues);
        for queue in overview.queues.values_mut() {
            queue.paused = engine.pauses().cover(&queue.name);
        }
        overview
    }

    /// These jobs, as far as they are still there.
    fn views(&self, ids: &[JobId], now: Millis) -> Vec<JobView> {
        let mut views = Vec::with_capacity(ids.len());
        let mut typical = Typical::default();
        for some in ids.chunks(JOBS_AT_ONCE) {
            self.handle.with_engine(|engine| {
                let jobs = some.iter().filter_map(|id| engine.job(*id));
                views.extend(jobs.map(|job| typical.view(engine, job, now)));
            });
        }
        views
    }

    fn since(&self, since: Option<&str>, usual: &str) -> Result<Millis, BadQuery> {
        read_moment(since.unwrap_or(usual), self.clock.now())
    }
}

impl Look for Looks {
    fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        let notices = self.handle.notices().clone();
        let (health, overview, spending) = self.handle.with_engine(|engine| {
            let health = health(&self.identity, engine, notices, now);
            (health, self.overview(engine), SpendingView::of(engine))
        });
        let jobs = self.views(&overview.shown, now);
        let jobs_total = overview.counts.values().sum();
        let queues: Vec<QueueView> = overview.queues.into_values().collect();
        let counts = overview.counts;
        Snapshot { version: VERSION, health, counts, queues, jobs, jobs_total, spending }
    }

    fn job(&self, prefix: &str) -> Result<JobView, NoSuchJob> {
        let now = self.clock.now();
        self.handle.with_engine(|engine| {
            let id = found::by_prefix(engine.jobs().map(|job| job.head.id), prefix)?;
            let job = engine.job(id).expect("its id was found a moment ago, under the same lock");
            Ok(Typical::default().view(engine, job, now))
        })
    }

    fn jobs(&self, query: &JobQuery) -> Result<JobList, BadQuery> {
        let now = self.clock.now();
        let filter = JobFilter::read(query, now)?;
        let page = self.handle.with_engine(|engine| filter.page(engine.jobs()));
        let jobs = self.views(&page.ids, now);
        let next = page.next.map(|id| id.to_string());
        Ok(JobList { version: VERSION, jobs, total: page.total, next })
    }

    fn batches(&self, query: &BatchQuery) -> Result<BatchList, BadQuery> {
        let limit = read_limit(query.limit, BATCHES_USUAL.min(LIMIT_MAX))?;
        let since = self.since(query.since.as_deref(), BATCHES_SINCE)?;
        Ok(self.handle.with_engine(|engine| BatchList::of(engine.jobs(), since, limit)))
    }

    fn days(&self, days: u32) -> DayList {
        let now = self.clock.now();
        self.handle.with_engine(|engine| DayList::of(engine.past().history(), now, days))
    }

    fn schedule(&self) -> Schedule {
        let (timetable, now) = (Arc::clone(&self.handle.notices().timetable), self.clock.now());
        self.handle.with_engine(|engine| Schedule::of(&timetable, engine, now))
    }

    fn report(&self, since: Option<&str>) -> Result<Report, BadQuery> {
        let since = self.since(since, REPORT_SINCE)?;
        let stopping = || BadQuery("the daemon is stopping".to_owned());
        // What is not in memory only the loop can read.
        let (ask, answer) = oneshot::channel();
        let asked = self.handle.messages.blocking_send(Message::Report(since, ask));
        asked.map_err(|_| stopping())?;
        answer.blocking_recv().map_err(|_| stopping())
    }

    fn figures(&self) -> Figures {
        let now = self.clock.now();
        let notices = self.handle.notices().clone();
        let mut figures = Figures {
            started_s: self.identity.started.0 / 1000,
            events: self.handle.chronicle().noted(),
            wakeups: notices.wakeups,
            hooks: notices.hooks,
            ..Figures::default()
        };
        self.handle.with_engine(|engine| {
            let overview = self.overview(engine);
            let health = health(&self.identity, engine, notices, now);
            figures.paused = health.paused.is_some() || health.paused_by_operator;
            figures.trouble = health.trouble.is_some();
            figures.draining = health.draining;
            figures.jobs = overview.counts;
            figures.queues = overview.queues.into_values().collect();
            engine.unfinished().for_each(|job| figures.count(job));
            figures.recall(engine.past().history());
            figures.count_means(engine);
        });
        figures
    }

    fn events(&self, filter: &EventFilter) -> EventList {
        self.handle.chronicle().list(filter)
    }

    fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.handle.chronicle().follow()
    }
}

/// How long batches take, found once for each model that is shown.
#[derive(Default)]
pub(super) struct Typical {
    by_model: BTreeMap<String, Option<u64>>,
}

impl Typical {
    pub(super) fn view(&mut self, engine: &Engine, job: &Job, now: Millis) -> JobView {
        let model = job.head.queue.model.as_str();
        if !self.by_model.contains_key(model) {
            let typical = engine.past().history().typical_ms(model);
            self.by_model.insert(model.to_owned(), typical);
        }
        let typical = self.by_model.get(model).copied().flatten();
        let mut view = JobView::at(job, now, typical);
        if !job.is_over()
            && let Some(why) = engine
                .waits_for_key(job)
                .or_else(|| engine.held_back(job))
                .or_else(|| engine.waits_for_means(job))
        {
            view.reason = Some(why);
        }
        view
    }
}

/// How the daemon is.
fn health(identity: &Identity, engine: &Engine, notices: Notices, now: Millis) -> Health {
    let not_reloaded =
        notices.not_reloaded.map(|why| format!("the changed configuration is not in force: {why}"));
    let (paused, trouble) = standing(engine, now);
    Health {
        daemon: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        inbox: identity.inbox.clone(),
        watching: notices.watching.to_owned(),
        started: moment(identity.started),
        now: moment(now),
        paused,
        trouble: not_reloaded.or(trouble),
        draining: engine.is_closing(),
        paused_by_operator: engine.pauses().all,
    }
}

/// Why nothing is sent, and what goes wrong, if so.
pub(super) fn standing(engine: &Engine, now: Millis) -> (Option<String>, Option<String>) {
    let closed = engine.gate().filter(|gate| gate.until > now || gate.mend.is_some());
    let closed = closed.map(|gate| gate.message.as_str());
    let paused = engine.full().or(closed).or(engine.kept_from_new()).map(str::to_owned);
    let trouble = engine.latest_trouble().map(|trouble| trouble.message.clone());
    (paused, trouble)
}

/// Jobs that are looked at before the loop may go on.
const JOBS_AT_ONCE: usize = 25;
/// Batches in an answer, unless said otherwise.
const BATCHES_USUAL: usize = 500;
/// What a report is about, unless said otherwise.
const REPORT_SINCE: &str = "24h";
/// How far back they go, unless said otherwise.
const BATCHES_SINCE: &str = "24h";
