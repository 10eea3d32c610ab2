//! What the log says of effects.

use crate::engine::Which;
use crate::engine::effect::Effect;
use crate::engine::event::Failure;
use crate::engine::ids::JobId;

/// The span that log lines of an effect stand in.
pub(super) fn span_of(effect: &Effect) -> tracing::Span {
    let kind = effect.word();
    let attempt = |which: &Which| {
        let (chunk, attempt) = (which.chunk.0, which.attempt.0);
        tracing::info_span!("effect", kind, job = %which.job, chunk, attempt)
    };
    let job = |id: JobId| tracing::info_span!("effect", kind, job = %id);
    match effect {
        Effect::Claim { head, .. }
        | Effect::Plan { head, .. }
        | Effect::Refuse { head, .. }
        | Effect::Hold { head, .. }
        | Effect::Notify { head, .. }
        | Effect::Judge { head }
        | Effect::Withdraw { head } => job(head.id),
        Effect::Merge { job: whole }
        | Effect::Deliver { job: whole }
        | Effect::Clean { job: whole } => job(whole.head.id),
        Effect::Upload { which, .. }
        | Effect::Create { which, .. }
        | Effect::Find { which, .. }
        | Effect::Rescue { which, .. }
        | Effect::Collect { which, .. } => attempt(which),
        Effect::Poll { batches } => tracing::info_span!("effect", kind, batches = batches.len()),
        Effect::Discard { batch, .. } | Effect::CancelBatch { batch } => {
            tracing::info_span!("effect", kind, batch = %batch.0)
        }
        Effect::DropInput { file } => tracing::info_span!("effect", kind, file = %file.0),
    }
}

/// error: a person must act; warn: we try again.
pub(super) fn tell_failure(failure: &Failure) {
    let why = failure.message();
    match failure {
        Failure::Denied(_) => tracing::error!(why, "the API refuses the key; mend it and reload"),
        Failure::Barred(_) => tracing::error!(why, "the way to the API is barred; mend it"),
        Failure::Rejected(_) | Failure::Gone(_) => tracing::error!(why, "refused for good"),
        Failure::Removed(_) => tracing::error!(why, "can not go on without it"),
        Failure::Transient(_)
        | Failure::RateLimited { .. }
        | Failure::Ambiguous(_)
        | Failure::Damaged { .. }
        | Failure::Local(_) => tracing::warn!(why, "did not work; it is tried again"),
        Failure::NotReady(_) => tracing::debug!(why, "not ready yet"),
    }
}
