//! What is not believed: creates that were begun before a crash, mirrors, and clocks that jump.

use super::effect::{Change, Turn};
use super::ids::{JobId, Millis, Stamp};
use super::job::{ChunkState, Doubt, Input, Job};
use super::machine::Engine;
use super::policy::Policy;

impl Engine {
    /// After a restart: a create that was begun may have arrived. How long the process was away
    /// is not known, the clock may have been changed meanwhile, so windows begin anew.
    pub(super) fn doubt_what_was_begun(&mut self, now: Millis, turn: &mut Turn) {
        let until = now.plus(self.policy.uncertain_window_ms);
        for job in self.jobs.values_mut() {
            for chunk in job.chunks.values_mut() {
                match &mut chunk.state {
                    ChunkState::Creating { input, since } => {
                        let (input, since) = (input.clone(), *since);
                        let (next_probe, doubt) = (now, Doubt::Lost);
                        chunk.state =
                            ChunkState::Uncertain { input, since, next_probe, until, doubt };
                    }
                    ChunkState::Uncertain { until: window, doubt: Doubt::Lost, .. } => {
                        *window = until;
                    }
                    ChunkState::Uncertain {
                        doubt: Doubt::RateLimited | Doubt::Released, ..
                    }
                    | ChunkState::Waiting { .. }
                    | ChunkState::Uploading { .. }
                    | ChunkState::Stuck { .. }
                    | ChunkState::Polling(_)
                    | ChunkState::Collecting { .. }
                    | ChunkState::Rescuing { .. }
                    | ChunkState::Settled
                    | ChunkState::Split { .. } => continue,
                }
                turn.save.push(Change::Chunk(job.head.id, Box::new(chunk.clone())));
            }
        }
    }

    /// Makes a job that was read from a mirror safe to go on with: the mirror may be one change
    /// behind, so what seems not sent yet may have been sent, and is looked for first.
    pub fn doubt(job: &mut Job, policy: &Policy, now: Millis) {
        let (id, queue) = (job.head.id, job.head.queue.clone());
        for chunk in job.chunks.values_mut() {
            let input = match &chunk.state {
                ChunkState::Waiting { .. } if policy.goes_inline(&queue, chunk.rest) => {
                    Input::Inline
                }
                ChunkState::Waiting { .. } => Input::File(Stamp::file(id, chunk.no, chunk.attempt)),
                ChunkState::Uploading { file } => Input::File(file.clone()),
                ChunkState::Creating { input, .. } => input.clone(),
                ChunkState::Uncertain { .. }
                | ChunkState::Stuck { .. }
                | ChunkState::Polling(_)
                | ChunkState::Collecting { .. }
                | ChunkState::Rescuing { .. }
                | ChunkState::Settled
                | ChunkState::Split { .. } => continue,
            };
            let until = now.plus(policy.uncertain_window_ms);
            let doubt = Doubt::Lost;
            chunk.state =
                ChunkState::Uncertain { input, since: now, next_probe: now, until, doubt };
        }
    }

    /// The clock was set back: what waits for a moment would wait for as long again.
    pub(super) fn set_back(&mut self, now: Millis) {
        self.troubles.clear();
        self.polls.clear();
        self.gates.clear();
        self.no_room.clear();
        self.watch.clear();
        let until = now.plus(self.policy.uncertain_window_ms);
        for chunk in self.jobs.values_mut().flat_map(|job| job.chunks.values_mut()) {
            if let ChunkState::Uncertain { until: window, doubt: Doubt::Lost, .. } =
                &mut chunk.state
            {
                *window = until;
            }
        }
        self.forget_the_future(now);
        self.refile_everything();
    }

    /// The clock leapt ahead, or the machine slept: that time does not count as time in which a
    /// batch in doubt, or results that are due, could have shown up.
    pub(super) fn lengthen_windows(&mut self, by_ms: u64) {
        for chunk in self.jobs.values_mut().flat_map(|job| job.chunks.values_mut()) {
            if let ChunkState::Uncertain { until, doubt: Doubt::Lost, .. } = &mut chunk.state {
                *until = until.plus(by_ms);
            }
        }
        for trouble in self.troubles.values_mut() {
            for since in [&mut trouble.unready_since, &mut trouble.gone_since] {
                *since = since.map(|since| since.plus(by_ms));
            }
        }
    }

    /// Nothing waits longer than its own pause, whatever the clock said when it began.
    pub(super) fn forget_the_future(&mut self, now: Millis) {
        let longest = now.plus(self.policy.backoff_max_ms.saturating_mul(2));
        let probe = now.plus(self.policy.probe_ms());
        for chunk in self.jobs.values_mut().flat_map(|job| job.chunks.values_mut()) {
            match &mut chunk.state {
                ChunkState::Waiting { not_before } => *not_before = (*not_before).min(longest),
                ChunkState::Uncertain { next_probe, until, doubt: Doubt::RateLimited, .. } => {
                    *until = (*until).min(longest);
                    *next_probe = *until;
                }
                ChunkState::Uncertain { next_probe, .. } => *next_probe = (*next_probe).min(probe),
                ChunkState::Uploading { .. }
                | ChunkState::Creating { .. }
                | ChunkState::Stuck { .. }
                | ChunkState::Polling(_)
                | ChunkState::Collecting { .. }
                | ChunkState::Rescuing { .. }
                | ChunkState::Settled
                | ChunkState::Split { .. } => {}
            }
        }
    }

    pub(super) fn refile_everything(&mut self) {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in ids {
            self.refile_job(id);
        }
    }
}
