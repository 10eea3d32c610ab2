//! What of all jobs goes into a snapshot: counts of all, and which are shown.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::canary;
use crate::engine::ids::JobId;
use crate::engine::job::{ChunkState, Job, JobState};

use super::state_word;

/// The jobs of one queue, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// Jobs of which nothing is sent yet.
    pub waiting: u64,
    /// Jobs under way.
    pub active: u64,
    /// Jobs that wait for a person.
    pub held: u64,
}

/// All jobs, counted, and those that are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// Jobs by state, those not shown included.
    pub counts: BTreeMap<String, u64>,
    /// The queues by their names.
    pub queues: BTreeMap<String, QueueView>,
    /// The jobs to show: what needs a person, then what is under way, then what is over.
    pub shown: Vec<JobId>,
}

impl Overview {
    /// Looks through all jobs. `older` counts those that are not among them, by state; `queues`
    /// are there although they may have no job.
    pub fn of<'a>(
        jobs: impl IntoIterator<Item = &'a Job>,
        older: impl IntoIterator<Item = (&'static str, usize)>,
        queues: &BTreeSet<String>,
    ) -> Overview {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (word, count) in older {
            *counts.entry(word).or_default() += count as u64;
        }
        let mut by_queue: BTreeMap<&str, QueueView> = BTreeMap::new();
        let (mut urgent, mut live, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            let word = state_word(job);
            *counts.entry(word).or_default() += 1;
            match needs_a_person(job) {
                true => urgent.push(job.head.id),
                false if job.is_over() => over.push(job.head.id),
                false => live.push(job.head.id),
            }
            let queue = by_queue.entry(&job.head.queue.name).or_default();
            match word {
                "claimed" | "planned" => queue.waiting += 1,
                "active" | "merging" => queue.active += 1,
                "held" => queue.held += 1,
                _ => {}
            }
        }
        let mut queues: BTreeMap<String, QueueView> =
            queues.iter().map(|name| (name.clone(), QueueView::default())).collect();
        for (name, view) in by_queue {
            queues.insert(name.to_owned(), view);
        }
        for (name, view) in &mut queues {
            view.name.clone_from(name);
        }
        Overview {
            counts: counts.into_iter().map(|(word, count)| (word.to_owned(), count)).collect(),
            queues,
            shown: choose(urgent, live, over),
        }
    }
}

/// What needs a person, then what is under way, each oldest first, then the newest that is over.
fn choose(mut urgent: Vec<JobId>, mut live: Vec<JobId>, mut over: Vec<JobId>) -> Vec<JobId> {
    urgent.sort_unstable();
    live.sort_unstable();
    over.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
    // Many that wait for a person do not hide what is under way.
    let most = SHOWN_MAX - live.len().min(SHOWN_MAX / 2);
    urgent.truncate(most);
    urgent.into_iter().chain(live).chain(over).take(SHOWN_MAX).collect()
}

/// Whether a job stands still until a person decides.
pub fn needs_a_person(job: &Job) -> bool {
    let is_stuck = || {
        let mut chunks = job.chunks.values();
        chunks.any(|chunk| matches!(chunk.state, ChunkState::Stuck { .. }))
    };
    match &job.head.state {
        JobState::Held(_) | JobState::Holding(_) => true,
        JobState::Active(_) => is_stuck() || canary::is_stopped(job),
        JobState::Claiming
        | JobState::Planning
        | JobState::Merging(_)
        | JobState::Delivering(_)
        | JobState::Cleaning(_)
        | JobState::Done(_)
        | JobState::Refusing(_)
        | JobState::Failed(_) => false,
    }
}

/// Jobs in a snapshot.
pub const SHOWN_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(prefix: &str, count: usize) -> Vec<JobId> {
        (0..count).map(|n| format!("{prefix}{n:022}").parse().expect("an id")).collect()
    }

    #[test]
    fn what_needs_a_person_comes_first_and_does_not_hide_the_rest() {
        let (urgent, live, over) = (ids("AAAA", 500), ids("BBBB", 500), ids("CCCC", 500));
        let shown = choose(urgent.clone(), live.clone(), over.clone());
        assert_eq!(shown[..100], urgent[..100]);
        assert_eq!(shown[100..], live[..100]);
        let shown = choose(urgent[..3].to_vec(), live[..4].to_vec(), over.clone());
        assert_eq!(shown.len(), SHOWN_MAX);
        assert_eq!(shown[..3], urgent[..3]);
        assert_eq!(shown[3..7], live[..4]);
        assert_eq!(shown[7], over[499]);
        assert_eq!(choose(urgent, Vec::new(), over).len(), SHOWN_MAX);
    }
}
