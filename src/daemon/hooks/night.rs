//! Whether a night was good: what of a job says that it was not.

use crate::engine::ids::Millis;
use crate::engine::job::{ChunkState, Delivery, Job, JobState};

/// What has gone wrong with a job since a moment, or still is; in words.
pub fn trouble_of(job: &Job, since: Millis) -> Option<String> {
    let (id, file) = (job.head.id, &job.head.source.name);
    let delivered = |it: &Delivery| {
        let is_bad = it.delivered > since && it.tally.failed > 0;
        is_bad.then(|| format!("{} lines of {file} failed (job {id})", it.tally.failed))
    };
    match &job.head.state {
        JobState::Delivering(it) | JobState::Cleaning(it) | JobState::Done(it) => delivered(it),
        JobState::Refusing(_) | JobState::Failed(_) => {
            (job.head.claimed > since).then(|| format!("{file} was refused (job {id})"))
        }
        JobState::Holding(_) | JobState::Held(_) => Some(format!("{file} is held (job {id})")),
        JobState::Claiming | JobState::Planning | JobState::Active(_) | JobState::Merging(_) => {
            let is_stuck = |state: &ChunkState| matches!(state, ChunkState::Stuck { .. });
            let stuck = job.chunks.values().any(|chunk| is_stuck(&chunk.state));
            stuck.then(|| format!("{file} waits for a person (job {id})"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::job::{Head, Plan, Queue, Refusal, Source, Tally};

    fn job(state: JobState) -> Job {
        let id = "01JD0000000000000000000001".parse().expect("an id");
        let source =
            Source { folder: String::new(), name: "a.jsonl".into(), bytes: 1, sidecar: None };
        let head = Head {
            id,
            source,
            queue: Queue::default(),
            claimed: Millis(100),
            released: false,
            on_hold: false,
            key_print: None,
            state,
        };
        Job { head, chunks: Default::default() }
    }

    fn done(failed: u64) -> JobState {
        let tally = Tally { answered: 1, failed, ..Tally::default() };
        let (plan, stem) = (Plan::default(), "a".to_owned());
        JobState::Done(Delivery { plan, tally, stem, delivered: Millis(200) })
    }

    #[test]
    fn a_night_is_bad_for_what_failed_in_it_and_for_what_still_waits() {
        let why = Refusal {
            reason: "r".into(),
            message: "m".into(),
            remedy: "r".into(),
            line: None,
            column: None,
        };
        for (state, since, is_bad) in [
            (done(0), 150, false),
            (done(1), 150, true),
            (done(1), 200, false),
            (JobState::Failed(why.clone()), 50, true),
            (JobState::Failed(why.clone()), 100, false),
            (JobState::Held(why), 9999, true),
            (JobState::Active(Plan::default()), 0, false),
        ] {
            let told = trouble_of(&job(state.clone()), Millis(since));
            assert_eq!(told.is_some(), is_bad, "{state:?} since {since}: {told:?}");
        }
    }
}
