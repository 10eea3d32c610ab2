//! What a canary needs of the files: counted when it is back, and its answers laid beside the note
//! for people, as long as that lies there.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use crate::engine::canary::CANARY;
use crate::engine::event::{Failure, Outcome};
use crate::engine::job::{Head, Job, Refusal, Trial};
use crate::spool::{Folders, SpoolError, aside, canary, free_name, merge, problem};

use super::perform::Performer;

impl Performer {
    /// Counts the lines of a job's canary that came back badly.
    pub(super) async fn judge(&self, head: Head) -> Result<Outcome, Failure> {
        self.on_disk(move |folders| {
            let bad = match head.state.plan().and_then(|plan| Some((plan.canary.as_ref()?, plan))) {
                Some((trial, plan)) => canary::judge(&folders.job(head.id), trial, plan.rows)?,
                None => 0,
            };
            Ok(Outcome::Judged { bad })
        })
        .await
    }

    /// Tells people in `held/` that a job waits for them.
    pub(super) async fn notify(
        self: &Arc<Self>,
        head: Head,
        refusal: Refusal,
    ) -> Result<Outcome, Failure> {
        let this = Arc::clone(self);
        self.on_disk(move |folders| {
            let _one = this.notes.lock().unwrap_or_else(PoisonError::into_inner);
            let name = aside::notice(folders, head.id, &head.source, &refusal)?;
            if refusal.reason == CANARY
                && let Some(trial) = head.state.plan().and_then(|plan| plan.canary.clone())
            {
                this.lay_beside(folders, &name, head, &trial)?;
            }
            Ok(Outcome::Told)
        })
        .await
    }

    fn lay_beside(
        &self,
        folders: &Folders,
        name: &str,
        head: Head,
        trial: &Trial,
    ) -> Result<(), SpoolError> {
        let prepared = head.state.plan().is_some_and(|plan| plan.prepared);
        let rules = self.rules(&head);
        let input = folders.job(head.id).requests(&head.source.name, prepared);
        let explain = |entry: &_| match problem::explain(&input, entry, &rules) {
            Ok(problem) => problem.message,
            Err(error) => error.to_string(),
        };
        let held = free_name::sub_folder(&folders.held, &head.source.folder)?;
        let outputs = canary::beside(&held, name);
        let job = Job { head, chunks: BTreeMap::new() };
        merge::part(folders, &job, &trial.runs, outputs, &explain)
    }
}
