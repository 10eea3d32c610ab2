//! The engine made from saved jobs.

use std::collections::{BTreeMap, BTreeSet};

use super::budget::{self, Periods};
use super::deadline::Watch;
use super::effect::Turn;
use super::ids::{JobId, Millis, Ticket};
use super::job::Job;
use super::lanes::Lanes;
use super::machine::Engine;
use super::past::Past;
use super::policy::Policy;
use super::quota::{self, Quota};
use super::spending::{Spending, Spent};
use super::stalled::Stalled;
use super::steering::Pauses;

/// The saved jobs while they are read, one after the other, so that never all of them are held.
#[derive(Debug, Default)]
pub struct Recollection {
    jobs: BTreeMap<JobId, Job>,
    past: Past,
    contents: Vec<(Box<str>, JobId)>,
    full: Option<String>,
    pauses: Pauses,
    notes: BTreeMap<String, String>,
    periods: Periods,
    spent: Spent,
}

impl Recollection {
    /// Takes in a job as it was saved; they come in the order of their ids.
    pub fn take_in(&mut self, job: Job) {
        let id = job.head.id;
        if let Some(plan) = job.head.state.plan() {
            self.contents.push((plan.sha256.as_str().into(), id));
        }
        self.spent.take_in(&job);
        if let Some(job) = self.past.take_in(job) {
            self.jobs.insert(id, job);
        }
    }

    /// Takes note of how the disk is; see [`Event::Room`].
    pub fn room(&mut self, full: Option<String>) {
        self.full = full;
    }

    /// Takes note of what is paused; see [`Engine::pause`].
    pub fn pause(&mut self, pauses: Pauses) {
        self.pauses = pauses;
    }

    /// Takes in a note as it was saved; those of others do not matter.
    pub fn note(&mut self, name: &str, value: &str) {
        self.notes.insert(name.to_owned(), value.to_owned());
    }

    /// Takes note of the night and the month that it is; see [`Event::Periods`].
    pub fn periods(&mut self, periods: Periods) {
        self.periods = periods;
    }

    /// The engine over all that was taken in; see [`Engine::resume`].
    pub fn resume(self, policy: Policy, now: Millis) -> (Engine, Turn) {
        let Recollection { jobs, past, contents, full, pauses, notes, periods, spent } = self;
        let noted = |name| notes.get(name).map(String::as_str).unwrap_or_default();
        let mut engine = Engine {
            policy,
            jobs,
            past,
            lanes: Lanes::default(),
            running: BTreeMap::new(),
            busy: BTreeSet::new(),
            troubles: BTreeMap::new(),
            polls: BTreeMap::new(),
            stopping: BTreeSet::new(),
            told: BTreeSet::new(),
            crossed: BTreeSet::new(),
            discarded: BTreeSet::new(),
            removing: BTreeMap::new(),
            no_room: BTreeMap::new(),
            unseen: BTreeSet::new(),
            claiming: BTreeSet::new(),
            // Sorted once, not with each job.
            contents: contents.into_iter().collect(),
            takings: BTreeMap::new(),
            small_usage: BTreeMap::new(),
            other_usage: BTreeMap::new(),
            under_way: BTreeMap::new(),
            early_uploads: 0,
            unsettled: BTreeMap::new(),
            gates: BTreeMap::new(),
            full,
            pauses,
            watch: Watch::default(),
            call_ms: None,
            spending: Spending::recalled(noted(budget::NOTE), spent, periods, now),
            quota: Quota::recalled(noted(quota::NOTE)),
            stalled: Stalled::default(),
            closing: false,
            next_ticket: 1,
            adopted: Ticket(0),
            draining: false,
            latest: now,
        };
        let mut turn = Turn::default();
        engine.doubt_what_was_begun(now, &mut turn);
        engine.forget_the_future(now);
        engine.park_all(&mut turn);
        let ids: Vec<JobId> = engine.jobs.keys().copied().collect();
        for id in ids {
            engine.recall(id);
            engine.refile_job(id);
        }
        engine.pump(now, &mut turn);
        (engine, turn)
    }
}
