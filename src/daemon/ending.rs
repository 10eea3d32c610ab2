//! The last effects of a job: its outputs are written and delivered, its remains removed, or its
//! input is put aside.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::event::{Failure, Outcome};
use crate::engine::ids::BatchName;
use crate::engine::job::{Head, Input, Job, JobState, Plan, Refusal};
use crate::provider::gemini::Client;
use crate::spool::aside::{self, Aside};
use crate::spool::convert::{self, written_back};
use crate::spool::late::{self, Late};
use crate::spool::lost::{self, Needed};
use crate::spool::outbox::{self, DeliverOutcome};
use crate::spool::plan::CutRules;
use crate::spool::{JobFolder, SpoolError, archive, manifest, merge, problem};

use super::blocking::blocking;
use super::early;
use super::perform::{Performer, local, removed};

impl Performer {
    /// Writes results and errors aside.
    pub(super) async fn merge(&self, job: Job, key: Option<&str>) -> Result<Outcome, Failure> {
        let waste = self.weigh(&job, key).await;
        let (rules, folders) = (self.rules(&job.head), self.folders.clone());
        blocking(move || {
            let folder = folders.job(job.head.id);
            if let Some(path) = lost::lost(&folder, Needed::Everything(&job)) {
                return Err(removed(&folder, &path));
            }
            let prepared = job.head.state.plan().is_some_and(|plan| plan.prepared);
            let input = folder.requests(&job.head.source.name, prepared);
            let explain = |entry: &_| match problem::explain(&input, entry, &rules) {
                Ok(problem) => problem.message,
                Err(error) => error.to_string(),
            };
            let merged = outbox::free_stem(&folders, &job.head).and_then(|stem| {
                let tally = merge::merge(&folders, &job, &stem, &explain)?;
                write_back(&folder, &job, &rules)?;
                Ok((tally, stem))
            });
            let (mut tally, stem) = merged.map_err(|error| local(&error))?;
            (tally.wasted, tally.unweighed) = (waste.wasted, waste.unweighed);
            Ok(Outcome::Merged { tally, stem })
        })
        .await
    }

    /// Moves the outputs into the outbox, the manifest last.
    pub(super) async fn deliver(self: &Arc<Self>, job: Job) -> Result<Outcome, Failure> {
        let JobState::Delivering(mut delivery) = job.head.state.clone() else {
            return Err(Failure::Rejected("the job is not being delivered".to_owned()));
        };
        let this = Arc::clone(self);
        self.on_disk(move |folders| {
            if this.outbox_was_mounted {
                outbox::check_mounted(folders)?;
            }
            let (id, source) = (job.head.id, &job.head.source);
            if let Some(late) = late::hand_on(folders, id, source, &delivery.plan)? {
                let late = this.tell_late(&late, &delivery.plan);
                delivery.plan.warnings.push(late);
            }
            let manifest = manifest::manifest(&job, &delivery, env!("CARGO_PKG_VERSION"));
            match outbox::deliver(folders, &job, &delivery, &manifest)? {
                DeliverOutcome::Done => Ok(Outcome::Delivered),
                DeliverOutcome::NameTaken => {
                    let free = outbox::free_stem(folders, &job.head)?;
                    Ok(Outcome::NameTaken { free })
                }
            }
        })
        .await
    }

    /// Archives the input and removes what is left, here and at the API.
    pub(super) async fn clean(
        self: &Arc<Self>,
        job: Job,
        key: Option<&str>,
    ) -> Result<Outcome, Failure> {
        if self.remote_cleanup {
            self.clean_remote(&job, key).await;
        }
        let (this, keeping) = (Arc::clone(self), self.reusing());
        self.on_disk(move |folders| {
            keeping.keep(folders, &job);
            // After this nobody looks at the input any more.
            if let Some(plan) = job.head.state.plan()
                && let Some(late @ Late::Dropped { .. }) =
                    late::hand_on(folders, job.head.id, &job.head.source, plan)?
            {
                this.tell_late(&late, plan);
            }
            aside::withdraw_notice(folders, job.head.id, &job.head.source)?;
            archive::archive_input(folders, &job)?;
            archive::remove_working(folders, job.head.id)?;
            Ok(Outcome::Cleaned)
        })
        .await
    }

    /// Says what came of lines that were written after the input was read.
    fn tell_late(&self, late: &Late, plan: &Plan) -> String {
        if let Late::Dropped { .. } = late {
            self.dropped_late.store(true, Ordering::Relaxed);
        }
        let late = late.told(plan.bytes);
        tracing::error!(late, "the input was changed after it was read");
        late
    }

    /// Remains at the API cost nothing but room there; housekeeping finds what is left. Each batch
    /// is removed with the key it was made with; `key` is for records that do not say.
    async fn clean_remote(&self, job: &Job, key: Option<&str>) {
        for batch in job.chunks.values().flat_map(|chunk| &chunk.batches) {
            let removed = match self.clients.with(batch.key_print.as_deref().or(key)) {
                Ok(client) => discard(client, &batch.name, &batch.input, batch.input_gone).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = removed {
                let why = failure.message();
                tracing::warn!(batch = %batch.name.0, why, "left at the API for housekeeping");
                if !matches!(failure, Failure::Local(_)) {
                    return;
                }
            }
        }
        if job.head.state.plan().is_some_and(|plan| plan.media)
            && let Err(failure) = self.remove_media(job, key).await
        {
            let why = failure.message();
            tracing::warn!(why, "files that lines name are left at the API for housekeeping");
        }
    }

    /// Moves the input to `failed/` or `held/`.
    pub(super) async fn move_aside(
        &self,
        to: Aside,
        head: Head,
        refusal: Refusal,
        key: Option<&str>,
    ) -> Result<Outcome, Failure> {
        let (id, print) = (head.id, key.unwrap_or_default().to_owned());
        let moved = self.on_disk(move |folders| {
            let address = early::kept(&folders.job(head.id), &print);
            aside::move_aside(folders, to, head.id, &head.source, &refusal)?;
            // Answers are paid for: whoever took the input away may still want them.
            if !folders.job(head.id).has_answers() {
                archive::remove_working(folders, head.id)?;
            }
            Ok(address)
        });
        let address = moved.await?;
        self.give_up_early(id, address, key);
        Ok(Outcome::Moved)
    }
}

/// Writes the answers to a table beside its records, if its queue wants that.
fn write_back(folder: &JobFolder, job: &Job, rules: &CutRules) -> Result<(), SpoolError> {
    let Head { source, queue, state, .. } = &job.head;
    let Some(plan) = state.plan().filter(|_| written_back::is_wanted(&job.head)) else {
        return Ok(());
    };
    let (conversion, task) = (queue.conversion(), queue.task);
    let rules = convert::Rules { conversion, task, line_bytes_max: rules.line_limit() };
    written_back::write(folder, &source.name, plan.bytes, rules)
}

/// Removes a batch and its input file at the API, unless that is gone already.
pub(super) async fn discard(
    client: &Client,
    batch: &BatchName,
    input: &Input,
    input_gone: bool,
) -> Result<(), Failure> {
    was_there(client.delete_batch(batch).await)?;
    match input {
        Input::File(file) if !input_gone => was_there(client.delete_file(file).await).map(|_| ()),
        Input::File(_) | Input::Inline => Ok(()),
    }
}

/// Whether something was still there to be removed: what is gone already is as good.
pub(super) fn was_there(removed: Result<(), Failure>) -> Result<bool, Failure> {
    match removed {
        Ok(()) => Ok(true),
        Err(Failure::Gone(_)) => Ok(false),
        Err(failure) => Err(failure),
    }
}
